//! Tenant keys in an HSM, by PKCS#11.
//!
//! ```text
//! blob: format 0x01 ‖ iv (12, random) ‖ ciphertext (32) ‖ tag (16)
//! ```
//! CKM_AES_GCM; the associated data is SHA-256 of the canonical context.
//! Owns: the session pool, the blob, what the module's codes mean. Knows nothing of: which HSM it
//! is.
//!
//! Invariants
//! - A key is an AES key of 256 bits, found by its label, that never leaves the token: sensitive
//!   and not extractable, checked before each wrap.
//! - A module is loaded and initialised once in a process and never finalised: others may use it.
//! - After a failure of the token its sessions are dropped and the next call begins anew.
//! - A PIN that was refused is not tried again before its file changes: tokens lock after a few.
//! - Calls are C code that may hang: use it behind [`Guarded`](super::Guarded) only.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as ModuleError, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Capabilities, ErasureAssurance, RemoteKeyStore, StoreBlob, check_store_key, no_key};
use crate::env::{Rng, random_array};
use crate::error::{Error, ErrorKind, Result};
use crate::private_file;
use crate::secret::{StoreSecret, copy_of};
use crate::types::EncryptionContext;

const FORMAT: u8 = 0x01;
const IV_BYTES: usize = 12;
const SEALED_BYTES: usize = 32 + 16;
const TAG_BITS: u64 = 128;
/// Longest PIN: what PKCS#11 tokens allow is far less.
const PIN_BYTES_MAX: u64 = 256;
/// Sessions kept open: as many as calls run at a time.
const SESSIONS_MAX: usize = 8;

/// Where a token is.
#[derive(Clone, Debug)]
pub struct Pkcs11Settings<'a> {
    /// The module: a shared library.
    pub module: &'a Path,
    /// The token's label.
    pub token: &'a str,
    /// File with the user's PIN, for its owner only.
    pub pin_file: &'a Path,
    /// What a call is expected to take at most; [`Guarded`](super::Guarded) holds it to that.
    pub timeout: Duration,
}

/// Keys in one token.
pub struct Pkcs11Store {
    module: PathBuf,
    token: String,
    pin_file: PathBuf,
    timeout: Duration,
    open: Mutex<Option<Arc<Token>>>,
    /// SHA-256 of the PIN that the token refused last.
    refused_pin: Mutex<Option<[u8; 32]>>,
    rng: Arc<dyn Rng>,
}

/// A token, logged in.
struct Token {
    module: Pkcs11,
    slot: Slot,
    sessions: Mutex<Vec<Session>>,
    /// The login lasts as long as a session does.
    _anchor: Mutex<Session>,
}

