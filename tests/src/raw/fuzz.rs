//! Messages drawn from a seed: whatever a broker takes, and some that it does not.

mod kind;

pub use self::kind::Kind;
use super::encode::{Content, Properties, Property, Value, fields, long, short};

/// Where messages go.
#[derive(Debug, Clone)]
pub struct Route {
    /// A queue.
    pub queue: String,
    /// A fanout exchange that the queue is bound to.
    pub fanout: String,
}

/// Draws messages.
#[derive(Debug)]
pub struct Fuzz {
    random: fastrand::Rng,
    route: Route,
    /// The largest content header.
    header_max: usize,
    /// The largest body.
    body_max: usize,
}

/// Names that Warren puts on its own messages.
const OWN: [&str; 17] = [
    "id",
    "attempt",
    "redeliveries",
    "due",
    "deadline",
    "reason",
    "handler",
    "error-code",
    "error",
    "first-failure",
    "last-failure",
    "queue",
    "outcome",
    "task",
    "attempts",
    "altered",
    "",
];
/// Names that brokers use. `CC` and `BCC` have values of their own.
const BROKER: [&str; 9] = [
    "x-death",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-delivery-count",
    "x-acquired-count",
    "x-received-from",
    "x-delay",
    "x-opt-delivery-delay",
];
/// What a broker takes as `expiration`, and no task of a test lives to see.
const EXPIRATIONS: [&str; 4] = ["3600000", "+7200000", "4294967295", "315360000000"];
/// Types of a fixed size that any bytes fill, with the size.
const FIXED: [(u8, usize); 11] = [
    (b'B', 1),
    (b'D', 5),
    (b'I', 4),
    (b'L', 8),
    (b'T', 8),
    (b'b', 1),
    (b'i', 4),
    (b'l', 8),
    (b's', 2),
    (b't', 1),
    (b'u', 2),
];
/// Headers nested like this are ordinary.
const SHALLOW: u32 = 6;
/// Room for the properties beside large headers.
const BESIDE: usize = 64;

