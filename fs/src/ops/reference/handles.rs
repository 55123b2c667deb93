//! Random sequences through open files of one key, by several processes on two mounts, against a model.
//!
//! The model is the saved value, and for each open file what it has done since its last save or which value it was
//! opened at. After every step each file that was opened beside its process's writers shows their bytes, anybody
//! else who opens the file the saved ones, whole, and the store holds what was saved.

use std::ffi::OsStr;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{STEPS, publish, tell};
use crate::config::View;
use crate::map::Rel;
use crate::node::{Fh, Moment, NodeId, ROOT};
use crate::ops::Fs;
use crate::ops::test_mount::mount_with;
use crate::remote::memory::Memory;

/// Processes: of which mount each is, by its number.
const PROCESSES: [u32; 4] = [7, 8, 9, 10];

/// One that writes nothing, on each mount.
const STRANGER: u32 = 99;

#[derive(Clone, Debug)]
enum Edit {
    Write(usize, String),
    Append(String),
    Truncate(usize),
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, text) => {
                let end = at + text.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at..end].copy_from_slice(text.as_bytes());
            }
            Self::Append(text) => bytes.extend_from_slice(text.as_bytes()),
            Self::Truncate(len) => bytes.resize(*len, 0),
        }
    }
}

#[derive(Debug)]
struct Writer {
    process: usize,
    node: NodeId,
    fh: Fh,
    flags: i32,
    wrote: bool,
    edits: Vec<Edit>,
    /// The step of its last edit.
    last: usize,
}

#[derive(Debug)]
struct Reader {
    process: usize,
    node: NodeId,
    fh: Fh,
    /// `None` while it shows what its process writes.
    snapshot: Option<Vec<u8>>,
}

struct World {
    memory: Memory,
    mounts: Vec<Arc<Fs>>,
    saved: Vec<u8>,
    writers: Vec<Writer>,
    readers: Vec<Reader>,
    done: Vec<String>,
}

impl World {
    fn fs(&self, process: usize) -> Arc<Fs> {
        self.mounts[process % 2].clone()
    }

    /// What a process has written and not saved, on the saved value.
    fn view(&self, process: usize) -> Vec<u8> {
        let mut own: Vec<&Writer> = self.writers.iter().filter(|writer| writer.process == process).collect();
        own.sort_by_key(|writer| writer.last);
        let mut bytes = self.saved.clone();
        own.iter().flat_map(|writer| &writer.edits).for_each(|edit| edit.apply(&mut bytes));
        bytes
    }

    fn writes(&self, process: usize) -> bool {
        self.writers.iter().any(|writer| writer.process == process)
    }

    fn save(&mut self, at: usize) {
        for edit in std::mem::take(&mut self.writers[at].edits) {
            edit.apply(&mut self.saved);
        }
    }

    async fn find(&self, fs: &Fs) -> NodeId {
        fs.lookup(ROOT, OsStr::new("f")).await.expect("it is there").node
    }

    async fn step(&mut self, rng: &mut StdRng, now: usize) {
        let text: String = std::iter::repeat_n(rng.random_range('a'..='z'), rng.random_range(1..6)).collect();
        let process = rng.random_range(0..PROCESSES.len());
        let (fs, pid) = (self.fs(process), PROCESSES[process]);
        let writer = self.writers.len().checked_sub(1).map(|last| rng.random_range(0..=last));
        match (rng.random_range(0..16), writer) {
            (0..3, _) => {
                let flags = [0, libc::O_APPEND, libc::O_TRUNC][rng.random_range(0..3)];
                self.done.push(format!("{process} opens for writing, {flags:o}"));
                let node = self.find(&fs).await;
                let fh = fs.open(node, pid, Fs::open_how(libc::O_RDWR | flags)).expect("it opens");
                let edits = if flags == libc::O_TRUNC { vec![Edit::Truncate(0)] } else { vec![] };
                self.writers.push(Writer { process, node, fh, flags, wrote: false, edits, last: now });
            }
            (3..6, _) => {
                self.done.push(format!("{process} opens for reading"));
                let node = self.find(&fs).await;
                let fh = fs.open(node, pid, Fs::open_how(libc::O_RDONLY)).expect("it opens");
                let snapshot = (!self.writes(process)).then(|| self.saved.clone());
                self.readers.push(Reader { process, node, fh, snapshot });
            }
            (6..10, Some(at)) => self.write(at, rng.random_range(0..8), text, now).await,
            (10, Some(at)) => {
                let len = rng.random_range(0..12);
                self.done.push(format!("writer {at} truncates to {len}"));
                if self.writers[at].edits.iter().any(|edit| matches!(edit, Edit::Append(_))) {
                    self.save(at);
                }
                let writer = &mut self.writers[at];
                writer.edits.push(Edit::Truncate(len));
                writer.last = now;
                let fs = self.fs(self.writers[at].process);
                fs.truncate_handle(self.writers[at].fh, len as u64).await.expect("it is truncated");
            }
            (11, Some(at)) => {
                self.done.push(format!("writer {at} is synced"));
                self.save(at);
                let writer = &self.writers[at];
                self.fs(writer.process).flush(writer.fh, Moment::Fsync).await.expect("it is saved");
            }
            (12, Some(at)) => self.close(at).await,
            (13, _) if !self.readers.is_empty() => {
                let at = rng.random_range(0..self.readers.len());
                self.done.push(format!("reader {at} is closed"));
                let reader = self.readers.remove(at);
                let fs = self.fs(reader.process);
                let read = fs.read(reader.fh, pid, 0, 1 << 20).expect("it is open");
                let wanted = reader.snapshot.unwrap_or_else(|| self.view(reader.process));
                assert_eq!(read, wanted, "{:#?}", self.done);
                fs.release_now(reader.fh);
                fs.forget(reader.node, 1);
            }
            _ => {
                self.done.push(format!("another client puts {text}"));
                self.saved = text.clone().into_bytes();
                self.memory.put("/f", &text);
            }
        }
    }