static MODULES: Mutex<Option<HashMap<PathBuf, Pkcs11>>> = Mutex::new(None);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a code of the module means. On decryption, damage shows as one of several codes.
fn failed(step: &str, error: ModuleError) -> Error {
    let kind = match &error {
        ModuleError::Pkcs11(code, _) => match code {
            RvError::EncryptedDataInvalid
            | RvError::EncryptedDataLenRange
            | RvError::SignatureInvalid => ErrorKind::Corrupt,
            RvError::KeyFunctionNotPermitted
            | RvError::PinIncorrect
            | RvError::PinLocked
            | RvError::UserNotLoggedIn => ErrorKind::AccessDenied,
            RvError::ActionProhibited | RvError::TokenWriteProtected => ErrorKind::Refused,
            _ => ErrorKind::Unavailable,
        },
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{step} by PKCS#11")).with_source(error)
}

/// The module, loaded and initialised.
fn load(path: &Path) -> Result<Pkcs11> {
    let mut modules = lock(&MODULES);
    let modules = modules.get_or_insert_default();
    if let Some(module) = modules.get(path) {
        return Ok(module.clone());
    }
    let step = format!("load the module {}", path.display());
    let module = Pkcs11::new(path).map_err(|error| failed(&step, error))?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(ModuleError::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(failed(&step, error)),
    }
    modules.insert(path.to_owned(), module.clone());
    Ok(module)
}

impl Token {
    fn session(&self) -> Result<Session> {
        if let Some(session) = lock(&self.sessions).pop() {
            return Ok(session);
        }
        self.module.open_rw_session(self.slot).map_err(|error| failed("open a session", error))
    }

    fn give_back(&self, session: Session) {
        let mut sessions = lock(&self.sessions);
        if sessions.len() < SESSIONS_MAX {
            sessions.push(session);
        }
    }
}

impl Pkcs11Store {
    /// The store of these settings; the module is loaded at the first call.
    pub fn new(settings: &Pkcs11Settings<'_>, rng: Arc<dyn Rng>) -> Self {
        Self {
            module: settings.module.to_owned(),
            token: settings.token.to_owned(),
            pin_file: settings.pin_file.to_owned(),
            timeout: settings.timeout,
            open: Mutex::new(None),
            refused_pin: Mutex::new(None),
            rng,
        }
    }

    fn token(&self) -> Result<Arc<Token>> {
        let mut open = lock(&self.open);
        if let Some(token) = &*open {
            return Ok(Arc::clone(token));
        }
        let token = Arc::new(self.log_in()?);
        *open = Some(Arc::clone(&token));
        Ok(token)
    }

    fn log_in(&self) -> Result<Token> {
        let module = load(&self.module)?;
        let slots = module.get_slots_with_token().map_err(|e| failed("list tokens", e))?;
        let is_ours = |slot: &Slot| {
            module.get_token_info(*slot).is_ok_and(|info| info.label().trim_end() == self.token)
        };
        let slot = slots.into_iter().find(is_ours).ok_or_else(|| {
            let during = format!("find the token {} by PKCS#11", self.token);
            Error::new(ErrorKind::Unavailable, during)
                .with_advice("check the token's label with `pkcs11-tool --list-slots`")
        })?;
        let pin = private_file::read(&self.pin_file, PIN_BYTES_MAX)?;
        let pin = std::str::from_utf8(pin.trim_ascii_end())
            .map_err(|_| Error::new(ErrorKind::Unavailable, "read the PIN of a token"))?;
        let digest: [u8; 32] = Sha256::digest(pin).into();
        if *lock(&self.refused_pin) == Some(digest) {
            return Err(Error::new(ErrorKind::AccessDenied, "log in by PKCS#11")
                .with_advice("the token refused this PIN: put the right one into its file"));
        }
        let pin = AuthPin::from(pin.to_owned());
        let anchor =
            module.open_rw_session(slot).map_err(|error| failed("open a session", error))?;
        match anchor.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(ModuleError::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => {
                let error = failed("log in", error);
                if error.kind() == ErrorKind::AccessDenied {
                    *lock(&self.refused_pin) = Some(digest);
                }
                return Err(error);
            }
        }
        Ok(Token { module, slot, sessions: Mutex::default(), _anchor: Mutex::new(anchor) })
    }

    /// Runs `work` in a session. After a failure of the token all of its sessions are dropped.
    fn with_session<T>(&self, work: impl FnOnce(&Session) -> Result<T>) -> Result<T> {
        let token = self.token()?;
        let session = token.session();
        let result = session.and_then(|session| {
            let result = work(&session);
            if !matches!(&result, Err(error) if error.kind() == ErrorKind::Unavailable) {
                token.give_back(session);
            }
            result
        });
        let is_lost = |error: &Error| {
            matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::AccessDenied)
        };
        if result.as_ref().is_err_and(is_lost) {
            let mut open = lock(&self.open);
            if open.as_ref().is_some_and(|current| Arc::ptr_eq(current, &token)) {
                *open = None;
            }
        }
        result
    }
}

impl Pkcs11Store {
    /// Whether a key opens what it just sealed.
    fn works(&self, session: &Session, handle: ObjectHandle) -> bool {
        let mut iv: [u8; IV_BYTES] = random_array(&*self.rng);
        let probe = [0; 16];
        let run = |iv: &mut [u8], input: &[u8], is_encrypt: bool| {
            let mechanism = Mechanism::AesGcm(GcmParams::new(iv, b"probe", TAG_BITS.into())?);
            if is_encrypt {
                session.encrypt(&mechanism, handle, input)
            } else {
                session.decrypt(&mechanism, handle, input)
            }
        };
        let sealed = run(&mut iv, &probe, true);
        sealed.and_then(|sealed| run(&mut iv, &sealed, false)).is_ok_and(|opened| opened == probe)
    }
}

