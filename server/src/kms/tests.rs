//! The API over real keys in a temporary directory, without an engine.

mod fields;
mod lifecycle;
mod names;
mod use_of_keys;
mod validation;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kluis_kms::env::{Env, ManualClock, SeededRng};
use kluis_kms::{Kms, MemoryStore, RequestId, TenantId};
use kluis_storage::UserId;
use serde_json::{Value, json};

use super::*;
use crate::auth::AccountId;

/// When the tests take place.
const NOW_MS: u64 = 1_700_000_000_000;
const REGION: &str = "eu-west-1";

/// A node's KMS API with two tenants.
pub(super) struct World {
    pub(super) api: Arc<KmsApi>,
    pub(super) clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

/// A user of tenant `tenant` (1 or 2): its root user, or another.
pub(super) fn user(tenant: u8, name: &str) -> Arc<User> {
    Arc::new(User {
        tenant: TenantId::from_bytes([tenant; 16]),
        account_id: AccountId::from_number(111_111_111_111 * u64::from(tenant)).unwrap(),
        user: UserId::from_bytes([tenant; 16]),
        name: name.into(),
        is_root: name == "root",
        access_key_id: "AKIAEXAMPLE".into(),
    })
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(NOW_MS));
        let rng = Arc::new(SeededRng::new(7));
        let env = Env { clock: clock.clone(), rng: rng.clone() };
        let store = MemoryStore::new(rng).unwrap();
        let kms = Arc::new(Kms::create(dir.path(), &store, env.clone()).unwrap());
        for tenant in [1, 2] {
            kms.create_tenant_key(TenantId::from_bytes([tenant; 16])).unwrap();
        }
        let policies = KeyPolicies::new(&kms, REGION, env.clone());
        let api = KmsApi::over((kms, None), policies, env, REGION.into());
        Self { api, clock, _dir: dir }
    }

    /// The bytes that a call is answered with, or its error.
    fn raw(&self, user: &Arc<User>, target: &str, body: &[u8]) -> Result<Bytes, KmsError> {
        let request = KmsRequest {
            user: Arc::clone(user),
            request_id: RequestId::from("4442587FB7D0A2F9"),
            origin: Origin::default(),
            target: target.to_owned(),
            body: body.to_vec().into(),
        };
        let served = crate::auth::testing::wait(Arc::clone(&self.api).serve(request));
        served.map(|served| served.body)
    }

    pub(super) fn ask(
        &self,
        user: &Arc<User>,
        operation: &str,
        fields: &Value,
    ) -> Result<Value, KmsError> {
        let target = format!("TrentService.{operation}");
        let bytes = self.raw(user, &target, fields.to_string().as_bytes())?;
        Ok(if bytes.is_empty() { json!({}) } else { serde_json::from_slice(&bytes).unwrap() })
    }

    /// A call of tenant 1's root user that works.
    #[expect(clippy::needless_pass_by_value, reason = "every caller makes the fields in place")]
    #[track_caller]
    fn ok(&self, operation: &str, fields: Value) -> Value {
        let answer = self.ask(&user(1, "root"), operation, &fields);
        answer.unwrap_or_else(|error| panic!("{operation} {fields}: {error:?}"))
    }

    /// The name of the error that a call of tenant 1's root user is answered with.
    #[expect(clippy::needless_pass_by_value, reason = "every caller makes the fields in place")]
    #[track_caller]
    fn code(&self, operation: &str, fields: Value) -> &'static str {
        match self.ask(&user(1, "root"), operation, &fields) {
            Ok(answer) => panic!("{operation} {fields} worked: {answer}"),
            Err(error) => error.code,
        }
    }

    /// A new key of tenant 1, by id.
    #[track_caller]
    pub(super) fn key(&self) -> String {
        text(&self.ok("CreateKey", json!({}))["KeyMetadata"]["KeyId"])
    }

    /// `KeyMetadata` of a key of tenant 1.
    #[track_caller]
    pub(super) fn describe(&self, id: &str) -> Value {
        self.ok("DescribeKey", json!({"KeyId": id}))["KeyMetadata"].clone()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn b64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn unb64(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}
