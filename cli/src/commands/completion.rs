//! `etcfs completion`, and what a shell asks for when somebody presses Tab.
//!
//! The script for a shell calls this binary with `ETCFS_COMPLETE` set and the line so far. Commands, flags and their
//! values come from clap's own table; keys from the servers that the line, the environment or the context names, a
//! directory's worth at a time. (clap_complete has such an engine, not stable yet; its completers are told nothing of
//! the rest of the line, which names the servers.)

use std::{
    env,
    ffi::OsString,
    io::{self, Write as _},
    time::Duration,
};

use bytes::Bytes;
use clap::{Arg, Args, Command, ValueEnum};
use clap_complete::generate;

use super::Arguments;
use crate::{args, connect, contexts, error::CliError, pages::Pages};

/// Says which shell asks.
const VARIABLE: &str = "ETCFS_COMPLETE";
/// Nobody waits longer for a key.
const PATIENCE: Duration = Duration::from_secs(2);
/// More names help nobody.
const NAMES_MAX: usize = 500;
/// The arguments that are keys: command, and clap's id.
const KEYS: [(&str, &str); 19] = [
    ("get", "args"),
    ("put", "args"),
    ("del", "args"),
    ("watch", "args"),
    ("ls", "prefix"),
    ("tree", "prefix"),
    ("cp", "from"),
    ("cp", "to"),
    ("mv", "from"),
    ("mv", "to"),
    ("edit", "key"),
    ("history", "key"),
    ("restore", "what"),
    ("diff", "args"),
    ("export", "prefix"),
    ("import", "prefix"),
    ("run", "key"),
    ("lock", "name"),
    ("elect", "args"),
];

/// Prints a script that teaches a shell to complete this command line; in bash, zsh and fish keys as well.
#[derive(Args, Debug)]
#[command(after_help = "Example: source <(etcfs completion bash)")]
pub(crate) struct CompletionArgs {
    /// The shell that is to read it
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
    #[value(name = "powershell")]
    Power,
}

pub(crate) fn run(args: &CompletionArgs) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    let script = match args.shell {
        Shell::Bash => include_str!("completion/etcfs.bash"),
        Shell::Zsh => include_str!("completion/etcfs.zsh"),
        Shell::Fish => include_str!("completion/etcfs.fish"),
        Shell::Elvish => {
            generate(clap_complete::Shell::Elvish, &mut args::command::<Arguments>(), "etcfs", &mut out);
            return Ok(());
        }
        Shell::Power => {
            generate(clap_complete::Shell::PowerShell, &mut args::command::<Arguments>(), "etcfs", &mut out);
            return Ok(());
        }
    };
    Ok(out.write_all(script.as_bytes())?)
}

/// Whether a script asks, with the line that is being typed behind `--`.
pub(crate) fn is_asked() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Answers a script, a candidate a line; false if none has asked.
pub(crate) fn answer(line: &[OsString]) -> bool {
    let Some(shell) = env::var_os(VARIABLE) else { return false };
    let words = line.iter().skip_while(|word| *word != "--").skip(1);
    let mut words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    // bash cuts words at = and : and expects what comes behind the last cut.
    let mut cut = 0;
    if shell == "bash" {
        words = joined(words);
        cut = words.last().and_then(|word| word.rfind(['=', ':'])).map_or(0, |at| at + 1);
    }
    let mut out = io::stdout().lock();
    for candidate in candidates(&words, |current| keys(&words, current)) {
        if let Some(shown) = candidate.get(cut..) {
            // A shell that has gone needs no answer.
            drop(writeln!(out, "{shown}"));
        }
    }
    true
}

/// Words that bash has cut put together again.
fn joined(words: Vec<String>) -> Vec<String> {
    let mut whole: Vec<String> = Vec::new();
    let mut goes_on = false;
    for word in words {
        let is_cut = !word.is_empty() && word.chars().all(|c| c == '=' || c == ':');
        match whole.last_mut() {
            Some(last) if is_cut || goes_on => last.push_str(&word),
            _ => whole.push(word),
        }
        goes_on = is_cut;
    }
    whole
}

