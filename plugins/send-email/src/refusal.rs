//! What a server's refusal means for the task: a pure decision on the step at which it came, its code and its enhanced
//! status code (RFC 3463). A refusal of the mail or of its recipient says that this task will never do: reject. A refusal
//! of us (the login, the sender, this host, what we may send where) meets the next mail as well, and passes when the
//! operator has corrected something: retry, so that it does not turn a queue into dead letters.

use warren_plugin::{Failure, reject, retry};

/// Where in the conversation it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Greeting and `EHLO`.
    Connect,
    Starttls,
    Authenticate,
    /// `MAIL FROM`.
    Sender,
    /// `RCPT TO`.
    Recipient,
    /// `DATA`, before the mail.
    Data,
    /// The mail itself, after its last dot.
    Content,
}

/// Whose fault a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// It may pass by itself.
    Nobody,
    /// The recipient or the mail.
    Task,
    /// The address that mails come from.
    Sender,
    /// The server does not take mail for this recipient from us: no login, the wrong server, a list of blocked hosts.
    Relay,
    /// Something else between the server and us.
    Us,
}

/// The failure for a refusal; `place` is the server, `said` are its words.
pub(crate) fn explain(step: Step, code: u16, said: &str, place: &str) -> Failure {
    let told = format!("{place} says {code} {said}");
    let failure = match blame(step, code, said) {
        Blame::Task => {
            return reject(format!("smtp-{code}"), format!("{place} refuses the mail: {code} {said}"));
        }
        Blame::Nobody => told,
        Blame::Sender => format!(
            "{place} refuses the sender: {code} {said}; correct settings.from, or let the server (and the DNS of the \
             sender's domain) allow it to this host or login"
        ),
        Blame::Relay => format!(
            "{place} does not take this mail from here: {code} {said}; correct settings.server, port or username, or let \
             the server relay for this host"
        ),
        Blame::Us => {
            format!("{told}; the mail itself is not refused: look at the server and at the settings")
        }
    };
    retry(format!("smtp-{code}"), failure)
}

fn blame(step: Step, code: u16, said: &str) -> Blame {
    let enhanced = enhanced(said);
    if code < 500 || enhanced.is_some_and(|(class, ..)| class == 4) {
        return Blame::Nobody;
    }
    match (step, enhanced) {
        (Step::Connect | Step::Starttls | Step::Authenticate, _) => Blame::Us,
        // Too large is the mail's fault wherever it is told; so is what it is made of, before the recipient is looked at.
        (_, Some((_, 3, 4) | (_, 2, 3))) | (Step::Sender, Some((_, 6, _))) => Blame::Task,
        (_, Some((_, 1, 7 | 8))) => Blame::Sender,
        (Step::Sender, _) if matches!(code, 530 | 535 | 538) => Blame::Relay,
        (Step::Sender, _) => Blame::Sender,
        (_, Some((_, subject, detail))) => by_enhanced_code(step, subject, detail),
        (_, None) => by_code(step, code, said),
    }
}

/// At `RCPT TO`, `DATA` and after the mail, by RFC 3463 and its registry.
fn by_enhanced_code(step: Step, subject: u16, detail: u16) -> Blame {
    match (subject, detail) {
        // Address; mailbox; content. 4.1 and 4.4: no host or no route for the recipient's domain. 7.17 and 7.18: the
        // mailbox or its domain has a new owner.
        (1 | 2 | 6, _) | (4, 1 | 4) | (7, 17 | 18) => Blame::Task,
        // The original policies, once the mail has been read: spam, a virus. Later ones are about logins, SPF and DMARC.
        (7, ..=7) if step == Step::Content => Blame::Task,
        // Signatures and senders that do not match the sender's domain.
        (7, 20..=29) => Blame::Sender,
        (7, _) => Blame::Relay,
        _ => Blame::Us,
    }
}

/// The same for servers without enhanced codes.
fn by_code(step: Step, code: u16, said: &str) -> Blame {
    let said = said.to_ascii_lowercase();
    // "550 relaying denied" is the same code as that of an unknown recipient.
    let is_relay = ["relay", "authenticat", "log in", "login"].iter().any(|word| said.contains(word));
    match (step, code) {
        (_, 530 | 535 | 538) => Blame::Relay,
        (Step::Recipient, _) if is_relay => Blame::Relay,
        // 501: the address's syntax. 556: its domain takes no mail.
        (Step::Recipient, 501 | 550..=553 | 556) | (Step::Content, 550..=554) => Blame::Task,
        (Step::Recipient, 554) => Blame::Relay,
        _ => Blame::Us,
    }
}

