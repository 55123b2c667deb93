//! Arbitrary text at the gateway.

use std::sync::LazyLock;

use prost::Message as _;

use super::{
    Cutter, Route,
    json::{self, Json},
};

const TEXT_BYTES_MAX: usize = 64 << 10;

/// Reading the descriptors takes longer than all else here.
static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| Json::new().all().into_iter().cloned().collect());

/// Cuts and reads a stream of JSON for one of the paths: what was read can be written and read again.
pub fn gateway(data: &[u8]) {
    let Some((choice, text)) = data.split_first() else { return };
    let route = &ROUTES[usize::from(*choice) % ROUTES.len()];
    let mut cutter = Cutter::new(TEXT_BYTES_MAX);
    for part in text.chunks(1 + usize::from(*choice)) {
        cutter.feed(part.to_vec().into());
        loop {
            let cut = match cutter.next() {
                Ok(Some(cut)) => cut,
                Ok(None) => break,
                Err(_) => return,
            };
            let Ok(message) = json::read(&route.input, &cut) else { return };
            let encoded = message.encode_to_vec();
            let written = json::write(&route.input, encoded.clone().into()).expect("it was read");
            let again = json::read(&route.input, &written).expect("we have written it");
            // Encoded, a zero that is written out is none.
            assert_eq!(again.encode_to_vec(), encoded);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Found by libFuzzer: the messages differ, but not in what they say.
    #[test]
    fn a_zero_that_is_written_out_is_as_good_as_none() {
        for choice in 0..=255 {
            gateway(&[&[choice], &br#"{"ID":0}"#[..]].concat());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            choice in any::<u8>(),
            text in prop_oneof![
                any::<Vec<u8>>(),
                r#"\{"(key|lease|compare|success|create_request|x)":.{0,20}\}"#.prop_map(String::into_bytes),
                r#"(\{"(key|ID|TTL|name|value)":("[A-Za-z0-9+/=]{0,8}"|[0-9-]{1,20}|null|\{\})\} ?){1,3}"#
                    .prop_map(String::into_bytes),
            ],
        ) {
            gateway(&[&[choice], &text[..]].concat());
        }
    }
}
