//! `warrenctl top`: the daemon's state, live on a terminal or once as text.
//!
//! A thread asks the daemon, so that one which answers slowly never keeps a key from being heard. The daemon may go away
//! and come back under the view, as it does at an upgrade.

mod draw;
mod model;
mod screen;
mod track;

use std::io::{self, IsTerminal};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::crossterm::terminal;
use warren::control::client::{Client, ClientError};
use warren::model::duration::{format_duration, parse_duration};

use crate::exit::{Code, VerbError};
use crate::interrupt;
use crate::output::{print, print_json};
use crate::{Global, place};

use draw::View;
use model::{Model, Sample};
use screen::{Asked, Screen};

pub(crate) const EXAMPLES: &str = "\
Keys: q or Esc quits; p freezes the view; + and - change the pace; the arrows scroll the running tasks.

Rates are of the last interval. WAIT (from delivery to start) and TIME (of a task in its handler) are of the last
minute: the mean, and what 95 of 100 stayed below, read off the daemon's histograms. FAILED is retried or dead.

Examples:
  warrenctl top
  warrenctl top --interval 5s               for a slow line
  warrenctl top --once                      one screen as text, after one interval
  warrenctl top --json | jq .queues         the same as an object";

/// The paces that + and - step through. A faster one would cost the daemon more than it shows.
const PACES: [Duration; 6] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(60),
];
/// How soon a signal, a new sample and a change of the terminal's size are seen; a key is seen at once.
const TICK: Duration = Duration::from_millis(100);
/// Columns of a text that does not go to a terminal.
const PIPE_WIDTH: u16 = 120;

/// How often, and for how long.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// Ask the daemon so often: from 250ms to 1m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print one screen as text and end
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(global: &Global, args: &TopArgs) -> Result<(), VerbError> {
    let is_live = !args.once && !global.json;
    if is_live && !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        let text = "this is no terminal: --once prints one screen as text, --json an object";
        return Err(VerbError::text(Code::Usage, text));
    }
    let client = place::client(global);
    let mut model = Model::default();
    model.take(ask(&client)?);
    if is_live {
        return live(client, &mut model, args.interval);
    }
    // Rates need two samples.
    thread::sleep(args.interval);
    model.take(ask(&client)?);
    if global.json {
        return print_json(&model.figures());
    }
    // A terminal that nobody told its size has none.
    let size = terminal::size().ok().filter(|(columns, _)| *columns > 0 && io::stdout().is_terminal());
    print(&draw::text(&model, size.map_or(PIPE_WIDTH, |(columns, _)| columns)))
}

fn interval(text: &str) -> Result<Duration, String> {
    let (least, most) = (PACES[0], PACES[PACES.len() - 1]);
    parse_duration(text).filter(|interval| (least..=most).contains(interval)).ok_or_else(|| {
        format!("an interval is from {} to {}, such as 2s", format_duration(least), format_duration(most))
    })
}

fn ask(client: &Client) -> Result<Sample, ClientError> {
    Ok(Sample { at: Instant::now(), status: client.status()?, active: client.active()? })
}

fn live(client: Client, model: &mut Model, pace: Duration) -> Result<(), VerbError> {
    let failed = |error: io::Error| {
        VerbError::new(Code::Io, anyhow::Error::new(error).context("cannot use the terminal"))
    };
    let interrupted = interrupt::flag().map_err(failed)?;
    let (paces, new_paces) = mpsc::channel();
    let (sender, samples) = mpsc::channel();
    let sampling = move || sampler(&client, pace, &new_paces, &sender);
    thread::Builder::new().spawn(sampling).map_err(failed)?;
    let mut view = View { pace, is_frozen: false, scroll: 0 };
    let mut screen = Screen::open().map_err(failed)?;
    while !interrupted.load(Ordering::Relaxed) {
        for sample in samples.try_iter().filter(|_| !view.is_frozen) {
            match sample {
                Ok(sample) => model.take(sample),
                Err(error) => model.lose(&error),
            }
        }
        screen.draw(model, &mut view).map_err(failed)?;
        match screen::asked(TICK).map_err(failed)? {
            Some(Asked::Quit) => return Ok(()),
            Some(Asked::Freeze) => view.is_frozen = !view.is_frozen,
            Some(Asked::Scroll(by)) => view.scroll = view.scroll.saturating_add_signed(by),
            Some(Asked::Faster) => view.pace = faster(view.pace),
            Some(Asked::Slower) => view.pace = slower(view.pace),
            None => continue,
        }
        // The thread lives as long as the program does.
        let _ = paces.send(view.pace);
    }
    drop(screen);
    Err(VerbError::text(Code::Interrupted, "interrupted"))
}

fn faster(pace: Duration) -> Duration {
    PACES.into_iter().rev().find(|other| *other < pace).unwrap_or(pace)
}

fn slower(pace: Duration) -> Duration {
    PACES.into_iter().find(|other| *other > pace).unwrap_or(pace)
}

/// Asks until nobody listens; a new pace counts from the last question.
fn sampler(
    client: &Client,
    mut pace: Duration,
    new_paces: &Receiver<Duration>,
    samples: &Sender<Result<Sample, ClientError>>,
) {
    let mut asked = Instant::now();
    loop {
        match new_paces.recv_timeout(pace.saturating_sub(asked.elapsed())) {
            Ok(new) => {
                pace = new;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        asked = Instant::now();
        if samples.send(ask(client)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_within_the_paces() {
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        for refused in ["0s", "249ms", "61s", "1", "soon"] {
            let error = interval(refused).unwrap_err();
            assert!(error.contains("from 250ms to 1m"), "{refused}: {error}");
        }
    }

    #[test]
    fn plus_and_minus_step_through_the_paces_and_stop_at_their_ends() {
        assert_eq!(faster(Duration::from_secs(1)), Duration::from_millis(500));
        assert_eq!(slower(Duration::from_secs(3)), Duration::from_secs(5));
        assert_eq!(faster(PACES[0]), PACES[0]);
        assert_eq!(slower(PACES[5]), PACES[5]);
    }
}
