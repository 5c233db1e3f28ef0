//! What a handler says arrives, and what it may not say is a fault.

#![allow(unsafe_code)] // One test has signals ignored.

use std::time::Duration;

use warren::host::{HostEvent, HostTask, probe, run_one};
use warren::model::{FaultCause, FollowUp, Outcome, TaskError};

use crate::bed::{BOUND, Watched, code, run, run_bare, spawner, spec, task};

#[test]
fn done_retry_and_reject_arrive_with_their_errors() {
    run(async {
        let mut host = Watched::start(&spawner());
        let done = host.run("done").await;
        assert_eq!((done.outcome, done.error, done.result), (Outcome::Done, None, None));
        let retry = host.run("retry").await;
        assert_eq!(retry.outcome, Outcome::Retry);
        let error = TaskError {
            code: "busy".into(),
            message: "come back later".into(),
            retry_after: Some(Duration::from_millis(1500)),
        };
        assert_eq!(retry.error, Some(error));
        let reject = host.run("reject").await;
        assert_eq!(reject.outcome, Outcome::Reject);
        assert_eq!(reject.error.unwrap().message, "n\u{FFFD}o");
    });
}

#[test]
fn the_task_arrives_whole() {
    run(async {
        let mut host = Watched::start(&spawner());
        host.send_task(&HostTask {
            attempt: 3,
            redelivered: true,
            id_generated: true,
            argument: "tell",
            headers: &[("colour".into(), "blue".into())],
            ..task()
        });
        let result = host.report().await.result.unwrap();
        assert_eq!(result.content_type, "text/plain");
        assert_eq!(String::from_utf8(result.body).unwrap(), "t-1 tasks 3 3 1 colour=blue 1");
    });
}

#[test]
fn a_large_task_and_a_small_one_after_it_arrive() {
    run(async {
        let mut host = Watched::start(&spawner());
        let body = vec![b'x'; 16 << 20];
        host.send_task(&HostTask { body: &body, ..task() });
        host.send("tell");
        assert_eq!(host.report().await.outcome, Outcome::Done);
        assert_eq!(host.report().await.outcome, Outcome::Done);
    });
}

#[test]
fn follow_ups_arrive_as_they_were_published() {
    run(async {
        let mut host = Watched::start(&spawner());
        let report = host.run("publish 2").await;
        let follow_up = FollowUp {
            queue: "other".into(),
            body: b"bbbbbbbbbb".to_vec(),
            headers: vec![("colour".into(), "blue".into())],
            delay: Duration::from_millis(1500),
            priority: -1,
            ..FollowUp::default()
        };
        assert_eq!(report.follow_ups, [follow_up.clone(), follow_up]);
        let invalid = host.run("late").await;
        assert_eq!((invalid.follow_ups.len(), invalid.result.unwrap().body), (0, b"invalid".to_vec()));
    });
}

#[test]
fn what_breaks_a_bound_or_a_rule_is_a_fault_and_nothing_more_is_started_in_that_host() {
    run(async {
        let spawner = spawner();
        let cases = [
            ("status 17", FaultCause::Contract, "unknown-status"),
            ("status -1", FaultCause::Contract, "unknown-status"),
            ("status 4", FaultCause::Returned, "fault"),
            ("cancelled", FaultCause::Contract, "not-cancelled"),
            ("publish 1001", FaultCause::Contract, "oversize"),
            ("publish-large 1048577", FaultCause::Contract, "oversize"),
        ];
        for (argument, cause, expected) in cases {
            let mut host = Watched::start(&spawner);
            let report = host.run(argument).await;
            assert_eq!((report.outcome, code(&report)), (Outcome::Fault(cause), expected), "{argument}");
            assert!(report.follow_ups.is_empty(), "{argument}");
            let next = host.run("done").await;
            assert_eq!((next.outcome, next.error), (Outcome::Cancelled, None), "after {argument}");
        }
        let mut host = Watched::start(&spawner);
        assert_eq!(host.run("result 262144").await.result.unwrap().body.len(), 262_144);
        assert_eq!(host.run("publish 1000").await.follow_ups.len(), 1000);
    });
}