/// The enhanced status code that a server's words begin with: class, subject and detail.
fn enhanced(said: &str) -> Option<(u16, u16, u16)> {
    let mut parts = said.split_whitespace().next()?.split('.').map(|part| part.parse::<u16>().ok());
    let code = (parts.next()??, parts.next()??, parts.next()??);
    (matches!(code.0, 2 | 4 | 5) && parts.next().is_none()).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes_are_read_where_they_stand() {
        assert_eq!(enhanced("5.7.1 Relay access denied"), Some((5, 7, 1)));
        assert_eq!(enhanced("5.7.509"), Some((5, 7, 509)));
        for other in ["", "no", "1.2.3.4 is blocked", "5.7", "3.1.1 x", "relay 5.7.1", "5.1.x"] {
            assert_eq!(enhanced(other), None, "{other}");
        }
    }

    /// The table of the documentation, with what real servers say.
    #[test]
    fn each_step_and_code_has_its_meaning() {
        use Blame::{Nobody, Relay, Sender, Task, Us};
        for (step, code, said, expected) in [
            (Step::Connect, 554, "5.7.1 your host is blocked", Us),
            (Step::Starttls, 502, "not here", Us),
            (Step::Authenticate, 535, "5.7.8 bad password", Us),
            (Step::Sender, 550, "5.1.0 sender refused", Sender),
            (Step::Sender, 550, "no", Sender),
            (Step::Sender, 553, "5.7.1 not owned by user shop", Sender),
            (Step::Sender, 501, "5.1.7 bad sender", Sender),
            (Step::Sender, 530, "5.7.0 log in first", Relay),
            (Step::Sender, 552, "5.3.4 too large", Task),
            (Step::Sender, 550, "5.6.7 no internationalized addresses here", Task),
            (Step::Recipient, 550, "5.1.1 no such user", Task),
            (Step::Recipient, 550, "5.1.10 null MX", Task),
            (Step::Recipient, 550, "5.2.1 disabled", Task),
            (Step::Recipient, 552, "5.2.2 full", Task),
            (Step::Recipient, 550, "5.4.1 Recipient address rejected: Access denied", Task),
            (Step::Recipient, 550, "5.7.17 the mailbox has a new owner", Task),
            (Step::Recipient, 550, "5.1.8 sender's domain not found", Sender),
            (Step::Recipient, 554, "5.7.1 <a@b>: Relay access denied", Relay),
            (Step::Recipient, 550, "5.7.1 Unable to relay", Relay),
            (Step::Recipient, 550, "5.7.23 SPF check failed", Sender),
            (Step::Recipient, 550, "5.7.606 banned sending IP", Relay),
            (Step::Recipient, 554, "5.4.6 loop", Us),
            (Step::Recipient, 503, "5.5.1 bad sequence", Us),
            (Step::Recipient, 550, "no such user here", Task),
            (Step::Recipient, 550, "relaying denied", Relay),
            (Step::Recipient, 553, "sorry, that domain isn't in my list of allowed rcpthosts", Task),
            (Step::Recipient, 554, "relay access denied", Relay),
            (Step::Recipient, 554, "client host rejected", Relay),
            (Step::Recipient, 550, "authentication required", Relay),
            (Step::Recipient, 530, "go away", Relay),
            (Step::Recipient, 556, "no mail here", Task),
            (Step::Recipient, 500, "what?", Us),
            (Step::Recipient, 451, "4.7.1 greylisted", Nobody),
            (Step::Recipient, 550, "4.2.2 full for now", Nobody),
            (Step::Data, 554, "no valid recipients", Us),
            (Step::Data, 554, "5.7.1 denied", Relay),
            (Step::Data, 550, "5.1.1 no such user", Task),
            (Step::Content, 550, "5.7.1 spam", Task),
            (Step::Content, 552, "5.7.0 a security issue", Task),
            (Step::Content, 554, "rejected", Task),
            (Step::Content, 552, "too large", Task),
            (Step::Content, 554, "5.6.0 malformed", Task),
            (Step::Content, 550, "5.7.26 fails DMARC", Sender),
            (Step::Content, 550, "5.7.60 no permission to send as this sender", Relay),
            (Step::Content, 550, "5.1.7 bad sender", Sender),
            (Step::Content, 554, "5.3.0 local error", Us),
            (Step::Content, 503, "sequence", Us),
        ] {
            assert_eq!(blame(step, code, said), expected, "{step:?} {code} {said}");
            let failure = explain(step, code, said, "mail.example.com:25");
            assert_eq!((failure.is_reject(), failure.code()), (expected == Task, &*format!("smtp-{code}")));
            assert!(failure.message().contains(said), "{failure}");
        }
    }
}
