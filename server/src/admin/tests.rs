//! The operator's API over its socket, on an engine in a temporary directory.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use kluis_kms::env::{Env, OsRng};
use kluis_kms::{
    AuditEvent, AuditOperation, AuditOutcome, AuditSink as _, CACHE_TTL_DEFAULT, Kms, MemoryStore,
    Purpose, Reason, RemoteStores, Rights,
};
use kluis_storage::{EngineConfig, VolumeConfig};
use tokio::task::JoinHandle;

use super::*;
use crate::config::Config;
use crate::http::{Drain, Settings, Shared};
use crate::metrics::Metrics;

struct Node {
    engine: Engine,
    directory: Directory,
    drain: Drain,
    served: JoinHandle<()>,
}

async fn start(data: &Path) -> Node {
    start_on(data, &MemoryStore::new(Arc::new(OsRng)).unwrap(), Vec::new()).await
}

/// A node on a directory that is new, or was one's with the same store.
async fn start_on(data: &Path, store: &MemoryStore, volume_paths: Vec<PathBuf>) -> Node {
    let env = Env::system();
    let opens = if Kms::exists(data) { Kms::open } else { Kms::create };
    let kms = Arc::new(opens(data, store, env.clone()).unwrap());
    let config = EngineConfig {
        pool_bytes: 16 << 20,
        reserve_bytes: 1 << 20,
        volume_paths,
        volume: VolumeConfig {
            segment_bytes: 16 << 20,
            prewrite: false,
            writer_slabs_max: 8,
            ..VolumeConfig::default()
        },
        ..EngineConfig::default()
    };
    let engine = Engine::open(data, config, Arc::clone(&kms), env.clone()).await.unwrap();
    let directory = Directory::open(engine.registry(), kms, env);
    let drain = Drain::new();
    let stats = engine.clone();
    let observer = Arc::new(Observer {
        stats: Box::new(move || stats.stats()),
        key_stores: Arc::new(RemoteStores::new(CACHE_TTL_DEFAULT, Env::system())),
        metrics: Metrics::start().unwrap(),
        is_dev: false,
        drain: drain.clone(),
    });
    let admin = Arc::new(Admin::new(engine.clone(), directory.clone(), observer));
    let settings = Settings::new(&Config { drain_seconds: 1, ..Config::default() });
    let shared = Arc::new(Shared::new(admin, settings, drain.clone()).await);
    let served = tokio::spawn(serve_socket(bind(data).unwrap(), shared, drain.clone()));
    Node { engine, directory, drain, served }
}

impl Node {
    async fn stop(self) {
        self.drain.begin();
        self.served.await.unwrap();
        self.engine.close().await.unwrap();
    }
}

