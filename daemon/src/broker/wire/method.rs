//! Method frames of a broker. Their short strings can hold what a producer chose (a routing key) or what the broker cut
//! in the middle of a character (a reply text). Pure.

use super::reader::Reader;
use super::text::{Alteration, text_of};

pub(super) const CONNECTION_START: Method = (10, 10);
pub(super) const CONNECTION_TUNE: Method = (10, 30);
pub(super) const CHANNEL_OPEN_OK: Method = (20, 11);
pub(super) const BASIC_DELIVER: Method = (60, 60);
pub(super) const BASIC_GET_OK: Method = (60, 71);

/// Class and method.
pub(super) type Method = (u16, u16);

/// An argument's type; bits are whole octets here.
#[derive(Clone, Copy)]
enum Argument {
    Octet,
    Short,
    Long,
    LongLong,
    ShortString(&'static str),
}
use Argument::{Long, LongLong, Octet, Short, ShortString};

/// Class and method of a payload.
pub(super) fn method(payload: &[u8]) -> Option<Method> {
    let mut reader = Reader::new(payload);
    Some((reader.short()?, reader.short()?))
}

/// The frame size that `connection.tune` offers. `None`: no limit.
pub(super) fn frame_max(tune: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(tune);
    reader.take(4)?;
    reader.short()?;
    reader.long().filter(|max| *max > 0)
}

/// The delivery tag of `basic.deliver` and `basic.get-ok`.
pub(super) fn delivery_tag(payload: &[u8]) -> Option<u64> {
    let deliver = method(payload)? == BASIC_DELIVER;
    let mut reader = Reader::new(payload);
    reader.take(4)?;
    if deliver {
        reader.short_string()?;
    }
    reader.long_long()
}

/// The payload with readable short strings, and what was changed; `None` when nothing needs to be.
pub(super) fn repair(payload: &[u8]) -> Option<(Vec<u8>, Alteration)> {
    let arguments = arguments(method(payload)?);
    if is_readable(&payload[4..], arguments) {
        return None;
    }
    let mut reader = Reader::new(&payload[4..]);
    let (mut out, mut alteration) = (payload[..4].to_vec(), Alteration::default());
    for argument in arguments {
        match argument {
            ShortString(name) => {
                let text = text_of(&format!("the {name}"), reader.short_string()?, &mut alteration);
                out.push(u8::try_from(text.len()).ok()?);
                out.extend_from_slice(text.as_bytes());
            }
            fixed => out.extend_from_slice(reader.take(fixed.len())?),
        }
    }
    out.extend_from_slice(reader.rest());
    Some((out, alteration.finish()))
}

fn is_readable(bytes: &[u8], arguments: &[Argument]) -> bool {
    let mut reader = Reader::new(bytes);
    arguments.iter().all(|argument| match argument {
        // What is too short is no business of this filter: lapin has its own words for it.
        ShortString(_) => reader.short_string().is_none_or(|text| std::str::from_utf8(text).is_ok()),
        fixed => reader.take(fixed.len()).is_some() || reader.is_empty(),
    })
}

impl Argument {
    fn len(self) -> usize {
        match self {
            Octet => 1,
            Short => 2,
            Long => 4,
            LongLong => 8,
            ShortString(_) => 0,
        }
    }
}

/// The arguments of each method with short strings that a broker sends.
fn arguments(method: Method) -> &'static [Argument] {
    match method {
        // connection.open-ok, .close, .blocked; channel.close
        (10, 41) => &[ShortString("known hosts")],
        (10, 50) | (20, 40) => &[Short, ShortString("reply text"), Short, Short],
        (10, 60) => &[ShortString("reason")],
        // queue.declare-ok
        (50, 11) => &[ShortString("queue"), Long, Long],
        // basic.consume-ok, .cancel, .cancel-ok, .return, .deliver, .get-ok, .get-empty
        (60, 21 | 31) => &[ShortString("consumer tag")],
        (60, 30) => &[ShortString("consumer tag"), Octet],
        (60, 50) => &[Short, ShortString("reply text"), ShortString("exchange"), ShortString("routing key")],
        BASIC_DELIVER => &[
            ShortString("consumer tag"),
            LongLong,
            Octet,
            ShortString("exchange"),
            ShortString("routing key"),
        ],
        BASIC_GET_OK => &[LongLong, Octet, ShortString("exchange"), ShortString("routing key"), Long],
        (60, 72) => &[ShortString("cluster id")],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn deliver(routing_key: &[u8]) -> Vec<u8> {
        [
            &[0, 60, 0, 60][..],
            &string(b"warrend"),
            &7_u64.to_be_bytes(),
            &[0],
            &string(b""),
            &string(routing_key),
        ]
        .concat()
    }

    #[test]
    fn a_routing_key_of_any_bytes_is_readable_afterwards() {
        assert_eq!(repair(&deliver(b"orders")), None);
        assert_eq!(repair(&deliver("bestellungen für münchen".as_bytes())), None);
        let (repaired, alteration) = repair(&deliver(b"caf\xe9")).expect("not UTF-8");
        assert_eq!(repaired, deliver("caf\u{e9}".as_bytes()));
        assert_eq!(alteration.description, "the routing key was not UTF-8 (hex 636166e9)");
        assert!(!alteration.lossy);
        assert_eq!(delivery_tag(&repaired), Some(7));
    }

    #[test]
    fn a_reply_text_that_was_cut_within_a_character_is_readable_afterwards() {
        let close = |text: &[u8]| [&[0, 20, 0, 40, 1, 0x94][..], &string(text), &[0, 50, 0, 10]].concat();
        let text = "NOT_FOUND - no queue 'caf\u{e9}".as_bytes();
        let (repaired, _) = repair(&close(&text[..text.len() - 1])).expect("half a character");
        assert_eq!(repaired, close("NOT_FOUND - no queue 'caf\u{c3}".as_bytes()));
    }

    #[test]
    fn a_payload_that_is_too_short_is_left_to_lapin() {
        let whole = deliver(b"caf\xe9");
        for len in 0..whole.len() - 4 {
            assert_eq!(repair(&whole[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn the_frame_size_is_read_from_tune() {
        let tune = |max: u32| [&[0, 10, 0, 30, 7, 255][..], &max.to_be_bytes(), &[0, 60]].concat();
        assert_eq!(frame_max(&tune(131_072)), Some(131_072));
        assert_eq!(frame_max(&tune(0)), None);
    }
}