impl Fuzz {
    /// The same seed and sizes draw the same messages.
    pub fn new(seed: u64, route: Route, header_max: usize, body_max: usize) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), route, header_max, body_max }
    }

    /// The next message, of one kind or of any.
    pub fn draw(&mut self, only: Option<Kind>) -> (Kind, Content) {
        let kind = only.unwrap_or_else(|| Kind::draw(&mut self.random));
        let body = self.body(kind);
        let properties = self.properties(kind);
        let mut content = Content::to(&self.route.queue, &properties, &body);
        if kind == Kind::Key {
            content.exchange = self.route.fanout.clone().into_bytes();
            content.routing_key = self.bytes(255);
        }
        if kind == Kind::Garbled {
            self.garble(&mut content.properties);
        }
        (kind, content)
    }

    /// A message with the same bodies and nothing odd about it.
    pub fn draw_ordinary(&mut self) -> Content {
        let kind = Kind::draw(&mut self.random);
        let body = self.body(kind);
        let properties = Properties::default().with_bytes(Property::DeliveryMode, vec![2]);
        Content::to(&self.route.queue, &properties, &body)
    }

    /// A third is done, a few fail at first, the rest has no handler.
    fn body(&mut self, kind: Kind) -> Vec<u8> {
        match self.random.u8(0..20) {
            _ if kind == Kind::Body => {
                let length = self.random.usize(..=self.body_max);
                vec![self.random.u8(..); length]
            }
            0..7 => b"Noop".to_vec(),
            7 => b"Noop fail".to_vec(),
            8..14 => b"Nobody takes this".to_vec(),
            14 => Vec::new(),
            _ => self.bytes(255),
        }
    }

    fn properties(&mut self, kind: Kind) -> Properties {
        let mut properties = self.ordinary();
        match kind {
            Kind::Uuid => {
                let id = if self.random.bool() { Property::CorrelationId } else { Property::MessageId };
                let bytes: [u8; 16] = self.random.u128(..).to_be_bytes();
                properties.with(id, &bytes)
            }
            Kind::Strings => {
                // A user is checked by the broker, and so is an expiration.
                let free = Property::SHORT
                    .into_iter()
                    .filter(|property| !matches!(property, Property::UserId | Property::Expiration));
                for property in free {
                    if self.random.u8(0..3) == 0 {
                        properties = properties.with(property, &self.bytes(255));
                    }
                }
                properties
            }
            Kind::Headers | Kind::Garbled => {
                let headers = self.table(SHALLOW);
                properties.with_bytes(Property::Headers, long(&headers))
            }
            Kind::Own => {
                let count = self.random.usize(1..5);
                let headers: Vec<_> = (0..count).map(|_| self.own()).collect();
                properties.with_bytes(Property::Headers, long(&headers.concat()))
            }
            Kind::Broker => {
                let count = self.random.usize(1..4);
                let headers: Vec<_> = (0..count).map(|_| self.of_broker()).collect();
                properties.with_bytes(Property::Headers, long(&headers.concat()))
            }
            Kind::Deep => {
                let name = self.random.bool().then(|| self.bytes(8));
                let level = 5 + name.as_ref().map_or(0, |name| name.len() + 1);
                let depth = self.random.usize(SHALLOW as usize..=(self.header_max - 4 * BESIDE) / level);
                Properties::default().with_headers(&[(b"deep", Value::nested(depth, name.as_deref()))])
            }
            Kind::Wide => self.wide(),
            Kind::Full => self.full(),
            Kind::Key | Kind::Body => properties,
        }
    }

    /// What is odd in no way that matters: any property may be there.
    fn ordinary(&mut self) -> Properties {
        let mut properties = Properties::default().with_flags(self.random.u16(0..4));
        if self.random.bool() {
            properties = properties.with_bytes(Property::DeliveryMode, vec![self.random.u8(1..3)]);
        }
        if self.random.u8(0..4) == 0 {
            properties = properties.with_bytes(Property::Priority, vec![self.random.u8(..)]);
        }
        if self.random.u8(0..4) == 0 {
            let timestamp = self.random.u64(..) >> self.random.u8(0..64);
            properties = properties.with_bytes(Property::Timestamp, timestamp.to_be_bytes().to_vec());
        }
        if self.random.u8(0..8) == 0 {
            let expiration = EXPIRATIONS[self.random.usize(..EXPIRATIONS.len())];
            properties = properties.with(Property::Expiration, expiration.as_bytes());
        }
        if self.random.u8(0..4) == 0 {
            properties = properties.with(Property::ReplyTo, &self.bytes(60));
        }
        if self.random.u8(0..8) == 0 {
            properties = properties.with(Property::UserId, b"guest");
        }
        if self.random.u8(0..4) == 0 {
            properties = properties.with(Property::MessageId, &[self.random.u8(b'a'..=b'z')]);
        }
        properties
    }

    /// A header with Warren's name. As a time, none of its numbers lies between now and the end of this century, so that
    /// no task waits for one.
    fn own(&mut self) -> Vec<u8> {
        let name = format!("x-warren-{}", OWN[self.random.usize(..OWN.len())]);
        let number: i64 = match self.random.u8(0..3) {
            0 => i64::from(self.random.u32(..) >> self.random.u8(0..32)),
            1 => self.random.i64(1_000_000_000_000..1_700_000_000_000),
            _ => (i64::MAX >> self.random.u8(0..20)) - self.random.i64(0..1_000),
        };
        let value = match self.random.u8(0..9) {
            0 => Value::new(b'l', &number.to_be_bytes()),
            1 => Value::new(b'l', &(-number).to_be_bytes()),
            2 => Value::new(b'I', &(number as i32).to_be_bytes()),
            3 => Value::new(b'T', &(number / 1_000).to_be_bytes()),
            4 => Value::new(b'd', &(number as f64).to_be_bytes()),
            5 => Value::text(number.to_string().as_bytes()),
            6 => Value::text(&self.bytes(40)),
            _ => self.structure(),
        };
        [short(name.as_bytes()), value.bytes().to_vec()].concat()
    }

    fn of_broker(&mut self) -> Vec<u8> {
        let name = match self.random.usize(..=BROKER.len()) {
            n if n < BROKER.len() => BROKER[n],
            _ => {
                // Copies of the message, to a queue that is not there.
                let value = Value::array(&[Value::text(b"nowhere")]);
                return [short(b"CC"), value.bytes().to_vec()].concat();
            }
        };
        let value = match self.random.u8(0..4) {
            0 => Value::array(&[Value::table(&[])]),
            1 => Value::array(&[Value::text(&self.bytes(20))]),
            2 => Value::text(&self.bytes(20)),
            _ => self.value(2),
        };
        [short(name.as_bytes()), value.bytes().to_vec()].concat()
    }

    /// The smallest headers: a void, named by one byte or none.
    fn wide(&mut self) -> Properties {
        let longest = self.random.usize(..2);
        let count = (self.header_max - BESIDE) / (longest + 2);
        let names: Vec<Vec<u8>> = (0..count).map(|_| self.bytes(longest)).collect();
        let headers: Vec<_> = names.iter().map(|name| (name.as_slice(), Value::new(b'V', b""))).collect();
        Properties::default().with_headers(&headers)
    }

    /// To the byte, or up to forty less: the broker itself may add some before it delivers the message.
    fn full(&mut self) -> Properties {
        let with =
            |length| Properties::default().with_headers(&[(b"full", Value::text(&vec![b'x'; length]))]);
        let spare = self.header_max - Content::to("", &with(0), b"").header().len();
        with(spare - self.random.usize(..40))
    }

    fn table(&mut self, depth: u32) -> Vec<u8> {
        let count = self.random.usize(..6);
        let headers: Vec<_> = (0..count).map(|_| (self.name(), self.value(depth))).collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_slice(), value.clone())).collect();
        fields(&headers)
    }

    fn name(&mut self) -> Vec<u8> {
        match self.random.u8(0..3) {
            0 => vec![self.random.u8(b'a'..=b'f')],
            1 => self.bytes(20),
            _ => self.bytes(128),
        }
    }

    fn value(&mut self, depth: u32) -> Value {
        match self.random.u8(0..10) {
            0 | 1 if depth > 0 => self.nested(depth),
            0..3 => Value::text(&self.bytes(80)),
            3 => Value::new(b'x', &long(&self.bytes(80))),
            4 => Value::new(b'V', b""),
            // A broker takes no float that is not finite.
            5 => Value::new(b'd', &(self.random.f64() * 1e30 - 5e29).to_be_bytes()),
            6 => Value::new(b'f', &(self.random.f32() - 0.5).to_be_bytes()),
            _ => {
                let (kind, size) = FIXED[self.random.usize(..FIXED.len())];
                let payload: Vec<u8> = (0..size).map(|_| self.random.u8(..)).collect();
                Value::new(kind, &payload)
            }
        }
    }

    fn nested(&mut self, depth: u32) -> Value {
        if self.random.bool() {
            let table = self.table(depth - 1);
            return Value::new(b'F', &long(&table));
        }
        let count = self.random.usize(..5);
        let values: Vec<Value> = (0..count).map(|_| self.value(depth - 1)).collect();
        Value::array(&values)
    }

    /// Anything but a number or a text.
    fn structure(&mut self) -> Value {
        match self.random.u8(0..4) {
            0 => Value::new(b'V', b""),
            1 => Value::new(b't', &[self.random.u8(..)]),
            2 => Value::new(b'x', &long(&self.bytes(20))),
            _ => self.nested(2),
        }
    }

    /// Text or bytes, of up to so many.
    fn bytes(&mut self, longest: usize) -> Vec<u8> {
        let length = self.random.usize(..=longest);
        match self.random.u8(0..4) {
            0 => (0..length).map(|_| self.random.u8(b' '..=b'~')).collect(),
            // Text that is not UTF-8 until a cut may fall into a letter.
            1 => "é".bytes().cycle().take(length).collect(),
            _ => (0..length).map(|_| self.random.u8(..)).collect(),
        }
    }

    fn garble(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.random.u8(1..4) {
            let place = self.random.usize(..=bytes.len());
            match self.random.u8(0..4) {
                0 => bytes.truncate(place),
                1 => bytes.insert(place, self.random.u8(..)),
                _ if place < bytes.len() => bytes[place] = self.random.u8(..),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn fuzz(seed: u64) -> Fuzz {
        let route = Route { queue: "q".to_owned(), fanout: "f".to_owned() };
        Fuzz::new(seed, route, 8_184, 1_000)
    }

    #[test]
    fn a_seed_draws_every_kind_and_each_message_again() {
        let (mut one, mut other) = (fuzz(7), fuzz(7));
        let mut kinds = BTreeSet::new();
        for _ in 0..5_000 {
            let drawn = one.draw(None);
            assert_eq!(drawn, other.draw(None));
            assert!(drawn.1.header().len() <= 8_184 + 8, "{}", drawn.0);
            kinds.insert(drawn.0);
        }
        assert_eq!(kinds.len(), 11, "{kinds:?}");
    }

    #[test]
    fn some_headers_fill_a_frame_to_the_byte() {
        let mut fuzz = fuzz(1);
        let full = (0..500).map(|_| fuzz.draw(Some(Kind::Full)));
        assert_eq!(full.map(|(_, content)| content.header().len()).max(), Some(8_184));
    }
}
