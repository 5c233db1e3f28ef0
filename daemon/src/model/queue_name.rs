//! The names of the queues that belong to a work queue.

use std::time::Duration;

/// The delay queue of a work queue for one rung.
pub fn delay_name(queue: &str, rung: Duration) -> String {
    format!("{queue}.retry.{}", rung.as_millis())
}

/// The queue that keeps what a work queue's handlers gave up.
pub fn dead_name(queue: &str) -> String {
    format!("{queue}.dead")
}

/// The work queue that a delay queue or dead queue belongs to; `None`: the name is of neither form.
pub fn work_queue_of(name: &str) -> Option<&str> {
    let of_delay = || {
        let (queue, rung) = name.rsplit_once(".retry.")?;
        (!rung.is_empty() && rung.bytes().all(|byte| byte.is_ascii_digit())).then_some(queue)
    };
    name.strip_suffix(".dead").or_else(of_delay).filter(|queue| !queue.is_empty())
}
