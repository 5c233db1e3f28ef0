//! The frames that a broker sends, on their way to lapin. Body and heartbeat frames pass as they come. A method or header
//! frame is held until it is whole; one that lapin cannot read is replaced by one that it can (`method.rs`,
//! `content.rs`), and what was changed is noted (`notes.rs`). A body for which there is no room is left out.
//!
//! What is no AMQP at all passes unchanged, from there to the end: lapin has the words for it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::FRAME_MAX;
use super::content;
use super::method::{self, BASIC_DELIVER, BASIC_GET_OK, CHANNEL_OPEN_OK, CONNECTION_START, CONNECTION_TUNE};
use super::notes::{BodyRoom, LargeBody, Note, Notes};
use super::text::Alteration;
use crate::broker::server::Server;

/// Frame type, channel and size.
const HEAD: usize = 7;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
const FRAME_END: u8 = 0xCE;
/// Bytes of the buffer to begin with, and what is kept of it after a larger frame.
const BUFFER: usize = 128 * 1024;
/// A longer header frame is not held but loses its properties; a longer method frame passes. A broker bounds what it takes
/// by its `frame_max`, 128 KiB by default, and adds its own records to that.
const MAX_HELD: usize = 16 << 20;

/// The filter of one connection.
pub(super) struct Filter {
    /// `..given` went to lapin, `given..ready` is for lapin, `ready..filled` is still to be looked at.
    buffer: Vec<u8>,
    given: usize,
    ready: usize,
    filled: usize,
    /// What is left of a frame that passes as it comes, its end octet included.
    passing: usize,
    /// That frame is left out.
    dropping: bool,
    /// No AMQP: nothing is looked at any more.
    transparent: bool,
    frame_max: usize,
    contents: Contents,
    server: Arc<OnceLock<Server>>,
}

/// Messages on their way in.
struct Contents {
    /// Channels between a delivery's method frame and its header frame, or the end of a body that is left out.
    all: HashMap<u16, Content>,
    notes: Arc<Notes>,
    /// For connections that consume.
    room: Option<Arc<BodyRoom>>,
}

/// One of them.
struct Content {
    tag: u64,
    /// `basic.deliver`, not an answer to `basic.get`.
    delivered: bool,
    altered: Option<Alteration>,
    /// Bytes of its body that are still to be left out.
    withheld: u64,
}

impl Filter {
    pub(super) fn new(server: Arc<OnceLock<Server>>, notes: Arc<Notes>, room: Option<Arc<BodyRoom>>) -> Self {
        Self {
            buffer: vec![0; BUFFER],
            given: 0,
            ready: 0,
            filled: 0,
            passing: 0,
            dropping: false,
            transparent: false,
            frame_max: FRAME_MAX as usize,
            contents: Contents { all: HashMap::new(), notes, room },
            server,
        }
    }

    /// Whether there is something for lapin.
    pub(super) fn is_ready(&self) -> bool {
        self.given < self.ready
    }

    /// Copies what is ready for lapin; returns how much that was.
    pub(super) fn give(&mut self, out: &mut [u8]) -> usize {
        let count = out.len().min(self.ready - self.given);
        out[..count].copy_from_slice(&self.buffer[self.given..self.given + count]);
        self.given += count;
        count
    }