/// The one AES key of this label.
fn find_key(session: &Session, label: &str) -> Result<ObjectHandle> {
    check_store_key(label)?;
    let template = [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    let found = session.find_objects(&template).map_err(|e| failed("find a key", e))?;
    match found.as_slice() {
        [] => Err(no_key("PKCS#11", label)),
        [one] => Ok(*one),
        _ => Err(Error::new(ErrorKind::Refused, format!("choose among the keys {label}"))
            .with_advice("a key's label must be its own in its token")),
    }
}

/// Refuses a key that could leave the token or is too short.
fn check_key(session: &Session, handle: ObjectHandle, label: &str) -> Result<()> {
    let wanted = [AttributeType::Sensitive, AttributeType::Extractable, AttributeType::ValueLen];
    let attributes = session
        .get_attributes(handle, &wanted)
        .map_err(|error| failed("read a key's attributes", error))?;
    let mut good = 0;
    for attribute in attributes {
        good += usize::from(match attribute {
            Attribute::Sensitive(is_sensitive) => is_sensitive,
            Attribute::Extractable(is_extractable) => !is_extractable,
            Attribute::ValueLen(bytes) => *bytes == 32,
            _ => false,
        });
    }
    if good == wanted.len() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, format!("use the PKCS#11 key {label}")).with_advice(
        "make an AES key of 32 bytes with CKA_SENSITIVE true and CKA_EXTRACTABLE false",
    ))
}

impl RemoteKeyStore for Pkcs11Store {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "pkcs11",
            erasure_assurance: ErasureAssurance::BackendDestroyed,
            remote_latency: Some(self.timeout),
            can_rewrap: true,
            can_destroy: true,
        }
    }

    fn wrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        secret: &StoreSecret,
    ) -> Result<StoreBlob> {
        let associated = context.digest();
        let mut iv: [u8; IV_BYTES] = random_array(&*self.rng);
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&iv);
        let sealed = self.with_session(|session| {
            let handle = find_key(session, store_key)?;
            check_key(session, handle, store_key)?;
            let params = GcmParams::new(&mut iv, &associated, TAG_BITS.into())
                .map_err(|error| failed("prepare AES-GCM", error))?;
            session
                .encrypt(&Mechanism::AesGcm(params), handle, secret.borrow().as_slice())
                .map_err(|error| failed("wrap", error))
        })?;
        if sealed.len() != SEALED_BYTES || bytes.get(1..) != Some(iv.as_slice()) {
            let during = "wrap by PKCS#11: the module changed the nonce or the length";
            return Err(Error::new(ErrorKind::Unavailable, during));
        }
        bytes.extend_from_slice(&sealed);
        StoreBlob::new(bytes)
    }

    fn unwrap(
        &self,
        store_key: &str,
        context: &EncryptionContext,
        blob: &StoreBlob,
    ) -> Result<StoreSecret> {
        let damaged = || Error::new(ErrorKind::Corrupt, "read a PKCS#11 store's blob");
        let rest = blob.as_bytes().strip_prefix(&[FORMAT]).ok_or_else(damaged)?;
        let (iv, sealed) = rest.split_first_chunk::<IV_BYTES>().ok_or_else(damaged)?;
        if sealed.len() != SEALED_BYTES {
            return Err(damaged());
        }
        let (mut iv, associated) = (*iv, context.digest());
        let bytes = self.with_session(|session| {
            let handle = find_key(session, store_key)?;
            let params = GcmParams::new(&mut iv, &associated, TAG_BITS.into())
                .map_err(|error| failed("prepare AES-GCM", error))?;
            let opened = session.decrypt(&Mechanism::AesGcm(params), handle, sealed);
            opened.map(Zeroizing::new).map_err(|error| {
                // SoftHSM, for one, says "general error" to a tag that is wrong. If the key still
                // works on what is whole, it was the bytes.
                let is_vague = matches!(
                    error,
                    ModuleError::Pkcs11(RvError::GeneralError | RvError::FunctionFailed, _)
                );
                let error = failed("unwrap", error);
                if is_vague && self.works(session, handle) { damaged() } else { error }
            })
        })?;
        let secret = bytes.as_slice().try_into().map_err(|_| damaged())?;
        StoreSecret::fill_with(copy_of(secret))
    }

    fn destroy(&self, store_key: &str) -> Result<()> {
        self.with_session(|session| {
            let handle = find_key(session, store_key)?;
            session.destroy_object(handle).map_err(|error| failed("destroy a key", error))
        })
    }

    fn health(&self) -> Result<()> {
        self.with_session(|session| {
            session.get_session_info().map(drop).map_err(|error| failed("look at a session", error))
        })
    }
}

#[cfg(test)]
mod tests;
