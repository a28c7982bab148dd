//! A client that signs, for tests.

use http::request::Parts;
use http::{HeaderName, HeaderValue, Request};

use super::amz_date::AmzDate;
use super::canonical::{self, CanonicalParts, QueryParams};
use super::signing::{self, ChunkChain, Scope, SigningKey};

/// The access key of AWS's examples.
pub(crate) const EXAMPLE_ID: &str = "AKIAIOSFODNN7EXAMPLE";
/// The secret of AWS's examples.
pub(crate) const EXAMPLE_SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// SHA-256 of nothing.
pub(crate) const EMPTY_SHA256: &str =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
/// 2013-05-24T00:00:00Z, the time of AWS's examples.
pub(crate) const EXAMPLE_MS: u64 = 1_369_353_600_000;

/// The head of a request.
pub(crate) fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// Sets a header.
pub(crate) fn set(parts: &mut Parts, name: &str, value: &str) {
    let name: HeaderName = name.parse().unwrap();
    parts.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
}

/// Who signs what, when.
#[derive(Clone)]
pub(crate) struct Signer {
    pub(crate) access_key_id: String,
    pub(crate) secret: String,
    pub(crate) scope: Scope,
    pub(crate) date: AmzDate,
    /// Sign the path as it is, without encoding what should have been.
    pub(crate) path_as_sent: bool,
}

impl Signer {
    /// The signer of AWS's examples.
    pub(crate) fn example() -> Self {
        Self::new(EXAMPLE_ID, EXAMPLE_SECRET)
    }

    /// A signer at the time of the examples.
    pub(crate) fn new(access_key_id: &str, secret: &str) -> Self {
        let date = AmzDate::from_unix_ms(EXAMPLE_MS);
        let scope =
            Scope { day: date.day(), region: "us-east-1".to_owned(), service: "s3".to_owned() };
        let (access_key_id, secret) = (access_key_id.to_owned(), secret.to_owned());
        Self { access_key_id, secret, scope, date, path_as_sent: false }
    }

    fn signing_key(&self) -> SigningKey {
        SigningKey::derive(self.secret.as_bytes(), &self.scope)
    }

    fn signature(&self, parts: &Parts, names: &[String], payload: &str) -> String {
        let value = |name| canonical::header_value(&parts.headers, None, name).unwrap();
        let canonical = CanonicalParts {
            method: parts.method.as_str(),
            query: QueryParams::parse(parts.uri.query()).canonical(Some("X-Amz-Signature")),
            headers: names.iter().map(|name| (name.as_str(), value(name))).collect(),
            payload,
        };
        let path = if self.path_as_sent {
            parts.uri.path().as_bytes().to_vec()
        } else {
            canonical::path(parts.uri.path())
        };
        let request = canonical.with_path(&path);
        let to_sign = signing::string_to_sign(self.date, &self.scope, &request);
        self.signing_key().sign_for_test(&to_sign)
    }

    fn names(parts: &Parts) -> Vec<String> {
        let mut names: Vec<String> = parts.headers.keys().map(ToString::to_string).collect();
        names.retain(|name| name != "authorization");
        names.sort();
        names
    }

    /// Signs every header of the request, and adds `Authorization`. Gives the signature.
    pub(crate) fn sign(&self, parts: &mut Parts, payload: &str) -> String {
        set(parts, "x-amz-date", &self.date.basic());
        if self.scope.service == "s3" {
            set(parts, "x-amz-content-sha256", payload);
        }
        let names = Self::names(parts);
        let signature = self.signature(parts, &names, payload);
        let text = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={signature}",
            self.access_key_id,
            self.scope.text(),
            names.join(";"),
        );
        set(parts, "authorization", &text);
        signature
    }

    /// Makes the request a presigned URL with every header it has by now signed.
    pub(crate) fn presign(&self, parts: &mut Parts, expires: &str, payload: &str) -> String {
        let names = Self::names(parts);
        let credential = format!("{}/{}", self.access_key_id, self.scope.text());
        let query = format!(
            "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={}\
             &X-Amz-Expires={expires}\
             &X-Amz-SignedHeaders={}",
            credential.replace('/', "%2F"),
            self.date.basic(),
            names.join("%3B"),
        );
        let before = parts.uri.query().map(|query| format!("{query}&")).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        parts.uri = format!("{path}?{before}{query}").parse().unwrap();
        let signature = self.signature(parts, &names, payload);
        parts.uri = format!("{path}?{before}{query}&X-Amz-Signature={signature}").parse().unwrap();
        signature
    }

    /// The chain of chunk signatures behind a request's signature.
    pub(crate) fn chain(&self, signature: &str) -> ChunkChain {
        ChunkChain::new(self.signing_key(), self.date, &self.scope, signature)
    }
}

/// Runs a future to its end.
pub(crate) fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
