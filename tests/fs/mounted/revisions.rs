//! How many revisions a shell command makes, and that the key's lease outlives them.

use etcfs_tests::{
    api::{grant, put_on_lease},
    command::{self, sh},
    machine, wait,
};

use super::Stage;

/// A file `f` on a lease, among others; checks commands one by one.
struct Count {
    stage: Stage,
    lease: i64,
}

impl Count {
    fn new() -> Self {
        let stage = Stage::new();
        let lease = stage.api.grant(grant(5000)).expect("a lease is granted").id;
        stage.api.put(put_on_lease("/d/f", "one\ntwo\nthree\n", lease)).expect("a put is accepted");
        stage.api.set("/d/g", "another\n");
        stage.comes_to_print("ls d", "f\ng\n");
        Self { stage, lease }
    }

    /// Checks that `script`, run in the directory, makes `revisions` and succeeds.
    #[track_caller]
    fn of(&self, script: &str, revisions: i64) {
        let before = self.stage.api.revision();
        let output = command::bash(&self.stage.mount.at("d"), script);
        assert!(output.code == 0, "`{script}` fails: {output:?}");
        // What a descriptor's last close was not seen to be is put at the file's release, which nobody waits for.
        wait::poll(wait::PATIENCE, || self.stage.api.revision() - before >= revisions);
        let made = self.stage.api.revision() - before;
        assert_eq!(made, revisions, "revisions made by `{script}`");
    }

    /// The same for a change of `f`, which keeps its lease and comes to hold `value`.
    #[track_caller]
    fn of_change(&self, script: &str, value: &str) {
        self.of(script, 1);
        let kv = self.stage.api.get("/d/f").expect("f is there");
        assert_eq!(String::from_utf8_lossy(&kv.value), value, "after `{script}`");
        assert_eq!(kv.lease, self.lease, "the lease after `{script}`");
        let shown = sh(&self.stage.mount.at("d"), "cat f").ok();
        assert_eq!(shown, value, "what cat shows after `{script}`");
    }
}

/// Reading makes no revision
#[test]
fn what_only_reads_makes_no_revision() {
    let count = Count::new();
    for script in [
        "cat f",
        "ls -l",
        "ls -la ..",
        "stat f",
        "grep -r one ..",
        "find .. -type f",
        "wc -c f g",
        "head -c 3 f",
        "cp f /dev/null",
        "getfattr -d f",
        "test -e nothing || true",
        "df .",
        "python3 -c 'open(\"f\", \"r+\").close()'",
    ] {
        count.of(script, 0);
    }
}

/// One save is one revision
/// The lease of a key survives writes
#[test]
fn one_save_is_one_revision_and_keeps_the_lease() {
    let count = Count::new();
    std::fs::write(count.stage.server.scratch().join("source"), "copied\n").expect("a file outside");
    let source = count.stage.server.scratch().join("source").display().to_string();
    count.of_change("echo v > f", "v\n");
    count.of_change("echo w >> f", "v\nw\n");
    count.of_change(&format!("cp {source} f"), "copied\n");
    count.of_change(&format!("dd if={source} of=f status=none"), "copied\n");
    count.of_change("sed -i s/copied/edited/ f", "edited\n");
    count.of_change("printf abc > f", "abc");
    count.of_change("echo tee | tee f >/dev/null", "tee\n");
    count.of_change("echo more | tee -a f >/dev/null", "tee\nmore\n");
    count.of_change("truncate -s 3 f", "tee");
    count.of_change(": > f", "");
    count.of_change("/bin/echo v > f", "v\n");
    count.of_change("touch f", "v\n");
    count.of_change("python3 -c 'open(\"f\", \"w\").write(\"py\\n\")'", "py\n");
    count.of_change("python3 -c 'f = open(\"f\", \"r+\"); f.seek(1); f.write(\"Y\"); f.close()'", "pY\n");
    count.of_change(&format!("cat {source} > f"), "copied\n");
}

/// A remote change is seen without asking
#[test]
fn a_file_that_is_only_emptied_is_seen_so_after_close() {
    let count = Count::new();
    let seen = "for i in $(seq 50); do echo $i > f; : > f; cat f; stat -c %s f; done | sort | uniq -c";
    assert_eq!(command::bash(&count.stage.mount.at("d"), seen).ok().trim(), "50 0");
    // Who still has it open, here or in a parent, may be about to write.
    count.of_change("exec 3>f; sh -c true; true | cat; (exec 4>&3 3>&-); echo v >&3", "v\n");
}

#[test]
fn a_large_file_is_one_revision_too() {
    let count = Count::new();
    let value = "0123456789abcde\n".repeat(50_000);
    std::fs::write(count.stage.server.scratch().join("large"), &value).expect("a file outside");
    let large = count.stage.server.scratch().join("large").display().to_string();
    count.of_change(&format!("cp {large} f"), &value);
    count.of_change("echo v > f", "v\n");
    count.of_change(&format!("dd if={large} of=f bs=64k status=none"), &value);
    count.of_change(&format!("cat {large} > f"), &value);
}

#[test]
fn making_and_removing_files_costs_what_it_must() {
    let count = Count::new();
    count.of("touch new", 1);
    count.of("rm new", 1);
    count.of("echo v > new", 1);
    count.of("mv new newer", 1);
    count.of("mv newer g", 1);
    // Create-or-fail puts the empty value at open: that is its point.
    count.of("cp g copy", 2);
    count.of("set -C; : > excl; set +C", 1);
    count.of("{ echo a; echo b; } > both", 2);
    count.of("rm copy both", 2);
    count.of("mkdir sub", 1);
    count.of("rmdir sub", 1);
    assert_eq!(sh(&count.stage.mount.at("d"), "cat g").ok(), "v\n");
}

#[test]
fn saving_in_vim_is_one_revision_of_the_key() {
    let count = Count::new();
    let vim = machine::program("vim").display().to_string();
    for (i, word) in ["first", "second"].into_iter().enumerate() {
        let script = format!("{vim} -u NONE -n -es -c '%s/^.*$/{word}/' -c wq f");
        count.of_change(&script, &format!("{word}\n").repeat(3));
        assert_eq!(count.stage.api.get("/d/f").expect("f is there").version, i as i64 + 2);
    }
    // With its swap file, as it is usually run: one revision of this key, and no other key stays.
    let version = count.stage.api.get("/d/f").expect("f is there").version;
    let script = format!("{vim} -u NONE -es -c 'set swapfile' -c '%s/^.*$/third/' -c wq f");
    let output = command::bash(&count.stage.mount.at("d"), &script);
    assert!(output.code == 0, "{output:?}");
    let kv = count.stage.api.get("/d/f").expect("f is there");
    assert_eq!(kv.version, version + 1);
    assert_eq!(kv.lease, count.lease);
    assert_eq!(count.stage.api.all("/d/").len(), 2, "no swap file stays behind");
}
