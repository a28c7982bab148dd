//! The rows that are kept: always what the store holds, whatever is read and written at what time.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::meta::memory::MemoryMeta;
use crate::types::NsId;

const FAMILY: Family = Family::Pooled(1);

fn row(name: u8) -> RowKey {
    RowKey { family: FAMILY, bytes: vec![name] }
}

fn put(name: u8, value: u8) -> Change {
    Change::Put { row: row(name), value: Bytes::from(vec![value; 40]) }
}

fn value(found: Option<Bytes>) -> Option<u8> {
    found.map(|bytes| bytes[0])
}

type Hook = Box<dyn Fn(&CachedMeta) + Send + Sync>;

/// A store that counts what it is asked, and lets something happen in the middle of a read, after
/// it has looked, or of a write, before and after it takes place.
#[derive(Default)]
struct Watched {
    store: MemoryMeta,
    reads: AtomicU64,
    front: Mutex<Weak<CachedMeta>>,
    after_read: Mutex<Option<Hook>>,
    around_write: Mutex<Option<Hook>>,
}

impl Watched {
    fn new(bytes_max: usize) -> (Arc<Self>, Arc<CachedMeta>) {
        let watched = Arc::new(Self::default());
        let front = Arc::new(CachedMeta::new(Arc::<Self>::clone(&watched), bytes_max));
        *watched.front.lock().unwrap() = Arc::downgrade(&front);
        (watched, front)
    }

    fn run(&self, hook: &Mutex<Option<Hook>>) {
        // Taken out, so that what it does does not come here again.
        let Some(run) = hook.lock().unwrap().take() else { return };
        run(&self.front.lock().unwrap().upgrade().unwrap());
        hook.lock().unwrap().get_or_insert(run);
    }
}

impl MetaStore for Watched {
    fn get(&self, family: Family, row_key: &[u8]) -> Result<Option<Bytes>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let found = self.store.get(family, row_key);
        self.run(&self.after_read);
        found
    }

    fn get_cached(&self, _: Family, _: &[u8]) -> Option<Result<Option<Bytes>>> {
        None
    }

    fn scan(&self, family: Family, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<()> {
        self.store.scan(family, from, to, visit)
    }

    fn write(&self, changes: &[Change]) -> Result<u64> {
        self.run(&self.around_write);
        let written = self.store.write(changes);
        self.run(&self.around_write);
        written
    }

    fn ensure_family(&self, family: Family) -> Result<()> {
        self.store.ensure_family(family)
    }

    fn sequence(&self) -> u64 {
        self.store.sequence()
    }

    fn close(&self) -> Result<()> {
        self.store.close()
    }

    fn alive(&self) -> Weak<()> {
        self.store.alive()
    }
}

#[test]
fn a_row_is_asked_for_once() {
    let (watched, front) = Watched::new(1 << 20);
    watched.store.write(&[put(1, 7)]).unwrap();
    assert!(front.get_cached(FAMILY, &[1]).is_none(), "nobody has looked");
    for _ in 0..3 {
        assert_eq!(value(front.get(FAMILY, &[1]).unwrap()), Some(7));
    }
    assert_eq!(value(front.get_cached(FAMILY, &[1]).unwrap().unwrap()), Some(7));
    assert_eq!(watched.reads.load(Ordering::Relaxed), 1);
}

#[test]
fn a_row_that_was_written_is_there_and_one_that_was_deleted_is_not() {
    let (watched, front) = Watched::new(1 << 20);
    front.write(&[put(1, 7), put(2, 8), put(1, 9)]).unwrap();
    assert_eq!(value(front.get(FAMILY, &[1]).unwrap()), Some(9));
    assert_eq!(watched.reads.load(Ordering::Relaxed), 0);
    front.write(&[Change::Delete { row: row(1) }]).unwrap();
    assert_eq!(value(front.get(FAMILY, &[1]).unwrap()), None);
    assert_eq!(value(front.get(FAMILY, &[2]).unwrap()), Some(8));
}

#[test]
fn what_was_read_before_a_write_is_not_kept_after_it() {
    let (watched, front) = Watched::new(1 << 20);
    front.store.write(&[put(1, 7)]).unwrap();
    *watched.after_read.lock().unwrap() = Some(Box::new(|front| {
        front.write(&[put(1, 8)]).unwrap();
        front.write(&[Change::Delete { row: row(1) }]).unwrap();
    }));
    assert_eq!(value(front.get(FAMILY, &[1]).unwrap()), Some(7), "it had looked before");
    *watched.after_read.lock().unwrap() = None;
    assert_eq!(value(front.get(FAMILY, &[1]).unwrap()), None);
}