    /// Room for what comes next. To be used when nothing is ready.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.given > 0 {
            self.buffer.copy_within(self.given..self.filled, 0);
            self.ready -= self.given;
            self.filled -= self.given;
            self.given = 0;
        }
        let held = self.held_size().map_or(0, |size| HEAD + size + 1);
        let wanted = BUFFER.max(held);
        if self.buffer.len() != wanted && self.filled <= wanted {
            self.buffer.resize(wanted, 0);
            self.buffer.shrink_to_fit();
        }
        &mut self.buffer[self.filled..]
    }

    /// So many bytes were put into the space.
    pub(super) fn filled(&mut self, count: usize) {
        self.filled += count;
        while self.step() {}
    }

    /// The payload size of the frame at hand, when it is one to be held.
    fn held_size(&self) -> Option<usize> {
        if self.passing > 0 || self.transparent {
            return None;
        }
        let (kind, _, size) = self.head()?;
        (matches!(kind, METHOD | HEADER) && size <= MAX_HELD).then_some(size)
    }

    /// Type, channel and payload size of the frame at hand.
    fn head(&self) -> Option<(u8, u16, usize)> {
        let head = self.buffer[self.ready..self.filled].first_chunk::<HEAD>()?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        Some((head[0], u16::from_be_bytes([head[1], head[2]]), size as usize))
    }

    /// Looks at the next frame, or the next part of one; false: more bytes are needed.
    fn step(&mut self) -> bool {
        if self.transparent {
            self.ready = self.filled;
            return false;
        }
        if self.passing > 0 {
            return self.pass();
        }
        let Some((kind, channel, size)) = self.head() else { return self.is_foreign_opening() };
        match kind {
            METHOD | HEADER if size <= MAX_HELD => {
                let end = self.ready + HEAD + size;
                if end >= self.filled {
                    return false;
                }
                if self.buffer[end] != FRAME_END {
                    return self.give_up();
                }
                self.look(kind, channel, size);
            }
            HEADER => return self.look_at_long_header(channel, size),
            METHOD | HEARTBEAT => self.passing = HEAD + size + 1,
            BODY => {
                self.dropping = self.contents.leaves_out(channel, size);
                self.passing = HEAD + size + 1;
            }
            _ => return self.give_up(),
        }
        true
    }

    /// A broker that refuses the protocol version answers with eight bytes that are no frame.
    fn is_foreign_opening(&mut self) -> bool {
        match self.buffer[self.ready..self.filled].first() {
            None | Some(&(METHOD | HEADER | BODY | HEARTBEAT)) => false,
            Some(_) => self.give_up(),
        }
    }

    fn give_up(&mut self) -> bool {
        self.transparent = true;
        true
    }

    fn pass(&mut self) -> bool {
        let count = self.passing.min(self.filled - self.ready);
        if self.dropping {
            self.buffer.copy_within(self.ready + count..self.filled, self.ready);
            self.filled -= count;
        } else {
            self.ready += count;
        }
        self.passing -= count;
        self.dropping &= self.passing > 0;
        count > 0
    }

    /// A whole method or header frame.
    fn look(&mut self, kind: u8, channel: u16, size: usize) {
        let payload = self.ready + HEAD..self.ready + HEAD + size;
        let replaced = if kind == METHOD {
            self.look_at_method(channel, payload.clone())
        } else {
            self.look_at_header(channel, payload.clone())
        };
        match replaced {
            Some(new) => self.replace(payload.end + 1, kind, channel, &new),
            None => self.ready = payload.end + 1,
        }
    }

    /// The first bytes of a header frame that is too long to be held; the rest is left out.
    fn look_at_long_header(&mut self, channel: u16, size: usize) -> bool {
        let start = self.ready + HEAD;
        let Some(head) = self.buffer[start..self.filled].first_chunk::<{ content::HEAD }>() else {
            return false;
        };
        let (mut payload, altered) = content::without_properties(*head, size);
        if self.contents.header(channel, content::body_size(&payload).unwrap_or(0), Some(altered)) {
            content::set_body_size(&mut payload, 0);
        }
        self.replace(start + content::HEAD, HEADER, channel, &payload);
        self.passing = size - content::HEAD + 1;
        self.dropping = true;
        true
    }

    /// Replaces the bytes from `ready` to `to` by a frame, which is then ready.
    fn replace(&mut self, to: usize, kind: u8, channel: u16, new: &[u8]) {
        let mut frame = vec![kind];
        frame.extend_from_slice(&channel.to_be_bytes());
        frame.extend_from_slice(&u32::try_from(new.len()).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend_from_slice(new);
        frame.push(FRAME_END);
        let len = frame.len();
        let from = self.ready;
        let after = self.filled - to;
        if self.buffer.len() < from + len + after {
            self.buffer.resize(from + len + after, 0);
        }
        self.buffer.copy_within(to..self.filled, from + len);
        self.buffer[from..from + len].copy_from_slice(&frame);
        self.filled = from + len + after;
        self.ready = from + len;
    }

    fn look_at_method(&mut self, channel: u16, payload: Range<usize>) -> Option<Vec<u8>> {
        let payload = &self.buffer[payload];
        let which = method::method(payload)?;
        match which {
            // Set once: one stream, one opening frame.
            CONNECTION_START => drop(self.server.set(Server::from_start(payload))),
            CONNECTION_TUNE => {
                let max = method::frame_max(payload).map_or(FRAME_MAX, |max| max.min(FRAME_MAX));
                self.frame_max = max as usize;
            }
            CHANNEL_OPEN_OK => self.contents.opened(channel),
            _ => {}
        }
        let (replaced, altered) = method::repair(payload).unzip();
        let content = matches!(which, BASIC_DELIVER | BASIC_GET_OK);
        if let Some(tag) = content.then(|| method::delivery_tag(payload)).flatten() {
            self.contents.method(channel, tag, which == BASIC_DELIVER, altered);
        }
        replaced
    }

    fn look_at_header(&mut self, channel: u16, payload: Range<usize>) -> Option<Vec<u8>> {
        let payload = &self.buffer[payload];
        let (mut replaced, altered) = content::repair(payload, self.frame_max).unzip();
        if self.contents.header(channel, content::body_size(payload)?, altered) {
            content::set_body_size(replaced.get_or_insert_with(|| payload.to_vec()), 0);
        }
        replaced
    }
}

impl Contents {
    /// A delivery's method frame.
    fn method(&mut self, channel: u16, tag: u64, delivered: bool, altered: Option<Alteration>) {
        self.all.insert(channel, Content { tag, delivered, altered, withheld: 0 });
    }

    /// Its header frame; true: there is no room for its body, which is left out.
    fn header(&mut self, channel: u16, size: u64, altered: Option<Alteration>) -> bool {
        let Some(mut content) = self.all.remove(&channel) else { return false };
        let altered = match (content.altered.take(), altered) {
            (Some(method), Some(header)) => Some(method.and(&header)),
            (one, other) => one.or(other),
        };
        let room = self.room.as_ref().filter(|_| content.delivered);
        let body = room.map_or(LargeBody::No, |room| room.admit(size));
        let withheld = matches!(body, LargeBody::Withheld(_));
        if altered.is_some() || !matches!(body, LargeBody::No) {
            self.notes.add(channel, content.tag, Note { altered, body });
        }
        if withheld {
            self.all.insert(channel, Content { withheld: size, ..content });
        }
        withheld
    }

    /// Whether a body frame belongs to a body that is left out.
    fn leaves_out(&mut self, channel: u16, size: usize) -> bool {
        let Some(content) = self.all.get_mut(&channel) else { return false };
        if content.withheld == 0 {
            return false;
        }
        content.withheld = content.withheld.saturating_sub(size as u64);
        if content.withheld == 0 {
            self.all.remove(&channel);
        }
        true
    }

    /// The channel was opened: nothing of an earlier one with its number counts any more.
    fn opened(&mut self, channel: u16) {
        self.all.remove(&channel);
        self.notes.forget(channel);
    }
}

#[cfg(test)]
#[path = "filter/tests.rs"]
mod tests;
