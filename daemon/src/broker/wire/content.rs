//! Content header frames: the properties of a message, which a broker forwards as its producer wrote them. lapin ends the
//! connection over properties that it cannot read, and reads nested headers recursively. Pure.

use std::cmp::Reverse;

use super::reader::Reader;
use super::text::{Alteration, text_of};
use crate::task::is_transport_header;
use crate::task::own::is_own;

/// Arrays and tables nested deeper than this become byte arrays. Handlers see 16 levels.
pub(super) const MAX_DEPTH: usize = 64;
/// Class, weight and body size, before the property flags.
pub(super) const HEAD: usize = 12;
/// What a frame has besides its payload.
pub(super) const FRAME_OVERHEAD: usize = 8;

/// A property's type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    ShortString,
    Octet,
    Timestamp,
    Table,
}

/// Every property of class `basic`, from the highest flag on.
const PROPERTIES: [(&str, Kind); 14] = [
    ("content_type", Kind::ShortString),
    ("content_encoding", Kind::ShortString),
    ("headers", Kind::Table),
    ("delivery_mode", Kind::Octet),
    ("priority", Kind::Octet),
    ("correlation_id", Kind::ShortString),
    ("reply_to", Kind::ShortString),
    ("expiration", Kind::ShortString),
    ("message_id", Kind::ShortString),
    ("timestamp", Kind::Timestamp),
    ("type", Kind::ShortString),
    ("user_id", Kind::ShortString),
    ("app_id", Kind::ShortString),
    ("cluster_id", Kind::ShortString),
];

/// The size of the body that follows.
pub(super) fn body_size(payload: &[u8]) -> Option<u64> {
    Reader::new(payload.get(4..)?).long_long()
}

/// A payload without properties, for one of `size` bytes that is too long to be looked at.
pub(super) fn without_properties(head: [u8; HEAD], size: usize) -> (Vec<u8>, Alteration) {
    let mut alteration = Alteration::default();
    alteration.lose(&format!("properties of {size} bytes were left out"));
    ([&head[..], &[0, 0]].concat(), alteration)
}

/// Gives the payload another body size.
pub(super) fn set_body_size(payload: &mut [u8], size: u64) {
    if let Some(place) = payload.get_mut(4..HEAD) {
        place.copy_from_slice(&size.to_be_bytes());
    }
}

/// The payload as lapin can read it, in a frame of at most `frame_max` bytes, and what was changed; `None` when nothing
/// needs to be.
pub(super) fn repair(payload: &[u8], frame_max: usize) -> Option<(Vec<u8>, Alteration)> {
    let room = frame_max.saturating_sub(FRAME_OVERHEAD);
    if payload.len() < HEAD + 2 || (payload.len() <= room && is_readable(payload)) {
        return None;
    }
    let mut rewrite = Rewrite { alteration: Alteration::default(), headers: Vec::new() };
    let (flags, values) = rewrite.properties(Reader::new(&payload[HEAD..]));
    let fixed = HEAD + 2 + values.iter().map(|(_, value)| value.len()).sum::<usize>();
    rewrite.fit(room.saturating_sub(fixed + 4));
    let mut out = payload[..HEAD].to_vec();
    out.extend_from_slice(&flags.to_be_bytes());
    for (kind, value) in &values {
        out.extend_from_slice(value);
        if *kind == Kind::Table {
            let len = rewrite.headers.iter().map(|header| header.bytes.len()).sum();
            put_len(&mut out, len);
            rewrite.headers.iter().for_each(|header| out.extend_from_slice(&header.bytes));
        }
    }
    Some((out, rewrite.alteration.finish()))
}

