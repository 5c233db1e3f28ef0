//! One mail over one SMTP connection, and what the server's answer means for the task.

use crate::compose::Mail;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{SmtpConnection, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use std::error::Error as _;
use std::io;
use std::time::Duration;
use warren_plugin::{Call, Failure, reject, retry};

/// The longest answer of a server that goes into a result or an error, in characters.
const MAX_ANSWER: usize = 300;
/// The least time one answer gets, however near the deadline is.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// Where mail goes in.
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) security: Security,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) hello: ClientId,
    /// For each answer, not for the whole conversation.
    pub(crate) timeout: Duration,
}

/// How the connection is protected.
pub(crate) enum Security {
    None,
    /// Begins in the clear and is upgraded; without that nothing is sent.
    Starttls(TlsParameters),
    Tls(TlsParameters),
}

/// Which part of the conversation failed: the server's "no" means something else in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    Starttls,
    Authenticate,
    Send,
}

impl Server {
    /// Hands the mail over, and gives the server's answer. When this returns, the server has taken responsibility.
    pub(crate) fn deliver(&self, mail: &Mail, call: &Call<'_>) -> Result<String, Failure> {
        let timeout = call
            .remaining()
            .map_or(self.timeout, |left| left.clamp(LEAST_WAIT, LEAST_WAIT.max(self.timeout)));
        let explain = |stage: Stage| move |error: Error| self.explain(stage, &error);
        let implicit_tls = match &self.security {
            Security::Tls(parameters) => Some(parameters),
            Security::None | Security::Starttls(_) => None,
        };
        call.check()?;
        let address = (self.host.as_str(), self.port);
        let mut connection = SmtpConnection::connect(address, Some(timeout), &self.hello, implicit_tls, None)
            .map_err(explain(Stage::Connect))?;
        if let Security::Starttls(parameters) = &self.security {
            connection.starttls(parameters, &self.hello).map_err(explain(Stage::Starttls))?;
        }
        call.check()?;
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).map_err(explain(Stage::Authenticate))?;
        }
        call.check()?;
        let answer = connection
            .send(mail.message.envelope(), &mail.message.formatted())
            .map_err(explain(Stage::Send))?;
        // The mail is delivered; a server that hangs up without a goodbye changes nothing.
        let _ = connection.quit();
        Ok(shortened(&format!("{} {}", answer.code(), answer.message().collect::<Vec<_>>().join(" "))))
    }

    /// What an error means. While the mail itself is handed over, the server's 5xx is about the mail: reject. Before
    /// that it is about us (the account, the address we come from), and the next mail would fare the same: retry,
    /// so that a changed password does not turn a queue into dead letters. Everything else may pass.
    fn explain(&self, stage: Stage, error: &Error) -> Failure {
        let place = format!("{}:{}", self.host, self.port);
        let status = error.status().map(|code| code.to_string());
        let said = match stage {
            // Not repeated: a server might quote what it was given, which is the password here.
            Stage::Authenticate => "to the login".to_owned(),
            _ => shortened(&error.source().map_or_else(String::new, ToString::to_string)),
        };
        match (stage, status) {
            (Stage::Authenticate, Some(code)) if error.is_permanent() => retry(
                "authentication",
                format!("{place} refuses settings.username and its password ({code}); correct them"),
            ),
            (Stage::Authenticate, None) if error.is_client() => retry(
                "authentication",
                format!(
                    "{place} offers no login that this plugin knows; correct settings.port, or remove username"
                ),
            ),
            (Stage::Starttls, _) if error.is_client() => retry(
                "no-starttls",
                format!(
                    "{place} does not offer STARTTLS; set settings.tls to \"tls\" or correct settings.port"
                ),
            ),
            // Asks for a login: the account again, not the mail.
            (Stage::Send, Some(code)) if error.is_permanent() && !["530", "535"].contains(&code.as_str()) => {
                reject(format!("smtp-{code}"), format!("{place} refuses the mail: {code} {said}"))
            }
            (Stage::Send, None) if error.is_client() => {
                reject("unsupported", format!("{place} cannot take this mail: {said}"))
            }
            (_, Some(code)) => retry(format!("smtp-{code}"), format!("{place} says {code} {said}")),
            (_, None) => retry(
                if timed_out(error) { "timeout" } else { "unreachable" },
                format!(
                    "{place} cannot be reached, or the connection broke: {said}; check settings.server, port and tls"
                ),
            ),
        }
    }
}

/// Whether the time for one answer ran out. Linux calls that `WouldBlock` on a socket, which lettre does not look for.
fn timed_out(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock);
        }
        cause = error.source();
    }
    false
}

/// A server's words as one short line.
fn shortened(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_ANSWER)
        .collect::<String>()
        .trim()
        .to_owned()
}
