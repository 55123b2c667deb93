//! The floor: what a file costs through FUSE where there is nothing else to do.
//!
//! A tree in memory behind the same library and the same kernel options as the
//! mount's, served by one thread, its files read through the page cache. It can
//! be filled behind the kernel's back, so that the kernel asks for names that it
//! has never seen, as it does for keys that others put. It has what the measured
//! operations need and nothing more.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr, Request, Session, TimeOrNow,
    WriteFlags,
};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// As long as the mount lets the kernel keep what it tells.
const KEEP: Duration = Duration::from_secs(60);

/// A directory to make, with files in it, of which the kernel hears when it asks; an order a line.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Fill {
    /// Below the mount point.
    dir: PathBuf,
    names: Vec<String>,
    content: Vec<u8>,
}

/// The mounted floor, a process of its own; gone when dropped.
///
/// A thread that waits for its own process's file system can't be ended by a signal.
#[derive(Debug)]
pub(super) struct Floor {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    point: TempDir,
}

impl Floor {
    pub(super) fn mount() -> io::Result<Self> {
        let point = tempfile::Builder::new().prefix("etcfs-bench-floor-").tempdir()?;
        let mut process = Command::new(std::env::current_exe()?)
            .args(["bench", "floor"])
            .arg(point.path())
            // The terminal's Ctrl-C is ours: the floor ends with its orders.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take();
        let answers = process.stdout.take().map(BufReader::new).expect("it is piped");
        let mut this = Self { process, orders, answers, point };
        this.done()?;
        Ok(this)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.point.path().to_path_buf()
    }

    pub(super) fn fill(&mut self, dir: &Path, names: Vec<String>, content: &[u8]) -> io::Result<()> {
        let below = dir.strip_prefix(self.point.path()).map_err(io::Error::other)?;
        let fill = Fill { dir: below.to_path_buf(), names, content: content.to_vec() };
        let orders = self.orders.as_mut().expect("it is dropped last");
        writeln!(orders, "{}", serde_json::to_string(&fill)?)?;
        self.done()
    }

    fn done(&mut self) -> io::Result<()> {
        let mut line = String::new();
        match self.answers.read_line(&mut line)? {
            0 => Err(io::Error::other("the floor's process has ended")),
            _ => Ok(()),
        }
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        drop(self.orders.take());
        match self.process.wait() {
            Ok(status) if status.success() => {}
            ended => anstream::eprintln!("the floor ended badly: {ended:?}"),
        }
    }
}

/// The floor's own process: mounts it at `point` until standard input ends.
pub(crate) fn serve(point: &Path) -> io::Result<()> {
    let tree = Arc::new(Mutex::new(Tree::new()));
    let mut options = fuser::Config::default();
    options.mount_options = vec![
        MountOption::FSName("etcfs-bench-floor".to_owned()),
        MountOption::NoSuid,
        MountOption::NoDev,
        MountOption::NoAtime,
    ];
    let fs = FloorFs { tree: tree.clone(), listings: Mutex::default(), next: AtomicU64::new(1) };
    let session = Session::new(fs, point, &options)?.spawn()?;
    let mut answers = io::stdout().lock();
    writeln!(answers, "mounted")?;
    for order in io::stdin().lock().lines() {
        lock(&tree).fill(&serde_json::from_str(&order?)?).ok_or_else(not_a_directory)?;
        writeln!(answers, "done")?;
    }
    session.umount_and_join()
}

fn not_a_directory() -> io::Error {
    io::ErrorKind::NotADirectory.into()
}

const ROOT: INodeNo = INodeNo(1);

#[derive(Debug)]
enum Node {
    Dir(Dir),
    File(Vec<u8>),
}

#[derive(Debug, Default)]
struct Dir {
    children: HashMap<OsString, INodeNo>,
    /// As it is listed, until it changes.
    listing: Option<Listing>,
}

type Listing = Arc<Vec<(INodeNo, FileType, OsString)>>;

/// Nodes by number; those of removed names stay.
#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
    made: SystemTime,
}

impl Tree {
    fn new() -> Self {
        Self { nodes: vec![Node::Dir(Dir::default())], made: SystemTime::now() }
    }

