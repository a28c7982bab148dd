//! Bodies of all five forms: what comes out, and what is refused at their end.

use std::collections::VecDeque;
use std::io;
use std::task::Waker;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use kluis_storage::{Checksum, ChecksumAlgorithm, Digester};

use super::*;
use crate::auth::testing::{Signer, head, set};
use crate::error::ApiError;

mod bad;
mod properties;

const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
const SIGNED: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
const SIGNED_TRAILER: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER";
const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// A body that comes in the given pieces; an empty one is a moment without any.
struct Pieces {
    left: VecDeque<io::Result<Bytes>>,
    polls: usize,
}

impl Pieces {
    fn new(pieces: impl IntoIterator<Item = Bytes>) -> Self {
        Self { left: pieces.into_iter().map(Ok).collect(), polls: 0 }
    }

    fn cut(bytes: &[u8], sizes: &[usize]) -> Self {
        let mut rest = Bytes::copy_from_slice(bytes);
        let mut pieces = Vec::new();
        let mut sizes = sizes.iter().cycle();
        while !rest.is_empty() {
            let size = sizes.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
            pieces.push(rest.split_to(size));
        }
        Self::new(pieces)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        this.polls += 1;
        match this.left.pop_front() {
            Some(Ok(bytes)) if bytes.is_empty() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            other => Poll::Ready(other.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }
}

/// What came of reading a body to its end.
struct Outcome {
    bytes: Vec<u8>,
    end: Result<Vec<Checksum>, ApiError>,
}

fn poll_once<B: Body<Data = Bytes, Error = BodyError> + Unpin>(
    body: &mut B,
) -> Poll<Option<Result<Bytes, BodyError>>> {
    let mut cx = Context::from_waker(Waker::noop());
    let frame = Pin::new(body).poll_frame(&mut cx);
    frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.into_data().unwrap())))
}

fn drain(mut body: DecodedBody<Pieces>, handle: &DigestHandle) -> Outcome {
    let mut bytes = Vec::new();
    loop {
        match poll_once(&mut body) {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(piece))) => {
                assert!(!piece.is_empty() && piece.len() <= PIECE_BYTES_MAX);
                bytes.extend_from_slice(&piece);
            }
            Poll::Ready(Some(Err(error))) => {
                assert!(handle.results().is_none());
                assert_eq!(handle.failure().unwrap().code, error.to_api_error().code);
                assert!(matches!(poll_once(&mut body), Poll::Ready(None)));
                return Outcome { bytes, end: Err(error.to_api_error()) };
            }
            Poll::Ready(None) => {
                assert!(body.is_end_stream());
                assert_eq!(body.size_hint().exact(), Some(0));
                return Outcome { bytes, end: Ok(handle.results().unwrap()) };
            }
        }
    }
}

/// A request with a body, ready to be read.
struct Upload {
    parts: Parts,
    raw: Vec<u8>,
}

impl Upload {
    fn new(form: &str, raw: impl Into<Vec<u8>>, headers: &[(&str, &str)]) -> Self {
        let raw = raw.into();
        let mut parts = head("PUT", "/b/k", headers);
        set(&mut parts, "x-amz-content-sha256", form);
        if !parts.headers.contains_key("content-length") {
            set(&mut parts, "content-length", &raw.len().to_string());
        }
        Self { parts, raw }
    }

    fn plan(&self) -> Result<BodyPlan, ApiError> {
        let form = self.parts.headers["x-amz-content-sha256"].to_str().unwrap();
        let form = PayloadForm::parse(form)?;
        let chain = form.is_signed_chunks().then(|| Signer::example().chain(SEED));
        BodyPlan::new(&self.parts, None, form, chain)
    }

    fn read(&self, sizes: &[usize]) -> Outcome {
        match self.plan() {
            Ok(plan) => {
                let (body, handle) = DecodedBody::new(plan, Pieces::cut(&self.raw, sizes));
                drain(body, &handle)
            }
            Err(error) => Outcome { bytes: Vec::new(), end: Err(error) },
        }
    }
}

