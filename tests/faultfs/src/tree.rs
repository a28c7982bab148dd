//! Names and inodes: the disk as programs see it, with what is durable of every directory.
//!
//! Owns: the inodes, the entries of directories, the changes of entries since the last flush, the
//! space that is used. Knows nothing of: faults, mounts, what a power cut picks ([`crate::loss`]).
//!
//! What is modelled, against ext4 with `data=ordered`:
//! - Writing changes memory only. A flush of a file makes its bytes and its length durable.
//! - Entries (create, link, rename, unlink) are durable once their directory is flushed. ext4 also
//!   commits them when any file is flushed; [`EntryRule::Strict`] takes that away, since no
//!   standard promises it, and [`EntryRule::Ext4`] leaves it.
//! - Owner, permissions, times and space set aside by fallocate(2) are durable at once.
//! - A program's writes reach this file system when they are made: nothing is held back above it
//!   (no write-back cache), so every byte that was written is here to be lost.
//!
//! Invariants
//! - The durable entries plus all pending ones, in order, are the live entries.
//! - An inode stays as long as a durable, pending or live entry or an open handle leads to it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use fuser::{Errno, FileType};

use crate::body::Body;
use crate::image::{Change, PAGE_BYTES};

/// The root directory's number, as FUSE has it.
pub const ROOT: u64 = 1;

/// The longest name, as in ext4.
const NAME_BYTES_MAX: usize = 255;

/// The largest file, so that offsets can be added without care.
const FILE_BYTES_MAX: u64 = 1 << 44;

/// The outcome of a call, with the errno of the one that asks.
pub type Outcome<T> = Result<T, Errno>;

/// When entries of directories become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryRule {
    /// Also when any file is flushed, and always in the order of all changes.
    Ext4,
    /// Only when their directory is flushed, and in order within each directory.
    Strict,
}

/// A directory's entries.
pub type Entries = BTreeMap<OsString, u64>;

/// What an inode is.
#[derive(Clone)]
pub enum Content {
    /// A directory: its entries as they are, and as they are durable.
    Directory {
        /// What programs see.
        live: Entries,
        /// What a power cut leaves for sure.
        durable: Entries,
    },
    /// A regular file.
    File(Body),
    /// A socket or a pipe, which have no bytes here.
    Special(FileType),
    /// A symbolic link and where it leads.
    Symlink(OsString),
}

/// Who owns a new inode, and who may do what with it.
#[derive(Clone, Copy)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub perm: u16,
}

/// A file, directory, socket or link.
#[derive(Clone)]
pub struct Inode {
    /// What it is.
    pub content: Content,
    /// Whose it is.
    pub owner: Owner,
    /// When it was changed.
    pub changed: SystemTime,
    /// The last name that it was given; faults are aimed by it.
    pub name: OsString,
    /// Live entries that lead to it.
    pub links: u32,
    /// Handles that are open on it.
    pub opens: u32,
}

/// One change of directories: each name leads to this inode from now on, or nowhere. A rename has
/// two parts and is never made by halves.
#[derive(Clone)]
pub struct EntryChange {
    /// Directory, name, inode.
    pub parts: Vec<(u64, OsString, Option<u64>)>,
}

/// The whole disk.
#[derive(Clone)]
pub struct Tree {
    pub(crate) inodes: BTreeMap<u64, Inode>,
    pub(crate) pending: Vec<EntryChange>,
    pub(crate) rule: EntryRule,
    /// Whether flushes are answered and not done.
    pub lies: bool,
    next: u64,
    used_pages: u64,
    capacity_pages: u64,
}

impl Tree {
    /// An empty disk of so many bytes, owned by `owner`.
    pub fn new(capacity_bytes: u64, rule: EntryRule, owner: Owner) -> Self {
        let mut tree = Self {
            inodes: BTreeMap::new(),
            pending: Vec::new(),
            rule,
            lies: false,
            next: ROOT + 1,
            used_pages: 0,
            capacity_pages: capacity_bytes / PAGE_BYTES,
        };
        let content = Content::Directory { live: Entries::new(), durable: Entries::new() };
        tree.inodes.insert(ROOT, Inode::new(content, owner, OsStr::new("/")));
        tree
    }

    /// The inode of a number.
    pub fn inode(&self, number: u64) -> Outcome<&Inode> {
        self.inodes.get(&number).ok_or(Errno::ENOENT)
    }

