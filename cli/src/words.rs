//! Go's ways to write things, which etcdctl's users read and parse: quoted
//! strings, durations, sizes; and its way to cut a line into words.

use std::{fmt::Write as _, time::Duration};

/// A byte string in double quotes, as Go's `%q`.
pub(crate) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\x07' => text.push_str("\\a"),
                '\x08' => text.push_str("\\b"),
                '\x0c' => text.push_str("\\f"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\x0b' => text.push_str("\\v"),
                c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                    push(&mut text, format_args!("\\x{:02x}", c as u32));
                }
                c if c.is_control() || is_unprintable(c) => {
                    push(&mut text, format_args!("\\u{:04x}", c as u32));
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            push(&mut text, format_args!("\\x{byte:02x}"));
        }
    }
    text.push('"');
    text
}

fn push(text: &mut String, piece: std::fmt::Arguments<'_>) {
    text.write_fmt(piece).expect("a String takes everything");
}

/// Characters that show as nothing or as another space.
fn is_unprintable(c: char) -> bool {
    matches!(c, '\u{a0}' | '\u{ad}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}')
}

/// Bytes for a terminal: what could steer it is spelled out.
pub(crate) fn harmless(bytes: &[u8], keep_lines: bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match char {
                '\n' | '\t' if keep_lines => text.push(char),
                c if c.is_control() => push(&mut text, format_args!("\\x{:02x}", c as u32)),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            push(&mut text, format_args!("\\x{byte:02x}"));
        }
    }
    text
}

/// Every byte as `\xNN`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 4);
    for byte in bytes {
        push(&mut text, format_args!("\\x{byte:02x}"));
    }
    text
}

/// A time as Go prints it: `1.719568ms`, `5.000814519s`, `2m3s`.
pub(crate) fn duration(time: Duration) -> String {
    let nanos = time.as_nanos();
    let (unit, name) = match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => (1, "ns"),
        1_000..1_000_000 => (1_000, "\u{b5}s"),
        1_000_000..1_000_000_000 => (1_000_000, "ms"),
        _ => (1_000_000_000, "s"),
    };
    let minutes = time.as_secs() / 60;
    let (whole, prefix) = if minutes > 0 {
        let hours = minutes / 60;
        let prefix = if hours > 0 { format!("{hours}h{}m", minutes % 60) } else { format!("{minutes}m") };
        (nanos % 60_000_000_000, prefix)
    } else {
        (nanos, String::new())
    };
    let digits = unit.to_string().len() - 1;
    let fraction = format!("{:0digits$}", whole % unit);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() || digits == 0 { "" } else { "." };
    let fraction = if digits == 0 { "" } else { fraction };
    format!("{prefix}{}{point}{fraction}{name}", whole / unit)
}

/// A size in powers of 1000, as etcdctl's status shows it: `20 kB`, `1.1 MB`.
pub(crate) fn size(bytes: u64) -> String {
    const NAMES: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let mut scale = 1u64;
    let mut name = 0;
    while bytes / scale >= 1000 {
        scale *= 1000;
        name += 1;
    }
    // Tenths, rounded half up.
    let tenths = (u128::from(bytes) * 10 + u128::from(scale) / 2) / u128::from(scale);
    if tenths < 100 {
        format!("{}.{} {}", tenths / 10, tenths % 10, NAMES[name])
    } else {
        // Whole numbers are rounded to even, from the tenths.
        let (whole, rest) = (tenths / 10, tenths % 10);
        let up = rest > 5 || (rest == 5 && whole % 2 == 1);
        format!("{} {}", whole + u128::from(up), NAMES[name])
    }
}

