//! The command line: `mount-etcfs [-f] [-o OPTIONS] SOURCE MOUNTPOINT`, as a person and as mount(8) spell it.
//!
//! Every option is here, and nothing that is not built: an option that this version does not know is refused by
//! its name. Those that mount(8) and fstab(5) pass for themselves are taken and mean nothing here.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;

use crate::config::{Access, Config, Inotify, LockScope, Put, Source, View};
use crate::map::{KeyMap, Percent, PrefixError, Rel};
use crate::remote::Patience;

/// Of an etcd server that does not say otherwise.
const PORT: u16 = 2379;

/// So long a mount waits for its server to answer for the first time.
const RETRY: Duration = Duration::from_secs(10);

/// So long a soft mount waits.
const TIMEO: Duration = Duration::from_secs(10);

const UMASK: u16 = 0o022;

/// What fstab(5) and mount(8) pass that is not for a mount helper, or that is so anyway.
const IGNORED: &[&str] = &[
    "_netdev",
    "async",
    "atime",
    "auto",
    "defaults",
    "dev",
    "diratime",
    "exec",
    "group",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "nostrictatime",
    "nosuid",
    "nouser",
    "nousers",
    "owner",
    "relatime",
    "norelatime",
    "strictatime",
    "suid",
    "user",
    "users",
];

/// Mounts the key space of an etcd v3 server as a file system.
#[derive(Debug, Parser)]
#[command(name = "mount.etcfs", version, max_term_width = 100)]
struct Cli {
    /// ENDPOINT[,ENDPOINT]...[:PREFIX], e.g. 127.0.0.1:2379:/project. An endpoint is [http[s]://]HOST[:PORT]; the
    /// prefix is `/` if it is left out.
    source: String,

    /// An existing directory.
    #[arg(value_name = "MOUNTPOINT")]
    mount_point: PathBuf,

    /// Options, separated by commas; mount.etcfs(8) explains them.
    #[arg(short = 'o', long = "options", value_name = "OPTIONS")]
    options: Vec<String>,

    /// Stay in the foreground, and log to stderr.
    #[arg(short = 'f', long)]
    foreground: bool,

    /// Log what happens in detail.
    #[arg(short = 'v', long)]
    verbose: bool,

    /// Ignore unknown options.
    #[arg(short = 's', long)]
    sloppy: bool,

    /// mount(8) asks for no entry in a mount table that is none of ours.
    #[arg(short = 'n', hide = true)]
    _no_table: bool,

    /// mount(8) says the type that it has looked us up by.
    #[arg(short = 't', hide = true)]
    _type: Option<String>,
}

/// Why a command line is none.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArgsError {
    /// Clap's own words; also the help and the version that were asked for.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error("SOURCE `{source_text}`: {reason}")]
    Source { source_text: String, reason: SourceError },
    #[error("unknown option `{0}`; mount.etcfs(8) lists those there are")]
    Unknown(String),
    #[error("option `{option}`: {reason}")]
    Value { option: String, reason: &'static str },
}

/// What is wrong with a SOURCE.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    #[error("an endpoint has no host")]
    NoHost,
    #[error("`{0}` is no port")]
    Port(String),
    #[error("`{0}` is no scheme of an etcd endpoint; leave it out, or write http:// or https://")]
    Scheme(String),
    #[error("a `[` of an IPv6 address is never closed")]
    Bracket,
    #[error("the prefix stands after a colon: write `{0}`")]
    Colon(String),
    #[error(transparent)]
    Prefix(#[from] PrefixError),
}

/// Reads the command line, program name first.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Config, ArgsError> {
    let cli = Cli::try_parse_from(args)?;
    let mut options = Options::default();
    for option in cli.options.iter().flat_map(|list| list.split(',')).filter(|option| !option.is_empty()) {
        match options.take(option) {
            Err(ArgsError::Unknown(_)) if cli.sloppy => {}
            taken => taken?,
        }
    }
    if options.visible_mine && options.background {
        return Err(ArgsError::Value { option: "bg".to_owned(), reason: VISIBLE });
    }
    let access = options.access()?;
    // As etcdctl has it: who names certificates wants them used.
    let default_scheme = if access.ca.is_some() || access.identity.is_some() { "https" } else { "http" };
    let source = source(&cli.source, default_scheme)
        .map_err(|reason| ArgsError::Source { source_text: cli.source.clone(), reason })?;
    Ok(Config {
        source,
        access,
        mount_point: cli.mount_point,
        view: View {
            file_mode: 0o666 & !options.file_mask.unwrap_or(options.umask),
            dir_mode: 0o777 & !options.dir_mask.unwrap_or(options.umask),
            patience: options.wait.with(options.timeo),
            ..options.view
        },
        percent: options.percent,
        rel: options.rel,
        visible_mine: options.visible_mine,
        retry: options.retry,
        background: options.background,
        foreground: cli.foreground,
        verbose: cli.verbose,
        allow_other: options.allow_other,
        no_exec: options.no_exec,
        metrics: options.metrics,
    })
}

