//! The report handler against real databases and files.

#[path = "../../documented.rs"]
mod documented;

use documented::documented_settings;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use warren_generate_report::GenerateReport;
use warren_plugin::Level;
use warren_plugin::testing::{Ran, TaskSpec, TestKit};

const QUERY: &str = "SELECT region, sum(amount) AS amount FROM sales
    WHERE :argument IS NULL OR quarter = :argument GROUP BY region ORDER BY region";

struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self::without_database();
        place.make_database();
        place
    }

    fn without_database() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(root.path().join("reports")).expect("the directory");
        Self { root }
    }

    fn make_database(&self) {
        Connection::open(self.database())
            .and_then(|db| {
                db.execute_batch(
                    "CREATE TABLE sales (quarter TEXT, region TEXT, amount INTEGER);
                     INSERT INTO sales VALUES ('Q2', 'north', 10), ('Q3', 'north', 30), ('Q3', '=south', 40),
                                              ('Q3', '<b>west</b>', -5), ('Q4', 'north', 1);",
                )
            })
            .expect("a database");
    }

    fn database(&self) -> PathBuf {
        self.root.path().join("shop.db")
    }

    fn directory(&self) -> PathBuf {
        self.root.path().join("reports")
    }

    fn settings(&self, more: &Value) -> Value {
        let mut settings = json!({
            "database": self.database(), "directory": self.directory(), "title": "Sales", "query": QUERY,
        });
        settings.as_object_mut().expect("a table").extend(more.as_object().expect("a table").clone());
        settings
    }

    fn kit(&self, more: &Value) -> TestKit<GenerateReport> {
        TestKit::new(self.settings(more)).expect("the settings are good")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The directory's files but the lock, in the order of their names.
    fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.directory())
            .expect("the directory")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .filter(|name| name != ".warren-report.lock")
            .collect();
        names.sort();
        names
    }
}

fn result(ran: &Ran) -> Value {
    serde_json::from_slice(ran.done().bytes()).expect("a JSON result")
}

#[test]
fn a_report_is_a_csv_and_a_page_with_the_arguments_rows() {
    let place = Place::new();
    let mut kit = place.kit(&json!({"chart": {"label": "region", "value": "amount"}}));
    let result = result(&kit.run("Task 3: Generate report for Q3"));
    assert_eq!(result["rows"], 3);
    assert_eq!(result["csv"], json!(place.directory().join("Sales-Q3.csv")));
    assert_eq!(place.files(), ["Sales-Q3.csv", "Sales-Q3.html"]);
    assert_eq!(place.read("Sales-Q3.csv"), "region,amount\r\n<b>west</b>,-5\r\n'=south,40\r\nnorth,30\r\n");
    let page = place.read("Sales-Q3.html");
    assert!(page.contains("<h1>Sales: Q3</h1>") && page.contains("3 rows"), "{page}");
    assert!(page.contains("<td>&lt;b&gt;west&lt;/b&gt;</td><td class=\"number\">-5</td>"), "{page}");
    assert_eq!(page.matches("<rect").count(), 3, "a bar for each row");
    let mode =
        fs::metadata(place.directory().join("Sales-Q3.csv")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "others cannot read it");
}

#[test]
fn without_an_argument_the_query_sees_null_and_the_report_is_replaced_next_time() {
    let place = Place::new();
    let mut kit = place.kit(&json!({"formula_guard": false}));
    assert_eq!(result(&kit.run("Generate report"))["rows"], 3);
    assert!(place.read("Sales.csv").contains("\r\n=south,40\r\n"));
    Connection::open(place.database())
        .and_then(|db| db.execute_batch("DELETE FROM sales WHERE region <> 'north'"))
        .expect("fewer sales");
    assert_eq!(result(&kit.run("Generate report"))["rows"], 1);
    assert_eq!(place.read("Sales.csv"), "region,amount\r\nnorth,41\r\n");
    assert_eq!(place.files(), ["Sales.csv", "Sales.html"]);
}

