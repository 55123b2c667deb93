//! Who may import whom: ARCHITECTURE.md's table as data.
//!
//! A module is named by its path below the crate; the longest name that fits
//! counts, so `lease::table` has rules of its own beside `lease`. A module may
//! always use itself and what lies below it.

/// What one module of a crate may use of the same crate.
pub(crate) struct Module {
    pub(crate) name: &'static str,
    pub(crate) may: &'static [&'static str],
}

const fn module(name: &'static str, may: &'static [&'static str]) -> Module {
    Module { name, may }
}

/// The files that assemble a crate: they may use all of it, and nobody uses them.
pub(crate) const ASSEMBLY: &[(&str, &[&str])] =
    &[("server", &["run", "offline", "process"]), ("fs", &["run"]), ("cli", &["commands"])];

pub(crate) const SERVER: &[Module] = &[
    module("config", &[]),
    module("telemetry", &["config"]),
    module("discovery", &["config"]),
    module("metrics", &[]),
    module("version", &[]),
    module("threads", &[]),
    module("heap", &[]),
    module("tls", &["config"]),
    module("net", &["service", "metrics", "version", "config", "tls"]),
    module(
        "service",
        &[
            "propose",
            "maintain",
            "watch",
            "auth",
            "lease::lessor",
            "lease::table",
            "mvcc",
            "metrics",
            "version",
            "config",
        ],
    ),
    // What came of a request is in apply's words: they go back to the caller as they are.
    module("propose", &["raft", "apply", "metrics"]),
    // Snapshots to take away and defragmentation are the image's own work.
    module("maintain", &["storage", "mvcc", "propose"]),
    module("background", &["propose", "maintain", "mvcc", "auth", "config", "version"]),
    module("lease::deadlines", &["lease::table", "lease::room"]),
    module("lease::lessor", &["lease::deadlines", "lease::table", "propose", "maintain", "mvcc"]),
    // The options of the store pass through to it.
    module(
        "raft",
        &["apply", "storage", "watch", "threads", "metrics", "mvcc::store::StoreOptions", "tls", "version"],
    ),
    module("apply", &["mvcc", "lease::table", "auth", "storage", "version"]),
    module("watch", &["mvcc", "threads"]),
    module("mvcc", &["storage"]),
    module("lease::table", &["storage", "lease::room"]),
    module("lease::room", &[]),
    module("lease", &[]),
    module("auth", &["storage"]),
    module("storage", &["threads"]),
];

pub(crate) const FS: &[Module] = &[
    module("heap", &[]),
    module("args", &["config", "map", "remote::Patience"]),
    module("config", &["map", "remote::Patience"]),
    module("telemetry", &["config"]),
    module("metrics", &[]),
    module("mount", &["args", "config", "kernel", "telemetry"]),
    // Replies are made of the nodes' own words: attributes, kinds, numbers.
    // Locks are asked for in the words of `lock`.
    module("kernel", &["ops", "node", "errno", "lock", "config", "metrics"]),
    module("notify", &["node", "ops::Fs"]),
    module("scrape", &["metrics", "ops::Fs"]),
    module("lock", &["map", "remote"]),
    // Like the watch and the notifier, it shares the mounted tree and begins no operation on it.
    module("echo", &["node", "ops::Fs", "map", "config"]),
    module("ops", &["node", "map", "lock", "cache", "remote", "virtual", "errno", "config", "metrics"]),
    module("virtual", &["map", "cache", "remote"]),
    // `Fs` is the mounted tree itself, which operations, the watch and the notifier share; no operation is called.
    module("sync", &["cache", "node", "remote", "notify", "map", "ops::Fs", "errno", "metrics"]),
    module("node", &["map", "cache", "remote", "config"]),
    module("cache", &["map", "remote"]),
    module("errno", &["ops", "map", "remote"]),
    module("remote", &["map"]),
    module("map", &[]),
];

pub(crate) const CLI: &[Module] = &[
    // `args` is the flags that all commands share; each command's own are with it.
    module("args", &[]),
    module("connect", &["args", "error"]),
    module("contexts", &["args", "error"]),
    module("output", &["args", "error", "words"]),
    module("cmdline", &[]),
    module("error", &[]),
    module("words", &[]),
    module("files", &["error"]),
    module("mounted", &["error"]),
    module("pages", &["error"]),
    module("requests", &[]),
    module("save", &["error", "requests"]),
    module("session", &["error", "requests"]),
    module("transfer", &["args", "error", "pages", "requests"]),
    module("bench", &["args", "connect", "error", "words"]),
];

pub(crate) const CLIENT: &[Module] = &[];
pub(crate) const PROTO: &[Module] = &[];

/// A path that only some places of a crate may name.
pub(crate) struct Door {
    pub(crate) krate: &'static str,
    /// A crate, or a path in one.
    pub(crate) path: &'static str,
    /// Modules that may; none for nobody.
    pub(crate) only: &'static [&'static str],
}

