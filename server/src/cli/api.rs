//! The command line's side of the API for tenants: signed calls of key verbs.
//!
//! Owns: the connection, the signature, and what a refusal looks like. Knows nothing of: what is
//! asked.
//!
//! Invariants
//! - The access key comes from the environment and not from an argument, which other users of the
//!   machine could read. Its secret is wiped when the client is dropped.
//! - An answer that is not JSON of a bounded size is an error, never an empty answer.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderName, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use kluis_kms::env::{Clock as _, SystemClock};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::{EXIT_COULD_NOT_RUN, EXIT_REFUSED, Failure};
use crate::auth::amz_date::AmzDate;
use crate::auth::canonical::{CanonicalParts, header_value};
use crate::auth::signing::{self, Scope, SigningKey};

/// The largest answer: a page of a thousand audit events has about 1 MiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Where systems keep the certificates they trust: Debian, Fedora, Alpine.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// Where the node's API for tenants is.
#[derive(Args)]
#[expect(clippy::struct_field_names, reason = "the names are those of the flags")]
pub(super) struct Endpoint {
    /// The node's address: `https://node.example:9000`.
    #[arg(long, value_name = "URL", env = "KLUIS_ENDPOINT")]
    pub(super) endpoint: Option<String>,
    /// The region that requests are signed for.
    #[arg(long, value_name = "NAME", env = "AWS_REGION", default_value = "us-east-1")]
    pub(super) region: String,
    /// Trusts the certificates in this file, in PEM, and no others.
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
}

/// Why a call got no answer that could be used.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The arguments or the environment do not say enough.
    Setup(String),
    /// The node said no: the error's name, and the message.
    Refused(String, String),
    /// There is no connection, it broke, or the answer is not understood.
    Broken(String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(what) => f.write_str(what),
            Self::Refused(name, message) if message.is_empty() => f.write_str(name),
            Self::Refused(name, message) => write!(f, "{name}: {message}"),
            Self::Broken(what) => write!(f, "talk to the node: {what}"),
        }
    }
}

impl std::error::Error for ApiError {}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let code = match &error {
            ApiError::Refused(..) => EXIT_REFUSED,
            ApiError::Setup(_) | ApiError::Broken(_) => EXIT_COULD_NOT_RUN,
        };
        Self { code, message: error.to_string() }
    }
}

fn broken(error: impl fmt::Display) -> ApiError {
    ApiError::Broken(error.to_string())
}

/// Who signs.
pub(super) struct AccessKey {
    pub(super) id: String,
    pub(super) secret: Zeroizing<String>,
}

impl AccessKey {
    /// The access key of the environment, under the names that AWS's tools use.
    fn of_environment() -> Result<Self, ApiError> {
        let variable = |name: &str| {
            std::env::var(name).ok().filter(|value| !value.is_empty()).ok_or_else(|| {
                ApiError::Setup(format!(
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to an access key of the \
                     tenant: {name} is not set"
                ))
            })
        };
        let secret = Zeroizing::new(variable("AWS_SECRET_ACCESS_KEY")?);
        Ok(Self { id: variable("AWS_ACCESS_KEY_ID")?, secret })
    }
}

/// A signing client of one node.
pub(super) struct Api {
    authority: Authority,
    tls: Option<TlsConnector>,
    region: String,
    access_key: AccessKey,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Endpoint {
    /// A client with the access key of the environment. Connects with the first call.
    pub(super) fn client(&self) -> Result<Api, ApiError> {
        self.client_of(AccessKey::of_environment()?)
    }

    /// A client with this access key.
    pub(super) fn client_of(&self, access_key: AccessKey) -> Result<Api, ApiError> {
        let text = self.endpoint.as_deref().ok_or_else(|| {
            ApiError::Setup("give the node's address with --endpoint or KLUIS_ENDPOINT".to_owned())
        })?;
        let wrong = || ApiError::Setup(format!("{text} is not an address like http://host:9000"));
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().filter(|it| !it.as_str().contains('@'));
        let authority = authority.cloned().ok_or_else(wrong)?;
        if !matches!(uri.path_and_query().map_or("/", |it| it.as_str()), "/" | "") {
            return Err(wrong());
        }
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => Some(connector(self.ca.as_deref())?),
            Some(scheme) if *scheme == Scheme::HTTP => None,
            _ => return Err(wrong()),
        };
        Ok(Api { authority, tls, region: self.region.clone(), access_key, sender: None })
    }
}

