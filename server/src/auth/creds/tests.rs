//! The directory of tenants, users and access keys: unique names, revocation, reopening.

use proptest::prelude::*;

use super::rows::{ACCESS_KEYS, TENANTS};
use super::testing::World;
use super::*;
use crate::auth::AccountId;
use crate::auth::amz_date::AmzDate;
use crate::auth::testing::{EXAMPLE_MS, Signer, wait};

fn world() -> World {
    World::new(EXAMPLE_MS)
}

fn kind<T>(result: Result<T, DirectoryError>) -> DirectoryErrorKind {
    match result {
        Ok(_) => panic!("not refused"),
        Err(error) => error.kind(),
    }
}

#[test]
fn a_new_tenant_has_a_root_user_that_outlives_a_restart() {
    let world = world();
    let made = world.tenant("acme");
    assert!(made.access_key_id.starts_with("AKIA") && made.access_key_id.len() == 20);
    assert_eq!(made.secret_access_key.expose().len(), 40);
    for directory in [world.directory.clone(), world.reopened()] {
        let credential = directory.lookup(&made.access_key_id).unwrap().unwrap();
        let user = credential.user();
        assert_eq!(user.tenant, made.tenant_id);
        assert_eq!(user.account_id, made.account_id);
        assert_eq!(&*user.access_key_id, made.access_key_id);
        assert!(user.is_root && &*user.name == "root" && !credential.is_suspended());
        assert_eq!(credential.secret.as_slice(), made.secret_access_key.expose().as_bytes());
        let info = directory.show("acme").unwrap();
        assert_eq!(info.account_id, made.account_id);
        assert_eq!((info.created_ms, info.is_suspended), (EXAMPLE_MS, false));
    }
}

#[test]
fn no_row_holds_a_secret_in_clear() {
    let world = world();
    let made = world.tenant("acme");
    let secret = made.secret_access_key.expose().as_bytes();
    for (_, row_key, value) in world.rows.dump() {
        for bytes in [row_key, value] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
    }
}

#[test]
fn a_row_under_another_id_does_not_open() {
    let world = world();
    let made = world.tenant("acme");
    let rows = world.rows.dump();
    let (_, _, value) = rows.iter().find(|(table, ..)| *table == ACCESS_KEYS).unwrap();
    world.rows.set(ACCESS_KEYS, b"AKIAAAAAAAAAAAAAAAAA", value.clone());
    assert_eq!(
        kind(world.directory.lookup("AKIAAAAAAAAAAAAAAAAA")),
        DirectoryErrorKind::Unavailable
    );
    assert!(world.directory.lookup(&made.access_key_id).unwrap().is_some());
}

#[test]
fn ids_that_are_none_never_reach_the_registry() {
    let world = world();
    let reads = world.rows.reads();
    for id in ["AKIA/..", "AKIA\0", "a b", "é"] {
        assert!(world.directory.lookup(id).unwrap().is_none());
    }
    assert_eq!(world.rows.reads(), reads);
    assert!(world.directory.lookup("AKIAAAAAAAAAAAAAAAAA").unwrap().is_none());
}

#[test]
fn names_are_checked_and_unique() {
    let world = world();
    world.tenant("acme");
    let id = || world.directory.reserve_tenant_id();
    let create = |name: &str| world.create(id(), name);
    assert_eq!(kind(create("acme")), DirectoryErrorKind::Exists);
    let long = "a".repeat(65);
    for name in ["", " ", "-a", "a b", "a/b", "a\n", "é", long.as_str()] {
        assert_eq!(kind(create(name)), DirectoryErrorKind::Invalid, "{name:?}");
        assert_eq!(kind(world.directory.show(name)), DirectoryErrorKind::NotFound);
    }
    let twice = [(id(), "b".to_owned()), (id(), "b".to_owned())];
    assert_eq!(kind(wait(world.directory.create_tenants(&twice))), DirectoryErrorKind::Exists);
    assert_eq!(kind(world.directory.show("b")), DirectoryErrorKind::NotFound);
    let same_id = world.directory.show("acme").unwrap().tenant_id;
    assert_eq!(kind(world.create(same_id, "c")), DirectoryErrorKind::Exists);
}

