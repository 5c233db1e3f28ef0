//! `warrenctl publish`: tasks from the command line, a file or a pipe, each confirmed by the broker.

mod input;
mod ledger;
mod link;
mod send;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;

use self::input::Source;
use self::ledger::Report;
use self::send::{Envelope, Run, Stop};
use crate::exit::{Code, Failure};
use crate::interrupt::Interrupt;
use crate::output::{note, print_json, span};
use crate::{Global, place};

pub(crate) const EXAMPLES: &str = "\
Every task is persistent, mandatory and confirmed, and has a message id. A queue that does not exist is declared as
configured. With `-` or --file every line is a task; blank lines are skipped. On failure it says which lines are
confirmed, which may be in the queue, and after which one nothing was sent. Ctrl-C waits for the confirms in flight and
says the same. The daemon need not run.

Exit status: 0 all confirmed; 64 usage; 65 bad input; 69 no broker; 75 the broker went away or refused a task: see what
is confirmed; 78 configuration; 130 interrupted.

Examples:
  warrenctl publish 'Process order #1001' 'Process order #1002'
  warrenctl publish --queue mail --id welcome-17 --expires 1h 'Send email to user@example.com'
  warrenctl publish --type order.created --content-type application/json '{\"order\": 1001}'
  warrenctl publish --header tenant=acme --priority 5 'Generate report monthly'
  generate-tasks | warrenctl publish -
  warrenctl publish --file tasks.txt --json";

/// AMQP carries these in a string of at most 255 bytes.
const MAX_SHORT: usize = 255;
/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(100);
/// Closing the link politely; what is confirmed stays confirmed without it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What to publish, and how.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The tasks' texts; a single `-` reads them from standard input, one per line
    #[arg(value_name = "TEXT", required_unless_present = "file")]
    texts: Vec<String>,
    /// Read the tasks from this file, one per line
    #[arg(long, value_name = "FILE", conflicts_with = "texts")]
    file: Option<PathBuf>,
    /// The queue; may be left out when exactly one is configured
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// A header, as NAME=VALUE; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The AMQP property `type`: routes the tasks instead of their text
    #[arg(long = "type", value_name = "TYPE", value_parser = short)]
    message_type: Option<String>,
    /// The AMQP priority; only queues declared with priorities heed it
    #[arg(long, value_name = "0-255")]
    priority: Option<u8>,
    /// Drop the tasks if they wait longer than this, e.g. 90s, 10m, 1h
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,
    /// The message id, for exactly one TEXT; otherwise each task gets a new UUID
    #[arg(long, value_name = "ID", value_parser = short)]
    id: Option<String>,
    /// The AMQP content type, e.g. application/json
    #[arg(long, value_name = "TYPE", value_parser = short)]
    content_type: Option<String>,
}

pub(crate) fn run(global: &Global, args: &PublishArgs) -> Result<(), Failure> {
    let source = source(args)?;
    let config = place::config(global)?;
    let queue = place::queue(&config, args.queue.as_deref())?;
    let few = if let Source::Texts(texts) = &source { Some(texts.len()) } else { None };
    let (unit, size) = (source.unit(), source.size());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::new(Code::Software, e))?;
    let started = Instant::now();
    let (report, reason) = runtime.block_on(async {
        let interrupt = Interrupt::listen().map_err(|e| Failure::new(Code::Software, e))?;
        let link = tokio::select! {
            link = link::open(&config, &queue) => link?,
            () = interrupt.wait() => {
                return Err(Failure::text(Code::Interrupted, "interrupted; nothing was sent"));
            }
        };
        let input = source.read(config.daemon.max_task_bytes).map_err(|e| Failure::new(Code::Software, e))?;
        let envelope =
            Envelope { queue: queue.name.to_string(), properties: properties(args), id: args.id.clone() };
        let run = Run::new(envelope, input.tasks);
        let bar = Bar::new(few.is_some(), size, input.bytes);
        watch(&run, run.send(&link, few.unwrap_or(send::CHANNELS)), interrupt, &bar).await;
        let closed = run.close();
        // Whatever it says, the books are closed.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, link.close(200, "done".into())).await;
        Ok::<_, Failure>(closed)
    })?;
    // A thread that waits for standard input must not keep the program from ending.
    runtime.shutdown_background();
    conclude(global, &queue.name, unit, started.elapsed(), &report, reason)
}

/// Drives the sending, the progress bar and the signals until the sending has ended.
async fn watch(run: &Run, sending: impl Future<Output = ()>, interrupt: Interrupt, bar: &Bar) {
    let mut tick = tokio::time::interval(TICK);
    let mut heard = false;
    tokio::pin!(sending);
    loop {
        tokio::select! {
            () = &mut sending => break,
            () = interrupt.wait(), if !heard => {
                heard = true;
                run.stop(Stop::Signal);
                bar.say("stopping; waiting for confirms in flight (Ctrl-C again ends at once)");
            }
            _ = tick.tick(), if bar.is_shown() => bar.update(run),
        }
    }
    bar.finish();
}