/// What speaks TLS with a node whose certificate is trusted.
fn connector(ca: Option<&Path>) -> Result<TlsConnector, ApiError> {
    let file = ca.map(Path::to_owned).or_else(|| {
        let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
        named.or_else(|| SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.exists()))
    });
    let file = file.ok_or_else(|| {
        ApiError::Setup("this system keeps no trusted certificates: give --ca FILE".to_owned())
    })?;
    let named = |error: &dyn fmt::Display| ApiError::Setup(format!("{}: {error}", file.display()));
    let certificates = CertificateDer::pem_file_iter(&file).map_err(|error| named(&error))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| named(&error))?;
        let added = roots.add(certificate);
        // A system's bundle may hold one that rustls does not take; a file that was given must not.
        if let (Err(error), Some(_)) = (added, ca) {
            return Err(named(&error));
        }
    }
    if roots.is_empty() {
        return Err(named(&"it holds no certificate"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| named(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Api {
    /// Calls a verb: `TrentService.ListKeys`, `KluisKms.StartRewrap`.
    pub(super) async fn call(&mut self, target: &str, input: &Value) -> Result<Value, ApiError> {
        let request = self.request(target, input)?;
        let mut sender = self.sender().await?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let bytes = body.collect().await.map_err(broken)?.to_bytes();
        self.sender = Some(sender);
        let parsed: Result<Value, _> = serde_json::from_slice(&bytes);
        if status.is_success() {
            // A verb without an answer may send no document at all.
            return if bytes.is_empty() { Ok(Value::Null) } else { parsed.map_err(broken) };
        }
        let answer = parsed.map_err(|_| broken(format!("it answered {status}")))?;
        let text = |names: &[&str]| {
            names.iter().find_map(|name| answer.get(*name)?.as_str()).unwrap_or_default().to_owned()
        };
        let name = text(&["__type", "code"]);
        let name = name.rsplit('#').next().unwrap_or_default().to_owned();
        let name = if name.is_empty() { status.to_string() } else { name };
        Err(ApiError::Refused(name, text(&["message", "Message"])))
    }

    /// A connection that takes a request.
    async fn sender(&mut self) -> Result<SendRequest<Full<Bytes>>, ApiError> {
        if let Some(mut sender) = self.sender.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = self.authority.port_u16();
        let port = port.unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let socket = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| broken(format!("connect to {}: {error}", self.authority)))?;
        let Some(tls) = &self.tls else {
            let (sender, connection) =
                http1::handshake(TokioIo::new(socket)).await.map_err(broken)?;
            tokio::spawn(connection);
            return Ok(sender);
        };
        let name = ServerName::try_from(host).map_err(broken)?;
        let socket = tls
            .connect(name, socket)
            .await
            .map_err(|error| broken(format!("TLS with {}: {error}", self.authority)))?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(broken)?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// The signed request.
    fn request(&self, target: &str, input: &Value) -> Result<Request<Full<Bytes>>, ApiError> {
        let body = serde_json::to_vec(input).map_err(broken)?;
        let date = AmzDate::from_unix_ms(SystemClock.now_ms());
        let value = |text: &str| HeaderValue::from_str(text).map_err(broken);
        let mut request = Request::post("/").body(Full::default()).map_err(broken)?;
        let headers = request.headers_mut();
        headers.insert(HOST, value(self.authority.as_str())?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        headers.insert(TARGET, value(target)?);
        headers.insert(DATE, value(&date.basic())?);
        // Sorted, as the canonical form has them.
        let names = [CONTENT_TYPE, HOST, DATE, TARGET];
        let signed = names.iter().filter_map(|name| {
            header_value(headers, None, name.as_str()).map(|value| (name.as_str(), value))
        });
        let payload = signing::sha256_hex(&body);
        let canonical = CanonicalParts {
            method: "POST",
            query: Vec::new(),
            headers: signed.collect(),
            payload: &payload,
        };
        let scope =
            Scope { day: date.day(), region: self.region.clone(), service: "kms".to_owned() };
        let to_sign = signing::string_to_sign(date, &scope, &canonical.with_path(b"/"));
        let signing_key = SigningKey::derive(self.access_key.secret.as_bytes(), &scope);
        let authorization = format!(
            "{} Credential={}/{}, SignedHeaders=content-type;host;x-amz-date;x-amz-target, \
             Signature={}",
            signing::ALGORITHM,
            self.access_key.id,
            scope.text(),
            signing_key.sign(&to_sign)
        );
        request.headers_mut().insert(AUTHORIZATION, value(&authorization)?);
        *request.body_mut() = Full::from(body);
        Ok(request)
    }
}

#[cfg(test)]
pub(super) mod tests;
