//! The reference model of a node: what each name may hold.
//!
//! Owns: values, the possible states of a name, open uploads, the shared counter.
//! Knows nothing of: the engine, keys, disks, how anything is stored.
//!
//! Invariants
//! - A name that was acknowledged has one possible state. One whose last change has no answer has
//!   two, until somebody reads it after a restart.

use std::collections::{BTreeMap, BTreeSet};

use crate::io::sim::SplitMix;
use crate::types::UploadId;

/// An object: the pieces that it was made of, one but for a multipart upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) pieces: Vec<Piece>,
    /// As the node said, once it did.
    pub(super) etag: Option<String>,
    /// The number in its tag; 0 for no tags.
    pub(super) tag: u64,
}

/// Bytes that follow from a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) number: u64,
    pub(super) size: usize,
}

impl Piece {
    pub(super) fn bytes(self) -> Vec<u8> {
        let mut random = SplitMix::new(self.number);
        let mut bytes = vec![0; self.size];
        let (words, rest) = bytes.as_chunks_mut();
        for word in words {
            *word = random.next().to_le_bytes();
        }
        for (to, from) in rest.iter_mut().zip(random.next().to_le_bytes()) {
            *to = from;
        }
        bytes
    }
}

impl Value {
    pub(super) fn new(pieces: Vec<Piece>) -> Self {
        Self { pieces, etag: None, tag: 0 }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let pieces: Vec<_> = self.pieces.iter().map(|piece| piece.bytes()).collect();
        pieces.concat()
    }

    pub(super) fn size(&self) -> usize {
        self.pieces.iter().map(|piece| piece.size).sum()
    }
}

/// What a name may hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub(super) now: Option<Value>,
    /// What it holds if the change without an answer took place.
    #[expect(clippy::option_option, reason = "no change, or one to nothing, or one to a value")]
    pub(super) maybe: Option<Option<Value>>,
    /// Found damaged, which only silent faults excuse: any error may follow, no other bytes.
    pub(super) damaged: bool,
}

impl Slot {
    /// The states that a read may find.
    pub(super) fn states(&self) -> impl Iterator<Item = &Option<Value>> {
        std::iter::once(&self.now).chain(&self.maybe)
    }

    /// A change is asked for.
    pub(super) fn begin(&mut self, after: Option<Value>) {
        self.maybe = Some(after);
    }

    /// It took place.
    pub(super) fn settle(&mut self, after: Option<Value>) {
        *self = Self { now: after, maybe: None, damaged: false };
    }

    /// It did not.
    pub(super) fn refuse(&mut self) {
        self.maybe = None;
    }

    /// Whether nobody knows, so that its client waits for a restart.
    pub(super) fn is_open(&self) -> bool {
        self.maybe.is_some() || self.damaged
    }

    /// Takes the state that was read; whether it is possible.
    pub(super) fn observe(&mut self, seen: Option<&Seen>) -> bool {
        let same = |state: &&Option<Value>| match (state, seen) {
            (None, None) => true,
            (Some(value), Some(seen)) => {
                let etag_fits = value.etag.as_ref().is_none_or(|known| *known == seen.etag);
                let tag_fits = seen.tag.is_none_or(|tag| tag == value.tag);
                let size_fits = value.size() == seen.bytes.len();
                size_fits && etag_fits && tag_fits && value.bytes() == seen.bytes
            }
            _ => false,
        };
        let Some(mut found) = self.states().find(same).cloned() else { return false };
        if let (Some(value), Some(seen)) = (&mut found, seen) {
            value.etag = Some(seen.etag.clone());
        }
        self.settle(found);
        true
    }
}

/// What a read found.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) bytes: Vec<u8>,
    pub(super) etag: String,
    /// The number in its tag, where that was read as well.
    pub(super) tag: Option<u64>,
}

/// An upload of a client.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) id: UploadId,
    pub(super) key: u8,
    pub(super) parts: BTreeMap<u32, (Vec<Piece>, String)>,
}

/// A counter that is changed by compare and swap only.
#[derive(Debug, Default)]
pub(super) struct Counter {
    /// Numbers that somebody was told to have written.
    won: BTreeSet<u64>,
    /// Numbers that somebody may have written.
    open: BTreeSet<u64>,
}

impl Counter {
    /// The least that a read begun now may find.
    pub(super) fn least(&self) -> u64 {
        self.won.last().copied().unwrap_or(0)
    }

    /// Whether a read may find `number`.
    pub(super) fn may_hold(&self, number: u64) -> bool {
        number == 0 || self.won.contains(&number) || self.open.contains(&number)
    }

    pub(super) fn begin(&mut self, number: u64) {
        self.open.insert(number);
    }

    /// Somebody was told; whether nobody else was.
    pub(super) fn win(&mut self, number: u64) -> bool {
        self.won.insert(number)
    }
}

/// What a client knows.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) slots: BTreeMap<u8, Slot>,
    pub(super) upload: Option<Upload>,
}

impl Client {
    pub(super) fn slot(&mut self, key: u8) -> &mut Slot {
        self.slots.entry(key).or_default()
    }
}

/// The node as its clients know it.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) clients: Vec<Client>,
    /// One for each tenant.
    counters: BTreeMap<usize, Counter>,
    /// The last number of a piece that was made.
    pieces: u64,
}

impl Model {
    pub(super) fn client(&mut self, index: usize) -> &mut Client {
        while self.clients.len() <= index {
            self.clients.push(Client::default());
        }
        self.clients.get_mut(index).expect("made above")
    }

    pub(super) fn counter(&mut self, tenant: usize) -> &mut Counter {
        self.counters.entry(tenant).or_default()
    }

    /// A piece that no other is like.
    pub(super) fn piece(&mut self, size: usize) -> Piece {
        self.pieces += 1;
        Piece { number: self.pieces, size }
    }
}
