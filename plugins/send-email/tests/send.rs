//! The email handler against a real SMTP server.

mod reader;
mod server;
mod settings;

use reader::read_by_python;
use serde_json::{Value, json};
use server::{Script, Server, certificate};
use std::net::TcpListener;
use std::time::Duration;
use warren_plugin::testing::{Ran, TaskSpec, TestKit};
use warren_plugin::{Failure, Level};
use warren_send_email::SendEmail;

fn settings(port: u16, more: &Value) -> Value {
    let mut settings = json!({
        "server": "127.0.0.1", "port": port, "tls": "none", "from": "Shop <shop@example.org>", "timeout": "20s",
    });
    settings.as_object_mut().expect("a table").extend(more.as_object().expect("a table").clone());
    settings
}

fn kit(server: &Server, more: &Value) -> TestKit<SendEmail> {
    TestKit::new(settings(server.port(), more)).expect("the settings are good")
}

fn result(ran: &Ran) -> Value {
    serde_json::from_slice(ran.done().bytes()).expect("a JSON result")
}

/// Sends one mail through a server with this script, and gives why it failed and whether to try again.
fn failed(script: Script, more: &Value) -> (String, bool) {
    let server = Server::start(script);
    let ran = kit(&server, more).run("Send email to user@example.com");
    let failure = ran.failure();
    assert!(!failure.message().contains("open sesame"), "{failure}");
    assert!(failure.is_retry() || failure.is_reject());
    (failure.code().to_owned(), failure.is_retry())
}

#[test]
fn a_mail_arrives_with_subject_text_and_an_id_made_of_the_tasks() {
    let server = Server::start(Script::default());
    let more =
        json!({"subject": "News for {to}", "text": "{id} says:\n{body}", "reply_to": "help@example.org"});
    let ran = kit(&server, &more).run(TaskSpec::text("Task 2: Send email to user@example.com").id("t-2"));
    assert_eq!(
        result(&ran),
        json!({
            "to": "user@example.com",
            "message_id": "<warren.t-2@example.org>",
            "server": "250 2.0.0 queued as 4711",
        })
    );
    let talk = server.conversation();
    let commands: Vec<_> =
        talk.commands.iter().map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(commands, ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]);
    assert!(talk.commands[1].starts_with("MAIL FROM:<shop@example.org>"), "{:?}", talk.commands);
    assert_eq!(talk.commands[2], "RCPT TO:<user@example.com>");
    let header = |name: &str| talk.header(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(header("To"), "user@example.com");
    assert_eq!(header("From"), "Shop <shop@example.org>");
    assert_eq!(header("Reply-To"), "help@example.org");
    assert_eq!(header("Subject"), "News for user@example.com");
    assert_eq!(header("Message-ID"), "<warren.t-2@example.org>");
    assert_eq!(header("Auto-Submitted"), "auto-generated");
    assert!(talk.header("Date").is_some());
    assert_eq!(talk.text().trim_end(), "t-2 says:\r\nTask 2: Send email to user@example.com");
}

