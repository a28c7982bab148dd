//! The registry's rows about people: their bytes, and the seam to where they are stored.
//!
//! Owns: encoding and decoding of tenant, user and access key rows; [`RowStore`]. Knows nothing of:
//! which rows must exist together (that is [`super::Directory`]), secrets in clear, RocksDB.
//!
//! Invariants
//! - Every value begins with a version byte. An unknown version, a byte too many or too few is an
//!   error and never a guess.
//! - Integers are big-endian. Names are UTF-8 behind one byte of length.
//!   Bytes: docs/FORMAT.md, "Registry rows".

use std::future::Future;
use std::pin::Pin;

use kluis_kms::TenantId;
use kluis_storage::{Registry, RegistryChange, RegistryCondition, Result, UserId};

use super::super::AccountId;

/// tenant id → [`TenantRow`].
pub(crate) const TENANTS: u8 = 1;
/// tenant name → tenant id.
pub(crate) const TENANT_NAMES: u8 = 2;
/// account id → tenant id.
pub(crate) const ACCOUNTS: u8 = 3;
/// tenant id ‖ user id → [`UserRow`].
pub(crate) const USERS: u8 = 4;
/// tenant id ‖ user name → user id.
pub(crate) const USER_NAMES: u8 = 5;
/// access key id → [`AccessKeyRow`].
pub(crate) const ACCESS_KEYS: u8 = 6;
/// tenant id ‖ user id ‖ access key id → nothing.
pub(crate) const USER_ACCESS_KEYS: u8 = 7;

const VERSION: u8 = 1;

/// Rows as they are scanned: row key and value.
pub(crate) type Rows = Vec<(Vec<u8>, Vec<u8>)>;
/// The future of [`RowStore::commit`].
pub(crate) type CommitFuture<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// Where rows are kept: the engine's registry, or memory in tests.
pub(crate) trait RowStore: Send + Sync {
    /// The value of a row.
    fn get(&self, table: u8, row_key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Up to `limit` rows whose row key begins with `prefix` and comes after `after`, in order.
    fn scan(&self, table: u8, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Rows>;

    /// Makes all changes or none, durably. `Conflict` if a row is not as a condition expects it.
    fn commit(
        &self,
        conditions: Vec<RegistryCondition>,
        changes: Vec<RegistryChange>,
    ) -> CommitFuture<'_>;
}

impl RowStore for Registry {
    fn get(&self, table: u8, row_key: &[u8]) -> Result<Option<Vec<u8>>> {
        Registry::get(self, table, row_key)
    }

    fn scan(&self, table: u8, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<Rows> {
        Registry::scan(self, table, prefix, after, limit)
    }

    fn commit(
        &self,
        conditions: Vec<RegistryCondition>,
        changes: Vec<RegistryChange>,
    ) -> CommitFuture<'_> {
        Box::pin(Registry::commit(self, conditions, changes))
    }
}

/// Whether a tenant or an access key is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// In force.
    Active = 1,
    /// Switched off: a tenant until it is resumed, an access key for good.
    Off = 2,
}

impl State {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Active, Self::Off].into_iter().find(|state| *state as u8 == byte)
    }
}

/// A tenant: `version ‖ state ‖ be64 created_ms ‖ account id (12) ‖ be8 length ‖ name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TenantRow {
    pub(crate) state: State,
    pub(crate) created_ms: u64,
    pub(crate) account_id: AccountId,
    pub(crate) name: String,
}

/// A user: `version ‖ is_root (0 or 1) ‖ be64 created_ms ‖ be8 length ‖ name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserRow {
    pub(crate) is_root: bool,
    pub(crate) created_ms: u64,
    pub(crate) name: String,
}

/// An access key: `version ‖ state ‖ be64 created_ms ‖ tenant id ‖ user id ‖ be16 length ‖ sealed
/// secret`. The secret of a revoked one is gone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AccessKeyRow {
    pub(crate) state: State,
    pub(crate) created_ms: u64,
    pub(crate) tenant: TenantId,
    pub(crate) user: UserId,
    pub(crate) sealed_secret: Vec<u8>,
}

/// Takes a value apart from its front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins behind the version byte.
    fn new(value: &'a [u8]) -> Option<Self> {
        let (version, rest) = value.split_first()?;
        (*version == VERSION).then_some(Self(rest))
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn name(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        String::from_utf8(self.take(length)?.to_vec()).ok()
    }

    /// The value, if nothing is left over.
    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

fn push_name(out: &mut Vec<u8>, name: &str) {
    out.push(u8::try_from(name.len()).expect("the directory bounds names to 64 bytes"));
    out.extend_from_slice(name.as_bytes());
}

impl TenantRow {
    /// The row's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.state as u8];
        out.extend_from_slice(&self.created_ms.to_be_bytes());
        out.extend_from_slice(self.account_id.as_bytes());
        push_name(&mut out, &self.name);
        out
    }

    /// Reads the row's bytes.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value)?;
        let row = Self {
            state: State::from_byte(reader.byte()?)?,
            created_ms: u64::from_be_bytes(reader.array()?),
            account_id: AccountId::parse(reader.take(12)?)?,
            name: reader.name()?,
        };
        reader.end(row)
    }
}

impl UserRow {
    /// The row's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.is_root)];
        out.extend_from_slice(&self.created_ms.to_be_bytes());
        push_name(&mut out, &self.name);
        out
    }

    /// Reads the row's bytes.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value)?;
        let is_root = match reader.byte()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let created_ms = u64::from_be_bytes(reader.array()?);
        let name = reader.name()?;
        reader.end(Self { is_root, created_ms, name })
    }
}

impl AccessKeyRow {
    /// The row's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, self.state as u8];
        out.extend_from_slice(&self.created_ms.to_be_bytes());
        out.extend_from_slice(self.tenant.as_bytes());
        out.extend_from_slice(self.user.as_bytes());
        let length = u16::try_from(self.sealed_secret.len()).expect("a secret is 40 bytes");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&self.sealed_secret);
        out
    }

    /// Reads the row's bytes.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(value)?;
        let state = State::from_byte(reader.byte()?)?;
        let created_ms = u64::from_be_bytes(reader.array()?);
        let tenant = TenantId::from_bytes(reader.array()?);
        let user = UserId::from_bytes(reader.array()?);
        let length = usize::from(u16::from_be_bytes(reader.array()?));
        let sealed_secret = reader.take(length)?.to_vec();
        reader.end(Self { state, created_ms, tenant, user, sealed_secret })
    }
}

/// An index row that names a 16-byte id: `version ‖ id`.
pub(crate) fn encode_id(id: &[u8; 16]) -> Vec<u8> {
    [[VERSION].as_slice(), id].concat()
}

/// Reads [`encode_id`].
pub(crate) fn decode_id(value: &[u8]) -> Option<[u8; 16]> {
    let mut reader = Reader::new(value)?;
    let id = reader.array()?;
    reader.end(id)
}

/// An index row whose row key says it all: `version`.
pub(crate) fn encode_mark() -> Vec<u8> {
    vec![VERSION]
}
