//! Letters are dropped only when somebody said so.

use std::io::Write;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use warren_tests::{Node, artefacts, wait};

use super::rig::{MANY, Rig, ended};

#[test]
fn what_matches_is_dropped_and_the_rest_stays_in_its_order() {
    let rig = Rig::crowd(Node::shared(), "drop_some", 30);
    let report = rig.ask(&["drop", "--text", "number 1", "--yes"]);
    assert_eq!((&report["dropped"], &report["left"]), (&11.into(), &19.into()));
    let texts: Vec<String> =
        rig.broker.take_all(&rig.home.dead()).into_iter().map(|letter| letter.text).collect();
    let expected: Vec<String> =
        (1..=30).map(|n| format!("number {n}")).filter(|text| !text.contains("number 1")).collect();
    assert_eq!(texts, expected);
}

#[test]
fn a_limit_drops_the_oldest_and_all_drops_all() {
    let rig = Rig::crowd(Node::shared(), "drop_all", 25);
    let output = rig.run(&["drop", "--limit", "10", "--yes"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "10 letters dropped, 15 left in drop_all.dead\n");
    let list = rig.ask(&["list"]);
    assert_eq!((&list["matched"], &list["letters"][0]["text"]), (&15.into(), &"number 11".into()));
    assert_eq!(rig.ask(&["drop", "--all", "--yes"])["dropped"], 15);
    assert_eq!(rig.broker.depth(&rig.home.dead()), Some(0));
}

#[test]
fn a_terminal_is_asked_how_many_and_only_yes_is_yes() {
    let rig = Rig::crowd(Node::shared(), "drop_asked", 12);
    for (answer, left) in [("n", 12), ("", 12), ("perhaps", 12), ("y", 8)] {
        let (text, code) = on_a_terminal(&rig, &["drop", "--text", "number 1"], answer);
        assert!(text.contains("Drop 4 letters of `drop_asked.dead` for good? [y/N]"), "{text}");
        assert!(text.contains(&format!("{left} left in drop_asked.dead")), "{text}");
        assert_eq!(code, Some(0), "{text}");
        rig.broker.wait_depth(&rig.home.dead(), left);
    }
    let (text, _) = on_a_terminal(&rig, &["drop", "--text", "number 1"], "y");
    assert!(
        !text.contains("[y/N]") && text.contains("0 letters dropped, 8 left"),
        "nothing to ask about: {text}"
    );
}

#[test]
fn ctrl_c_at_the_question_drops_nothing() {
    let rig = Rig::crowd(Node::shared(), "drop_interrupted", 3);
    let mut child = terminal(&rig, &["drop", "--all"]).spawn().expect("script (bsdutils) is there");
    wait::until("the question, which holds the letters", || {
        (rig.broker.depth(&rig.home.dead()) == Some(0)).then_some(())
    });
    // The terminal makes a signal of it.
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"\x03").expect("it reads");
    let output = child.wait_with_output().expect("its end");
    drop(stdin);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("0 letters dropped, 3 left"), "{text}");
    assert_eq!(output.status.code(), Some(130), "{text}");
    rig.broker.wait_depth(&rig.home.dead(), 3);
}

#[test]
fn ctrl_c_stops_a_drop_between_two_letters_and_it_tells_the_truth() {
    let rig = Rig::crowd(Node::shared(), "drop_stopped", MANY);
    let child = rig.spawn(&["drop", "--all", "--yes", "--json"]);
    wait::until("the first letters to be dropped", || {
        rig.broker.depth(&rig.home.dead()).filter(|&depth| depth < MANY - 20)
    });
    kill_process(Pid::from_child(&child), Signal::INT).expect("it still runs");
    let (report, _) = ended(&child.wait_with_output().expect("its end"), 130);
    let dropped = report["dropped"].as_u64().expect("a number");
    assert_eq!(report["left"], u64::from(MANY) - dropped);
    rig.broker.wait_depth(&rig.home.dead(), MANY - dropped as u32);
}

/// Runs it on a terminal of its own and answers once it asks; what the terminal showed, and the exit code.
fn on_a_terminal(rig: &Rig, words: &[&str], answer: &str) -> (String, Option<i32>) {
    let mut child = terminal(rig, words).spawn().expect("script (bsdutils) is there");
    let mut stdin = child.stdin.take().expect("piped");
    // The line waits in the terminal until it is read. It may have ended without asking.
    let _ = writeln!(stdin, "{answer}");
    let output = child.wait_with_output().expect("its end");
    drop(stdin);
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

fn terminal(rig: &Rig, words: &[&str]) -> Command {
    let program = artefacts::program("warrenctl");
    let quoted: Vec<String> = [program.to_str().expect("UTF-8"), "dead"]
        .iter()
        .chain(words)
        .chain(&["--config", rig.home.config().to_str().expect("UTF-8")])
        .map(|word| format!("'{word}'"))
        .collect();
    // Bounded, because it may ask where the test does not expect it.
    let mut command = Command::new("timeout");
    command.args(["60", "script", "--quiet", "--return", "--command", &quoted.join(" "), "/dev/null"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
