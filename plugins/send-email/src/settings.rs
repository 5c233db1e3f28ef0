//! `[handlers.NAME.settings]`: what an operator writes, checked and turned into what the handler works with.

use crate::compose::{Composer, with_ascii_domain};
use crate::deliver::{Security, Server};
use crate::template::Template;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use serde::Deserialize;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use warren_plugin::{Failure, Host, Level, reject};

/// `[handlers.NAME.settings]`; the crate's documentation says what each is. It has no `Debug`: it holds a password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    server: String,
    port: Option<u16>,
    #[serde(default)]
    tls: Tls,
    ca_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    password_file: Option<PathBuf>,
    from: String,
    reply_to: Option<String>,
    #[serde(default = "default_subject")]
    subject: String,
    #[serde(default = "default_text")]
    text: String,
    #[serde(default)]
    allowed_domains: Vec<String>,
    hello: Option<String>,
    #[serde(default = "thirty_seconds", with = "warren_plugin::duration")]
    timeout: Duration,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tls {
    None,
    #[default]
    Starttls,
    #[serde(rename = "tls")]
    FromTheStart,
}

impl Settings {
    /// Checks everything that can be known before a server is asked.
    pub(crate) fn check(self, host: &Host) -> Result<(Composer, Server), Failure> {
        if !is_host(&self.server) {
            return Err(bad("server must be a host's name or address, such as \"mail.example.com\""));
        }
        if self.port == Some(0) {
            return Err(bad("port must be 1 to 65535; leave it out for the usual one"));
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(600)).contains(&self.timeout) {
            return Err(bad("timeout must be 1s to 10m"));
        }
        let composer = Composer {
            from: mailbox("from", &self.from)?,
            reply_to: self.reply_to.as_deref().map(|text| mailbox("reply_to", text)).transpose()?,
            subject: Template::parse(&self.subject).map_err(|error| bad(format!("subject {error}")))?,
            text: Template::parse(&self.text).map_err(|error| bad(format!("text {error}")))?,
            allowed_domains: self.domains()?,
        };
        let server = Server {
            port: self.port.unwrap_or(match self.tls {
                Tls::None => 25,
                Tls::Starttls => 587,
                Tls::FromTheStart => 465,
            }),
            security: self.security()?,
            credentials: self.credentials(host)?,
            hello: self.client_id()?,
            timeout: self.timeout,
            host: self.server,
        };
        Ok((composer, server))
    }

    fn domains(&self) -> Result<Vec<String>, Failure> {
        let ascii = |domain: &String| {
            let ascii = idna::domain_to_ascii(domain).ok().filter(|ascii| is_host(ascii));
            ascii.ok_or_else(|| {
                bad(format!("allowed_domains: {domain:?} is not a domain, such as \"example.com\""))
            })
        };
        self.allowed_domains.iter().map(ascii).collect()
    }

    fn security(&self) -> Result<Security, Failure> {
        if self.tls == Tls::None {
            return match self.ca_file {
                Some(_) => Err(bad("ca_file has no use with tls = \"none\"; remove one of them")),
                None => Ok(Security::None),
            };
        }
        let mut parameters = TlsParameters::builder(self.server.clone());
        if let Some(path) = &self.ca_file {
            let pem = read("ca_file", path)?;
            // A file without any certificate is no error to lettre; it would be one at each connection.
            let certificate = Certificate::from_pem(&pem)
                .ok()
                .filter(|_| String::from_utf8_lossy(&pem).contains("BEGIN CERTIFICATE"))
                .ok_or_else(|| bad(format!("ca_file: {} holds no PEM certificate", path.display())))?;
            parameters = parameters.add_root_certificate(certificate);
        }
        let parameters = parameters
            .build()
            .map_err(|error| bad(format!("tls cannot be set up for this server: {error}")))?;
        Ok(if self.tls == Tls::FromTheStart {
            Security::Tls(parameters)
        } else {
            Security::Starttls(parameters)
        })
    }

    fn credentials(&self, host: &Host) -> Result<Option<Credentials>, Failure> {
        let password = match (&self.password, &self.password_file) {
            (Some(_), Some(_)) => return Err(bad("password and password_file are both given; remove one")),
            (Some(password), None) => Some(password.clone()),
            (None, Some(path)) => Some(password_from(path, host)?),
            (None, None) => None,
        };
        match (&self.username, password) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(bad("username is missing beside the password")),
            (Some(_), None) => Err(bad("password_file (or password) is missing beside username")),
            (Some(_), Some(_)) if self.tls == Tls::None && !is_this_machine(&self.server) => {
                Err(bad("tls = \"none\" would send the password in the clear; use \"starttls\" or \"tls\""))
            }
            (Some(username), Some(password)) => Ok(Some(Credentials::new(username.clone(), password))),
        }
    }

    fn client_id(&self) -> Result<ClientId, Failure> {
        if let Some(hello) = &self.hello {
            if !is_host(hello) {
                return Err(bad("hello must be a host's name, such as \"worker1.example.com\""));
            }
            return Ok(ClientId::Domain(hello.clone()));
        }
        // The kernel's name for this host; where it cannot be had, the address literal that lettre falls back to.
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = name.trim();
        Ok(if is_host(name) { ClientId::Domain(name.to_owned()) } else { ClientId::default() })
    }
}

fn bad(problem: impl std::fmt::Display) -> Failure {
    reject("bad-settings", format!("settings.{problem}"))
}

fn mailbox(key: &str, text: &str) -> Result<Mailbox, Failure> {
    let example = format!("{key} must be an address, such as \"Shop <shop@example.com>\"");
    if text.chars().any(char::is_control) {
        return Err(bad(example));
    }
    let Mailbox { name, email } = text.parse().map_err(|_| bad(&example))?;
    Ok(Mailbox { name, email: with_ascii_domain(email).ok_or_else(|| bad(example))? })
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        bad(format!("{key}: {} cannot be read ({error}); let the daemon's user read it", path.display()))
    })
}

fn password_from(path: &Path, host: &Host) -> Result<String, Failure> {
    let bytes = read("password_file", path)?;
    if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0) {
        let path = path.display().to_string();
        host.log(
            Level::Warn,
            "everybody on this host can read the password: chmod o= it",
            &[("FILE", &path)],
        );
    }
    let password = String::from_utf8(bytes)
        .map_err(|_| bad(format!("password_file: {} is not UTF-8 text", path.display())))?;
    let password = password.strip_suffix('\n').unwrap_or(&password);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() || password.contains(char::is_control) {
        return Err(bad(format!("password_file: {} must hold the password on one line", path.display())));
    }
    Ok(password.to_owned())
}

/// Whether this is one word that can name a host; whether it does, only a resolver knows.
fn is_host(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b))
}

fn is_this_machine(server: &str) -> bool {
    server == "localhost" || server.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn default_subject() -> String {
    "Message {id}".into()
}

fn default_text() -> String {
    "{body}".into()
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}
