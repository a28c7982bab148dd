//! Opening the keys and preparing the engine.
//!
//! Owns: what a first start makes, and which directories are refused. Knows nothing of: listeners.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use kluis_kms::env::Env;
use kluis_kms::{KeyStore, Kms, PassphraseStore, RemoteStores, ShiftedClock};
use kluis_storage::io::Backend;
use kluis_storage::{EngineConfig, IoConfig, ReclaimConfig, ScrubConfig, VolumeConfig};

use super::NodeError;
use crate::config::Config;
use crate::key_stores;
use crate::passphrase::{self, Sources};

/// Of eight buffers, how many writers may hold: a third is left to readers.
const WRITER_EIGHTHS: u64 = 5;
/// Bytes of a large buffer.
const LARGE_BUFFER_BYTES: u64 = 1 << 20;
/// The folder of the metadata; where it is, there is data.
const METADATA: &str = "meta";

/// The keys of a data directory, open.
pub(crate) struct Keys {
    /// The keys.
    pub(crate) kms: Arc<Kms>,
    /// Tenants' own key stores, without tenants yet.
    pub(crate) stores: Arc<RemoteStores>,
    /// Whether their passphrase lies beside the data.
    pub(crate) is_dev: bool,
    /// The keys' clock, where it may be moved on: with `--dev` only.
    pub(crate) dev_clock: Option<Arc<ShiftedClock>>,
}

/// Makes the data directory, for its owner only. One that is there must be out of others' reach:
/// who can write in it can put other keys, other data or another socket there.
pub(super) fn make_folder(data: &Path) -> Result<(), NodeError> {
    let step = format!("make the data directory {}", data.display());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data)
        .map_err(|e| NodeError::new(&step, e))?;
    flush_entries(data).map_err(|e| NodeError::new(&step, e))?;
    let metadata = std::fs::metadata(data).map_err(|e| NodeError::new(&step, e))?;
    let own_uid = rustix::process::geteuid().as_raw();
    check_folder(data, (metadata.uid(), metadata.mode()), own_uid)
}

/// Makes the data directory's own entry durable, and those of the folders above it: no flush of
/// what lies inside says anything about them. Folders that we may not read are older than we are.
fn flush_entries(data: &Path) -> std::io::Result<()> {
    for folder in std::fs::canonicalize(data)?.ancestors().skip(1) {
        match std::fs::File::open(folder).and_then(|folder| folder.sync_all()) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            flushed => flushed?,
        }
    }
    Ok(())
}

/// Checks the directories of the volume as the data directory is checked. One that is not there is
/// the engine's to judge.
pub(super) fn check_volumes(config: &Config) -> Result<(), NodeError> {
    let own_uid = rustix::process::geteuid().as_raw();
    for path in config.volumes.iter().flat_map(|volume| &volume.paths) {
        if let Ok(metadata) = std::fs::metadata(path) {
            check_folder(path, (metadata.uid(), metadata.mode()), own_uid)?;
        }
    }
    Ok(())
}

fn check_folder(data: &Path, (uid, mode): (u32, u32), own_uid: u32) -> Result<(), NodeError> {
    let path = data.display();
    let step = format!("use the directory {path}");
    if uid != own_uid {
        return Err(NodeError::new(
            &step,
            format!(
                "it belongs to uid {uid} and the node runs as uid {own_uid}: run the node as uid \
                 {uid}, or `chown -R {own_uid} {path}`"
            ),
        ));
    }
    if mode & 0o022 != 0 {
        return Err(NodeError::new(
            &step,
            format!("others than its owner can write in it: run `chmod go-w {path}`"),
        ));
    }
    Ok(())
}

/// Opens the keys in `data`, or makes them if there is no data yet.
///
/// # Errors
/// No passphrase, the wrong one, or data without keys.
pub(crate) async fn open_keys(
    data: &Path,
    is_dev_allowed: bool,
    config: &Config,
    env: &Env,
) -> Result<Keys, NodeError> {
    kluis_storage::backup::refuse_half(data).map_err(|e| NodeError::new("open the keys", e))?;
    let exists = Kms::exists(data);
    if !exists && data.join(METADATA).exists() {
        return Err(NodeError::new(
            &format!("open the keys in {}", data.display()),
            "there is data but no keys; restore the folder keys/ from its backup. Nothing was changed",
        ));
    }
    let (store, is_dev) = root_store(data, is_dev_allowed, config, env)?;
    let stores = Arc::new(key_stores::none_yet(config, env));
    let dev_clock = is_dev.then(Arc::<ShiftedClock>::default);
    let (data, mut env) = (data.to_owned(), env.clone());
    if let Some(clock) = &dev_clock {
        env.clock = Arc::<ShiftedClock>::clone(clock);
    }
    // Deriving a key from a passphrase is slow by design, and a store may be far away.
    let opened = tokio::task::spawn_blocking(move || open(&data, exists, &*store, env)).await;
    let kms = opened.map_err(|e| NodeError::new("open the keys", e))??;
    let kms = kms.with_key_stores(Arc::clone(&stores));
    Ok(Keys { kms: Arc::new(kms), stores, is_dev, dev_clock })
}