/// The `-o` options, as far as they are read.
struct Options {
    view: View,
    umask: u16,
    file_mask: Option<u16>,
    dir_mask: Option<u16>,
    percent: Percent,
    rel: Rel,
    visible_mine: bool,
    wait: Wait,
    timeo: Duration,
    retry: Duration,
    background: bool,
    allow_other: bool,
    no_exec: bool,
    metrics: Option<SocketAddr>,
    credentials: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// What a mount does without its server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Hard,
    Soft,
    Stale,
}

impl Wait {
    fn with(self, timeo: Duration) -> Patience {
        match self {
            Self::Hard => Patience::Hard,
            Self::Soft => Patience::Soft(timeo),
            Self::Stale => Patience::Stale(timeo),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            view: View {
                uid: rustix::process::geteuid().as_raw(),
                gid: rustix::process::getegid().as_raw(),
                ..View::default()
            },
            umask: UMASK,
            file_mask: None,
            dir_mask: None,
            percent: Percent::Strict,
            rel: Rel::Links,
            visible_mine: false,
            wait: Wait::Hard,
            timeo: TIMEO,
            retry: RETRY,
            background: false,
            allow_other: false,
            no_exec: false,
            metrics: None,
            credentials: None,
            ca: None,
            cert: None,
            key: None,
        }
    }
}

