//! `-o metrics`: what a mount tells Prometheus.

use std::{collections::BTreeMap, fs, io::Write, net::TcpListener, process::Command};

use etcfs_tests::{
    binary, command,
    mount::Mount,
    server::{Kind, Server, http_get},
    wait,
};

const DOCUMENT: &str = include_str!("../../../fs/docs/metrics.md");

pub(super) struct Scraped(BTreeMap<String, f64>);

impl Scraped {
    /// What is asked for at the address that `%status` names.
    pub(super) fn of(mount: &Mount) -> Self {
        let text = http_get(&address(mount), "/metrics").expect("the mount answers");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        });
        Self(pairs.collect())
    }

    #[track_caller]
    fn get(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("{name} is not in {:#?}", self.0.keys()))
    }

    pub(super) fn operations(&self, operation: &str, result: &str) -> f64 {
        let name = format!("etcfs_mount_operations_total{{operation=\"{operation}\",result=\"{result}\"}}");
        self.0.get(&name).copied().unwrap_or_default()
    }
}

fn address(mount: &Mount) -> String {
    mount.sh("sed -n 's|^metrics: http://\\(.*\\)/metrics$|\\1|p' %status").trim().to_owned()
}

/// The mount's figures are told to who asks
#[test]
fn a_mounts_figures_are_told_to_who_asks_mounted() {
    let mut server = Server::start(Kind::Etcfs);
    let mount = Mount::with(&format!("{}:/", server.endpoint()), "metrics=0");
    assert!(address(&mount).starts_with("127.0.0.1:"), "a port alone is this host's");
    mount.sh("mkdir d; echo 1 > d/a; cat d/a; ls d; ls d; ! cat d/nosuch; ! rmdir d");
    let first = Scraped::of(&mount);
    for (operation, result) in
        [("mkdir", "ok"), ("create", "ok"), ("write", "ok"), ("lookup", "ENOENT"), ("rmdir", "ENOTEMPTY")]
    {
        assert!(first.operations(operation, result) >= 1.0, "{operation} {result}: {:#?}", first.0);
    }
    // Each request is in the histogram, and in one bucket at least.
    for operation in ["lookup", "write", "rmdir"] {
        let label = format!("{{operation=\"{operation}\",result=");
        let counted: f64 =
            first.0.iter().filter(|(name, _)| name.contains(&label)).map(|(_, count)| count).sum();
        let name = "etcfs_mount_operation_duration_seconds";
        assert_eq!(first.get(&format!("{name}_count{{operation=\"{operation}\"}}")), counted);
        assert_eq!(first.get(&format!("{name}_bucket{{operation=\"{operation}\",le=\"+Inf\"}}")), counted);
        assert!(first.get(&format!("{name}_sum{{operation=\"{operation}\"}}")) > 0.0);
    }
    assert!(first.get("etcfs_mount_listings_cached_total") >= 1.0);
    assert!(first.get("etcfs_mount_names_asked_total") >= 1.0);
    assert_eq!(first.get("etcfs_mount_watch_connected"), 1.0);

    // What is written and not saved, changes by others, and how far the watch is.
    let mut file = fs::File::create(mount.at("d/large")).unwrap();
    file.write_all(&[7; 10_000]).unwrap();
    assert_eq!(Scraped::of(&mount).get("etcfs_mount_unsaved_bytes"), 10_000.0);
    drop(file);
    assert_eq!(Scraped::of(&mount).get("etcfs_mount_unsaved_bytes"), 0.0);
    let newest = server.api().set("/d/remote", "");
    wait::until_true("the watch brings it", || {
        let now = Scraped::of(&mount);
        now.get("etcfs_mount_watch_revision") >= newest as f64
            && now.get("etcfs_mount_watch_lag_revisions") == 0.0
    });
    let changes = Scraped::of(&mount).get("etcfs_mount_watch_changes_total");
    assert!(changes > first.get("etcfs_mount_watch_changes_total"));

    // A server that goes, and comes back.
    server.stop();
    wait::until_true("the loss is told", || {
        let now = Scraped::of(&mount);
        now.get("etcfs_mount_watch_connected") == 0.0 && now.get("etcfs_mount_watch_losses_total") == 1.0
    });
    server.run();
    wait::until_true("the return is told", || {
        let now = Scraped::of(&mount);
        now.get("etcfs_mount_watch_connected") == 1.0
            && now.get("etcfs_mount_watch_reconnections_total") == 1.0
    });
    assert_eq!(Scraped::of(&mount).get("etcfs_mount_watch_resyncs_total"), 0.0);
}

/// What is cached stays within its bound
#[test]
fn what_is_cached_stays_within_its_bound_mounted() {
    const FILES: usize = 256;
    let value = |file: usize| vec![b'a' + (file % 26) as u8; 16 << 10];
    let server = Server::start(Kind::Etcfs);
    let api = server.api();
    for file in 0..FILES {
        api.set(&format!("/d/{file}"), value(file));
    }
    // Less than is read ahead, and a quarter of it all.
    for cache in ["64K", "1M"] {
        let mount = Mount::with(&format!("{}:/", server.endpoint()), &format!("metrics=0,cache={cache}"));
        let open = fs::File::open(mount.at("d/0")).unwrap();
        for _ in 0..2 {
            assert_eq!(mount.sh("ls d | wc -l"), format!("{FILES}\n"));
            for file in 0..FILES {
                assert!(fs::read(mount.at(format!("d/{file}"))).unwrap() == value(file), "{file}");
            }
        }
        // What is open stays, beside it.
        wait::until_true("the kernel has let go of what is too much", || {
            let now = Scraped::of(&mount);
            let limit = now.get("etcfs_mount_cache_limit_bytes") + value(0).len() as f64;
            now.get("etcfs_mount_cache_bytes") <= limit && now.get("etcfs_mount_inodes") < FILES as f64
        });
        drop(open);
        // What went is found again, and changes are still seen.
        api.set("/d/7", "new");
        wait::until_true("the change shows", || fs::read(mount.at("d/7")).is_ok_and(|found| found == b"new"));
        api.set("/d/7", value(7));
    }
}

#[test]
fn every_figure_of_a_mount_stands_in_its_document_mounted() {
    let server = Server::start(Kind::Etcd);
    let mount = Mount::with(&format!("{}:/", server.endpoint()), "metrics=127.0.0.1:0");
    let text = http_get(&address(&mount), "/metrics").expect("the mount answers");
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut told: Vec<&str> = types.collect();
    let rows = DOCUMENT.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some(format!("{} {}", cells.next()?.strip_suffix('`')?, cells.next()?))
    });
    let mut rows: Vec<String> = rows.collect();
    told.sort_unstable();
    rows.sort_unstable();
    assert_eq!(told, rows);
    assert_eq!(http_get(&address(&mount), "/").as_deref(), Some("only /metrics is here\n"));
}

#[test]
fn an_address_that_is_taken_is_no_place_for_figures_mounted() {
    let server = Server::start(Kind::Etcfs);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it has one");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(binary::mount_etcfs());
    command.args(["-o", &format!("metrics={address}"), &format!("{}:/", server.endpoint())]).arg(dir.path());
    let complaint = command::run(&mut command, b"").failed();
    assert!(complaint.contains(&format!("metrics={address}: Address already in use")), "{complaint}");
}
