//! Certificates: replaced while running, never by a broken one.

use std::path::Path;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

// Self-signed certificates for `localhost`, made for these tests; they end in a hundred years.
pub(crate) const FIRST: (&str, &str) =
    (include_str!("first.cert.pem"), include_str!("first.key.pem"));
const SECOND: (&str, &str) = (include_str!("second.cert.pem"), include_str!("second.key.pem"));

pub(crate) fn write_files(folder: &Path, pair: (&str, &str)) -> TlsFiles {
    let files = TlsFiles {
        certificate: folder.join("cert.pem"),
        private_key: folder.join("key.pem"),
        client_ca: None,
    };
    std::fs::write(&files.certificate, pair.0).unwrap();
    std::fs::write(&files.private_key, pair.1).unwrap();
    files
}

/// A client that trusts `certificate` only.
pub(crate) fn connector(certificate: &str) -> tokio_rustls::TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(certificate.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

async fn handshake(tls: &Tls, trusted: &str) -> io::Result<()> {
    let (client, server) = tokio::io::duplex(16 << 10);
    let acceptor = tls.acceptor();
    let server = tokio::spawn(async move {
        let mut socket = acceptor.accept(server).await?;
        socket.write_all(b"x").await?;
        socket.shutdown().await
    });
    let name = ServerName::try_from("localhost").unwrap();
    let mut socket = connector(trusted).connect(name, client).await?;
    let mut byte = [0; 1];
    socket.read_exact(&mut byte).await?;
    drop(socket);
    let _ = server.await.unwrap();
    Ok(())
}

#[tokio::test]
async fn a_reload_shows_the_new_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::open(write_files(folder.path(), FIRST)).unwrap();
    handshake(&tls, FIRST.0).await.unwrap();
    write_files(folder.path(), SECOND);
    tls.reload();
    handshake(&tls, SECOND.0).await.unwrap();
    handshake(&tls, FIRST.0).await.unwrap_err();
}

#[tokio::test]
async fn a_broken_certificate_does_not_replace_a_working_one() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::open(write_files(folder.path(), FIRST)).unwrap();
    // Half of a renewal: the certificate is there, its private key is not yet.
    for pair in [(SECOND.0, FIRST.1), ("not a certificate", FIRST.1), (FIRST.0, "")] {
        write_files(folder.path(), pair);
        tls.reload();
        handshake(&tls, FIRST.0).await.unwrap();
    }
}

#[tokio::test]
async fn changed_files_are_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::open(write_files(folder.path(), FIRST)).unwrap();
    let follower = tokio::spawn(Arc::clone(&tls).follow(Duration::from_millis(10)));
    tokio::task::yield_now().await;
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    let files = write_files(folder.path(), SECOND);
    std::fs::File::open(&files.certificate).unwrap().set_modified(long_ago).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    handshake(&tls, SECOND.0).await.unwrap();
    follower.abort();
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = write_files(folder.path(), FIRST);
    files.private_key = folder.path().join("absent.pem");
    let error = Tls::open(files).err().unwrap().to_string();
    assert!(error.contains("absent.pem"), "{error}");
}
