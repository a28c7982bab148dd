//! The secret keys, each a type of its own, so that no one is used in another's place.
//!
//! Owns: what may be done with a secret at all. Knows nothing of: derivation, wraps, files.
//!
//! Invariants
//! - No secret is `Clone`, `Copy`, `Debug`, `Display`, comparable or readable from outside this
//!   package; the assertions below keep it true. Each is wiped on drop (`mem.rs`).
//! - The cipher's expanded keys are wiped on drop too: asserted here, because the crates make it an
//!   option.

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::env::Rng;
use crate::error::Result;
use crate::mem::{KeyRef, Secret32};

/// Fills a secret with random bytes.
pub(crate) fn random(rng: &dyn Rng) -> impl FnOnce(&mut [u8; 32]) -> Result<()> {
    |slot| {
        rng.fill(slot);
        Ok(())
    }
}

/// Fills a secret with a copy of bytes that their owner wipes.
pub(crate) fn copy_of(bytes: &[u8; 32]) -> impl FnOnce(&mut [u8; 32]) -> Result<()> {
    |slot| {
        slot.copy_from_slice(bytes);
        Ok(())
    }
}

/// Defines a newtype over 32 bytes of locked memory.
macro_rules! secret_type {
    ($(#[$meta:meta])* $vis:vis $name:ident) => {
        $(#[$meta])*
        $vis struct $name(Secret32);

        impl $name {
            /// A secret whose bytes `fill` writes in place.
            pub(crate) fn fill_with(
                fill: impl FnOnce(&mut [u8; 32]) -> Result<()>,
            ) -> Result<Self> {
                Secret32::fill_with(fill).map(Self)
            }

            /// The bytes, for one call.
            pub(crate) fn borrow(&self) -> KeyRef<'_> {
                self.0.borrow()
            }
        }
    };
}

secret_type! {
    /// What the key store seals; everything on this node hangs off it.
    ///
    /// ```compile_fail,E0624
    /// fn read(root_key: &kluis_kms::RootKey) -> [u8; 32] {
    ///     *root_key.borrow()
    /// }
    /// ```
    pub RootKey
}
secret_type! {
    /// One material of a tenant key.
    pub(crate) TenantKey
}
secret_type! {
    /// The key of one content: an object's immutable body.
    ///
    /// ```compile_fail,E0277
    /// fn show(data_key: &kluis_kms::DataKey) -> String {
    ///     format!("{data_key:?}")
    /// }
    /// ```
    /// ```compile_fail,E0599
    /// fn copy(data_key: &kluis_kms::DataKey) -> kluis_kms::DataKey {
    ///     data_key.clone()
    /// }
    /// ```
    pub DataKey
}
secret_type! {
    /// A key that a client sent with its request (SSE-C); mixed into a bucket key, never stored.
    ///
    /// ```compile_fail,E0277
    /// fn show(customer_key: &kluis_kms::CustomerKey) -> String {
    ///     format!("{customer_key:?}")
    /// }
    /// ```
    pub CustomerKey
}
secret_type! {
    /// What is inside a [`BucketKey`](crate::BucketKey).
    pub(crate) BucketSecret
}
secret_type! {
    /// The key of one stream; the nonce belongs to `stream.rs`.
    pub(crate) StreamSecret
}
secret_type! {
    /// What seals the metadata fields of one bucket.
    pub(crate) FieldSecret
}
secret_type! {
    /// The random half of a tenant key's wrapping key; erasing it erases the material.
    pub(crate) SlotSecret
}
secret_type! {
    /// What the node keeps its own things under; it outlives the epochs of the root key.
    pub(crate) NodeSecret
}
secret_type! {
    /// What authenticates the node's own records.
    pub(crate) MacSecret
}
secret_type! {
    /// What a passphrase or a test's key store seals a root key under.
    pub(crate) SealSecret
}

secret_type! {
    /// What a remote key store wraps. It opens nothing without the node's root key.
    ///
    /// ```compile_fail,E0277
    /// fn show(secret: &kluis_kms::StoreSecret) -> String {
    ///     format!("{secret:?}")
    /// }
    /// ```
    pub StoreSecret
}

impl StoreSecret {
    /// A new secret.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::ErrorKind::Full): no locked memory is left.
    pub fn generate(rng: &dyn Rng) -> Result<Self> {
        Self::fill_with(random(rng))
    }

    /// Whether both are the same, in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        self.borrow().ct_eq(&*other.borrow()).into()
    }

    /// The same bytes in a slot of their own, for another thread.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        Self::fill_with(copy_of(&self.borrow()))
    }
}

