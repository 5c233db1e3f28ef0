//! A cancel or a deadline reaches the task that it is meant for, and no other.

use std::time::Duration;

use warren::host::HostTask;
use warren::model::Outcome;

use crate::bed::{Watched, code, run, spawner, task};

#[test]
fn a_running_task_stops_when_cancelled() {
    run(async {
        let mut host = Watched::start(&spawner());
        let seq = host.send("wait");
        host.running().await;
        host.host.cancel(seq);
        let report = host.report().await;
        assert_eq!((report.outcome, report.error), (Outcome::Cancelled, None));
    });
}

#[test]
fn a_cancel_that_comes_too_late_does_not_hit_the_next_task() {
    run(async {
        let mut host = Watched::start(&spawner());
        let first = host.send("wait");
        host.running().await;
        let second = host.send("wait");
        // The first cancel ends the first task; the others are late for it, whenever they arrive.
        for _ in 0..20 {
            host.host.cancel(first);
        }
        assert_eq!(host.report().await.seq, first);
        host.running().await;
        assert_eq!(host.host.counters(), Some((second, first)));
        host.host.cancel(second);
        let report = host.report().await;
        assert_eq!((report.seq, report.outcome), (second, Outcome::Cancelled));
        assert_eq!(host.run("done").await.outcome, Outcome::Done);
    });
}

#[test]
fn a_waiting_task_that_is_cancelled_is_never_started() {
    run(async {
        let mut host = Watched::start(&spawner());
        let running = host.send("wait");
        host.running().await;
        let waiting = host.send("abort");
        let last = host.send("done");
        host.host.cancel(waiting);
        host.host.cancel(running);
        assert_eq!(host.report().await.seq, running);
        let report = host.report().await;
        assert_eq!((report.seq, report.outcome), (waiting, Outcome::Cancelled));
        let report = host.report().await;
        assert_eq!((report.seq, report.outcome), (last, Outcome::Done));
    });
}

#[test]
fn a_recall_takes_back_what_waits_and_leaves_what_runs() {
    run(async {
        let mut host = Watched::start(&spawner());
        let running = host.send("wait");
        host.running().await;
        let waiting = host.send("abort");
        let last = host.send("done");
        host.host.recall(running);
        host.host.recall(waiting);
        // While the other one runs on.
        assert_eq!(host.withdrawn().await, waiting);
        assert_eq!(host.host.counters(), Some((running, 0)));
        host.host.cancel(running);
        let report = host.report().await;
        assert_eq!((report.seq, report.outcome), (running, Outcome::Cancelled));
        let report = host.report().await;
        assert_eq!((report.seq, report.outcome), (last, Outcome::Done));
    });
}

#[test]
fn a_cancel_before_the_process_is_there_is_kept_for_it() {
    run(async {
        let mut host = Watched::start(&spawner());
        let seq = host.send("abort");
        host.host.cancel(seq);
        assert_eq!(host.report().await.outcome, Outcome::Cancelled);
    });
}

#[test]
fn a_task_past_its_time_limit_is_asked_to_stop_by_its_host() {
    run(async {
        let mut host = Watched::start(&spawner());
        host.send_task(&HostTask { argument: "wait", timeout: Duration::from_millis(50), ..task() });
        let report = host.report().await;
        assert_eq!((report.outcome, code(&report)), (Outcome::TimedOut, "timeout"));
        assert!(report.duration >= Duration::from_millis(50));
        assert_eq!(host.run("done").await.outcome, Outcome::Done);
    });
}

#[test]
fn a_report_does_not_wait_for_the_long_task_behind_it() {
    run(async {
        let mut host = Watched::start(&spawner());
        host.run("done").await;
        let short = host.send("done");
        let long = host.send("wait");
        assert_eq!(host.report().await.seq, short);
        host.host.cancel(long);
        assert_eq!(host.report().await.seq, long);
    });
}
