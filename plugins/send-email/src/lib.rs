//! Warren handler: send an email per task over SMTP.
//!
//! `Send email to user@example.com` sends one mail, with subject and text from the settings. A task routed by its
//! AMQP `type` can say more in a JSON body; `subject` and `text` replace the templates, and templates can name any
//! other field:
//!
//! ```json
//! {"to": "user@example.com", "subject": "Your order", "text": "It is on its way.", "name": "Ada"}
//! ```
//!
//! # Settings
//!
//! ```toml
//! [handlers.send-email]
//! plugin  = "send-email"
//! timeout = "2m"
//!
//! [handlers.send-email.settings]
//! server   = "mail.example.com"         # required
//! from     = "Shop <shop@example.com>"  # required
//! tls      = "starttls"                 # or "tls" from the first byte, or "none"
//! port     = 587                        # default: 587 for starttls, 465 for tls, 25 for none
//! username = "shop"                     # no login if left out
//! password_file = "/run/credentials/warrend.service/smtp"   # or password = "…" here
//! ca_file  = "/etc/ssl/own-ca.pem"      # certificates to trust beside the public ones
//! reply_to = "help@example.com"
//! subject  = "News for {to}"            # default: "Message {id}"
//! text     = "Hello {body.name},\n…"    # default: "{body}", the task's whole text
//! allowed_domains = ["example.com"]     # recipients; any domain if left out
//! hello    = "worker1.example.com"      # how to introduce itself; default: the host's name
//! timeout  = "30s"                      # for each answer of the server
//! ```
//!
//! Templates know `{argument}`, `{id}`, `{to}`, `{body}` and `{body.FIELD}`, a field of the JSON body; `{{` and `}}`
//! are braces. What is filled in is never read as a template again.
//!
//! # What to expect
//!
//! - Done means that the server took responsibility for the mail. The result is JSON: `to`, `message_id`, `server`
//!   (its answer).
//! - The server's 4xx, a connection that cannot be made or breaks, and time running out are a retry. A malformed or
//!   disallowed recipient, and a field that the template needs and the task lacks are a reject. So is a 5xx that refuses
//!   the mail or its recipient; one that refuses us is a retry, since the next mail would fare the same:
//!
//!   | 5xx to | reject | retry |
//!   | --- | --- | --- |
//!   | greeting, `EHLO`, STARTTLS, login | | all |
//!   | the sender (`MAIL FROM`) | 5.3.4 and 5.2.3 too large, 5.6.x | all others |
//!   | the recipient (`RCPT TO`), `DATA` | 5.1.x, 5.2.x, 5.3.4, 5.4.1, 5.4.4, 5.6.x, 5.7.17, 5.7.18 | 5.1.7 and 5.1.8 (the sender), 5.7.x (relaying, login, SPF), other 5.3.x, 5.4.x, 5.5.x |
//!   | the mail's text | as above, and 5.7.0 to 5.7.7 (spam, a virus) | as above, and 5.7.8 on (login, DMARC) |
//!   | without such a code | 501, 550–553, 556 to the recipient; 550–554 to the text | 530, 535, 538, 554 to the recipient, words such as "relay" or "authentication", all others |
//!
//! - Domains beyond ASCII are sent as the DNS has them (`xn--…`), which needs nothing of the server; a part before the @
//!   beyond ASCII needs SMTPUTF8, and is a reject where the server does not offer it.
//! - A text's line ends are all written as CRLF; a subject that looks like an encoded word, or has words too long for a
//!   line, is encoded.
//! - A server whose certificate is signed by itself needs that certificate in `ca_file`, and it must not be one of an
//!   authority: `openssl req -x509 … -addext basicConstraints=CA:FALSE -addext subjectAltName=DNS:mail.example.com`.
//! - At least once: a task runs again when the answer to its mail was lost, and the mail may then arrive twice. Both
//!   have the same Message-ID, made of the task's id, by which servers and mail programs can tell. That needs a
//!   producer that sets `message_id`; a generated id changes when the task is delivered anew.
//! - No text of a task can add a header or a recipient: line ends in the subject become blanks, and a recipient is
//!   one address. Credentials are never sent unencrypted but to the machine itself, and appear in no error.
//! - A cancelled task stops between two steps of the conversation, so after at most `timeout`.

mod compose;
mod deliver;
mod encode;
mod refusal;
mod settings;
mod template;

use compose::Composer;
use deliver::Server;
use serde::Serialize;
use warren_plugin::{Call, Done, Failure, Handler, Host, Outcome, Task};

pub use settings::Settings;

/// The handler: how mails are made, and where they go. It connects for each mail.
pub struct SendEmail {
    composer: Composer,
    server: Server,
}

/// What the producer and the log are told.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    to: &'a str,
    message_id: &'a str,
    server: &'a str,
}

warren_plugin::export_plugin!(
    SendEmail,
    name = "send-email",
    prefixes = ["Send email"],
    timeout = "2m",
    settings = [
        "server",
        "port",
        "tls",
        "ca_file",
        "username",
        "password",
        "password_file",
        "from",
        "reply_to",
        "subject",
        "text",
        "allowed_domains",
        "hello",
        "timeout",
    ],
);

impl Handler for SendEmail {
    type Settings = Settings;

    fn new(settings: Settings, host: &Host) -> Result<Self, Failure> {
        let (composer, server) = settings.check(host)?;
        Ok(Self { composer, server })
    }

    fn handle(&mut self, task: &Task<'_>, call: &Call<'_>) -> Outcome {
        let mail = self.composer.compose(task)?;
        let answer = self.server.deliver(&mail, call)?;
        Done::json(&Summary { to: mail.to.as_ref(), message_id: &mail.message_id, server: &answer })
    }
}
