//! `warrenctl publish` against a real broker: what it says is confirmed is in the queue, whatever happens.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use futures_util::StreamExt;
use lapin::options::BasicConsumeOptions;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;
use tempfile::TempDir;
use warren_tests::broker::Broker;
use warren_tests::{Node, artefacts, wait};

/// A configuration with one queue of the test's own, and a link to look into that queue.
struct Bench {
    directory: TempDir,
    queue: String,
    broker: Broker,
}

impl Bench {
    fn new(node: &Node, queue: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "[broker]\nuri = \"{}\"\n[queues.{queue}]\n[daemon]\nmax_task_bytes = \"1MiB\"\n",
            node.uri()
        );
        std::fs::write(directory.path().join("warren.toml"), config).unwrap();
        Self { directory, queue: queue.to_owned(), broker: Broker::connect(&node.uri()) }
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("warren.toml")
    }

    fn declare(&self, arguments: &[(&str, AMQPValue)]) {
        self.broker.declare(&self.queue, arguments);
    }

    fn wait_for_depth(&self, least: u32) {
        wait::until(&format!("{least} messages in {}", self.queue), || {
            self.broker.depth(&self.queue).filter(|&depth| depth >= least)
        });
    }

    /// The texts of all messages that are ready now, taken by a consumer: one question for tens of thousands.
    fn drain(&self) -> Vec<String> {
        let depth = self.broker.depth(&self.queue).unwrap_or(0) as usize;
        let (channel, runtime) = self.broker.channel();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let reading = async {
            let consumer = channel
                .basic_consume(self.queue.as_str().into(), "".into(), options, FieldTable::default())
                .await
                .unwrap();
            let texts =
                consumer.take(depth).map(|delivery| String::from_utf8(delivery.unwrap().data).unwrap());
            texts.collect().await
        };
        runtime.block_on(async { tokio::time::timeout(wait::BOUND, reading).await }).unwrap()
    }

    fn publish(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Starts to publish lines from a pipe.
    fn publish_pipe(&self) -> (Child, ChildStdin) {
        let mut child = self
            .command(&["-", "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        (child, stdin)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(artefacts::program("warrenctl"));
        command.arg("publish").arg("--config").arg(self.config()).args(arguments);
        command
    }
}

#[track_caller]
fn assert_ends(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
}

fn report(output: &Output) -> Value {
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["report"].clone()
}

/// Every line that the report calls confirmed is in the queue once; nothing is there that it calls unsent.
#[track_caller]
fn assert_truthful(report: &Value, texts: &[String]) {
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    for text in texts {
        *seen.entry(text.strip_prefix("line ").unwrap().parse().unwrap()).or_default() += 1;
    }
    assert!(seen.values().all(|&count| count == 1), "a line was sent twice");
    let mut confirmed = 0;
    for range in report["confirmed_lines"].as_array().unwrap() {
        for line in range[0].as_u64().unwrap()..=range[1].as_u64().unwrap() {
            assert!(seen.remove(&line).is_some(), "line {line} is called confirmed and is not in the queue");
            confirmed += 1;
        }
    }
    assert_eq!(report["confirmed"], confirmed);
    let unknown: Vec<_> =
        report["unknown"].as_array().unwrap().iter().map(|line| line["line"].as_u64().unwrap()).collect();
    for line in seen.keys() {
        assert!(unknown.contains(line), "line {line} is in the queue and the report does not say so");
    }
}

#[test]
fn a_missing_queue_is_created_and_tasks_are_persistent_with_all_their_properties() {
    let bench = Bench::new(Node::shared(), "publish_properties");
    let output = bench.publish(&["Task 1: Process order #1001", "two"]);
    assert_ends(&output, 0);
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "quiet in a pipe");
    let options = ["--id", "o-1", "--type", "order.v1", "--priority", "7", "--expires", "10m"];
    let more = ["--content-type", "application/json", "--header", "tenant=a=b", "--header", "n=1", "{}"];
    assert_ends(&bench.publish(&[&options[..], &more[..]].concat()), 0);

    let letters = bench.broker.take_all(&bench.queue);
    let texts: Vec<_> = letters.iter().map(|letter| letter.text.as_str()).collect();
    assert_eq!(texts, ["Task 1: Process order #1001", "two", "{}"]);
    assert!(letters[0].id() != letters[1].id() && letters[0].id().len() == 36, "{letters:?}");
    assert!(letters.iter().all(|letter| *letter.properties.delivery_mode() == Some(2)));
    let properties = &letters[2].properties;
    assert_eq!(letters[2].id(), "o-1");
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "order.v1");
    assert_eq!(*properties.priority(), Some(7));
    assert_eq!(properties.expiration().as_ref().unwrap().as_str(), "600000");
    assert_eq!(properties.content_type().as_ref().unwrap().as_str(), "application/json");
    assert_eq!(letters[2].header("tenant").as_deref(), Some("a=b"));
}

