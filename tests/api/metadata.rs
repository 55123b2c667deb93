//! What goes along with a call: the version of the client, and what it needs.

use etcfs_tests::api::get;
use tonic::{Code, Request, metadata::AsciiMetadataValue};

use crate::subject::{Subject, refused};

on_ours! { the_version_of_a_client_is_text }

/// New in etcd 3.5.
fn the_version_of_a_client_is_text(s: &Subject) {
    s.set("a", "1");
    let ask = |version: &[u8]| {
        let mut request = Request::new(get("a"));
        let version = AsciiMetadataValue::try_from(version).unwrap();
        request.metadata_mut().insert("client-api-version", version);
        s.wait(s.kv().range(request))
    };
    refused(ask(b"3.\xff\xfe"), Code::InvalidArgument, "etcdserver: invalid client api version");
    for version in ["3.6.14", "no version", "\u{e4}"] {
        assert_eq!(ask(version.as_bytes()).unwrap().into_inner().count, 1, "{version}");
    }
}
