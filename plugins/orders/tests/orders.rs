//! The orders handler against a real store on disk.

#[path = "../../documented.rs"]
mod documented;

use documented::documented_settings;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use warren_orders::Orders;
use warren_plugin::testing::{TaskSpec, TestKit};
use warren_plugin::{Failure, Outcome};

const PREFIXES: [&str; 4] = ["Process order", "Process payment", "Update inventory", "Bestelle"];

struct Shop {
    kit: TestKit<Orders>,
    database: PathBuf,
    _directory: TempDir,
}

impl Shop {
    fn open() -> Self {
        Self::with(&json!({}))
    }

    /// A shop with these settings beside its database.
    fn with(settings: &Value) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let database = directory.path().join("orders.db");
        let kit = kit(&database, settings).expect("the settings are good");
        Self { kit, database, _directory: directory }
    }

    fn run(&mut self, id: &str, text: &str) -> Outcome {
        self.kit.run(TaskSpec::text(text).id(id)).outcome
    }

    fn done(&mut self, id: &str, text: &str) -> Value {
        json_of(self.run(id, text))
    }

    /// One value from the store, read by a connection of its own.
    fn stored(&self, sql: &str) -> Value {
        stored(&self.database, sql)
    }
}

fn kit(database: &Path, settings: &Value) -> Result<TestKit<Orders>, Failure> {
    let mut all = json!({"database": database});
    all.as_object_mut().expect("an object").extend(settings.as_object().expect("an object").clone());
    TestKit::<Orders>::new(all).map(|kit| kit.prefixes(PREFIXES))
}

fn stored(database: &Path, sql: &str) -> Value {
    let db = Connection::open(database).expect("the store opens");
    db.query_row(sql, [], |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Integer(number) => json!(number),
            rusqlite::types::ValueRef::Text(text) => json!(String::from_utf8_lossy(text)),
            _ => Value::Null,
        })
    })
    .expect("one row")
}

fn json_of(outcome: Outcome) -> Value {
    let done = outcome.unwrap_or_else(|failure| panic!("not done: {failure}"));
    serde_json::from_slice(done.bytes()).expect("a JSON result")
}

fn refusal(outcome: Outcome) -> Failure {
    outcome.expect_err("the task is refused")
}

#[test]
fn an_order_is_entered_and_its_payment_and_inventory_tasks_are_published() {
    let mut shop = Shop::with(&json!({"default_price": 990, "stock": {"item": 10}}));
    let ran = shop.kit.run(TaskSpec::text("Task 1: Process order #1001").id("a"));
    let published: Vec<_> = ran.published.iter().map(|message| message.text().into_owned()).collect();
    assert_eq!(published, ["Process payment #1001", "Update inventory #1001"]);
    assert!(ran.published.iter().all(|message| message.id.is_none() && message.queue.is_none()));
    let result = json_of(ran.outcome);
    assert_eq!(
        result,
        json!({"order": "1001", "items": 1, "total": 990, "currency": "EUR", "already": false})
    );

    let payment = shop.done("a/1", &published[0]);
    assert_eq!((&payment["amount"], &payment["known_order"]), (&json!(990), &json!(true)));
    shop.done("a/2", &published[1]);
    assert_eq!(shop.stored("SELECT quantity FROM stock WHERE sku = 'item'"), 9);
}

#[test]
fn a_repeated_task_changes_nothing_and_publishes_its_follow_ups_again() {
    let mut shop = Shop::with(&json!({"stock": {"item": 10}}));
    let first = shop.done("a", "Process order #1001");
    let ran = shop.kit.run(TaskSpec::text("Process order #1001").id("a").redelivered());
    assert_eq!(ran.published.len(), 2, "the first run may have died before publishing them");
    let mut expected = first;
    expected["already"] = json!(true);
    assert_eq!(json_of(ran.outcome), expected);

    for _ in 0..2 {
        shop.done("a/1", "Process payment #1001");
        shop.done("a/2", "Update inventory #1001");
        shop.done("c", "Update inventory");
    }
    assert_eq!(shop.stored("SELECT count(*) FROM orders"), 1);
    assert_eq!(shop.stored("SELECT count(*) FROM payments"), 1);
    assert_eq!(shop.stored("SELECT quantity FROM stock WHERE sku = 'item'"), 9);
    assert_eq!(shop.stored("SELECT count(*) FROM effects"), 4);
}

