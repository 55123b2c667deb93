//! The connection is cut between request and answer, again and again: before the
//! server has the request, as it gets it, and after it has executed it.
//!
//! The mount can't tell which it was, and must neither lose the change, nor make
//! it twice, nor tell the program that it failed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::Path,
};

use etcfs_tests::{
    api::Api,
    machine,
    mount::Mount,
    proxy::{Cut, Moment, Proxy},
    server::Server,
};

const MOMENTS: [Moment; 3] = [Moment::BeforeRequest, Moment::AfterRequest, Moment::BeforeAnswer];

const DIRECTORIES: u64 = 7;

/// Every change carries the mount's slot record; nothing else does while it is under way.
const MARK: &[u8] = b".etcfs/op/";

/// Cuts during each of `operation`'s runs.
///
/// `prepare` makes what the operation needs, by the API; `operation` is what a
/// program does; `check` looks at the store.
fn cuts(
    prepare: impl Fn(&Api, &str),
    operation: impl Fn(&Path) -> io::Result<()>,
    check: impl Fn(&Api, &str),
) {
    let server = Server::etcfs();
    let api = server.api();
    let proxy = Proxy::to(&server.endpoint());
    let mount = Mount::root(&proxy.endpoint());
    let rounds = machine::setting("ETCFS_TEST_CUTS", 1000);
    for directory in 0..DIRECTORIES {
        fs::create_dir(mount.at(format!("d{directory}"))).expect("nothing is cut yet");
    }
    for round in 0..rounds {
        // Names of their own, so that no cache answers for the store.
        let name = format!("d{}/f{round}", round % DIRECTORIES);
        let key = format!("/{name}");
        prepare(&api, &key);
        let path = mount.at(&name);
        let moment = MOMENTS[round as usize % MOMENTS.len()];
        proxy.arm(Cut { holds: vec![MARK.to_vec()], moment });
        if let Err(error) = operation(&path) {
            panic!("round {round}, cut {moment:?}: the operation fails: {error}\n{}", mount.log());
        }
        assert!(!proxy.disarm(), "round {round}: the operation sent no change that could be cut");
        check(&api, &key);
    }
    assert_eq!(proxy.cuts_done(), rounds);
}

fn absent(_: &Api, _: &str) {}

fn present(api: &Api, key: &str) {
    api.set(key, "0123456789");
}

/// Checks value and version: a change that was made twice has one version too many.
#[track_caller]
fn holds(api: &Api, key: &str, value: &str, version: i64) {
    let kv = api.get(key).unwrap_or_else(|| panic!("{key} is lost"));
    assert_eq!((String::from_utf8_lossy(&kv.value).as_ref(), kv.version), (value, version), "{key}");
}

#[test]
fn a_new_file_is_written_once() {
    cuts(absent, |path| fs::write(path, "v"), |api, key| holds(api, key, "v", 1));
}

#[test]
fn create_or_fail_wins_once() {
    cuts(absent, |path| File::create_new(path).map(drop), |api, key| holds(api, key, "", 1));
}

#[test]
fn an_overwrite_is_made_once() {
    cuts(present, |path| fs::write(path, "other"), |api, key| holds(api, key, "other", 2));
}

#[test]
fn an_append_is_made_once() {
    cuts(
        present,
        |path| OpenOptions::new().append(true).open(path)?.write_all(b"more"),
        |api, key| holds(api, key, "0123456789more", 2),
    );
}

#[test]
fn a_write_in_the_middle_is_made_once() {
    let operation = |path: &Path| {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        file.seek(SeekFrom::Start(3))?;
        file.write_all(b"X")?;
        file.sync_all()
    };
    cuts(present, operation, |api, key| holds(api, key, "012X456789", 2));
}

#[test]
fn a_truncation_is_made_once() {
    let operation = |path: &Path| {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(4)?;
        file.sync_all()
    };
    cuts(present, operation, |api, key| holds(api, key, "0123", 2));
}

#[test]
fn a_removal_is_made_once() {
    let check = |api: &Api, key: &str| assert_eq!(api.get(key), None, "{key} is still there");
    cuts(present, |path| fs::remove_file(path), check);
}

#[test]
fn a_directory_is_made_once() {
    let check = |api: &Api, key: &str| holds_record(api, key, true);
    cuts(absent, |path| fs::create_dir(path), check);
}

#[test]
fn a_directory_is_removed_once() {
    let prepare = |api: &Api, key: &str| {
        api.set(&format!(".etcfs/dir/{key}/"), "");
    };
    cuts(prepare, |path| fs::remove_dir(path), |api, key| holds_record(api, key, false));
}

#[track_caller]
fn holds_record(api: &Api, key: &str, there: bool) {
    let record = format!(".etcfs/dir/{key}/");
    assert_eq!(api.get(&record).map(|kv| kv.version), there.then_some(1), "{record}");
}

#[test]
fn a_rename_is_made_once() {
    let operation = |path: &Path| fs::rename(path, path.with_extension("new"));
    let check = |api: &Api, key: &str| {
        assert_eq!(api.get(key), None, "{key} is still there");
        holds(api, &format!("{key}.new"), "0123456789", 1);
    };
    cuts(present, operation, check);
}
