//! From a task to a mail: whom it goes to, what it says, and the Message-ID that makes a repetition recognisable.
//! No text of a task can become a header of its own: see [`line()`].

use crate::encode;
use crate::template::{Template, Values};
use lettre::address::{Address, Envelope};
use lettre::message::header::{ContentType, HeaderName, HeaderValue, MIME_VERSION_1_0};
use lettre::message::{Mailbox, Message};
use serde_json::{Map, Value};
use std::fmt::Write;
use warren_plugin::{Failure, Task, reject};

/// The longest part of a task's id that a Message-ID keeps, in bytes; a longer one ends in a hash.
const MAX_ID: usize = 120;

/// What the mail is made of beside the task.
pub(crate) struct Composer {
    pub(crate) from: Mailbox,
    pub(crate) reply_to: Option<Mailbox>,
    pub(crate) subject: Template,
    pub(crate) text: Template,
    /// In lower case; empty: any.
    pub(crate) allowed_domains: Vec<String>,
}

/// A mail, and what is worth saying of it.
pub(crate) struct Mail {
    pub(crate) message: Message,
    pub(crate) to: Address,
    pub(crate) message_id: String,
}

impl Composer {
    /// Makes the mail a task asks for. Everything that does not work out is a reject: it lies in the task.
    pub(crate) fn compose(&self, task: &Task<'_>) -> Result<Mail, Failure> {
        let fields = fields(task)?;
        let to = self.recipient(task.argument(), &fields)?;
        let values = Values {
            argument: task.argument(),
            id: task.id(),
            to: to.as_ref(),
            body: task.text()?,
            fields: &fields,
        };
        let subject = match own_text(&fields, "subject")? {
            Some(subject) => subject.to_owned(),
            None => self.subject.fill(&values)?,
        };
        let text = match own_text(&fields, "text")? {
            Some(text) => text.to_owned(),
            None => self.text.fill(&values)?,
        };
        let message_id = message_id(task.id(), self.from.email.domain());
        let mut builder = Message::builder()
            .from(self.from.clone())
            .to(Mailbox::new(None, to.clone()))
            .raw_header(encode::subject(&line(&subject)))
            .message_id(Some(message_id.clone()))
            // RFC 2045: a mail with a content type says so. lettre leaves it out for a body that it is given as text.
            .header(MIME_VERSION_1_0)
            .header(ContentType::TEXT_PLAIN)
            // RFC 3834: no out-of-office reply to a machine.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ));
        if let Some(reply_to) = &self.reply_to {
            builder = builder.reply_to(reply_to.clone());
        }
        let bad_mail = |error| reject("bad-mail", format!("the mail cannot be composed: {error}"));
        // Made of the addresses: lettre's own reading of the headers does not know [127.0.0.1].
        let envelope = Envelope::new(Some(self.from.email.clone()), vec![to.clone()]).map_err(bad_mail)?;
        let message = builder.envelope(envelope).body(encode::body(&text)).map_err(bad_mail)?;
        Ok(Mail { message, to, message_id })
    }

    fn recipient(&self, argument: &str, fields: &Map<String, Value>) -> Result<Address, Failure> {
        let argument = argument.strip_prefix("to ").unwrap_or(argument).trim();
        let text = match own_text(fields, "to")? {
            Some(to) => to.trim(),
            None if argument.is_empty() || argument == "to" => {
                return Err(reject(
                    "no-recipient",
                    "the task names no recipient: write an address after the prefix, or \"to\" in JSON",
                ));
            }
            None => argument,
        };
        let bad = || reject("bad-address", "the recipient is not one mail address, such as user@example.com");
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(bad());
        }
        let address: Address = text.parse().map_err(|_| bad())?;
        let address = with_ascii_domain(address).ok_or_else(bad)?;
        let domain = address.domain().to_lowercase();
        if !self.allowed_domains.is_empty() && !self.allowed_domains.contains(&domain) {
            return Err(reject(
                "recipient-not-allowed",
                format!("{domain} is not in settings.allowed_domains"),
            ));
        }
        Ok(address)
    }
}

/// The address with its domain as the DNS has it: `münchen.example` as `xn--mnchen-3ya.example`, which every server takes.
pub(crate) fn with_ascii_domain(address: Address) -> Option<Address> {
    if address.domain().is_ascii() {
        return Some(address);
    }
    let domain = idna::domain_to_ascii(address.domain()).ok()?;
    Address::new(address.user(), domain).ok()
}

/// The fields of a JSON body; none for a task of text. A body is JSON when it says so or looks like an object.
fn fields(task: &Task<'_>) -> Result<Map<String, Value>, Failure> {
    let essence = task.content_type().split(';').next().unwrap_or_default().trim();
    let is_json = essence.eq_ignore_ascii_case("application/json")
        || task.body().trim_ascii_start().first() == Some(&b'{');
    if is_json { task.json() } else { Ok(Map::new()) }
}

