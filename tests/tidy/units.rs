//! What is shipped beside the binaries: systemd must understand each unit, and
//! the server each setting of the sample.

use std::{fs, path::Path, process::Command};

use etcfs_server::config::{self, Invocation};
use etcfs_tests::{command, machine};

use crate::{none, root};

const DIRECTORIES: [&str; 2] = ["server/dist", "fs/dist"];
const SAMPLE: &str = "server/dist/etcfsd.env";

/// A unit with programs that are surely there in place of those that are not installed.
fn as_installed(unit: &Path, dir: &Path) {
    let text = fs::read_to_string(unit).expect("a unit is text");
    let lines = text.lines().map(|line| match line.strip_prefix("ExecStart=") {
        Some(command) => {
            let arguments = command.split_once(' ').map_or("", |(_, arguments)| arguments);
            format!("ExecStart=/bin/true {arguments}")
        }
        None => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    fs::write(dir.join(unit.file_name().expect("a unit has a name")), text).expect("a directory of our own");
}

#[test]
fn systemd_understands_each_unit() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut units = Vec::new();
    for entry in DIRECTORIES.iter().flat_map(|dir| fs::read_dir(root().join(dir)).expect(dir)) {
        let path = entry.expect("it can be listed").path();
        if path.extension().is_some_and(|kind| kind == "service" || kind == "mount") {
            as_installed(&path, dir.path());
            units.push(dir.path().join(path.file_name().expect("it has one")));
        }
    }
    assert!(units.len() >= 3, "{units:?}");
    let mut verify = Command::new(machine::program("systemd-analyze"));
    let output = command::run(verify.args(["verify", "--man=no"]).args(&units), b"");
    // It complains of what it does not know with exit code 0.
    none(
        output
            .stderr
            .lines()
            .filter(|line| line.contains(".service") || line.contains(".mount"))
            .map(str::to_owned)
            .collect(),
    );
    assert_eq!(output.code, 0, "{output:?}");
}

#[test]
fn the_server_takes_each_setting_of_the_sample() {
    let text = fs::read_to_string(root().join(SAMPLE)).expect(SAMPLE);
    let settings = |with_suggestions: bool| {
        let line = move |line: &str| {
            let line = if with_suggestions { line.strip_prefix('#').unwrap_or(line) } else { line };
            let (name, value) = line.split_once('=')?;
            name.starts_with("ETCFSD_").then(|| (name.to_owned(), value.to_owned()))
        };
        text.lines().filter_map(line).collect::<Vec<_>>()
    };
    assert!(settings(true).len() > settings(false).len(), "it suggests some");
    for settings in [settings(false), settings(true)] {
        let Invocation::Serve(config) = config::parse(["etcfsd".into()], settings).expect("it is valid")
        else {
            panic!("it serves")
        };
        assert_eq!((config.name.as_str(), config.founders.len()), ("node1", 3));
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}
