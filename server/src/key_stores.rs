//! The key stores of the configuration, made and guarded.
//!
//! Owns: which configuration becomes which store, and whose each one is. Knows nothing of: keys.
//!
//! Invariants
//! - No store is asked for anything here: one that is down does not keep the node from starting.
//! - A tenant is found by its name at the time of the call: one made later has its store too.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kluis_kms::env::Env;
use kluis_kms::{
    GuardLimits, Guarded, Pkcs11Settings, Pkcs11Store, RemoteKeyStore, RemoteStores, RootInStore,
    StoreTenants, TenantId, TransitSettings, TransitStore, XksSettings, XksStore,
};

use crate::auth::creds::Directory;
use crate::config::{Config, KeyStoreConfig, KeyStoreKind};

/// Where Transit is mounted unless configured.
const MOUNT: &str = "transit";

/// The stores of this node, still without tenants: see [`admit_tenants`].
pub(crate) fn none_yet(config: &Config, env: &Env) -> RemoteStores {
    RemoteStores::new(Duration::from_secs(config.key_store_cache_seconds), env.clone())
}

/// Adds the configured stores, each for its tenants. One that cannot be used is logged and left
/// out: its tenants' keys answer that they are unusable, and everybody else is served.
pub(crate) fn admit_tenants(
    stores: &RemoteStores,
    config: &Config,
    (directory, env): (&Directory, &Env),
) {
    for entry in &config.key_stores {
        let (names, directory) = (entry.tenants.clone(), directory.clone());
        let tenants: StoreTenants = Arc::new(move |tenant: TenantId| {
            names
                .iter()
                .any(|name| directory.show(name).is_ok_and(|known| known.tenant_id == tenant))
        });
        match guarded(entry, config, env) {
            Ok(store) => stores.add(&entry.name, store, tenants),
            Err(error) => {
                tracing::error!(key_store = entry.name, %error, "a key store cannot be used");
            }
        }
    }
}

/// The store of the root key, if it is not a passphrase.
///
/// # Errors
/// Its entry names a file or an address that cannot be used.
pub(crate) fn root(config: &Config, env: &Env) -> Result<Option<RootInStore>, kluis_kms::Error> {
    let (Some(name), Some(store_key)) = (&config.root_store, &config.root_store_key) else {
        return Ok(None);
    };
    let Some(entry) = config.key_store(name) else {
        return Ok(None);
    };
    let store = guarded(entry, config, env)?;
    Ok(Some(RootInStore::new(store, store_key, Arc::clone(&env.rng))))
}

fn guarded(
    entry: &KeyStoreConfig,
    config: &Config,
    env: &Env,
) -> Result<Arc<dyn RemoteKeyStore>, kluis_kms::Error> {
    let timeout = Duration::from_millis(entry.timeout_ms());
    let limits = GuardLimits::with_timeout(timeout);
    let store = open(entry, config, (env, timeout))?;
    Ok(Arc::new(Guarded::new(store, limits, Arc::clone(&env.clock))))
}

fn open(
    entry: &KeyStoreConfig,
    config: &Config,
    (env, timeout): (&Env, Duration),
) -> Result<Arc<dyn RemoteKeyStore>, kluis_kms::Error> {
    // What is not set was refused when the configuration was read.
    let path = |path: &Option<std::path::PathBuf>| path.clone().unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let ca_file: Option<&Path> = entry.ca_file.as_deref();
    Ok(match entry.kind {
        KeyStoreKind::Pkcs11 => {
            let settings = Pkcs11Settings {
                module: &path(&entry.module),
                token: &text(&entry.token),
                pin_file: &path(&entry.pin_file),
                timeout,
            };
            Arc::new(Pkcs11Store::new(&settings, Arc::clone(&env.rng)))
        }
        KeyStoreKind::Transit => Arc::new(TransitStore::new(&TransitSettings {
            url: &text(&entry.url),
            mount: entry.mount.as_deref().unwrap_or(MOUNT),
            ca_file,
            token_file: &path(&entry.token_file),
            timeout,
        })?),
        KeyStoreKind::Xks => {
            let settings = XksSettings {
                url: &text(&entry.url),
                region: entry.region.as_deref().unwrap_or(&config.region),
                ca_file,
                access_key_file: &path(&entry.access_key_file),
                timeout,
            };
            Arc::new(XksStore::new(&settings, env)?)
        }
    })
}
