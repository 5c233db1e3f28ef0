//! The connection: one channel with confirms, blocking. What the broker refuses costs the connection, and the next call
//! opens another one.

use std::collections::BTreeSet;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::TcpStream;

use super::encode::{Content, Value, fields, long, short};
use crate::wait::BOUND;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;
/// Type, channel and size before a frame's payload, and its end.
const FRAME_OVERHEAD: usize = 8;
/// The longest payload that is read. The broker does not cut content headers to the frame size that was agreed.
const MAX_READ: usize = 64 << 20;
/// The longest payload that is written where the broker sets no bound.
const MAX_WRITE: usize = 128 << 10;
const CHANNEL: u16 = 1;

/// Class and method.
type Id = (u16, u16);

const START: Id = (10, 10);
const START_OK: Id = (10, 11);
const TUNE: Id = (10, 30);
const TUNE_OK: Id = (10, 31);
const OPEN: Id = (10, 40);
const OPEN_OK: Id = (10, 41);
const CLOSE: Id = (10, 50);
const CLOSE_OK: Id = (10, 51);
const CHANNEL_OPEN: Id = (20, 10);
const CHANNEL_OPEN_OK: Id = (20, 11);
const CHANNEL_CLOSE: Id = (20, 40);
const CHANNEL_CLOSE_OK: Id = (20, 41);
const EXCHANGE_DECLARE: Id = (40, 10);
const EXCHANGE_DECLARE_OK: Id = (40, 11);
const QUEUE_DECLARE: Id = (50, 10);
const QUEUE_DECLARE_OK: Id = (50, 11);
const QUEUE_BIND: Id = (50, 20);
const QUEUE_BIND_OK: Id = (50, 21);
const QUEUE_PURGE: Id = (50, 30);
const QUEUE_PURGE_OK: Id = (50, 31);
const PUBLISH: Id = (60, 40);
const RETURN: Id = (60, 50);
const GET: Id = (60, 70);
const GET_OK: Id = (60, 71);
const GET_EMPTY: Id = (60, 72);
const ACK: Id = (60, 80);
const NACK: Id = (60, 120);
const CONFIRM_SELECT: Id = (85, 10);
const CONFIRM_SELECT_OK: Id = (85, 11);

/// A client of the default vhost, as the default user.
#[derive(Debug)]
pub struct Client {
    port: u16,
    /// None: the broker ended it.
    link: Option<Link>,
    /// The number of the last message on this link.
    sent: u64,
    /// Messages that are neither confirmed nor rejected.
    open: BTreeSet<u64>,
    settled: Settled,
}

/// What the broker did with the messages since the last [`Client::settle`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Taken and routed.
    pub taken: u32,
    /// Given back, because nothing is bound to the routing key.
    pub returned: u32,
    /// Not taken (`basic.nack`).
    pub rejected: u32,
    /// Sent on a link that the broker ended before it said anything of them. One message alone was refused; of several,
    /// those before the refused one may have been taken.
    pub open: u32,
    /// Why the link ended.
    pub why: String,
}

/// A message as the broker sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The payload of the content header's frame.
    pub header: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

#[derive(Debug)]
struct Link {
    reader: BufReader<TcpStream>,
    writer: BufWriter<TcpStream>,
    /// The longest payload that the broker takes.
    payload_max: usize,
}

impl Client {
    /// Connects to a broker on loopback.
    ///
    /// # Panics
    /// When it is not there.
    pub fn connect(port: u16) -> Self {
        let link = Some(Link::open(port).expect("the broker takes a connection"));
        Self { port, link, sent: 0, open: BTreeSet::new(), settled: Settled::default() }
    }

    /// Bytes that fit into one frame: the largest content header.
    pub fn payload_max(&mut self) -> usize {
        self.link().payload_max
    }

    /// Declares a durable queue.
    ///
    /// # Panics
    /// When the broker refuses it.
    pub fn declare(&mut self, queue: &str, arguments: &[(&[u8], Value)]) {
        const DURABLE: u8 = 2;
        let arguments = long(&fields(arguments));
        let payload = [&[0, 0][..], &short(queue.as_bytes()), &[DURABLE], &arguments].concat();
        self.call(QUEUE_DECLARE, &payload, &[QUEUE_DECLARE_OK]).expect("a queue");
    }

    /// Declares a fanout exchange and binds a queue to it.
    ///
    /// # Panics
    /// When the broker refuses it.
    pub fn bind_fanout(&mut self, queue: &str, exchange: &str) {
        let name = short(exchange.as_bytes());
        let payload = [&[0, 0][..], &name, &short(b"fanout"), &[0], &long(b"")].concat();
        self.call(EXCHANGE_DECLARE, &payload, &[EXCHANGE_DECLARE_OK]).expect("an exchange");
        let payload = [&[0, 0][..], &short(queue.as_bytes()), &name, &short(b""), &[0], &long(b"")].concat();
        self.call(QUEUE_BIND, &payload, &[QUEUE_BIND_OK]).expect("a binding");
    }

