use proptest::prelude::*;

use super::super::notes::LARGE_BODY_ROOM;
use super::*;

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind][..], &channel.to_be_bytes(), &size, payload, &[FRAME_END]].concat()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn deliver(channel: u16, tag: u64, routing_key: &[u8]) -> Vec<u8> {
    let payload = [
        &[0, 60, 0, 60][..],
        &string(b"warrend"),
        &tag.to_be_bytes(),
        &[0],
        &string(b""),
        &string(routing_key),
    ];
    frame(METHOD, channel, &payload.concat())
}

/// A header frame with a message id.
fn header(channel: u16, size: u64, id: &[u8]) -> Vec<u8> {
    frame(
        HEADER,
        channel,
        &[&[0, 60, 0, 0][..], &size.to_be_bytes(), &0x0080_u16.to_be_bytes(), &string(id)].concat(),
    )
}

fn message(channel: u16, tag: u64, id: &[u8], body: &[u8]) -> Vec<u8> {
    let body_frames: Vec<u8> = body.chunks(1000).flat_map(|part| frame(BODY, channel, part)).collect();
    [deliver(channel, tag, b"key"), header(channel, body.len() as u64, id), body_frames].concat()
}

struct Rig {
    filter: Filter,
    notes: Arc<Notes>,
    room: Arc<BodyRoom>,
}

impl Rig {
    fn new() -> Self {
        let (notes, room) = (Arc::new(Notes::default()), BodyRoom::new(5000));
        Self { filter: Filter::new(Arc::default(), notes.clone(), Some(room.clone())), notes, room }
    }

    /// What lapin gets of these bytes, that come in parts of the given sizes, over and over.
    fn pass(&mut self, bytes: &[u8], parts: &[usize]) -> Vec<u8> {
        let (mut bytes, mut out, mut parts) = (bytes, Vec::new(), parts.iter().cycle());
        while !bytes.is_empty() {
            let space = self.filter.space();
            let count = bytes.len().min(space.len()).min(*parts.next().unwrap());
            space[..count].copy_from_slice(&bytes[..count]);
            self.filter.filled(count);
            bytes = &bytes[count..];
            let mut part = [0; 700];
            while self.filter.is_ready() {
                let count = self.filter.give(&mut part);
                out.extend_from_slice(&part[..count]);
            }
        }
        out
    }
}

#[test]
fn what_lapin_can_read_passes_unchanged() {
    let bytes =
        [message(1, 1, b"id-1", b"body"), frame(HEARTBEAT, 0, b""), message(2, 1, b"id-2", b"")].concat();
    let mut rig = Rig::new();
    assert_eq!(rig.pass(&bytes, &[7]), bytes);
    assert!(rig.notes.take(1, 1).is_none());
}

#[test]
fn a_message_is_repaired_and_noted_and_its_neighbours_are_as_they_were() {
    let bytes =
        [message(1, 1, b"id-1", b"one"), message(1, 2, b"caf\xe9", b"two"), message(1, 3, b"id-3", b"three")];
    let expected = [&bytes[0][..], &message(1, 2, "caf\u{e9}".as_bytes(), b"two"), &bytes[2]].concat();
    let mut rig = Rig::new();
    assert_eq!(rig.pass(&bytes.concat(), &[13]), expected);
    let note = rig.notes.take(1, 2).expect("a note");
    assert_eq!(note.altered.expect("altered").description, "message_id was not UTF-8 (hex 636166e9)");
    assert!(rig.notes.take(1, 1).is_none() && rig.notes.take(1, 3).is_none());
}

#[test]
fn routing_key_and_properties_are_noted_together() {
    let bytes = [deliver(1, 9, b"\xff"), header(1, 0, b"\xfe")].concat();
    let mut rig = Rig::new();
    rig.pass(&bytes, &[64]);
    let altered = rig.notes.take(1, 9).expect("a note").altered.expect("altered");
    assert_eq!(
        altered.description,
        "the routing key was not UTF-8 (hex ff); message_id was not UTF-8 (hex fe)"
    );
}

#[test]
fn a_body_without_room_is_left_out() {
    let large = usize::try_from(LARGE_BODY_ROOM).unwrap() - 100;
    let mut rig = Rig::new();
    let first = rig.pass(&message(1, 1, b"first", &vec![b'a'; large]), &[70_000]);
    assert_eq!(first.len(), message(1, 1, b"first", &vec![b'a'; large]).len());
    let bytes = [message(1, 2, b"second", &[b'b'; 6000]), message(1, 3, b"third", b"small")].concat();
    let expected = [message(1, 2, b"second", b""), message(1, 3, b"third", b"small")].concat();
    assert_eq!(rig.pass(&bytes, &[999]), expected);
    assert!(matches!(rig.notes.take(1, 2).expect("a note").body, LargeBody::Withheld(6000)));
    assert!(!rig.room.has_room(6000));
    drop(rig.notes.take(1, 1).expect("a note"));
    assert!(rig.room.has_room(6000));
    assert_eq!(
        rig.pass(&message(1, 4, b"second", &[b'b'; 6000]), &[999]),
        message(1, 4, b"second", &[b'b'; 6000])
    );
}

