//! One mail over one SMTP connection, and what the server's answer means for the task.

use crate::compose::Mail;
use crate::refusal::{self, Step};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{SmtpConnection, TlsParameters};
use lettre::transport::smtp::commands;
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Response;
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

impl Server {
    /// Hands the mail over, and gives the server's answer. When this returns, the server has taken responsibility.
    pub(crate) fn deliver(&self, mail: &Mail, call: &Call<'_>) -> Result<String, Failure> {
        let timeout = call
            .remaining()
            .map_or(self.timeout, |left| left.clamp(LEAST_WAIT, LEAST_WAIT.max(self.timeout)));
        let explain = |step: Step| move |error: Error| self.explain(step, &error);
        let implicit_tls = match &self.security {
            Security::Tls(parameters) => Some(parameters),
            Security::None | Security::Starttls(_) => None,
        };
        call.check()?;
        let address = (self.host.as_str(), self.port);
        let mut connection = SmtpConnection::connect(address, Some(timeout), &self.hello, implicit_tls, None)
            .map_err(explain(Step::Connect))?;
        if let Security::Starttls(parameters) = &self.security {
            connection.starttls(parameters, &self.hello).map_err(explain(Step::Starttls))?;
        }
        call.check()?;
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).map_err(explain(Step::Authenticate))?;
        }
        call.check()?;
        let answer = self.hand_over(&mut connection, mail)?;
        // The mail is delivered; a server that hangs up without a goodbye changes nothing.
        let _ = connection.quit();
        Ok(shortened(&format!("{} {}", answer.code(), answer.message().collect::<Vec<_>>().join(" "))))
    }

    /// The mail's part of the conversation, step by step: a refusal means something else at each.
    fn hand_over(&self, connection: &mut SmtpConnection, mail: &Mail) -> Result<Response, Failure> {
        let (envelope, text) = (mail.message.envelope(), mail.message.formatted());
        let offered = |is_needed: bool, extension: Extension, parameter: MailParameter| {
            if is_needed && !connection.server_info().supports_feature(extension) {
                let place = format!("{}:{}", self.host, self.port);
                return Err(reject(
                    "unsupported",
                    format!("{place} offers no {parameter}, which this mail needs"),
                ));
            }
            Ok(is_needed.then_some(parameter))
        };
        let addresses = || envelope.from().into_iter().chain(envelope.to());
        let is_utf8 = addresses().any(|address| !AsRef::<str>::as_ref(address).is_ascii());
        let utf8 = offered(is_utf8, Extension::SmtpUtfEight, MailParameter::SmtpUtfEight)?;
        let eight_bit = MailParameter::Body(MailBodyParameter::EightBitMime);
        let eight_bit = offered(!text.is_ascii(), Extension::EightBitMime, eight_bit)?;
        let parameters = utf8.into_iter().chain(eight_bit).collect();

        let from = commands::Mail::new(envelope.from().cloned(), parameters);
        let mut told = connection.command(from).map_err(|error| (Step::Sender, error));
        for to in envelope.to() {
            let recipient = commands::Rcpt::new(to.clone(), vec![]);
            told = told.and_then(|_| connection.command(recipient).map_err(|error| (Step::Recipient, error)));
        }
        told.and_then(|_| connection.command(commands::Data).map_err(|error| (Step::Data, error)))
            .and_then(|_| connection.message(&text).map_err(|error| (Step::Content, error)))
            .map_err(|(step, error)| {
                if error.status().is_some() {
                    connection.abort(); // With a goodbye: a server that answers is not left to wait.
                }
                self.explain(step, &error)
            })
    }

    /// What an error means. What a server refuses is classified in [`refusal`]; everything else may pass.
    fn explain(&self, step: Step, error: &Error) -> Failure {
        let place = format!("{}:{}", self.host, self.port);
        let status = error.status().map(u16::from);
        let said = match step {
            // Not repeated: a server might quote what it was given, which is the password here.
            Step::Authenticate => "to the login".to_owned(),
            _ => shortened(&error.source().map_or_else(String::new, ToString::to_string)),
        };
        match (step, status) {
            (Step::Authenticate, Some(code)) if error.is_permanent() => retry(
                "authentication",
                format!("{place} refuses settings.username and its password ({code}); correct them"),
            ),
            (Step::Authenticate, None) if error.is_client() => retry(
                "authentication",
                format!(
                    "{place} offers no login that this plugin knows; correct settings.port, or remove username"
                ),
            ),
            (Step::Starttls, _) if error.is_client() => retry(
                "no-starttls",
                format!(
                    "{place} does not offer STARTTLS; set settings.tls to \"tls\" or correct settings.port"
                ),
            ),
            (_, Some(code)) => refusal::explain(step, code, &said, &place),
            _ if error.is_tls() || io_cause(error) == Some(io::ErrorKind::InvalidData) => {
                retry("tls", format!("{place}: TLS fails: {said}; {}", tls_remedy(&said)))
            }
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
    matches!(io_cause(error), Some(io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock))
}

/// What the operating system or the TLS library called it.
fn io_cause(error: &Error) -> Option<io::ErrorKind> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        cause = error.source();
    }
    None
}

fn tls_remedy(said: &str) -> &'static str {
    if said.contains("CaUsedAsEndEntity") {
        "the server shows the certificate of an authority as its own, as `openssl req -x509` makes it, and that is \
         refused even where ca_file names it: make the server's certificate with -addext basicConstraints=CA:FALSE \
         and -addext subjectAltName=DNS:its-name, and name it in ca_file"
    } else {
        "check settings.server, tls and ca_file"
    }
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
