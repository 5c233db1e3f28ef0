//! Memory, CPU time and open files: a task over its bound fails, says which one it was, and costs nothing else.

use warren_tests::broker::Letter;
use warren_tests::{Daemon, Keys};

use super::stage::{BOTH_FIXTURES, stage};

fn header(letter: &Letter, name: &str) -> String {
    letter.header(name).unwrap_or_default()
}

#[test]
fn a_task_over_its_memory_is_a_crash_that_names_the_bound() {
    for plugin in BOTH_FIXTURES {
        let keys = "memory = \"64MiB\"\nretry = { attempts = 1 }";
        let (home, broker) = stage(&format!("limits_memory_{plugin}"), plugin, "workers = 1", keys);
        let daemon = Daemon::start(&home);
        broker.publish(home.queue(), "fits", "Scenario eat 20000000");
        broker.publish(home.queue(), "large", "Scenario eat 200000000");
        broker.publish(home.queue(), "next", "Scenario eat 20000000");
        let letter = broker.take(&home.dead());
        assert_eq!(letter.id(), "large", "{plugin}");
        assert_eq!(header(&letter, "x-warren-reason"), "poison", "{plugin}");
        assert_eq!(header(&letter, "x-warren-error-code"), "crash", "{plugin}");
        let error = header(&letter, "x-warren-error");
        assert!(error.contains("over its `memory` of 64MiB"), "{plugin}: {error}");
        daemon.wait_count("done", 2);
        assert_eq!(daemon.counts()["faults"], 1);
    }
}

#[test]
fn the_bound_on_memory_holds_for_what_a_handler_starts() {
    let (home, broker) = stage("limits_child", "scenario", "", "");
    home.install("exec");
    let seen = home.path("seen");
    let command = format!(
        "[handlers.shell]\nplugin = \"exec\"\nprefixes = [\"Shell\"]\nmemory = \"64MiB\"\n\
         [handlers.shell.settings]\ncommand = [\"sh\", \"-c\", \"ulimit -d > {}\"]\n",
        seen.display()
    );
    home.configure(Keys { rest: &command, ..Keys::default() });
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "t", "Shell");
    daemon.wait_count("done", 1);
    assert_eq!(std::fs::read_to_string(seen).expect("the command ran").trim(), "65536", "KiB");
}

#[test]
fn a_task_that_uses_up_its_cpu_time_runs_out_of_time_long_before_its_limit() {
    let keys = "cpu_time = \"1s\"\ntimeout = \"1h\"\nretry = { attempts = 1 }";
    let (home, broker) = stage("limits_cpu", "scenario", "workers = 1", keys);
    let daemon = Daemon::start(&home);
    broker.publish(home.queue(), "spins", "Scenario spin");
    let letter = broker.take(&home.dead());
    assert_eq!(header(&letter, "x-warren-reason"), "timeout");
    assert_eq!(header(&letter, "x-warren-error-code"), "cpu_time");
    let error = header(&letter, "x-warren-error");
    assert!(error.contains("over its `cpu_time` of 1s") && error.contains("SIGXCPU"), "{error}");
    assert_eq!(daemon.counts()["faults"], 1);
}

#[test]
fn cpu_time_is_counted_for_each_task_anew() {
    let keys = "cpu_time = \"1s\"\nretry = { attempts = 1 }";
    let (home, broker) = stage("limits_cpu_each", "scenario-c", "workers = 1", keys);
    let daemon = Daemon::start(&home);
    // Together they use more than the kernel, which counts whole seconds, would let one of them have.
    broker.publish_all(home.queue(), "t", (1..=4).map(|_| "Scenario burn 700".to_owned()));
    daemon.wait_count("done", 4);
    assert_eq!(daemon.counts()["faults"], 0);
}

#[test]
fn a_task_out_of_files_gets_an_error_and_its_host_lives_on() {
    for plugin in BOTH_FIXTURES {
        let keys = "max_files = 200\nretry = { attempts = 1 }";
        let (home, broker) = stage(&format!("limits_files_{plugin}"), plugin, "workers = 1", keys);
        let daemon = Daemon::start(&home);
        broker.publish(home.queue(), "few", "Scenario open 90");
        daemon.wait_count("done", 1);
        let hosts = daemon.handler("scenario")["hosts"].clone();
        broker.publish(home.queue(), "many", "Scenario open 1000");
        let letter = broker.take(&home.dead());
        assert_eq!(header(&letter, "x-warren-error-code"), "no-file", "{plugin}");
        assert!(header(&letter, "x-warren-error").contains("Too many open files"), "{plugin}: {letter:?}");
        broker.publish(home.queue(), "few-again", "Scenario open 90");
        daemon.wait_count("done", 2);
        assert_eq!(daemon.handler("scenario")["hosts"], hosts, "{plugin}");
        assert_eq!(daemon.counts()["faults"], 0, "{plugin}");
    }
}

#[test]
fn a_bound_that_nothing_enforces_here_is_warned_of() {
    let (home, _broker) = stage("limits_warned", "scenario", "", "cpus = 1.5\nmax_processes = 10");
    let daemon = Daemon::start(&home);
    daemon.wait_log(0, &["INFO", "not by cgroups"]);
    for key in ["cpus", "max_processes"] {
        daemon.wait_log(0, &["WARN", "scenario", &format!("{key} does not hold"), "Delegate="]);
    }
}
