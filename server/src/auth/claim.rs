//! What a request says about who sent it, before anything is believed.
//!
//! Owns: reading the `Authorization` header and the parameters of a presigned URL, and the checks
//! that need no secret: form, scope, time, which headers are signed. Pure.
//! Knows nothing of: access keys that exist, bodies.
//!
//! Invariants
//! - A [`Claim::Signed`] has a scope of this node's region and service, a time within bounds, and
//!   covers `host` and every `x-amz-*` and `x-kluis-*` header of its request: none of them takes
//!   effect unsigned.
//! - Signature Version 2 and session tokens are refused, never ignored.
//!
//! Sources: AWS, "Authenticating Requests: Using the Authorization Header"; "… Using Query
//! Parameters".

use http::request::Parts;

use super::amz_date::{self, AmzDate};
use super::canonical::QueryParams;
use super::refusal::{self, Place};
use super::signing::{ALGORITHM, Scope, TERMINAL};
use crate::error::ApiError;

/// The parameters that make a presigned URL of Signature Version 4.
const QUERY_NAMES: [&str; 6] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];
/// The longest access key id that is looked up (AWS IAM: 16 to 128 characters).
const ACCESS_KEY_ID_BYTES_MAX: usize = 128;

/// A request's statement about its sender.
#[derive(Debug)]
pub(crate) enum Claim {
    /// It makes none.
    Anonymous,
    /// It is signed; whether by the one it names is still open.
    Signed(SignedClaim),
}

/// Everything a signature's check needs but the secret.
#[derive(Debug)]
pub(crate) struct SignedClaim {
    /// Where the signature was.
    pub(crate) place: Place,
    /// Who is said to have signed.
    pub(crate) access_key_id: String,
    /// For what.
    pub(crate) scope: Scope,
    /// When.
    pub(crate) date: AmzDate,
    /// Lower-case names of the signed headers, sorted, each once.
    pub(crate) signed_headers: Vec<String>,
    /// The signature, as sent.
    pub(crate) signature: String,
}

/// What this node expects of a scope, and its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expectation<'a> {
    /// The node's region.
    pub(crate) region: &'a str,
    /// The service that was asked.
    pub(crate) service: &'a str,
    /// The time.
    pub(crate) now: AmzDate,
}

/// Reads the claim of a request.
pub(crate) fn read(
    parts: &Parts,
    query: &QueryParams,
    expected: Expectation<'_>,
) -> Result<Claim, ApiError> {
    let authorization = authorization(parts)?;
    let presigned = QUERY_NAMES.iter().any(|name| query.has(name));
    let claim = match (authorization, presigned) {
        (Some(text), true) => return Err(refusal::two_mechanisms(text)),
        (Some(text), false) => from_header(parts, text, expected)?,
        (None, true) => from_query(query, expected)?,
        (None, false) if query.has("AWSAccessKeyId") || query.has("Signature") => {
            return Err(refusal::unsupported_mechanism());
        }
        (None, false) => return Ok(Claim::Anonymous),
    };
    let token = "X-Amz-Security-Token";
    if parts.headers.contains_key("x-amz-security-token") || query.has(token) {
        return Err(refusal::invalid_token());
    }
    check_coverage(parts, &claim.signed_headers)?;
    Ok(Claim::Signed(claim))
}

/// The one `Authorization` header; an empty one counts as none.
fn authorization(parts: &Parts) -> Result<Option<&str>, ApiError> {
    let mut values = parts.headers.get_all(http::header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let malformed = || {
        let message = "Authorization header is invalid -- one and only one ' ' (space) required";
        refusal::invalid_argument(message, "Authorization", "")
    };
    if values.next().is_some() {
        return Err(malformed());
    }
    let text = value.to_str().map_err(|_| malformed())?.trim();
    Ok((!text.is_empty()).then_some(text))
}

fn from_header(
    parts: &Parts,
    text: &str,
    expected: Expectation<'_>,
) -> Result<SignedClaim, ApiError> {
    let (algorithm, rest) = text.split_once(' ').unwrap_or((text, ""));
    match algorithm {
        ALGORITHM => {}
        "AWS" | "AWS4-ECDSA-P256-SHA256" => return Err(refusal::unsupported_mechanism()),
        _ => {
            let message = "Unsupported Authorization Type";
            return Err(refusal::invalid_argument(message, "Authorization", algorithm));
        }
    }
    let components = Components::read(rest)?;
    let credential = Credential::read(components.credential, Place::Header)?;
    let (date, date_text) = header_date(parts)?;
    check_skew(date, date_text, expected.now)?;
    let scope = credential.check(Place::Header, date, expected)?;
    Ok(SignedClaim {
        place: Place::Header,
        access_key_id: credential.access_key_id.to_owned(),
        scope,
        date,
        signed_headers: signed_headers(components.signed_headers),
        signature: components.signature.to_owned(),
    })
}

/// The three components of an `Authorization` header.
struct Components<'a> {
    credential: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Components<'a> {
    fn read(text: &'a str) -> Result<Self, ApiError> {
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for component in text.split(',').map(str::trim) {
            let malformed = || {
                let detail = format!("the authorization component \"{component}\" is malformed.");
                refusal::bad_header(&detail)
            };
            let (name, value) = component.split_once('=').ok_or_else(malformed)?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(malformed()),
            };
            if slot.replace(value).is_some() {
                return Err(malformed());
            }
        }
        Ok(Self {
            credential: credential.ok_or_else(|| refusal::bad_header("missing Credential."))?,
            signed_headers: signed_headers
                .ok_or_else(|| refusal::bad_header("missing SignedHeaders."))?,
            signature: signature.ok_or_else(|| refusal::bad_header("missing Signature."))?,
        })
    }
}

