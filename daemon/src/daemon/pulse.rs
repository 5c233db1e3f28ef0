//! Watchdog heartbeat: the main loop pings the data thread. A loop that is stuck ends the heartbeat, and with it what
//! systemd is told: the watchdog, and the requests for more time.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::engine::{EngineCommand, EngineHandle};

/// How much more time a start, a reload or a drain asks for at each beat. What is asked for last is all that remains
/// when a loop stops; several beats fit in, so that a slow one does no harm.
pub(super) const MORE_TIME: Duration = Duration::from_secs(15);
/// The slowest beat, where no watchdog asks for a quicker one. Below every sensible `TimeoutStopSec`, which passes
/// before the first request for more time counts.
const SLOWEST: Duration = Duration::from_secs(5);

/// Asks the data path's loop for a sign of life.
pub(super) struct Pulse {
    engine: EngineHandle,
    beat: Interval,
    asked: Option<oneshot::Receiver<()>>,
}

impl Pulse {
    /// Beats at `every`, or at the slowest beat if that is `None` or slower.
    pub(super) fn new(engine: EngineHandle, every: Option<Duration>) -> Self {
        let mut beat = interval(every.map_or(SLOWEST, |every| every.min(SLOWEST)));
        // After a pause there is nothing to make up for.
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { engine, beat, asked: None }
    }

    /// Waits for the next beat and the answer to it; without end when there is none. Nothing is lost when it is dropped
    /// and called again.
    pub(super) async fn answered(&mut self) {
        if self.asked.is_none() {
            self.beat.tick().await;
        }
        let engine = &self.engine;
        let asked = self.asked.get_or_insert_with(|| {
            let (reply, answer) = oneshot::channel();
            engine.send(EngineCommand::Ping(reply));
            answer
        });
        if asked.await.is_err() {
            std::future::pending::<()>().await;
        }
        self.asked = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine;

    const STEP: Duration = Duration::from_millis(1);

    /// Many beats long; to be seen that nothing comes, it has to pass.
    const MANY_BEATS: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn it_beats_while_the_loop_answers_and_stops_with_it() {
        let (engine, mut commands) = engine::channel();
        let mut pulse = Pulse::new(engine, Some(STEP));
        for _ in 0..3 {
            let answer = async {
                let Some(EngineCommand::Ping(reply)) = commands.recv().await else { panic!("a ping") };
                reply.send(()).expect("somebody waits");
            };
            tokio::join!(pulse.answered(), answer);
        }
        assert!(tokio::time::timeout(MANY_BEATS, pulse.answered()).await.is_err());
        let Ok(EngineCommand::Ping(late)) = commands.try_recv() else { panic!("a ping") };
        assert!(commands.try_recv().is_err(), "one that is not answered is not asked again");
        late.send(()).expect("somebody waits");
        pulse.answered().await;
        drop(commands);
        assert!(
            tokio::time::timeout(MANY_BEATS, pulse.answered()).await.is_err(),
            "nor by a loop that is gone"
        );
    }

    #[tokio::test]
    async fn it_is_never_slower_than_its_bound() {
        for (every, expected) in [(None, SLOWEST), (Some(SLOWEST * 3), SLOWEST), (Some(STEP), STEP)] {
            let pulse = Pulse::new(engine::channel().0, every);
            assert_eq!(pulse.beat.period(), expected, "{every:?}");
        }
    }
}