    fn inode_mut(&mut self, number: u64) -> Outcome<&mut Inode> {
        self.inodes.get_mut(&number).ok_or(Errno::ENOENT)
    }

    /// A directory's live entries.
    pub fn entries(&self, directory: u64) -> Outcome<&Entries> {
        match &self.inode(directory)?.content {
            Content::Directory { live, .. } => Ok(live),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// A file's bytes.
    pub fn body(&self, file: u64) -> Outcome<&Body> {
        match &self.inode(file)?.content {
            Content::File(body) => Ok(body),
            Content::Directory { .. } => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(crate) fn body_mut(&mut self, file: u64) -> Outcome<&mut Body> {
        match &mut self.inode_mut(file)?.content {
            Content::File(body) => Ok(body),
            Content::Directory { .. } => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Pages in all, and pages that are free.
    pub fn space(&self) -> (u64, u64) {
        (self.capacity_pages, self.capacity_pages.saturating_sub(self.used_pages))
    }

    /// Makes the disk full once so many bytes more are used.
    pub fn full_after(&mut self, bytes: u64) {
        self.capacity_pages = self.used_pages + bytes / PAGE_BYTES;
    }

    /// The inode that a name leads to.
    pub fn lookup(&self, directory: u64, name: &OsStr) -> Outcome<u64> {
        self.entries(directory)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    /// Makes an inode under a name.
    pub fn make(
        &mut self,
        directory: u64,
        name: &OsStr,
        content: Content,
        owner: Owner,
    ) -> Outcome<u64> {
        self.must_be_free(directory, name)?;
        let number = self.next;
        self.next += 1;
        self.inodes.insert(number, Inode::new(content, owner, name));
        self.change_entries(vec![(directory, name.to_owned(), Some(number))])?;
        Ok(number)
    }

    /// Gives an inode one name more.
    pub fn link(&mut self, number: u64, directory: u64, name: &OsStr) -> Outcome<()> {
        self.must_be_free(directory, name)?;
        if matches!(self.inode(number)?.content, Content::Directory { .. }) {
            return Err(Errno::EPERM);
        }
        self.change_entries(vec![(directory, name.to_owned(), Some(number))])
    }

    /// Takes a name away from something that is not a directory.
    pub fn unlink(&mut self, directory: u64, name: &OsStr) -> Outcome<()> {
        let number = self.lookup(directory, name)?;
        if matches!(self.inode(number)?.content, Content::Directory { .. }) {
            return Err(Errno::EISDIR);
        }
        self.change_entries(vec![(directory, name.to_owned(), None)])
    }

    /// Takes an empty directory away.
    pub fn remove_directory(&mut self, directory: u64, name: &OsStr) -> Outcome<()> {
        let number = self.lookup(directory, name)?;
        if !self.entries(number)?.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.change_entries(vec![(directory, name.to_owned(), None)])
    }

    /// Moves a name; `replace` says whether it may take the place of another.
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr), replace: bool) -> Outcome<()> {
        let number = self.lookup(from.0, from.1)?;
        check_name(to.1)?;
        match self.entries(to.0)?.get(to.1).copied() {
            Some(_) if !replace => return Err(Errno::EEXIST),
            Some(other) if other == number => return Ok(()),
            Some(other) => self.may_replace(number, other)?,
            None => {}
        }
        let parts = vec![(from.0, from.1.to_owned(), None), (to.0, to.1.to_owned(), Some(number))];
        self.change_entries(parts)
    }

    fn may_replace(&self, number: u64, other: u64) -> Outcome<()> {
        let is_directory = |inode: &Inode| matches!(inode.content, Content::Directory { .. });
        match (is_directory(self.inode(number)?), is_directory(self.inode(other)?)) {
            (true, false) => Err(Errno::ENOTDIR),
            (false, true) => Err(Errno::EISDIR),
            (true, true) if !self.entries(other)?.is_empty() => Err(Errno::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    fn must_be_free(&self, directory: u64, name: &OsStr) -> Outcome<()> {
        check_name(name)?;
        let taken = self.entries(directory)?.contains_key(name);
        if taken { Err(Errno::EEXIST) } else { Ok(()) }
    }

    fn change_entries(&mut self, parts: Vec<(u64, OsString, Option<u64>)>) -> Outcome<()> {
        // A name that moves leads to its inode throughout: links go after all others came.
        let mut gone = Vec::new();
        for (directory, name, target) in &parts {
            let inode = self.inode_mut(*directory)?;
            inode.changed = now();
            let Content::Directory { live, .. } = &mut inode.content else {
                return Err(Errno::ENOTDIR);
            };
            let before = match target {
                Some(number) => live.insert(name.clone(), *number),
                None => live.remove(name),
            };
            if let Some(number) = target {
                let inode = self.inode_mut(*number)?;
                inode.links += 1;
                inode.name.clone_from(name);
            }
            gone.extend(before);
        }
        for number in gone {
            self.drop_link(number)?;
        }
        self.pending.push(EntryChange { parts });
        Ok(())
    }

    fn drop_link(&mut self, number: u64) -> Outcome<()> {
        let inode = self.inode_mut(number)?;
        inode.links = inode.links.saturating_sub(1);
        self.give_back_if_gone(number);
        Ok(())
    }

    /// The space of a file that nobody can reach any more is free.
    fn give_back_if_gone(&mut self, number: u64) {
        let Some(inode) = self.inodes.get(&number) else {
            return;
        };
        if let (0, 0, Content::File(body)) = (inode.links, inode.opens, &inode.content) {
            self.used_pages = self.used_pages.saturating_sub(body.used_pages());
        }
    }

    /// A handle is opened on an inode.
    pub fn open(&mut self, number: u64) -> Outcome<()> {
        self.inode_mut(number)?.opens += 1;
        Ok(())
    }

    /// A handle is closed.
    pub fn release(&mut self, number: u64) {
        if let Some(inode) = self.inodes.get_mut(&number) {
            inode.opens = inode.opens.saturating_sub(1);
            self.give_back_if_gone(number);
        }
    }

    /// Writes bytes, all of them or none.
    pub fn write(&mut self, file: u64, offset: u64, data: &[u8]) -> Outcome<()> {
        let bytes = data.len() as u64;
        check_range(offset, bytes)?;
        self.take_pages(self.body(file)?.pages_wanted(offset, bytes))?;
        self.body_mut(file)?.change(Change::Write(offset, data.into()));
        self.inode_mut(file)?.changed = now();
        Ok(())
    }

    /// Cuts a file or makes it longer.
    pub fn set_len(&mut self, file: u64, len: u64) -> Outcome<()> {
        check_range(0, len)?;
        self.change_in_place(file, |body| body.change(Change::Len(len)))
    }

    /// Writes zeros over a range; the length stays.
    pub fn zero(&mut self, file: u64, offset: u64, bytes: u64) -> Outcome<()> {
        check_range(offset, bytes)?;
        self.change_in_place(file, |body| body.change(Change::Zero(offset, bytes)))
    }

    /// Sets space aside up to the end of a range, and makes the file that long if `grow`.
    pub fn allocate(&mut self, file: u64, offset: u64, bytes: u64, grow: bool) -> Outcome<()> {
        check_range(offset, bytes)?;
        let end = offset + bytes;
        let pages = end.div_ceil(PAGE_BYTES);
        let body = self.body(file)?;
        let (reserved, len) = (body.reserved_pages(), body.live.len());
        if pages > reserved {
            let kept = body.live.pages_from(reserved) - body.live.pages_from(pages);
            self.take_pages(pages - reserved - kept)?;
            self.body_mut(file)?.reserve(pages);
        }
        if grow && end > len {
            self.body_mut(file)?.change(Change::Len(end));
        }
        Ok(())
    }

    fn change_in_place(&mut self, file: u64, change: impl FnOnce(&mut Body)) -> Outcome<()> {
        let body = self.body_mut(file)?;
        let before = body.used_pages();
        change(body);
        let after = body.used_pages();
        self.used_pages = (self.used_pages + after).saturating_sub(before);
        self.inode_mut(file)?.changed = now();
        Ok(())
    }

    fn take_pages(&mut self, pages: u64) -> Outcome<()> {
        if pages > 0 && self.used_pages + pages > self.capacity_pages {
            return Err(Errno::ENOSPC);
        }
        self.used_pages += pages;
        Ok(())
    }

    /// fsync(2) of a file.
    pub fn sync(&mut self, file: u64) -> Outcome<()> {
        let lies = self.lies;
        let body = self.body_mut(file)?;
        if lies {
            return Ok(());
        }
        body.sync();
        if self.rule == EntryRule::Ext4 {
            self.settle_entries(|_| true);
        }
        Ok(())
    }

    /// fsync(2) of a directory.
    pub fn sync_directory(&mut self, directory: u64) -> Outcome<()> {
        self.entries(directory)?;
        if self.lies {
            return Ok(());
        }
        let rule = self.rule;
        self.settle_entries(|change| {
            rule == EntryRule::Ext4 || change.parts.iter().any(|part| part.0 == directory)
        });
        self.sweep();
        Ok(())
    }

    /// A flush failed: what was pending of the file will never be durable.
    pub fn sync_failed(&mut self, file: u64) {
        if let Ok(body) = self.body_mut(file) {
            body.forget_pending();
        }
    }

    fn settle_entries(&mut self, now: impl Fn(&EntryChange) -> bool) {
        for change in std::mem::take(&mut self.pending) {
            if now(&change) {
                self.apply_durable(&change);
            } else {
                self.pending.push(change);
            }
        }
    }

    pub(crate) fn apply_durable(&mut self, change: &EntryChange) {
        for (directory, name, target) in &change.parts {
            let Some(inode) = self.inodes.get_mut(directory) else {
                continue;
            };
            if let Content::Directory { durable, .. } = &mut inode.content {
                match target {
                    Some(number) => durable.insert(name.clone(), *number),
                    None => durable.remove(name),
                };
            }
        }
    }

    /// Forgets inodes that nothing leads to.
    fn sweep(&mut self) {
        let mut reached: BTreeSet<u64> = BTreeSet::from([ROOT]);
        for inode in self.inodes.values() {
            if let Content::Directory { live, durable } = &inode.content {
                reached.extend(live.values().chain(durable.values()));
            }
        }
        for change in &self.pending {
            reached.extend(change.parts.iter().filter_map(|part| part.2));
            reached.extend(change.parts.iter().map(|part| part.0));
        }
        self.inodes.retain(|number, inode| inode.opens > 0 || reached.contains(number));
    }

    /// Makes the durable disk the live one: nothing is pending or open, what nothing leads to is
    /// gone, and space is counted anew.
    pub(crate) fn settle(&mut self) {
        self.pending.clear();
        let mut links = BTreeMap::from([(ROOT, 1)]);
        let mut todo = vec![ROOT];
        while let Some(number) = todo.pop() {
            let Some(inode) = self.inodes.get_mut(&number) else {
                continue;
            };
            if let Content::Directory { live, durable } = &mut inode.content {
                live.clone_from(durable);
                for target in live.values() {
                    *links.entry(*target).or_insert(0) += 1;
                    todo.push(*target);
                }
            }
        }
        self.used_pages = 0;
        self.inodes.retain(|number, inode| match links.get(number) {
            Some(count) => {
                (inode.links, inode.opens) = (*count, 0);
                true
            }
            None => false,
        });
        for inode in self.inodes.values_mut() {
            if let Content::File(body) = &mut inode.content {
                let reserved = body.reserved_pages();
                *body = Body::settled(std::mem::take(&mut body.durable), reserved);
                self.used_pages += body.used_pages();
            }
        }
    }

    /// The number of the file with this path below the root.
    pub fn find(&self, path: &str) -> Outcome<u64> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        let mut number = ROOT;
        for part in parts {
            number = self.lookup(number, OsStr::new(part))?;
        }
        Ok(number)
    }

    /// Changes owner, permissions or time.
    pub fn set_owner(&mut self, number: u64, owner: Owner, changed: SystemTime) -> Outcome<()> {
        let inode = self.inode_mut(number)?;
        inode.owner = owner;
        inode.changed = changed;
        Ok(())
    }
}

impl Inode {
    fn new(content: Content, owner: Owner, name: &OsStr) -> Self {
        let changed = now();
        Self { content, owner, changed, name: name.to_owned(), links: 0, opens: 0 }
    }
}

/// The time that a change is marked with. No outcome depends on it.
#[expect(clippy::disallowed_methods, reason = "a file's times come from the machine's clock")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

fn check_name(name: &OsStr) -> Outcome<()> {
    if name.len() > NAME_BYTES_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(()) }
}

fn check_range(offset: u64, bytes: u64) -> Outcome<()> {
    let end = offset.checked_add(bytes).filter(|end| *end <= FILE_BYTES_MAX);
    end.map(drop).ok_or(Errno::EFBIG)
}