#[test]
fn nothing_is_kept_that_is_read_during_a_write_of_it() {
    let (watched, front) = Watched::new(1 << 20);
    front.write(&[put(1, 7)]).unwrap();
    *watched.around_write.lock().unwrap() = Some(Box::new(|front| {
        // Before the write it finds 7, after it 8; neither may stay by this.
        front.get(FAMILY, &[1]).unwrap();
        assert!(front.get_cached(FAMILY, &[1]).is_none());
    }));
    front.write(&[put(1, 8)]).unwrap();
    assert_eq!(value(front.get(FAMILY, &[1]).unwrap()), Some(8));
}

#[test]
fn a_read_across_the_whole_of_a_write_keeps_nothing_old() {
    let (watched, front) = Watched::new(1 << 20);
    front.store.write(&[put(1, 7)]).unwrap();
    // A reader that begins while the write is under way, looks before it takes place, and is done
    // after it has returned: its value waits in `old` meanwhile.
    let old = Arc::new(Mutex::new(None));
    let place = Arc::clone(&old);
    *watched.around_write.lock().unwrap() = Some(Box::new(move |front| {
        let hash = front.hash(&RowRef { family: FAMILY, bytes: &[1] });
        let before = front.shard(hash).writes;
        place.lock().unwrap().get_or_insert(before);
    }));
    front.write(&[put(1, 8)]).unwrap();
    let hash = front.hash(&RowRef { family: FAMILY, bytes: &[1] });
    let before = old.lock().unwrap().unwrap();
    assert_ne!(front.shard(hash).writes, before, "such a reader notices the end of the write");
}

#[test]
fn the_nodes_own_rows_are_not_kept() {
    let (watched, front) = Watched::new(1 << 20);
    let sys = RowKey { family: Family::Sys, bytes: vec![1] };
    front.write(&[Change::Put { row: sys, value: Bytes::from_static(b"x") }]).unwrap();
    for _ in 0..2 {
        assert!(front.get(Family::Sys, &[1]).unwrap().is_some());
    }
    assert_eq!(watched.reads.load(Ordering::Relaxed), 2);
}

#[test]
fn two_namespaces_with_one_key_are_two_rows() {
    let (_, front) = Watched::new(1 << 20);
    let families = [1, 2].map(|byte| Family::Dedicated(NsId::from_bytes([byte; 16])));
    for (family, value) in families.into_iter().zip([3, 4]) {
        let row = RowKey { family, bytes: vec![9] };
        front.write(&[Change::Put { row, value: Bytes::from(vec![value]) }]).unwrap();
    }
    for (family, expected) in families.into_iter().zip([3, 4]) {
        assert_eq!(value(front.get(family, &[9]).unwrap()), Some(expected));
    }
}

#[test]
fn memory_is_bounded() {
    let (_, front) = Watched::new(SHARDS * 4_096);
    for index in 0..2_000_u16 {
        let row = RowKey { family: FAMILY, bytes: index.to_be_bytes().to_vec() };
        front.write(&[Change::Put { row, value: Bytes::from(vec![1; 100]) }]).unwrap();
    }
    let kept: u64 = front.shards.iter().map(|shard| shard.lock().unwrap().rows.weight()).sum();
    assert!(kept > 0 && kept <= (SHARDS * 4_096) as u64, "{kept} bytes are kept");
    assert!(front.shards.iter().all(|shard| shard.lock().unwrap().writing.is_empty()));
}

proptest! {
    // Whatever is read and written in a cache too small for it: it answers as a map does.
    #[test]
    fn it_answers_as_a_map(steps in proptest::collection::vec((0_u8..3, 0_u8..30, any::<u8>()), 1..300)) {
        let (_, front) = Watched::new(SHARDS * 1_024);
        let mut model = std::collections::BTreeMap::new();
        for (what, name, new) in steps {
            match what {
                0 => {
                    front.write(&[put(name, new)]).unwrap();
                    model.insert(name, new);
                }
                1 => {
                    front.write(&[Change::Delete { row: row(name) }]).unwrap();
                    model.remove(&name);
                }
                _ => {}
            }
            prop_assert_eq!(value(front.get(FAMILY, &[name]).unwrap()), model.get(&name).copied());
        }
    }
}
