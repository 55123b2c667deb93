//! A program that uses Python's `etcd3`, as Debian packages both.

use std::process::Command;

use etcfs_tests::command;

use crate::subject::Subject;

on_both! {
    a_program_on_python_etcd3_runs,
}

/// Debian's own, which has Debian's modules.
const PYTHON: &str = "/usr/bin/python3";
const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/api/python_etcd3.py");

const PRINTED: &str = "\
get: (b'1', b'py/a', 1)
get nothing: (None, None)
prefix: [b'1', b'2']
sorted: [b'2', b'1']
range: [b'1']
replace: (True, False)
put_if_not_exists: (True, False)
delete: (True, False)
delete_prefix: 2
txn: (True, [b'2'])
txn: (False, [b'2'])
lease: (60, 60, True, [b'py/leased'])
refresh: [60]
revoked: (None, None)
watch: [('PutEvent', b'py/w/a', b'1'), ('PutEvent', b'py/w/a', b'2'), ('DeleteEvent', b'py/w/a', b'')]
callback: [(b'py/w/b', b'1')]
past: [b'1', b'2']
lock: (True, True, False)
refresh: [60]
release: (True, False)
next: (True, True)
status: (True, True)
members: 1
compacted: True
alarms: []
hash: True
";

fn a_program_on_python_etcd3_runs(s: &Subject) {
    let has_module = command::run(Command::new(PYTHON).args(["-c", "import etcd3"]), b"");
    assert_eq!(
        has_module.code, 0,
        "Python's etcd3 is missing: it is in the Debian package python3-etcd3, which tests/run installs\n{}",
        has_module.stderr
    );
    // -B: leaves nothing beside the program.
    let ran = command::run(Command::new(PYTHON).args(["-B", PROGRAM, &s.endpoint()]), b"");
    assert_eq!(ran.clone().ok(), PRINTED, "{}", ran.stderr);
}
