//! Names, directories and open files of a volume on a real file system.
//!
//! Owns: the volume's directory, which names are allowed, how a file is made, the table of open
//! files, the decision for or against O_DIRECT. Does not know: how bytes are moved.
//!
//! Invariants
//! - Nothing outside the volume's directory is reached: names are checked, symlinks not followed.
//! - A file is made under a hidden name and renamed when it is complete; a crash leaves the whole
//!   file or none under its own name.
//! - Every change of a directory is flushed before it is answered.
//! - A file id is never used twice.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    Advice, AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, RenameFlags, StatxFlags,
    fadvise, fallocate, flock, fstatfs, openat, renameat, renameat_with, statx, unlinkat,
};
use rustix::process::{Resource, getrlimit};

use super::{BLOCK_BYTES, BLOCK_LEN, BufClass, BufPool, FileId, OpenMode};

#[cfg(test)]
mod tests;

/// The most files open at once on one volume: 4 TB in segments of 256 MiB are 16,384, and the
/// ring's table of them costs the kernel 8 bytes each.
const FILES_MAX: usize = 32_768;

/// Descriptors left to the rest of the process (sockets, RocksDB) when its limit is low.
const DESCRIPTORS_SPARED: u64 = 256;

/// The longest name, as in the file systems we run on.
const NAME_BYTES_MAX: usize = 255;

/// The most names listed from one directory; with segments of 256 MiB this is 256 TiB.
const LIST_MAX: usize = 1 << 20;

/// The file being made, and the one that O_DIRECT is tried on. Parts of a name never start with
/// a dot, so these collide with none; `list` passes over them.
const NEW_PREFIX: &str = ".new-";
const PROBE_NAME: &str = ".probe";

/// The file that keeps processes apart.
const LOCK_NAME: &str = "LOCK";

/// What statfs(2) calls a tmpfs. It accepts O_DIRECT and ignores it.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// One open file. Whoever moves its bytes holds it; the descriptor closes with the last.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) file: File,
    pub(super) id: FileId,
    /// Fixed for as long as the file exists.
    pub(super) len: u64,
    /// A small number that no other open file has, for a ring's table.
    pub(super) slot: u32,
    /// No new operation may start.
    closed: AtomicBool,
    slots: Arc<Slots>,
}

impl OpenFile {
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.slots.give(self.slot);
    }
}

/// Numbers below a limit, each in one hand at a time.
#[derive(Debug)]
struct Slots {
    free: Mutex<Vec<u32>>,
}

