//! The demo's shop: made, changed for the reload, and looked at when the tasks are done.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use warren_tests::shop::{self, Places};
use warren_tests::{Home, Keys, Servers, artefacts};

const PLUGINS: [&str; 7] =
    ["backup-database", "clean-temp", "exec", "generate-report", "orders", "send-email", "webhook"];

pub(crate) struct Shop<'a> {
    home: &'a Home,
    servers: &'a Servers,
}

impl<'a> Shop<'a> {
    /// Makes everything, and installs and configures the plugins.
    pub(crate) fn open(home: &'a Home, servers: &'a Servers) -> Result<Self> {
        for name in ["backups", "reports", "temp"] {
            fs::create_dir(home.path(name))?;
        }
        shop::database(&home.path("shop.db"))?;
        shop::aged(&home.path("temp/fresh.tmp"), 0)?;
        shop::aged(&home.path("temp/old.tmp"), 2)?;
        for plugin in PLUGINS {
            home.install(plugin);
        }
        let shop = Self { home, servers };
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
        let at = |name: &str| self.home.path(name);
        let places = Places {
            shop: at("shop.db"),
            orders: at("orders.db"),
            reports: at("reports"),
            backups: at("backups"),
            temp: at("temp"),
        };
        let rest = shop::handlers(&places, self.servers, hook, older_than);
        self.home.configure(Keys { rest: &rest, ..Keys::default() });
    }
}

fn say(what: &str, is: &str) {
    println!("  {what:<26} {is}");
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
