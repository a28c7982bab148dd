//! Row keys: order, prefixes, and that a namespace never shows another's rows.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::meta::Change;
use crate::meta::memory::MemoryMeta;

proptest! {
    #[test]
    fn encoded_keys_sort_like_keys_and_come_back(left in ".{1,20}", right in ".{1,20}") {
        let (a, b) = (encode_object_key(left.as_bytes()), encode_object_key(right.as_bytes()));
        prop_assert_eq!(a.cmp(&b), left.as_bytes().cmp(right.as_bytes()));
        prop_assert_eq!(decode_object_key(&a).unwrap(), (left.clone(), &[][..]));
        let long = format!("{left}{right}");
        prop_assert!(encode_object_key(long.as_bytes())
            .starts_with(&encode_object_key_prefix(left.as_bytes())));
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode_object_key(&bytes);
    }

    // Two tenants in one pooled family, arbitrary rows of each: no get and no scan of one ever
    // yields a row of the other, whatever the bytes of the row keys.
    #[test]
    fn two_tenants_never_meet(
        rows in proptest::collection::vec(
            (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..4)), 1..60),
        from in proptest::collection::vec(any::<u8>(), 0..3),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store: Arc<dyn MetaStore> = Arc::new(MemoryMeta::default());
        let reader = MetaReader::new(Arc::clone(&store));
        // Neighbours in byte order: the likeliest to leak into each other's bounds.
        let ids = [[7; 16], { let mut id = [7; 16]; id[15] = 8; id }];
        let tenants = ids.map(|id| TenantNs::new(
            reader.clone(), TenantId::from_bytes(id), Family::Pooled(3), NsId::from_bytes(id)));
        for (which, rest) in &rows {
            let owner = &tenants[usize::from(*which)];
            let value = Bytes::copy_from_slice(owner.ns().as_bytes());
            store.write(&[Change::Put { row: owner.row(Table::Objects, &[rest]), value }]).unwrap();
        }
        runtime.block_on(async {
            for tenant in &tenants {
                let seen = tenant
                    .fold(Table::Objects, &[], &from, Vec::new(), |seen, rest, value| {
                        seen.push((rest.to_vec(), value.to_vec()));
                        Ok(ScanStep::Next)
                    })
                    .await
                    .unwrap();
                for (rest, value) in seen {
                    prop_assert_eq!(value, tenant.ns().as_bytes().to_vec());
                    prop_assert!(rest >= from);
                }
                for (_, rest) in &rows {
                    if let Some(value) = tenant.get(Table::Objects, &[rest]).await.unwrap() {
                        prop_assert_eq!(value.to_vec(), tenant.ns().as_bytes().to_vec());
                    }
                }
            }
            Ok(())
        })?;
    }
}
