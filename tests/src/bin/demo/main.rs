//! `make demo`: the eight tasks of the competing-consumers tutorial on a real RabbitMQ, by the shipped plugins, with
//! a plugin and the configuration changed before the last two. Succeeds only if every task and follow-up is done.

mod shop;

use std::net::Ipv4Addr;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use signal_hook::consts::{SIGINT, SIGTERM};
use warren_tests::{Broker, Daemon, Home, Node, Servers, artefacts};

use self::shop::Shop;

/// What the tutorial's producer sends.
const TASKS: [&str; 8] = [
    "Task 1: Process order #1001",
    "Task 2: Send email to user@example.com",
    "Task 3: Generate report for Q3",
    "Task 4: Backup database",
    "Task 5: Update inventory",
    "Task 6: Process payment #2001",
    "Task 7: Send notification",
    "Task 8: Clean up temp files",
];
/// These are published before the reload, the rest after it.
const BEFORE: usize = 6;
/// An order has its payment and its inventory task for follow-ups.
const FOLLOW_UPS: usize = 2;
/// Tells "stuck" from "slow".
const LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let interrupted = Arc::<AtomicBool>::default();
    match listen(&interrupted).and_then(|()| demo(&interrupted)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if interrupted.load(Ordering::Relaxed) => {
            eprintln!("demo: interrupted ({error:#}); everything it made is removed");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("demo: failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The first Ctrl-C ends the demo between two steps, so that everything is removed; a second one at once.
fn listen(interrupted: &Arc<AtomicBool>) -> Result<()> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(())
}

fn demo(interrupted: &AtomicBool) -> Result<()> {
    title("RabbitMQ");
    let own = std::env::var("AMQP_URL").ok();
    // Dropped last: what uses it goes first.
    let node = if own.is_none() { Some(Node::start()?) } else { None };
    let uri = own.or_else(|| node.as_ref().map(Node::uri)).context("one of the two")?;
    let queue = match &node {
        Some(node) => {
            println!("a node of our own on 127.0.0.1:{}, gone when the demo ends", node.port());
            "task_queue".to_owned()
        }
        None => format!("warren_demo_{}", std::process::id()),
    };
    let broker = Broker::open(&uri).context("cannot connect to the broker (AMQP_URL)")?;
    let queues = Queues { broker: &broker, queue: &queue };
    println!("queue {queue}, durable");

    title("warrend with the shipped plugins");
    let servers = Servers::start(Ipv4Addr::LOCALHOST)?;
    let home = Home::new(&uri, &queue);
    let shop = Shop::open(&home, &servers)?;
    let mut daemon = Daemon::spawn(&home, &[]);
    std::thread::scope(|scope| {
        let log = daemon.log_lines();
        scope.spawn(move || show(&log));
        let result = run(interrupted, &home, &shop, &servers, &mut daemon);
        daemon.kill(); // ends the log, and with it the thread that shows it
        result
    })?;
    queues.are_empty()?;
    title("All eight tasks and their follow-ups are done; the queue is empty, and there are no dead letters");
    Ok(())
}

fn run(
    interrupted: &AtomicBool,
    home: &Home,
    shop: &Shop<'_>,
    servers: &Servers,
    daemon: &mut Daemon,
) -> Result<()> {
    wait(interrupted, daemon, "ready", |daemon| {
        daemon.notified().since(0).iter().any(|line| line == "READY=1")
    })?;

    title("The first six tasks: warrenctl publish");
    publish(home, &TASKS[..BEFORE])?;
    let done = BEFORE + FOLLOW_UPS;
    wait(interrupted, daemon, "six tasks and two follow-ups done", |daemon| daemon.counts()["done"] == done)?;

    title("A changed plugin is dropped in, the configuration is edited: SIGHUP");
    shop.change()?;
    let reload = daemon.reload();
    for row in reload["handlers"].as_array().context("rows")? {
        println!(
            "  {:<16} {:<10} generation {}",
            text(&row["handler"]),
            text(&row["change"]),
            row["generation"]
        );
    }
    ensure!(reload["ok"] == true, "the reload failed: {reload}");

    title("The last two tasks");
    publish(home, &TASKS[BEFORE..])?;
    let done = TASKS.len() + FOLLOW_UPS;
    wait(interrupted, daemon, "all tasks done", |daemon| daemon.counts()["done"] == done)?;

    title("warrenctl status");
    let status = warrenctl(home).arg("status").status()?;
    ensure!(status.success(), "warrenctl status: {status}");
    let counts = daemon.counts();
    ensure!(counts["dead"] == 0, "dead letters: {counts}");

    title("What they did");
    shop.check(servers)?;

    title("SIGTERM");
    let status = daemon.terminate();
    ensure!(status.success(), "warrend: {status}");
    Ok(())
}

/// One by one, each with an id that can be followed in the log.
fn publish(home: &Home, tasks: &[&str]) -> Result<()> {
    for task in tasks {
        let number = task.split([' ', ':']).nth(1).context("a task's number")?;
        let id = format!("task-{number}");
        println!("warrenctl publish --id {id} {task:?}");
        let output = warrenctl(home).args(["publish", "--id", &id, task]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "warrenctl publish: {}: {said}", output.status);
    }
    Ok(())
}

fn warrenctl(home: &Home) -> Command {
    let mut command = Command::new(artefacts::program("warrenctl"));
    command.arg("--config").arg(home.config());
    command
}

/// Polls; fails when interrupted, when the daemon ends, and when it takes too long.
fn wait(
    interrupted: &AtomicBool,
    daemon: &mut Daemon,
    what: &str,
    mut is_so: impl FnMut(&mut Daemon) -> bool,
) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        ensure!(!interrupted.load(Ordering::Relaxed), "waiting for: {what}");
        if is_so(daemon) {
            return Ok(());
        }
        ensure!(daemon.is_running(), "warrend ended before: {what}");
        if Instant::now() > end {
            bail!("waited {LIMIT:?} in vain for: {what}; status: {}", daemon.status());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Prints the daemon's log as it comes, until it ends; without the date, and without the plugin's digest.
fn show(log: &warren_tests::wait::Lines) {
    let mut next = 0;
    loop {
        match log.wait(next, |_| true) {
            Some((number, line)) => {
                let words = line.split(' ').filter(|word| !word.starts_with("plugin_sha256="));
                let line = words.collect::<Vec<_>>().join(" ");
                println!("  {}", line.split_once('T').map_or(line.as_str(), |(_, rest)| rest));
                next = number + 1;
            }
            None if log.ended() => return,
            None => {}
        }
    }
}

fn title(text: &str) {
    println!("\n== {text}");
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The demo's queues on the broker, which may be someone's own.
struct Queues<'a> {
    broker: &'a Broker,
    queue: &'a str,
}

impl Queues<'_> {
    fn are_empty(&self) -> Result<()> {
        self.broker.wait_depth(self.queue, 0);
        let dead = self.broker.depth(&format!("{}.dead", self.queue)).unwrap_or(0);
        ensure!(dead == 0, "{dead} dead letters");
        Ok(())
    }
}

impl Drop for Queues<'_> {
    fn drop(&mut self) {
        self.broker.delete_family(self.queue);
    }
}