/// Whether lapin reads it without an error and without deep recursion.
fn is_readable(payload: &[u8]) -> bool {
    let mut reader = Reader::new(&payload[HEAD..]);
    let Some(flags) = reader.short() else { return false };
    PROPERTIES.iter().enumerate().all(|(index, (_, kind))| {
        flags & (1 << (15 - index)) == 0
            || match kind {
                Kind::ShortString => reader.short_string().is_some_and(is_text),
                Kind::Octet => reader.octet().is_some(),
                Kind::Timestamp => reader.long_long().is_some(),
                Kind::Table => reader.long_bytes().is_some_and(|table| is_table(table, MAX_DEPTH)),
            }
    }) && reader.is_empty()
}

fn is_text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok()
}

fn is_table(bytes: &[u8], depth: usize) -> bool {
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        if !reader.short_string().is_some_and(is_text) || !is_value(&mut reader, depth) {
            return false;
        }
    }
    true
}

fn is_value(reader: &mut Reader<'_>, depth: usize) -> bool {
    match reader.octet() {
        Some(b'A') => reader.long_bytes().is_some_and(|items| {
            let mut items = Reader::new(items);
            depth > 0
                && std::iter::from_fn(|| (!items.is_empty()).then(|| is_value(&mut items, depth - 1)))
                    .all(|is| is)
        }),
        Some(b'F') => reader.long_bytes().is_some_and(|table| depth > 0 && is_table(table, depth - 1)),
        Some(b'S' | b'x') => reader.long_bytes().is_some(),
        Some(tag) => size_of(tag).is_some_and(|size| reader.take(size).is_some()),
        None => false,
    }
}

/// Bytes of a value with a fixed size.
fn size_of(tag: u8) -> Option<usize> {
    match tag {
        b'V' => Some(0),
        b't' | b'b' | b'B' => Some(1),
        b's' | b'U' | b'u' => Some(2),
        b'I' | b'i' | b'f' => Some(4),
        b'D' => Some(5),
        b'L' | b'l' | b'd' | b'T' => Some(8),
        _ => None,
    }
}

/// One header as it is to be written: name, type and value.
struct Header {
    name: String,
    bytes: Vec<u8>,
}

/// Who wrote a header, in the order in which headers are left out.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Broker,
    Producer,
    Warren,
}

impl Header {
    fn owner(&self) -> Owner {
        match &self.name {
            name if is_own(name) => Owner::Warren,
            name if is_transport_header(name) => Owner::Broker,
            _ => Owner::Producer,
        }
    }
}

/// Writes a message's properties anew.
struct Rewrite {
    alteration: Alteration,
    headers: Vec<Header>,
}

impl Rewrite {
    /// Flags and values of the properties that can be read. The table's own value is kept apart, header by header.
    fn properties(&mut self, mut reader: Reader<'_>) -> (u16, Vec<(Kind, Vec<u8>)>) {
        let given = reader.short().unwrap_or(0);
        let (mut flags, mut values) = (0, Vec::new());
        for (index, (name, kind)) in PROPERTIES.iter().enumerate() {
            let flag = 1 << (15 - index);
            if given & flag == 0 {
                continue;
            }
            let Some(value) = self.property(&mut reader, name, *kind) else {
                self.alteration
                    .lose(&format!("the properties from {name} on cannot be read and were left out"));
                return (flags, values);
            };
            flags |= flag;
            values.push((*kind, value));
        }
        if !reader.is_empty() {
            let count = reader.rest().len();
            self.alteration.lose(&format!("{count} bytes behind the last property were left out"));
        }
        (flags, values)
    }

    fn property(&mut self, reader: &mut Reader<'_>, name: &str, kind: Kind) -> Option<Vec<u8>> {
        Some(match kind {
            Kind::ShortString => {
                let mut out = Vec::new();
                self.short_string(&mut out, name, reader.short_string()?);
                out
            }
            Kind::Octet => vec![reader.octet()?],
            Kind::Timestamp => reader.take(8)?.to_vec(),
            Kind::Table => {
                let mut table = Reader::new(reader.long_bytes()?);
                while !table.is_empty() {
                    let Some(header) = self.header(&mut table, MAX_DEPTH) else {
                        self.unreadable(table);
                        break;
                    };
                    self.headers.push(header);
                }
                Vec::new()
            }
        })
    }

