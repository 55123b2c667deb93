//! The kernel's requests, translated: fuser's types in, an operation, a reply or an
//! errno out. Nothing else happens here.
//!
//! What is known is answered on the thread that read the request; the rest runs as a
//! task with the reply moved into it, and ends early if its caller has a signal.

mod reply;

use std::ffi::OsStr;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, FileType, Filesystem, FopenFlags, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use self::reply::{
    FORGET, GENERATION, attr_ttl, errno, file_attr, file_type, listing_flags, lock_mode, reply_attr,
    reply_empty, reply_entry, reply_xattr, set_time,
};
use crate::config::LockScope;
use crate::errno::OpError;
use crate::lock::{Mode, Span};
use crate::metrics::Operation;
use crate::node::{Fh, Listing, Moment, NodeId, Table};
use crate::ops::{
    BLOCK, Created, Fs, HELPER_FH, Interrupts, LockSeen, Owner, RenameHow, SetAttr, SetLock, interruptible,
};

/// Every file's bytes come from here, one read one revision, never from the page cache.
const OPEN: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;

/// The helper's: nothing is to be flushed.
const HELPER_OPEN: FopenFlags = OPEN.union(FopenFlags::FOPEN_NOFLUSH);

/// Largest extended attribute value that the kernel takes.
const XATTR_BYTES_MAX: usize = 65_536;

/// The file system that fuser runs.
pub struct Kernel {
    fs: Arc<Fs>,
    /// For what the kernel must have forgotten before it is answered. There once the session is.
    notifier: Arc<OnceLock<Notifier>>,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

impl Kernel {
    pub fn new(fs: Arc<Fs>) -> Self {
        Self { fs, notifier: Arc::default() }
    }

    /// Where the session's notifier belongs.
    pub fn notifier(&self) -> Arc<OnceLock<Notifier>> {
        self.notifier.clone()
    }

    /// Runs an operation as a task; the caller's signals end it.
    fn task<T: Send + 'static>(
        &self,
        req: &Request,
        word: Operation,
        operation: impl Future<Output = Result<T, OpError>> + Send + 'static,
        reply: impl FnOnce(Result<T, OpError>) + Send + 'static,
    ) {
        let pid = req.pid();
        let (fs, since) = (self.fs.clone(), self.fs.clock());
        self.fs.runtime.spawn(async move {
            let done = interruptible(pid, interrupts(word), operation).await;
            fs.count(word, since, &done);
            if let Err(error) = &done {
                fs.note_error(error);
            }
            reply(done);
        });
    }
}

/// Answers with the names from an offset on. False if there are none: the end.
fn fill(reply: &mut ReplyDirectory, dir: INodeNo, offset: u64, listing: &Listing) -> bool {
    let dots = [(".", dir.0), ("..", 1)];
    let mut any = false;
    for (at, (name, number)) in dots.into_iter().enumerate().skip(offset as usize) {
        if reply.add(INodeNo(number), at as u64 + 1, FileType::Directory, name) {
            return any;
        }
        any = true;
    }
    let first = (offset as usize).saturating_sub(dots.len());
    for (at, entry) in listing.from(first).enumerate() {
        let next = (first + at + dots.len()) as u64 + 1;
        if reply.add(INodeNo(entry.ino), next, file_type(entry.kind), entry.name) {
            break;
        }
        any = true;
    }
    any
}

/// Which signals end an operation.
fn interrupts(word: Operation) -> Interrupts {
    match word {
        Operation::Write | Operation::Flush | Operation::Fsync | Operation::SetAttr => Interrupts::ButNoted,
        _ => Interrupts::Any,
    }
}

