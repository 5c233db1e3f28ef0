//! Frames and fields as bytes.

/// Length field plus kind.
const HEADER: usize = 5;
/// In place of where a part stands in its whole: its own bytes follow. No frame is as long.
const APART: u32 = u32::MAX;

/// The bytes are not a frame of this protocol; the words say what was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::host) struct Malformed(pub(in crate::host) &'static str);

/// Bytes read and not yet parsed; frames are parsed in place.
#[derive(Debug)]
pub(in crate::host) struct Buffer {
    buf: Vec<u8>,
    /// `start..end` is read and not parsed.
    start: usize,
    end: usize,
    chunk: usize,
    max: usize,
}

impl Buffer {
    /// A buffer that reads `chunk` bytes at once and takes frames up to `max`.
    pub(in crate::host) fn new(chunk: usize, max: usize) -> Self {
        Self { buf: vec![0; chunk], start: 0, end: 0, chunk, max }
    }

    /// The next whole frame, as its kind and payload; `None`: read more.
    pub(in crate::host) fn next(&mut self) -> Result<Option<(u8, &[u8])>, Malformed> {
        let read = &self.buf[self.start..self.end];
        let Some((&[a, b, c, d, kind], _)) = read.split_first_chunk::<HEADER>() else { return Ok(None) };
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if len > self.max {
            return Err(Malformed("a frame over its bound"));
        }
        let Some(payload) = read.get(HEADER..HEADER + len) else { return Ok(None) };
        self.start += HEADER + len;
        Ok(Some((kind, payload)))
    }

    /// Where to read to; never empty. Gives back what a large frame made it grow by. It grows as bytes arrive, not on the
    /// word of the other end, and not beyond the frame that is being read: a host's memory may be bounded.
    pub(in crate::host) fn room(&mut self) -> &mut [u8] {
        self.buf.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.end == 0 && self.buf.len() > 16 * self.chunk {
            self.buf = vec![0; self.chunk];
        }
        if self.end == self.buf.len() {
            let doubled = self.buf.len() * 2;
            let frame = self.buf.first_chunk().map_or(0, |len| HEADER + u32::from_le_bytes(*len) as usize);
            let len = if frame > self.end { doubled.min(frame) } else { doubled };
            self.buf.reserve_exact(len - self.end);
            self.buf.resize(len, 0);
        }
        &mut self.buf[self.end..]
    }

    /// `n` bytes were read to [`room`](Self::room).
    pub(in crate::host) fn filled(&mut self, n: usize) {
        self.end += n;
    }
}

/// Takes fields off the front of a payload.
#[derive(Debug, Clone, Copy)]
pub(in crate::host) struct FieldReader<'a>(pub(in crate::host) &'a [u8]);

impl<'a> FieldReader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) =
            self.0.split_first_chunk::<N>().ok_or(Malformed("a field past the frame's end"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(in crate::host) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(in crate::host) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(in crate::host) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(in crate::host) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }

    pub(in crate::host) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_le_bytes)
    }

    pub(in crate::host) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(len).ok_or(Malformed("a field past the frame's end"))?;
        self.0 = rest;
        Ok(head)
    }

    /// What [`put_part`] wrote.
    pub(in crate::host) fn part(&mut self, whole: &'a [u8]) -> Result<&'a [u8], Malformed> {
        match self.u32()? {
            APART => self.bytes(),
            start => {
                let (start, len) = (start as usize, self.u32()? as usize);
                let end = start.checked_add(len).ok_or(Malformed("a part without an end"))?;
                whole.get(start..end).ok_or(Malformed("a part past its whole"))
            }
        }
    }

    pub(in crate::host) fn text(&mut self) -> Result<String, Malformed> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| Malformed("text that is not UTF-8"))
    }

    /// Key and value pairs, their number first. Nothing is reserved on the word of the other end.
    pub(in crate::host) fn pairs(&mut self) -> Result<Vec<(String, String)>, Malformed> {
        let n = self.u32()?;
        let mut pairs = Vec::new();
        for _ in 0..n {
            pairs.push((self.text()?, self.text()?));
        }
        Ok(pairs)
    }

    pub(in crate::host) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("bytes after the last field")) }
    }
}

/// Appends the place of `part` in `whole`, which is in the frame already; or `part` itself, when it is elsewhere in memory.
pub(in crate::host) fn put_part(out: &mut Vec<u8>, part: &[u8], whole: &[u8]) {
    let inside =
        whole.as_ptr_range().contains(&part.as_ptr()) && part.as_ptr_range().end <= whole.as_ptr_range().end;
    if inside {
        let start = part.as_ptr().addr() - whole.as_ptr().addr();
        out.extend_from_slice(&(start as u32).to_le_bytes());
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    } else {
        out.extend_from_slice(&APART.to_le_bytes());
        put_bytes(out, part);
    }
}

/// Appends a field with its length.
pub(in crate::host) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Appends one frame: `fill` writes the payload straight into `out`, the length is put in afterwards.
pub(in crate::host) fn put_frame(out: &mut Vec<u8>, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    fill(out);
    let len = (out.len() - start - HEADER) as u32;
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}