#[track_caller]
fn check_refused<T>(result: Result<T, ClientError>, kind: &str, words: &str) {
    match result.err().unwrap() {
        ClientError::Refused(refusal) => {
            assert_eq!(refusal.kind, kind);
            assert!(refusal.message.contains(words), "{}", refusal.message);
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_made_shown_suspended_and_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let mut client = Client::connect(folder.path()).await.unwrap();
    let asked = CreateTenants { names: vec!["acme".to_owned(), "b.test".to_owned()] };
    let made: CreatedTenants = client.post("/v1/tenants", &asked).await.unwrap();
    let [acme, other] = made.tenants.as_slice() else { panic!("not two tenants") };
    assert_eq!((acme.name.as_str(), other.name.as_str()), ("acme", "b.test"));
    assert_eq!((acme.account_id.len(), acme.tenant_id.len()), (12, 32));
    let credential = node.directory.lookup(&acme.access_key_id).unwrap().unwrap();
    assert_eq!(credential.user().tenant.to_string(), acme.tenant_id);
    let taken: Result<CreatedTenants, _> = client.post("/v1/tenants", &asked).await;
    check_refused(taken, "exists", "acme");

    let list: Tenants = client.call(Method::GET, "/v1/tenants?limit=1").await.unwrap();
    assert_eq!((list.tenants.len(), list.next.as_deref()), (1, Some("acme")));
    let list: Tenants = client.call(Method::GET, "/v1/tenants?after=acme").await.unwrap();
    assert_eq!((list.tenants.len(), list.next), (1, None));
    for (verb, suspended) in [("suspend", true), ("suspend", true), ("resume", false)] {
        let path = format!("/v1/tenants/acme/{verb}");
        let tenant: Tenant = client.call(Method::POST, &path).await.unwrap();
        assert_eq!(tenant.suspended, suspended);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_get_access_keys_and_lose_them() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let mut client = Client::connect(folder.path()).await.unwrap();
    let asked = CreateTenants { names: vec!["acme".to_owned(), "other".to_owned()] };
    let _: CreatedTenants = client.post("/v1/tenants", &asked).await.unwrap();
    let user = CreateUser { name: "alice@example.com".to_owned() };
    let made: User = client.post("/v1/tenants/acme/users", &user).await.unwrap();
    assert!(!made.root);
    let users: Users = client.call(Method::GET, "/v1/tenants/acme/users").await.unwrap();
    assert_eq!(users.users.len(), 2);

    let asked = CreateAccessKey { user: "alice@example.com".to_owned() };
    let made: CreatedAccessKey = client.post("/v1/tenants/acme/access-keys", &asked).await.unwrap();
    let list = format!("/v1/tenants/acme/access-keys?user={}", encode("alice@example.com"));
    let keys: AccessKeys = client.call(Method::GET, &list).await.unwrap();
    assert!(keys.access_keys.iter().all(|it| it.active && it.access_key_id == made.access_key_id));

    let foreign = format!("/v1/tenants/other/access-keys/{}", made.access_key_id);
    let refused: Result<Done, _> = client.call(Method::DELETE, &foreign).await;
    check_refused(refused, "not_found", "has no access key");
    let own = format!("/v1/tenants/acme/access-keys/{}", made.access_key_id);
    let _: Done = client.call(Method::DELETE, &own).await.unwrap();
    assert!(node.directory.lookup(&made.access_key_id).unwrap().is_none());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused_and_make_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let mut client = Client::connect(folder.path()).await.unwrap();
    for (names, kind, words) in [
        (vec![], "invalid", "1 to 1000 names"),
        (vec!["ok".to_owned(), "bad/name".to_owned()], "invalid", "name of a tenant"),
        (vec!["twice".to_owned(), "twice".to_owned()], "exists", "twice"),
    ] {
        let asked = CreateTenants { names };
        let refused: Result<CreatedTenants, _> = client.post("/v1/tenants", &asked).await;
        check_refused(refused, kind, words);
    }
    for (method, path, kind) in [
        (Method::GET, "/v1/tenants/absent", "not_found"),
        (Method::GET, "/v1/tenants/absent/users", "not_found"),
        (Method::POST, "/v1/tenants/absent/suspend", "not_found"),
        (Method::GET, "/v1/tenants?limit=0", "invalid"),
        (Method::POST, "/v1/tenants", "invalid"),
        (Method::GET, "/v2/tenants", "not_found"),
        (Method::DELETE, "/v1/tenants/absent", "not_found"),
        (Method::GET, "/v1/tenants/%ff", "invalid"),
    ] {
        let refused: Result<Done, _> = client.call(method, path).await;
        check_refused(refused, kind, "");
    }
    let list: Tenants = client.call(Method::GET, "/v1/tenants").await.unwrap();
    assert!(list.tenants.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_of_a_deep_directory_is_reached_and_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("a-long-name-of-a-directory/".repeat(8));
    std::fs::create_dir_all(&data).unwrap();
    let error = Client::connect(&data).await.err().unwrap().to_string();
    assert!(error.contains("no node runs on") && error.contains("kluis serve"), "{error}");
    // What a node that was killed leaves behind.
    drop(bind(&data).unwrap());
    let node = start(&data).await;
    assert!(
        std::fs::metadata(socket_path(&data)).unwrap().uid() == rustix::process::geteuid().as_raw()
    );
    let mut client = Client::connect(&data).await.unwrap();
    let status: serde_json::Value = client.call(Method::GET, "/v1/status").await.unwrap();
    assert_eq!(status["status"], "ready");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_asked_for_told_and_refused() {
    let (folder, away) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let node = start(folder.path()).await;
    let mut client = Client::connect(folder.path()).await.unwrap();
    let before: BackupState = client.call(Method::GET, "/v1/backup").await.unwrap();
    assert!(before.running.is_none() && before.last.is_none() && before.error.is_none());
    let asked = |to: &Path, keep| StartBackup {
        to: to.to_owned(),
        rate_mib: None,
        keep,
        metadata_only: false,
    };
    let repository = away.path().join("repository");
    for (to, keep, words) in [
        (Path::new("relative"), None, "absolute"),
        (repository.as_path(), Some(0), "1 or more"),
        (folder.path().join("inside").as_path(), None, "in the data directory"),
    ] {
        let refused: Result<BackupDone, _> = client.post("/v1/backup", &asked(to, keep)).await;
        check_refused(refused, "invalid", words);
    }
    assert!(!repository.exists() && !folder.path().join("inside").exists());
    let done: BackupDone = client.post("/v1/backup", &asked(&repository, Some(2))).await.unwrap();
    assert!(done.kind == "full" && done.copied_bytes > 0, "{done:?}");
    let after: BackupState = client.call(Method::GET, "/v1/backup").await.unwrap();
    assert_eq!(after.last.unwrap().snapshot, done.snapshot);
    let listed = kluis_storage::backup::list(&repository).unwrap();
    assert_eq!(listed[0].id, done.snapshot);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_headers_of_audit_events_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let mut client = Client::connect(folder.path()).await.unwrap();
    let asked = CreateTenants { names: vec!["acme".to_owned(), "other".to_owned()] };
    let made: CreatedTenants = client.post("/v1/tenants", &asked).await.unwrap();
    let path = |after: u64| format!("/v1/tenants/acme/audit?limit=2&after={after}");
    let before: AuditEvents = client.call(Method::GET, &path(0)).await.unwrap();
    let first = before.events.len() as u64;
    let other = "/v1/tenants/other/audit";
    let others: AuditEvents = client.call(Method::GET, other).await.unwrap();

    let purpose = Purpose {
        tenant: made.tenants[0].tenant_id.parse().unwrap(),
        principal: "arn:aws:iam::123456789012:user/ada".into(),
        reason: Reason::CustomerInitiated,
        request_id: "4442587FB7D0A2F9".into(),
        action: "s3:GetObject",
        rights: Rights::of_tenant(),
    };
    let operation = AuditOperation::Rotate;
    let event = AuditEvent::of_change(&purpose, None, operation, AuditOutcome::Begun);
    let log = node.engine.kms().audit_log();
    log.record(&[event.clone(), event.clone(), event]).unwrap();
    let page: AuditEvents = client.call(Method::GET, &path(first)).await.unwrap();
    assert_eq!((page.events.len(), page.next), (2, Some(first + 2)));
    assert_eq!(page.events[0]["Operation"], "tenant_key.rotate");
    let text = serde_json::to_string(&page.events).unwrap();
    for hidden in ["user/ada", "GetObject", "4442587F"] {
        assert!(!text.contains(hidden), "{hidden} in {text}");
    }
    let rest: AuditEvents = client.call(Method::GET, &path(first + 2)).await.unwrap();
    assert_eq!((rest.events.len(), rest.next), (1, None));
    let same: AuditEvents = client.call(Method::GET, other).await.unwrap();
    assert_eq!(same.events, others.events);
    let wrong = "/v1/tenants/acme/audit?after=x";
    check_refused(client.call::<AuditEvents>(Method::GET, wrong).await, "invalid", "after");
    let absent = "/v1/tenants/nobody/audit";
    check_refused(client.call::<AuditEvents>(Method::GET, absent).await, "not_found", "nobody");
    node.stop().await;
}

#[tokio::test]
async fn space_is_told_and_won_back() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let mut client = Client::connect(folder.path()).await.unwrap();
    let before: Space = client.call(Method::GET, "/v1/space").await.unwrap();
    assert_eq!((before.segment_bytes, before.live_bytes), (16 << 20, 0));
    let after: Space = client.call(Method::POST, "/v1/reclaim").await.unwrap();
    assert_eq!((after.reclaimed_segments, after.cleaning_segment), (0, None));
    assert!(!after.full);
    node.stop().await;
}

#[tokio::test]
async fn a_pass_is_asked_for_and_damage_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(folder.path()).await;
    let mut client = Client::connect(folder.path()).await.unwrap();
    let before: Scrub = client.call(Method::GET, "/v1/scrub").await.unwrap();
    assert_eq!((before.pass, before.phase.as_str(), before.answered), (0, "idle", 0));
    let asked: ScrubAsked = client.call(Method::POST, "/v1/scrub").await.unwrap();
    node.engine.scrubbed(asked.number).await.unwrap();
    let after: Scrub = client.call(Method::GET, "/v1/scrub").await.unwrap();
    assert_eq!((after.pass, after.phase.as_str(), after.answered), (1, "idle", asked.number));
    assert!(after.ended_ms > 0 && after.damaged == 0, "{after:?}");
    let listed: Damage = client.call(Method::GET, "/v1/damage?limit=5").await.unwrap();
    assert!(listed.damage.is_empty() && listed.next.is_none());
    let behind = "/v1/damage?after=00000001-00000000-1";
    let listed: Damage = client.call(Method::GET, behind).await.unwrap();
    assert!(listed.damage.is_empty());
    let wrong = "/v1/damage?after=1";
    check_refused(client.call::<Damage>(Method::GET, wrong).await, "invalid", "after");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_of_a_mirror_is_listed_and_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["data", "one", "two"].map(|name| folder.path().join(name));
    for path in &paths {
        std::fs::create_dir(path).unwrap();
    }
    let [data, one, two] = paths;
    let store = MemoryStore::new(Arc::new(OsRng)).unwrap();
    let node = start_on(&data, &store, vec![one.clone(), two.clone()]).await;
    let mut client = Client::connect(&data).await.unwrap();
    let told: Volumes = client.call(Method::GET, "/v1/volumes").await.unwrap();
    let states =
        |told: &Volumes| told.members.iter().map(|member| member.state.clone()).collect::<Vec<_>>();
    assert_eq!((states(&told), told.degraded), (vec!["current".to_owned(); 2], false));
    let asked = |path: &Path| ReplaceMember { path: path.display().to_string() };
    let replace = "/v1/volumes/replace";
    let in_use = client.post::<_, Volumes>(replace, &asked(&two)).await;
    check_refused(in_use, "unavailable", "another kluis process");
    let unknown = client.post::<_, Volumes>(replace, &asked(&data)).await;
    check_refused(unknown, "not_found", "find a member");
    node.stop().await;

    std::fs::remove_dir_all(&two).unwrap();
    let node = start_on(&data, &store, vec![one, two.clone()]).await;
    let mut client = Client::connect(&data).await.unwrap();
    let told: Volumes = client.call(Method::GET, "/v1/volumes").await.unwrap();
    assert_eq!(
        (states(&told), told.degraded),
        (vec!["current".to_owned(), "out".to_owned()], true)
    );
    assert!(told.members[1].why.as_ref().unwrap().contains("no directory"));
    std::fs::create_dir(&two).unwrap();
    let mut told: Volumes = client.post(replace, &asked(&two)).await.unwrap();
    while told.rebuild.as_ref().unwrap().state == "running" {
        tokio::task::yield_now().await;
        told = client.call(Method::GET, "/v1/volumes").await.unwrap();
    }
    let rebuild = told.rebuild.as_ref().unwrap();
    assert_eq!((rebuild.state.as_str(), &rebuild.why), ("done", &None));
    assert_eq!(states(&told), vec!["current".to_owned(); 2]);
    assert!(two.join("SUPER.a").exists());
    node.stop().await;
}
