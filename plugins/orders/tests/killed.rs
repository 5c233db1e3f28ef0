//! The orders handler is killed with SIGKILL at arbitrary moments; what it had reported done must be in the store,
//! and doing every task again must change nothing twice.

use rusqlite::Connection;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use warren_orders::Orders;
use warren_plugin::testing::{TaskSpec, TestKit};

/// Tells the child (this test binary again) which store to write to, and from which order on.
const STORE: &str = "WARREN_ORDERS_TEST_STORE";
const FROM: &str = "WARREN_ORDERS_TEST_FROM";

#[test]
fn a_killed_handler_loses_nothing_it_reported_and_repeats_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = directory.path().join("orders.db");
    let mut reported = Vec::new();
    for round in 0..6 {
        // A different number of reports each time, so that the kill falls on different steps.
        reported.extend(reports_before_kill(&store, round * 1000, 3 + 7 * round));
        assert_entered(&store, &reported);
    }
    // Every task comes again, as the broker would send it, and so does one the child may not have reached.
    let mut kit = shop(&store);
    for round in 0..6 {
        for number in round * 1000..round * 1000 + 60 {
            for spec in tasks_of(number) {
                let ran = kit.run(spec.redelivered());
                assert!(ran.outcome.is_ok(), "{:?}", ran.outcome);
            }
        }
    }
    let db = Connection::open(&store).expect("the store opens");
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number");
    let orders = count("SELECT count(*) FROM orders");
    assert!(orders >= 6 * 60);
    assert_eq!(orders, count("SELECT count(*) FROM payments"));
    assert_eq!(orders, count("SELECT count(*) FROM stock_moves WHERE reason = 'order'"));
    assert_eq!(-orders, count("SELECT quantity FROM stock WHERE sku = 'item'"));
}

/// Not a test of its own: the process that gets killed. Without the environment it has nothing to do.
#[test]
fn child_that_processes_orders_until_killed() {
    let (Ok(store), Ok(from)) = (std::env::var(STORE), std::env::var(FROM)) else { return };
    let mut kit = shop(Path::new(&store));
    let from: usize = from.parse().expect("a number");
    for number in from..from + 1000 {
        for spec in tasks_of(number) {
            kit.run(spec).outcome.expect("done");
        }
        println!("\ndone {number}");
    }
}

fn shop(store: &Path) -> TestKit<Orders> {
    TestKit::new(json!({"database": store})).expect("the settings are good")
}

/// An order and its follow-ups, with the ids the host gives them.
fn tasks_of(number: usize) -> [TaskSpec; 3] {
    [
        TaskSpec::text(format!("Process order #{number}")).id(format!("t{number}")),
        TaskSpec::text(format!("Process payment #{number}")).id(format!("t{number}/1")),
        TaskSpec::text(format!("Update inventory #{number}")).id(format!("t{number}/2")),
    ]
}

/// Runs the child until it has reported `reports` orders, and kills it then.
fn reports_before_kill(store: &Path, from: usize, reports: usize) -> Vec<usize> {
    let mut child = Command::new(std::env::current_exe().expect("this test's path"))
        .args(["--exact", "child_that_processes_orders_until_killed", "--nocapture", "--test-threads=1"])
        .env(STORE, store)
        .env(FROM, from.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let reported: Vec<usize> = lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("done ")?.parse().ok())
        .take(reports)
        .collect();
    child.kill().expect("SIGKILL");
    child.wait().expect("it is gone");
    assert_eq!(reported.len(), reports, "the child stopped by itself");
    reported
}

fn assert_entered(store: &Path, numbers: &[usize]) {
    let db = Connection::open(store).expect("the store opens after the kill");
    let check: String =
        db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("it can be checked");
    assert_eq!(check, "ok");
    for number in numbers {
        let entered = |sql: &str| db.query_row(sql, [number.to_string()], |_| Ok(())).is_ok();
        assert!(entered("SELECT 1 FROM orders WHERE number = ?1"), "order {number} was reported done");
        assert!(entered("SELECT 1 FROM payments WHERE number = ?1"), "payment {number} was reported done");
        assert!(entered("SELECT 1 FROM stock_moves WHERE number = ?1"), "stock {number} was reported done");
    }
}
