//! The core as histories: what happens, step by step, and what the core wants done for it.

mod bed;
mod leaving;
mod settling;
mod sharing;
mod showing;
mod working;

use std::time::Duration;

use crate::model::status::Counts;

use self::bed::{Bed, HANDLER, QUEUE, Step};
use Step::{Consuming, Deliver, Ready};

type History = [(Step, &'static [&'static str])];

const SECOND: Duration = Duration::from_secs(1);
/// A delivery that runs on a host that was started for it.
const RUNNING: &History =
    &[(Consuming(1), &[]), (Deliver(1, "a"), &["start 1 of 1"]), (Ready(1), &["send 1/1 a as 1"])];

fn play(what: &str, history: &History) -> Bed {
    let mut bed = Bed::new();
    bed.expect(what, RUNNING);
    bed.expect(what, history);
    bed
}

fn counts(bed: &Bed) -> Counts {
    let status = bed.core.status(bed.now().instant, &|_| None);
    assert_eq!((&*status.queues[0].name, &*status.handlers[0].name), (QUEUE, HANDLER));
    status.queues[0].counts
}
