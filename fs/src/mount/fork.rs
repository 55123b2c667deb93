//! Going to the background: the caller waits until the daemon says that the mount answers, or why not.
//!
//! The fork comes before any thread exists, since a fork takes no thread but its own along. The daemon stays in
//! the caller's process group until it has reported, so that Ctrl-C ends both.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

/// Which half this process is after the fork.
pub(crate) enum Half {
    /// With the daemon's word: `Ok` once the mount answers.
    Caller(Result<(), String>),
    Daemon(Report),
}

/// The daemon's way to say how it went. Dropped without a word, the caller takes the daemon for dead.
#[derive(Debug)]
pub(crate) struct Report(Option<File>);

/// Any other first byte begins the reason.
const MOUNTED: u8 = 0;

impl Report {
    /// For the foreground, where nobody waits.
    pub(crate) fn to_nobody() -> Self {
        Self(None)
    }

    /// Lets the caller go, and leaves its session, directory and terminal.
    pub(crate) fn mounted(&mut self) -> io::Result<()> {
        let Some(mut pipe) = self.0.take() else { return Ok(()) };
        rustix::process::setsid()?;
        rustix::process::chdir("/")?;
        let nothing = File::options().read(true).write(true).open("/dev/null")?;
        for standard in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
            replace(&nothing, standard)?;
        }
        // An error: the caller was ended while it waited, and does not want the mount any more.
        pipe.write_all(&[MOUNTED])
    }

    pub(crate) fn failed(self, reason: &str) {
        if let Some(mut pipe) = self.0 {
            // A caller that is gone has nobody to tell it to.
            let _gone = pipe.write_all(reason.as_bytes());
        }
    }
}

/// Forks. Call it while this process has one thread.
pub(crate) fn fork() -> io::Result<Half> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    #[expect(unsafe_code, reason = "a daemon has to be forked")]
    // SAFETY: the process has one thread, so no lock can be held by another that the child lacks.
    let child = unsafe { libc::fork() };
    match child {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Half::Daemon(Report(Some(File::from(write))))),
        _ => {
            drop(write);
            Ok(Half::Caller(wait(read)))
        }
    }
}

fn wait(read: OwnedFd) -> Result<(), String> {
    let (mut pipe, mut word) = (File::from(read), vec![0; 1]);
    // The daemon says one thing; ended early, it closes without a word.
    match pipe.read(&mut word).and_then(|first| match (first, word[0]) {
        (0, _) | (_, MOUNTED) => Ok(first),
        _ => pipe.read_to_end(&mut word),
    }) {
        Ok(1) if word == [MOUNTED] => Ok(()),
        Ok(0) => Err("the daemon ended before it had mounted; the system log may say why".to_owned()),
        Ok(_) => Err(String::from_utf8_lossy(&word).into_owned()),
        Err(error) => Err(format!("no word from the daemon: {error}")),
    }
}

fn replace(with: &File, standard: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    #[expect(unsafe_code, reason = "no safe call puts a file in a standard descriptor's place")]
    // SAFETY: both descriptors are open, and dup2 changes what the number means for the whole process at once.
    let done = unsafe { libc::dup2(with.as_raw_fd(), standard.as_raw_fd()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
