//! Looking changes nothing: list, show, export, filters, dry runs.

use lapin::types::AMQPValue;
use serde_json::Value;
use warren_tests::{Node, artefacts};

use super::rig::{LETTERS, Rig, original, short_ids};

fn lines(rig: &Rig, words: &[&str]) -> Vec<Value> {
    let output = rig.run(words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn every_kind_of_letter_is_listed_shown_and_exported_and_stays() {
    let rig = Rig::with_dead_letters(Node::shared(), "dead_kinds", "workers = 4");
    let list = rig.ask(&["list"]);
    assert_eq!((&list["queue"], &list["ended"]), (&"dead_kinds.dead".into(), &"complete".into()));
    assert_eq!((&list["depth"], &list["looked_at"], &list["matched"]), (&8.into(), &8.into(), &8.into()));
    let letters = list["letters"].as_array().expect("letters");
    for (id, reason) in LETTERS {
        let letter = letters.iter().find(|letter| letter["id"] == id).expect(id);
        assert_eq!((&letter["reason"], &letter["queue"]), (&reason.into(), &"dead_kinds".into()), "{id}");
        assert!(letter["last_failure_ms"].as_u64() >= letter["first_failure_ms"].as_u64(), "{letter}");
    }
    let ours: Vec<&str> =
        letters.iter().filter_map(|letter| letter["id"].as_str()).filter(|id| id.len() == 36).collect();
    assert_eq!(ours.len(), 1, "the one that came without an id has one of ours");

    let worn = rig.ask(&["show", "worn"]);
    assert_eq!((&worn["attempts"], &worn["handler"]), (&2.into(), &"scenario".into()));
    assert_eq!((&worn["error_code"], &worn["error"]), (&"busy".into(), &"come back later".into()));
    let never = rig.ask(&["show", "never"]);
    assert_eq!(never["body"], "Task 7: Scenario reject");
    assert_eq!(never["headers"]["tenant"], "acme");
    let properties = serde_json::json!({
        "message_id": "never", "content_type": "text/plain", "priority": 3, "correlation_id": "c-1",
        "timestamp": 1_600_000_000, "delivery_mode": 2,
    });
    assert_eq!(never["properties"], properties);
    assert_eq!(rig.ask(&["show", ours[0]])["properties"]["message_id"], Value::Null);

    let page = String::from_utf8(rig.run(&["show", "fatal"]).stdout).expect("text");
    for part in
        ["id            fatal\n", "reason        poison\n", "crash: ", "SIGABRT", "\n\nScenario abort\n"]
    {
        assert!(page.contains(part), "{part:?} in {page}");
    }
    let table = String::from_utf8(rig.run(&["list"]).stdout).expect("text");
    assert_eq!(table.lines().count(), 9, "{table}");
    assert!(table.starts_with("AGE ") && table.contains("Water the plants, all äöü of them"), "{table}");

    let exported = lines(&rig, &["export"]);
    let order = |letters: &[Value]| letters.iter().map(|letter| letter["id"].clone()).collect::<Vec<_>>();
    assert_eq!(order(&exported), order(letters), "everything went back in its order, each time");
    let body = |id: &str| exported.iter().find(|letter| letter["id"] == id).expect("exported").clone();
    assert_eq!(body("bytes")["body_base64"], "U2NlbmFyaW8g/wA=");
    assert_eq!((&body("empty")["body"], &body("empty")["bytes"]), (&"".into(), &0.into()));
    assert_eq!(rig.broker.depth(&rig.home.dead()), Some(8));
    assert_eq!(rig.broker.depth(rig.home.queue()), Some(0));
}

#[test]
fn filters_choose_and_dry_runs_change_nothing() {
    let rig = Rig::with_dead_letters(Node::shared(), "dead_filters", "workers = 4");
    let table: [(&[&str], &[&str]); 10] = [
        (&["--reason", "unroutable"], &["empty", "stray"]),
        (&["--handler", "scenario"], &["fatal", "never", "worn"]),
        (&["--handler", "scenario", "--reason", "poison"], &["fatal"]),
        (&["--text", "Scenario re"], &["never", "worn"]),
        (&["--text", "äöü"], &["stray"]),
        (&["--id", "late", "--id", "worn"], &["late", "worn"]),
        (&["--older-than", "1h"], &[]),
        (&["--newer-than", "1h", "--reason", "timeout"], &["late"]),
        (&["--newer-than", "1h", "--older-than", "1h"], &[]),
        (&["--handler", "nobody"], &[]),
    ];
    for (filter, ids) in table {
        assert_eq!(rig.ids(filter), ids, "{filter:?}");
    }
    for (verb, (filter, ids)) in [("replay", table[1]), ("drop", table[5])] {
        let report = rig.ask(&[&[verb, "--dry-run"][..], filter].concat());
        assert_eq!(
            (short_ids(&report), &report["left"]),
            (ids.iter().map(ToString::to_string).collect(), &8.into())
        );
    }
    let dry = rig.ask(&["replay", "--all", "--dry-run"]);
    assert_eq!((&dry["replayed"], &dry["dry_run"]), (&0.into(), &true.into()));
    assert!(dry["letters"].as_array().expect("letters").iter().all(|letter| letter["to"] == "dead_filters"));
    let text = String::from_utf8(rig.run(&["drop", "--all", "--dry-run"]).stdout).expect("text");
    assert!(text.ends_with("8 letters would be dropped, 0 left in dead_filters.dead; nothing was changed\n"));
    assert_eq!(rig.broker.depth(&rig.home.dead()), Some(8));
    assert_eq!(rig.broker.depth(rig.home.queue()), Some(0));
}

#[test]
fn a_limit_and_a_bound_say_what_was_not_looked_at() {
    let rig = Rig::crowd(Node::shared(), "dead_bounds", 120);
    let (list, said) = rig.ends(&["list", "--json"], 0);
    assert_eq!((&list["matched"], &list["ended"]), (&100.into(), &"limit".into()));
    assert!(said.contains("looked at the first 100 of 120 letters"), "{said}");
    let (list, said) = rig.ends(&["list", "--json", "--limit", "120"], 0);
    assert_eq!((&list["matched"], said.as_str()), (&120.into(), ""));

    let (list, said) = rig.ends(&["list", "--json", "--look-at", "5", "--text", "number 11"], 0);
    assert_eq!(
        (&list["matched"], &list["looked_at"], &list["ended"]),
        (&0.into(), &5.into(), &"bound".into())
    );
    assert!(said.contains("looked at the first 5 of 120 letters") && said.contains("--look-at"), "{said}");
    // What is to reach every letter that matches has not done so.
    for words in
        [&["export"][..], &["replay", "--text", "number 120"], &["drop", "--yes", "--text", "number 120"]]
    {
        let (_, said) = rig.ends(&[words, &["--look-at", "5"]].concat(), 75);
        assert!(said.contains("looked at the first 5 of 120 letters"), "{words:?}: {said}");
    }
    for words in [&["show", "n-120"][..], &["replay", "--id", "n-120"]] {
        let (_, said) = rig.ends(&[words, &["--look-at", "5"]].concat(), 65);
        assert!(said.contains("no dead letter `n-120`") && said.contains("the first 5 of 120"), "{said}");
    }
    // Only what stays counts as held.
    let report = rig.ask(&["replay", "--all", "--look-at", "5"]);
    assert_eq!((&report["replayed"], &report["left"]), (&120.into(), &0.into()));
    assert_eq!(rig.assert_none_is_lost(120), 0);
}

#[test]
fn an_export_to_a_file_says_how_much_it_wrote_or_why_it_could_not() {
    let rig = Rig::crowd(Node::shared(), "dead_export", 30);
    let file = rig.home.path("letters.jsonl");
    let file = file.to_str().expect("UTF-8");
    let report = rig.ask(&["export", "--file", file, "--text", "number 1"]);
    assert_eq!((&report["matched"], &report["file"]), (&11.into(), &file.into()));
    let text = std::fs::read_to_string(file).expect("written");
    let first: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    assert_eq!((text.lines().count(), &first["body"]), (11, &"number 1".into()));
    let (_, said) = rig.ends(&["export", "--file", "/proc/nowhere/letters"], 74);
    assert!(said.contains("cannot write to /proc/nowhere/letters"), "{said}");
    assert_eq!(rig.broker.depth(&rig.home.dead()), Some(30));
}

#[test]
fn what_is_not_there_is_empty_or_missing_and_never_made() {
    let rig = Rig::new(Node::shared(), "dead_nothing");
    for declared in [false, true] {
        if declared {
            rig.broker.declare(&rig.home.dead(), &[]);
        }
        let output = rig.run(&["list"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "no dead letters in dead_nothing.dead\n");
        assert_eq!(rig.ask(&["list"])["letters"], serde_json::json!([]));
        assert_eq!(rig.ask(&["replay", "--all"])["replayed"], 0);
        assert_eq!(rig.ask(&["drop", "--reason", "poison", "--yes"])["dropped"], 0);
        assert!(lines(&rig, &["export"]).is_empty());
        for words in [&["show", "o-1"][..], &["replay", "--id", "o-1"], &["drop", "--id", "o-1", "--yes"]] {
            let (_, said) = rig.ends(words, 65);
            assert!(said.contains("no dead letter `o-1` in `dead_nothing.dead`"), "{words:?}: {said}");
        }
        let exists = rig.broker.depth(&rig.home.dead()).is_some();
        assert_eq!(exists, declared, "looking declares nothing");
    }
}

#[test]
fn the_queue_can_be_left_out_only_when_there_is_one() {
    let rig = Rig::crowd(Node::shared(), "dead_two", 3);
    let (_, said) = rig.ends(&["list", "--queue", "other"], 64);
    assert!(said.contains("no queue `other`") && said.contains("dead_two"), "{said}");
    let config = std::fs::read_to_string(rig.home.config()).expect("read");
    rig.home.write_config(&format!("{config}[queues.dead_two_b]\n"));
    let (_, said) = rig.ends(&["list"], 64);
    assert!(said.contains("--queue one of dead_two, dead_two_b"), "{said}");
    assert_eq!(rig.ask(&["list", "--queue", "dead_two"])["matched"], 3);
}

#[test]
fn without_a_broker_it_is_69_and_tells_no_password() {
    let port =
        std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind").local_addr().expect("bound").port();
    let home = warren_tests::Home::new(&format!("amqp://guest:hunter2@127.0.0.1:{port}/%2f"), "dead_away");
    for words in ["list", "show o-1", "replay --all", "drop --all --yes", "export"] {
        let mut command = std::process::Command::new(artefacts::program("warrenctl"));
        let output = command.arg("dead").args(words.split(' ')).arg("--config").arg(home.config()).output();
        let (_, said) = super::rig::ended(&output.expect("warrenctl"), 69);
        assert!(said.contains("no broker") && !said.contains("hunter2"), "{words}: {said}");
    }
}

#[test]
fn a_quorum_dead_queue_keeps_its_letters_and_their_order() {
    let rig = Rig::with_dead_letters(Node::shared(), "dead_quorum", "workers = 4\ndead_type = \"quorum\"");
    let first = rig.ask(&["list"]);
    for _ in 0..3 {
        assert_eq!(rig.ask(&["list"])["letters"], first["letters"]);
    }
    let report = rig.ask(&["replay", "--id", "never"]);
    assert_eq!((&report["replayed"], &report["left"]), (&1.into(), &7.into()));
    let letter = rig.broker.take(rig.home.queue());
    assert_eq!(letter.properties, original());
    assert_eq!(rig.ask(&["drop", "--reason", "unroutable", "--yes"])["dropped"], 2);
    assert_eq!(rig.ids(&[]), ["bytes", "fatal", "late", "worn"]);
}

#[test]
fn before_a_broker_discards_letters_for_being_looked_at_there_is_a_warning() {
    let rig = Rig::new(Node::shared(), "dead_wear");
    let quorum = ("x-queue-type", AMQPValue::LongString("quorum".into()));
    rig.broker.declare("dead_wear.dead", std::slice::from_ref(&quorum));
    rig.broker.publish_all("dead_wear.dead", "n", (1..=3).map(|n| format!("number {n}")));
    let warnings = |looks: u32| -> Vec<u32> {
        (1..=looks).filter(|_| rig.ends(&["list"], 0).1.contains("delivery-limit")).collect()
    };
    // From 4.0 on a quorum queue has a limit of 20 where nobody set another.
    let expected: Vec<u32> =
        if Node::shared().version() >= (4, 0) { (11..=12).collect() } else { Vec::new() };
    assert_eq!(warnings(12), expected);
    assert_eq!(rig.ask(&["list"])["matched"], 3);
    if Node::shared().version() >= (4, 0) {
        // As the daemon declares its own there.
        let rig = Rig::new(Node::shared(), "dead_unlimited");
        rig.broker
            .declare("dead_unlimited.dead", &[quorum, ("x-delivery-limit", AMQPValue::LongLongInt(-1))]);
        rig.broker.publish("dead_unlimited.dead", "n-1", "number 1");
        for _ in 0..25 {
            assert_eq!(rig.ends(&["list"], 0).1, "");
        }
        assert_eq!(rig.ids(&[]), ["n-1"]);
    }
}