const fn door(krate: &'static str, path: &'static str, only: &'static [&'static str]) -> Door {
    Door { krate, path, only }
}

pub(crate) const DOORS: &[Door] = &[
    // Third-party names stay behind one door each.
    door("server", "openraft", &["raft"]),
    door("server", "sled", &["storage::sled"]),
    door("server", "hyper", &["net"]),
    // The transport to other members takes its streams in hyper's wrapping.
    door("server", "hyper_util", &["net", "raft::dial"]),
    door("server", "lz4_flex", &["raft::chunks"]),
    door("server", "axum", &["net"]),
    door("server", "tokio_tungstenite", &["net::gateway::socket"]),
    door("server", "rustls", &["tls"]),
    door("server", "tokio_rustls", &["tls"]),
    door("server", "rcgen", &["tls"]),
    door("server", "rustls_native_certs", &["tls"]),
    door("server", "x509_parser", &["tls"]),
    door("server", "bcrypt", &["auth"]),
    door("server", "jsonwebtoken", &["auth"]),
    door("client", "rustls", &["tls"]),
    door("client", "tokio_rustls", &["tls"]),
    door("server", "clap", &["config"]),
    door("server", "hickory_resolver", &["discovery"]),
    door("server", "anyhow", &["run"]),
    door("fs", "fuser", &["kernel", "notify", "mount", "run"]),
    door("cli", "fuser", &["bench::files"]),
    door("cli", "x509_parser", &["commands::whoami"]),
    door("fs", "etcfs_client", &["remote", "run", "config", "mount"]),
    door("fs", "clap", &["args"]),
    door("fs", "anyhow", &["run", "mount"]),
    // What crosses a wire has no behaviour; peers speak the generated stubs.
    door("server", "etcfs_client", &[]),
    door("server", "etcfs_fs", &[]),
    door("server", "etcfs_cli", &[]),
    door("fs", "etcfs_server", &[]),
    door("fs", "etcfs_cli", &[]),
    door("client", "etcfs_server", &[]),
    door("client", "etcfs_fs", &[]),
    door("client", "etcfs_cli", &[]),
    door("proto", "etcfs_client", &[]),
    door("proto", "etcfs_server", &[]),
    door("proto", "etcfs_fs", &[]),
    door("proto", "etcfs_cli", &[]),
    door(
        "cli",
        "etcfs_server",
        &["commands::defrag", "commands::hashkv", "commands::snapshot", "commands::up"],
    ),
    door(
        "cli",
        "etcfs_fs",
        &[
            "commands::up",
            "commands::mount",
            "commands::umount",
            "commands::doctor::here",
            "commands::export",
            "commands::import",
            "commands::role",
            "mounted",
        ],
    ),
];

/// A path that one module of a crate must not name.
pub(crate) struct Ban {
    pub(crate) krate: &'static str,
    pub(crate) module: &'static str,
    pub(crate) paths: &'static [&'static str],
}

const fn ban(krate: &'static str, module: &'static str, paths: &'static [&'static str]) -> Ban {
    Ban { krate, module, paths }
}

/// The clock, which the log's replay would read at another time.
const CLOCK: [&str; 3] = ["std::time::Instant", "std::time::SystemTime", "tokio::time"];

pub(crate) const BANS: &[Ban] = &[
    // Applying an entry gives the same on every member and at every replay.
    ban("server", "apply", &["tokio", "tonic", "rand", CLOCK[0], CLOCK[1]]),
    ban("server", "mvcc", &["tokio", "tonic", "rand", CLOCK[0], CLOCK[1]]),
    ban("server", "lease::table", &["tokio", "tonic", "rand", CLOCK[0], CLOCK[1]]),
    ban("server", "auth", &["tokio", "tonic", CLOCK[0], CLOCK[1]]),
    ban("server", "watch", &["tonic", "rand", CLOCK[0], CLOCK[1], CLOCK[2]]),
    ban("server", "storage", &["tonic", "rand"]),
    // What decides a file operation is no kernel's business and knows no RPC.
    ban("fs", "ops", &["tonic", "etcfs_proto::etcdserverpb"]),
    ban("fs", "map", &["tokio", "tonic", "etcfs_proto::etcdserverpb", "std::fs"]),
    ban("fs", "node", &["tonic"]),
    ban("client", "", &["std::println", "std::eprintln", "std::process"]),
];