/// A field that decides something, and must therefore be text.
fn own_text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Failure> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(reject("bad-field", format!("\"{name}\" in the task's body must be text"))),
    }
}

/// Text as one line of a header: what could end the line becomes a blank.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || "\u{2028}\u{2029}".contains(c) { ' ' } else { c }).collect()
}

/// The Message-ID of a task: the same whenever the task is sent again.
fn message_id(task_id: &str, domain: &str) -> String {
    let mut local = String::new();
    for byte in task_id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_/".contains(&byte) {
            local.push(char::from(byte));
        } else {
            let _ = write!(local, "={byte:02x}"); // Writing to a String does not fail.
        }
    }
    if local.len() > MAX_ID {
        local.truncate(MAX_ID);
        let _ = write!(local, "={:016x}", hash(task_id));
    }
    format!("<warren.{local}@{domain}>")
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn recipient(argument: &str, fields: &Value, allowed: &[&str]) -> Result<String, String> {
        let composer = Composer {
            from: "Warren <warren@example.org>".parse().expect("an address"),
            reply_to: None,
            subject: Template::parse("").expect("a template"),
            text: Template::parse("").expect("a template"),
            allowed_domains: allowed.iter().map(|domain| (*domain).to_owned()).collect(),
        };
        let fields = fields.as_object().expect("an object");
        composer.recipient(argument, fields).map(|to| to.to_string()).map_err(|failure| {
            assert!(failure.is_reject(), "{failure}");
            failure.code().to_owned()
        })
    }

    #[test]
    fn the_recipient_is_the_argument_or_the_bodys() {
        let none = json!({});
        for argument in ["to user@example.com", "user@example.com", " to  user@example.com "] {
            assert_eq!(
                recipient(argument.trim(), &none, &[]).as_deref(),
                Ok("user@example.com"),
                "{argument}"
            );
        }
        for (given, sent) in [
            ("user@m\u{fc}nchen.example", "user@xn--mnchen-3ya.example"),
            ("user@BÜCHER.example", "user@xn--bcher-kva.example"),
            ("user@\u{4f8b}\u{5b50}.example", "user@xn--fsqu00a.example"),
            ("user@[127.0.0.1]", "user@[127.0.0.1]"),
        ] {
            assert_eq!(recipient(given, &none, &[]).as_deref(), Ok(sent), "{given}");
        }
        let body = json!({"to": "ada@example.com"});
        assert_eq!(recipient("", &body, &[]).as_deref(), Ok("ada@example.com"));
    }

    #[test]
    fn what_is_not_one_address_is_rejected() {
        for (argument, code) in [
            ("", "no-recipient"),
            ("to", "no-recipient"),
            ("to nobody", "bad-address"),
            ("to a@b@example.com", "bad-address"),
            ("to a@example.com, b@example.com", "bad-address"),
            ("to a@example.com\r\nBcc: b@example.com", "bad-address"),
            ("to a@example.com>\r\nRCPT TO:<b@example.com", "bad-address"),
            ("to a@exam\0ple.com", "bad-address"),
            ("to \"a\r\n\"@example.com", "bad-address"),
            ("to <a@example.com>", "bad-address"),
            ("to @example.com", "bad-address"),
            ("to a@xn--\u{80}.example", "bad-address"),
        ] {
            assert_eq!(recipient(argument, &json!({}), &[]), Err(code.to_owned()), "{argument:?}");
        }
        assert_eq!(recipient("", &json!({"to": ["a@example.com"]}), &[]), Err("bad-field".to_owned()));
    }

    #[test]
    fn only_allowed_domains_are_written_to() {
        let allowed = ["example.com", "xn--mnchen-3ya.example"];
        for argument in ["to a@EXAMPLE.com", "to a@M\u{dc}NCHEN.example", "to a@XN--mnchen-3ya.example"] {
            assert!(recipient(argument, &json!({}), &allowed).is_ok(), "{argument}");
        }
        for argument in ["to a@example.org", "to a@sub.example.com", "to a@notexample.com"] {
            let refused = Err("recipient-not-allowed".to_owned());
            assert_eq!(recipient(argument, &json!({}), &allowed), refused, "{argument}");
        }
    }

    #[test]
    fn a_message_id_is_the_tasks_and_well_formed() {
        let of = |id: &str| message_id(id, "example.org");
        assert_eq!(of("0192f-7"), "<warren.0192f-7@example.org>");
        assert_eq!(of("order/1"), "<warren.order/1@example.org>");
        assert_eq!(of("a.b <x>\r\n@"), "<warren.a=2eb=20=3cx=3e=0d=0a=40@example.org>");
        let (one, two) = (of(&"x".repeat(200)), of(&"x".repeat(201)));
        assert_ne!(one, two);
        assert!(one.len() < 200);
    }

    #[test]
    fn a_header_line_stays_one_line() {
        assert_eq!(line("Hi\r\nBcc: eve@example.com\u{2028}x"), "Hi  Bcc: eve@example.com x");
    }
}