impl Filesystem for Kernel {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let locks = match self.fs.view.locks {
            LockScope::Local => InitFlags::empty(),
            LockScope::Cluster | LockScope::Off => InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS,
        };
        let wanted = locks
            | InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            // Programs that map a value shared (git, sqlite3) get ENODEV without it.
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            | InitFlags::FUSE_HAS_EXPIRE_ONLY;
        let offered = wanted & config.capabilities();
        if let Err(refused) = config.add_capabilities(offered) {
            tracing::warn!(?refused, "the kernel offers what it then refuses");
        }
        if offered != wanted {
            tracing::info!(missing = ?(wanted - offered), "the kernel lacks");
            self.fs.note_lacks(format!("{:?}", wanted - offered));
        }
        if !offered.contains(InitFlags::FUSE_HAS_EXPIRE_ONLY) {
            self.fs.nodes.with(Table::keep_no_dirs);
        }
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let parent = NodeId(parent.0);
        if self.fs.is_helper(req.pid())
            && let Some(found) = self.fs.helper_lookup(parent, name)
        {
            return reply_entry(&self.fs, reply, found);
        }
        let since = self.fs.clock();
        match self.fs.lookup_now(parent, name) {
            Some(found) => {
                self.fs.count(Operation::Lookup, since, &found);
                reply_entry(&self.fs, reply, found);
            }
            None => {
                let (fs, name) = (self.fs.clone(), name.to_owned());
                let done = self.fs.clone();
                self.task(
                    req,
                    Operation::Lookup,
                    async move { fs.lookup_later(parent, &name).await },
                    move |found| {
                        reply_entry(&done, reply, found);
                    },
                );
            }
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.fs.forget(NodeId(ino.0), nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let since = self.fs.clock();
        let found = self.fs.getattr(NodeId(ino.0), req.pid(), fh.map(|fh| Fh(fh.0)));
        self.fs.count(Operation::GetAttr, since, &found);
        reply_attr(&self.fs, reply, found);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        if self.fs.is_helper(req.pid()) {
            return reply_attr(&self.fs, reply, self.fs.helper_touch(NodeId(ino.0)));
        }
        let set = SetAttr { mode, uid, gid, size, atime: atime.map(set_time), mtime: mtime.map(set_time) };
        let (fs, done, pid) = (self.fs.clone(), self.fs.clone(), req.pid());
        let operation = async move { fs.setattr(NodeId(ino.0), pid, fh.map(|fh| Fh(fh.0)), set).await };
        self.task(req, Operation::SetAttr, operation, move |found| reply_attr(&done, reply, found));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.fs.link_target(NodeId(ino.0)) {
            Ok(target) => reply.data(target.as_encoded_bytes()),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        if mode & libc::S_IFMT != libc::S_IFREG && mode & libc::S_IFMT != 0 {
            return reply.error(errno(&OpError::NotPermitted("only files can be keys")));
        }
        let (fs, done, name) = (self.fs.clone(), self.fs.clone(), name.to_owned());
        let operation = async move { fs.make_node(NodeId(parent.0), &name).await };
        self.task(req, Operation::MakeNode, operation, move |found| reply_entry(&done, reply, found));
    }

    fn mkdir(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        if self.fs.is_helper(req.pid()) {
            return reply_entry(&self.fs, reply, self.fs.helper_make_dir(NodeId(parent.0), name));
        }
        let (fs, done, name) = (self.fs.clone(), self.fs.clone(), name.to_owned());
        let operation = async move { fs.make_dir(NodeId(parent.0), &name).await };
        self.task(req, Operation::MakeDir, operation, move |found| reply_entry(&done, reply, found));
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.fs.is_helper(req.pid()) {
            return reply_empty(reply, self.fs.helper_remove(NodeId(parent.0), name));
        }
        let (fs, name) = (self.fs.clone(), name.to_owned());
        let operation = async move { fs.unlink(NodeId(parent.0), &name).await };
        self.task(req, Operation::Unlink, operation, move |done| reply_empty(reply, done));
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        if self.fs.is_helper(req.pid()) {
            return reply_empty(reply, self.fs.helper_remove(NodeId(parent.0), name));
        }
        let (fs, name) = (self.fs.clone(), name.to_owned());
        let operation = async move { fs.remove_dir(NodeId(parent.0), &name).await };
        self.task(req, Operation::RemoveDir, operation, move |done| reply_empty(reply, done));
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if self.fs.is_helper(req.pid()) {
            let done = self.fs.helper_rename((NodeId(parent.0), name), (NodeId(newparent.0), newname));
            return reply_empty(reply, done);
        }
        let how = if flags.is_empty() {
            RenameHow::Replace
        } else if flags == RenameFlags::RENAME_NOREPLACE {
            RenameHow::NoReplace
        } else if flags == RenameFlags::RENAME_EXCHANGE {
            RenameHow::Exchange
        } else {
            return reply.error(errno(&OpError::Malformed("whiteouts are no keys")));
        };
        let (fs, name, newname) = (self.fs.clone(), name.to_owned(), newname.to_owned());
        let operation =
            async move { fs.rename((NodeId(parent.0), &name), (NodeId(newparent.0), &newname), how).await };
        self.task(req, Operation::Rename, operation, move |done| reply_empty(reply, done));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.fs.is_helper(req.pid()) {
            return match self.fs.helper_open(NodeId(ino.0)) {
                Ok(fh) => reply.opened(FileHandle(fh.0), HELPER_OPEN),
                Err(error) => reply.error(errno(&error)),
            };
        }
        let (id, how) = (NodeId(ino.0), Fs::open_how(flags.0));
        let answer = move |opened: Result<Fh, OpError>| match opened {
            Ok(fh) => reply.opened(FileHandle(fh.0), OPEN),
            Err(error) => reply.error(errno(&error)),
        };
        let since = self.fs.clock();
        match self.fs.open_now(id, req.pid(), how) {
            Some(opened) => {
                self.fs.count(Operation::Open, since, &opened);
                answer(opened);
            }
            None => {
                let fs = self.fs.clone();
                let pid = req.pid();
                self.task(req, Operation::Open, async move { fs.open_later(id, pid, how).await }, answer);
            }
        }
    }

    fn read(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let since = self.fs.clock();
        let read = self.fs.read(Fh(fh.0), req.pid(), offset, size);
        self.fs.count(Operation::Read, since, &read);
        match read {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (fh, pid, len) = (Fh(fh.0), req.pid(), data.len() as u32);
        let answer = move |done: Result<(), OpError>| match done {
            Ok(()) => reply.written(len),
            Err(error) => reply.error(errno(&error)),
        };
        let since = self.fs.clock();
        match self.fs.write_now(fh, pid, offset, data) {
            Some(done) => {
                self.fs.count(Operation::Write, since, &done);
                answer(done);
            }
            None => {
                let (fs, data) = (self.fs.clone(), Bytes::copy_from_slice(data));
                self.task(
                    req,
                    Operation::Write,
                    async move { fs.write(fh, pid, offset, data).await },
                    answer,
                );
            }
        }
    }

    fn flush(&self, req: &Request, ino: INodeNo, fh: FileHandle, lock_owner: LockOwner, reply: ReplyEmpty) {
        let (fh, owner, pid) = (Fh(fh.0), Owner(lock_owner.0), req.pid());
        let since = self.fs.clock();
        match self.fs.flush_now(fh) {
            Some(done) if !self.fs.has_locks(owner) => {
                self.fs.count(Operation::Flush, since, &done);
                reply_empty(reply, done);
            }
            _ => {
                let fs = self.fs.clone();
                let operation = async move { fs.close(NodeId(ino.0), fh, owner, pid).await };
                self.task(req, Operation::Flush, operation, move |done| reply_empty(reply, done));
            }
        }
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let (fh, owner) = (Fh(fh.0), lock_owner.map(|owner| Owner(owner.0)));
        // By the handle: the kernel names no process for a release.
        if fh == HELPER_FH {
            return reply.ok();
        }
        if owner.is_none() && self.fs.may_release_now(fh) {
            self.fs.release_now(fh);
            return reply.ok();
        }
        let fs = self.fs.clone();
        // Not by a caller's signal: nobody waits for this, and it must be done.
        self.fs.tasks.spawn_on(
            async move {
                fs.release(NodeId(ino.0), fh, owner).await;
                reply.ok();
            },
            &self.fs.runtime,
        );
    }

    fn fsync(&self, req: &Request, _ino: INodeNo, fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let fs = self.fs.clone();
        let operation = async move { fs.flush(Fh(fh.0), Moment::Fsync).await };
        self.task(req, Operation::Fsync, operation, move |done| reply_empty(reply, done));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.fs.open_dir(NodeId(ino.0)) {
            Ok((fh, copy)) => reply.opened(FileHandle(fh.0), listing_flags(copy)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdir(&self, req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let fh = Fh(fh.0);
        let (fs, notifier) = (self.fs.clone(), self.notifier.clone());
        let answer = move |listing: &Listing, mut reply: ReplyDirectory| {
            if !fill(&mut reply, ino, offset, listing)
                && fs.spoils_copy(fh)
                // Pages alone: this waits for no lock of a directory.
                && let Some(notifier) = notifier.get()
                && let Err(error) = notifier.inval_inode(ino, 0, 0)
            {
                tracing::warn!(%error, "the kernel was told to drop a listing");
            }
            reply.ok();
        };
        let since = self.fs.clock();
        if let Some(listing) = self.fs.listing_now(fh, offset) {
            answer(&listing, reply);
            return self.fs.count(Operation::ReadDir, since, &Ok(()));
        }
        let fs = self.fs.clone();
        self.task(req, Operation::ReadDir, async move { fs.listing(fh, offset).await }, move |listing| {
            match listing {
                Ok(listing) => answer(&listing, reply),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.release_dir(Fh(fh.0));
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        // Every change of a directory is on the server when it is answered.
        reply.ok();
    }

    fn statfs(&self, req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let fs = self.fs.clone();
        self.task(req, Operation::StatFs, async move { fs.space().await }, move |space| match space {
            Ok(space) => {
                let files = space.keys.saturating_add(space.free);
                let block = BLOCK as u32;
                reply.statfs(space.blocks, space.free, space.free, files, space.free, block, 255, block);
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        _flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (fs, name, value) = (self.fs.clone(), name.to_owned(), value.to_vec());
        debug_assert!(value.len() <= XATTR_BYTES_MAX, "the kernel bounds attributes");
        let operation = async move { fs.set_xattr(NodeId(ino.0), &name, &value).await };
        self.task(req, Operation::SetXattr, operation, move |done| reply_empty(reply, done));
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let id = NodeId(ino.0);
        let since = self.fs.clock();
        match self.fs.get_xattr_now(id, name) {
            Some(found) => {
                self.fs.count(Operation::GetXattr, since, &found);
                reply_xattr(reply, size, found);
            }
            None => {
                let (fs, name) = (self.fs.clone(), name.to_owned());
                let operation = async move { fs.get_xattr(id, &name).await };
                self.task(req, Operation::GetXattr, operation, move |found| reply_xattr(reply, size, found));
            }
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let since = self.fs.clock();
        let names = self
            .fs
            .list_xattr(NodeId(ino.0))
            .map(|names| names.into_iter().flat_map(|name| name.bytes().chain([0])).collect::<Vec<u8>>());
        self.fs.count(Operation::ListXattr, since, &names);
        reply_xattr(reply, size, names);
    }

    fn removexattr(&self, req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (fs, name) = (self.fs.clone(), name.to_owned());
        let operation = async move { fs.remove_xattr(NodeId(ino.0), &name).await };
        self.task(req, Operation::RemoveXattr, operation, move |done| reply_empty(reply, done));
    }

    fn getlk(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        _pid: u32,
        reply: ReplyLock,
    ) {
        let Some(mode) = lock_mode(typ) else { return reply.locked(start, end, libc::F_UNLCK, 0) };
        let (fs, id, owner) = (self.fs.clone(), NodeId(ino.0), Owner(lock_owner.0));
        let operation = async move { fs.get_lock(id, owner, Span { start, end }, mode).await };
        self.task(req, Operation::GetLock, operation, move |seen| match seen {
            Ok(Some(LockSeen { span, mode, pid })) => {
                let typ = if mode == Mode::Shared { libc::F_RDLCK } else { libc::F_WRLCK };
                reply.locked(span.start, span.end, typ, pid);
            }
            Ok(None) => reply.locked(start, end, libc::F_UNLCK, 0),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn setlk(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        lock_owner: LockOwner,
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
        wait: bool,
        reply: ReplyEmpty,
    ) {
        let (span, owner) = (Span { start, end }, Owner(lock_owner.0));
        let set = SetLock { owner, pid, span, mode: lock_mode(typ), wait };
        let (fs, id) = (self.fs.clone(), NodeId(ino.0));
        self.task(req, Operation::SetLock, async move { fs.set_lock(id, set).await }, move |done| {
            reply_empty(reply, done);
        });
    }

    fn ioctl(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        // Programs ask whether it is a terminal.
        reply.error(fuser::Errno::from_i32(libc::ENOTTY));
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(errno(&OpError::NotSupported));
    }

    fn lseek(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        // "Ask no more": without holes the kernel knows the answers.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        _ino_in: INodeNo,
        _fh_in: FileHandle,
        _offset_in: u64,
        _ino_out: INodeNo,
        _fh_out: FileHandle,
        _offset_out: u64,
        _len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // "Ask no more": it is read and written.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, _target: &Path, reply: ReplyEntry) {
        if self.fs.is_helper(req.pid()) {
            return reply_entry(&self.fs, reply, self.fs.helper_make_link(NodeId(parent.0), name));
        }
        reply.error(errno(&OpError::NotPermitted("a link is no key")));
    }

    fn link(&self, _req: &Request, _ino: INodeNo, _parent: INodeNo, _name: &OsStr, reply: ReplyEntry) {
        reply.error(errno(&OpError::NotPermitted("a value has one key")));
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // "Ask no more": modes are checked by the kernel where they are to be checked.
        reply.error(fuser::Errno::ENOSYS);
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        if self.fs.is_helper(req.pid()) {
            return match self.fs.helper_create(NodeId(parent.0), name) {
                Ok(entry) => {
                    let attr = file_attr(&self.fs, entry.node, &entry.attr);
                    reply.created(&FORGET, &attr, GENERATION, FileHandle(HELPER_FH.0), HELPER_OPEN);
                }
                Err(error) => reply.error(errno(&error)),
            };
        }
        let (fs, done, name, pid) = (self.fs.clone(), self.fs.clone(), name.to_owned(), req.pid());
        let operation = async move { fs.create(NodeId(parent.0), &name, pid, flags).await };
        self.task(req, Operation::Create, operation, move |created| match created {
            Ok(Created { entry, fh }) => {
                // One time for name and attributes: the shorter of the two.
                let keep = if entry.keep { attr_ttl(&entry.attr) } else { FORGET };
                let attr = file_attr(&done, entry.node, &entry.attr);
                reply.created(&keep, &attr, GENERATION, FileHandle(fh.0), OPEN);
            }
            Err(error) => reply.error(errno(&error)),
        });
    }
}
