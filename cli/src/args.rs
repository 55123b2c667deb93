//! What every command understands, and where defaults come from.
//!
//! A flag is taken from the command line, else from `ETCFS_<FLAG>`, else from
//! `ETCDCTL_<FLAG>`, else from the context. (etcdctl refuses a flag given both
//! ways; here the command line wins.) A context that the command line names
//! comes before the variables, which may be another cluster's.

use std::{collections::BTreeMap, ffi::OsString, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Arg, ArgAction, Args, Command, CommandFactory, FromArgMatches, parser::ValueSource};

/// A command line that is read as etcdctl reads its own: the begin of a command's name is enough where no other
/// begins so, the last of a repeated option counts, and switches take a value behind `=`.
pub(crate) fn command<A: CommandFactory>() -> Command {
    with_switches(A::command()).infer_subcommands(true).args_override_self(true)
}

/// Reads words without [`Global`].
pub(crate) fn read<A: CommandFactory + FromArgMatches>(
    words: impl IntoIterator<Item = OsString>,
) -> Result<A, clap::Error> {
    A::from_arg_matches_mut(&mut command::<A>().try_get_matches_from(words)?)
}

fn with_switches(command: Command) -> Command {
    let switch = |arg: Arg| {
        if !matches!(arg.get_action(), ArgAction::SetTrue) {
            return arg;
        }
        let arg = if arg.get_default_values().is_empty() {
            arg.default_value("false").hide_default_value(true)
        } else {
            arg
        };
        let arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true");
        arg.value_parser(boolean).value_name("BOOL")
    };
    command.mut_args(switch).mut_subcommands(with_switches)
}

/// A switch's value as Go takes it.
fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("neither true nor false"),
    }
}

/// Parses a command line with [`Global`] in it; `variable` looks an environment variable up.
pub(crate) fn parse<A: CommandFactory + FromArgMatches>(
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
    context: &Settings,
) -> Result<(A, Named), clap::Error> {
    let mut command = command::<A>();
    let mut named = Named::default();
    for (flag, name) in GLOBAL_FLAGS {
        let of_variable = variable(&format!("ETCFS_{name}")).or_else(|| variable(&format!("ETCDCTL_{name}")));
        let of_variable = of_variable.and_then(|value| value.into_string().ok());
        named.servers |= of_variable.is_some() && NAMES_SERVERS.contains(&flag);
        let of_context = context.values.get(flag).cloned();
        let value = if context.named { of_context.or(of_variable) } else { of_variable.or(of_context) };
        if let Some(value) = value {
            // clap keeps defaults for as long as the process lives, and so does this.
            let value: &'static str = value.leak();
            command = command.mut_arg(flag, |arg| arg.default_value(value));
        }
    }
    let mut matches = command.try_get_matches_from(arguments)?;
    let typed = |flag| matches.value_source(flag) == Some(ValueSource::CommandLine);
    named.context = typed("context");
    named.servers |= NAMES_SERVERS.iter().any(|flag| typed(flag));
    Ok((A::from_arg_matches_mut(&mut matches)?, named))
}

/// What a context sets, by clap's ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    pub(crate) values: BTreeMap<String, String>,
    /// The command line named the context.
    pub(crate) named: bool,
}

/// What was named on this command line, or in the environment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Named {
    /// A context, on the command line.
    pub(crate) context: bool,
    /// Servers, either way.
    pub(crate) servers: bool,
}

const NAMES_SERVERS: [&str; 2] = ["endpoints", "discovery_srv"];

