//! `warrenctl publish`: tasks from the command line, a file or a pipe, each confirmed by the broker.

mod bar;
mod envelope;
mod input;
mod ledger;
mod link;
mod send;
mod wait;
mod when;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use warren::broker::BrokerConnection;
use warren::config::{Config, Queue};
use warren::model::UnixMs;

use self::bar::Bar;
use self::envelope::Envelope;
use self::input::{InputError, TaskSource};
use self::ledger::PublishReport;
use self::send::{PublishRun, Stop};
use self::wait::{AwaitedTasks, Inbox, Limit, WaitEnd};
use self::when::When;
use crate::exit::{Code, VerbError};
use crate::interrupt::Interrupt;
use crate::output::{note, print_json, span};
use crate::{Global, place};

pub(crate) const EXAMPLES: &str = "\
Every task is persistent, mandatory and confirmed, and has a message id. A queue that does not exist is declared as
configured. With `-` or --file every line is a task; blank lines are skipped. On failure it says which lines are
confirmed, which may be in the queue, and after which one nothing was sent. Ctrl-C waits for the confirms in flight and
says the same. The daemon need not run.

A task with --delay or --at waits in a delay queue at the broker. Where there is none for so long it waits in hops, from
one queue to the next: it never runs early, and on account of the hops at most 250ms late. Between two hops it is in its
own queue for a moment, where warrend sends it on; ANOTHER CONSUMER of that queue would get it there before its time. For
such a queue, delay by what needs no hop: 250ms 500ms 1s 2s 3s 5s 8s 12s 20s 30s 1m 2m 5m 10m 30m 1h 2h 4h 12h 1d. A time
of the day is compared with the clocks of the machines that publish and run the task. The first task for a delay queue
makes it, and this waits 3s more until the broker has surely written it down.

With --wait the tasks say where their results are to go, and the results are printed, in the order of the tasks: the
body that the handler gave, as it is, or with --json everything that is known. All tasks are read before the first is
sent. A task that expires in its queue, or that another consumer takes, may never be answered: give a TIMEOUT.

A task with the header traceparent (W3C) hands it on to its follow-ups, and its log lines carry its TRACE_ID.

Exit status: 0 all confirmed, and with --wait all done; 64 usage; 65 bad input; 69 no broker; 70 a task failed; 75 the
broker went away or refused a task: see what is confirmed; or a result did not come: see which; 78 configuration; 130
interrupted.

Examples:
  warrenctl publish 'Process order #1001' 'Process order #1002'
  warrenctl publish --queue mail --id welcome-17 --expires 1h 'Send email to user@example.com'
  warrenctl publish --type order.created --content-type application/json '{\"order\": 1001}'
  warrenctl publish --header tenant=acme --priority 5 'Generate report monthly'
  warrenctl publish --delay 90m 'Send email to user@example.com'
  warrenctl publish --at 2026-12-01T09:00:00+01:00 --expires 2h 'Generate report monthly'
  warrenctl publish --wait=30s 'Generate report for Q3'
  warrenctl publish --header traceparent=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 'Backup database'
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
    /// Keep the tasks back for this long, e.g. 1s, 90m, 7d
    #[arg(long, value_name = "DURATION", value_parser = when::delay)]
    delay: Option<Duration>,
    /// Keep the tasks back until this time, with Z or an offset, e.g. 2026-12-01T08:00:00Z; one in the past is now
    #[arg(long, value_name = "TIME", value_parser = when::time, conflicts_with = "delay")]
    at: Option<UnixMs>,
    /// Drop the tasks if they wait longer than this, e.g. 90s, 10m, 1h; counted from when they are due
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires: Option<Duration>,
    /// The message id, for exactly one TEXT; otherwise each task gets a new UUID
    #[arg(long, value_name = "ID", value_parser = short)]
    id: Option<String>,
    /// The AMQP content type, e.g. application/json
    #[arg(long, value_name = "TYPE", value_parser = short)]
    content_type: Option<String>,
    /// Wait for the results and print them; without a TIMEOUT for as long as it takes
    #[arg(
        long,
        value_name = "TIMEOUT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = wait::FOREVER
    )]
    wait: Option<Limit>,
}

impl PublishArgs {
    fn when(&self) -> When {
        match (self.delay, self.at) {
            (Some(delay), _) => When::After(delay),
            (None, Some(time)) => When::At(time),
            (None, None) => When::Now,
        }
    }
}

pub(crate) fn run(global: &Global, args: &PublishArgs) -> Result<(), VerbError> {
    let source = source(args)?;
    let config = place::config(global)?;
    let queue = place::queue(&config, args.queue.as_deref())?;
    let unit = source.unit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| VerbError::new(Code::Software, e))?;
    let started = Instant::now();
    let ended = runtime.block_on(async {
        let interrupt = Interrupt::listen().map_err(|e| VerbError::new(Code::Software, e))?;
        publish(args, source, &config, queue.clone(), &interrupt, !global.json).await
    })?;
    // A thread that waits for standard input must not keep the program from ending.
    runtime.shutdown_background();
    conclude(global, &queue.name, unit, started.elapsed(), &ended)
}

/// How a run ended.
struct PublishEnd {
    report: PublishReport,
    /// Why it stopped early, if it did.
    reason: Option<Stop>,
    /// The results, where they were waited for.
    results: Option<(AwaitedTasks, WaitEnd)>,
}