/// What the last of the words may become.
fn candidates(words: &[String], keys: impl FnOnce(&str) -> Vec<String>) -> Vec<String> {
    let Some((current, before)) = words.split_last() else { return Vec::new() };
    let mut root = args::command::<Arguments>();
    root.build();
    let mut command = &root;
    let mut positional = 0;
    let mut expects: Option<&Arg> = None;
    for word in before.iter().skip(1) {
        if expects.take().is_some() {
            continue;
        }
        if word == "--" {
            // Behind it are another program's words.
            return Vec::new();
        }
        if word.starts_with('-') {
            expects = flag(command, word).filter(|arg| takes_next_word(arg) && !word.contains('='));
        } else if let Some(inner) = named(command, word) {
            (command, positional) = (inner, 0);
        } else if command.has_subcommands() {
            // No command, or the begin of several.
            return Vec::new();
        } else {
            positional += 1;
        }
    }
    let mut found = Vec::new();
    if let Some(arg) = expects {
        found = values(arg);
    } else if current.starts_with('-') {
        let flags = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long);
        found.extend(flags.map(|flag| format!("--{flag}")));
    } else {
        let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set());
        found.extend(inner.map(|inner| inner.get_name().to_owned()));
        if let Some(arg) = place(command, positional) {
            if KEYS.contains(&(command.get_name(), arg.get_id().as_str())) {
                return keys(current);
            }
            found.extend(values(arg));
        }
    }
    found.retain(|candidate| candidate.starts_with(current));
    found
}

/// The command that a word stands for: by its name, or by a begin that no other has.
fn named<'a>(command: &'a Command, word: &str) -> Option<&'a Command> {
    command.find_subcommand(word).or_else(|| {
        let mut found = command.get_subcommands().filter(|inner| inner.get_name().starts_with(word));
        let first = found.next()?;
        found.next().is_none().then_some(first)
    })
}

fn flag<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or_default();
    command.get_arguments().find(|arg| match name.strip_prefix("--") {
        Some(long) => arg.get_long() == Some(long),
        None => name.chars().nth(1).is_some_and(|short| arg.get_short() == Some(short)) && name.len() == 2,
    })
}

