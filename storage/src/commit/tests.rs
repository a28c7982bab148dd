//! Conditions are decided in order, batches are shared, a failed write fences.

use super::*;
use crate::meta::memory::MemoryMeta;
use crate::meta::{Family, Visit};

fn row(name: &str) -> RowKey {
    RowKey { family: Family::Sys, bytes: name.as_bytes().to_vec() }
}

fn put(name: &str, value: &'static str) -> Change {
    Change::Put { row: row(name), value: Bytes::from_static(value.as_bytes()) }
}

fn is(name: &str, value: Option<&'static str>) -> Condition {
    let expected = value.map(|value| Bytes::from_static(value.as_bytes()));
    Condition::RowIs { row: row(name), expected }
}

fn start(store: Arc<dyn MetaStore>) -> Committer {
    Committer::start(store, Arc::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_creators_one_wins() {
    let committer = Arc::new(start(Arc::new(MemoryMeta::default())));
    let tries: Vec<_> = (0..64)
        .map(|_| {
            let committer = Arc::clone(&committer);
            tokio::spawn(async move {
                committer.commit(Draft::new(vec![is("a", None)], vec![put("a", "1")])).await
            })
        })
        .collect();
    let mut won = 0;
    for one in tries {
        match one.await.unwrap() {
            Ok(()) => won += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(committer.counters().conflicts.load(Ordering::Relaxed), 63);
}

#[tokio::test]
async fn an_empty_range_is_decided_with_the_batch_before_it() {
    let worker = Worker {
        store: Arc::new(MemoryMeta::default()),
        synced: Arc::default(),
        fenced: Arc::default(),
        counters: Arc::default(),
    };
    let request = |conditions, changes| {
        let (reply, answer) = oneshot::channel();
        (Request { draft: Draft::new(conditions, changes), reply }, answer)
    };
    let under = |name: &str| Condition::RowsUnder { prefix: row(name), count: 0 };
    let (first, first_answer) = request(vec![], vec![put("b/1", "x")]);
    let (second, second_answer) = request(vec![under("b/")], vec![put("gone", "x")]);
    let (third, third_answer) = request(vec![], vec![Change::Delete { row: row("b/1") }]);
    let (fourth, fourth_answer) = request(vec![under("b/")], vec![put("gone", "y")]);
    worker.carry_out(vec![first, second, third, fourth]).send();
    assert!(first_answer.await.unwrap().is_ok());
    assert_eq!(second_answer.await.unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    assert!(third_answer.await.unwrap().is_ok());
    assert!(fourth_answer.await.unwrap().is_ok());
    assert_eq!(worker.counters.batches.load(Ordering::Relaxed), 1);
}

/// A store whose writes fail.
struct Broken(MemoryMeta);

impl MetaStore for Broken {
    fn get(&self, family: Family, row_key: &[u8]) -> Result<Option<Bytes>> {
        self.0.get(family, row_key)
    }
    fn get_cached(&self, family: Family, row_key: &[u8]) -> Option<Result<Option<Bytes>>> {
        self.0.get_cached(family, row_key)
    }
    fn scan(
        &self,
        family: Family,
        lower: &[u8],
        upper: &[u8],
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        self.0.scan(family, lower, upper, visit)
    }
    fn write(&self, _: &[Change]) -> Result<u64> {
        Err(Error::new(ErrorKind::Fenced, "write to a broken store"))
    }
    fn ensure_family(&self, _: Family) -> Result<()> {
        Ok(())
    }
    fn sequence(&self) -> u64 {
        0
    }
    fn close(&self) -> Result<()> {
        Ok(())
    }
    fn alive(&self) -> std::sync::Weak<()> {
        self.0.alive()
    }
}

#[tokio::test]
async fn a_failed_write_fences() {
    let committer = start(Arc::new(Broken(MemoryMeta::default())));
    for _ in 0..2 {
        let error = committer.commit(Draft::new(vec![], vec![put("a", "1")])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
    }
    assert!(committer.is_fenced());
}
