//! Request → [`Caller`]: Signature Version 4 by header and by query, and what the body has to be.
//!
//! Owns: the order of the checks, and the payload forms. The steps are in [`super::claim`] (form,
//! scope, time, coverage), [`super::canonical`] (signed bytes), [`super::creds`] (secrets).
//! Knows nothing of: buckets, rights, the body's bytes.
//!
//! Invariants
//! - A caller is [`Caller::User`] only if the signature of the whole head was verified with a
//!   secret of that user, whose access key and tenant were in force when it was looked up.
//! - A revoked access key answers as one that never was. That a tenant is suspended is told only to
//!   who signed with one of its access keys.
//!
//! The holes of other implementations that this closes: docs/THREATS.md, "Holes that others
//! had".

use std::sync::Arc;

use http::request::Parts;
use kluis_kms::env::Clock;
use sha2::{Digest as _, Sha256};

use super::Caller;
use super::amz_date::AmzDate;
use super::canonical::{self, CanonicalParts, QueryParams};
use super::claim::{self, Claim, Expectation, SignedClaim};
use super::creds::{Credential, Directory};
use super::refusal::{self, Place};
use super::signing::{self, ChunkChain, SigningKey};
use crate::body::{BodyPlan, PayloadForm};
use crate::error::ApiError;

/// The service that a request is for: a signature for one is worth nothing at another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// AWS KMS JSON 1.1.
    Kms,
    /// S3.
    S3,
    /// Temporary credentials.
    #[cfg_attr(not(test), expect(dead_code, reason = "checked in tests; not served so far"))]
    Sts,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Kms => "kms",
            Self::S3 => "s3",
            Self::Sts => "sts",
        }
    }
}

/// An authenticated request.
pub(crate) struct Verified {
    /// Who sent it.
    pub(crate) caller: Caller,
    /// How to read and check its body.
    pub(crate) plan: BodyPlan,
}

/// Verifies requests against the directory.
pub(crate) struct Authenticator {
    directory: Directory,
    region: String,
    clock: Arc<dyn Clock>,
}

/// A claim that turned out true.
struct Proof {
    credential: Arc<Credential>,
    signing_key: SigningKey,
    claim: SignedClaim,
}

impl Authenticator {
    /// An authenticator for the node's region.
    pub(crate) fn new(
        directory: Directory,
        region: impl Into<String>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { directory, region: region.into(), clock }
    }

    /// Verifies the head of an S3 request. Nothing of the body has been read by then; the plan in
    /// the answer checks it as it is read.
    pub(crate) fn authenticate(&self, parts: &Parts) -> Result<Verified, ApiError> {
        let query = QueryParams::parse(parts.uri.query());
        let claim = claim::read(parts, &query, self.expectation(Service::S3))?;
        let claim = match claim {
            Claim::Anonymous => {
                let form = anonymous_form(parts)?;
                let plan = BodyPlan::new(parts, None, form, None)?;
                return Ok(Verified { caller: Caller::Anonymous, plan });
            }
            Claim::Signed(claim) => claim,
        };
        let presigned = claim.place == Place::Query;
        let payload = payload_text(parts, &query, claim.place)?;
        let form = PayloadForm::parse(&payload)?;
        let proof = self.prove(parts, &query, claim, &payload)?;
        let chain = form.is_signed_chunks().then(|| {
            let claim = &proof.claim;
            ChunkChain::new(proof.signing_key.clone(), claim.date, &claim.scope, &claim.signature)
        });
        let plan = BodyPlan::new(parts, presigned.then_some(&query), form, chain)?;
        Ok(Verified { caller: Caller::User(Arc::clone(proof.credential.user())), plan })
    }

    /// Verifies a request to a service whose clients sign the body's hash without sending it, and
    /// whose bodies are small enough to be in memory by now.
    pub(crate) fn authenticate_buffered(
        &self,
        parts: &Parts,
        service: Service,
        body: &[u8],
    ) -> Result<Arc<super::User>, ApiError> {
        let query = QueryParams::parse(parts.uri.query());
        match claim::read(parts, &query, self.expectation(service))? {
            Claim::Anonymous => Err(refusal::missing_token()),
            Claim::Signed(claim) => {
                let payload = signing::hex(&Sha256::digest(body));
                let proof = self.prove(parts, &query, claim, &payload)?;
                Ok(Arc::clone(proof.credential.user()))
            }
        }
    }

    /// Checks what a request says of its sender, as far as that needs neither its body nor a
    /// secret: form, scope, time, signed headers, and that the access key exists.
    pub(crate) fn check_claim(&self, parts: &Parts, service: Service) -> Result<(), ApiError> {
        let query = QueryParams::parse(parts.uri.query());
        match claim::read(parts, &query, self.expectation(service))? {
            Claim::Anonymous => Err(refusal::missing_token()),
            Claim::Signed(claim) => self.credential(&claim.access_key_id).map(|_| ()),
        }
    }