fn digest(algorithm: ChecksumAlgorithm, data: &[u8]) -> String {
    let mut digester = Digester::new(&[algorithm]);
    digester.update(data);
    STANDARD.encode(&digester.finish()[0].value)
}

fn data(count: usize) -> Vec<u8> {
    (0..count).map(|index| u8::try_from(index * 31 % 251).unwrap()).collect()
}

/// Frames `data` in chunks of `chunk_bytes`.
fn framed(data: &[u8], chunk_bytes: usize, signed: bool, trailer: Option<(&str, &str)>) -> Vec<u8> {
    let mut chain = signed.then(|| Signer::example().chain(SEED));
    let mut raw = Vec::new();
    for chunk in data.chunks(chunk_bytes).chain([&[][..]]) {
        raw.extend_from_slice(format!("{:x}", chunk.len()).as_bytes());
        if let Some(chain) = &mut chain {
            let signature = chain.sign_chunk(chunk);
            raw.extend_from_slice(format!(";chunk-signature={signature}").as_bytes());
        }
        raw.extend_from_slice(b"\r\n");
        raw.extend_from_slice(chunk);
        if !chunk.is_empty() {
            raw.extend_from_slice(b"\r\n");
        }
    }
    if let Some((name, value)) = trailer {
        raw.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
        if let Some(chain) = &mut chain {
            let signature = chain.sign_trailer(format!("{name}:{value}\n").as_bytes());
            raw.extend_from_slice(format!("x-amz-trailer-signature:{signature}\r\n").as_bytes());
        }
    }
    raw.extend_from_slice(b"\r\n");
    raw
}

fn length(data: &[u8]) -> String {
    data.len().to_string()
}

/// The five forms of one body, the same plaintext in each, every byte of it covered by a check.
fn five_forms(data: &[u8]) -> Vec<Upload> {
    let sha256 = crate::auth::signing::sha256_hex(data);
    let crc = digest(ChecksumAlgorithm::Crc32, data);
    let crc32c = digest(ChecksumAlgorithm::Crc32c, data);
    let decoded = length(data);
    let decoded = ("x-amz-decoded-content-length", decoded.as_str());
    let trailer = ("x-amz-trailer", "x-amz-checksum-crc32c");
    let value = Some(("x-amz-checksum-crc32c", crc32c.as_str()));
    vec![
        Upload::new(&sha256, data, &[]),
        Upload::new("UNSIGNED-PAYLOAD", data, &[("x-amz-checksum-crc32", &crc)]),
        Upload::new(SIGNED, framed(data, 8192, true, None), &[decoded]),
        Upload::new(SIGNED_TRAILER, framed(data, 9000, true, value), &[decoded, trailer]),
        Upload::new(UNSIGNED_TRAILER, framed(data, 10_000, false, value), &[decoded, trailer]),
    ]
}

#[test]
fn the_five_forms_yield_the_same_bytes() {
    for count in [0, 1, 8191, 8192, 8193, 40_000] {
        let data = data(count);
        for upload in five_forms(&data) {
            for sizes in [&[usize::MAX][..], &[1], &[7, 8192, 3], &[65_536]] {
                let outcome = upload.read(sizes);
                assert!(outcome.end.is_ok(), "{:?}", outcome.end);
                assert_eq!(outcome.bytes, data);
            }
        }
    }
}

