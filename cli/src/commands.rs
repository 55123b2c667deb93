//! The commands, one file each: arguments, their help, and what they do.

pub(crate) mod alarm;
pub(crate) mod auth;
pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod compaction;
pub(crate) mod completion;
pub(crate) mod context;
pub(crate) mod cp;
pub(crate) mod defrag;
pub(crate) mod del;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod downgrade;
pub(crate) mod edit;
pub(crate) mod elect;
pub(crate) mod endpoint;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod hashkv;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod ls;
pub(crate) mod make_mirror;
pub(crate) mod member;
pub(crate) mod migrate;
pub(crate) mod mount;
pub(crate) mod move_leader;
pub(crate) mod mv;
pub(crate) mod put;
pub(crate) mod range;
pub(crate) mod restore;
pub(crate) mod role;
pub(crate) mod run;
pub(crate) mod snapshot;
pub(crate) mod top;
pub(crate) mod tree;
pub(crate) mod txn;
pub(crate) mod umount;
pub(crate) mod up;
pub(crate) mod user;
pub(crate) mod version;
pub(crate) mod watch;
pub(crate) mod whoami;

use std::{env, ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    args::{self, Global, Settings},
    connect, contexts,
    error::{self, CliError},
    mounted::{self, Mounted},
};

/// The command line of etcfs: an etcd-compatible cluster and its file system.
#[derive(Debug, Parser)]
#[command(name = "etcfs", disable_version_flag = true, max_term_width = 100)]
#[command(after_help = "Try it: `etcfs up ./keys` serves keys and mounts them at ./keys.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Commands, in the order in which people meet them. The begins of names that are aliases are etcdctl's: there no
/// other command begins so.
#[derive(Debug, Subcommand)]
enum Command {
    Up(up::UpArgs),
    Mount(mount::MountArgs),
    Umount(umount::UmountArgs),
    Get(get::GetArgs),
    Put(put::PutArgs),
    Del(del::DelArgs),
    Ls(ls::LsArgs),
    Tree(tree::TreeArgs),
    Cp(cp::CpArgs),
    Mv(mv::MvArgs),
    Edit(edit::EditArgs),
    History(history::HistoryArgs),
    Diff(diff::DiffArgs),
    Restore(restore::RestoreArgs),
    #[command(alias = "t")]
    Txn(txn::TxnArgs),
    #[command(alias = "w")]
    Watch(watch::WatchArgs),
    Export(export::ExportArgs),
    Import(import::ImportArgs),
    Run(run::RunArgs),
    Lease(lease::LeaseArgs),
    Lock(lock::LockArgs),
    Elect(elect::ElectArgs),
    Compaction(compaction::CompactionArgs),
    Endpoint(endpoint::EndpointArgs),
    Member(member::MemberArgs),
    #[command(alias = "mo")]
    MoveLeader(move_leader::MoveLeaderArgs),
    Alarm(alarm::AlarmArgs),
    Defrag(defrag::DefragArgs),
    Snapshot(snapshot::SnapshotArgs),
    Hashkv(hashkv::HashkvArgs),
    MakeMirror(make_mirror::MakeMirrorArgs),
    Migrate(migrate::MigrateArgs),
    #[command(alias = "do")]
    Downgrade(downgrade::DowngradeArgs),
    Top(top::TopArgs),
    Doctor(doctor::DoctorArgs),
    Check(check::CheckArgs),
    Auth(auth::AuthArgs),
    #[command(alias = "u")]
    User(user::UserArgs),
    #[command(alias = "r")]
    Role(role::RoleArgs),
    Whoami(whoami::WhoamiArgs),
    Bench(bench::BenchArgs),
    Context(context::ContextArgs),
    Completion(completion::CompletionArgs),
    Version(version::VersionArgs),
    /// Runs one part of `up`; not for people.
    #[command(hide = true, name = up::child::NAME)]
    UpChild(up::child::ChildArgs),
}

impl Arguments {
    /// Reads a command line, with what environment and context add to it.
    pub(crate) fn read(line: impl IntoIterator<Item = OsString>) -> Result<Self, Unread> {
        let line: Vec<OsString> = line.into_iter().collect();
        let parse = |context: &Settings| {
            let parsed = args::parse::<Self>(line.clone(), |name| env::var_os(name), context);
            parsed.map_err(Unread::Refused)
        };
        let (mut arguments, named) = parse(&Settings::default())?;
        if !arguments.command.asks_servers() {
            return Ok(arguments);
        }
        let mounted = arguments.take_paths().map_err(Unread::Failed)?;
        if let Some(endpoints) = mounted
            && !named.servers
            && !named.context
        {
            arguments.global.endpoints = endpoints;
            return Ok(arguments);
        }
        let context = contexts::chosen(&arguments.global, named).map_err(Unread::Failed)?;
        if context.values.is_empty() {
            return Ok(arguments);
        }
        let (mut arguments, _) = parse(&context)?;
        arguments.take_paths().map_err(Unread::Failed)?;
        Ok(arguments)
    }

