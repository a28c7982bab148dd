//! Blocking HTTP/1.1 to a key store, with one deadline for a whole call.
//!
//! Owns: which addresses are talked to at all, TLS roots, limits on answers. Knows nothing of: what
//! is asked and answered.
//!
//! Invariants
//! - In clear only to loopback; else TLS, and only under the certificates of the given file.
//! - No redirect is followed, no proxy used, no answer read past [`ANSWER_BYTES_MAX`].
//! - Bodies, which may hold a secret, are wiped by their owners here; what the HTTP and TLS crates
//!   buffer is not.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ureq::http::{Method, Request, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// Longest answer read: a blob in base64 and its frame take a tenth.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Longest file of certificates.
const CA_BYTES_MAX: u64 = 1 << 20;

/// One store's address.
pub(super) struct HttpClient {
    agent: ureq::Agent,
    base: String,
    host: String,
}

/// What a store answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// One request.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    /// Begins with a slash; behind the path of the base.
    pub(super) path: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
    pub(super) body: &'a [u8],
}

impl HttpClient {
    /// A client of the store at `url`; nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`]: the URL is none, or in clear over a network.
    /// [`ErrorKind::Unavailable`]: the file of certificates cannot be read.
    pub(super) fn new(url: &str, ca_file: Option<&Path>, timeout: Duration) -> Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|_| refused(url, "it is not a URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(refused(url, "it has no scheme or no host"));
        };
        if uri.query().is_some() || authority.as_str().contains('@') {
            return Err(refused(url, "it has a query or a user"));
        }
        let tls = match (scheme, ca_file) {
            ("https", Some(file)) => tls_config(file)?,
            ("https", None) => return Err(refused(url, "https needs `ca_file`")),
            ("http", _) if is_loopback(authority.host()) => TlsConfig::default(),
            ("http", _) => return Err(refused(url, "http is for loopback addresses only")),
            _ => return Err(refused(url, "it is neither http nor https")),
        };
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(tls)
            .timeout_global(Some(timeout))
            .user_agent(concat!("kluis/", env!("CARGO_PKG_VERSION")));
        let host = authority.as_str().to_owned();
        Ok(Self { agent: config.build().new_agent(), base, host })
    }

    /// The value of the `host` header.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The path of the base, without a slash at its end.
    pub(super) fn base_path(&self) -> &str {
        let after_scheme = self.base.split_once("://").map_or("", |(_, rest)| rest);
        after_scheme.find('/').and_then(|slash| after_scheme.get(slash..)).unwrap_or("")
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]: no answer in time, or not a whole one.
    pub(super) fn ask(&self, question: &Question<'_>) -> Result<Answer> {
        let url = format!("{}{}", self.base, question.path);
        let failed = |cause: String| {
            Error::new(ErrorKind::Unavailable, format!("ask the key store at {}", self.host))
                .with_source(cause)
        };
        let mut request = Request::builder().method(&question.method).uri(url);
        for (name, value) in question.headers {
            request = request.header(*name, *value);
        }
        let request = request.body(question.body).map_err(|error| failed(error.to_string()))?;
        let response = self.agent.run(request).map_err(|error| failed(error.to_string()))?;
        let status = response.status().as_u16();
        // Room for all of it at once, so that growing leaves no copy of a secret behind.
        let mut body = Zeroizing::new(Vec::with_capacity(ANSWER_BYTES_MAX));
        let limit = ANSWER_BYTES_MAX as u64;
        let mut reader = response.into_body().into_with_config().limit(limit).reader();
        reader.read_to_end(&mut body).map_err(|error| failed(error.to_string()))?;
        Ok(Answer { status, body })
    }
}

fn refused(url: &str, why: &str) -> Error {
    Error::new(ErrorKind::Refused, format!("take {url} as the URL of a key store: {why}"))
        .with_advice("give an https URL with `ca_file`, or an http URL of this machine")
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn tls_config(ca_file: &Path) -> Result<TlsConfig> {
    let failed = |cause: String| {
        let during = format!("read certificates from {}", ca_file.display());
        Error::new(ErrorKind::Unavailable, during).with_source(cause)
    };
    let file = std::fs::File::open(ca_file).map_err(|error| failed(error.to_string()))?;
    let mut pem = Vec::new();
    file.take(CA_BYTES_MAX).read_to_end(&mut pem).map_err(|error| failed(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| failed(e.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(failed("it holds no certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::new_with_certs(&certificates))
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

#[cfg(test)]
mod tests;
