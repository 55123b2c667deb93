//! Every setting as a flag, with etcd's names and defaults, and the ways that it
//! may be given in.
//!
//! `--some-flag` is also `ETCFSD_SOME_FLAG` and `ETCD_SOME_FLAG`. As with
//! etcd, a flag whose variable is set as well is refused rather than decided,
//! single-dash flags work, an empty variable counts as unset, and where there is
//! a configuration file it alone counts. The doc comments here are the `--help`
//! text.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, ValueEnum, parser::ValueSource};

use super::{
    Config, ConfigError, LogFormat, LogLevel, check, file, idle,
    tls::{PeerTlsArgs, TlsArgs},
    unsupported,
};

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub enum Invocation {
    Serve(Box<Config>),
    Version,
    /// The text to print.
    Help(String),
    /// The settings to print, as a configuration file.
    Print(String),
}

/// A key-value server that speaks the etcd v3 API.
#[derive(Debug, Parser)]
#[command(name = "etcfsd", disable_version_flag = true, max_term_width = 100)]
pub(super) struct Args {
    /// Print the version and exit.
    #[arg(long)]
    pub(super) version: bool,
    /// Print the settings that result, as a configuration file, and exit.
    #[arg(long)]
    pub(super) print_config: bool,
    /// File of settings (YAML); other flags and the environment are passed over then.
    #[arg(long)]
    pub(super) config_file: Option<PathBuf>,

    /// Name of this member.
    #[arg(long, default_value = "default", help_heading = "Member")]
    pub(super) name: String,
    /// Directory of this member's data [default: NAME.etcd].
    #[arg(long, help_heading = "Member")]
    pub(super) data_dir: Option<PathBuf>,
    /// URLs to serve clients on, comma separated.
    #[arg(long, default_value = "http://localhost:2379", help_heading = "Member")]
    pub(super) listen_client_urls: String,
    /// URLs to serve peers on, comma separated.
    #[arg(long, default_value = "http://localhost:2380", help_heading = "Member")]
    pub(super) listen_peer_urls: String,
    /// Time between two heartbeats of a leader, in milliseconds.
    #[arg(long, default_value_t = 100, allow_negative_numbers = true, help_heading = "Member")]
    pub(super) heartbeat_interval: i64,
    /// Time without a leader before an election, in milliseconds.
    #[arg(long, default_value_t = 1000, allow_negative_numbers = true, help_heading = "Member")]
    pub(super) election_timeout: i64,
    /// Applied entries between two snapshots.
    #[arg(long, default_value_t = 10_000, help_heading = "Member")]
    pub(super) snapshot_count: u64,
    /// Bytes that keys and history may take; 0 is 2 GiB, negative is no limit.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, help_heading = "Member")]
    pub(super) quota_backend_bytes: i64,
    /// Bytes of values kept in memory; the others are read from disk.
    #[arg(long, default_value_t = 256 * 1024 * 1024, help_heading = "Member")]
    pub(super) value_cache_bytes: u64,

    /// Operations in one transaction.
    #[arg(long, default_value_t = 128, help_heading = "Limits")]
    pub(super) max_txn_ops: u32,
    /// Bytes of one request.
    #[arg(long, default_value_t = 1_572_864, help_heading = "Limits")]
    pub(super) max_request_bytes: u32,
    /// Calls in flight on one connection.
    #[arg(long, default_value_t = u32::MAX, help_heading = "Limits")]
    pub(super) max_concurrent_streams: u32,
    /// Client connections; further ones wait to be accepted.
    #[arg(long, default_value_t = 50_000, help_heading = "Limits")]
    pub(super) max_client_connections: u32,
    /// Silence of a client after which the server pings it.
    #[arg(long, default_value = "2h", value_parser = duration, help_heading = "Limits")]
    pub(super) grpc_keepalive_interval: Duration,
    /// Time to answer that ping in before the connection is dropped.
    #[arg(long, default_value = "20s", value_parser = duration, help_heading = "Limits")]
    pub(super) grpc_keepalive_timeout: Duration,
    /// Time between two pings of a client; one that pings more often is dropped, and with 0s none is.
    #[arg(long, default_value = "5s", value_parser = duration, help_heading = "Limits")]
    pub(super) grpc_keepalive_min_time: Duration,

