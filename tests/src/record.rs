//! Where records of runs go.

use std::{env, fmt::Display, fs, path::PathBuf};

use crate::process::show;

/// Writes a record, as JSON on several lines, where `ETCFS_TEST_RECORDS` says, or below `built`: what cargo gives tests.
pub fn keep(built: &str, name: &str, record: &impl Display) {
    let dir = env::var_os("ETCFS_TEST_RECORDS").map(PathBuf::from);
    let dir = dir.unwrap_or_else(|| PathBuf::from(built).join("records"));
    fs::create_dir_all(&dir).expect("a directory for records");
    fs::write(dir.join(name), format!("{record:#}\n")).expect("a record of our own");
    show(&format!("the record of the run is {}", dir.join(name).display()));
}