fn source(args: &PublishArgs) -> Result<Source, Failure> {
    let usage = |text: &str| Failure::text(Code::Usage, text);
    let source = match (&args.file, &*args.texts) {
        (Some(path), _) if path.as_os_str() == "-" => Source::Stdin,
        (Some(path), _) => Source::file(path).map_err(|e| Failure::new(Code::Data, e))?,
        (None, [one]) if one == "-" => Source::Stdin,
        (None, texts) => Source::Texts(texts.to_vec()),
    };
    match &source {
        Source::Texts(texts) if texts.iter().any(|text| text == "-") => {
            Err(usage("`-` reads standard input and cannot stand beside other tasks"))
        }
        Source::Texts(texts) if texts.iter().any(|text| text.trim().is_empty()) => {
            Err(usage("an empty task has nothing to route it by"))
        }
        Source::Texts(texts) if texts.len() == 1 => Ok(source),
        _ if args.id.is_some() => {
            Err(usage("--id is for exactly one TEXT: two tasks with one id are one task to a handler"))
        }
        _ => Ok(source),
    }
}

fn properties(args: &PublishArgs) -> BasicProperties {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut properties = BasicProperties::default().with_delivery_mode(2).with_timestamp(now.as_secs());
    if let Some(name) = &args.message_type {
        properties = properties.with_type(name.as_str().into());
    }
    if let Some(priority) = args.priority {
        properties = properties.with_priority(priority);
    }
    if let Some(expires) = args.expires {
        properties = properties.with_expiration(expires.as_millis().to_string().into());
    }
    if let Some(content_type) = &args.content_type {
        properties = properties.with_content_type(content_type.as_str().into());
    }
    if !args.headers.is_empty() {
        let mut table = FieldTable::default();
        for (name, value) in &args.headers {
            table.insert(name.as_str().into(), AMQPValue::LongString(value.as_str().into()));
        }
        properties = properties.with_headers(table);
    }
    properties
}

pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a header is NAME=VALUE")?;
    if name.is_empty() || name.len() > MAX_SHORT {
        return Err(format!("a header's name has 1 to {MAX_SHORT} bytes"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn short(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_SHORT {
        return Err(format!("AMQP allows 1 to {MAX_SHORT} bytes here"));
    }
    Ok(text.to_owned())
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    /// RabbitMQ refuses a longer expiration.
    const MOST: Duration = Duration::from_millis(u32::MAX as u64);
    match warren::config::duration::parse_duration(text) {
        Some(duration) if duration >= Duration::from_millis(1) && duration <= MOST => Ok(duration),
        Some(_) => Err("from 1ms to 49d".to_owned()),
        None => Err("a duration is a number and a unit, such as 250ms, 5s, 10m or 1h".to_owned()),
    }
}

/// What is printed at the end, and the exit code.
fn conclude(
    global: &Global,
    queue: &str,
    unit: &str,
    took: Duration,
    report: &Report,
    reason: Option<Stop>,
) -> Result<(), Failure> {
    if global.json {
        let ended = match &reason {
            None => "complete",
            Some(Stop::Signal) => "interrupted",
            Some(Stop::Input(_)) => "bad input",
            Some(Stop::Broker(..)) => "broker",
        };
        print_json(&json!({"queue": queue, "ended": ended, "report": report}))?;
    }
    let (code, why) = match reason {
        None if report.is_complete() => {
            if io::stderr().is_terminal() && !global.json {
                let s = if report.confirmed == 1 { "" } else { "s" };
                note(&format!("{} task{s} confirmed in queue {queue}, {}", report.confirmed, span(took)));
            }
            return Ok(());
        }
        None => (Code::TryAgain, "not every task is confirmed".to_owned()),
        Some(Stop::Signal) => (Code::Interrupted, "interrupted".to_owned()),
        Some(Stop::Input(error)) => (Code::Data, error.to_string()),
        Some(Stop::Broker(code, why)) => (code, why),
    };
    Err(Failure::text(code, format!("{why}\n{}", report.text(unit))))
}

/// The progress bar: on a terminal only, by bytes where the input's size is known, and not for what is over before it
/// could be seen.
#[derive(Debug)]
struct Bar {
    bar: ProgressBar,
    bytes: Arc<AtomicU64>,
}

impl Bar {
    fn new(is_short: bool, size: Option<u64>, bytes: Arc<AtomicU64>) -> Self {
        let bar = match size {
            _ if is_short || !io::stderr().is_terminal() => ProgressBar::hidden(),
            Some(size) => ProgressBar::new(size).with_style(style("{wide_bar} {percent}% {msg} {eta}")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed}")),
        };
        Self { bar, bytes }
    }

    fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    fn update(&self, run: &Run) {
        self.bar.set_position(self.bytes.load(Ordering::Relaxed));
        let state =
            if run.is_blocked() { ", the broker blocks publishers (memory or disk alarm)" } else { "" };
        self.bar.set_message(format!("{} confirmed{state}", run.confirmed()));
    }

    fn say(&self, text: &str) {
        if self.is_shown() {
            self.bar.suspend(|| note(text));
        }
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are fixed above; a bad one would only cost its looks.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