impl Slots {
    fn new(count: u32) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new((0..count).rev().collect()) })
    }

    fn take(&self) -> io::Result<u32> {
        lock(&self.free).pop().ok_or_else(|| {
            io::Error::other("too many open files on one volume; raise the limit (ulimit -n)")
        })
    }

    fn give(&self, slot: u32) {
        lock(&self.free).push(slot);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The volume's directory and the files open in it.
#[derive(Debug)]
pub(super) struct Files {
    root: OwnedFd,
    direct: bool,
    slots: Arc<Slots>,
    slot_count: u32,
    table: Mutex<Table>,
    /// Held while a file is made, since two makers of one name would share its hidden name.
    making: Mutex<()>,
    /// Keeps other processes out, if it was asked for.
    lock: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct Table {
    next: u32,
    open: BTreeMap<FileId, Arc<OpenFile>>,
}

impl Files {
    /// Opens the directory `root`, making it if need be.
    ///
    /// Returns why O_DIRECT is not used although `direct` asked for it, if so.
    pub(super) fn open_root(
        root: &Path,
        direct: bool,
        pool: &BufPool,
    ) -> io::Result<(Self, Option<String>)> {
        fs::create_dir_all(root)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        let refusal = if direct { direct_refusal(&root, pool)? } else { None };
        let slot_count = slot_count();
        let files = Self {
            root,
            direct: direct && refusal.is_none(),
            slots: Slots::new(slot_count),
            slot_count,
            table: Mutex::default(),
            making: Mutex::new(()),
            lock: None,
        };
        Ok((files, refusal))
    }

    /// Keeps other processes out of the directory until this is dropped.
    pub(super) fn lock(&mut self) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.root, LOCK_NAME, flags, Mode::RUSR | Mode::WUSR)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let text = "another kluis process has this directory open";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            locked => locked?,
        }
        self.lock = Some(file);
        Ok(())
    }

    pub(super) fn is_direct(&self) -> bool {
        self.direct
    }

    /// All slots lie below this.
    pub(super) fn slot_count(&self) -> u32 {
        self.slot_count
    }

    pub(super) fn file(&self, id: FileId) -> io::Result<Arc<OpenFile>> {
        let found = lock(&self.table).open.get(&id).cloned();
        found.ok_or_else(|| not_open(id))
    }

    pub(super) fn open(&self, name: &str, mode: OpenMode) -> io::Result<FileId> {
        let path = check_name(name)?;
        if let OpenMode::Create { len } = mode {
            self.make(path, len)?;
        }
        let file = File::from(self.open_at(path, OFlags::RDWR)?);
        let len = file.metadata()?.len();
        self.enter(file, len)
    }

    /// Opens a block of a file that has no name, for the round trip at start.
    pub(super) fn open_probe(&self) -> io::Result<FileId> {
        let path = Path::new(PROBE_NAME);
        self.make_hidden(path, BLOCK_BYTES)?;
        let file = self.open_at(path, OFlags::RDWR);
        unlinkat(&self.root, path, AtFlags::empty())?;
        self.enter(File::from(file?), BLOCK_BYTES)
    }

    /// Puts an open file into the table. It counts as `len` bytes long from now on.
    pub(super) fn enter(&self, file: File, len: u64) -> io::Result<FileId> {
        let slot = self.slots.take()?;
        let mut table = lock(&self.table);
        let id = FileId(table.next);
        let closed = AtomicBool::new(false);
        let file = OpenFile { file, id, len, slot, closed, slots: Arc::clone(&self.slots) };
        table.next = table.next.checked_add(1).ok_or_else(|| {
            io::Error::other("four billion files were opened since the start; restart the node")
        })?;
        table.open.insert(id, Arc::new(file));
        Ok(id)
    }

    /// Takes the file out of the table and tells those who still hold it.
    pub(super) fn close(&self, id: FileId) -> Option<Arc<OpenFile>> {
        let file = lock(&self.table).open.remove(&id)?;
        file.closed.store(true, Ordering::Release);
        Some(file)
    }

    /// fdatasync(2); without O_DIRECT the pages leave the cache too, so that a later read comes
    /// from the device as it would with O_DIRECT.
    pub(super) fn sync(&self, file: &OpenFile) -> io::Result<()> {
        rustix::fs::fdatasync(&file.file)?;
        if !self.direct {
            // A hint: a refusal changes neither durability nor content.
            let _ = fadvise(&file.file, 0, None, Advice::DontNeed);
        }
        Ok(())
    }

    pub(super) fn list(&self, dir: &str) -> io::Result<Vec<(String, u64)>> {
        let path = if dir.is_empty() { Path::new(".") } else { check_name(dir)? };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = match openat(&self.root, path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
            opened => opened?,
        };
        // A file whose making failed at this very step has a name that a power cut takes away.
        rustix::fs::fsync(&dir)?;
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            let kind = StatxFlags::TYPE | StatxFlags::SIZE;
            let stat = statx(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW, kind)?;
            if rustix::fs::FileType::from_raw_mode(stat.stx_mode.into()).is_file() {
                found.push((name.to_owned(), stat.stx_size));
            }
            if found.len() > LIST_MAX {
                let text = format!("more than {LIST_MAX} files in one directory");
                return Err(io::Error::other(text));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let path = check_name(name)?;
        unlinkat(&self.root, path, AtFlags::empty())?;
        self.sync_parent(path)
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (check_name(from)?, check_name(to)?);
        renameat(&self.root, from, &self.root, to)?;
        self.sync_parent(to)?;
        if from.parent() == to.parent() { Ok(()) } else { self.sync_parent(from) }
    }

    /// Makes a complete file under a hidden name and gives it its own.
    fn make(&self, path: &Path, len: u64) -> io::Result<()> {
        check_len(len)?;
        let _turn = lock(&self.making);
        let hidden = hidden_name(path)?;
        if let Some(parent) = parent_of(path) {
            self.make_dirs(parent)?;
        }
        let made = self.make_hidden(&hidden, len).and_then(|()| {
            let flags = RenameFlags::NOREPLACE;
            renameat_with(&self.root, &hidden, &self.root, path, flags).map_err(io::Error::from)
        });
        if made.is_err() {
            // What was reserved should not stay so. Left behind, it is overwritten by the next
            // attempt at this name.
            let _ = unlinkat(&self.root, &hidden, AtFlags::empty());
        }
        made.and_then(|()| self.sync_parent(path))
    }

    fn make_hidden(&self, hidden: &Path, len: u64) -> io::Result<()> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        let file = self.open_at(hidden, flags)?;
        match fallocate(&file, FallocateFlags::empty(), 0, len) {
            // A file system that cannot reserve still stores; it may run full later.
            Err(rustix::io::Errno::OPNOTSUPP) => rustix::fs::ftruncate(&file, len)?,
            reserved => reserved?,
        }
        Ok(rustix::fs::fsync(&file)?)
    }

    fn open_at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let direct = if self.direct { OFlags::DIRECT } else { OFlags::empty() };
        let flags = flags | direct | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(openat(&self.root, path, flags, Mode::RUSR | Mode::WUSR)?)
    }

    fn make_dirs(&self, dir: &Path) -> io::Result<()> {
        let mut path = PathBuf::new();
        for part in dir.components() {
            path.push(part);
            match rustix::fs::mkdirat(&self.root, &path, Mode::RWXU) {
                Err(rustix::io::Errno::EXIST) => {}
                made => {
                    made?;
                    self.sync_parent(&path)?;
                }
            }
        }
        Ok(())
    }

    fn sync_parent(&self, path: &Path) -> io::Result<()> {
        let dir = parent_of(path).unwrap_or(Path::new("."));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = openat(&self.root, dir, flags, Mode::empty())?;
        Ok(rustix::fs::fsync(&dir)?)
    }
}