impl Options {
    fn access(&mut self) -> Result<Access, ArgsError> {
        let identity = match (self.cert.take(), self.key.take()) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (cert, _) => {
                let option = if cert.is_some() { "cert" } else { "key" }.to_owned();
                return Err(ArgsError::Value { option, reason: "cert and key go together" });
            }
        };
        Ok(Access { credentials: self.credentials.take(), ca: self.ca.take(), identity })
    }

    fn take(&mut self, option: &str) -> Result<(), ArgsError> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option, None),
        };
        let bad = |reason| ArgsError::Value { option: option.to_owned(), reason };
        match (name, value) {
            ("ro", None) => self.view.read_only = true,
            ("rw", None) => self.view.read_only = false,
            ("allow_other", None) => self.allow_other = true,
            ("noexec", None) => self.no_exec = true,
            ("uid", Some(id)) => self.view.uid = id.parse().map_err(|_| bad("a user's number is needed"))?,
            ("gid", Some(id)) => self.view.gid = id.parse().map_err(|_| bad("a group's number is needed"))?,
            ("umask", Some(mask)) => self.umask = octal(mask).ok_or_else(|| bad(OCTAL))?,
            ("fmask", Some(mask)) => self.file_mask = Some(octal(mask).ok_or_else(|| bad(OCTAL))?),
            ("dmask", Some(mask)) => self.dir_mask = Some(octal(mask).ok_or_else(|| bad(OCTAL))?),
            ("percent", Some("strict")) => self.percent = Percent::Strict,
            ("percent", Some("escape")) => self.percent = Percent::Escape,
            ("percent", _) => return Err(bad("strict or escape")),
            ("rel", Some("links")) => self.rel = Rel::Links,
            ("rel", Some("dir")) => self.rel = Rel::Dir,
            ("rel", Some("off")) => self.rel = Rel::Off,
            ("rel", _) => return Err(bad("links, dir or off")),
            ("visible", Some("mine")) => self.visible_mine = true,
            ("visible", Some("all")) => self.visible_mine = false,
            ("visible", _) => return Err(bad("mine or all")),
            ("put", Some("write")) => self.view.put = Put::Write,
            ("put", Some("close")) => self.view.put = Put::Close,
            ("put", _) => return Err(bad("write or close")),
            ("follow", None | Some("on")) => self.view.follow = true,
            ("follow", Some("off")) => self.view.follow = false,
            ("follow", _) => return Err(bad("on or off")),
            ("inotify", Some("auto")) => self.view.inotify = Inotify::Auto,
            ("inotify", Some("always")) => self.view.inotify = Inotify::Always,
            ("inotify", Some("off")) => self.view.inotify = Inotify::Off,
            ("inotify", _) => return Err(bad("auto, always or off")),
            ("scratch", Some(patterns)) => {
                let patterns = patterns.split(':').filter(|pattern| !pattern.is_empty());
                self.view.scratch = patterns.map(str::to_owned).collect();
            }
            ("max_value", Some(bytes)) => self.view.value_bytes_max = size(bytes).ok_or_else(|| bad(SIZE))?,
            ("cache", Some(bytes)) => self.view.cache_bytes = size(bytes).ok_or_else(|| bad(SIZE))?,
            ("locks", Some("cluster")) => self.view.locks = LockScope::Cluster,
            ("locks", Some("local")) => self.view.locks = LockScope::Local,
            ("locks", Some("off")) => self.view.locks = LockScope::Off,
            ("locks", _) => return Err(bad("cluster, local or off")),
            ("lock_ttl", Some(time)) => {
                self.view.lock_seconds =
                    time.parse().ok().filter(|&seconds| seconds > 0).ok_or_else(|| bad(SECONDS))?;
            }
            ("credentials", Some(file)) => self.credentials = Some(path(file).ok_or_else(|| bad(FILE))?),
            ("cacert", Some(file)) => self.ca = Some(path(file).ok_or_else(|| bad(FILE))?),
            ("cert", Some(file)) => self.cert = Some(path(file).ok_or_else(|| bad(FILE))?),
            ("key", Some(file)) => self.key = Some(path(file).ok_or_else(|| bad(FILE))?),
            // Named without its value, which is not to be printed either.
            ("user" | "username" | "password" | "pass", Some(_)) => {
                return Err(ArgsError::Value { option: name.to_owned(), reason: PASSWORD });
            }
            ("quiet", None) => self.view.quiet = true,
            ("hard", None) => self.wait = Wait::Hard,
            ("soft", None) => self.wait = Wait::Soft,
            ("stale", None) => self.wait = Wait::Stale,
            ("metrics", Some(text)) => {
                self.metrics = Some(metrics_address(text).ok_or_else(|| bad(ADDRESS))?);
            }
            ("strict", None) => self.view.strict = true,
            ("timeo", Some(time)) => self.timeo = seconds(time).ok_or_else(|| bad(SECONDS))?,
            ("retry", Some(time)) => self.retry = seconds(time).ok_or_else(|| bad(SECONDS))?,
            ("bg", None) => self.background = true,
            ("fg", None) => self.background = false,
            ("remount", None) => {
                return Err(bad("a mount's options can't be changed; unmount and mount again"));
            }
            (name, None) if IGNORED.contains(&name) => {}
            // For users' programs and for systemd.
            (name, _) if name.starts_with("x-") || name == "comment" => {}
            (name, _) => return Err(ArgsError::Unknown(name.to_owned())),
        }
        Ok(())
    }
}

const OCTAL: &str = "permission bits in octal are needed, such as 022";
const SIZE: &str = "a number of bytes is needed, such as 1048576, 512K or 64M";
const SECONDS: &str = "a number of seconds is needed";
const ADDRESS: &str =
    "a port of this host, or an IP address and a port, are needed, such as 9379 or 0.0.0.0:9379";
const FILE: &str = "the name of a file is needed";
const VISIBLE: &str = "what visible=mine shows is decided by a server's answer before anything is mounted";
const PASSWORD: &str = "everybody can read a command line; use credentials=FILE, or the variable ETCFS_USER";

/// Absolute: the daemon leaves the directory that it was started in.
fn path(name: &str) -> Option<PathBuf> {
    std::path::absolute(name).ok()
}

/// A port alone is one that only this host reaches.
fn metrics_address(text: &str) -> Option<SocketAddr> {
    match text.parse() {
        Ok(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => text.parse().ok(),
    }
}

fn octal(text: &str) -> Option<u16> {
    u16::from_str_radix(text, 8).ok().filter(|&mask| mask <= 0o777)
}

fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (&text[..text.len() - 1], 1 << 10),
        b'M' => (&text[..text.len() - 1], 1 << 20),
        b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|&bytes| bytes > 0)
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

