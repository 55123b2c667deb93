//! A program that listens by inotify(7), and keeps up.

use std::{
    mem::MaybeUninit,
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use rustix::{
    fd::OwnedFd,
    fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
};

use crate::wait::PATIENCE;

/// One event: what happened, and to which name; none for what is watched itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// As inotifywait(1) prints it, such as `CLOSE_WRITE` or `CREATE,ISDIR`.
    pub what: String,
    pub name: String,
    /// Ties the two halves of a rename together.
    pub cookie: u32,
}

/// The names of the bits, in inotifywait's order.
const NAMES: [(ReadFlags, &str); 13] = [
    (ReadFlags::ACCESS, "ACCESS"),
    (ReadFlags::MODIFY, "MODIFY"),
    (ReadFlags::ATTRIB, "ATTRIB"),
    (ReadFlags::CLOSE_WRITE, "CLOSE_WRITE"),
    (ReadFlags::CLOSE_NOWRITE, "CLOSE_NOWRITE"),
    (ReadFlags::OPEN, "OPEN"),
    (ReadFlags::MOVED_FROM, "MOVED_FROM"),
    (ReadFlags::MOVED_TO, "MOVED_TO"),
    (ReadFlags::MOVE_SELF, "MOVE_SELF"),
    (ReadFlags::CREATE, "CREATE"),
    (ReadFlags::DELETE, "DELETE"),
    (ReadFlags::DELETE_SELF, "DELETE_SELF"),
    (ReadFlags::QUEUE_OVERFLOW, "OVERFLOW"),
];

/// Watches one file or directory until it is dropped; a thread reads at once what comes.
#[derive(Debug)]
pub struct Listener {
    events: Receiver<(Instant, Event)>,
}

impl Listener {
    /// Hears everything that happens to `path`.
    pub fn to(path: &Path) -> Self {
        Self::with(path, WatchFlags::ALL_EVENTS)
    }

    /// Hears of names that come, go and change: not of opening and reading.
    pub fn to_changes(path: &Path) -> Self {
        let changes = WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE;
        Self::with(path, changes)
    }

    fn with(path: &Path, flags: WatchFlags) -> Self {
        let inotify = inotify::init(CreateFlags::CLOEXEC).expect("an inotify descriptor");
        inotify::add_watch(&inotify, path, flags).expect("it can be watched");
        let (sender, events) = channel();
        // It ends with the first event that nobody takes any more, or with the process.
        std::thread::spawn(move || {
            let mut buffer = vec![MaybeUninit::uninit(); 1 << 20];
            let mut reader = Reader::new(&inotify, &mut buffer);
            while let Ok(event) = reader.next() {
                let dir = if event.events().contains(ReadFlags::ISDIR) { ",ISDIR" } else { "" };
                let what = NAMES.iter().find(|(bit, _)| event.events().contains(*bit));
                let event = Event {
                    what: format!("{}{dir}", what.map_or("IGNORED", |(_, name)| name)),
                    name: event
                        .file_name()
                        .map(|name| name.to_string_lossy().into_owned())
                        .unwrap_or_default(),
                    cookie: event.cookie(),
                };
                if sender.send((Instant::now(), event)).is_err() {
                    return;
                }
            }
            drop::<OwnedFd>(inotify);
        });
        Self { events }
    }

    /// The next event, and when it came.
    #[track_caller]
    pub fn next(&self) -> (Instant, Event) {
        match self.events.recv_timeout(PATIENCE) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => panic!("no further event comes"),
            Err(RecvTimeoutError::Disconnected) => panic!("the listener can't read its events"),
        }
    }

    /// The events up to the first that `last` accepts, as `WHAT NAME`.
    #[track_caller]
    pub fn until(&self, last: impl Fn(&Event) -> bool) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let (_, event) = self.next();
            seen.push(format!("{} {}", event.what, event.name).trim_end().to_owned());
            if last(&event) {
                return seen;
            }
        }
    }

    /// Checks that these events come next, as `WHAT NAME`.
    #[track_caller]
    pub fn expect(&self, wanted: &[&str]) {
        for (number, wanted) in wanted.iter().enumerate() {
            let (_, event) = self.next();
            let seen = format!("{} {}", event.what, event.name);
            assert_eq!(seen.trim_end(), *wanted, "event {number} after the last step");
        }
    }

    /// Checks that nothing comes for `time`: for what must not be told twice, or not at all.
    #[track_caller]
    pub fn expect_silence(&self, time: Duration) {
        if let Ok((_, event)) = self.events.recv_timeout(time) {
            panic!("{event:?} came, which nothing asked for");
        }
    }
}
