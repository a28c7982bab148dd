//! Where the volume lies: in the data directory, in another one, or in two that are kept alike.
//!
//! Owns: opening those directories, what keeps two processes apart there, how much may be taken of
//! them. Knows nothing of: what a volume holds; metadata and keys, which stay in the data
//! directory.
//!
//! Invariants
//! - A directory that is named is never made: one that is missing is a disk that is not mounted.
//! - A member that is missing or broken keeps nobody from starting, as long as the other is known
//!   to be current.

use std::io::ErrorKind as ErrorKindOfIo;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kluis_kms::Env;
use rustix::fs::statvfs;

use crate::engine::{Engine, EngineConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::format::MirrorId;
use crate::io::{
    Backend, BufPool, Disk, DiskReport, IoConfig, MirrorDisk, MirrorMember, MirrorParts,
    MirrorStatus, open_disk,
};

/// How often a directory that is locked is tried, and how long apart: a second in all. Files are
/// closed by tasks, so that whoever closed an engine a moment ago may still hold its lock.
const LOCK_TRIES_MAX: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The folder of a mirror's witness in the data directory.
const WITNESS: &str = "mirror";

/// The largest share of a file system that the reserve takes, so that a small one is usable: 5 %.
const RESERVE_DIVISOR: u64 = 20;

/// Whether no volume was ever made there.
pub(crate) fn is_new(dir: &Path, config: &EngineConfig) -> bool {
    let places = config.volume_paths.iter().map(PathBuf::as_path).chain([dir]);
    let has_super =
        |place: &Path| ["SUPER.a", "SUPER.b"].iter().any(|name| place.join(name).exists());
    !dir.join(WITNESS).exists() && !places.into_iter().any(has_super)
}

/// Opens the disk of the volume.
///
/// # Errors
/// - [`ErrorKind::Misuse`]: the directories named do not belong together, or there is a volume in
///   the data directory already.
/// - [`ErrorKind::Unavailable`]: a directory cannot be opened, and there is no other.
pub(crate) async fn open(
    dir: &Path,
    config: &EngineConfig,
    pool: &BufPool,
    env: &Env,
) -> Result<(Arc<dyn Disk>, DiskReport)> {
    let failed = |path: &Path, why: String| {
        let during = format!("open the disk of {}", path.display());
        Error::new(ErrorKind::Unavailable, during).with_source(why)
    };
    let paths = config.volume_paths.as_slice();
    let Some(first) = paths.first() else {
        let opened = open_disk(dir, &config.io, pool);
        return opened.map_err(|error| failed(dir, error.to_string()));
    };
    refuse_inside(dir, paths)?;
    match paths {
        [path] => open_when_free(path, &config.io, pool).await.map_err(|why| failed(path, why)),
        [_, _] => open_mirror(dir, config, pool, env).await,
        _ => Err(Error::new(ErrorKind::Misuse, format!("keep {} copies", paths.len()))
            .with_source(first.display().to_string())
            .with_advice("a volume has one path, or two that are kept alike")),
    }
}

/// Refuses paths that share a directory with each other or with the data directory.
fn refuse_inside(dir: &Path, paths: &[PathBuf]) -> Result<()> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut seen = vec![real(dir)];
    for path in paths {
        let real = real(path);
        if seen.contains(&real) {
            let during = format!("keep a volume in {}", path.display());
            return Err(Error::new(ErrorKind::Misuse, during).with_advice(
                "give each path of a volume a directory of its own, and not the data directory",
            ));
        }
        seen.push(real);
    }
    if ["SUPER.a", "SUPER.b"].iter().any(|name| dir.join(name).exists()) {
        let during = format!("keep the volume elsewhere than in {}", dir.display());
        return Err(Error::new(ErrorKind::Misuse, during).with_advice(
            "the data directory holds a volume: move SUPER.a, SUPER.b and seg/ to the first path, \
             while no node runs",
        ));
    }
    Ok(())
}