/// Cuts a line into words: bare, in single quotes (as is), in double quotes (with escapes).
pub(crate) fn split(line: &str) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let word = if let Some(quoted) = rest.strip_prefix('\'') {
            let end = quoted.find('\'')?;
            rest = &quoted[end + 1..];
            quoted.as_bytes()[..end].to_vec()
        } else if rest.starts_with('"') {
            let (word, after) = unquote(rest)?;
            rest = after;
            word
        } else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let word = rest.as_bytes()[..end].to_vec();
            rest = &rest[end..];
            word
        };
        words.push(word);
        rest = rest.trim_start();
    }
    Some(words)
}

/// The string in double quotes at the start of `text`, and what follows it.
pub(crate) fn unquote(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut word = Vec::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    let body = &text[1..];
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return Some((word, &body[at + 1..])),
            '\\' => {
                let (_, escape) = chars.next()?;
                match escape {
                    'a' => word.push(7),
                    'b' => word.push(8),
                    'f' => word.push(12),
                    'n' => word.push(b'\n'),
                    'r' => word.push(b'\r'),
                    't' => word.push(b'\t'),
                    'v' => word.push(11),
                    '\\' | '"' | '\'' => word.push(escape as u8),
                    'x' => word.push(u8::try_from(digits(&mut chars, 2, 16)?).ok()?),
                    'u' => push_char(&mut word, digits(&mut chars, 4, 16)?)?,
                    'U' => push_char(&mut word, digits(&mut chars, 8, 16)?)?,
                    first @ '0'..='7' => {
                        let high = first.to_digit(8)?;
                        word.push(u8::try_from(high * 64 + digits(&mut chars, 2, 8)?).ok()?);
                    }
                    _ => return None,
                }
            }
            '\n' => return None,
            c => word.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    None
}

fn digits(chars: &mut std::str::CharIndices<'_>, count: usize, radix: u32) -> Option<u32> {
    let mut value = 0u32;
    for _ in 0..count {
        value = value.checked_mul(radix)?.checked_add(chars.next()?.1.to_digit(radix)?)?;
    }
    Some(value)
}

fn push_char(word: &mut Vec<u8>, code: u32) -> Option<()> {
    word.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_matches_etcdctls_fields_output() {
        assert_eq!(quoted(b"nl\n\x01\xff\"q"), r#""nl\n\x01\xff\"q""#);
        assert_eq!(quoted("v\u{e9}".as_bytes()), "\"v\u{e9}\"");
        assert_eq!(quoted(b""), "\"\"");
    }

    #[test]
    fn what_was_quoted_is_read_back() {
        for bytes in [&b"a b\n\x01\xff\"\\"[..], "\u{ad}\u{e9}".as_bytes(), b""] {
            let (word, rest) = (quoted(bytes), " tail");
            let line = format!("{word}{rest}");
            assert_eq!(unquote(&line), Some((bytes.to_vec(), rest)));
        }
        assert_eq!(unquote("\"open"), None);
    }

    #[test]
    fn a_line_is_cut_at_spaces_outside_quotes() {
        let words = split(r#"put  k "x y\n" 'raw \n' --lease=1"#).unwrap();
        assert_eq!(words, [&b"put"[..], b"k", b"x y\n", b"raw \\n", b"--lease=1"]);
        assert_eq!(split("put 'k"), None);
    }

    #[test]
    fn durations_and_sizes_read_as_gos() {
        for (nanos, text) in [
            (1_719_568, "1.719568ms"),
            (5_000_814_519, "5.000814519s"),
            (1_000_000, "1ms"),
            (1_500, "1.5\u{b5}s"),
            (60_000_000_000, "1m0s"),
            (3_661_500_000_000, "1h1m1.5s"),
            (7, "7ns"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), text);
        }
        for (bytes, text) in
            [(20480, "20 kB"), (9, "9 B"), (1_100_000, "1.1 MB"), (2_147_483_648, "2.1 GB"), (999, "999 B")]
        {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_terminal_is_not_steered_by_a_key() {
        assert_eq!(harmless(b"a\x1b[31m\n\xff", false), "a\\x1b[31m\\x0a\\xff");
        assert_eq!(harmless(b"a\n\tb", true), "a\n\tb");
    }
}
