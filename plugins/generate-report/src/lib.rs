//! Warren handler: an SQL query as CSV and as an HTML page.
//!
//! `Generate report for Q3` runs the configured query on an SQLite database and writes `Sales-Q3.csv` and
//! `Sales-Q3.html`: a table, and a bar chart if one is configured, in one page that needs no network and no script.
//!
//! # Settings
//!
//! ```toml
//! [handlers.sales-report]
//! plugin   = "generate-report"
//! prefixes = ["Generate report"]
//! timeout  = "5m"
//!
//! [handlers.sales-report.settings]
//! database  = "/var/lib/shop/shop.db"   # required; opened read-only
//! directory = "/var/lib/shop/reports"   # required; must exist and be writable for the daemon's user
//! title     = "Sales"                   # heading and file name; "Report" if left out
//! query     = """
//!     SELECT region, sum(amount) AS amount FROM sales
//!     WHERE :argument IS NULL OR quarter = :argument
//!     GROUP BY region ORDER BY amount DESC"""
//! chart     = { label = "region", value = "amount" }   # columns of the query; no chart if left out
//! max_rows  = 10000                     # more rows are an error: a shortened report would be a wrong one
//! formula_guard = true                  # see below
//! ```
//!
//! # The argument
//!
//! What follows the prefix, without a leading `for `: `Q3` here. It is bound to `:argument` where the query uses
//! that, as text, and as `NULL` when the task has none; it is never put into the SQL. It is added to title and file
//! name either way, so a query that does not use it gives the same rows under each argument's name. A task routed
//! by its AMQP `type` can have a JSON body instead: `{"argument": "Q3"}`.
//!
//! # What to expect
//!
//! - The query must be a single SELECT that only reads. That is checked when the handler starts, if the database is
//!   there, and before each report; a query that the database refuses then is a retry, as its tables may be on
//!   their way. Anything else that goes wrong is a retry too, but for too many rows (`max_rows`) or too much text
//!   (16 MiB), which are a reject.
//! - The same title and argument give the same file names. Words (`A-Z a-z 0-9 _`) stay; anything else becomes `-`
//!   and adds eight digits of a hash, so that no argument leaves the directory or replaces another one's report.
//! - Each file appears whole, the page first, and is readable for its owner and group. It replaces nothing but a report of
//!   the same database and title: the page says whose it is. Where the name is another handler's, or a file that is no
//!   report, the files get eight digits more, and the log a warning. Two handlers with one database, title and directory
//!   (on two machines, too) replace each other's reports; `warrenctl config check` and `doctor` warn of it.
//! - CSV is RFC 4180 in UTF-8, with CRLF and a header line. A spreadsheet runs text that begins with `=`, `+`, `-`
//!   or `@` as a formula, so such text gets an apostrophe before it, numbers excepted. Programs that read the CSV
//!   may want the text as it is: `formula_guard = false`.
//! - A running query is interrupted when the task is cancelled or its time is up.
//! - The result is JSON: `csv`, `html`, `rows`.

mod chart;
mod csv;
mod files;
mod html;
mod page;
mod query;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use warren_plugin::{Call, Done, Failure, Handler, Host, Level, Outcome, Task, reject, retry};

/// The most rows `max_rows` may allow; a page of more is not read, and a browser takes long to lay it out.
const ROWS_LIMIT: usize = 100_000;

/// The handler: its checked settings. The database is opened for each report, so that a replaced file is seen.
pub struct GenerateReport {
    settings: Settings,
}

/// `[handlers.NAME.settings]`; the crate's documentation says what each is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    database: PathBuf,
    directory: PathBuf,
    query: String,
    #[serde(default = "report")]
    title: String,
    chart: Option<Chart>,
    #[serde(default = "ten_thousand")]
    max_rows: usize,
    #[serde(default = "yes")]
    formula_guard: bool,
}

/// The columns of the bar chart.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Chart {
    label: String,
    value: String,
}

/// The body of a task routed by its AMQP `type`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    argument: Option<String>,
}

/// What the producer and the log are told.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    csv: &'a PathBuf,
    html: &'a PathBuf,
    rows: usize,
}

warren_plugin::export_plugin!(
    GenerateReport,
    name = "generate-report",
    prefixes = ["Generate report"],
    timeout = "5m",
    settings = ["database", "directory", "query", "title", "chart", "max_rows", "formula_guard"],
    exclusive = ["directory", "title"],
    stores = ["directory"],
);