/// Opens one directory, which no other process may have open. An earlier use of it by this one, by
/// an engine that was closed or a member that was left out, gets a moment to end.
async fn open_when_free(
    path: &Path,
    io: &IoConfig,
    pool: &BufPool,
) -> Result<(Arc<dyn Disk>, DiskReport), String> {
    if !path.is_dir() {
        return Err(format!("{} is no directory: make it, or mount its disk", path.display()));
    }
    let io = IoConfig { lock: true, ..*io };
    let mut tries = 1;
    loop {
        match open_disk(path, &io, pool) {
            Err(error) if error.kind() == ErrorKindOfIo::ResourceBusy && tries < LOCK_TRIES_MAX => {
                tries += 1;
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            opened => return opened.map_err(|error| error.to_string()),
        }
    }
}

async fn open_mirror(
    dir: &Path,
    config: &EngineConfig,
    pool: &BufPool,
    env: &Env,
) -> Result<(Arc<dyn Disk>, DiskReport)> {
    let mut report = None;
    let mut members = Vec::with_capacity(config.volume_paths.len());
    for path in &config.volume_paths {
        let opened = open_when_free(path, &config.io, pool).await.map(|(disk, found)| {
            report.get_or_insert(found);
            disk
        });
        members.push(MirrorMember { path: path.display().to_string(), disk: opened });
    }
    let members = members.try_into().map_err(|_| {
        Error::new(ErrorKind::Misuse, "make a mirror of other than two directories")
    })?;
    let witness_io = IoConfig {
        backend: Backend::Threads,
        require_direct: false,
        threads: 1,
        sync_threads: 1,
        ..config.io
    };
    let (witness, _) = open_disk(&dir.join(WITNESS), &witness_io, pool).map_err(|error| {
        Error::new(ErrorKind::Unavailable, "open the mirror's witness").with_source(error)
    })?;
    let mirror = MirrorDisk::open(MirrorParts {
        members,
        witness: Some(witness),
        pool: pool.clone(),
        mirror: MirrorId::random(&*env.rng),
        rebuild_bytes_per_second: config.rebuild_bytes_per_second,
    })
    .await?;
    let report = report.ok_or_else(|| {
        Error::new(ErrorKind::Unavailable, "open a mirror of which no member can be opened")
    })?;
    Ok((Arc::new(mirror), report))
}

/// Refuses to take `bytes` more of the file systems that hold the volume, where it is not the one
/// of the data directory. Asked for every new segment.
///
/// # Errors
/// [`ErrorKind::Full`].
pub(crate) fn admit(config: &EngineConfig, bytes: u64) -> Result<()> {
    for path in &config.volume_paths {
        // A file system that does not answer is not taken for a full one: the write will tell.
        let Ok(stat) = statvfs(path) else { continue };
        let (free, total) = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
        let reserve = config.reserve_bytes.min(total / RESERVE_DIVISOR);
        if free.saturating_sub(bytes) <= reserve {
            let what = format!("take {bytes} bytes of {} with {free} free", path.display());
            return Err(Error::new(ErrorKind::Full, what).with_advice("add space"));
        }
    }
    Ok(())
}

impl Engine {
    /// How the mirror stands, if the volume is one.
    pub fn mirror(&self) -> Option<MirrorStatus> {
        self.inner.disk.mirror().map(MirrorDisk::status)
    }

    /// Takes the directory that the configuration names `path` in again, which must be empty or
    /// what was left of this very member, and begins to fill it.
    ///
    /// # Errors
    /// - [`ErrorKind::Misuse`]: the member is not out, or the directory holds something else.
    /// - [`ErrorKind::NotFound`]: the volume has no such member.
    /// - [`ErrorKind::Unavailable`]: the directory cannot be opened, or another process has it.
    pub async fn replace_member(&self, path: &Path) -> Result<()> {
        let (config, disk) = (&self.inner.config, &self.inner.disk);
        let seat = config.volume_paths.iter().position(|it| it == path);
        let (Some(seat), Some(mirror)) = (seat, disk.mirror()) else {
            let during = format!("find a member {} of a mirror", path.display());
            return Err(Error::new(ErrorKind::NotFound, during));
        };
        let opened = open_when_free(path, &config.io, &self.inner.pool).await;
        let (disk, _) = opened.map_err(|why| {
            let during = format!("open {}", path.display());
            Error::new(ErrorKind::Unavailable, during).with_source(why)
        })?;
        mirror.replace(seat, disk).await
    }
}
