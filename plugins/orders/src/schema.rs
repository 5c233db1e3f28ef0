//! The store on disk: how it is opened, its tables, and the initial stock.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use warren_plugin::{Failure, reject};

/// Marks an SQLite file as this plugin's ("WrnO"), so that a path that names another program's database is refused.
const APPLICATION_ID: i32 = 0x5772_6e4f;
/// The schema below. A later one is reached step by step from here; a newer store than this code is refused.
const SCHEMA_VERSION: i32 = 1;

const SCHEMA: &str = "
CREATE TABLE effects (            -- what each task did; the guard against doing it twice
    task_id  TEXT PRIMARY KEY,
    what     TEXT NOT NULL,       -- the request in a few words
    result   TEXT NOT NULL,       -- JSON
    at       INTEGER NOT NULL     -- Unix time, seconds; here and below
) WITHOUT ROWID;
CREATE INDEX effects_by_age ON effects (at);

CREATE TABLE orders (
    number   TEXT PRIMARY KEY,
    currency TEXT NOT NULL,
    total    INTEGER NOT NULL,    -- minor units; here and below
    task_id  TEXT NOT NULL,
    at       INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE order_items (
    number   TEXT NOT NULL REFERENCES orders (number),
    sku      TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    price    INTEGER NOT NULL,
    PRIMARY KEY (number, sku)
) WITHOUT ROWID;

CREATE TABLE payments (
    number   TEXT PRIMARY KEY,    -- one payment for an order; the order may come later or never
    amount   INTEGER,             -- NULL: not known, because the order is not
    currency TEXT NOT NULL,
    task_id  TEXT NOT NULL,
    at       INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE stock (              -- the sum of each item's moves, kept so that reading it is one row
    sku      TEXT PRIMARY KEY,
    quantity INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE stock_moves (        -- append only
    id       INTEGER PRIMARY KEY,
    sku      TEXT NOT NULL,
    change   INTEGER NOT NULL,
    number   TEXT,                -- the order it went to; NULL: initial stock, change or count
    reason   TEXT NOT NULL,       -- initial, order, change, count
    task_id  TEXT NOT NULL,
    at       INTEGER NOT NULL
);
CREATE INDEX stock_moves_by_sku ON stock_moves (sku);
CREATE UNIQUE INDEX stock_moves_once_per_order ON stock_moves (number, sku) WHERE number IS NOT NULL;
";

/// Opens the store, makes its tables if it is new, and enters the initial stock of items never seen.
pub(crate) fn open(
    path: &Path,
    busy_timeout: Duration,
    stock: &BTreeMap<String, i64>,
    now: i64,
) -> Result<Connection, Failure> {
    let refuse = |what: &str, remedy: &str| {
        reject("bad-store", format!("settings.database: {} {what}; {remedy}", path.display()))
    };
    let mut db = Connection::open(path).map_err(|error| {
        refuse(
            &format!("cannot be opened: {error}"),
            "its directory must exist and be writable for the daemon's user",
        )
    })?;
    db.busy_timeout(busy_timeout)?;
    let what_is_there = identity(&db).map_err(|error| {
        refuse(
            &format!("cannot be read: {error}"),
            "name a file that is an SQLite database or does not exist",
        )
    })?;
    match what_is_there {
        Identity::Foreign => {
            return Err(refuse("is another program's database", "name a file of its own for the orders"));
        }
        Identity::Ours(version) if version > SCHEMA_VERSION => {
            return Err(refuse(
                &format!("has schema {version}, this plugin knows {SCHEMA_VERSION}"),
                "install the plugin version that wrote it, or a newer one",
            ));
        }
        Identity::Empty | Identity::Ours(_) => {}
    }
    set_up(&mut db, stock, now).map_err(|error| {
        refuse(&format!("cannot be set up: {error}"), "check the disk and the permissions")
    })?;
    Ok(db)
}

enum Identity {
    Empty,
    Ours(i32),
    Foreign,
}

fn identity(db: &Connection) -> rusqlite::Result<Identity> {
    let application: i32 = db.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let version: i32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, version, tables) {
        (APPLICATION_ID, version, _) if version > 0 => Identity::Ours(version),
        (0, 0, 0) => Identity::Empty,
        _ => Identity::Foreign,
    })
}

fn set_up(db: &mut Connection, stock: &BTreeMap<String, i64>, now: i64) -> rusqlite::Result<()> {
    // The acknowledgement follows the commit: with WAL only FULL makes a commit survive a power failure.
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    // Another host of this handler may be doing the same: whoever gets the write lock first does it.
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if matches!(identity(&tx)?, Identity::Empty) {
        tx.execute_batch(SCHEMA)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    for (sku, quantity) in stock {
        let known =
            tx.query_row("SELECT 1 FROM stock WHERE sku = ?1", [sku], |_| Ok(())).optional()?.is_some();
        if !known {
            tx.execute("INSERT INTO stock (sku, quantity) VALUES (?1, ?2)", params![sku, quantity])?;
            tx.execute(
                "INSERT INTO stock_moves (sku, change, reason, task_id, at) VALUES (?1, ?2, 'initial', '', ?3)",
                params![sku, quantity, now],
            )?;
        }
    }
    tx.commit()
}
