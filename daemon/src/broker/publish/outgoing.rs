//! What is published of a task: its copies, its follow-ups, the reply to its sender. `publisher.rs` publishes it.

use lapin::BasicProperties;

use super::connection::Outgoing;
use super::copy::{self, DeadCopy, Parent, RetryCopy};
use super::error::PublishError;
use super::publisher::{Destination, GiveUp, MayDrop, Publisher};
use super::reply::{self, Ended};
use crate::broker::event::Delivery;
use crate::broker::queues::hops::{self, Basis, Wait};
use crate::broker::queues::topology;
use crate::config::Queue;
use crate::model::{FollowUp, UnixMs};

/// A reply is sent this often to a queue that does not take it (it is full, say). Its task is not to wait for that.
const MAX_REPLY_TRIES: u32 = 3;

impl Publisher {
    /// Publishes the copy of a task that is to run again: to its work queue after the delay, or at once when there is
    /// none. The original may be acknowledged when this returns `Ok`.
    pub async fn retry(
        &self,
        queue: &Queue,
        original: &Delivery,
        copy: RetryCopy<'_>,
    ) -> Result<(), PublishError> {
        let now = UnixMs::now();
        let wait = Wait { due: now.plus(copy.delay), basis: Basis::Delay };
        let properties = copy::retry(original.into(), &queue.name, &copy, now);
        if copy.delay > topology::MAX_DELAY {
            return self.put_off(queue, properties, wait, &original.body).await;
        }
        if copy.delay.is_zero() {
            let message = Outgoing { queue: &queue.name, properties, body: &original.body };
            return self.publish_fitted(GiveUp::Never, message).await;
        }
        let place = Destination::Delay { target: &queue.name, kind: queue.delay_type, delay: copy.delay };
        self.publish_to(place, MayDrop::Headers, hops::mark(properties, wait, now), &original.body).await
    }

    /// Publishes the copy of a task that is not due yet: to its next wait. The original may be acknowledged when this
    /// returns `Ok`. The copy's own delay counts for nothing.
    pub async fn send_on(
        &self,
        queue: &Queue,
        original: &Delivery,
        copy: RetryCopy<'_>,
        wait: Wait,
    ) -> Result<(), PublishError> {
        let properties = copy::retry(original.into(), &queue.name, &copy, UnixMs::now());
        self.put_off(queue, properties, wait, &original.body).await
    }

    async fn put_off(
        &self,
        queue: &Queue,
        properties: BasicProperties,
        wait: Wait,
        body: &[u8],
    ) -> Result<(), PublishError> {
        let (properties, delay) = hops::put_off(properties, wait, UnixMs::now());
        if delay.is_zero() {
            let message = Outgoing { queue: &queue.name, properties, body };
            return self.publish_fitted(GiveUp::Never, message).await;
        }
        let place = Destination::Delay { target: &queue.name, kind: queue.delay_type, delay };
        self.publish_to(place, MayDrop::Headers, properties, body).await
    }

    /// Publishes a dead letter to `<queue>.dead`. The original may be acknowledged when this returns `Ok`.
    pub async fn dead(
        &self,
        queue: &Queue,
        original: &Delivery,
        dead_copy: DeadCopy<'_>,
    ) -> Result<(), PublishError> {
        let properties = copy::dead(original.into(), &queue.name, &dead_copy, UnixMs::now());
        let publish = async |properties| {
            self.publish_to(Destination::Dead(queue), MayDrop::Headers, properties, &original.body).await
        };
        match publish(properties.clone()).await {
            // The cause may be one of the producer's headers: the letter is published without them.
            Err(PublishError::Unacceptable { .. }) => publish(copy::bare(properties)).await,
            published => published,
        }
    }

    /// Tells the sender of a task how it ended, if it asked for that. The original may be acknowledged when this
    /// returns, whatever it returns: an error means that nobody takes the reply.
    pub async fn reply(&self, original: &Delivery, ended: Ended<'_>) -> Result<(), PublishError> {
        let Some(reply) = reply::reply(&original.properties, &ended, UnixMs::now()) else { return Ok(()) };
        let message = Outgoing { queue: reply.to, properties: reply.properties, body: &reply.body };
        self.publish_fitted(GiveUp::AfterTries(MAX_REPLY_TRIES), message).await
    }

    /// Publishes the `n`th follow-up (from 1) of the task `parent`, which came from `queue`. A delay is kept to
    /// [`hops::RESOLUTION`] where this daemon consumes the target; elsewhere nobody would send the follow-up on, and
    /// it waits once, for as long or longer, a day at most.
    pub async fn follow_up(
        &self,
        queue: &Queue,
        parent: Parent<'_>,
        n: usize,
        task: &FollowUp,
    ) -> Result<(), PublishError> {
        let (now, mut delay) = (UnixMs::now(), task.delay);
        let mut properties = copy::follow_up(task, parent, n, now).map_err(PublishError::Malformed)?;
        let target = if task.queue.is_empty() { &*queue.name } else { task.queue.as_str() };
        if delay.is_zero() {
            return self.publish(Outgoing { queue: target, properties, body: &task.body }).await;
        }
        let wait = Wait { due: now.plus(delay), basis: Basis::Delay };
        if self.consumes(target) {
            (properties, delay) = hops::put_off(properties, wait, now);
        } else {
            properties = hops::mark(properties, wait, now);
        }
        let place = Destination::Delay { target, kind: queue.delay_type, delay };
        self.publish_to(place, MayDrop::Nothing, properties, &task.body).await
    }
}