/// The parts of `AKID/20130524/us-east-1/s3/aws4_request`.
struct Credential<'a> {
    access_key_id: &'a str,
    day: &'a str,
    region: &'a str,
    service: &'a str,
    terminal: &'a str,
}

impl<'a> Credential<'a> {
    fn read(text: &'a str, place: Place) -> Result<Self, ApiError> {
        let words: Vec<&str> = text.split('/').collect();
        let [access_key_id, day, region, service, terminal] = *words.as_slice() else {
            return Err(place.bad_credential());
        };
        if access_key_id.is_empty() || access_key_id.len() > ACCESS_KEY_ID_BYTES_MAX {
            return Err(place.bad_credential());
        }
        Ok(Self { access_key_id, day, region, service, terminal })
    }

    fn check(
        &self,
        place: Place,
        date: AmzDate,
        expected: Expectation<'_>,
    ) -> Result<Scope, ApiError> {
        if self.terminal != TERMINAL {
            return Err(place.other_terminal(self.terminal));
        }
        if self.service != expected.service {
            return Err(place.other_service(self.service, expected.service));
        }
        if !amz_date::is_day(self.day) {
            return Err(place.bad_day(self.day));
        }
        if self.region != expected.region {
            return Err(place.other_region(self.region, expected.region));
        }
        if self.day != date.day() {
            return Err(place.other_day(self.day, &date.day()));
        }
        Ok(Scope {
            day: self.day.to_owned(),
            region: self.region.to_owned(),
            service: self.service.to_owned(),
        })
    }
}

fn header_date(parts: &Parts) -> Result<(AmzDate, &str), ApiError> {
    let header = parts.headers.get("x-amz-date").or_else(|| parts.headers.get(http::header::DATE));
    let text = header.and_then(|value| value.to_str().ok()).ok_or_else(refusal::missing_date)?;
    let date = AmzDate::parse(text.trim()).ok_or_else(refusal::missing_date)?;
    Ok((date, text))
}

fn check_skew(date: AmzDate, text: &str, now: AmzDate) -> Result<(), ApiError> {
    if date.unix_ms().abs_diff(now.unix_ms()) > refusal::SKEW_MS_MAX {
        return Err(refusal::too_skewed(text, now));
    }
    Ok(())
}

fn from_query(query: &QueryParams, expected: Expectation<'_>) -> Result<SignedClaim, ApiError> {
    let param = |name: &str| -> Result<&str, ApiError> {
        let value = query.single(name).map_err(|()| refusal::query_incomplete())?;
        let text = value.and_then(|value| std::str::from_utf8(value).ok());
        text.filter(|text| !text.is_empty()).ok_or_else(refusal::query_incomplete)
    };
    let algorithm = param("X-Amz-Algorithm")?;
    if algorithm != ALGORITHM {
        return Err(refusal::query("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""));
    }
    let credential = Credential::read(param("X-Amz-Credential")?, Place::Query)?;
    let signature = param("X-Amz-Signature")?;
    let headers = param("X-Amz-SignedHeaders")?;
    let expires_s = lifetime(param("X-Amz-Expires")?)?;
    let form = "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"";
    let date = AmzDate::parse_basic(param("X-Amz-Date")?).ok_or_else(|| refusal::query(form))?;
    let scope = credential.check(Place::Query, date, expected)?;
    check_lifetime(date, expires_s, expected.now)?;
    Ok(SignedClaim {
        place: Place::Query,
        access_key_id: credential.access_key_id.to_owned(),
        scope,
        date,
        signed_headers: signed_headers(headers),
        signature: signature.to_owned(),
    })
}

/// Reads `X-Amz-Expires`: 1 to [`refusal::EXPIRES_S_MAX`] seconds.
fn lifetime(text: &str) -> Result<u64, ApiError> {
    let negative = text.strip_prefix('-');
    let digits = negative.unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refusal::query("X-Amz-Expires should be a number"));
    }
    // A number too long for 64 bits is too large in any case.
    let seconds = digits.parse().unwrap_or(u64::MAX);
    if negative.is_some() || seconds == 0 {
        return Err(refusal::query("X-Amz-Expires must be non-negative"));
    }
    if seconds > refusal::EXPIRES_S_MAX {
        return Err(refusal::query(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires \
             must be less than 604800 seconds",
        ));
    }
    Ok(seconds)
}

fn check_lifetime(date: AmzDate, expires_s: u64, now: AmzDate) -> Result<(), ApiError> {
    if date.unix_ms() > now.unix_ms().saturating_add(refusal::SKEW_MS_MAX) {
        return Err(refusal::not_yet_valid(now));
    }
    let expiry = date.plus_seconds(expires_s);
    if now > expiry {
        return Err(refusal::expired(expires_s, expiry, now));
    }
    Ok(())
}

fn signed_headers(text: &str) -> Vec<String> {
    let mut names: Vec<String> =
        text.split(';').filter(|name| !name.is_empty()).map(str::to_ascii_lowercase).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Prefixes of headers that have to be signed: they change what a request does.
const SIGNED_PREFIXES: [&str; 2] = ["x-amz-", "x-kluis-"];

/// Refuses a request in which `host` or a header with one of these prefixes is not signed.
fn check_coverage(parts: &Parts, signed: &[String]) -> Result<(), ApiError> {
    let is_signed = |name: &str| signed.binary_search_by(|known| known.as_str().cmp(name)).is_ok();
    let mut unsigned: Vec<&str> = parts
        .headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| SIGNED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !is_signed(name))
        .collect();
    if !is_signed("host") {
        unsigned.push("host");
    }
    if unsigned.is_empty() {
        return Ok(());
    }
    unsigned.sort_unstable();
    Err(refusal::headers_not_signed(&unsigned))
}

#[cfg(test)]
mod tests;
