//! Each flag of each binary stands in its manual page, and each flag of a page
//! in its binary.

use std::{collections::BTreeSet, fs, process::Command};

use etcfs_tests::{binary, command};

use crate::{files, none, root};

/// Commands that the system has as well.
const NAMESAKES: [&str; 2] = ["mount", "umount"];

/// Flags that every command has.
const EVERYWHERE: [&str; 2] = ["help", "version"];

#[test]
fn every_flag_of_etcfsd_stands_in_its_manual() {
    compare(&flags(&help(&binary::etcfsd(), &[])), "etcfsd.8");
}

#[test]
fn every_flag_of_mount_etcfs_stands_in_its_manual() {
    compare(&flags(&help(&binary::mount_etcfs(), &[])), "mount.etcfs.8");
}

#[test]
fn every_flag_and_command_of_etcfs_stands_in_its_manual() {
    let page = page("etcfs.1");
    let mut all = BTreeSet::new();
    let mut breaches = Vec::new();
    let mut todo = vec![vec![]];
    while let Some(words) = todo.pop() {
        let text = help(&binary::etcfs(), &words);
        all.extend(flags(&text));
        for name in commands(&text) {
            if !page.lines().any(|line| line.split_whitespace().any(|word| word == name)) {
                breaches.push(format!("man/etcfs.1 does not mention the command {} {name}", words.join(" ")));
            }
            todo.push(words.iter().cloned().chain([name]).collect());
        }
    }
    none(breaches);
    compare(&all, "etcfs.1");
}

/// Each command, by its words; those that only hold others are left out.
fn all_commands() -> Vec<Vec<String>> {
    let mut leaves = Vec::new();
    let mut todo = vec![vec![]];
    while let Some(words) = todo.pop() {
        let inner = commands(&help(&binary::etcfs(), &words));
        if inner.is_empty() {
            leaves.push(words.clone());
        }
        todo.extend(inner.into_iter().map(|name| words.iter().cloned().chain([name]).collect()));
    }
    leaves
}

/// The words of a command that the page describes, alternatives among them.
fn described(item: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut is_command = true;
    for word in item.split(' ') {
        if is_macro(word) {
            is_command = word == "Cm";
        } else if is_command {
            words.push(word);
        }
    }
    words
}

#[test]
fn every_command_is_described_and_has_an_example_and_a_test() {
    let page = page("etcfs.1");
    let items: Vec<_> = page.lines().filter_map(|line| line.strip_prefix(".It Cm ")).map(described).collect();
    let tests: Vec<String> = files::code()
        .into_iter()
        .filter(|(name, _)| name.starts_with("tests/") && !name.starts_with("tests/tidy/"))
        .map(|(_, text)| text)
        .collect();
    let mut breaches = Vec::new();
    for words in all_commands() {
        let (line, list) = (words.join(" "), words.join("\", \""));
        // In one string, behind its quote or behind other words; or word by word.
        let forms = [
            format!("\"{line}\""),
            format!("\"{line} "),
            format!("etcfs {line}"),
            format!("\"{list}\""),
            format!(" {line} "),
        ];
        let forms = match &words[..] {
            // Tests call the system's programs by these names too.
            [name] if NAMESAKES.contains(&name.as_str()) => &[format!("run([\"{name}\"")][..],
            [_] => &forms[..4],
            _ => &forms[..],
        };
        if !tests.iter().any(|text| forms.iter().any(|form| text.contains(form))) {
            breaches.push(format!("no test runs etcfs {line}"));
        }
        let describes = |item: &Vec<&str>| {
            item.first() == words.first().map(String::as_str).as_ref()
                && words.iter().all(|word| item.contains(&word.as_str()))
        };
        if !items.iter().any(describes) {
            breaches.push(format!("man/etcfs.1 does not describe etcfs {line}"));
        }
        if !help(&binary::etcfs(), &words).contains("Example: ") {
            breaches.push(format!("etcfs {line} --help has no example"));
        }
    }
    none(breaches);
}

#[test]
fn every_command_of_the_manual_is_one() {
    let mut breaches = Vec::new();
    let root = commands(&help(&binary::etcfs(), &[]));
    for line in page("etcfs.1").lines().filter_map(|line| line.strip_prefix(".It Cm ")) {
        let words: Vec<String> =
            line.split(' ').take_while(|word| !is_macro(word)).map(str::to_owned).collect();
        let (first, rest) = words.split_first().expect("a command has a name");
        let known = first == "help"
            || root.contains(first)
                && rest.first().is_none_or(|second| {
                    commands(&help(&binary::etcfs(), std::slice::from_ref(first))).contains(second)
                });
        if !known {
            breaches.push(format!("man/etcfs.1 has a command that the binary has not: {}", words.join(" ")));
        }
    }
    none(breaches);
}

