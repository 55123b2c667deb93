//! A header block (HPACK, RFC 7541), as far as it takes to find the authority in it.
//!
//! Nothing is decoded: headers are stepped over by their lengths. The first block of a
//! connection finds an empty dynamic table, so the name of the authority is either given
//! by its place in the static one, or not worth looking for.

/// The place of `:authority` in the static table.
const AUTHORITY: usize = 1;
/// In the byte before a string: it is in Huffman's code.
const CODED: u8 = 0x80;

/// The block with the scheme cut off its authority; `None` where there is none, or where
/// this is no header block.
pub(super) fn without_scheme(block: &[u8]) -> Option<Vec<u8>> {
    let mut rest = block;
    while let Some(&first) = rest.first() {
        // The forms of RFC 7541, 6, by the bits that their first number has.
        let (number_bits, is_literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let number = integer(&mut rest, number_bits)?;
        if !is_literal {
            continue;
        }
        if number == 0 {
            string(&mut rest)?;
        }
        let before = &block[..block.len() - rest.len()];
        let (is_coded, value) = string(&mut rest)?;
        if number == AUTHORITY {
            let (mark, host) =
                if is_coded { (CODED, without_coded(value)?) } else { (0, without_plain(value)?.to_vec()) };
            return Some([before, &length(host.len(), mark), &host, rest].concat());
        }
    }
    None
}

/// A number whose first byte has so many bits for it (RFC 7541, 5.1).
fn integer(input: &mut &[u8], bits: u32) -> Option<usize> {
    let most = (1 << bits) - 1;
    let mut value = usize::from(*input.split_off_first()? & most);
    if value == usize::from(most) {
        for shift in [0, 7, 14] {
            let byte = *input.split_off_first()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        // No string of one frame is that long.
        return None;
    }
    Some(value)
}

/// Whether it is in Huffman's code, and its bytes.
fn string<'a>(input: &mut &'a [u8]) -> Option<(bool, &'a [u8])> {
    let is_coded = input.first()? & CODED != 0;
    let length = integer(input, 7)?;
    Some((is_coded, input.split_off(..length)?))
}

/// The bytes that announce a string.
fn length(length: usize, mark: u8) -> Vec<u8> {
    let most = 0x7f;
    if length < most {
        return vec![mark | u8::try_from(length).expect("less than 127")];
    }
    let mut bytes = vec![mark | 0x7f];
    let mut rest = length - most;
    while rest > 0x7f {
        bytes.push(0x80 | u8::try_from(rest & 0x7f).expect("seven bits"));
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).expect("seven bits"));
    bytes
}

fn without_plain(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"http://").or_else(|| value.strip_prefix(b"https://"))
}

/// `value` is in Huffman's code, and so is what is left of it.
fn without_coded(value: &[u8]) -> Option<Vec<u8>> {
    // h t t p : / /, and with an s before the colon.
    let http: &[u8] = &bits("100111_01001_01001_101011_1011100_011000_011000");
    let https: &[u8] = &bits("100111_01001_01001_101011_01000_1011100_011000_011000");
    let coded: Vec<u8> =
        value.iter().flat_map(|byte| (0..8).rev().map(move |bit| (byte >> bit) & 1)).collect();
    let coded = &coded[..coded_bits(&coded)?];
    let host = coded.strip_prefix(http).or_else(|| coded.strip_prefix(https))?;
    let byte = |bits: &[u8]| (0..8).fold(0, |byte, bit| (byte << 1) | bits.get(bit).unwrap_or(&1));
    Some(host.chunks(8).map(byte).collect())
}

fn bits(text: &str) -> Vec<u8> {
    text.bytes().filter(|byte| *byte != b'_').map(|byte| byte - b'0').collect()
}

