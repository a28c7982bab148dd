//! The device as a mounted file system: FUSE's requests, turned into operations of the tree.
//!
//! Owns: the translation, what the kernel may cache. Knows nothing of: what is durable.
//!
//! The kernel keeps no write back: without FUSE_WRITEBACK_CACHE each write(2) arrives here before
//! the call returns. Files opened with O_DIRECT bypass the page cache (FOPEN_DIRECT_IO); all others
//! may be mapped for reading. Locks are the kernel's own.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;
use rustix::mount::{UnmountFlags, unmount};

use crate::body::Body;
use crate::device::{Device, Shared};
use crate::faults::Verb;
use crate::image::PAGE_BYTES;
use crate::tree::{Content, Entries, Inode, Outcome, Owner, now};

/// Names and attributes change only through the kernel while mounted, so it may keep them.
const CACHED: Duration = Duration::from_hours(1);

/// Requests handled at a time: more than one, so that a slow disk still overlaps them.
const THREADS: usize = 4;

/// Bits of fallocate(2).
const KEEP_SIZE: i32 = 1;
const PUNCH_HOLE: i32 = 2;
const ZERO_RANGE: i32 = 16;

/// The part of a mode that says what may be done.
const PERMISSIONS: u32 = 0o7777;

/// One mount of a device.
struct Mount {
    shared: Shared,
    number: u64,
}

/// Mounts the device.
///
/// # Errors
/// The kernel refuses; mounting needs /dev/fuse, and root or fusermount3.
pub fn mount(shared: &Shared, target: &Path) -> io::Result<BackgroundSession> {
    let number = shared.lock().begin_mount();
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("faultfs".to_owned()), MountOption::NoAtime];
    config.n_threads = Some(THREADS);
    fuser::spawn_mount(Mount { shared: shared.clone(), number }, target, &config)
}

/// Takes the mount away, also from under programs that still use it.
///
/// # Errors
/// The kernel refuses, or the session ended badly.
pub fn take_away(session: BackgroundSession, target: &Path) -> io::Result<()> {
    match unmount(target, UnmountFlags::DETACH) {
        // The session ends with its last user; it is not waited for.
        Ok(()) => drop(session),
        // Who is not root goes the way of fusermount3, as for mounting.
        Err(rustix::io::Errno::PERM) => session.umount_and_join()?,
        Err(errno) => return Err(errno.into()),
    }
    Ok(())
}

impl Mount {
    fn with<T>(&self, effect: impl FnOnce(&mut Device) -> Outcome<T>) -> Outcome<T> {
        effect(&mut *self.shared.reach(self.number)?)
    }

    /// Makes an inode and gives its attributes.
    fn make(&self, at: (INodeNo, &OsStr), content: Content, owner: Owner) -> Outcome<FileAttr> {
        self.with(|device| {
            device.run_named(Verb::Create, at.0.0, at.1, |tree| {
                let number = tree.make(at.0.0, at.1, content, owner)?;
                Ok(attributes(number, tree.inode(number)?))
            })
        })
    }
}

fn owner(request: &Request, mode: u32, umask: u32) -> Owner {
    let perm = u16::try_from(mode & !umask & PERMISSIONS).unwrap_or(0);
    Owner { uid: request.uid(), gid: request.gid(), perm }
}

