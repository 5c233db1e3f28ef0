//! `warrenctl publish --wait`: the results of what was published, or which ones are missing.

use std::io::{BufRead, BufReader};
use std::process::Output;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use warren_tests::{Daemon, wait};

use super::stage::{Stage, assert_ends, said};

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn results_are_printed_in_the_order_of_the_tasks() {
    let stage = Stage::new("waits_ok", "");
    let daemon = Daemon::start(&stage.home);
    let output =
        stage.publish(&["--wait=50s", "Scenario result 3", "Scenario ok", "Task 3: Scenario version"]);
    assert_ends(&output, 0);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "rrr\n00000001\n");
    assert_eq!(said(&output), "");
    // The first is done after the second.
    let output = stage.publish(&["--wait", "--json", "Scenario until 2", "Scenario version"]);
    assert_ends(&output, 0);
    let said = json(&output);
    assert_eq!((&said["ended"], &said["outstanding"]), (&"complete".into(), &Value::Array(Vec::new())));
    let results = said["results"].as_array().expect("results");
    let field = |name: &str| -> Vec<Value> { results.iter().map(|result| result[name].clone()).collect() };
    assert_eq!(field("line"), [1, 2]);
    assert_eq!(field("outcome"), ["done", "done"]);
    assert_eq!(field("attempts"), [2, 1]);
    assert_eq!(field("body"), ["", "00000001"]);
    assert_eq!(said["report"]["confirmed"], 2);
    daemon.wait_count("done", 5);
}

#[test]
fn a_task_that_failed_is_named_with_its_reason() {
    let stage = Stage::new("waits_failed", "");
    let _daemon = Daemon::start(&stage.home);
    let output = stage.publish(&["--wait=50s", "Scenario version", "Scenario reject"]);
    assert_ends(&output, 70);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "00000001\n", "the other one's result");
    let text = said(&output);
    for part in ["task 2 (", "failed: rejected by scenario, attempt 1: no-such-thing: it is not there"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let output = stage.publish(&["--wait=50s", "--json", "--id", "x-1", "Water the plants"]);
    assert_ends(&output, 70);
    let result = json(&output)["results"][0].clone();
    assert_eq!((&result["id"], &result["outcome"]), (&"x-1".into(), &"unroutable".into()));
    assert!(result["message"].as_str().is_some_and(|text| text.contains("prefix")), "{result}");
}

#[test]
fn when_time_is_up_it_says_which_results_are_missing_and_the_tasks_go_on() {
    let stage = Stage::new("waits_timeout", "");
    let daemon = Daemon::start(&stage.home);
    let file = stage.home.path("tasks");
    std::fs::write(&file, "Scenario version\n\nScenario hold gate\n").expect("write");
    let file = file.to_str().expect("text");
    // The short time is counted from when all is published; the first result may come within it or not.
    let output = stage.publish(&["--wait=1ms", "--json", "--file", file]);
    assert_ends(&output, 75);
    let outcome = json(&output);
    assert_eq!(outcome["ended"], "timeout");
    let missing = outcome["outstanding"].as_array().expect("a list").last().cloned().expect("one");
    assert_eq!(missing["line"], 3);
    let text = said(&output);
    assert!(text.contains("time to wait is up") && text.contains("line 3 ("), "{text}");
    stage.home.release("gate");
    daemon.wait_count("done", 2);
}

#[test]
fn ctrl_c_ends_the_waiting_and_says_what_is_missing() {
    let stage = Stage::new("waits_interrupted", "");
    let daemon = Daemon::start(&stage.home);
    let arguments = ["--wait", "Scenario version", "Scenario hold gate"];
    let mut child = stage.command(&arguments).spawn().expect("warrenctl");
    // The first result: it waits for the second.
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert_eq!(line, "00000001\n");
    kill_process(Pid::from_child(&child), Signal::INT).expect("it is there");
    let output = child.wait_with_output().expect("it ends");
    assert_ends(&output, 130);
    let text = said(&output);
    assert!(text.contains("interrupted") && text.contains("without a result: task 2 ("), "{text}");
    stage.home.release("gate");
    // Its queue went with it.
    daemon.wait_log(0, &["the reply was not deliverable"]);
    daemon.wait_count("done", 2);
    wait::until("nothing is held", || (daemon.status()["queues"][0]["settling"] == 0).then_some(()));
}
