//! A million keys: they load, are counted, are listed, and survive a restart.

use std::time::{Duration, Instant};

use etcfs_tests::{
    api::{Op, put, runtime, txn},
    command::Client,
    machine,
    mount::Mount,
    process::show,
    server::{Kind, Options, Server},
};
use tonic::Code;

/// Keys of one directory.
const PER_DIRECTORY: u64 = 1000;
/// Operations of one transaction: etcd's limit is 128.
const PER_TRANSACTION: usize = 125;
/// Connections that load.
const LOADERS: u64 = 4;
/// Bytes of a value.
const VALUE_BYTES: usize = 256;

#[test]
fn a_million_keys_are_counted_listed_mounted_and_survive_a_restart() {
    let keys = machine::setting("ETCFS_TEST_KEYS", 1_000_000);
    let directories = keys.div_ceil(PER_DIRECTORY);
    let mut server = Server::with(Kind::Etcfs, Options::default());
    timed("load", || load(&server, directories));
    let count = format!("\nCount: {}\n", directories * PER_DIRECTORY);
    let counts = |server: &Server| {
        let printed =
            Client::etcfs(&server.endpoint()).run(["get", "--prefix", "--count-only", "-w", "fields", "/"]);
        let printed = printed.ok().replace("\"Count\" : ", "Count: ");
        assert!(printed.contains(&count), "{printed}");
    };
    timed("count", || counts(&server));
    timed("mount and list", || lists(&server, directories));
    timed("stop", || assert!(server.stop().success()));
    timed("restart", || server.run());
    timed("count after the restart", || counts(&server));
    let first = server.api().get("/d0/k0").expect("it is there");
    assert_eq!(first.value.len(), VALUE_BYTES);
    timed("kill", || server.kill());
    timed("restart after a kill", || server.run());
    timed("count after the kill", || counts(&server));
}

fn lists(server: &Server, directories: u64) {
    let mount = Mount::root(&server.endpoint());
    assert_eq!(mount.sh("ls | wc -l"), format!("{directories}\n"));
    assert_eq!(mount.sh("ls d0 | wc -l"), format!("{PER_DIRECTORY}\n"));
    assert_eq!(mount.sh("wc -c < d0/k0"), format!("{VALUE_BYTES}\n"));
}

/// Puts every key, in transactions, over a few connections.
fn load(server: &Server, directories: u64) {
    let loaders: Vec<_> = (0..LOADERS)
        .map(|loader| {
            let api = server.api();
            runtime().spawn(async move {
                let value = "v".repeat(VALUE_BYTES);
                let mut kv = api.kv();
                for directory in (loader..directories).step_by(LOADERS as usize) {
                    let keys: Vec<u64> = (0..PER_DIRECTORY).collect();
                    for keys in keys.chunks(PER_TRANSACTION) {
                        // A load that outruns the disk is held up, and then told to come
                        // again; these puts may be done twice.
                        loop {
                            let puts =
                                keys.iter().map(|key| put(&format!("/d{directory}/k{key}"), value.clone()));
                            match kv.txn(txn(puts.map(Op::Put))).await {
                                Ok(_) => break,
                                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
                            }
                        }
                    }
                }
            })
        })
        .collect();
    for loader in loaders {
        runtime().block_on(loader).expect("a loader does not panic");
    }
}

/// Says how long each step took: the test's output is a first figure.
fn timed(step: &str, run: impl FnOnce()) {
    let begun = Instant::now();
    run();
    let took = begun.elapsed();
    show(&format!("{step}: {took:.1?}"));
    assert!(took < Duration::from_secs(600), "{step} took {took:?}");
}