/// Flags with an environment variable: clap's id and the variable's name.
pub(crate) const GLOBAL_FLAGS: [(&str, &str); 24] = [
    ("context", "CONTEXT"),
    ("endpoints", "ENDPOINTS"),
    ("discovery_srv", "DISCOVERY_SRV"),
    ("discovery_srv_name", "DISCOVERY_SRV_NAME"),
    ("discovery_srv_server", "DISCOVERY_SRV_SERVER"),
    ("insecure_discovery", "INSECURE_DISCOVERY"),
    ("dial_timeout", "DIAL_TIMEOUT"),
    ("command_timeout", "COMMAND_TIMEOUT"),
    ("keepalive_time", "KEEPALIVE_TIME"),
    ("keepalive_timeout", "KEEPALIVE_TIMEOUT"),
    ("max_request_bytes", "MAX_REQUEST_BYTES"),
    ("max_recv_bytes", "MAX_RECV_BYTES"),
    ("cacert", "CACERT"),
    ("cert", "CERT"),
    ("key_file", "KEY"),
    ("insecure_transport", "INSECURE_TRANSPORT"),
    ("insecure_skip_tls_verify", "INSECURE_SKIP_TLS_VERIFY"),
    ("user", "USER"),
    ("password", "PASSWORD"),
    ("password_file", "PASSWORD_FILE"),
    ("write_out", "WRITE_OUT"),
    ("hex", "HEX"),
    ("raw", "RAW"),
    ("debug", "DEBUG"),
];

/// gRPC counts a message's bytes in 31 bits.
const BYTES_MAX: i64 = i32::MAX as i64;

/// What every command understands.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// A cluster by its name in the configuration file (see `etcfs context`)
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Servers to talk to, separated by commas [env: ETCFS_ENDPOINTS or ETCDCTL_ENDPOINTS; so for all of these]
    #[arg(long, global = true, default_value = "127.0.0.1:2379", value_delimiter = ',', value_name = "LIST")]
    pub(crate) endpoints: Vec<String>,
    /// Domain whose SRV records name the servers; they are taken instead of --endpoints
    #[arg(short = 'd', long, global = true, value_name = "DOMAIN")]
    pub(crate) discovery_srv: Option<String>,
    /// Name of the service in the records, if the domain has several clusters
    #[arg(long, global = true, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub(crate) discovery_srv_name: String,
    /// DNS server to ask for the records, instead of the system's
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub(crate) discovery_srv_server: Option<SocketAddr>,
    /// Take servers without TLS from the records
    #[arg(long, global = true, default_value = "true")]
    pub(crate) insecure_discovery: bool,
    /// Longest wait for a connection
    #[arg(long, global = true, default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub(crate) dial_timeout: Duration,
    /// Longest wait for the answer to a short command
    #[arg(long, global = true, default_value = "5s", value_parser = duration, value_name = "TIME")]
    pub(crate) command_timeout: Duration,
    /// Silence after which a connection is checked
    #[arg(long, global = true, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub(crate) keepalive_time: Duration,
    /// Longest wait for the answer to such a check
    #[arg(long, global = true, default_value = "6s", value_parser = duration, value_name = "TIME")]
    pub(crate) keepalive_timeout: Duration,
    /// Largest request that is sent, in bytes; 0 leaves it to the server
    #[arg(long, global = true, default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(..=BYTES_MAX), value_name = "BYTES")]
    pub(crate) max_request_bytes: u32,
    /// Largest answer that is taken, in bytes; 0 for as much as gRPC carries
    #[arg(long, global = true, default_value_t = 0, hide_default_value = true, value_parser = clap::value_parser!(u32).range(..=BYTES_MAX), value_name = "BYTES")]
    pub(crate) max_recv_bytes: u32,
    #[command(flatten)]
    pub(crate) security: Security,
    /// Output format: simple, fields, json, protobuf, table [default: simple, or table where a terminal reads one]
    #[arg(short = 'w', long, global = true, value_name = "FORMAT", hide_default_value = true)]
    pub(crate) write_out: Option<String>,
    /// Print keys and values as hexadecimal bytes
    #[arg(long, global = true)]
    pub(crate) hex: bool,
    /// Print control bytes of keys and values to a terminal too
    #[arg(long, global = true)]
    pub(crate) raw: bool,
    /// Tell on standard error what the client does
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

impl Security {
    /// How servers are spoken to that are named without a scheme.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.cacert.is_some() || self.cert.is_some() || !self.insecure_transport {
            "https"
        } else {
            "http"
        }
    }
}