/// Reads `ENDPOINT[,ENDPOINT]...[:PREFIX]`.
///
/// # Errors
/// What is wrong with it.
pub fn source(text: &str, default_scheme: &str) -> Result<Source, SourceError> {
    let mut endpoints = Vec::new();
    let mut rest = text;
    let prefix = loop {
        let (endpoint, after) = endpoint(rest)?;
        endpoints.push(endpoint.url(default_scheme));
        rest = match after.split_at_checked(1) {
            None => break Bytes::from_static(b"/"),
            Some((",", more)) => more,
            Some((":", prefix)) => {
                let port = prefix.split_once('/').map_or("", |(head, _)| head);
                if endpoint.port.is_none() && !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) {
                    return Err(SourceError::Colon(text.replacen(
                        &format!(":{port}/"),
                        &format!(":{port}:/"),
                        1,
                    )));
                }
                break KeyMap::parse_prefix(prefix)?;
            }
            Some(_) => return Err(SourceError::Colon(text.replacen(after, &format!(":{after}"), 1))),
        };
    };
    Ok(Source { text: text.to_owned(), endpoints, prefix })
}

struct Endpoint<'a> {
    scheme: Option<&'a str>,
    host: &'a str,
    port: Option<u16>,
}

impl Endpoint<'_> {
    fn url(&self, default_scheme: &str) -> String {
        let scheme = self.scheme.unwrap_or(default_scheme);
        format!("{scheme}://{}:{}", self.host, self.port.unwrap_or(PORT))
    }
}