    fn node(&mut self, id: INodeNo) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(id.0.checked_sub(1)?).ok()?)
    }

    fn dir(&mut self, id: INodeNo) -> Option<&mut Dir> {
        match self.node(id)? {
            Node::Dir(dir) => Some(dir),
            Node::File(_) => None,
        }
    }

    fn file(&mut self, id: INodeNo) -> Option<&mut Vec<u8>> {
        match self.node(id)? {
            Node::File(bytes) => Some(bytes),
            Node::Dir(_) => None,
        }
    }

    fn child(&mut self, parent: INodeNo, name: &OsStr) -> Option<INodeNo> {
        self.dir(parent)?.children.get(name).copied()
    }

    fn add(&mut self, parent: INodeNo, name: &OsStr, node: Node) -> Option<INodeNo> {
        let id = INodeNo(self.nodes.len() as u64 + 1);
        let dir = self.dir(parent)?;
        dir.children.insert(name.to_owned(), id);
        dir.listing = None;
        self.nodes.push(node);
        Some(id)
    }

    fn fill(&mut self, fill: &Fill) -> Option<()> {
        let mut at = ROOT;
        for name in &fill.dir {
            at = match self.child(at, name) {
                Some(id) => id,
                None => self.add(at, name, Node::Dir(Dir::default()))?,
            };
        }
        for name in &fill.names {
            self.add(at, OsStr::new(name), Node::File(fill.content.clone()))?;
        }
        Some(())
    }

    fn remove(&mut self, parent: INodeNo, name: &OsStr) -> Result<(), Errno> {
        let id = self.child(parent, name).ok_or(Errno::ENOENT)?;
        if self.dir(id).is_some_and(|dir| !dir.children.is_empty()) {
            return Err(Errno::ENOTEMPTY);
        }
        let dir = self.dir(parent).ok_or(Errno::ENOENT)?;
        dir.children.remove(name);
        dir.listing = None;
        Ok(())
    }

    fn attr(&mut self, id: INodeNo) -> Option<FileAttr> {
        let made = self.made;
        let (kind, perm, size) = match self.node(id)? {
            Node::Dir(_) => (FileType::Directory, 0o755, 0),
            Node::File(bytes) => (FileType::RegularFile, 0o644, bytes.len() as u64),
        };
        Some(FileAttr {
            ino: id,
            size,
            blocks: size.div_ceil(512),
            atime: made,
            mtime: made,
            ctime: made,
            crtime: made,
            kind,
            perm,
            nlink: 1,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn listing(&mut self, id: INodeNo) -> Option<Listing> {
        if let Some(listing) = &self.dir(id)?.listing {
            return Some(listing.clone());
        }
        let children = self.dir(id)?.children.clone();
        let mut listing = vec![
            (id, FileType::Directory, OsString::from(".")),
            (ROOT, FileType::Directory, OsString::from("..")),
        ];
        for (name, child) in children {
            listing.push((child, self.attr(child)?.kind, name));
        }
        let listing = Arc::new(listing);
        self.dir(id)?.listing = Some(listing.clone());
        Some(listing)
    }
}

#[derive(Debug)]
struct FloorFs {
    tree: Arc<Mutex<Tree>>,
    /// Of open directories.
    listings: Mutex<HashMap<u64, Listing>>,
    next: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

fn reply_entry(reply: ReplyEntry, attr: Option<FileAttr>) {
    match attr {
        Some(attr) => reply.entry(&KEEP, &attr, Generation(0)),
        None => reply.error(Errno::ENOENT),
    }
}

fn reply_attr(reply: ReplyAttr, attr: Option<FileAttr>) {
    match attr {
        Some(attr) => reply.attr(&KEEP, &attr),
        None => reply.error(Errno::ENOENT),
    }
}

fn reply_empty(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for FloorFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
        let offered = wanted & config.capabilities();
        config.add_capabilities(offered).map_err(|_| io::Error::other("the kernel refuses what it offers"))
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut tree = lock(&self.tree);
        let found = tree.child(parent, name).and_then(|id| tree.attr(id));
        drop(tree);
        reply_entry(reply, found);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let found = lock(&self.tree).attr(ino);
        reply_attr(reply, found);
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut tree = lock(&self.tree);
        if let (Some(size), Some(bytes)) = (size, tree.file(ino)) {
            bytes.resize(usize::try_from(size).unwrap_or(usize::MAX), 0);
        }
        let found = tree.attr(ino);
        drop(tree);
        reply_attr(reply, found);
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let mut tree = lock(&self.tree);
        let made = tree.add(parent, name, Node::Dir(Dir::default())).and_then(|id| tree.attr(id));
        drop(tree);
        reply_entry(reply, made);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = lock(&self.tree).remove(parent, name);
        reply_empty(reply, done);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = lock(&self.tree).remove(parent, name);
        reply_empty(reply, done);
    }

    fn open(&self, _req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.0 & libc::O_TRUNC != 0
            && let Some(bytes) = lock(&self.tree).file(ino)
        {
            bytes.clear();
        }
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut tree = lock(&self.tree);
        let made = tree.add(parent, name, Node::File(Vec::new())).and_then(|id| tree.attr(id));
        drop(tree);
        match made {
            Some(attr) => {
                reply.created(&KEEP, &attr, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut tree = lock(&self.tree);
        let bytes = tree.file(ino).map_or(&[][..], |bytes| bytes);
        let begin = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let end = bytes.len().min(begin.saturating_add(size as usize));
        reply.data(&bytes[begin..end]);
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (mut tree, begin) = (lock(&self.tree), usize::try_from(offset).unwrap_or(usize::MAX));
        let Some(bytes) = tree.file(ino) else { return reply.error(Errno::ENOENT) };
        let end = begin.saturating_add(data.len());
        bytes.resize(bytes.len().max(end), 0);
        bytes[begin..end].copy_from_slice(data);
        drop(tree);
        reply.written(data.len() as u32);
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        // Asked for with each close, as of every file system whose close can fail.
        reply.ok();
    }

    fn getxattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        // The kernel asks before it writes, as of every file system that has attributes at all.
        reply.error(Errno::NO_XATTR);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let Some(listing) = lock(&self.tree).listing(ino) else { return reply.error(Errno::ENOENT) };
        let fh = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.listings).insert(fh, listing);
        reply.opened(FileHandle(fh), FopenFlags::empty());
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let Some(listing) = lock(&self.listings).get(&fh.0).cloned() else {
            return reply.error(Errno::EBADF);
        };
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, (ino, kind, name)) in listing.iter().enumerate().skip(first) {
            if reply.add(*ino, at as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        lock(&self.listings).remove(&fh.0);
        reply.ok();
    }
}