/// What seals the root key, and whether it lies beside the data.
///
/// # Errors
/// No passphrase, or a store whose entry cannot be used.
pub(crate) fn root_store(
    data: &Path,
    is_dev_allowed: bool,
    config: &Config,
    env: &Env,
) -> Result<(Box<dyn KeyStore>, bool), NodeError> {
    let remote = key_stores::root(config, env)
        .map_err(|e| NodeError::new("open the root's key store", e))?;
    if let Some(store) = remote {
        return Ok((Box::new(store), false));
    }
    let credentials = passphrase::credentials_folder();
    let sources = Sources {
        file: config.passphrase_file.as_deref(),
        credentials: credentials.as_deref(),
        dev: is_dev_allowed.then_some(data),
    };
    let passphrase = passphrase::find(&sources, &*env.rng)
        .map_err(|e| NodeError::new("find the passphrase", e))?;
    let is_dev = passphrase.is_dev || passphrase::dev_file(data).exists();
    let store = PassphraseStore::new(passphrase.as_bytes(), Arc::clone(&env.rng))
        .map_err(|e| NodeError::new("take the passphrase", e))?;
    Ok((Box::new(store), is_dev))
}

fn open(data: &Path, exists: bool, store: &dyn KeyStore, env: Env) -> Result<Kms, NodeError> {
    if exists {
        return Kms::open(data, store, env).map_err(|e| NodeError::new("open the keys", e));
    }
    tracing::info!(data = %data.display(), "no keys yet: making a root key");
    Kms::create(data, store, env).map_err(|e| NodeError::new("make the keys", e))
}

/// The engine's part of the configuration.
pub(crate) fn engine_config(config: &Config) -> Result<EngineConfig, NodeError> {
    let size = |name: &str, value: u64| {
        usize::try_from(value).map_err(|e| NodeError::new(&format!("configuration: {name}"), e))
    };
    let backend = match config.io_backend.as_str() {
        "ring" => Backend::Ring,
        "threads" => Backend::Threads,
        _ => Backend::Auto,
    };
    let writer_slabs = config.buffer_bytes_max / LARGE_BUFFER_BYTES * WRITER_EIGHTHS / 8;
    Ok(EngineConfig {
        io: IoConfig {
            backend,
            require_direct: config.require_direct_io,
            threads: size("io_threads", config.io_threads)?,
            ..IoConfig::default()
        },
        volume: VolumeConfig {
            segment_bytes: config.segment_bytes,
            prewrite: config.prewrite_segments,
            volume_bytes_max: config.volume_bytes_max,
            writer_slabs_max: size("buffer_bytes_max", writer_slabs)?,
            ..VolumeConfig::default()
        },
        volume_paths: config.volumes.iter().flat_map(|volume| volume.paths.clone()).collect(),
        rebuild_bytes_per_second: config.rebuild_bytes_per_second,
        pool_bytes: size("buffer_bytes_max", config.buffer_bytes_max)?,
        metadata_cache_bytes: size("metadata_cache_bytes", config.metadata_cache_bytes)?,
        inline_bytes_max: config.inline_bytes_max,
        dedicated_namespaces_max: size(
            "dedicated_namespaces_max",
            config.dedicated_namespaces_max,
        )?,
        reserve_bytes: config.reserve_bytes,
        reclaim: ReclaimConfig {
            enabled: config.reclaim,
            rate_bytes: config.reclaim_bytes_per_second,
            waste_percent_max: u8::try_from(config.reclaim_waste_percent)
                .map_err(|e| NodeError::new("configuration: reclaim_waste_percent", e))?,
        },
        scrub: ScrubConfig {
            period_days: u32::try_from(config.scrub_period_days)
                .map_err(|e| NodeError::new("configuration: scrub_period_days", e))?,
            checkpoints: config.metadata_checkpoint_dir.clone(),
        },
        ..EngineConfig::default()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_is_made_private_and_kept_from_others() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("a/b");
        make_folder(&data).unwrap();
        assert_eq!(std::fs::metadata(&data).unwrap().mode() & 0o777, 0o700);
        for (mode, is_refused) in [(0o755, false), (0o770, true), (0o702, true), (0o700, false)] {
            std::fs::set_permissions(&data, std::fs::Permissions::from_mode(mode)).unwrap();
            let made = make_folder(&data);
            assert_eq!(made.is_err(), is_refused, "{mode:o}");
            if let Err(error) = made {
                assert!(error.to_string().contains("chmod go-w"), "{error}");
            }
        }
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let error = check_folder(Path::new("/d"), (7, 0o700), 8).unwrap_err().to_string();
        assert!(error.contains("uid 7") && error.contains("chown -R 8 /d"), "{error}");
    }
}
