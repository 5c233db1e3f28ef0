//! Every way a host can die is told apart, and only the task that was running pays.

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use warren::host::{HostEvent, HostTask};
use warren::model::Outcome;

use crate::bed::{Watched, group_is_empty, run, spawner, spec, task};

#[test]
fn each_death_is_named() {
    run(async {
        let spawner = spawner();
        let cases = [
            ("segv", "signal 11 (SIGSEGV)"),
            ("abort", "signal 6 (SIGABRT)"),
            ("exit 0", "exit status 0"),
            ("exit 3", "exit status 3"),
            ("overflow", "signal 6 (SIGABRT)"),
            ("closefds", "exit status 2"),
        ];
        for (argument, why) in cases {
            let mut host = Watched::start(&spawner);
            host.send("done");
            host.send(argument);
            let exit = host.exit().await;
            assert_eq!(exit.why, why, "{argument}");
            assert_eq!(exit.create_error, None, "{argument}");
            if argument != "closefds" {
                assert_eq!((exit.started, exit.ended), (2, 1), "{argument}");
            }
            assert_eq!(host.host.pid(), None, "{argument}");
        }
    });
}

#[test]
fn of_sixteen_queued_tasks_only_the_one_that_crashed_the_host_pays() {
    run(async {
        let mut host = Watched::start(&spawner());
        // All in one write, so that the reports of the first four are lost with the host.
        for seq in 1..=16 {
            let argument = if seq == 5 { "segv" } else { "done" };
            host.host.send(&HostTask { seq, argument, ..task() });
        }
        host.host.flush();
        let mut done = Vec::new();
        let exit = loop {
            match host.next().await {
                HostEvent::Report(report) => done.push(report.seq),
                HostEvent::Exited(exit) => break exit,
                _ => {}
            }
        };
        assert_eq!((exit.started, exit.ended), (5, 4));
        done.extend(exit.done_unreported);
        assert_eq!(done, [1, 2, 3, 4]);
    });
}

#[test]
fn a_result_that_is_waited_for_is_not_lost_with_the_host() {
    run(async {
        let mut host = Watched::start(&spawner());
        // In one write: without a result, the report of the first would be lost with the host.
        for (seq, argument) in (1..).zip(["tell", "segv"]) {
            host.host.send(&HostTask { seq, argument, ..task() });
        }
        host.host.flush();
        let report = host.report().await;
        assert_eq!((report.seq, report.result.is_some()), (1, true));
        assert_eq!(host.exit().await.done_unreported, [] as [u64; 0]);
    });
}

#[test]
fn a_result_that_nobody_waits_for_is_not_reported() {
    run(async {
        let mut host = Watched::start(&spawner());
        host.send_task(&HostTask { argument: "tell", wants_result: false, ..task() });
        let report = host.report().await;
        assert_eq!((report.outcome, report.result), (Outcome::Done, None));
    });
}

#[test]
fn a_spinning_task_is_ended_by_a_kill() {
    run(async {
        let mut host = Watched::start(&spawner());
        let seq = host.send("spin");
        host.running().await;
        host.host.cancel(seq);
        host.host.kill();
        let exit = host.exit().await;
        assert_eq!((exit.why.as_str(), exit.started, exit.ended), ("signal 9 (SIGKILL)", 1, 0));
    });
}

#[test]
fn a_host_that_does_not_quit_within_its_grace_is_killed() {
    run(async {
        let mut spec = spec("{}");
        spec.grace = Duration::from_millis(100);
        let mut host = Watched::with(&spawner(), &spec);
        let seq = host.send("wait");
        host.running().await;
        host.host.quit();
        // The grace begins with the last report.
        host.host.cancel(seq);
        let report = host.report().await;
        assert_eq!(report.outcome, Outcome::Cancelled);
        assert_eq!(host.exit().await.why, "exit status 0");
    });
}

#[test]
fn a_task_sent_to_a_host_that_cannot_be_created_is_not_started() {
    run(async {
        let mut host = Watched::with(&spawner(), &spec(r#"{"create":"fail"}"#));
        host.send("done");
        let exit = host.exit().await;
        assert_eq!((exit.started, exit.ended), (0, 0));
        assert_eq!(exit.why, "create failed: /nowhere is not there");
        assert_eq!(exit.create_error.unwrap().code, "no-directory");
    });
}

#[test]
fn bytes_that_are_no_frame_end_the_host_and_nothing_else() {
    run(async {
        let mut host = Watched::start(&spawner());
        host.send("garbage");
        let exit = host.exit().await;
        assert!(exit.why.starts_with("killed: it sent a frame over its bound"), "{}", exit.why);
    });
}

#[test]
fn children_left_behind_are_killed_at_the_tasks_end() {
    run(async {
        let mut host = Watched::start(&spawner());
        assert_eq!(host.run("child").await.outcome, Outcome::Done);
        let pid = host.host.pid().unwrap();
        // The host itself is all that is left of its group; those that left the group were its children.
        assert_eq!(host.run("done").await.outcome, Outcome::Done);
        host.host.quit();
        assert_eq!(host.exit().await.why, "exit status 0");
        assert!(group_is_empty(pid));
    });
}

#[test]
fn a_dropped_host_dies() {
    run(async {
        let spawner = spawner();
        let mut host = Watched::start(&spawner);
        host.send("spin");
        host.running().await;
        let end = pidfd(host.host.pid().unwrap());
        drop(host);
        assert!(dies(&end));
    });
}

#[test]
fn a_host_dies_with_its_daemon_even_while_its_handler_spins() {
    if std::env::var_os("BE_THE_DAEMON").is_some() {
        run(async {
            let mut host = Watched::start(&spawner());
            host.send("spin");
            host.running().await;
            println!("host {}", host.host.pid().unwrap());
            std::future::pending::<()>().await;
        });
    }
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "deaths::a_host_dies_with_its_daemon_even_while_its_handler_spins", "--nocapture"])
        .env("BE_THE_DAEMON", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(daemon.stdout.take().unwrap()).lines();
    let pid = lines.map_while(Result::ok).find_map(|line| line.split_once("host ")?.1.parse().ok());
    let end = pidfd(pid.expect("the host's pid"));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert!(dies(&end));
}

fn pidfd(pid: u32) -> OwnedFd {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a pid");
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("the process is there")
}

fn dies(pidfd: &OwnedFd) -> bool {
    let mut fds = [rustix::event::PollFd::new(pidfd, rustix::event::PollFlags::IN)];
    let bound = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&bound)) == Ok(1)
}
