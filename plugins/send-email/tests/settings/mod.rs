//! Which settings are taken.

#[path = "../../../documented.rs"]
mod documented;

use self::documented::documented_settings;
use super::*;

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
        let failure: Failure = TestKit::<SendEmail>::new(settings(25, &more))
            .err()
            .unwrap_or_else(|| panic!("{more} is refused"));
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
    let mut settings = documented_settings(include_str!("../../src/lib.rs"));
    settings["server"] = json!("localhost");
    settings["port"] = json!(server.port());
    settings["password_file"] = json!(file);
    settings["ca_file"] = json!(certificate("authority.pem"));
    let mut kit = TestKit::<SendEmail>::new(settings).expect("they are good");
    let body = json!({"to": "ada@example.com", "name": "Ada"});
    kit.run(TaskSpec::typed("Send email", body.to_string())).done();
    let talk = server.conversation();
    assert_eq!(talk.header("Subject").as_deref(), Some("News for ada@example.com"));
    assert_eq!(talk.commands[0], "EHLO worker1.example.com");
}