#[test]
fn the_notes_of_a_channel_end_when_its_number_is_used_again() {
    let mut rig = Rig::new();
    rig.pass(&header_of(1, 1), &[100]);
    rig.pass(&frame(METHOD, 1, &[0, 20, 0, 11, 0, 0, 0, 0]), &[100]);
    assert!(rig.notes.take(1, 1).is_none());
}

fn header_of(channel: u16, tag: u64) -> Vec<u8> {
    [deliver(channel, tag, b"\xff"), header(channel, 0, b"id")].concat()
}

#[test]
fn what_is_no_amqp_passes_to_the_end() {
    let refusal = b"AMQP\x00\x00\x09\x01";
    let mut broken = message(1, 1, b"caf\xe9", b"body");
    let end = deliver(1, 1, b"key").len() - 1;
    broken[end] = 0;
    for bytes in [&refusal[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &broken, &[1, 0]] {
        let mut rig = Rig::new();
        let passed = rig.pass(bytes, &[3]);
        assert_eq!(passed, if bytes.len() == 2 { &b""[..] } else { bytes });
    }
}

#[test]
fn a_frame_longer_than_the_buffer_is_held_and_the_buffer_shrinks_again() {
    let mut rig = Rig::new();
    let long =
        [string(b"n"), b"S".to_vec(), 300_000_u32.to_be_bytes().to_vec(), vec![b'a'; 300_000]].concat();
    let table = [&u32::try_from(long.len()).unwrap().to_be_bytes()[..], &long].concat();
    let headers = frame(HEADER, 1, &[&[0, 60, 0, 0][..], &0_u64.to_be_bytes(), &[0x20, 0], &table].concat());
    let next = message(1, 2, b"id", b"body");
    let bytes = [&deliver(1, 1, b"key")[..], &headers, &next].concat();
    let empty = [&deliver(1, 1, b"key")[..], &header_without(1, 0, 0x2000, &[0, 0, 0, 0]), &next].concat();
    assert_eq!(rig.pass(&bytes, &[50_000]), empty);
    rig.filter.space();
    assert_eq!(rig.filter.buffer.len(), BUFFER);
    let altered = rig.notes.take(1, 1).expect("a note").altered.expect("altered");
    assert_eq!(
        altered.description,
        "header n of 300007 bytes was left out: the headers do not fit into a frame"
    );
}

/// A header frame with these flags and values.
fn header_without(channel: u16, size: u64, flags: u16, values: &[u8]) -> Vec<u8> {
    let payload = [&[0, 60, 0, 0][..], &size.to_be_bytes(), &flags.to_be_bytes(), values].concat();
    frame(HEADER, channel, &payload)
}

#[test]
fn a_header_frame_that_is_too_long_to_be_held_loses_its_properties() {
    let mut rig = Rig::new();
    let long = header_without(1, 4, 0x2000, &vec![0; MAX_HELD]);
    let next = message(1, 2, b"id", b"body");
    let bytes = [&deliver(1, 1, b"key")[..], &long, &frame(BODY, 1, b"text"), &next].concat();
    let expected =
        [&deliver(1, 1, b"key")[..], &header_without(1, 4, 0, b""), &frame(BODY, 1, b"text"), &next].concat();
    assert_eq!(rig.pass(&bytes, &[11, 70_000]), expected);
    let altered = rig.notes.take(1, 1).expect("a note").altered.expect("altered");
    assert!(
        altered.lossy && altered.description == "properties of 16777230 bytes were left out",
        "{altered:?}"
    );
    assert_eq!(rig.filter.buffer.len(), BUFFER);
}

proptest! {
    #[test]
    fn the_sizes_of_reads_change_nothing(
        messages in prop::collection::vec((1_u16..4, prop::collection::vec(any::<u8>(), 0..12), 0_usize..9000), 1..8),
        parts in prop::collection::vec(1_usize..3000, 1..6),
    ) {
        let bytes: Vec<u8> = messages
            .iter()
            .enumerate()
            .flat_map(|(tag, (channel, id, size))| message(*channel, tag as u64, id, &vec![b'x'; *size]))
            .collect();
        let whole = Rig::new().pass(&bytes, &[usize::MAX]);
        prop_assert_eq!(Rig::new().pass(&bytes, &parts), whole);
    }
}
