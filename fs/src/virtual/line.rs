//! A change as one line of a log: a JSON object.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::map::KeyMap;
use crate::remote::{Event, Revision};

/// The line of one event.
pub(crate) fn render(map: &KeyMap, revision: Revision, time: SystemTime, event: &Event) -> Bytes {
    let mut object = begin(revision, time, if matches!(event, Event::Put(_)) { "PUT" } else { "DELETE" });
    let key = match event {
        Event::Put(kv) => &kv.key,
        Event::Delete(key) => key,
    };
    text(&mut object, "key", key);
    if let Some(path) = map.path_of(key) {
        object.insert("path".to_owned(), Value::from(path.to_string_lossy()));
    }
    if let Event::Put(kv) = event {
        text(&mut object, "value", &kv.value);
        if let Some(lease) = kv.lease {
            object.insert("lease".to_owned(), Value::from(lease.to_string()));
        }
    }
    end(object)
}

/// Says that changes before `revision` are missing: they were compacted before the mount heard of them.
pub(crate) fn gap(revision: Revision, time: SystemTime) -> Bytes {
    end(begin(revision, time, "LOST"))
}

fn begin(revision: Revision, time: SystemTime, kind: &str) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("revision".to_owned(), Value::from(revision.0));
    object.insert("time".to_owned(), Value::from(utc(time)));
    object.insert("type".to_owned(), Value::from(kind));
    object
}

fn end(object: Map<String, Value>) -> Bytes {
    let mut line = Value::Object(object).to_string();
    line.push('\n');
    // Many are kept, for long: each in no more room than it takes.
    line.into_bytes().into_boxed_slice().into()
}

/// Bytes as text where they are, else as base64 under another name.
fn text(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), Value::from(text)),
        Err(_) => object.insert(format!("{name}_base64"), Value::from(BASE64.encode(bytes))),
    };
}

/// RFC 3339, to the nanosecond.
pub(super) fn utc(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:09}Z", since.subsec_nanos())
}

/// Year, month and day of a number of days since 1970-01-01. Years are counted from March, so that the leap day is a
/// year's last, in eras of 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{Key, Percent, Rel};
    use crate::remote::{KeyValue, LeaseId};

    #[test]
    fn a_time_is_written_as_people_and_programs_read_it() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000000Z");
        assert_eq!(at(1_709_251_199), "2024-02-29T23:59:59.000000000Z");
        assert_eq!(at(4_102_444_800), "2100-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn a_line_has_what_an_event_has() {
        let map = KeyMap::new("/".into(), Percent::Strict, Rel::Links);
        let kv = KeyValue {
            key: Key::from("/a\nb"),
            value: "one \"two\"\n".into(),
            create_revision: Revision(5),
            mod_revision: Revision(7),
            version: 2,
            lease: Some(LeaseId(0x1f)),
        };
        let line = render(&map, Revision(7), UNIX_EPOCH, &Event::Put(kv.clone()));
        assert_eq!(
            line,
            "{\"revision\":7,\"time\":\"1970-01-01T00:00:00.000000000Z\",\"type\":\"PUT\",\"key\":\"/a\\nb\",\
             \"path\":\"a%0Ab\",\"value\":\"one \\\"two\\\"\\n\",\"lease\":\"000000000000001f\"}\n"
        );
        let binary = Event::Put(KeyValue { value: Bytes::from_static(b"\xff\0"), lease: None, ..kv });
        let line = String::from_utf8(render(&map, Revision(7), UNIX_EPOCH, &binary).to_vec()).unwrap();
        assert!(line.contains("\"value_base64\":\"/wA=\""), "{line}");
        let gone = render(&map, Revision(8), UNIX_EPOCH, &Event::Delete(Key::from("bare")));
        assert!(gone.ends_with(b"\"type\":\"DELETE\",\"key\":\"bare\",\"path\":\"%rel/bare\"}\n"));
    }
}