async fn publish(
    args: &PublishArgs,
    source: TaskSource,
    config: &Config,
    queue: Queue,
    interrupt: &Interrupt,
    printing: bool,
) -> Result<PublishEnd, VerbError> {
    let few = if let TaskSource::Texts(texts) = &source { Some(texts.len()) } else { None };
    let size = source.size();
    let interrupted = || VerbError::text(Code::Interrupted, "interrupted; nothing was sent");
    let mut input =
        source.read(config.daemon.max_task_bytes).map_err(|e| VerbError::new(Code::Software, e))?;
    if args.wait.is_some() {
        input = tokio::select! {
            gathered = input.gather(wait::MOST) => gathered.map_err(refused)?,
            () = interrupt.wait() => return Err(interrupted()),
        };
    }
    let (link, mut inbox) = tokio::select! {
        opened = open(config, &queue, args.wait.is_some()) => opened?,
        () = interrupt.wait() => return Err(interrupted()),
    };
    let envelope = Envelope::new(args, queue, inbox.as_ref().map(Inbox::queue), UnixMs::now());
    let run = PublishRun::new(envelope, input.tasks, inbox.is_some());
    let bar = Bar::new(few.is_some(), size, input.bytes);
    watch(&run, run.send(&link, few.unwrap_or(send::CHANNELS)), interrupt, &bar).await;
    let (report, reason) = run.close();
    let mut results = None;
    if let (Some(inbox), Some(limit), None) = (&mut inbox, args.wait, &reason) {
        let mut waiting = AwaitedTasks::new(run.ids());
        let end = inbox.collect(&mut waiting, limit, interrupt, printing).await?;
        results = Some((waiting, end));
    }
    // Whatever it says, the report is complete.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, link.connection.close(200, "done".into())).await;
    Ok(PublishEnd { report, reason, results })
}

/// The link, and on it the queue for the results if they are wanted.
async fn open(
    config: &Config,
    queue: &Queue,
    results: bool,
) -> Result<(Arc<BrokerConnection>, Option<Inbox>), VerbError> {
    let link = link::open(config, queue).await?;
    let inbox = if results { Some(Inbox::open(&link.connection).await?) } else { None };
    Ok((Arc::new(link), inbox))
}

/// Before anything was sent.
fn refused(error: InputError) -> VerbError {
    let code = if let InputError::TooMany(_) = error { Code::Usage } else { Code::Data };
    VerbError::new(code, anyhow::Error::new(error).context("nothing was sent"))
}

/// Drives the sending, the progress bar and the signals until the sending has ended.
async fn watch(run: &PublishRun, sending: impl Future<Output = ()>, interrupt: &Interrupt, bar: &Bar) {
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

fn source(args: &PublishArgs) -> Result<TaskSource, VerbError> {
    let usage = |text: &str| VerbError::text(Code::Usage, text);
    let source = match (&args.file, &*args.texts) {
        (Some(path), _) if path.as_os_str() == "-" => TaskSource::Stdin,
        (Some(path), _) => TaskSource::file(path).map_err(|e| VerbError::new(Code::Data, e))?,
        (None, [one]) if one == "-" => TaskSource::Stdin,
        (None, texts) => TaskSource::Texts(texts.to_vec()),
    };
    match &source {
        TaskSource::Texts(texts) if texts.iter().any(|text| text == "-") => {
            Err(usage("`-` reads standard input and cannot stand beside other tasks"))
        }
        TaskSource::Texts(texts) if args.wait == Some(Limit::Forever) && duration(&texts[0]).is_ok() => {
            Err(usage(&format!("did you mean --wait={}?", texts[0])))
        }
        TaskSource::Texts(texts) if texts.iter().any(|text| text.trim().is_empty()) => {
            Err(usage("an empty task has nothing to route it by"))
        }
        TaskSource::Texts(texts) if texts.len() == 1 => Ok(source),
        _ if args.id.is_some() => {
            Err(usage("--id is for exactly one TEXT: two tasks with one id are one task to a handler"))
        }
        _ => Ok(source),
    }
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
    match warren::model::duration::parse_duration(text) {
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
    ended: &PublishEnd,
) -> Result<(), VerbError> {
    let PublishEnd { report, reason, results } = ended;
    if global.json {
        let mut said = json!({"queue": queue, "ended": word(ended), "report": report});
        if let Some((waiting, _)) = results {
            said["results"] = json!(waiting.answers());
            said["outstanding"] = json!(waiting.outstanding());
        }
        print_json(&said)?;
    }
    let (code, why) = match reason {
        None if report.is_complete() => {
            if let Some((waiting, end)) = results {
                return waiting.conclude(end, unit);
            }
            if io::stderr().is_terminal() && !global.json {
                let s = if report.confirmed == 1 { "" } else { "s" };
                note(&format!("{} task{s} confirmed in queue {queue}, {}", report.confirmed, span(took)));
            }
            return Ok(());
        }
        None => (Code::TryAgain, "not every task is confirmed".to_owned()),
        Some(Stop::Signal) => (Code::Interrupted, "interrupted".to_owned()),
        Some(Stop::Input(error)) => (Code::Data, error.to_string()),
        Some(Stop::Broker(code, why)) => (*code, why.clone()),
    };
    Err(VerbError::text(code, format!("{why}\n{}", report.text(unit))))
}

/// How a run ended, in a word for scripts.
fn word(ended: &PublishEnd) -> &'static str {
    match (&ended.reason, &ended.results) {
        (None, None | Some((_, WaitEnd::Complete))) => "complete",
        (Some(Stop::Signal), _) | (None, Some((_, WaitEnd::Interrupted))) => "interrupted",
        (None, Some((_, WaitEnd::Timeout))) => "timeout",
        (Some(Stop::Input(_)), _) => "bad input",
        (Some(Stop::Broker(..)), _) | (None, Some((_, WaitEnd::Lost(_)))) => "broker",
    }
}
