//! The architecture and the house rules, checked as tests.
//!
//! [`table`] is the data: who may import whom, and which door each outside crate
//! stays behind. The rest reads the code, the manual pages and the documents and
//! compares. A failure lists every breach at once, each with its file.

mod conformance;
mod dashboard;
mod files;
mod imports;
mod manual;
mod metrics;
mod promises;
mod source;
mod table;
mod units;

use std::path::PathBuf;

/// The root of the workspace.
fn root() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("tests/ lies in the workspace").into()
}

/// Fails with every breach, one a line.
#[track_caller]
fn none(breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{} breaches:\n  {}", breaches.len(), breaches.join("\n  "));
}