impl RootKey {
    /// A new root key.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::ErrorKind::Full): no locked memory is left.
    pub fn generate(rng: &dyn Rng) -> Result<Self> {
        Self::fill_with(random(rng))
    }

    /// Whether both are the same, in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        self.borrow().ct_eq(&*other.borrow()).into()
    }

    /// The root key whose bytes a key store unsealed; the caller's copy is wiped.
    pub fn take(bytes: &mut [u8; 32]) -> Result<Self> {
        let root_key = Self::fill_with(copy_of(bytes));
        bytes.zeroize();
        root_key
    }
}

impl CustomerKey {
    /// The key in `bytes`, which their owner wipes.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::ErrorKind::Full): no locked memory is left.
    pub fn new(bytes: &[u8; 32]) -> Result<Self> {
        Self::fill_with(copy_of(bytes))
    }
}

impl DataKey {
    /// A new data key.
    ///
    /// # Errors
    /// [`ErrorKind::Full`](crate::ErrorKind::Full): no locked memory is left.
    pub fn generate(rng: &dyn Rng) -> Result<Self> {
        Self::fill_with(random(rng))
    }
}

/// Fails to compile when the type implements one of the traits: the call below is then ambiguous.
macro_rules! assert_not_impl {
    ($type:ty: $($trait:path),+ $(,)?) => {
        const _: fn() = || {
            $({
                trait Ambiguous<Marker> {
                    fn item() {}
                }
                struct Implements;
                impl<T: ?Sized> Ambiguous<()> for T {}
                impl<T: ?Sized + $trait> Ambiguous<Implements> for T {}
                let _ = <$type as Ambiguous<_>>::item;
            })+
        };
    };
}

/// Asserts all that holds for every secret.
macro_rules! assert_secret {
    ($($type:ty),+ $(,)?) => {
        $(assert_not_impl!(
            $type: Clone, std::fmt::Debug, std::fmt::Display, PartialEq, std::hash::Hash,
            AsRef<[u8]>, std::borrow::Borrow<[u8]>, Into<[u8; 32]>, Into<Vec<u8>>,
            std::ops::Deref, IntoIterator, ToString,
        );)+
    };
}

assert_secret!(
    RootKey,
    TenantKey,
    CustomerKey,
    DataKey,
    BucketSecret,
    StreamSecret,
    FieldSecret,
    SlotSecret,
    NodeSecret,
    MacSecret,
    SealSecret,
    StoreSecret,
    Secret32,
    crate::BucketKey,
    crate::FieldCipher,
    crate::StreamKey,
    crate::Kms,
);
assert_not_impl!(KeyRef<'static>: Clone, std::fmt::Debug, std::fmt::Display, Send, Sync);
assert_not_impl!(crate::UnwrapPermit: Clone);

const _: fn() = || {
    fn wiped_on_drop<T: ZeroizeOnDrop>() {}
    wiped_on_drop::<aes::Aes256Enc>();
    // The keystream type inside aes-gcm-siv, and the hash under HMAC.
    wiped_on_drop::<ctr::CtrCore<aes::Aes256Enc, ctr::flavors::Ctr32LE>>();
    wiped_on_drop::<sha2::block_api::Sha256VarCore>();
};

const _: fn() = || {
    fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<crate::StreamKey>();
    shared_between_threads::<DataKey>();
    shared_between_threads::<CustomerKey>();
    shared_between_threads::<crate::BucketKey>();
    shared_between_threads::<crate::Kms>();
};