#[test]
fn the_same_order_under_another_task_id_is_entered_paid_and_taken_out_once() {
    let mut shop = Shop::with(&json!({"stock": {"item": 10}}));
    for producer in ["a", "b"] {
        let already = json!(producer == "b");
        assert_eq!(shop.done(producer, "Process order #1001")["already"], already);
        assert_eq!(shop.done(&format!("{producer}/1"), "Process payment #1001")["already"], already);
        assert_eq!(shop.done(&format!("{producer}/2"), "Update inventory #1001")["already"], already);
    }
    assert_eq!(shop.stored("SELECT quantity FROM stock WHERE sku = 'item'"), 9);
}

#[test]
fn one_id_for_two_different_tasks_is_rejected() {
    let mut shop = Shop::open();
    shop.done("1", "Process order #1001");
    let failure = refusal(shop.run("1", "Process order #1002"));
    assert!(failure.is_reject());
    assert_eq!(failure.code(), "task-id-reused");
    assert_eq!(shop.stored("SELECT count(*) FROM orders"), 1);
}

#[test]
fn a_payment_of_an_unknown_order_is_entered_and_gets_its_amount_when_the_order_comes() {
    let mut shop = Shop::with(&json!({"default_price": 500}));
    let payment = shop.done("p", "Task 5: Process payment #2001");
    assert_eq!(payment["known_order"], json!(false));
    assert_eq!(payment["amount"], Value::Null);
    shop.done("o", "Process order #2001");
    assert_eq!(shop.stored("SELECT amount FROM payments WHERE number = '2001'"), 500);
    assert_eq!(shop.done("o/1", "Process payment #2001")["already"], json!(true));
}

#[test]
fn stock_for_an_unknown_order_is_retried() {
    let mut shop = Shop::open();
    let failure = refusal(shop.run("i", "Update inventory #7"));
    assert!(failure.is_retry());
    assert_eq!(failure.code(), "unknown-order");
    shop.done("o", "Process order #7");
    assert_eq!(shop.done("i", "Update inventory #7")["short"], json!(["item"]));
}

#[test]
fn a_recount_makes_stock_what_its_moves_add_up_to() {
    let mut shop = Shop::with(&json!({"stock": {"lamp": 10, "shade": 3}}));
    assert_eq!(shop.done("1", "Task 6: Update inventory")["corrected"], 0);
    Connection::open(&shop.database)
        .and_then(|db| db.execute("UPDATE stock SET quantity = 99 WHERE sku = 'lamp'", []))
        .expect("somebody meddles");
    let counted = shop.done("2", "Update inventory");
    assert_eq!(counted, json!({"items": 2, "pieces": 13, "short": 0, "corrected": 1, "already": false}));
    assert_eq!(shop.stored("SELECT quantity FROM stock WHERE sku = 'lamp'"), 10);
}

#[test]
fn json_tasks_carry_items_amounts_and_counts() {
    let mut shop = Shop::open();
    let mut run = |id: &str, kind: &str, body: Value| {
        let spec = TaskSpec::typed(kind, body.to_string()).id(id);
        shop.kit.run(spec.content_type("application/json")).outcome
    };
    let order =
        json!({"order": 5, "currency": "USD", "items": [{"sku": "lamp", "quantity": 2, "price": 1250}]});
    assert_eq!(json_of(run("o", "Process order", order.clone()))["total"], 2500);
    assert_eq!(json_of(run("o2", "Process order", order))["already"], json!(true));
    let other = json!({"order": 5, "items": [{"sku": "lamp", "quantity": 3, "price": 1250}]});
    assert_eq!(refusal(run("o3", "Process order", other)).code(), "order-differs");

    let paid = json_of(run("p", "Process payment", json!({"order": 5, "amount": 2500})));
    assert_eq!((&paid["amount"], &paid["currency"]), (&json!(2500), &json!("USD")));
    let again = run("p2", "Process payment", json!({"order": 5, "amount": 1}));
    assert_eq!(refusal(again).code(), "already-paid");

    let stock = |outcome| json_of(outcome)["stock"].clone();
    assert_eq!(stock(run("i1", "Update inventory", json!({"sku": "lamp", "change": 40}))), 40);
    json_of(run("i2", "Update inventory", json!({"order": "#5"})));
    let counted = json_of(run("i3", "Update inventory", json!({"sku": "lamp", "count": 36})));
    assert_eq!((&counted["stock"], &counted["change"]), (&json!(36), &json!(-2)));
}

#[test]
fn a_malformed_task_is_rejected_and_leaves_no_trace() {
    let mut shop = Shop::open();
    for text in ["Process order", "Process order one two", "Process payment #", "Update inventory !"] {
        let failure = refusal(shop.run("x", text));
        assert!(failure.is_reject(), "{text}: {failure}");
    }
    assert_eq!(shop.stored("SELECT count(*) FROM effects"), 0);
}