    /// Client URLs that other members and clients are told, comma separated.
    #[arg(long, default_value = "http://localhost:2379", help_heading = "Cluster")]
    pub(super) advertise_client_urls: String,
    /// Peer URLs that other members are told, comma separated.
    #[arg(long, default_value = "http://localhost:2380", help_heading = "Cluster")]
    pub(super) initial_advertise_peer_urls: String,
    /// Members at the first start, NAME=URL comma separated [default: this one].
    #[arg(long, help_heading = "Cluster")]
    pub(super) initial_cluster: Option<String>,
    /// Domain whose SRV records name the members at the first start, instead of --initial-cluster.
    #[arg(long, help_heading = "Cluster")]
    pub(super) discovery_srv: Option<String>,
    /// Name of the service in those records, if the domain has several clusters.
    #[arg(long, help_heading = "Cluster")]
    pub(super) discovery_srv_name: Option<String>,
    /// DNS server to ask for them, ADDRESS:PORT [default: the system's].
    #[arg(long, help_heading = "Cluster")]
    pub(super) discovery_srv_server: Option<SocketAddr>,
    /// What the first start is of.
    #[arg(long, value_enum, default_value = "new", help_heading = "Cluster")]
    pub(super) initial_cluster_state: ClusterState,
    /// Tells clusters with the same URLs apart.
    #[arg(long, default_value = "etcd-cluster", help_heading = "Cluster")]
    pub(super) initial_cluster_token: String,
    /// Refuse changes of members that could cost the cluster its majority.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = clap::ArgAction::Set, help_heading = "Cluster")]
    pub(super) strict_reconfig_check: bool,
    /// Learners that the cluster may have.
    #[arg(long, default_value_t = 1, help_heading = "Cluster")]
    pub(super) max_learners: u32,
    /// Make this member a cluster of its own, with the data it has: when the others are lost for good.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = clap::ArgAction::Set, help_heading = "Cluster")]
    pub(super) force_new_cluster: bool,

