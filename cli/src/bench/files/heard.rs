//! A program that listens by inotify(7) for what others write.

use std::{
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

use super::side::SHOWN_WITHIN;

/// Events of one directory, read as they come.
#[derive(Debug)]
pub(super) struct Listener {
    written: Receiver<Instant>,
}

impl Listener {
    /// Hears when `name` has been written in `dir`.
    pub(super) fn to(dir: &Path, name: &'static str) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        inotify::add_watch(&inotify, dir, WatchFlags::CLOSE_WRITE)?;
        let (sender, written) = channel();
        // It ends with the first event that nobody waits for, at the latest with the directory.
        std::thread::spawn(move || {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut events = Reader::new(&inotify, &mut buffer);
            while let Ok(event) = events.next() {
                let heard = event.file_name().is_none_or(|found| OsStr::from_bytes(found.to_bytes()) == name);
                if heard && sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { written })
    }

    /// When the next change was heard.
    pub(super) fn next(&self) -> io::Result<Instant> {
        let heard = self.written.recv_timeout(SHOWN_WITHIN);
        heard.map_err(|_| {
            io::Error::other("no listener hears of a put: is it a mount with inotify=off or ro?")
        })
    }
}
