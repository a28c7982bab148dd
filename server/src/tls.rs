//! TLS by rustls with aws-lc-rs, and certificates that are read again while the node runs.
//!
//! Owns: certificate files and the server configuration made from them. Knows nothing of: who
//! connects, HTTP.
//!
//! Invariants
//! - A certificate that cannot be read, or does not fit its private key, never replaces one that
//!   works; the failure is logged.
//! - Open connections keep the certificate they were opened under.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use std::{fmt, io};

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// How often the files are to be looked at. Certificates are renewed days before they end.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The files of one listener.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    /// The certificate chain, PEM.
    pub(crate) certificate: PathBuf,
    /// Its private key, PEM.
    pub(crate) private_key: PathBuf,
    /// If set, clients must show a certificate signed by one of these.
    pub(crate) client_ca: Option<PathBuf>,
}

/// Why TLS cannot start.
#[derive(Debug)]
pub(crate) struct TlsError(String);

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// When a file was last changed, as far as the file system tells.
type Stamp = Option<(std::time::SystemTime, u64)>;

/// The TLS side of a listener.
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the file, and what is wrong with it.
    pub(crate) fn open(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let config = read(&files)?;
        Ok(Arc::new(Self { files, current: RwLock::new(config) }))
    }

    /// What accepts a connection now.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }

    /// Reads the files again; keeps what it has if they are not right.
    pub(crate) fn reload(&self) {
        match read(&self.files) {
            Ok(config) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                tracing::info!(file = %self.files.certificate.display(), "certificate read again");
            }
            Err(error) => tracing::error!(
                %error,
                "certificate not replaced; connections go on with the one in use"
            ),
        }
    }

    /// Looks at the files every `interval` and reads them again when they have changed. Never
    /// returns.
    pub(crate) async fn follow(self: Arc<Self>, interval: Duration) {
        let mut seen = self.stamps();
        loop {
            tokio::time::sleep(interval).await;
            let now = self.stamps();
            if now != seen {
                self.reload();
                seen = now;
            }
        }
    }

    fn stamps(&self) -> Vec<Stamp> {
        let files = [Some(&self.files.certificate), Some(&self.files.private_key)];
        files
            .into_iter()
            .chain([self.files.client_ca.as_ref()])
            .flatten()
            .map(|file| {
                let metadata = std::fs::metadata(file).ok()?;
                Some((metadata.modified().ok()?, metadata.len()))
            })
            .collect()
    }
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let named =
        |path: &PathBuf, error: &dyn fmt::Display| TlsError(format!("{}: {error}", path.display()));
    let chain = certificates(&files.certificate)?;
    let private_key = PrivateKeyDer::from_pem_file(&files.private_key)
        .map_err(|error| named(&files.private_key, &error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError(error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| named(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| named(path, &error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, private_key)
        .map_err(|error| named(&files.certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let named = |error: &dyn fmt::Display| TlsError(format!("{}: {error}", path.display()));
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|error| named(&error))?
        .collect::<Result<_, _>>()
        .map_err(|error| named(&error))?;
    if chain.is_empty() {
        return Err(named(&io::Error::other("holds no certificate")));
    }
    Ok(chain)
}

#[cfg(test)]
pub(crate) mod tests;