#[test]
fn a_store_locked_by_another_process_is_retried() {
    let mut shop = Shop::with(&json!({"busy_timeout": "10ms"}));
    let other = Connection::open(&shop.database).expect("a second connection");
    other.execute_batch("BEGIN IMMEDIATE").expect("the write lock");
    let failure = refusal(shop.run("a", "Process order #1"));
    assert!(failure.is_retry());
    assert_eq!(failure.code(), "store-busy");
    other.execute_batch("ROLLBACK").expect("the lock is given back");
    shop.done("a", "Process order #1");
}

#[test]
fn a_result_says_when_the_producer_gave_no_id() {
    let mut shop = Shop::open();
    let ran = shop.kit.run("Process order #1");
    assert!(ran.logs.iter().any(|line| line.message.contains("message_id")), "the log says what to do");
    assert_eq!(json_of(ran.outcome)["task_id"], json!("generated"));
}

#[test]
fn follow_ups_go_to_the_configured_queue_under_the_configured_prefixes() {
    let prefixes = json!({"order": "Bestelle", "payment": "Zahle", "inventory": "Lager"});
    let mut shop = Shop::with(&json!({"follow_up_queue": "slow", "prefixes": prefixes}));
    let ran = shop.kit.run("Bestelle #1");
    json_of(ran.outcome);
    let sent: Vec<_> = ran.published.iter().map(|m| (m.text().into_owned(), m.queue.clone())).collect();
    assert_eq!(sent, [("Zahle #1".into(), Some("slow".into())), ("Lager #1".into(), Some("slow".into()))]);
    assert_eq!(refusal(shop.run("x", "Process order #1")).code(), "unknown-prefix");
}

#[test]
fn old_task_ids_are_forgotten() {
    let mut shop = Shop::with(&json!({"remember": "1h"}));
    shop.done("a", "Process order #1");
    Connection::open(&shop.database)
        .and_then(|db| db.execute("UPDATE effects SET at = at - 7200", []))
        .expect("two hours pass");
    shop.done("b", "Process order #2");
    assert_eq!(shop.stored("SELECT group_concat(task_id) FROM effects"), "b");
}

#[test]
fn wrong_settings_are_refused_with_the_key_and_the_remedy() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = directory.path().join("orders.db");
    for (settings, expected) in [
        (json!({"database": "orders.db"}), "settings.database must be an absolute path"),
        (json!({"busy_timeout": "2m"}), "settings.busy_timeout must be at most 60s"),
        (json!({"currency": "euro"}), "settings.currency must be three capital letters"),
        (json!({"default_item": "a b"}), "settings.default_item must be"),
        (json!({"default_price": -1}), "settings.default_price must be"),
        (json!({"remember": "1m"}), "settings.remember must be at least 1h"),
        (json!({"follow_up_queue": ""}), "settings.follow_up_queue must be"),
        (json!({"stock": {"a b": 1}}), "settings.stock.a b"),
        (json!({"prefixes": {"order": "Process payment"}}), "settings.prefixes"),
        (json!({"databse": "/x"}), "databse"),
    ] {
        let failure = kit(&database, &settings).err().unwrap_or_else(|| panic!("{settings} is refused"));
        assert!(failure.message().contains(expected), "{settings}: {}", failure.message());
        assert!(!database.exists(), "{settings}: nothing was made");
    }
}

#[test]
fn another_programs_database_and_a_newer_store_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let database = directory.path().join("other.db");
    Connection::open(&database)
        .and_then(|db| db.execute_batch("CREATE TABLE theirs (x)"))
        .expect("another program's database");
    let failure = kit(&database, &json!({})).err().expect("refused");
    assert!(failure.message().contains("another program's database"), "{failure}");

    let database = directory.path().join("newer.db");
    drop(kit(&database, &json!({})).expect("a new store"));
    Connection::open(&database)
        .and_then(|db| db.pragma_update(None, "user_version", 99))
        .expect("a later version wrote it");
    let failure = kit(&database, &json!({})).err().expect("refused");
    assert!(failure.message().contains("has schema 99"), "{failure}");

    let database = directory.path().join("text.db");
    std::fs::write(&database, "this is no database, and long enough to be asked about it\n".repeat(20))
        .expect("a text file");
    let failure = kit(&database, &json!({})).err().expect("refused");
    assert!(failure.message().contains("settings.database"), "{failure}");
}

#[test]
fn the_documented_settings_are_taken() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut settings = documented_settings(include_str!("../src/lib.rs"));
    settings["database"] = json!(directory.path().join("orders.db"));
    let mut kit = TestKit::<Orders>::new(settings).expect("they are good").prefixes(PREFIXES);
    let ran = kit.run("Process order #1");
    ran.done();
    assert_eq!(ran.published[0].queue.as_deref(), Some("payments"));
}