/// Whom to trust, and who we are.
#[derive(Args, Clone)]
pub(crate) struct Security {
    /// CA certificates (PEM) whose servers are trusted; the system's if not given
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,
    /// Our own certificate (PEM)
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(id = "key_file", long = "key", global = true, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Speak in clear to endpoints without a scheme, where no certificate is given
    #[arg(long, global = true, default_value = "true", hide_default_value = true)]
    pub(crate) insecure_transport: bool,
    /// Trust whatever server answers
    #[arg(long, global = true)]
    pub(crate) insecure_skip_tls_verify: bool,
    /// User to log in as; the password is asked for, or better read from ETCFS_PASSWORD
    #[arg(long, global = true, value_name = "NAME[:PASSWORD]", hide_default_value = true)]
    pub(crate) user: Option<String>,
    /// The password of --user; better read from ETCFS_PASSWORD or a file
    #[arg(long, global = true, value_name = "PASSWORD", hide_default_value = true)]
    pub(crate) password: Option<String>,
    /// A file whose first line is the password of --user; nobody else may read it
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Security")
            .field("cacert", &self.cacert)
            .field("cert", &self.cert)
            .finish_non_exhaustive()
    }
}

/// A time as etcdctl takes it: `5s`, `1m30s`, `100ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, humantime::DurationError> {
    humantime::parse_duration(text)
}

/// An argument's bytes: keys and values need not be UTF-8.
pub(crate) fn bytes(argument: OsString) -> bytes::Bytes {
    use std::os::unix::ffi::OsStringExt as _;
    argument.into_vec().into()
}

/// How to reach the cluster that is copied to.
#[derive(Args, Clone, Debug)]
pub(crate) struct Destination {
    /// CA certificates (PEM) whose destination is trusted; the system's if not given
    #[arg(long, value_name = "FILE")]
    dest_cacert: Option<PathBuf>,
    /// Our certificate for the destination (PEM)
    #[arg(long, value_name = "FILE")]
    dest_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE")]
    dest_key: Option<PathBuf>,
    /// Speak in clear to a destination without a scheme, where no certificate is given
    #[arg(long, default_value = "true", hide_default_value = true)]
    dest_insecure_transport: bool,
    /// User at the destination; the password is asked for, or better read from ETCFS_DEST_PASSWORD
    #[arg(long, value_name = "NAME[:PASSWORD]")]
    dest_user: Option<String>,
    /// The password of --dest-user; better read from ETCFS_DEST_PASSWORD
    #[arg(long, value_name = "PASSWORD", env = "ETCFS_DEST_PASSWORD", hide_env_values = true)]
    dest_password: Option<String>,
}