fn attributes(number: u64, inode: &Inode) -> FileAttr {
    let (kind, size, pages) = match &inode.content {
        Content::Directory { .. } => (FileType::Directory, PAGE_BYTES, 1),
        Content::File(body) => (FileType::RegularFile, body.live.len(), body.used_pages()),
        Content::Special(kind) => (*kind, 0, 0),
        Content::Symlink(target) => (FileType::Symlink, target.len() as u64, 0),
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: pages * (PAGE_BYTES / 512),
        atime: inode.changed,
        mtime: inode.changed,
        ctime: inode.changed,
        crtime: inode.changed,
        kind,
        perm: inode.owner.perm,
        nlink: inode.links.max(u32::from(kind == FileType::Directory)),
        uid: inode.owner.uid,
        gid: inode.owner.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn open_flags(flags: i32) -> FopenFlags {
    if flags & OFlags::DIRECT.bits().cast_signed() == 0 {
        FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
    }
}

fn answer_entry(reply: ReplyEntry, result: Outcome<FileAttr>) {
    match result {
        Ok(attr) => reply.entry(&CACHED, &attr, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

fn answer_empty(reply: ReplyEmpty, result: Outcome<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn answer_attr(reply: ReplyAttr, result: Outcome<FileAttr>) {
    match result {
        Ok(attr) => reply.attr(&CACHED, &attr),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Mount {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.with(|device| {
            let number = device.tree.lookup(parent.0, name)?;
            Ok(attributes(number, device.tree.inode(number)?))
        });
        answer_entry(reply, found);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.with(|device| Ok(attributes(ino.0, device.tree.inode(ino.0)?)));
        answer_attr(reply, found);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = self.with(|device| {
            if let Some(len) = size {
                device.run(Verb::Truncate, ino.0, |tree| tree.set_len(ino.0, len))?;
            }
            let inode = device.tree.inode(ino.0)?;
            let mut owner = inode.owner;
            owner.uid = uid.unwrap_or(owner.uid);
            owner.gid = gid.unwrap_or(owner.gid);
            if let Some(mode) = mode {
                owner.perm = u16::try_from(mode & PERMISSIONS).unwrap_or(owner.perm);
            }
            let at = match mtime {
                Some(TimeOrNow::SpecificTime(time)) => time,
                Some(TimeOrNow::Now) => now(),
                None => inode.changed,
            };
            device.tree.set_owner(ino.0, owner, at)?;
            Ok(attributes(ino.0, device.tree.inode(ino.0)?))
        });
        answer_attr(reply, changed);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let found = self.with(|device| match &device.tree.inode(ino.0)?.content {
            Content::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::EINVAL),
        });
        match found {
            Ok(target) => reply.data(target.as_encoded_bytes()),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let kind = rustix::fs::FileType::from_raw_mode(mode);
        let content = match kind {
            rustix::fs::FileType::RegularFile => Content::File(Body::default()),
            rustix::fs::FileType::Socket => Content::Special(FileType::Socket),
            rustix::fs::FileType::Fifo => Content::Special(FileType::NamedPipe),
            _ => return reply.error(Errno::EPERM),
        };
        answer_entry(reply, self.make((parent, name), content, owner(request, mode, umask)));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let content = Content::Directory { live: Entries::new(), durable: Entries::new() };
        answer_entry(reply, self.make((parent, name), content, owner(request, mode, umask)));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let content = Content::Symlink(target.as_os_str().to_owned());
        answer_entry(reply, self.make((parent, name), content, owner(request, 0o777, 0)));
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.with(|device| {
            device.run_named(Verb::Create, parent.0, name, |tree| {
                tree.link(ino.0, parent.0, name)?;
                Ok(attributes(ino.0, tree.inode(ino.0)?))
            })
        });
        answer_entry(reply, linked);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = self.with(|device| {
            device.run_named(Verb::Unlink, parent.0, name, |tree| tree.unlink(parent.0, name))
        });
        answer_empty(reply, gone);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let gone = self.with(|device| {
            device.run_named(Verb::Unlink, parent.0, name, |tree| {
                tree.remove_directory(parent.0, name)
            })
        });
        answer_empty(reply, gone);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let moved = self.with(|device| {
            device.run_named(Verb::Rename, parent.0, new_name, |tree| {
                tree.rename((parent.0, name), (new_parent.0, new_name), replace)
            })
        });
        answer_empty(reply, moved);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let content = Content::File(Body::default());
        let attr = self.make((parent, name), content, owner(request, mode, umask));
        let result = attr.and_then(|attr| {
            self.with(|device| device.tree.open(attr.ino.0))?;
            Ok(attr)
        });
        match result {
            Ok(attr) => {
                let handle = FileHandle(attr.ino.0);
                reply.created(&CACHED, &attr, Generation(0), handle, open_flags(flags));
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.with(|device| device.run(Verb::Open, ino.0, |tree| tree.open(ino.0)));
        match opened {
            Ok(()) => reply.opened(FileHandle(ino.0), open_flags(flags.0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let closed = self.with(|device| {
            device.tree.release(ino.0);
            Ok(())
        });
        answer_empty(reply, closed);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // close(2) makes nothing durable.
        reply.ok();
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let bytes = self.with(|device| {
            device.run(Verb::Read, ino.0, |tree| {
                Ok(tree.body(ino.0)?.live.read(offset, u64::from(size)))
            })
        });
        match bytes {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self
            .with(|device| device.run(Verb::Write, ino.0, |tree| tree.write(ino.0, offset, data)));
        match (written, u32::try_from(data.len())) {
            (Ok(()), Ok(count)) => reply.written(count),
            (Err(errno), _) => reply.error(errno),
            (Ok(()), Err(_)) => reply.error(Errno::EINVAL),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.with(|device| device.run(Verb::Sync, ino.0, |tree| tree.sync(ino.0)));
        answer_empty(reply, synced);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.with(|device| {
            device.run(Verb::SyncDirectory, ino.0, |tree| tree.sync_directory(ino.0))
        });
        answer_empty(reply, synced);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = self.with(|device| {
            let mut listed = vec![
                (ino.0, FileType::Directory, ".".into()),
                (ino.0, FileType::Directory, "..".into()),
            ];
            for (name, number) in device.tree.entries(ino.0)? {
                let kind = attributes(*number, device.tree.inode(*number)?).kind;
                listed.push((*number, kind, name.clone()));
            }
            Ok(listed)
        });
        let listed = match listed {
            Ok(listed) => listed,
            Err(errno) => return reply.error(errno),
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (number, kind, name)) in (1_u64..).zip(listed).skip(from) {
            if reply.add(INodeNo(number), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.with(|device| {
            device.run(Verb::Allocate, ino.0, |tree| match mode & !KEEP_SIZE {
                0 => tree.allocate(ino.0, offset, length, mode & KEEP_SIZE == 0),
                PUNCH_HOLE | ZERO_RANGE if mode & KEEP_SIZE != 0 => {
                    tree.zero(ino.0, offset, length)
                }
                _ => Err(Errno::EOPNOTSUPP),
            })
        });
        answer_empty(reply, done);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (pages, free) = self.shared.lock().tree.space();
        reply.statfs(pages, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
