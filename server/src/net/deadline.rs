//! How long a caller is going to wait: `grpc-timeout`.
//!
//! A gRPC client ends its call by itself when that is over. The gateway's has
//! no other end than this, and who has gone silently is not served on.

use std::time::Duration;

use http::HeaderMap;

/// The header, which JSON's callers send as it is: `Grpc-Timeout: 500m`.
pub(super) const HEADER: &str = "grpc-timeout";
const DIGITS_MAX: usize = 8;

/// The time that is left for a call, if its caller has set one.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS_MAX {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, text.parse().unwrap());
        of(&headers)
    }

    #[test]
    fn each_unit_is_known_and_nonsense_is_none() {
        let nanos = |text| read(text).map(|time| time.as_nanos());
        let hours = 7200 * 1_000_000_000;
        for (text, expected) in
            [("2H", hours), ("120M", hours), ("7200S", hours), ("1m", 1_000_000), ("5u", 5000)]
        {
            assert_eq!(nanos(text), Some(expected), "{text}");
        }
        assert_eq!(nanos("99999999n"), Some(99_999_999));
        for text in ["", "S", "5", "-5S", "5s", "123456789S", "5 S", "5\u{e4}"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(of(&HeaderMap::new()), None);
    }
}
