//! What is kept, and what is not.

use super::*;

fn place(byte: u8) -> Place {
    (TenantId::from_bytes([1; 16]), TenantKeyId::from_bytes([byte; 16]))
}

#[test]
fn what_was_read_before_a_change_is_not_kept() {
    let cache = Cache::new();
    let epoch = cache.get(place(1)).unwrap_err();
    cache.forget(place(1));
    cache.insert(epoch, place(1), Arc::new("old"), 0);
    let epoch = cache.get(place(1)).unwrap_err();
    cache.insert(epoch, place(1), Arc::new("new"), 0);
    assert_eq!(*cache.get(place(1)).unwrap(), "new");
    cache.forget(place(1));
    assert!(cache.get(place(1)).is_err());
}

#[test]
fn tenants_do_not_share_entries() {
    let cache = Cache::new();
    cache.insert(0, place(1), Arc::new(1), 0);
    let other = (TenantId::from_bytes([2; 16]), place(1).1);
    assert!(cache.get(other).is_err());
}

#[test]
fn memory_is_bounded() {
    let cache = Cache::new();
    let bytes = CACHED_BYTES_MAX / 4;
    for byte in 0..100 {
        cache.insert(0, place(byte), Arc::new(byte), bytes);
        assert!(cache.read().bytes <= CACHED_BYTES_MAX);
        assert!(cache.read().rules.len() <= 4);
        assert_eq!(*cache.get(place(byte)).unwrap(), byte);
    }
}