#[test]
fn an_answer_that_is_too_long_is_cut_with_a_warning_and_the_task_is_done() {
    run(async {
        let mut host = Watched::start(&spawner());
        let left_out = "the result of 262145 bytes is left out: at most 262144 are allowed";
        let cases = [
            ("type 255", None, "an answer", ""),
            ("type 416", Some("text/html"), "an answer", "content type of 416 bytes"),
            ("type -20", Some("text/html"), "an answer", "content type of 20 bytes"),
            ("result 262145", Some("text/plain"), left_out, left_out),
        ];
        for (argument, content_type, body, warning) in cases {
            let seq = host.send(argument);
            let mut warned = String::new();
            let report = loop {
                match host.next().await {
                    HostEvent::Log { seq: of, level: 2, message, .. } if of == seq => warned = message,
                    HostEvent::Report(report) => break report,
                    _ => {}
                }
            };
            assert_eq!((&report.outcome, code(&report)), (&Outcome::Done, ""), "{argument}");
            let result = report.result.expect("a result");
            assert_eq!(String::from_utf8_lossy(&result.body), body, "{argument}");
            assert!(
                warned.contains(warning) && warned.is_empty() == warning.is_empty(),
                "{argument}: {warned}"
            );
            match content_type {
                Some(expected) => assert_eq!(result.content_type, expected, "{argument}"),
                None => assert_eq!(result.content_type.len(), 255, "{argument}"),
            }
        }
    });
}

#[test]
fn a_follow_up_that_amqp_has_no_room_for_is_refused_when_it_is_published() {
    run(async {
        let mut host = Watched::start(&spawner());
        let fits = host.run("words 255").await;
        assert_eq!((fits.follow_ups.len(), &*fits.result.unwrap().body), (4, &b"0000"[..]));
        let long = host.run("words 256").await;
        assert_eq!((long.outcome, long.result.unwrap().body), (Outcome::Done, b"2220".to_vec()));
        let content_types: Vec<_> = long.follow_ups.iter().map(|task| task.content_type.as_str()).collect();
        assert_eq!(content_types, ["application/octet-stream"]);
    });
}

#[test]
fn a_log_line_carries_its_task_and_its_fields() {
    run(async {
        let mut host = Watched::start(&spawner());
        let seq = host.send("log");
        loop {
            if let HostEvent::Log { seq: of, level, message, fields } = host.next().await {
                assert_eq!((of, level, message.as_str()), (seq, 3, "a line"));
                assert_eq!(fields, [("size".to_owned(), "large".to_owned())]);
                break;
            }
        }
    });
}

#[test]
fn ten_megabytes_of_output_are_bounded_and_the_task_is_done() {
    run(async {
        let mut host = Watched::start(&spawner());
        let seq = host.send("print 10485760");
        let (mut bytes, mut last) = (0, String::new());
        loop {
            match host.next().await {
                HostEvent::Output { seq: of, line, stderr: false } if of == seq => {
                    bytes += line.len();
                    last = line;
                }
                HostEvent::Report(report) => {
                    assert_eq!(report.outcome, Outcome::Done);
                    break;
                }
                _ => {}
            }
        }
        assert!(bytes <= 4096 + 64, "{bytes}");
        assert_eq!(last, format!("… {} bytes more", 10_485_760 - 4096));
    });
}

#[test]
fn output_without_a_newline_is_a_line_at_the_tasks_end() {
    run(async {
        let mut host = Watched::start(&spawner());
        let seq = host.send("partial");
        loop {
            match host.next().await {
                HostEvent::Output { seq: of, line, .. } => {
                    assert_eq!((of, line.as_str()), (seq, "no newline"));
                    break;
                }
                HostEvent::Report(_) => panic!("the report came before the output"),
                _ => {}
            }
        }
    });
}

