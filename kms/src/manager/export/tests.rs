//! Copies of the key files, taken from an open keyring and from one at rest.

use std::fs;

use super::*;
use crate::error::ErrorKind;
use crate::fixtures::{purpose, timed_kms};
use crate::gate::{Access, KeyUse};
use crate::types::{TenantId, TenantKeyId};

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);
const EIGHT_DAYS_MS: u64 = 8 * 24 * 60 * 60 * 1000;

/// Copies what is shown and the audit log into a directory that can be opened.
fn copy(kms: &Kms) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for folder in ["keys", "audit"] {
        private_file::ensure_dir(&to.path().join(folder)).unwrap();
    }
    kms.with_key_files(|files| take(files, &to.path().join("keys")));
    let log = kms.audit_log().files().unwrap();
    for (path, bytes) in log.segments {
        let whole = fs::read(&path).unwrap();
        let name = path.file_name().unwrap();
        let part = &whole[..usize::try_from(bytes).unwrap()];
        private_file::replace(&to.path().join("audit").join(name), part).unwrap();
    }
    private_file::replace(&to.path().join("audit/head"), &log.head.unwrap()).unwrap();
    to
}

fn take(files: &[PathBuf], to: &Path) {
    for path in files {
        let bytes = fs::read(path).unwrap();
        private_file::replace(&to.join(path.file_name().unwrap()), &bytes).unwrap();
    }
}

fn destroy(kms: &Kms, clock: &crate::env::ManualClock, id: TenantKeyId) {
    kms.schedule_deletion(&purpose(ADA), id, 7).unwrap();
    clock.advance_ms(EIGHT_DAYS_MS);
    kms.begin_destruction(ADA, id).unwrap();
    kms.erase_materials(ADA, id).unwrap();
    kms.finish_destruction(ADA, id).unwrap();
}

#[test]
fn a_copy_of_an_open_keyring_opens_and_its_log_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, store, env, clock) = timed_kms(dir.path(), 1);
    let kept = kms.create_tenant_key(ADA).unwrap().id;
    let gone = kms.create_tenant_key(ADA).unwrap().id;
    let early = copy(&kms);
    destroy(&kms, &clock, gone);
    let late = copy(&kms);
    for (copied, is_destroyed) in [(&early, false), (&late, true)] {
        let opened = Kms::open(copied.path(), &store, env.clone()).unwrap();
        let verdict = opened.audit_log().verify().unwrap();
        assert!(verdict.is_sound() && verdict.entries > 0, "{verdict:?}");
        let access = || Access::direct(KeyUse::Write);
        assert!(opened.permit(&purpose(ADA), kept, access()).is_ok());
        let refused = opened.permit(&purpose(ADA), gone, access()).err();
        let found = refused.map(|error| error.kind());
        assert_eq!(found, is_destroyed.then_some(ErrorKind::KeyDestroyed));
    }
}

#[test]
fn at_rest_the_same_files_are_shown_and_an_open_keyring_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (kms, _, _, clock) = timed_kms(dir.path(), 2);
    let gone = kms.create_tenant_key(ADA).unwrap().id;
    // The second epoch.
    destroy(&kms, &clock, gone);
    let shown = kms.with_key_files(<[PathBuf]>::to_vec);
    let refused = with_key_files_at_rest(dir.path(), |_| ()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    let open = crate::audit::audit_files_at_rest(dir.path()).unwrap_err();
    assert_eq!(open.kind(), ErrorKind::Conflict);
    drop(kms);
    assert_eq!(with_key_files_at_rest(dir.path(), <[PathBuf]>::to_vec).unwrap(), shown);
    assert!(shown.iter().all(|path| path.exists()) && shown[1].ends_with("keys/keyring.2"));
    let log = crate::audit::audit_files_at_rest(dir.path()).unwrap();
    assert!(log.segments.len() == 1 && log.head.is_some());
}
