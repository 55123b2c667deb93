//! Large values and large directories.

use std::{collections::HashSet, fs, io::Write};

use etcfs_tests::{
    api::{Op, put, txn},
    command::bash,
    mount::Mount,
    process::show,
    server::Kind,
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

/// Calls that the server has begun.
fn calls(s: &Stage) -> f64 {
    s.server.metric("grpc_server_started_total").expect("the server counts")
}

fn a_directory_of_100_000_names_costs_few_calls(kind: Kind) {
    const NAMES: usize = 100_000;
    let mut s = Stage::on(kind);
    s.mount = Mount::with(&format!("{}:/", s.server.endpoint()), "inotify=off");
    let numbers: Vec<usize> = (0..NAMES).collect();
    for numbers in numbers.chunks(100) {
        let puts = numbers.iter().map(|number| Op::Put(put(&format!("/d/{number:05}"), "v")));
        s.api.txn(txn(puts)).expect("a txn is accepted");
    }
    s.comes_to_print(&format!("cat d/{:05}", NAMES - 1), "v");
    let before = calls(&s);
    let listed: HashSet<String> = s.sh("ls -U d").lines().map(str::to_owned).collect();
    let listing = calls(&s) - before;
    assert_eq!(listed, numbers.iter().map(|number| format!("{number:05}")).collect());
    // Most bring 10,000 names; and what the directory is.
    assert!(listing <= 20.0, "{listing} calls for a listing");
    let before = calls(&s);
    s.sh("test -e d/00000; test -e d/50000; test ! -e d/nosuch; cat d/77777");
    let names = calls(&s) - before;
    assert!(names <= 8.0, "{names} calls for four names");
    show(&format!("{listing} calls for a listing of {NAMES} names, {names} for four of them"));
}

/// A listing is complete
#[test]
fn a_mounted_directory_of_100_000_names_costs_few_calls_on_etcfsd() {
    a_directory_of_100_000_names_costs_few_calls(Kind::Etcfs);
}

#[test]
fn a_mounted_directory_of_100_000_names_costs_few_calls_on_etcd() {
    a_directory_of_100_000_names_costs_few_calls(Kind::Etcd);
}

/// Every key under the prefix has exactly one path
#[test]
fn a_mounted_path_may_be_200_directories_deep() {
    const DEPTH: usize = 200;
    for kind in [Kind::Etcfs, Kind::Etcd] {
        let s = Stage::on(kind);
        let path = vec!["deep"; DEPTH].join("/");
        s.api.set(&format!("/{path}/f"), "v");
        let before = calls(&s);
        s.comes_to_print(&format!("cat {path}/f"), "v");
        let cost = calls(&s) - before;
        // What each name is.
        assert!(cost <= (2 * DEPTH) as f64, "{cost} calls for a path of {DEPTH}");
        assert_eq!(s.sh("find . -type d | wc -l"), format!("{}\n", DEPTH + 1));
        s.sh(&format!("mkdir {path}/made; mv {path}/f {path}/made/g; rm -r deep; ls"));
        assert_eq!(s.api.all("/"), []);
    }
}
