//! The kinds of odd messages, and how often each is drawn.

use std::fmt;

/// What is odd about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A correlation or message id of sixteen bytes, as the bytes of a UUID are.
    Uuid,
    /// Short strings of any bytes.
    Strings,
    /// Headers of all types, nested a few levels, with names of any bytes.
    Headers,
    /// Headers with Warren's names, of any type and value.
    Own,
    /// Headers with the broker's names, of any type.
    Broker,
    /// A routing key of any bytes.
    Key,
    /// Arrays or tables nested up to what a frame holds.
    Deep,
    /// So many small headers as a frame holds.
    Wide,
    /// Headers that fill a frame to the last bytes.
    Full,
    /// A body of up to some megabytes.
    Body,
    /// Properties with some bytes changed, added or cut off: most brokers refuse most of them.
    Garbled,
}

impl Kind {
    /// Draws one: what is large is rare.
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u16(0..1000) {
            0..150 => Self::Uuid,
            150..350 => Self::Strings,
            350..600 => Self::Headers,
            600..780 => Self::Own,
            780..860 => Self::Broker,
            860..950 => Self::Key,
            950..965 => Self::Deep,
            965..972 => Self::Wide,
            972..980 => Self::Full,
            980 => Self::Body,
            _ => Self::Garbled,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
