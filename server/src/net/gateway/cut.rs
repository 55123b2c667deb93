//! Cuts the JSON objects of a stream apart as their bytes come.
//!
//! Each byte is looked at once, however small the pieces are that it comes in.
//! Whether what was cut is JSON is for a reader to say.

use bytes::{Buf as _, Bytes, BytesMut};
use tonic::Status;

use super::unary;

#[derive(Debug)]
pub(super) struct Cutter {
    /// What has come and is not cut yet; the first `seen` bytes were looked at.
    buffer: BytesMut,
    seen: usize,
    /// Objects that are open at that point.
    depth: usize,
    /// It lies within a text,
    in_text: bool,
    /// and behind a backslash.
    is_escaped: bool,
    /// Of one object.
    max_bytes: usize,
}

impl Cutter {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { buffer: BytesMut::new(), seen: 0, depth: 0, in_text: false, is_escaped: false, max_bytes }
    }

    pub(super) fn feed(&mut self, bytes: Bytes) {
        self.buffer.extend_from_slice(&bytes);
    }

    /// True if no object has begun that is not cut.
    pub(super) fn is_between(&self) -> bool {
        self.depth == 0
    }

    /// The next whole object.
    pub(super) fn next(&mut self) -> Result<Option<BytesMut>, Status> {
        while let Some(&byte) = self.buffer.get(self.seen) {
            if self.depth == 0 && byte != b'{' {
                if !byte.is_ascii_whitespace() {
                    return Err(Status::invalid_argument(format!(
                        "invalid character '{}' looking for a message, which is an object",
                        byte.escape_ascii()
                    )));
                }
                self.buffer.advance(1);
                continue;
            }
            self.seen += 1;
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.in_text => self.is_escaped = true,
                b'"' => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' => self.depth += 1,
                b'}' => self.depth -= 1,
                _ => {}
            }
            if self.depth == 0 {
                return Ok(Some(self.buffer.split_to(std::mem::take(&mut self.seen))));
            }
            if self.seen > self.max_bytes {
                return Err(unary::too_large(self.seen, self.max_bytes));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    /// The objects that are cut out of a text that comes in pieces.
    fn cut(text: &[u8], piece: usize) -> Result<Vec<String>, Status> {
        let mut cutter = Cutter::new(100);
        let mut found = Vec::new();
        for piece in text.chunks(piece) {
            cutter.feed(Bytes::copy_from_slice(piece));
            while let Some(object) = cutter.next()? {
                found.push(String::from_utf8_lossy(&object).into_owned());
            }
        }
        assert!(cutter.is_between(), "{text:?} is whole");
        Ok(found)
    }

    #[test]
    fn objects_are_cut_apart_however_they_come() {
        let objects = [r#"{}"#, r#"{"a":{"b":"}"}}"#, r#"{"\"":"\\"}"#, r#"{"c":[{},{"d":"{"}]}"#];
        for between in ["", " ", "\n\r\t "] {
            let text = objects.join(between);
            for piece in 1..text.len() {
                assert_eq!(cut(text.as_bytes(), piece).unwrap(), objects, "{text} by {piece}");
            }
        }
        assert_eq!(cut(b" \n ", 1).unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["7", "[]", "}", "\"a\"", "{} x", "null"] {
            assert_eq!(cut(text.as_bytes(), 9).unwrap_err().code(), Code::InvalidArgument, "{text}");
        }
    }

    #[test]
    fn an_object_above_the_limit_is_refused_before_it_has_come() {
        let endless = [b"{\"a\":\"", &[b'x'; 200][..]].concat();
        assert_eq!(cut(&endless, 7).unwrap_err().code(), Code::ResourceExhausted);
        // Each for itself.
        let many = b"{\"a\":\"bbbbbbbbbbbbbbbb\"}".repeat(50);
        assert_eq!(cut(&many, 7).unwrap().len(), 50);
    }

    proptest! {
        #[test]
        fn any_bytes_are_cut_or_refused(bytes: Vec<u8>, piece in 1_usize..9) {
            let mut cutter = Cutter::new(100);
            for piece in bytes.chunks(piece) {
                cutter.feed(Bytes::copy_from_slice(piece));
                while let Ok(Some(object)) = cutter.next() {
                    prop_assert_eq!((object.first(), object.last()), (Some(&b'{'), Some(&b'}')));
                }
            }
        }
    }
}
