//! One child: started, started again when it dies, ended in good order.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{process::Child, time::timeout};

use super::{
    child,
    nodes::Node,
    place::{self, Place},
};
use crate::error::CliError;

/// The pause before the first restart; it doubles with each that follows soon.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A child that lived so long is no longer seen as failing at start.
const HEALTHY_AFTER: Duration = Duration::from_secs(20);
/// A child that is asked to end gets so long before it is killed.
const END_WITHIN: Duration = Duration::from_secs(30);
/// Of a log so much is read for its last words.
const LAST_WORDS_BYTES: u64 = 2048;
const LAST_WORDS_LINES: usize = 5;

/// What a child is.
#[derive(Debug)]
pub(super) struct Part {
    name: String,
    arguments: Vec<OsString>,
    log: PathBuf,
    /// Where its mount is, which stays behind when it dies.
    mount_point: Option<PathBuf>,
}

impl Part {
    pub(super) fn server(place: &Place, node: &Node, endpoint: &str) -> io::Result<Self> {
        let mut arguments: Vec<OsString> = vec![node.data_dir.clone().into(), endpoint.into()];
        match &node.membership {
            None => arguments.insert(0, "server".into()),
            Some(membership) => {
                arguments.insert(0, "member".into());
                arguments.push(node.name.clone().into());
                arguments.push(membership.peer.to_string().into());
                arguments.push(membership.initial_cluster.clone().into());
                arguments.push(membership.token.clone().into());
            }
        }
        Ok(Self { name: node.name.clone(), arguments, log: fresh_log(place, &node.name)?, mount_point: None })
    }

    /// A mount through all of `endpoints`, separated by commas.
    pub(super) fn mount(place: &Place, endpoints: &str) -> io::Result<Self> {
        let point = place.mount_point().to_path_buf();
        let arguments = vec!["mount".into(), endpoints.into(), point.clone().into()];
        let log = fresh_log(place, "mount")?;
        Ok(Self { name: "mount".to_owned(), arguments, log, mount_point: Some(point) })
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = std::process::Command::new("/proc/self/exe");
        command
            .arg0("etcfs")
            .arg(child::NAME)
            .arg(format!("--parent={}", std::process::id()))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Its own group: Ctrl-C reaches us alone, and we end the parts in order.
            .process_group(0);
        tokio::process::Command::from(command).kill_on_drop(true).spawn()
    }

    fn clear(&self) {
        if let Some(point) = &self.mount_point
            && let Err(error) = place::clear_if_dead(point)
        {
            anstream::eprintln!("{}", error.message());
        }
    }
}

/// True once a log has these words in it.
pub(super) fn says(log: &Path, words: &str) -> bool {
    // It may not be there yet.
    fs::read(log).is_ok_and(|text| String::from_utf8_lossy(&text).contains(words))
}

/// The log of a part; that of the run before is kept beside it.
fn fresh_log(place: &Place, name: &str) -> io::Result<PathBuf> {
    let log = place.data_dir().join(format!("{name}.log"));
    match fs::rename(&log, place.data_dir().join(format!("{name}.log.old"))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(log),
    }
}

/// A part that runs.
#[derive(Debug)]
pub(super) struct Supervised {
    part: Part,
    child: Child,
    pid: u32,
    begun: Instant,
    pause: Duration,
}

impl Supervised {
    pub(super) fn start(part: Part) -> Result<Self, CliError> {
        let child = part.spawn()?;
        let pid = child.id().unwrap_or_default();
        Ok(Self { part, child, pid, begun: Instant::now(), pause: FIRST_PAUSE })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// In messages.
    pub(super) fn name(&self) -> &str {
        &self.part.name
    }

    pub(super) fn log(&self) -> &Path {
        &self.part.log
    }

    pub(super) fn has_ended(&mut self) -> io::Result<Option<String>> {
        Ok(self.child.try_wait()?.map(describe))
    }

    /// What it wrote last.
    pub(super) fn last_words(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(&self.part.log).and_then(|mut log| {
            let length = log.metadata()?.len();
            log.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
            log.read_to_end(&mut text)
        });
        if let Err(error) = read {
            return error.to_string();
        }
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS_LINES)..].join("\n")
    }

    /// Starts it again whenever it dies; never returns.
    pub(super) async fn keep(&mut self) {
        loop {
            let how = match self.child.wait().await {
                Ok(status) => describe(status),
                Err(error) => error.to_string(),
            };
            let pause = self.next_pause();
            let name = &self.part.name;
            anstream::eprintln!("{name} died ({how}); starting it again in {} ms", pause.as_millis());
            tokio::time::sleep(pause).await;
            self.part.clear();
            match self.part.spawn() {
                Ok(child) => {
                    self.pid = child.id().unwrap_or_default();
                    self.child = child;
                    self.begun = Instant::now();
                    anstream::eprintln!("{name} is back (process {})", self.pid);
                }
                // `wait` on the old child answers again at once: the pause grows.
                Err(error) => anstream::eprintln!("{name} can't be started: {error}"),
            }
        }
    }

    fn next_pause(&mut self) -> Duration {
        if self.begun.elapsed() > HEALTHY_AFTER {
            self.pause = FIRST_PAUSE;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    /// Ends it: asked first, killed if it does not listen.
    pub(super) async fn stop(&mut self) {
        let running = matches!(self.child.try_wait(), Ok(None));
        if running && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            if let Err(error) = kill_process(pid, Signal::TERM) {
                tracing::debug!(%error, "already gone");
            }
            if timeout(END_WITHIN, self.child.wait()).await.is_err() {
                anstream::eprintln!("{} does not end; killed", self.part.name);
                if let Err(error) = self.child.kill().await {
                    anstream::eprintln!("{} can't be killed: {error}", self.part.name);
                }
            }
        }
        if let Some(point) = &self.part.mount_point
            && place::is_mounted(point)
            && let Err(error) = etcfs_fs::mounts::unmount(point, true)
        {
            anstream::eprintln!("{} is still mounted: {error}", point.display());
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(dir: &Path) -> Supervised {
        let part =
            Part { name: "sleeper".to_owned(), arguments: vec![], log: dir.join("log"), mount_point: None };
        let child = tokio::process::Command::new("sleep").arg("1000").kill_on_drop(true).spawn().unwrap();
        let pid = child.id().unwrap();
        Supervised { part, child, pid, begun: Instant::now(), pause: FIRST_PAUSE }
    }

    #[tokio::test]
    async fn pauses_grow_while_a_child_fails_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let mut sleeper = sleeper(dir.path());
        let pauses: Vec<_> = (0..9).map(|_| sleeper.next_pause().as_millis()).collect();
        assert_eq!(pauses, [25, 50, 100, 200, 400, 800, 1600, 3200, 6400]);
    }

    #[tokio::test]
    async fn a_child_that_listens_ends_at_once_and_its_last_words_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut sleeper = sleeper(dir.path());
        fs::write(sleeper.log(), "1\n2\n3\n4\n5\n6\n").unwrap();
        sleeper.stop().await;
        assert_eq!(sleeper.has_ended().unwrap().as_deref(), Some("killed by signal 15"));
        assert_eq!(sleeper.last_words(), "2\n3\n4\n5\n6");
    }
}