    fn credential(&self, access_key_id: &str) -> Result<Arc<Credential>, ApiError> {
        self.directory
            .lookup(access_key_id)
            .map_err(|error| {
                tracing::error!(%error, "an access key could not be looked up");
                refusal::unavailable()
            })?
            .ok_or_else(|| refusal::unknown_access_key(access_key_id))
    }

    fn expectation(&self, service: Service) -> Expectation<'_> {
        let now = AmzDate::from_unix_ms(self.clock.now_ms());
        Expectation { region: &self.region, service: service.name(), now }
    }

    /// Looks the access key up and compares the signature.
    fn prove(
        &self,
        parts: &Parts,
        query: &QueryParams,
        claim: SignedClaim,
        payload: &str,
    ) -> Result<Proof, ApiError> {
        let canonical = canonical_parts(parts, query, &claim, payload)?;
        let credential = self.credential(&claim.access_key_id)?;
        let signing_key = credential.signing_key(&claim.scope);
        let raw_path = parts.uri.path();
        let request = canonical.with_path(&canonical::path(raw_path));
        let to_sign = signing::string_to_sign(claim.date, &claim.scope, &request);
        // Some clients sign the path as they send it, reserved characters and all. Either form
        // names the same object, so accepting both gives nothing away.
        let as_sent = || {
            let request = canonical.with_path(raw_path.as_bytes());
            let to_sign = signing::string_to_sign(claim.date, &claim.scope, &request);
            signing_key.verify(&to_sign, claim.signature.as_bytes())
        };
        if !signing_key.verify(&to_sign, claim.signature.as_bytes()) && !as_sent() {
            let (id, signature) = (&claim.access_key_id, &claim.signature);
            let shown = (!holds_secret(&claim.signed_headers, query)).then_some(request.as_slice());
            return Err(refusal::signature_mismatch(id, signature, &to_sign, shown));
        }
        if credential.is_suspended() {
            return Err(refusal::suspended());
        }
        credential.keep_signing_key(&claim.scope, &signing_key);
        Ok(Proof { credential, signing_key, claim })
    }
}

/// Whether a signed header carries a key, or a query field to which a presigner moved one: those of
/// SSE-C do. It must not get into an answer, which others may keep.
fn holds_secret(signed_headers: &[String], query: &QueryParams) -> bool {
    const NAME_END: &[u8] = b"-customer-key";
    let in_query = |(name, _): (&[u8], &[u8])| name.to_ascii_lowercase().ends_with(NAME_END);
    signed_headers.iter().any(|name| name.as_bytes().ends_with(NAME_END))
        || query.iter().any(in_query)
}

fn canonical_parts<'a>(
    parts: &'a Parts,
    query: &QueryParams,
    claim: &'a SignedClaim,
    payload: &'a str,
) -> Result<CanonicalParts<'a>, ApiError> {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let mut headers = Vec::with_capacity(claim.signed_headers.len());
    for name in &claim.signed_headers {
        let value = canonical::header_value(&parts.headers, authority, name)
            .ok_or_else(|| refusal::missing_security_header(name))?;
        headers.push((name.as_str(), value));
    }
    let left_out = (claim.place == Place::Query).then_some("X-Amz-Signature");
    Ok(CanonicalParts {
        method: parts.method.as_str(),
        query: query.canonical(left_out),
        headers,
        payload,
    })
}

/// The last line of the canonical request. A presigned URL may leave it out.
fn payload_text(parts: &Parts, query: &QueryParams, place: Place) -> Result<String, ApiError> {
    let header = header_payload(parts)?;
    let in_query =
        query.single("X-Amz-Content-Sha256").map_err(|()| refusal::query_incomplete())?;
    let hoisted = in_query.and_then(|value| std::str::from_utf8(value).ok());
    match (header, place) {
        (Some(text), _) => Ok(text.to_owned()),
        (None, Place::Query) => Ok(hoisted.unwrap_or("UNSIGNED-PAYLOAD").to_owned()),
        (None, Place::Header) => Err(refusal::missing_payload_hash()),
    }
}

fn header_payload(parts: &Parts) -> Result<Option<&str>, ApiError> {
    let mut values = parts.headers.get_all("x-amz-content-sha256").iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => match value.to_str() {
            Ok(text) => Ok(Some(text.trim())),
            Err(_) => Err(crate::body::invalid_payload_form("")),
        },
        (Some(_), Some(_)) => Err(crate::body::invalid_payload_form("")),
    }
}

/// Without a signature there is no seed for a chain of them.
fn anonymous_form(parts: &Parts) -> Result<PayloadForm, ApiError> {
    let form = header_payload(parts)?.map_or(Ok(PayloadForm::Unsigned), PayloadForm::parse)?;
    if form.is_signed_chunks() {
        return Err(ApiError::new(
            http::StatusCode::BAD_REQUEST,
            "InvalidRequest",
            "Anonymous requests don't support this x-amz-content-sha256 value. Please use \
             UNSIGNED-PAYLOAD or STREAMING-UNSIGNED-PAYLOAD-TRAILER.",
        ));
    }
    Ok(form)
}

#[cfg(test)]
mod tests;
