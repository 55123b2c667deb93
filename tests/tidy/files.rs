//! What every file keeps to: its length, its first lines, its letters, its name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{none, root};

/// Lines of code a file may have; its tests at the end are not counted.
const LINES_MAX: usize = 800;
/// Where the code of the workspace lies.
const FOLDERS: [&str; 5] = ["proto", "server", "fs", "cli", "tests"];
/// Names that say nothing: a question not yet answered.
const EMPTY_NAMES: [&str; 8] = ["util", "utils", "helper", "helpers", "manager", "misc", "common", "stuff"];
/// Where waiting is somebody's job: the waits of the harness, the pauses of clients whose server is away,
/// and the random moment of a kill.
// Simulated time costs nothing to let pass.
const MAY_SLEEP: [&str; 5] =
    ["tests/src/wait.rs", "tests/src/load.rs", "tests/chaos/", "tests/sim/", "server/src/raft/tests.rs"];

/// Every file below `dir` with this extension.
pub(crate) fn below(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries {
        let path = entry.expect("a directory can be read").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                found.extend(below(&path, extension));
            }
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Every Rust file of the workspace, by its path from the root, with its text.
pub(crate) fn code() -> Vec<(String, String)> {
    let files = FOLDERS.iter().flat_map(|folder| below(&root().join(folder), "rs"));
    files
        .map(|file| {
            let text = fs::read_to_string(&file).expect("code is text");
            let name = file.strip_prefix(root()).expect("below the root").display().to_string();
            (name, text)
        })
        .collect()
}

/// Checks every Rust file; `breach` says what is wrong with one.
#[track_caller]
fn each(breach: impl Fn(&str, &str) -> Option<String>) {
    let files = code();
    assert!(files.len() > 30, "the code is found");
    none(files.iter().filter_map(|(name, text)| Some(format!("{name}: {}", breach(name, text)?))).collect());
}

#[test]
fn no_file_is_longer_than_800_lines() {
    each(|_, text| {
        let code = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        (code > LINES_MAX).then(|| format!("{code} lines; split it before {LINES_MAX}"))
    });
}

#[test]
fn every_module_begins_with_what_it_is_for() {
    each(|name, text| {
        // A module's own tests say by their name what they are for.
        let named = text.starts_with("//!") || name.ends_with("tests.rs") || name.ends_with("_test.rs");
        (!named).then(|| "does not begin with `//!`".to_owned())
    });
}

#[test]
fn sources_are_ascii() {
    each(|_, text| {
        let line = text.lines().position(|line| !line.is_ascii())?;
        Some(format!("line {} is not ASCII (write \\u{{..}})", line + 1))
    });
}

#[test]
fn no_file_is_named_for_nothing() {
    each(|name, _| {
        let word = name.split(['/', '.']).find(|part| EMPTY_NAMES.contains(part))?;
        Some(format!("`{word}` is no name"))
    });
}

#[test]
fn tests_wait_for_conditions_and_skip_nothing() {
    each(|name, text| {
        let in_tests = name.starts_with("tests/") || name.contains("/tests");
        // Spelled in two parts, so that this file does not find itself.
        let sleeps = concat!("sl", "eep(");
        if in_tests && !MAY_SLEEP.iter().any(|place| name.starts_with(place)) && text.contains(sleeps) {
            return Some("sleeps; wait for a condition (tests/src/wait.rs)".to_owned());
        }
        let ignored = concat!("#[ign", "ore");
        text.contains(ignored).then(|| "ignores a test; a test runs, or is not written".to_owned())
    });
}

#[test]
fn the_top_level_holds_what_architecture_says() {
    const EXPECTED: [&str; 20] = [
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "cli",
        "clippy.toml",
        "deny.toml",
        "fs",
        "justfile",
        "man",
        "proto",
        "rustfmt.toml",
        "server",
        "tests",
        "target",
        "keys",
    ];
    let mut breaches = Vec::new();
    for entry in fs::read_dir(root()).expect("the root can be read") {
        let name = entry.expect("the root can be read").file_name().display().to_string();
        // What the user made of the README's first command is theirs.
        if !name.starts_with('.') && !name.starts_with("keys") && !EXPECTED.contains(&name.as_str()) {
            breaches.push(format!("{name} has no place at the top level"));
        }
    }
    none(breaches);
}

/// Where openraft asks for another version, cargo but warns that ours stands in for nothing, and a server takes 25 MB
/// more.
#[test]
fn what_stands_in_for_openrafts_histograms_is_what_is_built() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("it is committed");
    let is_it = |package: &&str| package.contains("name = \"base2histogram\"");
    let found: Vec<&str> = lock.split("[[package]]").filter(is_it).collect();
    assert!(matches!(found[..], [one] if !one.contains("source = ")), "{found:?}");
}
