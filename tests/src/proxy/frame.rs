//! HTTP/2 frames, as far as a proxy must know them: where one ends, its type
//! and its stream (RFC 9113, section 4.1).

/// What a client sends before its first frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// One frame, or bytes to be passed on as they are.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    raw: bool,
}

impl Frame {
    fn kind(&self) -> Option<u8> {
        (!self.raw).then(|| self.bytes[3])
    }

    pub(crate) fn is_data(&self) -> bool {
        self.kind() == Some(DATA)
    }

    /// True for what carries an answer's headers or message, not for the connection's own traffic.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self.kind(), Some(DATA | HEADERS))
    }

    pub(crate) fn stream(&self) -> u32 {
        u32::from_be_bytes([self.bytes[5] & 0x7f, self.bytes[6], self.bytes[7], self.bytes[8]])
    }

    /// True iff its payload holds each of `needles`.
    pub(crate) fn holds(&self, needles: &[Vec<u8>]) -> bool {
        let payload = &self.bytes[HEADER_BYTES..];
        needles.iter().all(|needle| payload.windows(needle.len()).any(|part| part == needle))
    }
}

/// Cuts a byte stream into frames.
#[derive(Debug)]
pub(crate) struct Frames {
    pending: Vec<u8>,
    /// Bytes of the client's preface still to come; a stream that has another one is no HTTP/2.
    preface: &'static [u8],
    raw: bool,
}

impl Frames {
    pub(crate) fn of_client() -> Self {
        Self { pending: Vec::new(), preface: PREFACE, raw: false }
    }

    pub(crate) fn of_server() -> Self {
        Self { pending: Vec::new(), preface: &[], raw: false }
    }

    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    pub(crate) fn next(&mut self) -> Option<Frame> {
        if !self.preface.is_empty() {
            if self.pending.len() < self.preface.len() && self.preface.starts_with(&self.pending) {
                return None;
            }
            self.raw = !self.pending.starts_with(self.preface);
            let preface = std::mem::take(&mut self.preface);
            if !self.raw {
                self.pending.drain(..preface.len());
                return Some(Frame { bytes: preface.to_vec(), raw: true });
            }
        }
        if self.raw {
            let bytes = std::mem::take(&mut self.pending);
            return (!bytes.is_empty()).then_some(Frame { bytes, raw: true });
        }
        let [a, b, c] = *self.pending.first_chunk()?;
        let length = HEADER_BYTES + u32::from_be_bytes([0, a, b, c]) as usize;
        if self.pending.len() < length {
            return None;
        }
        Some(Frame { bytes: self.pending.drain(..length).collect(), raw: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(stream: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, payload.len() as u8, DATA, 1, 0, 0, 0, stream];
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn frames_are_found_however_the_bytes_arrive() {
        let mut stream = PREFACE.to_vec();
        stream.extend(data(1, b"first"));
        stream.extend(data(3, b""));
        stream.extend(data(5, b"third"));
        for step in 1..stream.len() {
            let mut frames = Frames::of_client();
            let mut found = Vec::new();
            for part in stream.chunks(step) {
                frames.feed(part);
                while let Some(frame) = frames.next() {
                    found.push(frame);
                }
            }
            let streams: Vec<u32> = found.iter().skip(1).map(Frame::stream).collect();
            assert_eq!(streams, [1, 3, 5], "in steps of {step}");
            let all: Vec<u8> = found.iter().flat_map(|frame| frame.bytes.clone()).collect();
            assert_eq!(all, stream);
            assert!(found[1].holds(&[b"irs".to_vec()]) && !found[3].holds(&[b"first".to_vec()]));
        }
    }

    #[test]
    fn what_is_no_http2_passes_through() {
        let mut frames = Frames::of_client();
        frames.feed(b"GET /metrics HTTP/1.1\r\n");
        let frame = frames.next().unwrap();
        assert_eq!(frame.bytes, b"GET /metrics HTTP/1.1\r\n");
        assert!(!frame.is_data() && !frame.is_answer());
        assert!(frames.next().is_none());
    }
}