/// AWS, "Transferring payload in multiple chunks", its example, from head to last byte.
#[test]
fn the_published_chunked_body_decodes() {
    let mut raw = Vec::new();
    let chunks = [
        (65_536, "10000", "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
        (1_024, "400", "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
        (0, "0", "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
    ];
    for (bytes, size, signature) in chunks {
        let data = "a".repeat(bytes);
        let chunk = format!("{size};chunk-signature={signature}\r\n{data}\r\n");
        raw.extend_from_slice(chunk.as_bytes());
    }
    assert_eq!(raw.len(), 66_824);
    let upload = Upload::new(SIGNED, raw, &[("x-amz-decoded-content-length", "66560")]);
    let outcome = upload.read(&[1000]);
    assert!(outcome.end.is_ok());
    assert_eq!(outcome.bytes, vec![b'a'; 66_560]);
}

/// AWS, "… including trailing headers", its example; its trailer line ends with a bare line feed.
#[test]
fn the_published_trailer_body_decodes() {
    let seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
    let mut raw = Vec::new();
    let chunks = [
        (65_536, "10000", "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"),
        (1_024, "400", "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"),
    ];
    for (bytes, size, signature) in chunks {
        let data = "a".repeat(bytes);
        let chunk = format!("{size};chunk-signature={signature}\r\n{data}\r\n");
        raw.extend_from_slice(chunk.as_bytes());
    }
    raw.extend_from_slice(
        b"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n\
          x-amz-checksum-crc32c:sOO8/Q==\n\
          x-amz-trailer-signature:",
    );
    raw.extend_from_slice(
        b"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n",
    );
    let headers =
        [("x-amz-decoded-content-length", "66560"), ("x-amz-trailer", "x-amz-checksum-crc32c")];
    let parts = head("PUT", "/b/k", &headers);
    let form = PayloadForm::SignedChunks { trailer: true };
    let chain = Signer::example().chain(seed);
    let plan = BodyPlan::new(&parts, None, form, Some(chain)).unwrap();
    let (body, handle) = DecodedBody::new(plan, Pieces::cut(&raw, &[4096]));
    let outcome = drain(body, &handle);
    assert_eq!(outcome.bytes.len(), 66_560);
    let results = outcome.end.unwrap();
    assert_eq!(results.len(), 1);
    assert_eq!(STANDARD.encode(&results[0].value), "sOO8/Q==");
}

#[test]
fn each_algorithm_is_verified_in_head_and_trailer() {
    let data = data(10_000);
    let decoded = length(&data);
    for algorithm in ChecksumAlgorithm::ALL {
        let value = digest(algorithm, &data);
        let name = checksums::field_name(algorithm);
        let wrong = digest(algorithm, b"other");
        for (value, good) in [(&value, true), (&wrong, false)] {
            let upload =
                Upload::new("UNSIGNED-PAYLOAD", data.as_slice(), &[(name, value.as_str())]);
            assert_eq!(upload.read(&[4096]).end.is_ok(), good, "{name}");
            if algorithm == ChecksumAlgorithm::Md5 {
                continue;
            }
            for (form, signed) in [(UNSIGNED_TRAILER, false), (SIGNED_TRAILER, true)] {
                let raw = framed(&data, 8_192, signed, Some((name, value.as_str())));
                let headers =
                    [("x-amz-decoded-content-length", decoded.as_str()), ("x-amz-trailer", name)];
                assert_eq!(
                    Upload::new(form, raw, &headers).read(&[4096]).end.is_ok(),
                    good,
                    "{name}"
                );
            }
        }
    }
}

fn algorithms(checksums: &[Checksum]) -> Vec<ChecksumAlgorithm> {
    checksums.iter().map(|checksum| checksum.algorithm).collect()
}

#[test]
fn crc64nvme_is_kept_when_the_client_named_nothing() {
    use ChecksumAlgorithm::{Crc32, Crc64Nvme, Md5, Sha256};
    let read = |upload: &Upload, wanted: &[ChecksumAlgorithm]| {
        let pieces = Pieces::cut(&upload.raw, &[usize::MAX]);
        let (body, handle) = DecodedBody::new(upload.plan().unwrap(), pieces);
        handle.want(wanted);
        let results = drain(body, &handle).end.unwrap();
        (algorithms(&results), handle.has_client_digest())
    };
    let bare = Upload::new("UNSIGNED-PAYLOAD", "x", &[]);
    assert_eq!(read(&bare, &[]), (vec![Crc64Nvme], false));
    assert_eq!(read(&bare, &[Md5]), (vec![Md5, Crc64Nvme], false));
    assert_eq!(read(&bare, &[Crc32]), (vec![Crc32], false));
    let md5 = digest(Md5, b"x");
    let md5 = Upload::new("UNSIGNED-PAYLOAD", "x", &[("content-md5", &md5)]);
    assert_eq!(read(&md5, &[]), (vec![Md5, Crc64Nvme], true));
    let crc = digest(Crc32, b"x");
    let crc = Upload::new("UNSIGNED-PAYLOAD", "x", &[("x-amz-checksum-crc32", &crc)]);
    assert_eq!(read(&crc, &[Md5]), (vec![Md5, Crc32], true));
    let literal = Upload::new(&crate::auth::signing::sha256_hex(b"x"), "x", &[]);
    assert_eq!(read(&literal, &[]), (vec![Crc64Nvme], false));
    assert_eq!(read(&literal, &[Sha256]), (vec![Sha256], false));
}

#[test]
fn a_header_wins_where_there_is_no_trailer() {
    let crc = digest(ChecksumAlgorithm::Crc32, b"hello");
    let headers =
        [("x-amz-checksum-crc32", crc.as_str()), ("x-amz-trailer", "x-amz-checksum-crc32")];
    assert!(Upload::new("UNSIGNED-PAYLOAD", "hello", &headers).read(&[1]).end.is_ok());
    let headers = [("x-amz-checksum-crc32", "AAAAAA=="), ("x-amz-trailer", "x-amz-checksum-crc32")];
    let error = Upload::new("UNSIGNED-PAYLOAD", "hello", &headers).read(&[1]).end.unwrap_err();
    assert_eq!(error.code, "BadDigest");
    assert!(error.extra.contains(&("ExpectedDigest", "AAAAAA==".to_owned())));
    assert!(error.extra.contains(&("CalculatedDigest", crc)));
}

#[test]
fn a_presigned_url_brings_checksums_in_its_query() {
    let uri = "/b/k?x-amz-checksum-crc32=AAAAAA%3D%3D&x-amz-sdk-checksum-algorithm=CRC32";
    let parts = head("PUT", uri, &[("content-length", "5")]);
    let query = crate::auth::canonical::QueryParams::parse(parts.uri.query());
    let plan = BodyPlan::new(&parts, Some(&query), PayloadForm::Unsigned, None).unwrap();
    let (body, handle) = DecodedBody::new(plan, Pieces::cut(b"hello", &[5]));
    assert_eq!(drain(body, &handle).end.unwrap_err().code, "BadDigest");
}

#[test]
fn the_checksum_of_an_object_is_not_that_of_its_part_list() {
    let headers = [("x-amz-checksum-crc32", "AAAAAA=="), ("content-length", "5")];
    let parts = head("POST", "/b/k?uploadId=1", &headers);
    let plan = BodyPlan::new(&parts, None, PayloadForm::Unsigned, None).unwrap();
    let (body, handle) = DecodedBody::new(plan, Pieces::cut(b"<xml>", &[5]));
    assert!(drain(body, &handle).end.is_ok());
}

#[test]
fn lengths_are_known_asked_for_or_nought() {
    let size = |method, headers: &[(&str, &str)]| {
        let plan = BodyPlan::new(&head(method, "/b/k", headers), None, PayloadForm::Unsigned, None);
        plan.unwrap().size
    };
    assert_eq!(size("GET", &[]), Some(0));
    assert_eq!(size("HEAD", &[]), Some(0));
    assert_eq!(size("DELETE", &[]), Some(0));
    assert_eq!(size("PUT", &[]), None);
    assert_eq!(size("POST", &[("content-length", "7")]), Some(7));
    let chunked = [("transfer-encoding", "chunked")];
    assert_eq!(size("PUT", &chunked), None);
    assert_eq!(size("DELETE", &chunked), None);

    let read = |pieces| {
        let parts = head("PUT", "/b/k", &[]);
        let plan = BodyPlan::new(&parts, None, PayloadForm::Unsigned, None).unwrap();
        let (body, handle) = DecodedBody::new(plan, pieces);
        assert_eq!(handle.required_size().unwrap_err().status, 411);
        drain(body, &handle).end.map_err(|error| (error.status.as_u16(), error.code))
    };
    assert!(read(Pieces::new([])).is_ok());
    let missing = read(Pieces::cut(b"x", &[1])).unwrap_err();
    assert_eq!(missing, (411, "MissingContentLength".into()));
}

#[test]
fn a_broken_connection_is_an_error() {
    let upload = Upload::new("UNSIGNED-PAYLOAD", "hello", &[]);
    let mut pieces = Pieces::cut(b"hel", &[3]);
    pieces.left.push_back(Err(io::Error::other("reset")));
    let (body, handle) = DecodedBody::new(upload.plan().unwrap(), pieces);
    let outcome = drain(body, &handle);
    assert_eq!(outcome.bytes, b"hel");
    assert_eq!(outcome.end.unwrap_err().code, "IncompleteBody");
}

#[test]
fn plain_and_unsigned_bytes_are_not_copied() {
    let whole = Bytes::from(data(30_000));
    let inside = |piece: &Bytes| {
        let range = whole.as_ptr_range();
        range.contains(&piece.as_ptr())
    };
    let upload = Upload::new("UNSIGNED-PAYLOAD", whole.to_vec(), &[]);
    let (mut body, _) = DecodedBody::new(upload.plan().unwrap(), Pieces::new([whole.clone()]));
    let Poll::Ready(Some(Ok(piece))) = poll_once(&mut body) else { panic!("no piece") };
    assert!(inside(&piece));
}

#[test]
fn nothing_is_read_ahead() {
    let data = data(100_000);
    let upload = Upload::new("UNSIGNED-PAYLOAD", data.as_slice(), &[]);
    let (mut body, _) = DecodedBody::new(upload.plan().unwrap(), Pieces::cut(&data, &[1000]));
    for polls in 1..50 {
        assert!(matches!(poll_once(&mut body), Poll::Ready(Some(Ok(_)))));
        assert_eq!(body.inner.polls, polls);
    }
}

#[test]
fn the_last_byte_waits_for_the_checks() {
    let data = data(20_000);
    for mut upload in five_forms(&data) {
        // Damage what is checked last: the trailer or the last byte, the digest or the last
        // signature.
        let at = upload.raw.len().saturating_sub(6);
        upload.raw[at] ^= 1;
        let outcome = upload.read(&[500]);
        assert!(outcome.end.is_err());
        assert!(outcome.bytes.len() < data.len(), "all bytes left before the checks");
    }
}

#[test]
fn errors_name_no_digest_in_logs() {
    let error = BodyError::BadDigest {
        algorithm: ChecksumAlgorithm::Sha256,
        expected: vec![0xaa; 32],
        computed: vec![0xbb; 32],
    };
    let text = format!("{error:?} {error}");
    assert!(!text.contains("qqqq") && !text.contains("170") && !text.contains("aaaa"));
}

#[test]
fn only_complete_multipart_upload_sends_the_checksum_of_an_object() {
    let checksum = |method: &str, uri: &str| {
        let request = http::Request::builder().method(method).uri(uri);
        let request =
            request.header("x-amz-checksum-crc32", "AAAAAA==").header("content-length", 1);
        let parts = request.body(()).unwrap().into_parts().0;
        checksums::Fields::new(&parts, None).checksums(false).unwrap().value
    };
    assert!(checksum("POST", "/b/k?uploadId=1").is_none());
    assert!(checksum("POST", "/k?uploadId=1").is_none(), "the bucket is in the host");
    for (method, uri) in [
        ("POST", "/b?delete&uploadId=1"),
        ("POST", "/b/k?%64elete=&uploadId=1"),
        ("POST", "/?uploadId=1"),
        ("PUT", "/b/k?uploadId=1"),
    ] {
        assert!(checksum(method, uri).is_some(), "{method} {uri}");
    }
}
