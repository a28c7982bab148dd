//! Keys, and nothing else: hierarchy, wraps, permits, and the gate that disables them at once.
//!
//! ```text
//! root key ─► tenant key (materials) ─► bucket key ─► data key ─► stream key ─► chunks
//! key store    keyring + erasable slot    storage       storage     derived
//! ```
//! Start with [`Kms`]: it opens the keyring, issues an [`UnwrapPermit`] for a [`Purpose`] and makes
//! and opens [`BucketKey`]s. A bucket key wraps [`DataKey`]s; a data key seals its content's
//! manifest and gives a [`StreamKey`] per stream, which encrypts chunks.
//!
//! Knows nothing of: objects and buckets (but as opaque bytes of an [`EncryptionContext`]), HTTP,
//! policies, RocksDB. Synchronous throughout: key bytes never live across an `await`.
//! Key levels, states, files and limits: docs/KEYS.md.

pub mod env;

mod aead;
mod api_ciphertext;
mod audit;
mod bucket_key;
mod calendar;
mod derive;
mod directory;
mod error;
mod field;
#[cfg(test)]
mod fixtures;
mod gate;
mod import;
mod keyring;
mod lifecycle;
mod manager;
mod mem;
mod private_file;
mod record;
mod secret;
mod slots;
mod store;
mod stream;
mod types;
mod wrap;

pub use aead::TAG_BYTES;
pub use api_ciphertext::{API_OVERHEAD_BYTES, API_PLAINTEXT_BYTES_MAX, ApiCiphertext};
pub use audit::{
    AuditDamage, AuditEvent, AuditFiles, AuditHeader, AuditLog, AuditOperation, AuditOutcome,
    AuditRecord, AuditSink, AuditVerdict, DiscardAudit, audit_files_at_rest,
};
pub use bucket_key::{BucketKey, BucketKeyPurpose, BucketKeyScope};
pub use calendar::Civil;
pub use derive::{CHUNK_SHIFT, CHUNK_SHIFTS, ContentScope, MANIFEST_BYTES_MAX, SUITE};
pub use directory::{ENTRIES_MAX, ENTRY_NAME_BYTES_MAX, ENTRY_VALUE_BYTES_MAX};
pub use env::{
    Clock, Env, ManualClock, OsRng, Rng, SeededRng, ShiftedClock, SystemClock, random_array,
};
pub use error::{BoxError, Error, ErrorKind, Result};
pub use field::{FIELD_BYTES_MAX, FIELD_OVERHEAD_BYTES, FieldCipher, FieldName};
pub use gate::{
    Access, GateClosed, InFlight, JobId, KeyGate, KeyRights, KeyUse, Principal, Purpose, Reason,
    RequestId, Rights, UnwrapPermit,
};
pub use import::{IMPORT_VALIDITY_MS, ImportAlgorithm, ImportParameters};
pub use lifecycle::{DELETION_DAYS, KeyEvent, KeyState, ROTATION_DAYS};
pub use manager::{
    API_DATA_KEY_BYTES_MAX, CREDENTIAL_BYTES_MAX, CloseListener, ErasureEvidence, ImportRequest,
    Kms, MaterialInfo, MaterialState, TENANT_KEYS_MAX, TenantKeyInfo, WrapGuard,
    with_key_files_at_rest,
};
pub use mem::{
    ARENA_BLOCK_BYTES, ARENA_SLOTS_MAX, ArenaUsage, KeyRef, MemoryKind, SECRET_BYTES, arena_usage,
};
pub use record::{DESCRIPTION_BYTES_MAX, KeyOrigin, STORE_NAME_BYTES_MAX};
pub use secret::{CustomerKey, DataKey, RootKey, StoreSecret};
pub use store::{
    ARGON2_LANES, ARGON2_LANES_MAX, ARGON2_MEMORY_KIB, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES,
    ARGON2_PASSES_MAX, CACHE_TTL_DEFAULT, CACHE_TTL_MAX, Capabilities, ErasureAssurance,
    GuardLimits, Guarded, KeyStore, MemoryKeys, MemoryStore, Mood, PASSPHRASE_BYTES_MAX,
    PASSPHRASE_BYTES_MIN, PassphraseStore, Pkcs11Settings, Pkcs11Store, RemoteKeyStore,
    RemoteStores, RootInStore, SEALED_ROOT_BYTES, STORE_BLOB_BYTES_MAX, STORE_KEY_BYTES_MAX,
    StoreBlob, StoreStats, StoreTenants, TransitSettings, TransitStore, XksSettings, XksStore,
};
pub use stream::{ChunkPosition, STREAM_CHUNKS_MAX, StreamKey};
pub use types::{
    BucketKeyId, CONTEXT_ENTRIES_MAX, CONTEXT_NAME_BYTES_MAX, CONTEXT_VALUE_BYTES_MAX,
    EncryptionContext, ParseIdError, TenantId, TenantKeyId,
};
#[doc(hidden)]
pub use types::{parse_id, write_hex};
pub use wrap::{WRAPPED_KEY_BYTES, WRAPPED_KEY_COMMITTED_BYTES, WrapKind, WrappedKey};
