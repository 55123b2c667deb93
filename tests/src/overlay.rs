//! A machine to be changed without leaving a trace: a file system under an overlay, this one's or a bare Debian's, with
//! a network, a process table and a directory `/scratch` of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{binary, command, machine};

/// Prepares the place and runs the script in it; then names all that the script has left.
const ENTER: &str = r#"
set -e
mount -t tmpfs overlay "$1"
cd "$1"
mkdir upper work root
lower=
if [ -n "$5" ]; then
    lower=$1/lower
    mkdir lower
    tar --extract --file "$5" --directory lower --numeric-owner --exclude './dev/*'
fi
mount -t overlay overlay -o lowerdir="${lower:-/}",upperdir=upper,workdir=work root
mount --rbind /dev root/dev
mount -t proc proc root/proc
mkdir root/in root/scratch
mount -t tmpfs scratch root/scratch
mount --bind "$2" root/in
ip link set lo up
cp /dev/null root/etc/fstab
cp "$4" root/scratch/script
chroot root env -i PATH="$3" HOME=/root TERM=dumb bash -eu /scratch/script
umount --lazy root/in root/scratch
rmdir root/in root/scratch
find upper -mindepth 1 '(' -not -type d -o -type d -empty ')' -printf '%P\n' | while read -r path; do
    if [ -d "upper/$path" ]; then
        [ -d "$lower/$path" ] || echo "left $path/"
    else
        cmp --silent "upper/$path" "$lower/$path" || echo "left $path"
    fi
done
"#;

/// What the script finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// This machine.
    Machine,
    /// This machine, whose own programs come after those under test.
    Tested,
    /// The Debian that runs here as it is when it has just been installed, with nothing that it can do without.
    Bare,
}

/// Runs a bash script as root, in `/scratch`; it sees `dir` as `/in`. Gives what it printed and, as lines that begin
/// with `left `, the files that it has changed or made.
#[track_caller]
pub fn run(dir: &Path, ground: Ground, script: &str) -> String {
    machine::needs_root("changes the system, under an overlay");
    let place = tempfile::tempdir().expect("a temporary directory");
    let file = place.path().join("script");
    fs::write(&file, format!("cd /scratch\n{script}")).expect("a file of our own");
    let root = place.path().join("root");
    fs::create_dir(&root).expect("a directory of our own");
    let mut path = "/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
    if ground == Ground::Tested {
        let [.., etcfs] = [binary::etcfsd(), binary::mount_etcfs(), binary::etcfs()];
        path = format!("{}:{path}", etcfs.parent().expect("it lies in a directory").display());
    }
    let lower = if ground == Ground::Bare { machine::bare_debian() } else { PathBuf::new() };
    let mut enter = Command::new(machine::program("unshare"));
    enter.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "bash", "-c", ENTER, "bash"]);
    command::run(enter.arg(root).arg(dir).arg(path).arg(file).arg(lower), b"").ok()
}