#[test]
fn ten_thousand_tenants_are_made_in_few_commits_and_listed_in_pages() {
    let world = world();
    let names: Vec<(TenantId, String)> = (0..10_000)
        .map(|number| (world.directory.reserve_tenant_id(), format!("t{number:05}")))
        .collect();
    let made = wait(world.directory.create_tenants(&names)).unwrap();
    assert_eq!(made.len(), names.len());
    assert!(world.rows.commits() <= 40);
    let (mut seen, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = world.directory.list_tenants(after.as_deref(), 999).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.name.clone());
        seen.extend(page.into_iter().map(|info| (info.tenant_id, info.name)));
    }
    assert_eq!(seen, names);
    let mut accounts: Vec<AccountId> = made.iter().map(|tenant| tenant.account_id).collect();
    accounts.sort_unstable();
    accounts.dedup();
    assert_eq!(accounts.len(), made.len());
    for tenant in made.iter().step_by(97) {
        let credential = world.directory.lookup(&tenant.access_key_id).unwrap().unwrap();
        assert_eq!(credential.user().tenant, tenant.tenant_id);
    }
}

#[test]
fn suspending_and_revoking_take_effect_at_once() {
    let world = world();
    let made = world.tenant("acme");
    let other = world.tenant("other");
    let directory = &world.directory;
    let suspended = |id: &str| directory.lookup(id).unwrap().unwrap().is_suspended();
    assert!(!suspended(&made.access_key_id));
    wait(directory.suspend("acme")).unwrap();
    assert!(suspended(&made.access_key_id) && !suspended(&other.access_key_id));
    assert!(directory.show("acme").unwrap().is_suspended);
    wait(directory.suspend("acme")).unwrap();
    wait(directory.resume("acme")).unwrap();
    assert!(!suspended(&made.access_key_id));

    wait(directory.revoke_access_key(&made.access_key_id)).unwrap();
    assert!(directory.lookup(&made.access_key_id).unwrap().is_none());
    assert!(world.reopened().lookup(&made.access_key_id).unwrap().is_none());
    wait(directory.revoke_access_key(&made.access_key_id)).unwrap();
    let value = world.rows.get(ACCESS_KEYS, made.access_key_id.as_bytes()).unwrap().unwrap();
    assert!(AccessKeyRow::decode(&value).unwrap().sealed_secret.is_empty());

    let unknown = "AKIAAAAAAAAAAAAAAAAA";
    assert_eq!(kind(wait(directory.revoke_access_key(unknown))), DirectoryErrorKind::NotFound);
    assert_eq!(kind(wait(directory.suspend("nobody"))), DirectoryErrorKind::NotFound);
}

#[test]
fn users_have_access_keys_of_their_own() {
    let world = world();
    let made = world.tenant("acme");
    world.tenant("other");
    let directory = &world.directory;
    wait(directory.create_user("acme", "alice")).unwrap();
    assert_eq!(kind(wait(directory.create_user("acme", "alice"))), DirectoryErrorKind::Exists);
    assert_eq!(kind(wait(directory.create_user("acme", "root"))), DirectoryErrorKind::Exists);
    assert_eq!(kind(wait(directory.create_user("acme", "a b"))), DirectoryErrorKind::Invalid);
    wait(directory.create_user("other", "alice")).unwrap();

    let names = |tenant: &str, after: Option<&str>| -> Vec<String> {
        let users = directory.list_users(tenant, after, 10).unwrap();
        users.into_iter().map(|user| user.name).collect()
    };
    assert_eq!(names("acme", None), ["alice", "root"]);
    assert_eq!(names("acme", Some("alice")), ["root"]);

    let access = wait(directory.create_access_key("acme", "alice")).unwrap();
    let credential = directory.lookup(&access.access_key_id).unwrap().unwrap();
    assert_eq!(credential.user().tenant, made.tenant_id);
    assert!(!credential.user().is_root && &*credential.user().name == "alice");
    assert!(directory.list_access_keys("other", "alice").unwrap().is_empty());
    wait(directory.revoke_access_key(&access.access_key_id)).unwrap();
    let listed = directory.list_access_keys("acme", "alice").unwrap();
    assert_eq!(listed.len(), 1);
    assert!(!listed[0].is_active);
    assert_eq!(
        kind(wait(directory.create_access_key("acme", "bob"))),
        DirectoryErrorKind::NotFound
    );
}

