//! Tables: a queue as the broker might have it, and what is to be said of it.

use std::collections::BTreeMap;
use std::time::Duration;

use warren::config::{Broker, Environment, Secret};

use super::*;

fn config(addresses: usize) -> Config {
    let broker = Broker {
        uris: vec![Secret("amqp://localhost".into()); addresses],
        consumer_timeout: Duration::from_secs(1800),
        ..Broker::default()
    };
    Config {
        files: Vec::new(),
        broker,
        queues: Vec::new(),
        plugins: warren::config::Plugins::default(),
        handlers: Vec::new(),
        daemon: warren::config::Daemon::new(&Environment::new()),
        log: warren::config::Log::default(),
    }
}

fn server(version: &str) -> Server {
    Server { product: "RabbitMQ".into(), version: version.into() }
}

fn described(kind: &str, arguments: &[(&str, &str)]) -> Description {
    let arguments: BTreeMap<String, String> =
        arguments.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    Description { kind: Some(kind.into()), durable: true, arguments }
}

#[expect(clippy::unnecessary_wraps, reason = "the tables have queues that are not there as well")]
fn there(ready: u32, consumers: u32, described: Description) -> Option<ExistingQueue> {
    Some(ExistingQueue { ready, consumers, described: Some(described) })
}

fn sight(name: &str, there: Option<ExistingQueue>) -> SurveyedQueue {
    SurveyedQueue { name: name.into(), there, rights: Rights { configure: May::Yes, read: May::Yes } }
}

fn queue(work: Option<ExistingQueue>, dead: Option<ExistingQueue>) -> QueueSurvey {
    QueueSurvey {
        queue: "q".into(),
        work: sight("q", work),
        dead: sight("q.dead", dead),
        delay: Rights { configure: May::Yes, read: May::Yes },
        delays: Vec::new(),
    }
}

fn survey(version: &str, queue: QueueSurvey) -> Survey {
    Survey { server: server(version), publish: May::Yes, queues: vec![queue], passed_over: 0 }
}

#[track_caller]
fn assert_found(findings: &[Finding], expected: &[(Severity, &str)]) {
    assert_eq!(findings.len(), expected.len(), "{findings:#?}");
    for (finding, (severity, part)) in findings.iter().zip(expected) {
        assert_eq!(finding.severity, *severity, "{finding:?}");
        assert!(finding.what.contains(part), "no {part:?} in {finding:?}");
    }
}

#[test]
fn work_queues_with_a_trap_are_named() {
    use Severity::{Error, Note, Ok, Warning};
    let classic = |arguments| described("classic", arguments);
    let quorum = |arguments| described("quorum", arguments);
    let transient = Description { durable: false, ..classic(&[]) };
    let table = [
        (1, "4.1.0", there(0, 1, classic(&[])), vec![(Ok, "classic, 0 ready, 1 consumers")]),
        (1, "4.1.0", None, vec![(Ok, "does not exist yet")]),
        (1, "4.1.0", there(0, 1, described("stream", &[])), vec![(Error, "it is a stream")]),
        (1, "4.1.0", there(0, 1, transient), vec![(Warning, "not durable")]),
        (3, "4.1.0", there(0, 1, classic(&[])), vec![(Warning, "lives on one node")]),
        (3, "3.12.0", there(0, 1, classic(&[])), vec![(Warning, "mirrored")]),
        (3, "3.12.0", there(0, 1, quorum(&[])), vec![(Ok, "quorum")]),
        (1, "4.1.0", there(0, 1, quorum(&[])), vec![(Warning, "more than 20 times")]),
        (1, "4.1.0", there(0, 1, quorum(&[("x-delivery-limit", "5")])), vec![(Warning, "more than 5 times")]),
        (1, "4.1.0", there(0, 1, quorum(&[("x-delivery-limit", "-1")])), vec![(Ok, "quorum")]),
        (1, "4.1.0", there(0, 1, quorum(&[("x-dead-letter-exchange", "dlx")])), vec![(Ok, "quorum")]),
        (1, "3.10.8", there(0, 1, quorum(&[("x-delivery-limit", "-1")])), vec![(Error, "loses tasks")]),
        (1, "3.10.8", there(0, 1, classic(&[("x-max-length", "9")])), vec![(Note, "x-max-length=9")]),
        (1, "3.13.0", there(0, 1, classic(&[("x-consumer-timeout", "60000")])), vec![(Warning, "is 60 s")]),
        (1, "3.13.0", there(0, 1, classic(&[("x-consumer-timeout", "3600000")])), vec![(Ok, "classic")]),
        (1, "3.13.0", there(4, 0, classic(&[])), vec![(Warning, "4 tasks wait and nobody consumes")]),
        (
            1,
            "3.13.0",
            Some(ExistingQueue { ready: 0, consumers: 1, described: None }),
            vec![(Note, "may not configure it")],
        ),
    ];
    for (addresses, version, work, expected) in table {
        let findings = check(&survey(version, queue(work, None)), &config(addresses));
        assert_found(&findings, &expected);
    }
}