/// mdoc's macros begin with a capital, commands do not.
fn is_macro(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase()) || word == "|"
}

#[test]
fn every_attribute_of_a_file_stands_in_its_manual() {
    let code = source("fs/src/ops/xattr.rs");
    let of_code = code
        .lines()
        .filter_map(|line| line.strip_prefix("const ")?.split_once("= \"user.etcfs."))
        .map(|(_, name)| name.trim_end_matches("\";").to_owned());
    let page = page("etcfs.7");
    let items = page.lines().filter_map(|line| line.strip_prefix(".It Li user.etcfs."));
    let of_page = items.flat_map(|list| list.split(" , ")).map(str::to_owned).collect();
    same(&of_code.collect(), &of_page, "etcfs.7", "the attribute user.etcfs.");
}

#[test]
fn every_option_of_a_mount_stands_in_its_manual() {
    // Known only to be refused with a word on what to do instead.
    let refused = ["user", "remount"];
    let code = source("fs/src/args.rs");
    let (_, taken) = code.split_once("fn take(").expect("options are taken one by one");
    let (taken, _) = taken.split_once("IGNORED.contains").expect("then come those that mean nothing");
    let names = taken.lines().filter_map(|line| line.trim_start().strip_prefix("(\"")?.split_once('"'));
    let of_code = names.map(|(name, _)| name.to_owned()).filter(|name| !refused.contains(&name.as_str()));
    let page = page("mount.etcfs.8");
    let items = page.lines().filter_map(|line| line.strip_prefix(".It Cm "));
    let names = items.flat_map(|list| list.split(" , ")).map(|item| item.trim_start_matches("Cm "));
    let of_page = names.filter_map(|item| item.split(' ').next()).map(str::to_owned).collect();
    same(&of_code.collect(), &of_page, "mount.etcfs.8", "the option ");
}

fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn same(of_code: &BTreeSet<String>, of_page: &BTreeSet<String>, page: &str, what: &str) {
    assert!(of_code.len() > 5, "{what}: {of_code:?}");
    let missing = of_code.difference(of_page).map(|name| format!("man/{page} lacks {what}{name}"));
    let stale =
        of_page.difference(of_code).map(|name| format!("man/{page} has {what}{name}, which is not there"));
    none(missing.chain(stale).collect());
}

#[track_caller]
fn compare(of_binary: &BTreeSet<String>, name: &str) {
    let of_page: BTreeSet<String> = page(name)
        .split("Fl -")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>())
        .collect();
    let without = |flag: &&String| !EVERYWHERE.contains(&flag.as_str());
    let missing = of_binary.difference(&of_page).filter(without);
    let stale = of_page.difference(of_binary).filter(without);
    none(
        missing
            .map(|flag| format!("man/{name} lacks --{flag}"))
            .chain(stale.map(|flag| format!("man/{name} has --{flag}, which the binary has not")))
            .collect(),
    );
}

fn page(name: &str) -> String {
    let path = root().join("man").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn help(binary: &std::path::Path, words: &[String]) -> String {
    command::run(Command::new(binary).args(words).arg("--help"), b"").ok()
}

/// The long flags that a help text lists.
fn flags(help: &str) -> BTreeSet<String> {
    help.lines()
        .map(str::trim_start)
        // `-x, --name <VALUE>` or `--name`; a mention inside a sentence is none.
        .filter_map(|line| {
            let line = if line.starts_with("--") {
                line
            } else {
                line.get(4..).filter(|_| line.starts_with('-'))?
            };
            line.strip_prefix("--")
        })
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect())
        .collect()
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    list.take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_help_text_is_read_as_it_is_written() {
    let help = "Usage: x\n\nCommands:\n  get   Gets\n  help  Print this\n\nOptions:\n  -w, --write-out <W>  Like --not-this\n      \
                --hex            Hex\n  -h, --help           Help\n";
    assert_eq!(commands(help), ["get"]);
    assert_eq!(described("endpoint Oo Fl -cluster Oc Cm health"), ["endpoint", "health"]);
    assert_eq!(described("mount Ar source Ar dir Op Fl o Ar options"), ["mount"]);
    assert_eq!(flags(help).into_iter().collect::<Vec<_>>(), ["help", "hex", "write-out"]);
}
