//! The bounds on what a plugin says, at their edges.

use super::*;
use crate::Message;
use crate::abi::{Bytes, Field};
use std::ptr::null;

#[derive(Debug, Default)]
struct Taken(Vec<Message>);

impl FollowUps for Taken {
    fn push(&mut self, follow_up: &FollowUp<'_>) {
        self.0.push(follow_up.into());
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

fn record(phase: Phase) -> CallRecord<Taken> {
    let mut record = CallRecord::default();
    record.open(phase);
    record
}

fn publish(record: &mut CallRecord<Taken>, message: &abi::Message) -> i32 {
    // SAFETY: every message of these tests points to live bytes.
    unsafe { record.publish_raw(message) }
}

fn message() -> abi::Message {
    abi::Message {
        struct_size: size_of::<abi::Message>() as u32,
        n_headers: 0,
        id: Bytes::EMPTY,
        queue: Bytes::EMPTY,
        message_type: Bytes::EMPTY,
        content_type: Bytes::EMPTY,
        body: Bytes::of(b"Noop"),
        headers: null(),
        delay_ms: 0,
        expires_ms: 0,
        priority: -1,
        reserved: 0,
    }
}

#[test]
fn a_malformed_follow_up_is_refused_with_its_code_and_one_over_a_bound_is_a_fault() {
    let large = vec![b'x'; abi::MAX_FOLLOW_UP_BYTES + 1];
    let long = vec![b'x'; abi::MAX_FOLLOW_UP_PROPERTIES / 2 + 1];
    let word = vec![b'x'; abi::MAX_WORD_BYTES + 1];
    let value = [Field { key: Bytes::of(b"k"), value: Bytes::of(&long) }];
    let key = [Field { key: Bytes::of(&word), value: Bytes::EMPTY }];
    let headers = |fields: &[Field]| abi::Message { n_headers: 1, headers: fields.as_ptr(), ..message() };
    let table = [
        (abi::Message { id: Bytes::of(b"\xff"), ..message() }, abi::PUBLISH_INVALID),
        (abi::Message { delay_ms: -1, ..message() }, abi::PUBLISH_INVALID),
        (abi::Message { expires_ms: i64::MIN, ..message() }, abi::PUBLISH_INVALID),
        (abi::Message { priority: 256, ..message() }, abi::PUBLISH_INVALID),
        (abi::Message { queue: Bytes::of(&word), ..message() }, abi::PUBLISH_INVALID),
        (abi::Message { message_type: Bytes::of(&word), ..message() }, abi::PUBLISH_INVALID),
        (headers(&key), abi::PUBLISH_INVALID),
        (abi::Message { body: Bytes::of(&large), ..message() }, abi::PUBLISH_TOO_LARGE),
        (abi::Message { queue: Bytes::of(&large), ..message() }, abi::PUBLISH_TOO_LARGE),
        (abi::Message { id: Bytes::of(&long), ..headers(&value) }, abi::PUBLISH_TOO_LARGE),
        (abi::Message { n_headers: u32::MAX, ..headers(&value) }, abi::PUBLISH_TOO_LARGE),
    ];
    for (message, code) in table {
        let mut record = record(Phase::Handle);
        assert_eq!(publish(&mut record, &message), code);
        let expected = if code == abi::PUBLISH_INVALID { Ending::Done } else { Ending::ContractFault };
        assert_eq!((record.verdict(abi::DONE, None).0, record.follow_ups().0), (expected, 0));
    }
    let mut record = record(Phase::Handle);
    assert_eq!(publish(&mut record, &message()), abi::PUBLISH_OK);
    assert_eq!(record.follow_ups().1.0, [Message::new("Noop")]);
    // SAFETY: null is allowed.
    assert_eq!(unsafe { record.publish_raw(null()) }, abi::PUBLISH_INVALID);
}

#[test]
fn the_follow_ups_of_one_task_are_bounded_together() {
    let body = vec![b'x'; abi::MAX_FOLLOW_UP_BYTES];
    let largest = abi::Message { body: Bytes::of(&body), ..message() };
    let mut many = record(Phase::Handle);
    for _ in 0..abi::MAX_FOLLOW_UPS_BYTES / abi::MAX_FOLLOW_UP_BYTES {
        assert_eq!(publish(&mut many, &largest), abi::PUBLISH_OK);
    }
    assert_eq!(publish(&mut many, &message()), abi::PUBLISH_TOO_LARGE);
    many.close();
    many.open(Phase::Handle);
    for _ in 0..abi::MAX_FOLLOW_UPS {
        assert_eq!(publish(&mut many, &message()), abi::PUBLISH_OK, "a new call begins at nothing");
    }
    assert_eq!(publish(&mut many, &message()), abi::PUBLISH_TOO_MANY);
}

#[test]
fn what_is_said_outside_of_its_call_is_ignored_or_a_fault() {
    let mut closed = record(Phase::Closed);
    assert_eq!(publish(&mut closed, &message()), abi::PUBLISH_NOT_ALLOWED);
    assert!(!closed.set_result("text/plain", b"late"));
    closed.set_error(CallError::new("late", ""));
    closed.open(Phase::Handle);
    assert_eq!((closed.verdict(abi::REJECT, None), closed.result()), ((Ending::Reject, None), None));

    let mut setup = record(Phase::Setup);
    assert!(!setup.set_result("text/plain", b"early"));
    assert_eq!(setup.created(abi::DONE, true).unwrap_err().1.code, fault::NOT_ALLOWED);
}

#[test]
fn a_status_means_what_the_header_says() {
    let (asked, late) = (Some(StopReason::Asked), Some(StopReason::Deadline));
    let table = [
        (abi::DONE, None, Ending::Done, None),
        (abi::RETRY, None, Ending::Retry, Some("own")),
        (abi::REJECT, asked, Ending::Reject, Some("own")),
        (abi::CANCELLED, asked, Ending::Cancelled, Some("own")),
        (abi::CANCELLED, late, Ending::TimedOut, Some("timeout")),
        (abi::CANCELLED, None, Ending::ContractFault, Some(fault::NOT_CANCELLED)),
        (abi::FAULT, None, Ending::HandlerFault, Some("own")),
        (17, None, Ending::ContractFault, Some(fault::UNKNOWN_STATUS)),
        (-1, asked, Ending::ContractFault, Some(fault::UNKNOWN_STATUS)),
    ];
    for (status, stop, expected, code) in table {
        let mut record = record(Phase::Handle);
        record.set_error(CallError::new("own", "words"));
        let (ending, error) = record.verdict(status, stop);
        assert_eq!((ending, error.as_ref().map(|error| &*error.code)), (expected, code), "status {status}");
    }
    assert_eq!(record(Phase::Handle).verdict(abi::FAULT, None).1.expect("words of the host's").code, "fault");
}

#[test]
fn a_create_that_fails_says_why() {
    let table = [
        (abi::DONE, false, Ending::ContractFault, fault::ABI),
        (abi::REJECT, true, Ending::Reject, "create"),
        (abi::RETRY, false, Ending::Retry, "create"),
        (99, false, Ending::HandlerFault, "create"),
    ];
    for (status, has_instance, expected, code) in table {
        let (ending, error) = record(Phase::Setup).created(status, has_instance).unwrap_err();
        assert_eq!((ending, &*error.code), (expected, code), "status {status}");
    }
    assert_eq!(record(Phase::Setup).created(abi::DONE, true), Ok(()));
}
