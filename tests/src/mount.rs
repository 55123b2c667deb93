//! A mount of one test: `mount.etcfs` in the foreground on a directory of its own.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{binary, command, machine, process::Process, wait};

/// Time a daemon has for an orderly end before it is killed.
const UNMOUNT_PATIENCE: Duration = Duration::from_secs(5);

/// A mounted key space; unmounted, and its daemon ended, when dropped.
#[derive(Debug)]
pub struct Mount {
    /// First, so that it ends, and shows its log, before its directory goes.
    process: Option<Process>,
    source: String,
    options: String,
    /// A command that runs the daemon with less than this process may do.
    under: &'static [&'static str],
    dir: TempDir,
}

impl Mount {
    /// Mounts all keys that begin with `/`.
    pub fn root(endpoint: &str) -> Self {
        Self::with(&format!("{endpoint}:/"), "")
    }

    /// Mounts all keys that begin with `/`, for every user.
    pub fn for_all(endpoint: &str) -> Self {
        let mount = Self::with(&format!("{endpoint}:/"), "allow_other");
        machine::open_to_all(mount.dir.path());
        mount
    }

    /// Mounts all keys that begin with `/`, without the right to open files by their handles.
    pub fn without_handles(endpoint: &str) -> Self {
        let under = &["setpriv", "--inh-caps=-dac_read_search", "--bounding-set=-dac_read_search"];
        Self::under(under, &format!("{endpoint}:/"), "")
    }

    /// Mounts `source` (endpoint and prefix) with the `-o` options given.
    pub fn with(source: &str, options: &str) -> Self {
        Self::under(&[], source, options)
    }

    fn under(under: &'static [&'static str], source: &str, options: &str) -> Self {
        machine::needs_fuse();
        let dir =
            tempfile::Builder::new().prefix("etcfs-tests-mount-").tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("mnt")).expect("a directory of our own");
        let mut mount = Self { source: source.into(), options: options.into(), under, dir, process: None };
        mount.run();
        mount
    }

    /// Mounts it, again after its daemon's end too.
    pub fn run(&mut self) {
        let words = self.under.iter().map(PathBuf::from).chain([binary::mount_etcfs()]);
        let words: Vec<PathBuf> = words.collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("-f");
        if !self.options.is_empty() {
            command.args(["-o", &self.options]);
        }
        command.arg(&self.source).arg(self.path());
        let mut process = Process::start("mount.etcfs", &mut command, &self.dir.path().join("log"));
        let outside = std::fs::metadata(self.dir.path()).expect("our directory").dev();
        let path = self.path();
        wait::until("the mount answers", || {
            if let Some(status) = process.has_ended() {
                panic!("mount.etcfs ended with {status} before it mounted\n{}", process.log_tail());
            }
            std::fs::metadata(&path).is_ok_and(|m| m.dev() != outside).then_some(())
        });
        self.process = Some(process);
    }

    /// The mount point.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    /// A path below the mount point.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// Runs a shell script in the mount point and returns its output.
    #[track_caller]
    pub fn sh(&self, script: &str) -> String {
        command::sh(&self.path(), script).ok()
    }

    /// Waits until a script in the mount point prints `output`: for changes made elsewhere.
    #[track_caller]
    pub fn comes_to_print(&self, script: &str, output: &str) {
        let mut last = String::new();
        let holds = wait::poll(wait::PATIENCE, || {
            last = command::sh(&self.path(), script).stdout;
            last == output
        });
        assert!(holds, "`{script}` prints {last:?}, not {output:?}");
    }

    /// False where the kernel lets no file of a mount be mapped shared, as before Linux 6.6: that is ENODEV.
    pub fn maps_shared(&self) -> bool {
        !self.sh("grep '^kernel lacks' %status").contains("DIRECT_IO_ALLOW_MMAP")
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the daemon runs")
    }

    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Kills the daemon and leaves the dead mount as it is.
    pub fn kill(&mut self) {
        self.process.take().expect("the daemon runs").kill();
    }

    /// Unmounts in order and waits for the daemon's end.
    #[track_caller]
    pub fn unmount(mut self) {
        let mut process = self.process.take().expect("the daemon runs");
        detach(&self.path(), false).expect("an idle mount can be unmounted");
        let status = process.wait_for_end(wait::PATIENCE);
        assert!(status.success(), "mount.etcfs ended with {status}\n{}", process.log_tail());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM);
            let ended = |process: &mut Process| process.has_ended().is_some();
            // A daemon that hangs is killed by its own drop, which answers nobody any more.
            wait::poll(UNMOUNT_PATIENCE, || ended(&mut process));
        }
        // Whatever the daemon did: a dead mount must not outlive its test.
        if mounted(&self.path()) {
            drop(detach(&self.path(), true));
        }
    }
}

/// True iff something is mounted on `path`; asks the kernel's table, which no dead daemon can block.
pub fn mounted(path: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

/// Takes the mount off its path; `lazily` also where somebody still uses it.
fn detach(path: &Path, lazily: bool) -> Result<(), String> {
    let mut command = if machine::is_root() {
        let mut command = Command::new(machine::program("umount"));
        command.args(lazily.then_some("--lazy"));
        command
    } else {
        let mut command = Command::new(machine::program("fusermount3"));
        command.arg("-u").args(lazily.then_some("-z"));
        command
    };
    let output = command::run(command.arg(path), b"");
    if output.code == 0 { Ok(()) } else { Err(output.stderr) }
}
