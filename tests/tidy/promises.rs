//! Each promise of the mount's contract is quoted by a test.
//!
//! A promise is a `###` heading of fs/SEMANTICS.md, a sentence of its own; the
//! test that shows it has that sentence in its comment.

use std::fs;

use crate::{files, none, root};

#[test]
fn every_promise_of_the_mount_is_quoted_by_a_test() {
    let contract = fs::read_to_string(root().join("fs/SEMANTICS.md")).expect("fs/SEMANTICS.md");
    let promises: Vec<&str> = contract.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert!(promises.len() > 10, "the contract has its promises as headings");
    let comments: String = files::code()
        .iter()
        .filter(|(name, _)| name.starts_with("fs/") || name.starts_with("tests/"))
        .map(|(_, text)| quoted(text))
        .collect();
    let unquoted = promises.iter().filter(|promise| !comments.contains(&words(promise)));
    none(unquoted.map(|promise| format!("no test quotes \"{promise}\"")).collect());
}

/// The `///` comments of a file, each on one line.
fn quoted(text: &str) -> String {
    let mut comments = String::new();
    for line in text.lines() {
        match line.trim_start().strip_prefix("///") {
            Some(part) => comments.extend([&words(part), " "]),
            None => comments.push('\n'),
        }
    }
    comments
}

/// The same words with single spaces between.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