#[test]
fn a_report_replaces_nothing_but_a_report_of_its_own() {
    let place = Place::new();
    let other = place.root.path().join("crm.db");
    fs::copy(place.database(), &other).expect("another database");
    Connection::open(&other)
        .and_then(|db| db.execute_batch("UPDATE sales SET amount = 7"))
        .expect("its rows");
    let mut shop = place.kit(&json!({}));
    let mut crm = place.kit(&json!({"database": other}));
    shop.run("Generate report for Q2").done();
    let second = crm.run("Generate report for Q2");
    let html = result(&second)["html"].as_str().expect("a path").to_owned();
    assert!(html.contains("/Sales-Q2-") && html.len() > "/Sales-Q2-.html".len() + 8, "{html}");
    assert!(second.logs.iter().any(|line| line.level == Level::Warn), "{:?}", second.logs);
    assert_eq!(place.read("Sales-Q2.csv"), "region,amount\r\nnorth,10\r\n", "the first one's report");
    assert!(fs::read_to_string(html.replace(".html", ".csv")).expect("the second's").contains("north,7"));
    // Each keeps its name the next time, a changed query or not.
    assert_eq!(result(&crm.run("Generate report for Q2"))["html"], json!(html));
    let mut changed = place.kit(&json!({"query": "SELECT 1 AS one"}));
    assert_eq!(
        result(&changed.run("Generate report for Q2"))["csv"],
        json!(place.directory().join("Sales-Q2.csv"))
    );
    assert_eq!(place.files().len(), 4, "{:?}", place.files());
}

#[test]
fn files_that_are_no_report_are_left_alone_and_reports_of_the_first_version_are_replaced() {
    let place = Place::new();
    let mut kit = place.kit(&json!({}));
    for (name, content) in [("Sales-Q2.csv", "mine"), ("Sales-Q3.html", "<!DOCTYPE html>\n<p>mine")] {
        fs::write(place.directory().join(name), content).expect("a file of somebody");
        let argument = &name[6..8];
        let written = result(&kit.run(format!("Generate report for {argument}").as_str()));
        assert_ne!(written["csv"], json!(place.directory().join(name)), "{name}");
        assert_eq!(place.read(name), content);
    }
    kit.run("Generate report for Q4").done();
    let page = place.read("Sales-Q4.html");
    let first_version: String =
        page.split_inclusive('\n').filter(|line| !line.contains("generator")).collect();
    assert_ne!(page, first_version);
    fs::write(place.directory().join("Sales-Q4.html"), first_version).expect("as 0.1 wrote it");
    let again = kit.run("Generate report for Q4");
    assert_eq!(result(&again)["html"], json!(place.directory().join("Sales-Q4.html")));
    assert!(again.logs.iter().all(|line| line.level != Level::Warn), "{:?}", again.logs);
}