#[test]
fn a_typed_task_says_recipient_subject_text_and_fields_in_json() {
    let server = Server::start(Script::default());
    let mut kit = kit(&server, &json!({"subject": "Order {body.order}", "text": "Dear {body.name}"}));
    let body = json!({"to": "ada@example.com", "order": 1001, "name": "Ada", "text": "Own\n.\n..words"});
    kit.run(TaskSpec::typed("Send email", body.to_string())).done();
    let talk = server.conversation();
    assert_eq!(talk.header("To").as_deref(), Some("ada@example.com"));
    assert_eq!(talk.header("Subject").as_deref(), Some("Order 1001"));
    assert_eq!(talk.text().trim_end(), "Own\r\n.\r\n..words", "lines of dots survive");

    let ran = kit.run(TaskSpec::typed("Send email", r#"{"to": "ada@example.com", "order": 1}"#));
    assert_eq!((ran.failure().code(), ran.failure().is_reject()), ("no-field", true));
    assert!(server.is_idle(), "nothing was sent");
}

#[test]
fn the_same_task_has_the_same_message_id_each_time() {
    let server = Server::start(Script::default());
    let mut kit = kit(&server, &json!({}));
    let task = || TaskSpec::text("Send email to user@example.com").id("order-7/1");
    kit.run(task()).done();
    kit.run(task().redelivered().attempt(2)).done();
    let ids = [server.conversation(), server.conversation()].map(|talk| talk.header("Message-ID"));
    assert_eq!(ids[0].as_deref(), Some("<warren.order-7/1@example.org>"));
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn no_text_of_a_task_adds_a_header_or_a_recipient() {
    let server = Server::start(Script::default());
    let mut kit = kit(&server, &json!({}));
    let evil = "Hi\r\nBcc: eve@example.com\r\n\r\nowned";
    let body = json!({"to": "user@example.com", "subject": evil, "text": evil});
    kit.run(TaskSpec::typed("Send email", body.to_string()).id("x\r\nBcc: eve@example.com")).done();
    let talk = server.conversation();
    let mut names = talk.header_names();
    names.sort();
    let expected = [
        "Auto-Submitted",
        "Content-Transfer-Encoding",
        "Content-Type",
        "Date",
        "From",
        "MIME-Version",
        "Message-ID",
        "Subject",
        "To",
    ];
    let known: Vec<&String> = names.iter().filter(|name| !expected.contains(&name.as_str())).collect();
    assert!(known.is_empty(), "{known:?}");
    assert_eq!(talk.commands.iter().filter(|line| line.starts_with("RCPT")).count(), 1);

    let bodies = ["a@example.com\r\nRCPT TO:<eve@example.com>", "a@example.com,eve@example.com", "a@b@c", ""];
    for to in bodies {
        let ran = kit.run(TaskSpec::typed("Send email", json!({"to": to}).to_string()));
        assert!(ran.failure().is_reject(), "{to:?}: {}", ran.failure());
    }
    assert!(server.is_idle(), "nothing was sent");
}

#[test]
fn the_servers_4xx_is_a_retry_at_every_step() {
    for step in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END"] {
        let script = Script { answers: vec![(step, "451 4.7.1 greylisted")], ..Script::default() };
        assert_eq!(failed(script, &json!({})), ("smtp-451".to_owned(), true), "at {step}");
    }
}

/// Each step of a conversation with the answers that tell them apart; `refusal.rs` has the whole table of codes.
#[test]
fn a_5xx_is_a_reject_where_the_mail_or_its_recipient_is_refused_and_a_retry_where_we_are() {
    let (reject, retry) = (false, true);
    for (step, answer, is_retry, part) in [
        ("CONNECT", "554 5.7.1 your host is on a list", retry, "the mail itself is not refused"),
        ("EHLO", "550 5.1.1 no", retry, "the mail itself is not refused"),
        ("MAIL", "550 5.1.0 sender refused", retry, "correct settings.from"),
        ("MAIL", "550 no", retry, "correct settings.from"),
        ("MAIL", "530 5.7.0 log in first", retry, "correct settings.server, port or username"),
        ("MAIL", "552 5.3.4 too large", reject, "refuses the mail"),
        ("RCPT", "550 5.1.1 no such user", reject, "refuses the mail"),
        ("RCPT", "550 no such user", reject, "refuses the mail"),
        ("RCPT", "550-5.2.2 the mailbox\r\n550 5.2.2 is full", reject, "refuses the mail"),
        ("RCPT", "554 5.7.1 <user@example.com>: Relay access denied", retry, "let the server relay"),
        ("RCPT", "554 relay access denied", retry, "let the server relay"),
        ("RCPT", "550-relaying\r\n550 denied", retry, "let the server relay"),
        ("RCPT", "550 5.7.23 SPF check failed", retry, "DNS of the sender's domain"),
        ("RCPT", "503 5.5.1 bad sequence", retry, "the mail itself is not refused"),
        ("DATA", "554 no valid recipients", retry, "the mail itself is not refused"),
        ("DATA", "550 5.1.1 no such user", reject, "refuses the mail"),
        ("END", "550 5.7.1 this is spam", reject, "refuses the mail"),
        ("END", "554 rejected", reject, "refuses the mail"),
        ("END", "550 5.7.26 fails DMARC", retry, "DNS of the sender's domain"),
        ("END", "550 5.7.60 no permission to send as this sender", retry, "let the server relay"),
    ] {
        let server = Server::start(Script { answers: vec![(step, answer)], ..Script::default() });
        let ran = kit(&server, &json!({})).run("Send email to user@example.com");
        let failure = ran.failure();
        assert_eq!(
            (failure.is_retry(), failure.is_reject()),
            (is_retry, !is_retry),
            "{step} {answer}: {failure}"
        );
        assert_eq!(failure.code(), format!("smtp-{}", &answer[..3]), "{step} {answer}");
        assert!(failure.message().contains(part), "{step} {answer}: {failure}");
        let commands = server.conversation().commands;
        assert!(
            commands.last().is_some_and(|last| last == "QUIT") || step == "CONNECT",
            "{step}: {commands:?}"
        );
    }
}

#[test]
fn what_is_sent_is_a_mail_to_the_letter_of_the_standards() {
    let server = Server::start(Script::default());
    let long_word = "w".repeat(1500);
    let long_line = format!("{} and {}", "words ".repeat(300), "é".repeat(1200));
    let texts = [
        "plain",
        "",
        "one\ntwo\r\nthree\rfour",
        ".\n..\n.dot\n\n.",
        "trailing \n\t\nFrom the start\n",
        "ümläut \u{1f600} = 100%",
        "nul \0 and \u{7f} and \u{1b}[31m",
        long_word.as_str(),
        long_line.as_str(),
    ];
    let subjects =
        ["plain", "Grüße \u{1f600}", "=?utf-8?q?not_encoded?=", long_word.as_str(), long_line.as_str(), ""];
    let froms =
        ["Shop <shop@example.org>", "\"Müller, Söhne\" <shop@example.org>", "shop@m\u{fc}nchen.example"];
    let mut done = 0;
    for (index, text) in texts.iter().enumerate() {
        let (subject, from) = (subjects[index % subjects.len()], froms[index % froms.len()]);
        let mut kit = kit(&server, &json!({"from": from}));
        let id = format!("täsk/{index} <x>");
        let body = json!({"to": "user@example.com", "subject": subject, "text": text}).to_string();
        kit.run(TaskSpec::typed("Send email", body.clone()).id(&id)).done();
        let first = read_by_python(&server.conversation().mail.expect("a mail"));
        kit.run(TaskSpec::typed("Send email", body).id(&id).attempt(2)).done();
        let second = server.conversation().header("Message-ID");
        assert_eq!(first["id"].as_str(), second.as_deref(), "the Message-ID is the task's");
        assert_eq!(first["to"], json!(["user@example.com"]));
        let sent =
            |text: &str| text.replace("\r\n", "\n").replace('\r', "\n").trim_end_matches('\n').to_owned();
        assert_eq!(sent(first["text"].as_str().expect("text")), sent(text), "text {index}");
        assert_eq!(first["subject"], json!(subject), "subject {index}");
        let address = if from.contains("nchen") { "shop@xn--mnchen-3ya.example" } else { "shop@example.org" };
        assert_eq!(first["from"][0][1], json!(address));
        if from.contains("Söhne") {
            assert_eq!(first["from"][0][0], json!("Müller, Söhne"));
        }
        done += 1;
    }
    assert_eq!(done, texts.len());
}

#[test]
fn a_domain_beyond_ascii_goes_to_a_server_that_knows_none_as_the_dns_has_it() {
    let server = Server::start(Script::default());
    let ran = kit(&server, &json!({})).run("Send email to user@m\u{fc}nchen.example");
    assert_eq!(result(&ran)["to"], "user@xn--mnchen-3ya.example");
    let talk = server.conversation();
    assert_eq!(talk.commands[2], "RCPT TO:<user@xn--mnchen-3ya.example>");
    assert_eq!(talk.header("To").as_deref(), Some("user@xn--mnchen-3ya.example"));

    // The part before the @ has no such form.
    let ran = kit(&server, &json!({})).run("Send email to m\u{fc}ller@example.com");
    assert_eq!((ran.failure().code(), ran.failure().is_reject()), ("unsupported", true));
    assert!(ran.failure().message().contains("SMTPUTF8"), "{}", ran.failure());

    kit(&server, &json!({})).run("Send email to user@[127.0.0.1]").done();
}

#[test]
fn a_certificate_signed_by_itself_is_taken_or_refused_with_the_remedy() {
    for (name, is_taken) in [("self-leaf", true), ("self-ca", false)] {
        let script = Script { tls: true, certificate: Some(name), ..Script::default() };
        let server = Server::start(script);
        let more =
            json!({"server": "localhost", "tls": "tls", "ca_file": certificate(&format!("{name}.pem"))});
        let ran = kit(&server, &more).run("Send email to user@example.com");
        if is_taken {
            ran.done();
            continue;
        }
        assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("tls", true));
        assert!(ran.failure().message().contains("basicConstraints=CA:FALSE"), "{}", ran.failure());
    }
}

#[test]
fn a_server_that_falls_silent_or_hangs_up_is_a_retry() {
    for step in ["CONNECT", "RCPT", "END"] {
        let script = Script { silent_at: Some(step), ..Script::default() };
        let soon = json!({"timeout": "1s"});
        assert_eq!(failed(script, &soon), ("timeout".to_owned(), true), "silent at {step}");
    }
    for step in ["CONNECT", "EHLO", "MAIL", "END"] {
        let script = Script { hang_up_at: Some(step), ..Script::default() };
        assert_eq!(failed(script, &json!({})), ("unreachable".to_owned(), true), "hangs up at {step}");
    }
}

#[test]
fn a_server_that_is_not_there_is_a_retry_with_its_place() {
    // Bound and closed again: a port that nobody listens on.
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let mut kit = TestKit::<SendEmail>::new(settings(port, &json!({}))).expect("the settings are good");
    let ran = kit.run("Send email to user@example.com");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("unreachable", true));
    assert!(ran.failure().message().contains(&format!("127.0.0.1:{port}")), "{}", ran.failure());
}