impl Handler for GenerateReport {
    type Settings = Settings;

    fn new(settings: Settings, host: &Host) -> Result<Self, Failure> {
        settings.check()?;
        if settings.database.exists() {
            let db = query::open(&settings.database)?;
            settings.prepare(&db).map_err(|error| reject("bad-settings", error.0))?;
        } else {
            let path = settings.database.display().to_string();
            host.log(Level::Warn, "there is no database to report on yet", &[("DATABASE", &path)]);
        }
        Ok(Self { settings })
    }

    fn handle(&mut self, task: &Task<'_>, call: &Call<'_>) -> Outcome {
        let argument = argument(task)?;
        let settings = &self.settings;
        let db = query::open(&settings.database)?;
        let mut statement = settings.prepare(&db).map_err(|error| retry("bad-query", error.0))?;
        let bound = Some(argument.as_str()).filter(|text| !text.is_empty());
        call.progress(0, "asking the database");
        let table = query::run(&db, &mut statement, bound, settings.max_rows, call)?;

        call.progress(800, "writing");
        let title = match bound {
            Some(argument) => format!("{}: {argument}", settings.title),
            None => settings.title.clone(),
        };
        let chart = settings.chart.as_ref().map(|chart| (chart.label.as_str(), chart.value.as_str()));
        let name = files::name(&settings.title, &argument);
        let owner = files::owner(&settings.database, &settings.title);
        let report = files::Report {
            name: &name,
            owner: &owner,
            csv: &csv::write(&table, settings.formula_guard),
            html: &page::write(&title, &table, chart, &owner),
        };
        let written = files::write(&settings.directory, &report, call)?;
        if let Some(taken) = &written.taken {
            call.logger().log(
                Level::Warn,
                "the report's name is taken by something else, so it has another one: give each handler a title or a \
                 directory of its own",
                &[("FILE", &taken.display().to_string()), ("WRITTEN", &written.html.display().to_string())],
            );
        }
        Done::json(&Summary { csv: &written.csv, html: &written.html, rows: table.rows.len() })
    }
}

impl Settings {
    fn check(&self) -> Result<(), Failure> {
        let problem = if !self.database.is_absolute() {
            "database must be an absolute path, such as \"/var/lib/shop/shop.db\"".to_owned()
        } else if !self.directory.is_absolute() {
            "directory must be an absolute path, such as \"/var/lib/shop/reports\"".to_owned()
        } else if !self.directory.is_dir() {
            format!(
                "directory: {} is not a directory; make it, for the daemon's user",
                self.directory.display()
            )
        } else if self.title.trim().is_empty() || self.title.len() > 200 {
            "title must be 1 to 200 bytes of text; leave it out for \"Report\"".to_owned()
        } else if !(1..=ROWS_LIMIT).contains(&self.max_rows) {
            format!("max_rows must be 1 to {ROWS_LIMIT}")
        } else if let Err(error) = files::open_lock(&self.directory) {
            let directory = self.directory.display();
            format!("directory: {directory} cannot be written ({error}); give it to the daemon's user")
        } else {
            return Ok(());
        };
        Err(reject("bad-settings", format!("settings.{problem}")))
    }

    fn prepare<'a>(&self, db: &'a rusqlite::Connection) -> Result<rusqlite::Statement<'a>, query::BadQuery> {
        let statement = query::prepare(db, &self.query)?;
        if let Some(chart) = &self.chart {
            query::check_column(&statement, "label", &chart.label)?;
            query::check_column(&statement, "value", &chart.value)?;
        }
        Ok(statement)
    }
}

/// What the report is for: the task's argument without a leading `for`, or the JSON body's.
fn argument(task: &Task<'_>) -> Result<String, Failure> {
    if task.argument().is_empty() && task.body().trim_ascii_start().starts_with(b"{") {
        return Ok(task.json::<Body>()?.argument.unwrap_or_default().trim().to_owned());
    }
    let argument = task.argument();
    let argument = if argument == "for" { "" } else { argument.strip_prefix("for ").unwrap_or(argument) };
    Ok(argument.trim().to_owned())
}

fn report() -> String {
    "Report".into()
}

fn ten_thousand() -> usize {
    10_000
}

fn yes() -> bool {
    true
}
