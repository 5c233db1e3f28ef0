//! What spoils a stream: the octet after each occurrence of some bytes is overwritten.

use std::sync::{Arc, Mutex, PoisonError};

/// The octet that ends a frame in AMQP. Any other in its place makes the frame unreadable.
const FRAME_END: u8 = 0xCE;

/// After which bytes; shared by the streams of a proxy. Nothing: none is spoilt.
#[derive(Debug, Default, Clone)]
pub(super) struct Marker(Arc<Mutex<Vec<u8>>>);

/// One stream.
#[derive(Debug)]
pub(super) struct Spoiler {
    marker: Marker,
    /// The end of what came, which may be the beginning of the marker.
    held: Vec<u8>,
}

impl Marker {
    pub(super) fn set(&self, bytes: &[u8]) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = bytes.to_vec();
    }

    pub(super) fn stream(&self) -> Spoiler {
        Spoiler { marker: self.clone(), held: Vec::new() }
    }

    /// The marker as it stands in a frame whose payload ends with it.
    fn pattern(&self) -> Option<Vec<u8>> {
        let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (!bytes.is_empty()).then(|| {
            bytes.push(FRAME_END);
            bytes
        })
    }
}

impl Spoiler {
    /// Takes what came; gives what is to be passed on now.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(bytes);
        let Some(pattern) = self.marker.pattern() else { return all };
        let mut from = 0;
        while let Some(at) = all[from..].windows(pattern.len()).position(|window| window == pattern) {
            from += at + pattern.len();
            all[from - 1] = 0;
        }
        let longest = (1..pattern.len().min(all.len() + 1)).rev();
        let begun = longest.into_iter().find(|n| all.ends_with(&pattern[..*n])).unwrap_or(0);
        self.held = all.split_off(all.len() - begun);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_end_with_the_marker_are_spoilt_however_they_are_cut() {
        let stream = b"good\xCEbad\xCEba\xCEbabad\xCEbad!\xCE";
        let expected = b"good\xCEbad\x00ba\xCEbabad\x00bad!\xCE";
        let marker = Marker::default();
        marker.set(b"bad");
        for size in 1..=stream.len() {
            let mut spoiler = marker.stream();
            let passed: Vec<u8> = stream.chunks(size).flat_map(|chunk| spoiler.take(chunk)).collect();
            assert_eq!((&passed[..], &spoiler.held[..]), (&expected[..], &b""[..]), "chunks of {size}");
        }
        marker.set(b"");
        assert_eq!(marker.stream().take(b"bad\xCE"), b"bad\xCE");
    }
}