fn takes_next_word(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

fn values(arg: &Arg) -> Vec<String> {
    arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect()
}

/// The positional argument that is next; the last one may have many words.
fn place(command: &Command, number: usize) -> Option<&Arg> {
    let places: Vec<&Arg> = command.get_positionals().filter(|arg| !arg.is_last_set()).collect();
    let last = places.last().copied().filter(|arg| arg.get_num_args().is_some_and(|n| n.max_values() > 1));
    places.get(number).copied().or(last)
}

/// Keys that begin so, each up to its next slash. Whatever fails, there are just none.
fn keys(typed: &[String], current: &str) -> Vec<String> {
    let Ok(Arguments { mut global, .. }) = Arguments::read(line(typed)) else { return Vec::new() };
    let security = &global.security;
    if security.user.as_ref().is_some_and(|user| !user.contains(':'))
        && security.password.is_none()
        && security.password_file.is_none()
    {
        // A question for the password would go into the line that is being typed.
        return Vec::new();
    }
    global.command_timeout = PATIENCE.min(global.command_timeout);
    global.dial_timeout = PATIENCE.min(global.dial_timeout);
    let found = super::wait(async {
        connect::discover(&mut global).await?;
        let client = connect::client(&global)?;
        let mut pages = Pages::of(&client, &Bytes::from(current.to_owned()), true, 0);
        let mut names = Names::new(current);
        while names.found.len() < NAMES_MAX
            && let Some(page) = pages.next().await?
        {
            for kv in page {
                if let Some(directory) = names.take(&kv.key) {
                    pages.skip(&directory);
                }
            }
        }
        Ok(names.found)
    });
    found.unwrap_or_default()
}

/// A line that reads as the options do which say where the servers are.
fn line(typed: &[String]) -> Vec<OsString> {
    let mut line = vec!["etcfs".into(), "ls".into()];
    let mut typed = typed.iter();
    while let Some(word) = typed.next() {
        let Some(flag) = word.strip_prefix("--") else { continue };
        let name = flag.split('=').next().unwrap_or_default();
        if !contexts::SETTINGS.contains(&name) && !["context", "password"].contains(&name) {
            continue;
        }
        line.push(word.into());
        if !flag.contains('=') && !name.starts_with("insecure") {
            line.extend(typed.next().map(OsString::from));
        }
    }
    line
}

/// Names as they are found, in order: keys, and directories once each.
struct Names {
    /// Bytes that were typed up to their last slash.
    base: usize,
    found: Vec<String>,
}

impl Names {
    fn new(current: &str) -> Self {
        Self { base: current.rfind('/').map_or(0, |at| at + 1), found: Vec::new() }
    }

    /// Takes a key; gives the directory that it lies in, if that stands for it.
    fn take(&mut self, key: &[u8]) -> Option<Bytes> {
        let slash = key.get(self.base..)?.iter().position(|byte| *byte == b'/');
        let name = slash.map_or(key, |at| &key[..=self.base + at]);
        let plain = |text: &&str| !text.contains(|c: char| c.is_control() || c.is_whitespace());
        // What can't be typed as it is would only spoil the line.
        if let Some(text) = str::from_utf8(name).ok().filter(plain)
            && self.found.last().is_none_or(|last| last != text)
        {
            self.found.push(text.to_owned());
        }
        slash.map(|_| Bytes::copy_from_slice(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn after(line: &str) -> String {
        candidates(&words(line), |current| vec![format!("keys of {current}")]).join(" ")
    }

    #[test]
    fn every_argument_that_is_a_key_is_there() {
        let command = args::command::<Arguments>();
        for (name, id) in KEYS {
            let found =
                command.find_subcommand(name).is_some_and(|c| c.get_positionals().any(|a| a.get_id() == id));
            assert!(found, "{name} {id}");
        }
    }

    #[test]
    fn commands_flags_values_and_keys_are_completed() {
        assert_eq!(after("etcfs sn"), "snapshot");
        assert_eq!(after("etcfs snapshot re"), "restore");
        assert_eq!(after("etcfs --endpoints x:1 mem"), "member");
        assert_eq!(after("etcfs get --print-v"), "--print-value-only");
        assert_eq!(after("etcfs get --endp"), "--endpoints");
        assert_eq!(after("etcfs completion z"), "zsh");
        assert_eq!(after("etcfs check perf --load x"), "xl");
        assert_eq!(after("etcfs get /a"), "keys of /a");
        assert_eq!(after("etcfs -w json get --prefix /a /b"), "keys of /b");
        assert_eq!(after("etcfs cp /a "), "keys of ");
        assert_eq!(after("etcfs edit /a /b"), "", "it takes one");
        assert_eq!(after("etcfs snap re"), "restore", "a command's begin");
        assert_eq!(after("etcfs mem li --cons"), "--consistency");
        assert_eq!(after("etcfs g --prefix /a"), "keys of /a");
        assert_eq!(after("etcfs m l"), "", "it may be member, migrate, mount, mv ...");
        assert_eq!(after("etcfs run /a -- ma"), "", "a program's words");
        assert_eq!(after("etcfs up ./ke"), "", "a file, which the shell knows");
    }

    #[test]
    fn what_bash_cut_is_put_together() {
        let cut = ["get", "--endpoints", "=", "a", ":", "1", "/k", ":", ""].map(str::to_owned).to_vec();
        assert_eq!(joined(cut), ["get", "--endpoints=a:1", "/k:"]);
        assert_eq!(joined(words("get /k ")), ["get", "/k", ""]);
    }

    #[test]
    fn a_directory_stands_for_what_is_in_it() {
        let mut names = Names::new("/a/b");
        assert_eq!(names.take(b"/a/b"), None);
        assert_eq!(names.take(b"/a/b/c"), Some(Bytes::from("/a/b/")));
        assert_eq!(names.take(b"/a/b/d"), Some(Bytes::from("/a/b/")));
        assert_eq!(names.take(b"/a/b o"), None);
        assert_eq!(names.take(b"/a/bc"), None);
        assert_eq!(names.found, ["/a/b", "/a/b/", "/a/bc"]);
    }

    #[test]
    fn options_that_name_servers_are_found_in_an_unfinished_line() {
        let typed = words("etcfs get --prefix --endpoints a:1 --cacert=f -w json --insecure-transport /k");
        assert_eq!(line(&typed), ["etcfs", "ls", "--endpoints", "a:1", "--cacert=f", "--insecure-transport"]);
    }
}