#[test]
fn fifty_thousand_lines_of_a_pipe_arrive_in_constant_memory() {
    let bench = Bench::new(Node::shared(), "publish_many");
    let (child, mut stdin) = bench.publish_pipe();
    let mut text = String::new();
    for line in 1..=50_000 {
        use std::fmt::Write;
        let _ = writeln!(text, "line {line}");
    }
    stdin.write_all(text.as_bytes()).unwrap();
    for depth in (10_000..=50_000).step_by(10_000) {
        bench.wait_for_depth(depth);
    }
    let status =
        std::fs::read_to_string(Path::new("/proc").join(child.id().to_string()).join("status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 * 1024, "{peak} KiB");
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_ends(&output, 0);
    assert_truthful(&report(&output), &bench.drain());
    assert_eq!(report(&output)["confirmed"], 50_000);
}

#[test]
fn a_lost_link_in_the_middle_is_reported_truthfully() {
    // A node of its own: the connections of every other test would be closed as well.
    let node = Node::own();
    let bench = Bench::new(&node, "publish_lost");
    let (child, mut stdin) = bench.publish_pipe();
    let feeder = std::thread::spawn(move || {
        // Ends when the other end does.
        (1..u64::MAX).take_while(|line| writeln!(stdin, "line {line}").is_ok()).count()
    });
    bench.wait_for_depth(2000);
    node.close_all_connections().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(feeder.join().unwrap() > 2000);
    assert_ends(&output, 75);
    let report = report(&output);
    assert!(report["confirmed"].as_u64().unwrap() >= 1900, "{report}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("confirmed: lines 1-") && said.contains("not sent: any line after"), "{said}");
    assert_truthful(&report, &Bench::new(&node, "publish_lost").drain());
}

#[test]
fn a_full_queue_refuses_and_the_refused_lines_are_named() {
    let bench = Bench::new(Node::shared(), "publish_full");
    bench.declare(&[
        ("x-max-length", AMQPValue::LongInt(10)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ]);
    let (child, mut stdin) = bench.publish_pipe();
    for line in 1..=100 {
        // It may have given up already.
        let _ = writeln!(stdin, "line {line}");
    }
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert_ends(&output, 75);
    let report = report(&output);
    assert!(!report["refused"].as_array().unwrap().is_empty(), "{report}");
    assert_eq!(report["unknown"], serde_json::json!([]));
    assert_truthful(&report, &bench.drain());
}

#[test]
fn an_existing_queue_is_taken_as_it_is() {
    let bench = Bench::new(Node::shared(), "publish_existing");
    bench.declare(&[("x-queue-type", AMQPValue::LongString("quorum".into()))]);
    assert_ends(&bench.publish(&["one"]), 0);
    assert_eq!(bench.drain().len(), 1);
}

#[test]
fn a_stream_is_refused_with_the_remedy() {
    let bench = Bench::new(Node::shared(), "publish_stream");
    bench.declare(&[("x-queue-type", AMQPValue::LongString("stream".into()))]);
    let output = bench.publish(&["one"]);
    assert_ends(&output, 78);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is a stream") && said.contains("another name"), "{said}");
}

#[test]
fn a_refused_login_is_69_and_tells_no_password() {
    let bench = Bench::new(Node::shared(), "publish_login");
    let text = std::fs::read_to_string(bench.config()).unwrap();
    std::fs::write(bench.config(), text.replace("guest:guest", "guest:hunter2")).unwrap();
    let output = bench.publish(&["one"]);
    assert_ends(&output, 69);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("login refused") && !said.contains("hunter2"), "{said}");
}

#[test]
fn ctrl_c_waits_for_confirms_in_flight_and_says_what_is_confirmed() {
    let bench = Bench::new(Node::shared(), "publish_interrupted");
    let (child, mut stdin) = bench.publish_pipe();
    for line in 1..=100 {
        writeln!(stdin, "line {line}").unwrap();
    }
    bench.wait_for_depth(100);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_ends(&output, 130);
    let report = report(&output);
    assert_eq!(report["confirmed"], 100);
    assert_eq!(report["last_line"], 100);
    assert_truthful(&report, &bench.drain());
}

#[test]
fn ctrl_c_ends_it_while_the_broker_blocks_publishers() {
    let node = Node::own();
    let bench = Bench::new(&node, "publish_blocked");
    bench.declare(&[]);
    node.alarm(true);
    let (mut child, mut stdin) = bench.publish_pipe();
    writeln!(stdin, "line 1").unwrap();
    wait::until("a blocked connection", || {
        let blocked = node.eval(
            "length([P || P <- rabbit_networking:connections(),
                [{state, blocked}] <- [catch rabbit_networking:connection_info(P, [state])]])",
        );
        (blocked.unwrap() == "1").then_some(())
    });
    assert!(child.try_wait().unwrap().is_none(), "it gave up while the broker blocks");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_ends(&output, 130);
    assert_eq!(report(&output)["unknown"][0]["line"], 1);
}

#[test]
fn a_line_that_is_too_long_is_bad_data_and_what_came_before_is_confirmed() {
    let bench = Bench::new(Node::shared(), "publish_long");
    let file = bench.directory.path().join("tasks.txt");
    std::fs::write(&file, format!("line 1\n\nline 3\n{}\nline 5\n", "x".repeat((1 << 20) + 1))).unwrap();
    let output = bench.publish(&["--json", "--file", file.to_str().unwrap()]);
    assert_ends(&output, 65);
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 4 of"));
    let report = report(&output);
    assert_eq!(report["confirmed_lines"], serde_json::json!([[1, 3]]));
    assert_eq!(bench.drain().len(), 2);
}