    /// Serve JSON at /v3 as well.
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true",
          require_equals = true, action = clap::ArgAction::Set, help_heading = "HTTP")]
    pub(super) enable_grpc_gateway: bool,
    /// Origins whose pages may ask from within a browser, comma separated; * for all [default: our own].
    #[arg(long, default_value = "", hide_default_value = true, help_heading = "HTTP")]
    pub(super) cors: String,
    /// Host names to be asked by, comma separated; * for all [default: on a loopback address localhost, else all].
    #[arg(long, default_value = "", hide_default_value = true, help_heading = "HTTP")]
    pub(super) host_whitelist: String,

    #[command(flatten)]
    pub(super) tls: TlsArgs,
    #[command(flatten)]
    pub(super) peer_tls: PeerTlsArgs,

    /// How clients prove who they are: simple, or jwt with pub-key=, priv-key=, sign-method= and ttl=.
    #[arg(long, default_value = "simple", help_heading = "Authentication")]
    pub(super) auth_token: String,
    /// Seconds for which a simple token may lie unused.
    #[arg(long, default_value_t = 300, help_heading = "Authentication")]
    pub(super) auth_token_ttl: u32,
    /// How much work hashing a password is; each step doubles it.
    #[arg(long, default_value_t = 10, help_heading = "Authentication")]
    pub(super) bcrypt_cost: u32,
    /// Bytes that a new password must have.
    #[arg(long, default_value_t = 0, help_heading = "Authentication")]
    pub(super) auth_min_password_length: u32,

    /// How --auto-compaction-retention is meant.
    #[arg(long, value_enum, default_value = "periodic", help_heading = "Compaction")]
    pub(super) auto_compaction_mode: CompactionMode,
    /// History to keep: a duration (a bare number is hours) or a number of revisions; 0 keeps all.
    #[arg(long, default_value = "0", allow_negative_numbers = true, help_heading = "Compaction")]
    pub(super) auto_compaction_retention: String,

    /// Compare the keys with the other members' before clients are served.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = clap::ArgAction::Set, alias = "experimental-initial-corrupt-check", help_heading = "Safety")]
    pub(super) initial_corrupt_check: bool,
    /// How often the leader compares the keys of all members; 0 for never.
    #[arg(long, default_value = "0", value_parser = duration,
          alias = "experimental-corrupt-check-time", help_heading = "Safety")]
    pub(super) corrupt_check_time: Duration,
    /// etcd's gates, as NAME=true or NAME=false, comma separated; for InitialCorruptCheck.
    #[arg(long, default_value = "", help_heading = "Safety")]
    pub(super) feature_gates: String,

    /// Silence after which a watcher that asked for it is told the revision.
    #[arg(long, default_value = "10m", value_parser = duration,
          alias = "experimental-watch-progress-notify-interval", help_heading = "Observation")]
    pub(super) watch_progress_notify_interval: Duration,
    /// Time to apply a log entry beyond which it is logged.
    #[arg(long, default_value = "100ms", value_parser = duration,
          alias = "experimental-warning-apply-duration", help_heading = "Observation")]
    pub(super) warning_apply_duration: Duration,
    /// Time to answer a unary RPC beyond which it is logged.
    #[arg(long, default_value = "300ms", value_parser = duration,
          alias = "experimental-warning-unary-request-duration", help_heading = "Observation")]
    pub(super) warning_unary_request_duration: Duration,
    /// How much to measure.
    #[arg(long, value_enum, default_value = "basic", help_heading = "Observation")]
    pub(super) metrics: MetricsLevel,
    /// URLs to serve /metrics, /health, /livez, /readyz and /version on as well, comma separated.
    #[arg(long, default_value = "", help_heading = "Observation")]
    pub(super) listen_metrics_urls: String,
    /// What to log.
    #[arg(long, value_enum, default_value = "info", help_heading = "Observation")]
    pub(super) log_level: LogLevel,
    /// How to log it.
    #[arg(long, value_enum, default_value = "json", help_heading = "Observation")]
    pub(super) log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ClusterState {
    New,
    Existing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum CompactionMode {
    Periodic,
    Revision,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum MetricsLevel {
    Basic,
    Extensive,
}

/// Which flags were set by hand rather than left at their default.
pub(super) type Given = BTreeMap<String, String>;

/// Reads a command line (with the program's name in front) and an environment.
pub fn parse(
    argv: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Invocation, ConfigError> {
    let argv = argv.into_iter().map(with_two_dashes).collect();
    let mut command = Args::command();
    let (mut argv, mut warnings) = idle::take_from(argv)?;
    refuse_unsupported_flags(&argv)?;
    let matches = match command.try_get_matches_from_mut(&argv) {
        Ok(matches) => matches,
        Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => {
            return Ok(Invocation::Help(error.to_string()));
        }
        Err(error) => return Err(usage(&error)),
    };
    if matches.get_flag("version") {
        return Ok(Invocation::Version);
    }
    let prints = matches.get_flag("print_config");

    let flags = Flags::of(&command);
    let mut given = flags.given(&command, &matches);
    let from_env = read_environment(env, &flags, &given, &mut warnings)?;
    argv.extend(arguments(&from_env));
    given.extend(from_env);
    if let Some(path) = given.remove("config-file") {
        let program = argv.into_iter().next().unwrap_or_default();
        let own = read_file(path.as_ref(), &flags, &mut warnings)?;
        let passed_over = given.iter().filter(|(flag, value)| own.get(*flag) != Some(value));
        warnings.extend(passed_over.map(|(flag, value)| {
            format!("--{flag}={value} is passed over: only the file counts that --config-file={path} names")
        }));
        argv = std::iter::once(program).chain(arguments(&own)).collect();
        given = own;
    }

    let matches = command.try_get_matches_from_mut(&argv).map_err(|error| usage(&error))?;
    let args = Args::from_arg_matches(&matches).map_err(|error| usage(&error))?;
    let mut config = check::config(args, &given)?;
    config.warnings.extend(warnings);
    Ok(if prints {
        Invocation::Print(flags.print(&command, &matches))
    } else {
        Invocation::Serve(Box::new(config))
    })
}

fn arguments(given: &Given) -> impl Iterator<Item = OsString> {
    given.iter().map(|(flag, value)| format!("--{flag}={value}").into())
}

/// Every name that a setting has, with its flag's.
#[derive(Debug)]
struct Flags(BTreeMap<String, String>);

/// Flags that are no settings of a server.
const ACTIONS: [&str; 3] = ["help", "version", "print-config"];

impl Flags {
    fn of(command: &clap::Command) -> Self {
        let mut flags = BTreeMap::new();
        for arg in command.get_arguments() {
            let Some(long) = arg.get_long().filter(|long| !ACTIONS.contains(long)) else { continue };
            for name in std::iter::once(long).chain(arg.get_all_aliases().unwrap_or_default()) {
                flags.insert(name.to_owned(), long.to_owned());
            }
        }
        Self(flags)
    }

    fn flag(&self, name: &str) -> Option<&String> {
        self.0.get(name)
    }

    /// What the command line has set.
    fn given(&self, command: &clap::Command, matches: &clap::ArgMatches) -> Given {
        let set = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        self.values(command, matches)
            .filter(|(id, _, _)| set(id))
            .map(|(_, long, value)| (long, value))
            .collect()
    }

    /// All settings that have a value, as a configuration file.
    fn print(&self, command: &clap::Command, matches: &clap::ArgMatches) -> String {
        let mut text = String::new();
        for (_, long, value) in self.values(command, matches).filter(|(_, long, _)| long != "config-file") {
            let is_bare = value.parse::<i64>().is_ok_and(|number| number.to_string() == value)
                || matches!(value.as_str(), "true" | "false");
            // A text of JSON is one of YAML.
            let value = if is_bare { value } else { serde_json::Value::from(value).to_string() };
            text.push_str(&format!("{long}: {value}\n"));
        }
        text
    }

    /// The id, the flag and the value of each setting that has one.
    fn values<'a>(
        &'a self,
        command: &'a clap::Command,
        matches: &'a clap::ArgMatches,
    ) -> impl Iterator<Item = (&'a str, String, String)> {
        command.get_arguments().filter_map(|arg| {
            let (long, id) = (arg.get_long()?, arg.get_id().as_str());
            let raw = matches.get_raw(id).filter(|_| self.0.contains_key(long))?.next()?;
            Some((id, long.to_owned(), raw.to_string_lossy().into_owned()))
        })
    }
}

/// The flags that a configuration file sets.
fn read_file(path: &Path, flags: &Flags, warnings: &mut Vec<String>) -> Result<Given, ConfigError> {
    let mut given = Given::new();
    for (name, value) in file::read(path)? {
        let setting = format!("{}: {name}", path.display());
        if idle::take(&name, &value, &format!("{setting}={value}"), warnings)? {
            continue;
        }
        let Some(flag) = flags.flag(&name).filter(|flag| *flag != "config-file") else {
            if let Some(reason) = unsupported::reason(&name) {
                return Err(ConfigError::NotSupported { setting: format!("{setting}={value}"), reason });
            }
            let remedy = "there is no such setting; see etcfsd --help".to_owned();
            return Err(ConfigError::Refused { setting, value, remedy });
        };
        if let Some(other) = given.insert(flag.clone(), value.clone()) {
            let remedy = format!("--{flag}={other} is its other name; drop one of the two");
            return Err(ConfigError::Refused { setting, value, remedy });
        }
    }
    Ok(given)
}

/// The flags that the environment sets; what it says that nobody asked for is warned of.
fn read_environment(
    env: impl IntoIterator<Item = (String, String)>,
    flags: &Flags,
    given: &Given,
    warnings: &mut Vec<String>,
) -> Result<Given, ConfigError> {
    let mut found: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut env: Vec<_> = env.into_iter().collect();
    env.sort();
    for (variable, value) in env {
        let own = variable.strip_prefix("ETCFSD_");
        let Some(name) = own.or_else(|| variable.strip_prefix("ETCD_")) else { continue };
        if value.is_empty() {
            continue;
        }
        let name = name.to_ascii_lowercase().replace('_', "-");
        if idle::take(&name, &value, &format!("{variable}={value}"), warnings)? {
            continue;
        }
        let Some(flag) = flags.flag(&name) else {
            if let Some(reason) = unsupported::reason(&name) {
                return Err(ConfigError::NotSupported { setting: format!("{variable}={value}"), reason });
            }
            if own.is_some() {
                let remedy = "there is no such setting; see etcfsd --help".to_owned();
                return Err(ConfigError::Refused { setting: variable, value, remedy });
            }
            // A machine may well have ETCD_ variables that are not etcd's own.
            warnings.push(format!("unrecognized environment variable {variable}={value}"));
            continue;
        };
        if given.contains_key(flag) {
            return Err(ConfigError::Shadowed { variable, value, flag: flag.clone() });
        }
        match found.get(flag) {
            Some((first, other)) if *other != value => {
                return Err(ConfigError::Contradiction {
                    first: format!("{first}={other}"),
                    second: format!("{variable}={value}"),
                    flag: flag.clone(),
                });
            }
            _ => found.insert(flag.clone(), (variable, value)),
        };
    }
    Ok(found.into_iter().map(|(flag, (_, value))| (flag, value)).collect())
}

/// `-data-dir` is how etcd's own documents often write `--data-dir`.
fn with_two_dashes(arg: OsString) -> OsString {
    match arg.to_str() {
        Some(text) if text.len() > 2 && text.starts_with('-') && text.as_bytes()[1].is_ascii_lowercase() => {
            format!("-{text}").into()
        }
        _ => arg,
    }
}

fn refuse_unsupported_flags(argv: &[OsString]) -> Result<(), ConfigError> {
    for arg in argv.iter().skip(1).filter_map(|arg| arg.to_str()) {
        let Some(flag) = arg.strip_prefix("--") else { continue };
        let name = flag.split_once('=').map_or(flag, |(name, _)| name);
        // The one old spelling that is taken.
        if name == "experimental-watch-progress-notify-interval" {
            continue;
        }
        if let Some(reason) = unsupported::reason(name) {
            return Err(ConfigError::NotSupported { setting: arg.to_owned(), reason });
        }
    }
    Ok(())
}

fn usage(error: &clap::Error) -> ConfigError {
    let text = error.to_string();
    ConfigError::Usage(text.trim_start_matches("error: ").trim_end().to_owned())
}

/// A Go duration: "500ms", "1m30s", "2h".
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("'{text}' is no duration; write it like 500ms, 10s, 5m or 2h"))
}
