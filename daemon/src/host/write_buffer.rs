//! Bytes on their way to a socket that takes them in parts.

/// What is to be written. Its cost is in proportion to the bytes, however small the parts are.
#[derive(Debug, Default)]
pub(super) struct WriteBuffer {
    bytes: Vec<u8>,
    /// So many of them are written.
    written: usize,
}

impl WriteBuffer {
    /// Where to append.
    pub(super) fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// What is to be written.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// The next `count` bytes are written. When they were the last ones, memory beyond `keep` bytes is given back.
    pub(super) fn wrote(&mut self, count: usize, keep: usize) {
        self.written += count;
        if self.is_empty() {
            self.clear(keep);
        } else if self.written > self.bytes.len() / 2 {
            // At most as many bytes are moved as were written since the last time.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// Nobody takes what is left.
    pub(super) fn clear(&mut self, keep: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(keep);
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_whatever_the_parts_and_what_is_appended_meanwhile() {
        let mut buffer = WriteBuffer::default();
        let (mut out, mut next) = (Vec::new(), 0_u8);
        for part in (1..40).chain([1000]) {
            for _ in 0..20 {
                buffer.end().push(next);
                next = next.wrapping_add(1);
            }
            let part = part.min(buffer.rest().len());
            out.extend_from_slice(&buffer.rest()[..part]);
            buffer.wrote(part, 8);
        }
        assert!(buffer.is_empty() && buffer.end().capacity() <= 8);
        assert!(out.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        assert_eq!(out.len(), 40 * 20);
    }

    /// Moving the rest after each part would be 500 GB.
    #[test]
    fn many_small_parts_cost_no_more_than_their_bytes() {
        let start = std::time::Instant::now();
        let mut buffer = WriteBuffer::default();
        buffer.end().resize(64 << 20, 0);
        while !buffer.is_empty() {
            buffer.wrote(4 << 10, 0);
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(20), "{:?}", start.elapsed());
    }

    #[test]
    fn what_is_written_is_not_kept() {
        let mut buffer = WriteBuffer::default();
        buffer.end().resize(1000, 0);
        buffer.wrote(499, 0);
        buffer.wrote(2, 0);
        assert_eq!((buffer.end().len(), buffer.rest().len()), (499, 499));
    }
}
