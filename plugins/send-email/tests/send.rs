//! The email handler against a real SMTP server.

mod server;

use serde_json::{Value, json};
use server::{Script, Server, certificate};
use std::net::TcpListener;
use std::time::Duration;
use warren_plugin::testing::{Kit, Ran, TaskSpec};
use warren_plugin::{Failure, Level};
use warren_send_email::SendEmail;

fn settings(port: u16, more: &Value) -> Value {
    let mut settings = json!({
        "server": "127.0.0.1", "port": port, "tls": "none", "from": "Shop <shop@example.org>", "timeout": "1s",
    });
    settings.as_object_mut().expect("a table").extend(more.as_object().expect("a table").clone());
    settings
}

fn kit(server: &Server, more: &Value) -> Kit<SendEmail> {
    let kit = Kit::new(settings(server.port(), more)).expect("the settings are good");
    kit.prefixes(["Send email"])
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

#[test]
fn the_servers_5xx_is_a_reject_where_it_is_about_the_mail() {
    for (step, is_retry) in
        [("CONNECT", true), ("EHLO", true), ("MAIL", false), ("RCPT", false), ("DATA", false), ("END", false)]
    {
        let script = Script { answers: vec![(step, "550 5.1.1 no")], ..Script::default() };
        assert_eq!(failed(script, &json!({})), ("smtp-550".to_owned(), is_retry), "at {step}");
    }
    let script = Script { answers: vec![("MAIL", "530 5.7.0 log in first")], ..Script::default() };
    assert_eq!(failed(script, &json!({})), ("smtp-530".to_owned(), true), "it is about the account");
}

#[test]
fn a_server_that_falls_silent_or_hangs_up_is_a_retry() {
    for step in ["CONNECT", "RCPT", "END"] {
        let script = Script { silent_at: Some(step), ..Script::default() };
        assert_eq!(failed(script, &json!({})), ("timeout".to_owned(), true), "silent at {step}");
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
    let kit = Kit::<SendEmail>::new(settings(port, &json!({}))).expect("the settings are good");
    let ran = kit.prefixes(["Send email"]).run("Send email to user@example.com");
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

#[test]
fn a_password_file_is_read_without_its_line_end_and_should_be_private() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("password");
    std::fs::write(&file, "open sesame\n").expect("the file");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&file, mode).expect("for everybody");
    let server = Server::start(Script { login: true, ..Script::default() });
    let mut kit = kit(&server, &json!({"username": "shop", "password_file": file}));
    assert!(kit.logs().iter().any(|line| line.level == Level::Warn && line.message.contains("chmod")));
    kit.run("Send email to user@example.com").done();
    assert_eq!(server.conversation().commands[1], "AUTH PLAIN AHNob3AAb3BlbiBzZXNhbWU=");
}

#[test]
fn wrong_settings_are_refused_with_the_key_and_the_remedy() {
    for (more, expected) in [
        (json!({"server": ""}), "settings.server must be a host's name"),
        (json!({"server": "smtp://example.com"}), "settings.server must be a host's name"),
        (json!({"port": 0}), "settings.port must be 1 to 65535"),
        (json!({"port": 99999}), "port"),
        (json!({"tls": "ssl"}), "tls"),
        (json!({"from": "nobody"}), "settings.from must be an address"),
        (json!({"from": "a@example.com\r\nBcc: b@example.com"}), "settings.from must be an address"),
        (json!({"reply_to": "x"}), "settings.reply_to must be an address"),
        (json!({"subject": "Hello {name}"}), "settings.subject has an unknown {name}; write {argument}"),
        (json!({"text": "}"}), "settings.text has a } without its {"),
        (
            json!({"allowed_domains": ["@example.com"]}),
            "settings.allowed_domains: \"@example.com\" is not a domain",
        ),
        (json!({"hello": "a b"}), "settings.hello must be"),
        (json!({"timeout": "0s"}), "settings.timeout must be 1s to 10m"),
        (json!({"username": "shop"}), "settings.password_file (or password) is missing"),
        (json!({"password": "open sesame"}), "settings.username is missing"),
        (json!({"username": "a", "password": "open sesame", "password_file": "/x"}), "both given"),
        (
            json!({"username": "a", "password_file": "/nowhere"}),
            "settings.password_file: /nowhere cannot be read",
        ),
        (json!({"server": "mail.example.com", "username": "a", "password": "open sesame"}), "in the clear"),
        (json!({"ca_file": "/x"}), "settings.ca_file has no use"),
        (json!({"tls": "tls", "ca_file": certificate("server.key")}), "holds no PEM certificate"),
        (json!({"passwrd": "open sesame"}), "passwrd"),
        (json!({"password": ["open sesame"]}), "password"),
    ] {
        let failure: Failure =
            Kit::<SendEmail>::new(settings(25, &more)).err().unwrap_or_else(|| panic!("{more} is refused"));
        assert!(failure.message().contains(expected), "{more}: {}", failure.message());
        assert!(!failure.message().contains("open sesame"), "{more}: {}", failure.message());
    }
}

#[test]
fn the_documented_settings_are_taken() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("password");
    std::fs::write(&file, "open sesame").expect("the file");
    let server = Server::start(Script { starttls: true, login: true, ..Script::default() });
    let mut settings = documented_settings();
    settings["server"] = json!("localhost");
    settings["port"] = json!(server.port());
    settings["password_file"] = json!(file);
    settings["ca_file"] = json!(certificate("authority.pem"));
    let mut kit = Kit::<SendEmail>::new(settings).expect("they are good");
    let body = json!({"to": "ada@example.com", "name": "Ada"});
    kit.run(TaskSpec::typed("Send email", body.to_string())).done();
    let talk = server.conversation();
    assert_eq!(talk.header("Subject").as_deref(), Some("News for ada@example.com"));
    assert_eq!(talk.commands[0], "EHLO worker1.example.com");
}

/// The settings that the crate's documentation shows.
fn documented_settings() -> Value {
    let source = include_str!("../src/lib.rs");
    let lines = source.lines().map(|line| line.trim_start_matches("//!").trim_start());
    let example: Vec<&str> =
        lines.skip_while(|line| *line != "```toml").skip(1).take_while(|line| *line != "```").collect();
    let config: Value = toml::from_str(&example.join("\n")).expect("the example is TOML");
    let handlers = config["handlers"].as_object().expect("it configures handlers");
    handlers.values().next().expect("one handler")["settings"].clone()
}