    /// Takes paths in a mount for the keys that they show; says which servers that mount has.
    fn take_paths(&mut self) -> Result<Option<Vec<String>>, CliError> {
        let keys = match &mut self.command {
            Command::Get(args) => args.keys_mut(),
            Command::History(args) => args.keys_mut(),
            Command::Watch(args) => args.keys_mut(),
            _ => return Ok(None),
        };
        let scheme = self.global.security.scheme();
        let mut servers = None;
        for key in keys {
            if let Some(Mounted { key: shown, endpoints }) = mounted::resolve(key, scheme)? {
                *key = shown;
                servers = Some(endpoints);
            }
        }
        Ok(servers)
    }
}

/// A command line that is not carried out.
#[derive(Debug)]
pub(crate) enum Unread {
    /// clap has the words for it, be they those that were asked for.
    Refused(clap::Error),
    Failed(CliError),
}

impl Unread {
    pub(crate) fn report(self) -> ExitCode {
        match self {
            Self::Refused(refused) => error::refused(&refused),
            Self::Failed(error) => error.report(),
        }
    }
}

impl Command {
    fn asks_servers(&self) -> bool {
        !matches!(
            self,
            Self::Up(_)
                | Self::UpChild(_)
                | Self::Mount(_)
                | Self::Umount(_)
                | Self::Completion(_)
                | Self::Context(_)
                | Self::Hashkv(_)
                | Self::Version(_)
        )
    }
}

