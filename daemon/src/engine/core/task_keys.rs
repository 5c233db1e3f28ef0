//! What `fair_by` and `exclusive_by` tell the tasks of a handler apart by.

use std::hash::{DefaultHasher, Hash, Hasher};

use lapin::BasicProperties;
use lapin::types::AMQPValue;

use super::scheduler::TaskKeys;
use crate::config::{Limits, TaskKey};
use crate::task::header_json;

/// The keys of a task: digests, because no more is asked than whether two are the same. That two keys have one digest would
/// cost a wait and nothing else.
pub(super) fn of(limits: &Limits, properties: &BasicProperties, argument: &[u8]) -> TaskKeys {
    let key = |by: &Option<TaskKey>| digest(by.as_ref()?, properties, argument);
    TaskKeys { fair: key(&limits.fair_by), exclusive: key(&limits.exclusive_by) }
}

/// `None`: the task does not have that header.
fn digest(by: &TaskKey, properties: &BasicProperties, argument: &[u8]) -> Option<u64> {
    let mut digest = DefaultHasher::new();
    match by {
        TaskKey::Argument => argument.hash(&mut digest),
        TaskKey::Header(name) => {
            let header = properties.headers().as_ref()?.inner().get(&**name)?;
            name.hash(&mut digest);
            match header {
                AMQPValue::ShortString(text) => text.as_str().as_bytes().hash(&mut digest),
                AMQPValue::LongString(text) => text.as_bytes().hash(&mut digest),
                // The text that a handler sees.
                other => header_json(other).to_string().as_bytes().hash(&mut digest),
            }
        }
    }
    Some(digest.finish())
}