#[test]
fn a_user_has_a_bounded_number_of_access_keys_in_force() {
    let world = world();
    let first = world.tenant("acme");
    for _ in 1..64 {
        wait(world.directory.create_access_key("acme", "root")).unwrap();
    }
    let refused = wait(world.directory.create_access_key("acme", "root"));
    assert_eq!(kind(refused), DirectoryErrorKind::Invalid);
    wait(world.directory.revoke_access_key(&first.access_key_id)).unwrap();
    assert!(wait(world.directory.create_access_key("acme", "root")).is_ok());
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_used() {
    let cache = Cache::new(4);
    let insert = |name: &str| {
        if let Err(epoch) = cache.get(name) {
            cache.insert(epoch, name.into(), Arc::new(name.to_owned()));
        }
    };
    insert("hot");
    for number in 0..100 {
        insert(&number.to_string());
        assert!(cache.get("hot").is_ok());
        assert!(cache.len() <= 8);
    }
    assert!(cache.get("1").is_err());
}

#[test]
fn what_was_read_before_a_change_does_not_enter_after_it() {
    let cache = Cache::new(4);
    let epoch = cache.get("a").unwrap_err();
    cache.forget("b");
    cache.insert(epoch, "a".into(), Arc::new(1));
    assert!(cache.get("a").is_err());
    let epoch = cache.get("a").unwrap_err();
    cache.forget_all();
    cache.insert(epoch, "a".into(), Arc::new(1));
    assert_eq!(cache.len(), 0);
}

#[test]
fn signing_keys_are_kept_in_bounds() {
    let world = world();
    let made = world.tenant("acme");
    let credential = world.directory.lookup(&made.access_key_id).unwrap().unwrap();
    let mut scope = Signer::example().scope;
    for day in 0..20 {
        scope.day = AmzDate::from_unix_ms(day * 86_400_000).day();
        let signing_key = credential.signing_key(&scope);
        credential.keep_signing_key(&scope, &signing_key);
        credential.keep_signing_key(&scope, &signing_key);
        assert!(credential.signing_keys.lock().unwrap().len() <= SIGNING_KEYS_MAX);
    }
    let fresh = SigningKey::derive(made.secret_access_key.expose().as_bytes(), &scope);
    assert_eq!(fresh.sign_for_test("x"), credential.signing_key(&scope).sign_for_test("x"));
}

#[test]
fn a_damaged_row_is_an_error_and_not_a_refusal() {
    let world = world();
    let made = world.tenant("acme");
    world.rows.set(TENANTS, made.tenant_id.as_bytes(), vec![2, 1]);
    assert_eq!(kind(world.directory.lookup(&made.access_key_id)), DirectoryErrorKind::Unavailable);
}

/// The bytes of docs/FORMAT.md, "Registry rows": a change here needs a new version there.
#[test]
fn rows_have_the_documented_bytes() {
    let account_id = AccountId::from_number(123_456_789_012).unwrap();
    let tenant =
        TenantRow { state: State::Off, created_ms: 0x0102, account_id, name: "ab".to_owned() };
    assert_eq!(hex::encode(tenant.encode()), "01020000000000000102313233343536373839303132026162");
    let user = UserRow { is_root: true, created_ms: 1, name: "root".to_owned() };
    assert_eq!(hex::encode(user.encode()), "0101000000000000000104726f6f74");
    let access = AccessKeyRow {
        state: State::Active,
        created_ms: 1,
        tenant: TenantId::from_bytes([0xaa; 16]),
        user: UserId::from_bytes([0xbb; 16]),
        sealed_secret: vec![1, 2, 3],
    };
    let bytes = format!("01010000000000000001{}{}0003010203", "aa".repeat(16), "bb".repeat(16));
    assert_eq!(hex::encode(access.encode()), bytes);
    assert_eq!(hex::encode(rows::encode_id(&[7; 16])), format!("01{}", "07".repeat(16)));
    assert_eq!(rows::encode_mark(), [1]);
}

proptest! {
    #[test]
    fn rows_round_trip(
        off in any::<bool>(), created_ms in any::<u64>(),
        number in 100_000_000_000u64..1_000_000_000_000,
        name in "[a-zA-Z0-9+=,.@_-]{0,64}",
        sealed_secret in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let state = if off { State::Off } else { State::Active };
        let account_id = AccountId::from_number(number).unwrap();
        let tenant = TenantRow { state, created_ms, account_id, name: name.clone() };
        prop_assert_eq!(TenantRow::decode(&tenant.encode()), Some(tenant));
        let user = UserRow { is_root: off, created_ms, name };
        prop_assert_eq!(UserRow::decode(&user.encode()), Some(user));
        let (tenant, user) = (TenantId::from_bytes([1; 16]), UserId::from_bytes([2; 16]));
        let access = AccessKeyRow { state, created_ms, tenant, user, sealed_secret };
        prop_assert!(AccessKeyRow::decode(&access.encode()) == Some(access));
    }

    #[test]
    fn any_bytes_decode_or_do_not(value in prop::collection::vec(any::<u8>(), 0..120)) {
        if let Some(row) = TenantRow::decode(&value) {
            prop_assert_eq!(row.encode(), value.clone());
        }
        if let Some(row) = UserRow::decode(&value) {
            prop_assert_eq!(row.encode(), value.clone());
        }
        if let Some(row) = AccessKeyRow::decode(&value) {
            prop_assert_eq!(row.encode(), value.clone());
        }
        if let Some(id) = rows::decode_id(&value) {
            prop_assert_eq!(rows::encode_id(&id), value);
        }
    }
}
