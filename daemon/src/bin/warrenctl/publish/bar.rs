//! The progress bar of a long run.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressStyle};

use super::send::PublishRun;
use crate::output::note;

/// The progress bar: on a terminal only, by bytes where the input's size is known, and not for what is over before it
/// could be seen.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
    bytes: Arc<AtomicU64>,
}

impl Bar {
    pub(super) fn new(is_short: bool, size: Option<u64>, bytes: Arc<AtomicU64>) -> Self {
        let bar = match size {
            _ if is_short || !io::stderr().is_terminal() => ProgressBar::hidden(),
            Some(size) => ProgressBar::new(size).with_style(style("{wide_bar} {percent}% {msg} {eta}")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed}")),
        };
        Self { bar, bytes }
    }

    pub(super) fn is_shown(&self) -> bool {
        !self.bar.is_hidden()
    }

    pub(super) fn update(&self, run: &PublishRun) {
        self.bar.set_position(self.bytes.load(Ordering::Relaxed));
        let state =
            if run.is_blocked() { ", the broker blocks publishers (memory or disk alarm)" } else { "" };
        self.bar.set_message(format!("{} confirmed{state}", run.confirmed()));
    }

    pub(super) fn say(&self, text: &str) {
        if self.is_shown() {
            self.bar.suspend(|| note(text));
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are fixed above; a bad one would only cost its looks.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