    async fn write(&mut self, at: usize, offset: usize, text: String, now: usize) {
        self.done.push(format!("writer {at} writes {text} at {offset}"));
        let writer = &mut self.writers[at];
        let append = writer.flags == libc::O_APPEND;
        writer.edits.push(if append {
            Edit::Append(text.clone())
        } else {
            Edit::Write(offset, text.clone())
        });
        writer.last = now;
        // The first small write is put inside write(2), but not by who writes in place.
        let first = !std::mem::replace(&mut writer.wrote, true) && writer.flags != 0;
        let (fh, process) = (writer.fh, writer.process);
        if first {
            self.save(at);
        }
        let (fs, pid) = (self.fs(process), PROCESSES[process]);
        match fs.write_now(fh, pid, offset as u64, text.as_bytes()) {
            Some(written) => written.expect("it is buffered"),
            None => fs.write(fh, pid, offset as u64, text.into()).await.expect("it is saved"),
        }
    }

    async fn close(&mut self, at: usize) {
        self.done.push(format!("writer {at} is closed"));
        self.save(at);
        let closed = self.writers.remove(at);
        let fs = self.fs(closed.process);
        fs.flush(closed.fh, Moment::Flush).await.expect("it is saved");
        fs.clone().release(closed.node, closed.fh, None).await;
        fs.forget(closed.node, 1);
        if !self.writes(closed.process) {
            for reader in &mut self.readers {
                if reader.process == closed.process && reader.snapshot.is_none() {
                    reader.snapshot = Some(self.saved.clone());
                }
            }
        }
    }

    async fn check(&self) {
        let stored = self.memory.value("/f").expect("nobody deletes it");
        assert_eq!(stored, self.saved, "{:#?}", self.done);
        for fs in &self.mounts {
            let node = self.find(fs).await;
            let fh = fs.open(node, STRANGER, Fs::open_how(libc::O_RDONLY)).expect("it opens");
            assert_eq!(
                fs.read(fh, STRANGER, 0, 1 << 20).expect("it is open"),
                self.saved,
                "{:#?}",
                self.done
            );
            let size = fs.getattr(node, STRANGER, None).expect("it is there").size;
            assert_eq!(size, self.saved.len() as u64, "{:#?}", self.done);
            fs.release_now(fh);
            fs.forget(node, 1);
        }
        for reader in self.readers.iter().filter(|reader| reader.snapshot.is_none()) {
            let (fs, pid, view) =
                (self.fs(reader.process), PROCESSES[reader.process], self.view(reader.process));
            let read = fs.read(reader.fh, pid, 0, 1 << 20).expect("it is open");
            assert_eq!(read, view, "{:#?}", self.done);
            for (node, fh) in
                [(reader.node, Some(reader.fh)), (reader.node, None), (self.find(&fs).await, None)]
            {
                let size = fs.getattr(node, pid, fh).expect("it is there").size;
                assert_eq!(size, view.len() as u64, "{:#?}", self.done);
            }
            fs.forget(self.find(&fs).await, 2);
        }
        for writer in &self.writers {
            let (fs, pid) = (self.fs(writer.process), PROCESSES[writer.process]);
            let read = fs.read(writer.fh, pid, 0, 1 << 20).expect("it is open");
            assert_eq!(read, self.view(writer.process), "{:#?}", self.done);
        }
    }
}

pub(super) async fn sequence(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let memory = Memory::new();
    memory.put("/f", "first");
    let mut mounts = Vec::new();
    for _ in 0..2 {
        mounts.push(mount_with(&memory, "/", Rel::Off, View::default()).await);
    }
    let told = mounts.clone();
    let done = vec![format!("seed {seed}")];
    let mut world =
        World { memory, mounts, saved: b"first".to_vec(), writers: Vec::new(), readers: Vec::new(), done };
    for now in 0..STEPS {
        tokio::select! {
            () = world.step(&mut rng, now) => {}
            () = publish(&told) => unreachable!("it never ends"),
        }
        while told.iter().any(|fs| fs.nodes.with(|table| table.stats().seen) < world.memory.revision().0) {
            tokio::task::yield_now().await;
        }
        told.iter().for_each(|fs| tell(fs));
        world.check().await;
    }
}
