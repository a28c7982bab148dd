//! Where the passphrase of the root key comes from.
//!
//! A file, standard input, the variable KLUIS_PASSPHRASE, a systemd credential, or with `--dev` a
//! file beside the data. Owns: reading it and keeping it out of reach afterwards. Knows nothing of:
//! what it seals.
//!
//! Invariants
//! - The passphrase is never printed, and wiped when dropped.
//! - The variable does not outlive the first instructions of the process: its value moves into a
//!   pipe and the program starts itself again without it, because nothing else removes it from
//!   `/proc/PID/environ`.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kluis_kms::PASSPHRASE_BYTES_MAX;
use kluis_kms::env::Rng;
use zeroize::Zeroizing;

/// The variable that may hold the passphrase itself.
const VARIABLE: &str = "KLUIS_PASSPHRASE";
/// The variable of the configuration field `passphrase_file`.
const FILE_VARIABLE: &str = "KLUIS_PASSPHRASE_FILE";
/// The name of the systemd credential (`LoadCredential=kluis-passphrase:…`).
const CREDENTIAL: &str = "kluis-passphrase";
/// Random bytes of a development passphrase.
const DEV_BYTES: usize = 32;

/// A passphrase and where it came from.
pub(crate) struct Passphrase {
    bytes: Zeroizing<Vec<u8>>,
    /// Whether it lies beside the data, which then is protected from nobody who can read both.
    pub(crate) is_dev: bool,
}

impl Passphrase {
    /// The passphrase.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Passphrase(is_dev: {})", self.is_dev)
    }
}

/// Where to look, in this order.
pub(crate) struct Sources<'a> {
    /// The configured file; `-` is standard input.
    pub(crate) file: Option<&'a Path>,
    /// The folder of systemd credentials, from `$CREDENTIALS_DIRECTORY`.
    pub(crate) credentials: Option<&'a Path>,
    /// The data directory, if a passphrase may lie in it (`--dev`).
    pub(crate) dev: Option<&'a Path>,
}

/// If KLUIS_PASSPHRASE is set, starts the program again with it on standard input.
///
/// # Errors
/// The variable is empty or too long, or the program cannot be started again.
pub(crate) fn move_out_of_environment() -> io::Result<()> {
    let Some(value) = std::env::var_os(VARIABLE) else {
        return Ok(());
    };
    let value = Zeroizing::new(value.as_bytes().to_vec());
    if value.is_empty() || value.len() > PASSPHRASE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "{VARIABLE} must hold 1 to {PASSPHRASE_BYTES_MAX} bytes"
        )));
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(&value)?;
    drop(writer);
    let mut again = Command::new(std::env::current_exe()?);
    again
        .args(std::env::args_os().skip(1))
        .env_remove(VARIABLE)
        .env(FILE_VARIABLE, "-")
        .stdin(Stdio::from(reader));
    // Only returns if it failed.
    Err(again.exec())
}

/// Finds the passphrase.
///
/// # Errors
/// None of the sources has one, or the one that should cannot be read; the text says what to do.
pub(crate) fn find(sources: &Sources<'_>, rng: &dyn Rng) -> io::Result<Passphrase> {
    let found = |bytes| Passphrase { bytes, is_dev: false };
    if let Some(file) = sources.file {
        if file == Path::new("-") {
            return read(&mut io::stdin().lock(), "standard input").map(found);
        }
        return read_private_file(file, sources.credentials).map(found);
    }
    if let Some(folder) = sources.credentials {
        let file = folder.join(CREDENTIAL);
        if file.exists() {
            return read_private_file(&file, sources.credentials).map(found);
        }
    }
    if let Some(data) = sources.dev {
        let bytes = dev_passphrase(data, rng)?;
        return Ok(Passphrase { bytes, is_dev: true });
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "no passphrase for the root key. Give one of: --passphrase-file FILE; the environment \
         variable KLUIS_PASSPHRASE; a systemd credential named kluis-passphrase; or --dev, which \
         keeps a passphrase beside the data and is for trying things out only",
    ))
}

/// Where the development passphrase lies.
pub(crate) fn dev_file(data: &Path) -> PathBuf {
    data.join("keys").join("dev-passphrase")
}

fn dev_passphrase(data: &Path, rng: &dyn Rng) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = dev_file(data);
    if file.exists() {
        return read_private_file(&file, None);
    }
    let mut random = Zeroizing::new([0; DEV_BYTES]);
    rng.fill(random.as_mut());
    let text = Zeroizing::new(hex::encode(random.as_ref()).into_bytes());
    let folder = file.parent().unwrap_or(data);
    std::fs::create_dir_all(folder)?;
    let mut open = std::fs::OpenOptions::new();
    let mut written = open.write(true).create_new(true).mode(0o600).open(&file)?;
    written.write_all(&text)?;
    written.write_all(b"\n")?;
    written.sync_all()?;
    std::fs::File::open(folder)?.sync_all()?;
    // The folder may be new as well.
    std::fs::File::open(data)?.sync_all()?;
    Ok(text)
}

/// Reads a file that nobody but its owner may read. In the folder of credentials, which systemd
/// closes to others, a group may: systemd gives files there such modes.
fn read_private_file(path: &Path, credentials: Option<&Path>) -> io::Result<Zeroizing<Vec<u8>>> {
    let named = |error: io::Error| {
        io::Error::new(error.kind(), format!("passphrase file {}: {error}", path.display()))
    };
    let mut file = std::fs::File::open(path).map_err(named)?;
    let metadata = file.metadata().map_err(named)?;
    let is_credential = credentials.is_some_and(|folder| is_inside(path, folder));
    let (others, who) =
        if is_credential { (0o007, "everybody") } else { (0o077, "others than its owner") };
    if metadata.is_file() && metadata.mode() & others != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "passphrase file {path} can be used by {who}: run `chmod 600 {path}`",
                path = path.display()
            ),
        ));
    }
    read(&mut file, &format!("passphrase file {}", path.display()))
}

/// Whether a file is in a folder, links followed.
fn is_inside(path: &Path, folder: &Path) -> bool {
    match (path.canonicalize(), folder.canonicalize()) {
        (Ok(path), Ok(folder)) => path.starts_with(folder),
        _ => false,
    }
}

fn read(from: &mut dyn Read, name: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(PASSPHRASE_BYTES_MAX + 2));
    from.take(PASSPHRASE_BYTES_MAX as u64 + 2).read_to_end(&mut bytes)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() || bytes.len() > PASSPHRASE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{name} must hold 1 to {PASSPHRASE_BYTES_MAX} bytes"),
        ));
    }
    Ok(bytes)
}

/// The folder of systemd credentials, if the service has one.
pub(crate) fn credentials_folder() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY")
        .map(|folder: std::ffi::OsString| PathBuf::from(OsStr::from_bytes(folder.as_bytes())))
}

#[cfg(test)]
mod tests;