impl Destination {
    pub(crate) fn security(&self) -> Security {
        Security {
            cacert: self.dest_cacert.clone(),
            cert: self.dest_cert.clone(),
            key: self.dest_key.clone(),
            insecure_transport: self.dest_insecure_transport,
            insecure_skip_tls_verify: false,
            user: self.dest_user.clone(),
            password: self.dest_password.clone(),
            password_file: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        global: Global,
    }

    fn endpoints(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        let lookup =
            |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
        let none = Settings::default();
        parse::<Line>(arguments.iter().map(OsString::from), lookup, &none).unwrap().0.global.endpoints
    }

    #[test]
    fn a_context_comes_last_unless_it_is_named() {
        let of = |arguments: &[&str], named: bool| {
            let values =
                [("endpoints", "x:1"), ("user", "u")].map(|(n, v)| (n.to_owned(), v.to_owned())).into();
            let lookup = |name: &str| (name == "ETCDCTL_ENDPOINTS").then(|| OsString::from("e:1"));
            let context = Settings { values, named };
            let (line, said) = parse::<Line>(arguments.iter().map(OsString::from), lookup, &context).unwrap();
            assert_eq!(line.global.security.user.as_deref(), Some("u"));
            (line.global.endpoints.join(","), said.servers, said.context)
        };
        assert_eq!(of(&["etcfs"], false), ("e:1".into(), true, false));
        assert_eq!(of(&["etcfs", "--context", "c"], true), ("x:1".into(), true, true));
        assert_eq!(of(&["etcfs", "--endpoints", "a:1"], true), ("a:1".into(), true, false));
    }

    #[test]
    fn a_switch_is_what_go_takes_for_true_or_false() {
        for (value, wanted) in [("1", true), ("t", true), ("TRUE", true), ("True", true)] {
            assert_eq!(boolean(value), Ok(wanted));
        }
        for value in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(boolean(value), Ok(false));
        }
        assert!(boolean("yes").is_err() && boolean("").is_err());
        let of = |arguments: &[&str], variable: &str| {
            let lookup =
                |name: &str| (name == "ETCDCTL_INSECURE_SKIP_TLS_VERIFY").then(|| OsString::from(variable));
            let line = parse::<Line>(arguments.iter().map(OsString::from), lookup, &Settings::default());
            line.map(|(line, _)| (line.global.hex, line.global.security.insecure_skip_tls_verify)).ok()
        };
        assert_eq!(of(&["etcfs", "--hex=T"], "1"), Some((true, true)));
        assert_eq!(of(&["etcfs", "--hex", "--hex=0"], "F"), Some((false, false)));
        assert_eq!(of(&["etcfs", "--hex=yes"], "F"), None);
        assert_eq!(of(&["etcfs"], "yes"), None);
    }

    #[test]
    fn every_global_option_has_its_variable() {
        let command = command::<Line>();
        let options = command.get_arguments().map(|arg| arg.get_id().as_str()).filter(|id| *id != "help");
        let mut options: Vec<&str> = options.collect();
        let mut known = GLOBAL_FLAGS.map(|(flag, _)| flag).to_vec();
        options.sort_unstable();
        known.sort_unstable();
        assert_eq!(options, known);
        for (flag, name) in GLOBAL_FLAGS {
            assert_eq!(flag.trim_end_matches("_file").to_uppercase(), name.trim_end_matches("_FILE"));
        }
    }

    #[test]
    fn sizes_are_taken_as_far_as_grpc_goes() {
        let of = |value: &str| {
            let lookup = |name: &str| (name == "ETCDCTL_MAX_RECV_BYTES").then(|| OsString::from(value));
            let line = ["etcfs", "--max-request-bytes", value].map(OsString::from);
            let line = parse::<Line>(line, lookup, &Settings::default());
            line.map(|(line, _)| (line.global.max_request_bytes, line.global.max_recv_bytes)).ok()
        };
        assert_eq!(of("0"), Some((0, 0)));
        assert_eq!(of("2147483647"), Some((2_147_483_647, 2_147_483_647)));
        assert_eq!(of("2147483648"), None);
        assert_eq!(of("1MiB"), None);
    }

    #[test]
    fn the_last_of_a_repeated_option_counts_and_a_list_grows() {
        let line = ["etcfs", "--user", "a", "--user=b", "--endpoints", "x:1", "--endpoints", "y:1"];
        let line = parse::<Line>(line.iter().map(OsString::from), |_| None, &Settings::default()).unwrap().0;
        assert_eq!(line.global.security.user.as_deref(), Some("b"));
        assert_eq!(line.global.endpoints, ["x:1", "y:1"]);
    }

    #[test]
    fn a_flag_beats_our_variable_and_that_beats_etcdctls() {
        let both = [("ETCDCTL_ENDPOINTS", "c:1"), ("ETCFS_ENDPOINTS", "b:1,b:2")];
        assert_eq!(endpoints(&["etcfs"], &[]), ["127.0.0.1:2379"]);
        assert_eq!(endpoints(&["etcfs"], &both[..1]), ["c:1"]);
        assert_eq!(endpoints(&["etcfs"], &both), ["b:1", "b:2"]);
        assert_eq!(endpoints(&["etcfs", "--endpoints", "a:1"], &both), ["a:1"]);
    }
}
