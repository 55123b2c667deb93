//! Each flag of each binary stands in its manual page, and each flag of a page
//! in its binary.

use std::{collections::BTreeSet, fs, process::Command};

use etcfs_tests::{binary, command};

use crate::{none, root};

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
    assert_eq!(flags(help).into_iter().collect::<Vec<_>>(), ["help", "hex", "write-out"]);
}
