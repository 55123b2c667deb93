//! One component of a key <-> its spelling, and the cut of a long spelling into names.
//!
//! `%XX` (upper-case hex) stands for the control bytes, DEL, the bytes of U+0080 to U+009F, every byte that is no
//! part of well-formed UTF-8, and `%` itself. `.` and `..` are spelled out, an empty component is `%empty`.
//! `encode` is a function of the bytes alone and `decode` its inverse; whether a spelling is canonical is asked
//! by encoding what it decodes to.

use super::NAME_BYTES_MAX;
use super::reserved::{EMPTY, MORE};

/// A name that goes on in `%more` holds at most this much of the spelling.
pub(super) const RUN_BYTES_MAX: usize = NAME_BYTES_MAX - MORE.len();

/// The longest unit is a character of four bytes, so a full run can stop at most three bytes short.
pub(super) const RUN_BYTES_MIN: usize = RUN_BYTES_MAX - 3;

/// The one spelling of a component.
pub(super) fn encode(component: &[u8]) -> String {
    match component {
        b"" => return EMPTY.to_owned(),
        b"." => return "%2E".to_owned(),
        b".." => return "%2E%2E".to_owned(),
        _ => {}
    }
    let mut out = String::with_capacity(component.len());
    for chunk in component.utf8_chunks() {
        for c in chunk.valid().chars() {
            // is_control is exactly 00-1F, 7F and U+0080-U+009F.
            if c.is_control() || c == '%' {
                let mut utf8 = [0; 4];
                push_escaped(&mut out, c.encode_utf8(&mut utf8).as_bytes());
            } else {
                out.push(c);
            }
        }
        push_escaped(&mut out, chunk.invalid());
    }
    out
}

fn push_escaped(out: &mut String, bytes: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        out.push('%');
        out.push(HEX[usize::from(byte >> 4)].into());
        out.push(HEX[usize::from(byte & 15)].into());
    }
}

/// What a spelling stands for, canonical or not; `None` where a `%` begins no escape.
pub(super) fn decode(spelling: &str) -> Option<Vec<u8>> {
    if spelling == EMPTY {
        return Some(Vec::new());
    }
    let mut out = Vec::with_capacity(spelling.len());
    let mut rest = spelling.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let [high, low, tail @ ..] = tail else { return None };
            out.push(hex(*high)? << 4 | hex(*low)?);
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    Some(out)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Length of the unit (an escape or a character) that `spelling` begins with; 0 at its end.
pub(super) fn unit_bytes(spelling: &str) -> usize {
    match spelling.chars().next() {
        Some('%') => 3,
        Some(c) => c.len_utf8(),
        None => 0,
    }
}

/// Length of the longest run of whole units that a name ending in `%more` may hold.
fn run_bytes(spelling: &str) -> usize {
    let mut end = 0;
    loop {
        let unit = unit_bytes(&spelling[end..]);
        if unit == 0 || end + unit > RUN_BYTES_MAX {
            return end;
        }
        end += unit;
    }
}

/// The parts of a spelling that stand in the names of its component: all but the last go on in `%more`.
pub(super) fn runs(spelling: &str) -> impl Iterator<Item = Run<'_>> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let at = next?;
        let rest = &spelling[at..];
        let last = rest.len() <= NAME_BYTES_MAX;
        let text = if last { rest } else { &rest[..run_bytes(rest)] };
        next = (!last).then_some(at + text.len());
        Some(Run { at, text, last })
    })
}

/// Where the names of a spelling begin that goes on in `%more` even after its end.
pub(super) fn runs_of_more(spelling: &str) -> impl Iterator<Item = usize> + '_ {
    let mut next = 0;
    std::iter::from_fn(move || {
        let at = next;
        next += run_bytes(&spelling[at..]);
        (next > at).then_some(at)
    })
}

/// One name's part of a component's spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run<'a> {
    /// Where in the spelling it begins.
    pub(super) at: usize,
    pub(super) text: &'a str,
    pub(super) last: bool,
}

impl Run<'_> {
    pub(super) fn name(self) -> String {
        if self.last { self.text.to_owned() } else { [self.text, MORE].concat() }
    }
}
