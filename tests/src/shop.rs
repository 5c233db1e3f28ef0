//! The shop that the shipped handlers work for: its database, its files, and their configuration.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use rusqlite::Connection;

use crate::Servers;

/// Where the shop's things are.
#[derive(Debug)]
pub struct Places {
    /// The database that is backed up and reported from.
    pub shop: PathBuf,
    /// The store of the handler `orders`.
    pub orders: PathBuf,
    /// Directory of the reports.
    pub reports: PathBuf,
    /// Directory of the backups.
    pub backups: PathBuf,
    /// Directory that is cleaned.
    pub temp: PathBuf,
}

/// The tables of all shipped handlers, with the webhook's path and the age from which files are deleted.
pub fn handlers(places: &Places, servers: &Servers, hook: &str, older_than: &str) -> String {
    let [shop, orders, reports, backups, temp] =
        [&places.shop, &places.orders, &places.reports, &places.backups, &places.temp]
            .map(|path| path.display());
    let Servers { address, smtp_port, http_port, .. } = servers;
    format!(
        r#"[handlers.orders.settings]
database = "{orders}"
default_price = 1999

[handlers.send-email.settings]
server = "{address}"
port = {smtp_port}
tls = "none"
from = "Shop <shop@example.com>"
subject = "News for {{to}}"

[handlers.generate-report.settings]
database = "{shop}"
directory = "{reports}"
title = "Sales"
query = "SELECT region, sum(amount) AS amount FROM sales WHERE quarter = :argument GROUP BY region"
chart = {{ label = "region", value = "amount" }}

[handlers.backup-database.settings]
database = "{shop}"
directory = "{backups}"

[handlers.webhook.settings]
url = "http://{address}:{http_port}/{hook}"

[handlers.clean-temp.settings]
directories = ["{temp}"]
older_than = "{older_than}"
age_by = "modified"

[handlers.exec]
prefixes = ["Greet"]
[handlers.exec.settings]
command = ["echo", "hello", "{{argument}}"]
"#
    )
}

/// Makes the shop's database, with some sales.
pub fn database(path: &Path) -> Result<()> {
    let database = Connection::open(path)?;
    database.execute_batch(
        "CREATE TABLE sales (quarter TEXT, region TEXT, amount INTEGER);
         INSERT INTO sales VALUES ('Q2', 'north', 90), ('Q3', 'north', 120), ('Q3', 'south', 80), ('Q3', 'north', 30);",
    )?;
    Ok(())
}

/// Makes a file that was last changed so many hours ago.
pub fn aged(path: &Path, hours: u64) -> Result<()> {
    let file = File::create(path)?;
    file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600))?;
    Ok(())
}