/// How many bits of a string are code. The last byte is filled up with ones, which some
/// codes end with too, so it takes a walk to tell them apart.
fn coded_bits(coded: &[u8]) -> Option<usize> {
    /// Lengths of codes and the last code of each; up to 13 bits, which is what brackets have
    /// (RFC 7541, appendix B). Longer ones stand for nothing that a host is called by.
    const LAST: [(usize, usize); 8] =
        [(5, 0x09), (6, 0x2d), (7, 0x7b), (8, 0xfd), (10, 0x3fc), (11, 0x7fc), (12, 0xffb), (13, 0x1ffd)];
    let mut at = 0;
    'symbols: while at < coded.len() {
        for (length, last) in LAST {
            let Some(symbol) = coded.get(at..at + length) else { break };
            if symbol.iter().fold(0, |code, bit| (code << 1) | usize::from(*bit)) <= last {
                at += length;
                continue 'symbols;
            }
        }
        let filling = &coded[at..];
        return (filling.len() < 8 && filling.iter().all(|bit| *bit == 1)).then_some(at);
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In Huffman's code, for what names of hosts have in them.
    fn coded(text: &str) -> Vec<u8> {
        let symbol = |symbol| match symbol {
            '.' => "010111",
            '-' => "010110",
            '/' => "011000",
            ':' => "1011100",
            '[' => "1111111111011",
            ']' => "1111111111100",
            '0' => "00000",
            '1' => "00001",
            '2' => "00010",
            '3' => "011001",
            '7' => "011101",
            '9' => "011111",
            'a' => "00011",
            'c' => "00100",
            'd' => "100100",
            'e' => "00101",
            'g' => "100110",
            'h' => "100111",
            'l' => "101000",
            'm' => "101001",
            'n' => "101010",
            'o' => "00111",
            'p' => "101011",
            'r' => "101100",
            's' => "01000",
            't' => "01001",
            'x' => "1111001",
            other => panic!("{other} has no code here"),
        };
        let bits: Vec<u8> = text.chars().flat_map(|one| bits(symbol(one))).collect();
        bits.chunks(8)
            .map(|bits| (0..8).fold(0, |byte, at| (byte << 1) | bits.get(at).unwrap_or(&1)))
            .collect()
    }

    /// Their codes end with each number of bits to fill up, and in ones of their own.
    #[test]
    fn the_scheme_is_cut_off_in_huffmans_code() {
        let hosts = [
            "127.0.0.1:2379",
            "9",
            "99",
            "999",
            "a",
            "ad",
            "x9",
            "xx",
            "[::1]:2379",
            "node-7.example.org:1",
            "",
        ];
        for host in hosts {
            for scheme in ["http://", "https://"] {
                assert_eq!(
                    without_coded(&coded(&format!("{scheme}{host}"))),
                    Some(coded(host)),
                    "{scheme}{host}"
                );
            }
            assert_eq!(without_coded(&coded(host)), None, "{host}");
        }
        assert_eq!(without_coded(&coded("http:/a")), None);
    }

    /// The first headers of etcdctl 3.4.23, asked for `endpoint status` of `http://127.0.0.1:23792`.
    #[test]
    fn etcdctl_is_understood() {
        let before = "8386459760a924882d9dcb6571afa066a925a87510ac6e48d36a3f";
        let authority = "41909d29aee30c044eae05c0b86e09975f17";
        let after = "5f8b1d75d0620d263d4c4d65647a8b9acac8b4c7602bb2caecff40027465864d833505b11f40899acac8b24d494f\
                     6a7f8669f7de0bacdb408d25062d495875996ee5b1063d5f03332e34";
        let bytes = |hex: &str| -> Vec<u8> {
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (0..hex.len()).step_by(2).map(byte).collect()
        };
        let bare = coded("127.0.0.1:23792");
        let length = CODED | u8::try_from(bare.len()).unwrap();
        assert_eq!(
            without_scheme(&bytes(&[before, authority, after].concat())),
            Some([bytes(before), vec![0x41, length], bare, bytes(after)].concat())
        );
    }

    #[test]
    fn every_form_of_a_header_is_stepped_over() {
        let long = [&[0x0f, 0x10, 0x7f, 0x80, 0x01][..], &[b'v'; 255]].concat();
        let new_name = [0x40, 1, b'n', 1, b'v', 0x00, 1, b'n', 0, 0x10, 1, b'n', 0x81, 0xff];
        let size = [0x3f, 0xe1, 0x1f];
        let before = [&size[..], &new_name, &long, &[0x82, 0xff, 0x00]].concat();
        for form in [0x41, 0x01, 0x11] {
            let with = [&before[..], &[form, 8], b"http://a", &[0x86]].concat();
            let bare = [&before[..], &[form, 1], b"a", &[0x86]].concat();
            assert_eq!(without_scheme(&with), Some(bare));
        }
    }

    #[test]
    fn a_long_host_keeps_its_length() {
        for length in [119, 126, 127, 128, 254, 255, 300, 16_000] {
            let host = "h".repeat(length);
            let literal =
                |value: &str| [&[0x41][..], &super::length(value.len(), 0), value.as_bytes()].concat();
            assert_eq!(without_scheme(&literal(&format!("https://{host}"))), Some(literal(&host)));
        }
    }

    #[test]
    fn what_is_cut_short_is_no_header_block() {
        for block in
            [&[0x41][..], &[0x41, 9, b'h'], &[0x7f], &[0x41, 0xff], &[0x40, 0x7f, 0x80, 0x80, 0x80, 0x80, 1]]
        {
            assert_eq!(without_scheme(block), None, "{block:x?}");
        }
    }
}