/// One endpoint, and what follows it.
fn endpoint(text: &str) -> Result<(Endpoint<'_>, &str), SourceError> {
    let scheme =
        text.split_once("://").filter(|(scheme, _)| scheme.bytes().all(|c| c.is_ascii_alphanumeric()));
    let (scheme, text) = match scheme {
        None => (None, text),
        Some((scheme @ ("http" | "https"), rest)) => (Some(scheme), rest),
        Some((scheme, _)) => return Err(SourceError::Scheme(scheme.to_owned())),
    };
    let host = if text.starts_with('[') {
        text.find(']').ok_or(SourceError::Bracket)? + 1
    } else {
        text.find([':', ',', '/']).unwrap_or(text.len())
    };
    let (host, rest) = text.split_at(host);
    if matches!(host, "" | "[]") {
        return Err(SourceError::NoHost);
    }
    let port = rest.strip_prefix(':').map(|rest| rest.split([':', ',']).next().unwrap_or_default());
    match port {
        Some(port) if !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()) => {
            let number = port.parse().map_err(|_| SourceError::Port(port.to_owned()))?;
            Ok((Endpoint { scheme, host, port: Some(number) }, &rest[1 + port.len()..]))
        }
        _ => Ok((Endpoint { scheme, host, port: None }, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &str) -> Result<Config, ArgsError> {
        parse(["mount.etcfs"].into_iter().chain(words.split(' ')).map(OsString::from))
    }

    #[test]
    fn a_source_is_endpoints_and_a_prefix() {
        let check = |text: &str, endpoints: &[&str], prefix: &str| {
            let source = source(text, "http").expect(text);
            assert_eq!(source.endpoints, endpoints, "{text}");
            assert_eq!(source.prefix, prefix, "{text}");
        };
        check("127.0.0.1:2379:/project", &["http://127.0.0.1:2379"], "/project/");
        check("127.0.0.1:2379", &["http://127.0.0.1:2379"], "/");
        check("host", &["http://host:2379"], "/");
        check("host:/a/b/", &["http://host:2379"], "/a/b/");
        check("host:", &["http://host:2379"], "");
        check("host:bare", &["http://host:2379"], "bare/");
        check("http://h:1:", &["http://h:1"], "");
        check("[::1]:2379:/p", &["http://[::1]:2379"], "/p/");
        check("[fe80::1],b:2:/p,q:r", &["http://[fe80::1]:2379", "http://b:2"], "/p,q:r/");
        check("https://h:1:/p", &["https://h:1"], "/p/");
        check("a:1,http://b,c:3", &["http://a:1", "http://b:2379", "http://c:3"], "/");
        check("h:1:/a%00b", &["http://h:1"], "/a\0b/");
    }

    #[test]
    fn a_source_that_is_none_says_why() {
        let error = |text| source(text, "http").expect_err(text);
        assert_eq!(error(""), SourceError::NoHost);
        assert_eq!(error(":/p"), SourceError::NoHost);
        assert_eq!(error("a,:/p"), SourceError::NoHost);
        assert_eq!(error("h:99999"), SourceError::Port("99999".into()));
        assert_eq!(error("ftp://h"), SourceError::Scheme("ftp".into()));
        assert_eq!(error("[::1:/p"), SourceError::Bracket);
        assert_eq!(error("h:2379/project"), SourceError::Colon("h:2379:/project".into()));
        assert_eq!(error("h/project"), SourceError::Colon("h:/project".into()));
        assert!(matches!(error("h:/a//b"), SourceError::Prefix(PrefixError::Spelling { .. })));
        assert_eq!(error("h:.etcfs"), SourceError::Prefix(PrefixError::OwnRecords));
    }

    /// Unknown options are refused by name
    #[test]
    fn options_of_fstab_are_taken_and_unknown_ones_refused_by_name() {
        let config =
            parsed("h:/p /mnt -n -o rw,_netdev,nofail,x-systemd.automount,comment=x,noauto -t etcfs")
                .unwrap();
        assert!(!config.view.read_only && !config.foreground);
        let refused = |options: &str| match parsed(&format!("h /mnt -o {options}")) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("{options} is taken"),
        };
        assert!(refused("ro,colour=red").contains("`colour`"));
        assert!(refused("uid").contains("`uid`"));
        assert!(refused("uid=me").contains("number"));
        assert!(refused("umask=9").contains("octal"));
        assert!(refused("put=later").contains("write or close"));
        assert!(refused("visible=yours").contains("mine or all"));
        assert!(refused("visible=mine,bg").contains("before anything is mounted"));
        assert!(refused("remount").contains("unmount"));
        assert!(parsed("h /mnt -s -o colour=red").is_ok(), "sloppy");
    }

    #[test]
    fn options_set_what_they_name() {
        let config = parsed(
            "-f h /mnt -o ro,allow_other,uid=7,gid=8,umask=077,fmask=0133,percent=escape,rel=dir,put=close \
             -o follow=off,scratch=.#*:x?,max_value=512K,cache=1G,locks=local,lock_ttl=5,quiet,soft,timeo=2.5,retry=0,noexec",
        )
        .unwrap();
        assert!(config.foreground && config.allow_other && config.no_exec && !config.visible_mine);
        assert!(parsed("h /mnt -o visible=mine").unwrap().visible_mine);
        assert_eq!((config.percent, config.rel), (Percent::Escape, Rel::Dir));
        assert_eq!(config.view.patience, Patience::Soft(Duration::from_millis(2500)));
        assert_eq!(config.retry, Duration::ZERO);
        let view = config.view;
        assert!(view.read_only && view.quiet && !view.follow && view.put == Put::Close);
        assert_eq!((view.uid, view.gid, view.file_mode, view.dir_mode), (7, 8, 0o644, 0o700));
        assert_eq!(view.scratch, [".#*", "x?"]);
        assert_eq!((view.value_bytes_max, view.cache_bytes), (512 << 10, 1 << 30));
        assert_eq!((view.locks, view.lock_seconds), (LockScope::Local, 5));
    }

    #[test]
    fn names_of_certificates_mean_tls_and_passwords_have_no_option() {
        let config = parsed("-o cacert=ca.pem,cert=/c,key=/k,credentials=/secret h:1,http://g /mnt").unwrap();
        assert_eq!(config.source.endpoints, ["https://h:1", "http://g:2379"]);
        assert!(config.access.ca.is_some_and(|ca| ca.is_absolute() && ca.ends_with("ca.pem")));
        assert_eq!(config.access.identity, Some(("/c".into(), "/k".into())));
        assert_eq!(config.access.credentials, Some("/secret".into()));
        assert!(parsed("-o cert=/c h /mnt").is_err());
        for option in ["user=ann:secret", "password=secret"] {
            let error = parsed(&format!("-o {option} h /mnt")).unwrap_err().to_string();
            assert!(error.contains("credentials=FILE") && !error.contains("secret"), "{error}");
        }
        parsed("-o user h /mnt").expect("fstab's own word");
    }
}
