//! Reads AMQP 0-9-1 fields from a frame's payload. Every read fails softly at the end of the bytes.

/// A position in bytes.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    pub(super) fn octet(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn short(&mut self) -> Option<u16> {
        self.bytes.first_chunk().copied().inspect(|_| self.bytes = &self.bytes[2..]).map(u16::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Option<u32> {
        self.bytes.first_chunk().copied().inspect(|_| self.bytes = &self.bytes[4..]).map(u32::from_be_bytes)
    }

    pub(super) fn long_long(&mut self) -> Option<u64> {
        self.bytes.first_chunk().copied().inspect(|_| self.bytes = &self.bytes[8..]).map(u64::from_be_bytes)
    }

    /// A short string's bytes.
    pub(super) fn short_string(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let len = ahead.octet()?;
        let text = ahead.take(usize::from(len))?;
        *self = ahead;
        Some(text)
    }

    /// What stands behind a 32-bit length: a long string, byte array, array or table.
    pub(super) fn long_bytes(&mut self) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let len = ahead.long()?;
        let bytes = ahead.take(usize::try_from(len).ok()?)?;
        *self = ahead;
        Some(bytes)
    }
}
