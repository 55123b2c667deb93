//! Each promise of the mount's contract is quoted by a test.
//!
//! A promise is a `###` heading of fs/SEMANTICS.md, a sentence of its own; the
//! test that shows it has that sentence in the comment above it.

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

/// The `///` comments of a file's tests, and of what a macro makes tests of, each on one line.
fn quoted(text: &str) -> String {
    let mut comments = String::new();
    let (mut comment, mut is_test) = (String::new(), false);
    for line in text.lines().map(str::trim) {
        if let Some(part) = line.strip_prefix("///") {
            comment.extend([&words(part), " "]);
        } else if line.starts_with("#[") {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
        } else {
            let calls_macro = line.split_once("! {").is_some_and(|(name, _)| !name.contains(' '));
            if is_test || calls_macro {
                comments.extend([&comment, "\n"]);
            }
            comment.clear();
            is_test = false;
        }
    }
    comments
}

#[test]
fn a_promise_is_quoted_by_the_test_below_it() {
    let test = "/// It\n///  holds\n#[tokio::test(start_paused = true)]\nfn f() {}\n";
    assert!(quoted(test).contains("It holds"));
    for other in ["/// It holds\nfn f() {}\n#[test]\nfn g() {}", "/// It holds\n\n#[test]\nfn g() {}"] {
        assert!(!quoted(other).contains("It holds"), "{other}");
    }
}

/// The same words with single spaces between.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