/// The error of an operation on a handle that is not, or no longer, open.
pub(super) fn not_open(id: FileId) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("file {} is not open", id.0))
}

/// A name that may be used on a volume, as a path relative to it.
pub(super) fn check_name(name: &str) -> io::Result<&Path> {
    let good_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let good_part =
        |part: &str| !part.is_empty() && !part.starts_with('.') && part.bytes().all(good_byte);
    if name.len() <= NAME_BYTES_MAX - NEW_PREFIX.len() && name.split('/').all(good_part) {
        return Ok(Path::new(name));
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a name for a file: {name:?}")))
}

/// A length that a file may be made with.
pub(super) fn check_len(len: u64) -> io::Result<()> {
    if len != 0 && len.is_multiple_of(BLOCK_BYTES) && i64::try_from(len).is_ok() {
        return Ok(());
    }
    let text = format!("a file of {len} bytes: not a positive multiple of {BLOCK_BYTES}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

fn parent_of(path: &Path) -> Option<&Path> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty())
}

fn hidden_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok(path.with_file_name(format!("{NEW_PREFIX}{name}")))
}

/// How many files may be open at once: our own limit, or what the process's leaves.
fn slot_count() -> u32 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let left = limit.saturating_sub(DESCRIPTORS_SPARED).max(limit / 2).max(1);
    u32::try_from(left.min(FILES_MAX as u64)).expect("the lesser of two numbers, one of them small")
}

/// Why files in this directory cannot be used with O_DIRECT in blocks of [`BLOCK_BYTES`].
fn direct_refusal(root: &OwnedFd, pool: &BufPool) -> io::Result<Option<String>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::RUSR | Mode::WUSR;
    // A left-over probe may be of any length and owner; a fresh one needs no trust.
    let _ = unlinkat(root, PROBE_NAME, AtFlags::empty());
    let file = match openat(root, PROBE_NAME, flags | OFlags::DIRECT, mode) {
        Err(rustix::io::Errno::INVAL) => Err("open(2) with O_DIRECT: not supported".to_owned()),
        opened => Ok(opened?),
    };
    let refusal = match file {
        Ok(file) => alignment_refusal(&File::from(file), pool)?,
        Err(refusal) => Some(refusal),
    };
    let _ = unlinkat(root, PROBE_NAME, AtFlags::empty());
    Ok(refusal)
}

fn alignment_refusal(file: &File, pool: &BufPool) -> io::Result<Option<String>> {
    if u64::try_from(fstatfs(file)?.f_type).is_ok_and(|kind| kind == TMPFS_MAGIC) {
        return Ok(Some("tmpfs has no device to write to directly".to_owned()));
    }
    let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)?;
    if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        // Before Linux 6.1 nobody can say: try.
        return Ok(trial_refusal(file, pool));
    }
    let (memory, offset) = (stat.stx_dio_mem_align, stat.stx_dio_offset_align);
    let fits = |align: u32| align != 0 && BLOCK_BYTES.is_multiple_of(u64::from(align));
    if fits(memory) && fits(offset) {
        return Ok(None);
    }
    Ok(Some(format!(
        "O_DIRECT needs memory aligned to {memory} and offsets to {offset} bytes; we have \
         {BLOCK_BYTES}"
    )))
}

fn trial_refusal(file: &File, pool: &BufPool) -> Option<String> {
    let Some(mut buf) = pool.try_acquire(BufClass::Small) else {
        return Some("no buffer was free to try O_DIRECT with".to_owned());
    };
    buf.set_len(BLOCK_LEN);
    let tried = file.write_all_at(&buf, 0).and_then(|()| file.read_exact_at(&mut buf, 0));
    tried.err().map(|error| format!("a block written with O_DIRECT: {error}"))
}