#[test]
fn a_typed_task_names_its_argument_in_json() {
    let place = Place::new();
    let mut kit = place.kit(&json!({}));
    kit.run(TaskSpec::typed("Generate report", r#"{"argument": "Q2"}"#)).done();
    assert_eq!(place.read("Sales-Q2.csv"), "region,amount\r\nnorth,10\r\n");
    let ran = kit.run(TaskSpec::typed("Generate report", r#"{"quarter": "Q2"}"#));
    assert!(ran.failure().is_reject(), "{}", ran.failure());
}

#[test]
fn an_argument_is_never_sql_and_never_a_path() {
    let place = Place::new();
    let mut kit = place.kit(&json!({}));
    for argument in ["Q3' OR '1'='1", "../../../escaped", "x; DROP TABLE sales", "<script>alert(1)</script>"]
    {
        let result = result(&kit.run(format!("Generate report for {argument}")));
        assert_eq!(result["rows"], 0, "{argument}");
        let html = PathBuf::from(result["html"].as_str().expect("a path"));
        assert_eq!(html.parent(), Some(place.directory().as_path()), "{argument}");
        assert!(!fs::read_to_string(html).expect("the page").contains("<script"), "{argument}");
    }
    assert_eq!(place.files().len(), 8);
    assert_eq!(fs::read_dir(place.root.path()).expect("the root").count(), 2, "nothing outside");
    assert_eq!(result(&kit.run("Generate report for Q3"))["rows"], 3, "the table is still there");
}

#[test]
fn more_rows_than_allowed_are_a_reject_and_no_report() {
    let place = Place::new();
    let ran = place.kit(&json!({"max_rows": 2})).run("Generate report");
    assert!(ran.failure().is_reject());
    assert_eq!(ran.failure().code(), "too-many-rows");
    assert!(ran.failure().message().contains("raise settings.max_rows"));
    assert_eq!(place.files(), [] as [&str; 0]);
    let huge = "SELECT hex(zeroblob(9000000)) UNION ALL SELECT hex(zeroblob(9000001))";
    let ran = place.kit(&json!({"query": huge})).run("Generate report");
    assert_eq!((ran.failure().code(), ran.failure().is_reject()), ("too-large", true));
}

#[test]
fn a_query_without_end_is_interrupted_when_the_task_is_cancelled() {
    let place = Place::new();
    let endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    let mut kit = place.kit(&json!({"query": endless})).real_clock();
    // The handler's own look comes before the first row; the next one is made while the query runs.
    kit.cancel_after(2);
    let ran = kit.run("Generate report");
    assert!(ran.failure().is_cancelled(), "{}", ran.failure());
    kit.deadline(Duration::from_millis(150));
    let ran = kit.run("Generate report");
    assert!(ran.failure().is_cancelled(), "{}", ran.failure());
    assert_eq!(place.files(), [] as [&str; 0]);
}

#[test]
fn a_missing_database_is_retried_and_found_when_it_is_there() {
    let place = Place::without_database();
    let mut kit = place.kit(&json!({}));
    assert!(kit.logs().iter().any(|line| line.level == Level::Warn), "start-up warns");
    let ran = kit.run("Generate report");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("no-database", true));
    assert!(!place.database().exists(), "asking did not make it");
    place.make_database();
    kit.run("Generate report").done();
}

#[test]
fn a_table_that_is_gone_is_retried_with_the_databases_words() {
    let place = Place::new();
    let mut kit = place.kit(&json!({}));
    Connection::open(place.database())
        .and_then(|db| db.execute_batch("DROP TABLE sales"))
        .expect("somebody drops it");
    let ran = kit.run("Generate report");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("bad-query", true));
    assert!(ran.failure().message().contains("no such table: sales"), "{}", ran.failure());
}

#[test]
fn a_directory_that_went_away_is_retried_and_a_killed_reports_rest_is_replaced() {
    let place = Place::new();
    let mut kit = place.kit(&json!({}));
    fs::write(place.directory().join(".warren-report.tmp"), "half a report")
        .expect("left by a killed process");
    kit.run("Generate report").done();
    assert_eq!(place.files(), ["Sales.csv", "Sales.html"]);
    fs::remove_dir_all(place.directory()).expect("unmounted");
    let ran = kit.run("Generate report");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("no-directory", true));
}

#[test]
fn wrong_settings_are_refused_with_the_key_and_the_remedy() {
    let place = Place::new();
    for (settings, expected) in [
        (json!({"database": "shop.db"}), "settings.database must be an absolute path"),
        (json!({"directory": "reports"}), "settings.directory must be an absolute path"),
        (json!({"directory": "/nowhere/at/all"}), "/nowhere/at/all is not a directory; make it"),
        (json!({"query": "DELETE FROM sales"}), "settings.query must be a SELECT"),
        (json!({"query": "SELECT 1; SELECT 2"}), "settings.query must be a single statement"),
        (json!({"query": "SELECT town FROM sales"}), "no such column: town"),
        (json!({"query": "SELECT ?1"}), "settings.query has a parameter other than :argument"),
        (
            json!({"chart": {"label": "town", "value": "amount"}}),
            "settings.chart.label: the query has no column \"town\"; it has region, amount",
        ),
        (json!({"chart": {"label": "region", "value": "sum"}}), "settings.chart.value"),
        (json!({"chart": {"label": "region"}}), "value"),
        (json!({"title": " "}), "settings.title must be"),
        (json!({"max_rows": 0}), "settings.max_rows must be 1 to 100000"),
        (json!({"titel": "x"}), "titel"),
    ] {
        let failure = TestKit::<GenerateReport>::new(place.settings(&settings))
            .err()
            .unwrap_or_else(|| panic!("{settings} is refused"));
        assert!(failure.message().contains(expected), "{settings}: {}", failure.message());
    }
}

#[test]
fn the_documented_settings_are_taken() {
    let place = Place::new();
    let mut settings = documented_settings(include_str!("../src/lib.rs"));
    settings["database"] = json!(place.database());
    settings["directory"] = json!(place.directory());
    let mut kit = TestKit::<GenerateReport>::new(settings).expect("they are good");
    assert_eq!(result(&kit.run("Generate report for Q3"))["rows"], 3);
    assert_eq!(place.read("Sales-Q3.html").matches("<rect").count(), 3);
}
