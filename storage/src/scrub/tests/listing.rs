//! What enters the list, what leaves it, and that it is bounded.

use super::*;
use crate::blob::{ExtentId, LOCATION_BYTES, Location};
use crate::commit::Draft;
use crate::meta::Change;

#[test]
fn an_extent_that_is_deleted_or_moved_leaves_the_list() {
    run(async {
        let ledger = Ledger::new(1, None);
        let bench = ledger.open().await;
        let objects = fill(&bench).await;
        let victims = settled(&bench, &objects).await;
        let list = DamageList::default();
        let here = ground(&bench, &list);
        for victim in &victims[..2] {
            let location = bench.location(*victim).await;
            let id = bench.extent(*victim);
            assert!(list.record(here, id, &location, DamageKind::Tampered).await.unwrap());
            let again = list.record(here, id, &location, DamageKind::Rot).await.unwrap();
            assert!(!again, "what a read called tampered stays so");
        }
        // No checksum says that it is well.
        scrub(here).await;
        assert_eq!(list.len(), 2);
        bench.delete(victims[0]).await;
        let told = listed(&bench, &list).await;
        assert_eq!(told, [(victims[1], DamageKind::Tampered)].into(), "at once");
        list.tidy(here).await.unwrap();
        assert_eq!(list.len(), 1);
        bench.clean(bench.location(victims[1]).await.segment()).await.unwrap();
        list.tidy(here).await.unwrap();
        assert_eq!(list.len(), 0);
        assert!(stored(&bench.reader).await.unwrap().is_empty());
    });
}

#[test]
fn what_no_row_names_never_enters() {
    run(async {
        let bench = Ledger::new(2, None).open().await;
        let objects = fill(&bench).await;
        let victim = settled(&bench, &objects).await[0];
        let location = bench.location(victim).await;
        bench.delete(victim).await;
        let list = DamageList::default();
        let id = bench.extent(victim);
        let here = ground(&bench, &list);
        assert!(!list.record(here, id, &location, DamageKind::Rot).await.unwrap());
        assert_eq!(list.len(), 0);
        assert!(stored(&bench.reader).await.unwrap().is_empty());
    });
}

/// A location row of an extent that was never written.
fn made_up(nth: u64) -> Location {
    let mut bytes = [0; LOCATION_BYTES];
    (bytes[0], bytes[1]) = (1, 16);
    bytes[14..22].copy_from_slice(&(nth * 8).to_le_bytes());
    bytes[22..].copy_from_slice(&1_000_u32.to_le_bytes());
    Location::decode(&bytes).unwrap()
}

#[test]
fn the_list_is_bounded_and_the_rest_is_counted() {
    run(async {
        let bench = Ledger::new(3, None).open().await;
        let list = DamageList::default();
        let here = ground(&bench, &list);
        let most = DAMAGE_MAX as u64;
        let id_of = |nth: u64| ExtentId { number: u32::try_from(nth).unwrap(), ..bench.extent(0) };
        let mut draft = Draft::default();
        for nth in 0..most + 3 {
            let row = here.location_row(id_of(nth)).unwrap();
            draft.changes.push(Change::Put { row, value: made_up(nth).encode().to_vec().into() });
        }
        bench.committer.commit(draft).await.unwrap();
        for nth in 0..most + 3 {
            let is_new =
                list.record(here, id_of(nth), &made_up(nth), DamageKind::Rot).await.unwrap();
            assert_eq!(is_new, nth < most);
        }
        assert_eq!((list.len(), list.unlisted()), (most, 3));
        assert_eq!(stored(&bench.reader).await.unwrap().len() as u64, most);
        // Page by page it is all there, each once.
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let (page, next) = list.list(here, after, 777).await.unwrap();
            seen.extend(page.into_iter().map(|it| it.id.number));
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, (0..u32::try_from(most).unwrap()).collect::<Vec<_>>());
    });
}
