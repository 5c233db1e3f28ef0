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

#[cfg(test)]
mod tests {
    use lapin::types::{FieldTable, ShortString};

    use super::*;

    fn with_header(value: AMQPValue) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert(ShortString::from("tenant"), value);
        BasicProperties::default().with_headers(headers)
    }

    #[test]
    fn tasks_have_one_key_when_a_handler_sees_the_same_text() {
        let limits = Limits { fair_by: Some(TaskKey::Header("tenant".into())), ..Limits::default() };
        let key = |properties: &BasicProperties| of(&limits, properties, b"x").fair;
        let short = with_header(AMQPValue::ShortString("7".into()));
        let long = with_header(AMQPValue::LongString("7".into()));
        let number = with_header(AMQPValue::LongInt(7));
        let other = with_header(AMQPValue::LongString("8".into()));
        assert!(key(&short).is_some());
        assert_eq!(key(&short), key(&long));
        assert_eq!(key(&number), key(&with_header(AMQPValue::ShortInt(7))));
        assert_eq!(key(&short), key(&number), "a handler sees 7");
        assert_ne!(key(&short), key(&other));
        assert_eq!(key(&BasicProperties::default()), None, "without the header");
    }

    #[test]
    fn the_argument_is_a_key_and_each_setting_has_its_own() {
        let limits = Limits {
            fair_by: Some(TaskKey::Argument),
            exclusive_by: Some(TaskKey::Header("tenant".into())),
            ..Limits::default()
        };
        let keys = |argument| of(&limits, &BasicProperties::default(), argument);
        assert_eq!(keys(b"a"), keys(b"a"));
        assert_ne!(keys(b"a").fair, keys(b"b").fair);
        assert_eq!(keys(b"a").exclusive, None);
        assert_eq!(of(&Limits::default(), &BasicProperties::default(), b"a"), TaskKeys::default());
    }
}
