//! Which code a record speaks of.

use std::process::Command;

use crate::{command, machine};

/// The commit of the code under test; marked where the code is not quite it.
pub fn head() -> String {
    let git = |args: &[&str]| {
        let mut git = Command::new(machine::program("git"));
        command::run(git.args(args).current_dir(env!("CARGO_MANIFEST_DIR")), b"")
    };
    let head = git(&["rev-parse", "HEAD"]);
    if head.code != 0 {
        return "unknown".into();
    }
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).stdout;
    let mark = if changed.trim().is_empty() { "" } else { " with changes" };
    format!("{}{mark}", head.stdout.trim())
}