/// Runs one command line.
pub(crate) fn run(Arguments { mut global, command }: Arguments) -> Result<ExitCode, CliError> {
    if global.debug {
        let to_stderr =
            tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::DEBUG);
        to_stderr.init();
    }
    if command.asks_servers() {
        wait(connect::discover(&mut global))?;
    }
    let done = match command {
        Command::Up(args) => up::run(&args),
        Command::Mount(args) => return Ok(mount::run(args)),
        Command::Umount(args) => umount::run(&args),
        Command::UpChild(args) => return up::child::run(args),
        Command::Get(args) => wait(get::run(&global, args)),
        Command::Put(args) => wait(put::run(&global, args)),
        Command::Del(args) => wait(del::run(&global, args)),
        Command::Ls(args) => wait(ls::run(&global, args)),
        Command::Tree(args) => wait(tree::run(&global, args)),
        Command::Cp(args) => wait(cp::run(&global, args)),
        Command::Mv(args) => wait(mv::run(&global, args)),
        Command::Edit(args) => wait(edit::run(&global, args)),
        Command::History(args) => wait(history::run(&global, args)),
        Command::Diff(args) => wait(diff::run(&global, args)),
        Command::Restore(args) => wait(restore::run(&global, args)),
        Command::Txn(args) => wait(txn::run(&global, args)),
        Command::Watch(args) => wait(watch::run(&global, args)),
        Command::Export(args) => wait(export::run(&global, args)),
        Command::Import(args) => wait(import::run(&global, args)),
        Command::Run(args) => wait(run::run(&global, args)),
        Command::Lease(args) => wait(lease::run(&global, args)),
        Command::Lock(args) => return wait(lock::run(&global, args)),
        Command::Elect(args) => wait(elect::run(&global, args)),
        Command::Compaction(args) => wait(compaction::run(&global, args)),
        Command::Endpoint(args) => wait(endpoint::run(&global, args)),
        Command::Member(args) => wait(member::run(&global, args)),
        Command::MoveLeader(args) => wait(move_leader::run(&global, &args)),
        Command::Migrate(args) => wait(migrate::run(&global, args)),
        Command::Downgrade(args) => wait(downgrade::run(&global, args)),
        Command::Top(args) => wait(top::run(&global, args)),
        Command::Context(args) => context::run(args),
        Command::Alarm(args) => wait(alarm::run(&global, args)),
        Command::Defrag(args) => wait(defrag::run(&global, &args)),
        Command::Snapshot(args) => wait(snapshot::run(&global, args)),
        Command::Hashkv(args) => hashkv::run(&global, &args),
        Command::MakeMirror(args) => wait(make_mirror::run(&global, args)),
        Command::Doctor(args) => wait(doctor::run(&global, args)),
        Command::Auth(args) => wait(auth::run(&global, args)),
        Command::User(args) => wait(user::run(&global, args)),
        Command::Role(args) => wait(role::run(&global, args)),
        Command::Whoami(args) => wait(whoami::run(&global, args)),
        Command::Completion(args) => completion::run(&args),
        Command::Check(args) => check::run(&global, args),
        Command::Version(args) => version::run(&args),
        Command::Bench(args) => bench::run(&global, args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Waits for a command that talks to a server; one thread is enough for it.
fn wait<T>(command: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(command);
    // Not by drop: that would wait for a read of standard input to end.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_end_where_the_command_of_a_lock_begins() {
        let lock = |line: &str| {
            let words = line.split(' ').map(OsString::from);
            let Arguments { global, command } = args::read(words).unwrap();
            let Command::Lock(lock) = command else { panic!("{line}") };
            (global.write_out, format!("{lock:?}").replace('"', "'"))
        };
        let wanted =
            "LockArgs { name: Some('n'), command: ['sh', '-c', 'true', '--ttl', '--', 'x'], ttl: 5 }";
        let wanted = (Some("json".to_owned()), wanted.to_owned());
        assert_eq!(lock("etcfs lock n --ttl 5 -w json sh -c true --ttl -- x"), wanted);
        assert_eq!(lock("etcfs lock --ttl=5 n -w json -- sh -c true --ttl -- x"), wanted);
        assert_eq!(lock("etcfs -w json lock --ttl 5 -- n sh -c true --ttl -- x"), wanted);
    }

    #[test]
    fn the_command_line_is_well_formed() {
        args::command::<Arguments>().debug_assert();
    }

    /// Every command shows how it is used, by a line that it takes.
    #[test]
    fn every_help_text_has_an_example_that_is_right() {
        let mut root = args::command::<Arguments>();
        root.build();
        let shown = |inner: &&clap::Command| !inner.is_hide_set() && inner.get_name() != "help";
        let mut todo: Vec<_> = root.get_subcommands().filter(shown).collect();
        let mut seen = 0;
        while let Some(command) = todo.pop() {
            let inner: Vec<_> = command.get_subcommands().filter(shown).collect();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = help.lines().next().and_then(|line| line.strip_prefix("Example: "));
            if inner.is_empty() {
                let name = command.get_bin_name().unwrap_or_default();
                let example = example.unwrap_or_else(|| panic!("{name} --help has no example"));
                assert!(example.contains(name.trim_start_matches("etcfs ")), "{name}: {example}");
                seen += 1;
            }
            if let Some(at) = example.and_then(|example| example.find("etcfs ").map(|at| &example[at..])) {
                let line = at.trim_end_matches(')');
                let words = crate::words::split(line).expect("words");
                let words = words.into_iter().map(|word| String::from_utf8(word).expect("text"));
                args::command::<Arguments>()
                    .try_get_matches_from(words)
                    .unwrap_or_else(|refused| panic!("{line}: {refused}"));
            }
            todo.extend(inner);
        }
        assert!(seen > 60, "{seen}");
    }

    /// etcdctl's commands, and those below them.
    const ETCDCTLS: [(&str, &[&str]); 11] = [
        (
            "",
            &[
                "alarm",
                "auth",
                "check",
                "compaction",
                "completion",
                "defrag",
                "del",
                "downgrade",
                "elect",
                "endpoint",
                "get",
                "help",
                "lease",
                "lock",
                "make-mirror",
                "member",
                "move-leader",
                "put",
                "role",
                "snapshot",
                "txn",
                "user",
                "version",
                "watch",
            ],
        ),
        ("alarm", &["disarm", "list"]),
        ("auth", &["disable", "enable", "status"]),
        ("check", &["datascale", "perf"]),
        ("downgrade", &["cancel", "enable", "validate"]),
        ("endpoint", &["hashkv", "health", "status"]),
        ("lease", &["grant", "keep-alive", "list", "revoke", "timetolive"]),
        ("member", &["add", "list", "promote", "remove", "update"]),
        ("role", &["add", "delete", "get", "grant-permission", "list", "revoke-permission"]),
        ("snapshot", &["restore", "save", "status"]),
        ("user", &["add", "delete", "get", "grant-role", "list", "passwd", "revoke-role"]),
    ];

    /// But for `h`, which here may begin `history` too.
    #[test]
    fn the_begin_of_a_name_is_enough_where_it_is_for_etcdctl() {
        let help = |words: &[&str]| {
            let words = words.iter().filter(|word| !word.is_empty());
            let shown = args::command::<Arguments>().try_get_matches_from(words).unwrap_err();
            (shown.kind(), shown.to_string())
        };
        let mut wrong = Vec::new();
        for (parent, names) in ETCDCTLS {
            for name in names {
                let last = if *name == "help" { "get" } else { "--help" };
                let whole = help(&["etcfs", parent, name, last]);
                assert_eq!(whole.0, clap::error::ErrorKind::DisplayHelp, "{parent} {name}");
                for begin in (1..name.len()).map(|end| &name[..end]) {
                    let theirs = names.iter().filter(|name| name.starts_with(begin)).count();
                    let is_one = theirs == 1 && (parent, begin) != ("", "h");
                    if is_one && help(&["etcfs", parent, begin, last]) != whole {
                        wrong.push(format!("{parent} {begin} ({name})"));
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// One that has would hide the other, and be read as what it is not: so once `history KEY`.
    #[test]
    fn no_argument_of_a_command_has_the_id_of_a_global_one() {
        let command = args::command::<Arguments>();
        let global: Vec<_> =
            command.get_arguments().filter(|arg| arg.is_global_set()).map(clap::Arg::get_id).collect();
        let mut commands: Vec<_> = command.get_subcommands().collect();
        while let Some(command) = commands.pop() {
            for arg in command.get_arguments() {
                assert!(!global.contains(&arg.get_id()), "{}: {}", command.get_name(), arg.get_id());
            }
            commands.extend(command.get_subcommands());
        }
    }
}
