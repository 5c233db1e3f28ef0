//! The shop that the tasks work for: its database, its files, and the configuration of the handlers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use warren_tests::{Home, Keys, artefacts};

use crate::servers::Servers;

const PLUGINS: [&str; 7] =
    ["backup-database", "clean-temp", "exec", "generate-report", "orders", "send-email", "webhook"];

pub(crate) struct Shop<'a> {
    home: &'a Home,
    smtp_port: u16,
    http_port: u16,
}

impl<'a> Shop<'a> {
    /// Makes everything, and installs and configures the plugins.
    pub(crate) fn open(home: &'a Home, servers: &Servers) -> Result<Self> {
        for name in ["backups", "reports", "temp"] {
            fs::create_dir(home.path(name))?;
        }
        sales(&home.path("shop.db"))?;
        aged(&home.path("temp/fresh.tmp"), 0)?;
        aged(&home.path("temp/old.tmp"), 2)?;
        for plugin in PLUGINS {
            home.install(plugin);
        }
        let shop = Self { home, smtp_port: servers.smtp_port, http_port: servers.http_port };
        shop.configure("old", "7d");
        Ok(shop)
    }

    /// The change that the reload puts in force: a newer clean-temp, which deletes earlier, and another hook.
    pub(crate) fn change(&self) -> Result<()> {
        let bytes = fs::read(artefacts::plugin("clean-temp"))?;
        self.home.install_bytes("clean-temp", &next_version(bytes)?);
        self.configure("new", "1h");
        println!(
            "clean-temp.so is of another version; older_than is 1h instead of 7d, the hook /new instead of /old"
        );
        Ok(())
    }

    /// Whether every task did its work.
    pub(crate) fn check(&self, servers: &Servers) -> Result<()> {
        let orders = Connection::open(self.home.path("orders.db"))?;
        let count = |table: &str| -> Result<i64> {
            Ok(orders.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
        };
        say("orders and payments", &format!("{} and {}", count("orders")?, count("payments")?));
        ensure!(count("orders")? == 1 && count("payments")? == 2, "one order, two payments");

        let mails = servers.mails();
        let subject = mails.iter().flat_map(|mail| mail.lines()).find(|line| line.starts_with("Subject:"));
        say("mail to user@example.com", subject.context("no mail arrived")?);
        ensure!(mails.len() == 1 && mails[0].contains("user@example.com"), "{mails:?}");

        say("report", &one_file(&self.home.path("reports"), "html")?);
        say("backup", &one_file(&self.home.path("backups"), "gz")?);

        let requests = servers.requests();
        let (path, body) = requests.first().context("no notification arrived")?;
        say("notification", &format!("POST {path}: {body}"));
        ensure!(requests.len() == 1 && path == "/new", "{requests:?}");

        let left: Vec<_> = fs::read_dir(self.home.path("temp"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        say("temp files left", &left.join(" "));
        ensure!(left == ["fresh.tmp"], "{left:?}");
        Ok(())
    }

    fn configure(&self, hook: &str, older_than: &str) {
        let (smtp, http) = (self.smtp_port, self.http_port);
        let at = |name: &str| self.home.path(name).display().to_string();
        let (shop, orders, reports) = (at("shop.db"), at("orders.db"), at("reports"));
        let (backups, temp) = (at("backups"), at("temp"));
        let rest = format!(
            r#"[handlers.orders.settings]
database = "{orders}"
default_price = 1999

[handlers.send-email.settings]
server = "127.0.0.1"
port = {smtp}
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
url = "http://127.0.0.1:{http}/{hook}"

[handlers.clean-temp.settings]
directories = ["{temp}"]
older_than = "{older_than}"

[handlers.exec]
prefixes = ["Greet"]
[handlers.exec.settings]
command = ["echo", "hello", "{{argument}}"]
"#
        );
        self.home.configure(Keys { rest: &rest, ..Keys::default() });
    }
}

fn say(what: &str, is: &str) {
    println!("  {what:<26} {is}");
}

fn sales(path: &Path) -> Result<()> {
    let database = Connection::open(path)?;
    database.execute_batch(
        "CREATE TABLE sales (quarter TEXT, region TEXT, amount INTEGER);
         INSERT INTO sales VALUES ('Q2', 'north', 90), ('Q3', 'north', 120), ('Q3', 'south', 80), ('Q3', 'north', 30);",
    )?;
    Ok(())
}

/// A file last changed so many hours ago.
fn aged(path: &Path, hours: u64) -> Result<()> {
    let file = File::create(path)?;
    file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600))?;
    Ok(())
}

/// The same plugin as a build with the next version number in its manifest would be.
fn next_version(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    let place = bytes.windows(version.len()).position(|window| window == version.as_bytes());
    let last = place.context("no version in the manifest")? + version.len() - 2;
    bytes[last] = if bytes[last] == b'9' { b'0' } else { bytes[last] + 1 };
    Ok(bytes)
}

/// The name and size of the only file with this extension.
fn one_file(directory: &Path, extension: &str) -> Result<String> {
    let files: Vec<PathBuf> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.path()))
        .filter(|path: &Result<PathBuf>| {
            path.as_ref().is_ok_and(|path| path.extension().is_some_and(|end| end == extension))
        })
        .collect::<Result<_>>()?;
    let [file] = &files[..] else {
        anyhow::bail!("one .{extension} file in {}: {files:?}", directory.display())
    };
    let name = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(format!("{name}, {} bytes", fs::metadata(file)?.len()))
}
