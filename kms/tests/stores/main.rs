//! The key stores' contract over real peers: OpenBao, SoftHSM2, an XKS proxy.
//!
//! `scripts/test --only stores` installs the peers and names them in the environment; a peer that
//! is not named is a failure, never a test that passes without it.
//! Owns: starting and ending the peers. Knows nothing of: how a store talks to them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the whole target is tests, and what they share is outside of test functions"
)]

#[path = "../../src/store/contract.rs"]
mod contract;
mod peers;
mod pkcs11;
mod transit;
mod xks;

// What the contract is written against.
use kluis_kms::{
    EncryptionContext, ErrorKind, KeyStore, RemoteKeyStore, Result, RootKey, STORE_BLOB_BYTES_MAX,
    SeededRng, StoreBlob, StoreSecret,
};