    fn header(&mut self, table: &mut Reader<'_>, depth: usize) -> Option<Header> {
        let before = *table;
        let mut bytes = Vec::new();
        let read = table.short_string().and_then(|name| {
            let name = self.short_string(&mut bytes, "a header's name", name);
            self.value(&mut bytes, table, depth).map(|()| name)
        });
        if read.is_none() {
            *table = before;
        }
        read.map(|name| Header { name, bytes })
    }

    /// Writes the next value. `None`: it cannot be read.
    fn value(&mut self, out: &mut Vec<u8>, reader: &mut Reader<'_>, depth: usize) -> Option<()> {
        let tag = reader.octet()?;
        match tag {
            b'A' | b'F' => {
                let bytes = reader.long_bytes()?;
                if depth == 0 {
                    self.alteration
                        .add(&format!("headers nested deeper than {MAX_DEPTH} levels became bytes"));
                    out.push(b'x');
                    put_len(out, bytes.len());
                    out.extend_from_slice(bytes);
                    return Some(());
                }
                out.push(tag);
                let start = out.len();
                put_len(out, 0);
                self.items(out, Reader::new(bytes), tag == b'F', depth - 1);
                let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
                out[start..start + 4].copy_from_slice(&len.to_be_bytes());
            }
            b'S' | b'x' => {
                let bytes = reader.long_bytes()?;
                out.push(tag);
                put_len(out, bytes.len());
                out.extend_from_slice(bytes);
            }
            tag => {
                let value = reader.take(size_of(tag)?)?;
                out.push(tag);
                out.extend_from_slice(value);
            }
        }
        Some(())
    }

    /// The items of an array or table, up to the first that cannot be read.
    fn items(&mut self, out: &mut Vec<u8>, mut reader: Reader<'_>, named: bool, depth: usize) {
        while !reader.is_empty() {
            let (before, written) = (reader, out.len());
            let name = if named { reader.short_string() } else { Some(&b""[..]) };
            let read = name.and_then(|name| {
                if named {
                    self.short_string(out, "a header's name", name);
                }
                self.value(out, &mut reader, depth)
            });
            if read.is_none() {
                out.truncate(written);
                self.unreadable(before);
                return;
            }
        }
    }

    fn unreadable(&mut self, reader: Reader<'_>) {
        self.alteration
            .lose(&format!("{} bytes of headers cannot be read and were left out", reader.rest().len()));
    }

    fn short_string(&mut self, out: &mut Vec<u8>, what: &str, bytes: &[u8]) -> String {
        let text = text_of(what, bytes, &mut self.alteration).into_owned();
        out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(text.as_bytes());
        text
    }

    /// Leaves out the largest headers until the others take at most `room` bytes: first the broker's records, which no copy
    /// keeps and which the broker adds after it has checked the size; then the producer's; those of Warren last.
    fn fit(&mut self, room: usize) {
        let mut total: usize = self.headers.iter().map(|header| header.bytes.len()).sum();
        if total <= room {
            return;
        }
        let mut largest_first: Vec<usize> = (0..self.headers.len()).collect();
        largest_first.sort_by_key(|index| {
            let header = &self.headers[*index];
            (header.owner(), Reverse(header.bytes.len()))
        });
        let mut left_out = vec![false; self.headers.len()];
        for index in largest_first {
            if total <= room {
                break;
            }
            let header = &self.headers[index];
            let (name, size) = (&header.name, header.bytes.len());
            total -= size;
            left_out[index] = true;
            let change = format!(
                "header {name:.64} of {size} bytes was left out: the headers do not fit into a frame"
            );
            match header.owner() {
                Owner::Broker => self.alteration.add(&change),
                Owner::Producer | Owner::Warren => self.alteration.lose(&change),
            }
        }
        let mut left_out = left_out.into_iter();
        self.headers.retain(|_| !left_out.next().unwrap_or(false));
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

#[cfg(test)]
#[path = "content/tests.rs"]
mod tests;
