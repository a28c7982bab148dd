//! The digests that S3 asks for: MD5, CRC32, CRC32C, CRC64NVME, SHA-1 and SHA-256 of plaintext.
//!
//! Owns: computing them in one pass, joining those of parts. Knows nothing of: headers, base64.
//! None of them protects anything at rest; they are only ever stored sealed (docs/FORMAT.md,
//! "Manifest"), because a digest in clear confirms a file's contents.
//!
//! Source: AWS, "Checking object integrity in Amazon S3".

use crc_fast::{CrcAlgorithm, checksum_combine};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// A digest algorithm. The numbers are the `alg` byte of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChecksumAlgorithm {
    /// MD5, of Content-MD5 and of old ETags.
    Md5 = 1,
    /// CRC-32 (ISO-HDLC).
    Crc32 = 2,
    /// CRC-32C (iSCSI).
    Crc32c = 3,
    /// CRC-64/NVME.
    Crc64Nvme = 4,
    /// SHA-1.
    Sha1 = 5,
    /// SHA-256.
    Sha256 = 6,
}

impl ChecksumAlgorithm {
    /// Every algorithm, by number.
    pub const ALL: [Self; 6] =
        [Self::Md5, Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// The algorithm of a manifest's `alg` byte.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| *algorithm as u8 == byte)
    }

    /// Bytes of its value.
    pub fn value_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    fn crc(self) -> Option<CrcAlgorithm> {
        match self {
            Self::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
            Self::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
            Self::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
            Self::Md5 | Self::Sha1 | Self::Sha256 => None,
        }
    }
}

/// A digest's value, as big-endian bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Checksum {
    /// Which digest.
    pub algorithm: ChecksumAlgorithm,
    /// Its value, [`ChecksumAlgorithm::value_bytes`] long.
    pub value: Vec<u8>,
}

// A digest confirms a file's contents, so it does not belong in a log.
impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checksum({:?})", self.algorithm)
    }
}

/// What an object's checksum is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumType {
    /// The object's bytes.
    #[default]
    FullObject,
    /// The checksums of its parts, one after the other.
    Composite,
}

enum State {
    Crc(crc_fast::Digest),
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
}

/// Several digests of one body, in one pass.
pub struct Digester(Vec<(ChecksumAlgorithm, State)>);

impl Digester {
    /// A digester of `algorithms`; one named twice counts once.
    pub fn new(algorithms: &[ChecksumAlgorithm]) -> Self {
        let mut wanted = algorithms.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let state = |algorithm: ChecksumAlgorithm| match algorithm {
            ChecksumAlgorithm::Md5 => State::Md5(Md5::new()),
            ChecksumAlgorithm::Sha1 => State::Sha1(Sha1::new()),
            ChecksumAlgorithm::Sha256 => State::Sha256(Sha256::new()),
            ChecksumAlgorithm::Crc32 => {
                State::Crc(crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc))
            }
            ChecksumAlgorithm::Crc32c => {
                State::Crc(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi))
            }
            ChecksumAlgorithm::Crc64Nvme => {
                State::Crc(crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme))
            }
        };
        Self(wanted.into_iter().map(|algorithm| (algorithm, state(algorithm))).collect())
    }

    /// Takes the next bytes of the body.
    pub fn update(&mut self, bytes: &[u8]) {
        for (_, state) in &mut self.0 {
            match state {
                State::Crc(digest) => digest.update(bytes),
                State::Md5(digest) => digest.update(bytes),
                State::Sha1(digest) => digest.update(bytes),
                State::Sha256(digest) => digest.update(bytes),
            }
        }
    }

    /// The values, by algorithm number.
    pub fn finish(self) -> Vec<Checksum> {
        let value = |algorithm: ChecksumAlgorithm, state| match state {
            State::Crc(digest) => crc_bytes(algorithm, digest.finalize()),
            State::Md5(digest) => digest.finalize().to_vec(),
            State::Sha1(digest) => digest.finalize().to_vec(),
            State::Sha256(digest) => digest.finalize().to_vec(),
        };
        self.0
            .into_iter()
            .map(|(algorithm, state)| Checksum { algorithm, value: value(algorithm, state) })
            .collect()
    }
}

fn crc_bytes(algorithm: ChecksumAlgorithm, crc: u64) -> Vec<u8> {
    let bytes = crc.to_be_bytes();
    let skip = bytes.len() - algorithm.value_bytes();
    bytes.get(skip..).unwrap_or_default().to_vec()
}

fn crc_value(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) | u64::from(*byte))
}

/// The checksum of an object from those of its parts, each with the part's size.
///
/// # Errors
/// [`ErrorKind::Misuse`]: `FullObject` with an algorithm that cannot be joined (only CRCs can), or
/// a part with another algorithm.
pub fn join(
    algorithm: ChecksumAlgorithm,
    checksum_type: ChecksumType,
    parts: &[(Checksum, u64)],
) -> Result<Checksum> {
    let misuse = |what: &str| Error::new(ErrorKind::Misuse, format!("join checksums: {what}"));
    if parts.iter().any(|(checksum, _)| checksum.algorithm != algorithm) {
        return Err(misuse("a part has another algorithm"));
    }
    if checksum_type == ChecksumType::Composite {
        let mut digester = Digester::new(&[algorithm]);
        for (checksum, _) in parts {
            digester.update(&checksum.value);
        }
        return digester.finish().pop().ok_or_else(|| misuse("no algorithm"));
    }
    let crc = algorithm.crc().ok_or_else(|| misuse("only CRCs join over the whole object"))?;
    let joined = parts
        .iter()
        .map(|(checksum, size)| (crc_value(&checksum.value), *size))
        .reduce(|(left, left_size), (right, right_size)| {
            (checksum_combine(crc, left, right, right_size), left_size + right_size)
        })
        .map_or(0, |(value, _)| value);
    Ok(Checksum { algorithm, value: crc_bytes(algorithm, joined) })
}

#[cfg(test)]
mod tests;