#[test]
fn dead_letters_that_are_many_or_find_no_room_are_named() {
    use Severity::{Error, Note, Ok, Warning};
    let work = || there(0, 1, described("classic", &[]));
    let full = [("x-max-length", "2")];
    let refusing = [("x-max-length", "2"), ("x-overflow", "reject-publish")];
    let table = [
        (there(0, 0, described("classic", &[])), vec![(Ok, "no dead letters")]),
        (there(3, 0, described("classic", &[])), vec![(Note, "3 dead letters")]),
        (there(HOLD, 0, described("classic", &[])), vec![(Warning, "more than one look")]),
        (there(1, 0, described("classic", &full)), vec![(Note, "1 dead letters")]),
        (there(2, 0, described("classic", &full)), vec![(Error, "drops the oldest")]),
        (there(2, 0, described("classic", &refusing)), vec![(Error, "takes no more dead letters")]),
        (there(0, 0, described("stream", &[])), vec![(Warning, "not replayed")]),
        (there(0, 0, described("classic", &[("x-message-ttl", "5")])), vec![(Warning, "vanish")]),
        (there(0, 0, described("quorum", &[])), vec![(Warning, "more than 20 times")]),
    ];
    for (dead, expected) in table {
        assert_found(&check(&survey("4.1.0", queue(work(), dead)), &config(1)), &expected);
    }
}

#[test]
fn delay_queues_that_cannot_do_their_work_are_named() {
    use Severity::{Error, Note, Ok, Warning};
    let table = [
        (Form::Wanted, vec![(Ok, "7 delayed")]),
        (Form::OtherType(QueueType::Classic), vec![(Warning, "it is classic")]),
        (Form::OtherType(QueueType::Quorum), vec![(Note, "used as it is")]),
        (Form::Unusable, vec![(Error, "another delay")]),
        (Form::Unknown, vec![(Note, "not known")]),
    ];
    for (form, expected) in table {
        let mut queue = queue(there(0, 1, described("classic", &[])), None);
        queue.delays = vec![SurveyedDelayQueue { name: "q.retry.5000".into(), ready: 7, form }];
        assert_found(&check(&survey("4.1.0", queue), &config(1)), &expected);
    }
}

#[test]
fn only_the_permissions_that_are_needed_are_asked_for() {
    let no = || May::No("ACCESS_REFUSED".into());
    let exists = || there(0, 1, described("classic", &[]));
    let none = Rights { configure: no(), read: no() };
    // What exists is not declared again; delay queues always are.
    let mut survey = survey("4.1.0", queue(exists(), exists()));
    survey.queues[0].work.rights.configure = no();
    survey.queues[0].dead.rights.configure = no();
    assert_found(&check(&survey, &config(1)), &[(Severity::Ok, "classic")]);
    survey.queues[0].dead.rights = none.clone();
    survey.queues[0].work.rights = none.clone();
    survey.queues[0].delay = none;
    survey.queues[0].dead.there = None;
    let findings = check(&survey, &config(1));
    let expected = [
        (Severity::Error, "tasks cannot be consumed"),
        (Severity::Error, "dead letters are not taken"),
        (Severity::Error, "delay queues cannot be declared"),
        (Severity::Error, "delay queues cannot be declared"),
        (Severity::Note, "warrenctl dead cannot look"),
    ];
    assert_found(&findings, &expected);
    for finding in findings.iter().filter(|finding| finding.severity == Severity::Error) {
        assert_eq!(finding.code, Code::NoPermission);
        assert!(finding.remedy.contains("set_permissions"), "{finding:?}");
    }
}