#[test]
fn a_login_is_made_before_the_mail_and_its_password_is_in_no_error() {
    let login = json!({"username": "shop", "password": "open sesame"});
    let server = Server::start(Script { login: true, ..Script::default() });
    kit(&server, &login).run("Send email to user@example.com").done();
    let commands = server.conversation().commands;
    assert_eq!(commands[1], "AUTH PLAIN AHNob3AAb3BlbiBzZXNhbWU=", "{commands:?}");

    let refused =
        Script { login: true, answers: vec![("AUTH", "535 no open sesame for you")], ..Script::default() };
    assert_eq!(failed(refused, &login), ("authentication".to_owned(), true), "the mail may be fine");
    let later = Script { login: true, answers: vec![("AUTH", "454 open sesame later")], ..Script::default() };
    assert_eq!(failed(later, &login), ("smtp-454".to_owned(), true));
    let without_login = Script::default();
    assert_eq!(failed(without_login, &login), ("authentication".to_owned(), true));
}

#[test]
fn with_starttls_and_with_tls_login_and_mail_go_through_the_protected_connection() {
    for (tls, script) in [
        ("starttls", Script { starttls: true, login: true, ..Script::default() }),
        ("tls", Script { tls: true, login: true, ..Script::default() }),
    ] {
        let server = Server::start(script);
        let more = json!({
            "server": "localhost", "tls": tls, "ca_file": certificate("authority.pem"),
            "username": "shop", "password": "open sesame",
        });
        kit(&server, &more).run("Send email to user@example.com").done();
        let talk = server.conversation();
        let clear: Vec<_> = talk.commands.iter().filter(|line| !line.starts_with("tls ")).collect();
        assert!(
            clear.iter().all(|line| line.starts_with("EHLO") || line.starts_with("STARTTLS")),
            "{clear:?}"
        );
        assert!(talk.commands.iter().any(|line| line.starts_with("tls AUTH PLAIN")));
        assert!(talk.mail.is_some());
    }
}

#[test]
fn without_the_protection_asked_for_nothing_is_sent() {
    let untrusted = json!({"server": "localhost", "tls": "starttls"});
    let offers = Server::start(Script { starttls: true, ..Script::default() });
    let ran = kit(&offers, &untrusted).run("Send email to user@example.com");
    assert!(ran.failure().is_retry(), "a certificate of an unknown authority: {}", ran.failure());
    assert!(offers.conversation().commands.iter().all(|line| !line.contains("MAIL")));

    let offers_none = Server::start(Script::default());
    let ran = kit(&offers_none, &untrusted).run("Send email to user@example.com");
    assert_eq!((ran.failure().code(), ran.failure().is_retry()), ("no-starttls", true));
    assert!(offers_none.conversation().commands.iter().all(|line| !line.contains("MAIL")));
}

#[test]
fn a_cancelled_task_connects_to_nobody() {
    let server = Server::start(Script::default());
    let mut kit = kit(&server, &json!({}));
    kit.cancelled();
    assert!(kit.run("Send email to user@example.com").failure().is_cancelled());
    assert!(server.is_idle());
    kit.deadline(Duration::from_secs(5));
    kit.run("Send email to user@example.com").done();
}