    /// Messages ready in a queue, and its consumers. `None`: no such queue.
    pub fn counts(&mut self, queue: &str) -> Option<(u32, u32)> {
        const PASSIVE: u8 = 1;
        let payload = [&[0, 0][..], &short(queue.as_bytes()), &[PASSIVE], &long(b"")].concat();
        let (_, answer) = self.call(QUEUE_DECLARE, &payload, &[QUEUE_DECLARE_OK]).ok()?;
        let counts = &answer[1 + usize::from(answer[0])..];
        Some((u32::from_be_bytes(*counts.first_chunk()?), u32::from_be_bytes(*counts.last_chunk()?)))
    }

    /// Takes all messages that are ready off a queue; how many they were. `None`: no such queue.
    pub fn purge(&mut self, queue: &str) -> Option<u32> {
        let payload = [&[0, 0][..], &short(queue.as_bytes()), &[0]].concat();
        let (_, answer) = self.call(QUEUE_PURGE, &payload, &[QUEUE_PURGE_OK]).ok()?;
        answer.first_chunk().map(|count| u32::from_be_bytes(*count))
    }

    /// Takes a message off a queue.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn get(&mut self, queue: &str) -> Option<Message> {
        const NO_ACK: u8 = 1;
        let payload = [&[0, 0][..], &short(queue.as_bytes()), &[NO_ACK]].concat();
        let (id, _) = self.call(GET, &payload, &[GET_OK, GET_EMPTY]).expect("a queue");
        (id == GET_OK).then(|| self.link().content().expect("a content follows"))
    }

    /// Sends a message, mandatory, and waits for nothing: [`Client::settle`] does. What cannot be written any more is
    /// open then.
    pub fn send(&mut self, content: &Content) {
        const MANDATORY: u8 = 1;
        self.sent += 1;
        let number = self.sent;
        self.open.insert(number);
        let address = [&[0, 0][..], &short(&content.exchange), &short(&content.routing_key), &[MANDATORY]];
        // The broker says why it takes no more: that is read by whoever settles.
        let _ = self.link().publish(&address.concat(), content);
    }

    /// Waits until the broker has said of everything what became of it, or has ended the link.
    pub fn settle(&mut self) -> Settled {
        while !self.open.is_empty() {
            if let Err(why) = self.method() {
                self.settled.open = self.open.len() as u32;
                self.settled.why = why;
                self.open.clear();
            }
        }
        std::mem::take(&mut self.settled)
    }

    /// Sends one message and waits for what becomes of it.
    pub fn publish(&mut self, content: &Content) -> Settled {
        self.send(content);
        self.settle()
    }

    fn link(&mut self) -> &mut Link {
        self.link.get_or_insert_with(|| Link::open(self.port).expect("the broker takes a connection"))
    }

    /// The next one counts its messages anew.
    fn end_link(&mut self) {
        self.link = None;
        self.sent = 0;
    }

    /// Calls a method and waits for one of the answers, or for why the broker ended the link.
    fn call(&mut self, id: Id, payload: &[u8], answers: &[Id]) -> Result<(Id, Vec<u8>), String> {
        let _ = self.link().method(CHANNEL, id, payload).and_then(|()| self.link().writer.flush());
        loop {
            let (id, payload) = self.method()?;
            if answers.contains(&id) {
                return Ok((id, payload));
            }
        }
    }

    /// The next method, confirms and returned messages counted.
    fn method(&mut self) -> Result<(Id, Vec<u8>), String> {
        let read = self.link().next_method();
        let (id, payload) = match read {
            Ok(read) => read,
            Err(error) => {
                self.end_link();
                return Err(error.to_string());
            }
        };
        match id {
            CLOSE | CHANNEL_CLOSE => {
                let (channel, ok) = if id == CLOSE { (0, CLOSE_OK) } else { (CHANNEL, CHANNEL_CLOSE_OK) };
                let link = self.link();
                let _ = link.method(channel, ok, &[]).and_then(|()| link.writer.flush());
                self.end_link();
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                let text = &payload[3..3 + usize::from(payload[2])];
                return Err(format!("{code} {}", String::from_utf8_lossy(text)));
            }
            RETURN => {
                self.link().content().map_err(|error| error.to_string())?;
                self.settled.returned += 1;
            }
            ACK | NACK => self.confirmed(id == ACK, &payload),
            _ => {}
        }
        Ok((id, payload))
    }

    /// What was returned is confirmed as well, after it.
    fn confirmed(&mut self, taken: bool, payload: &[u8]) {
        let tag = u64::from_be_bytes(*payload.first_chunk().expect("a delivery tag"));
        let multiple = payload[8] & 1 == 1;
        let before = self.open.len();
        if multiple {
            self.open = self.open.split_off(&(tag + 1));
        } else {
            self.open.remove(&tag);
        }
        let count = (before - self.open.len()) as u32;
        if taken {
            self.settled.taken += count;
        } else {
            self.settled.rejected += count;
        }
    }
}