#[test]
fn quit_finishes_what_was_sent_then_quiesces_and_destroys() {
    run(async {
        let mut host = Watched::start(&spawner());
        for _ in 0..16 {
            host.send("done");
        }
        host.host.quit();
        let (mut reports, mut lines) = (0, Vec::new());
        let exit = loop {
            match host.next().await {
                HostEvent::Report(_) => reports += 1,
                HostEvent::Output { line, .. } => lines.push(line),
                HostEvent::Exited(exit) => break exit,
                _ => {}
            }
        };
        assert_eq!((reports, lines), (16, vec!["quiesced".to_owned(), "destroyed".to_owned()]));
        assert_eq!((exit.why.as_str(), exit.started, exit.ended), ("exit status 0", 16, 16));
        assert_eq!((exit.create_error, exit.done_unreported), (None, vec![]));
    });
}

#[test]
fn a_host_has_nothing_of_the_daemon_but_its_own() {
    // Cargo sets it for every test: it stands for whatever the daemon's environment holds.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    // Ignored signals survive an exec: the first and the last one stand for all of them.
    for signal in [libc::SIGHUP, libc::SIGRTMAX()] {
        // SAFETY: no test of this program sends these, and no code of ours runs when they come.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    run(async {
        let mut host = Watched::start(&spawner());
        let result = host.run("surroundings").await.result.unwrap();
        assert_eq!(
            String::from_utf8(result.body).unwrap(),
            "name=warren:torture fds=0 new_privs=1 secret=none path=1 group=1 tty=0 ignored= 13"
        );
    });
}

#[test]
fn a_probe_passes_a_good_handler_and_quotes_a_bad_one() {
    run_bare(async {
        let spawner = spawner();
        probe(&spec("{}"), &spawner).await.unwrap();
        let cases = [
            (r#"{"create":"fail"}"#, "no-directory", "/nowhere is not there"),
            (r#"{"create":"crash"}"#, "crash", "signal 11 (SIGSEGV); it printed: about to crash"),
            (r#"{"create":"exit"}"#, "crash", "exit status 0"),
            (r#"{"create":"null"}"#, "abi", "create succeeded, but made no instance"),
            (r#"{"create":"publish"}"#, "not-allowed", "publish outside of handle"),
        ];
        for (settings, code, message) in cases {
            let error = probe(&spec(settings), &spawner).await.unwrap_err();
            assert_eq!((error.code.as_str(), error.message.as_str()), (code, message), "{settings}");
        }
    });
}

#[test]
fn probes_run_side_by_side_inside_the_data_paths_runtime() {
    run(async {
        let spawner = spawner();
        let (good, bad) = (spec("{}"), spec(r#"{"create":"fail"}"#));
        let (first, second, third) =
            tokio::join!(probe(&good, &spawner), probe(&bad, &spawner), probe(&good, &spawner));
        assert_eq!((first, second.unwrap_err().code.as_str(), third), (Ok(()), "no-directory", Ok(())));
    });
}

#[test]
fn a_create_that_hangs_is_killed_at_its_limit() {
    run_bare(async {
        let mut spec = spec(r#"{"create":"hang"}"#);
        spec.create_timeout = Duration::from_millis(100);
        let error = probe(&spec, &spawner()).await.unwrap_err();
        assert_eq!(error.code, "timeout");
    });
}

#[test]
fn one_task_runs_without_an_engine() {
    run_bare(async {
        let spawner = spawner();
        let mut lines = Vec::new();
        let note = |event| {
            if let HostEvent::Output { line, .. } = event {
                lines.push(line);
            }
        };
        let task = |argument| HostTask { argument, timeout: BOUND, ..task() };
        let report = run_one(&spec("{}"), &spawner, &task("print 1024"), note).await.unwrap();
        assert_eq!(report.outcome, Outcome::Done);
        assert_eq!(lines, [&"x".repeat(1023), "quiesced", "destroyed"]);
        let exit = run_one(&spec("{}"), &spawner, &task("abort"), |_| {}).await.unwrap_err();
        assert_eq!((exit.why.as_str(), exit.started, exit.ended), ("signal 6 (SIGABRT)", 1, 0));
        let mut short = spec("{}");
        short.grace = Duration::from_millis(100);
        let stuck = HostTask { timeout: Duration::from_millis(100), ..task("spin") };
        let exit = run_one(&short, &spawner, &stuck, |_| {}).await.unwrap_err();
        assert_eq!(exit.why, "signal 9 (SIGKILL)");
    });
}
