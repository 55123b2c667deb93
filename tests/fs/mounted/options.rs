//! What a mount option changes: the same script with it and without.

use etcfs_tests::{command::sh, machine, mount::Mount, server::Server};

/// Writes a short text, and asks the server for it before it closes.
const WRITES: &str = "FIFO=$(mktemp -u); mkfifo $FIFO.in $FIFO.out; python3 -c 'import sys
file = open(sys.argv[1], \"wb\", buffering=0)
file.write(b\"v\")
print(flush=True)
sys.stdin.readline()' $P < $FIFO.in > $FIFO.out & exec 3> $FIFO.in 4< $FIFO.out; read x <&4; ask /$P; echo >&3; wait; ask /$P";

/// Reads to the end, and on after a change made elsewhere that the mount shows.
const READS: &str = "exec 3< f; cat <&3; put /f $P; until grep -q $P f; do :; done; cat <&3; echo";

/// What a script prints where an option is set, and where it is not. `$P` is a word that no other script has.
const OPTIONS: [(&str, &str, &str, &str); 10] = [
    ("put=close", WRITES, "none\nv\n", "v\nv\n"),
    ("follow=off", READS, "old\n", "old$P\n"),
    ("locks=local", "flock f flock -n $OTHER/f echo both || echo one", "both\n", "one\n"),
    ("locks=local", "flock f flock -n f echo both || echo one", "one\n", "one\n"),
    ("locks=off", "flock -n f echo locked 2>&1 | sed 's/.*: //'", "No locks available\n", "locked\n"),
    (
        "rel=dir",
        "put $P bare; until test -e %rel/$P && ls | grep -q rel; do :; done; echo slash > $P; ask /$P",
        "slash\n",
        "none\n",
    ),
    (
        "max_value=10K",
        "head -c 11000 /dev/zero 2>&1 > $P | grep -c large; test -s $P; echo $?",
        "1\n1\n",
        "0\n0\n",
    ),
    ("noexec", "findmnt -no OPTIONS . | grep -c noexec", "1\n", "0\n"),
    ("percent=escape", "echo v > 50%$P; ask /50%$P; ls | grep 50%25$P", "v\n50%25$P\n", "none\n"),
    ("locks=cluster", FCNTL, "held\n1\n", "held\n1\n"),
];

/// Both kinds of lock are one.
const FCNTL: &str = "python3 -c 'import fcntl, subprocess
file = open(\"f\", \"r+\")
fcntl.lockf(file, fcntl.LOCK_EX)
print(\"held\", flush=True)
print(subprocess.call([\"flock\", \"-n\", \"f\", \"true\"]), flush=True)'";

/// Functions of the shell that speak to the server: what a key holds, and another client's put.
fn functions(server: &Server) -> String {
    machine::program("etcdctl");
    let etcdctl = format!("ETCDCTL_API=3 etcdctl --endpoints {}", server.endpoint());
    format!(
        "ask() {{ {etcdctl} get --print-value-only \"$1\" | grep . || echo none; }}\n\
         put() {{ {etcdctl} put \"$1\" \"$2\" > /dev/null; }}\n"
    )
}

/// Keys without a leading slash live in %rel
/// flock(2) and fcntl(2) exclude each other
/// Locks may be left to the host, or be none
/// `tail -f KEY` prints every new value whole, in order, each once
/// One save is one revision
/// Over the request limit a write fails with EFBIG and stores nothing
#[test]
fn mounted_options_do_what_they_say() {
    machine::program("python3");
    let server = Server::etcfs();
    let (source, functions) = (format!("{}:/", server.endpoint()), functions(&server));
    let plain = [Mount::with(&source, ""), Mount::with(&source, "")];
    for (number, (option, script, with, without)) in OPTIONS.into_iter().enumerate() {
        let set = [Mount::with(&source, option), Mount::with(&source, option)];
        for (mounts, expected, word) in [(&set, with, "set"), (&plain, without, "plain")] {
            let unique = format!("{word}{number}");
            mounts[0].sh("echo old | tr -d '\\n' > f");
            mounts[1].comes_to_print("cat f", "old");
            let script = format!("P={unique}; OTHER={}\n{functions}{script}", mounts[1].path().display());
            let printed = sh(&mounts[0].path(), &script).stdout;
            assert_eq!(printed, expected.replace("$P", &unique), "{option} is {word}: {script}");
        }
    }
}