impl Link {
    fn open(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(BOUND))?;
        stream.set_write_timeout(Some(BOUND))?;
        let (reader, writer) = (BufReader::new(stream.try_clone()?), BufWriter::new(stream));
        let mut link = Self { reader, writer, payload_max: MAX_WRITE };
        link.writer.write_all(b"AMQP\0\0\x09\x01")?;
        link.expect(START)?;
        let start_ok = [long(b""), short(b"PLAIN"), long(b"\0guest\0guest"), short(b"en_US")].concat();
        link.method(0, START_OK, &start_ok)?;
        let tune = link.expect(TUNE)?;
        // channel_max and frame_max as the broker has them, no heartbeats.
        link.method(0, TUNE_OK, &[&tune[..6], &[0, 0]].concat())?;
        let frame_max = u32::from_be_bytes([tune[2], tune[3], tune[4], tune[5]]) as usize;
        if frame_max > 0 {
            link.payload_max = frame_max - FRAME_OVERHEAD;
        }
        link.method(0, OPEN, &[short(b"/"), short(b""), vec![0]].concat())?;
        link.expect(OPEN_OK)?;
        link.method(CHANNEL, CHANNEL_OPEN, &short(b""))?;
        link.expect(CHANNEL_OPEN_OK)?;
        link.method(CHANNEL, CONFIRM_SELECT, &[0])?;
        link.expect(CONFIRM_SELECT_OK)?;
        Ok(link)
    }

    fn publish(&mut self, address: &[u8], content: &Content) -> io::Result<()> {
        self.method(CHANNEL, PUBLISH, address)?;
        self.frame(HEADER, CHANNEL, &content.header())?;
        content.body.chunks(self.payload_max).try_for_each(|part| self.frame(BODY, CHANNEL, part))
    }

    fn method(&mut self, channel: u16, (class, method): Id, payload: &[u8]) -> io::Result<()> {
        self.frame(METHOD, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), payload].concat())
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) -> io::Result<()> {
        let size = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
        let [high, low] = channel.to_be_bytes();
        self.writer.write_all(&[kind, high, low, size[0], size[1], size[2], size[3]])?;
        self.writer.write_all(payload)?;
        self.writer.write_all(&[FRAME_END])
    }

    /// The payload of the next method, which must be this one.
    fn expect(&mut self, wanted: Id) -> io::Result<Vec<u8>> {
        let (id, payload) = self.next_method()?;
        let text = || format!("{id:?} instead of {wanted:?}: {}", String::from_utf8_lossy(&payload));
        if id == wanted { Ok(payload) } else { Err(io::Error::other(text())) }
    }

    /// The next method; whatever is not one is passed over.
    fn next_method(&mut self) -> io::Result<(Id, Vec<u8>)> {
        self.writer.flush()?;
        loop {
            let (kind, payload) = self.next_frame()?;
            if let (METHOD, Some((id, rest))) = (kind, payload.split_first_chunk::<4>()) {
                return Ok((
                    (u16::from_be_bytes([id[0], id[1]]), u16::from_be_bytes([id[2], id[3]])),
                    rest.to_vec(),
                ));
            }
        }
    }

    /// What follows a method that carries a message.
    fn content(&mut self) -> io::Result<Message> {
        let (_, header) = self.next_frame()?;
        let size = header.get(4..12).and_then(<[u8]>::first_chunk).ok_or(io::ErrorKind::InvalidData)?;
        let (size, mut body) = (u64::from_be_bytes(*size), Vec::new());
        while (body.len() as u64) < size {
            body.extend(self.next_frame()?.1);
        }
        Ok(Message { header, body })
    }

    fn next_frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 7];
        self.reader.read_exact(&mut head)?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        if size > MAX_READ {
            return Err(io::Error::other(format!("a frame of {size} bytes")));
        }
        let mut payload = vec![0; size + 1];
        self.reader.read_exact(&mut payload)?;
        payload.pop(); // the frame's end
        Ok((head[0], payload))
    }
}
