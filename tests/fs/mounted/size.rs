//! Large values and large directories.

use std::{collections::HashSet, fs, io::Write};

use etcfs_tests::{
    api::{Op, put, txn},
    command::bash,
};

use super::Stage;

#[test]
fn a_value_of_1_4_mib_round_trips() {
    let s = Stage::new();
    let value: Vec<u8> = (0..1_468_006_u32).map(|i| (i % 251) as u8).collect();
    fs::write(s.mount.at("large"), &value).expect("it can be written");
    assert!(fs::read(s.mount.at("large")).expect("it can be read") == value);
    assert!(s.api.get("/large").expect("it is there").value == value);
    // And the other way, in one put.
    assert_eq!(s.api.get("/large").expect("it is there").version, 1);
    s.api.set("/other", value.clone());
    s.comes_to_print("stat -c %s other", "1468006\n");
    assert!(fs::read(s.mount.at("other")).expect("it can be read") == value);
}

/// Over the request limit a write fails with EFBIG and stores nothing
#[test]
fn a_value_of_2_mib_fails_in_write_and_stores_nothing() {
    let s = Stage::new();
    s.sh("echo old > f");
    for create in [false, true] {
        let path = s.mount.at(if create { "new" } else { "f" });
        let mut file = fs::File::create(path).expect("it can be opened");
        let error = file.write_all(&vec![b'x'; 2 << 20]).expect_err("it is too large");
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::FBIG.raw_os_error()), "{error}");
    }
    assert_eq!(s.api.value("/f").as_deref(), Some("old\n"));
    assert!(s.api.get("/new").is_none_or(|kv| kv.value.is_empty()));
    // Programs see it too, and say so.
    let output = bash(&s.mount.path(), "head -c 2M /dev/zero > f");
    assert!(output.code != 0 && output.stderr.contains("File too large"), "{output:?}");
    assert_eq!(s.api.value("/f").as_deref(), Some("old\n"));
}

/// A listing is complete
#[test]
fn a_directory_of_10_000_keys_lists_them_all() {
    let s = Stage::new();
    let names: Vec<String> = (0..10_000).map(|number| format!("key-{number:05}")).collect();
    for names in names.chunks(100) {
        s.api
            .txn(txn(names.iter().map(|name| Op::Put(put(&format!("/d/{name}"), "v")))))
            .expect("a txn is accepted");
    }
    s.comes_to_print("ls d | wc -l", "10000\n");
    let listed: HashSet<String> = fs::read_dir(s.mount.at("d"))
        .expect("it can be read")
        .map(|entry| entry.expect("it can be read").file_name().into_string().expect("text"))
        .collect();
    assert_eq!(listed, names.into_iter().collect());
    assert_eq!(s.sh("find d -type f | wc -l"), "10000\n");
    assert_eq!(s.sh("ls -l d | tail -n 1 | cut -d' ' -f5"), "1\n");
}
