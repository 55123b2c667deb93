//! The members of a cluster go one by one, in order or not, under programs that
//! use its mount: none of them sees an error or a wrong byte.

use std::{
    fs,
    path::{Path, PathBuf},
};

use etcfs_tests::{
    cluster::Cluster,
    command::{Followed, sh},
    mount::Mount,
    server::Server,
};
use tempfile::TempDir;

/// Makes a repository with some history in `$REPOSITORY`.
const HISTORY: &str = r#"
    set -e
    export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t
    git init -q repository && cd repository
    for number in 1 2 3; do
        mkdir -p "dir$number/sub"
        for file in a b c; do
            head -c 3000 /dev/urandom | base64 > "dir$number/$file"
            head -c 3000 /dev/urandom > "dir$number/sub/$file"
        done
        git add . && git commit -q -m "change $number"
    done"#;

/// Clones again and again, checks the clone, and takes it away.
const CLONER: &str = r#"bash -c '
    number=0
    while [ ! -e "$OUTSIDE/stop" ]; do
        git clone -q --template= "file://$OUTSIDE/repository" clone || exit 1
        git -C clone fsck --strict --no-progress || exit 2
        diff -r --exclude=.git "$OUTSIDE/repository" clone || exit 3
        [ -z "$(git -C clone status --porcelain)" ] || exit 4
        rm -r clone || exit 5
        echo $number
        number=$((number + 1))
    done
    echo end'"#;

/// Writes one big file after another, reads each back, and keeps them.
const WRITER: &str = r#"bash -c '
    number=0
    while [ ! -e "$OUTSIDE/stop" ]; do
        dd if="$OUTSIDE/bytes" of=big.$number bs=37k conv=fsync status=none || exit 1
        cmp "$OUTSIDE/bytes" big.$number || exit 2
        echo $number
        number=$((number + 1))
    done
    echo end'"#;

/// Values at the size of several of the mount's writes, and of no round number.
const BIG_BYTES: usize = 400_001;

/// A program in the mount that counts what it has done.
struct User {
    program: Followed,
    count: usize,
}

impl User {
    fn start(mount: &Mount, outside: &Path, script: &str) -> Self {
        let script = script.replace("$OUTSIDE", &outside.display().to_string());
        Self { program: Followed::sh(&mount.path(), &script), count: 0 }
    }

    #[track_caller]
    fn goes_on(&mut self) {
        self.program.expect(&[&self.count.to_string()]);
        self.count += 1;
    }

    /// Reads on to its end, and gives what it has done by then.
    #[track_caller]
    fn finish(mut self) -> usize {
        loop {
            let line = self.program.line();
            if line == "end" {
                return self.count;
            }
            assert_eq!(line, self.count.to_string());
            self.count += 1;
        }
    }
}

fn goes_on_while_each_member_is(ended: impl Fn(&mut Server)) {
    let outside = TempDir::with_prefix("etcfs-tests-").expect("a temporary directory");
    let bytes: Vec<u8> = (0..BIG_BYTES).map(|_| rand::random()).collect();
    fs::write(outside.path().join("bytes"), &bytes).expect("outside the mount");
    sh(outside.path(), HISTORY).ok();
    let mut cluster = Cluster::etcfs(3);
    let mount = Mount::root(&cluster.endpoints());
    let mut cloner = User::start(&mount, outside.path(), CLONER);
    let mut writer = User::start(&mount, outside.path(), WRITER);
    cloner.goes_on();
    for nth in 0..3 {
        writer.goes_on();
        ended(&mut cluster.members[nth]);
        // With two of three, too.
        writer.goes_on();
        cluster.run();
        cloner.goes_on();
    }
    let stop: PathBuf = outside.path().join("stop");
    fs::write(stop, "").expect("outside the mount");
    cloner.finish();
    let written = writer.finish();
    cluster.agree();
    for nth in 0..written {
        let value = cluster.api(nth % 3).get(&format!("/big.{nth}")).expect("it was written").value;
        assert!(value == bytes, "big.{nth} is not what was written");
    }
    let left = sh(&mount.path(), "ls | grep -v '^big[.]'; true").ok();
    assert_eq!(left, "", "clones are taken away whole");
}

/// A rolling restart
#[test]
fn a_mount_goes_on_through_a_rolling_restart_of_all_members() {
    goes_on_while_each_member_is(|member| {
        let status = member.stop();
        assert!(status.success(), "{status}");
    });
}

#[test]
fn a_mount_goes_on_while_all_members_are_killed_one_by_one() {
    goes_on_while_each_member_is(Server::kill);
}
