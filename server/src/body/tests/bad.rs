//! Bodies and heads that are right but for one thing, and the answer to each.

use super::*;

/// Status and code.
type Answer = (u16, &'static str);

const CHUNK_SIZE: Answer = (400, "InvalidChunkSizeError");
const DIGEST: Answer = (400, "BadDigest");
const GOOD: Answer = (200, "");
const INCOMPLETE: Answer = (400, "IncompleteBody");
const INVALID_DIGEST: Answer = (400, "InvalidDigest");
const LENGTH: Answer = (411, "MissingContentLength");
const REQUEST: Answer = (400, "InvalidRequest");
const SHA256: Answer = (400, "XAmzContentSHA256Mismatch");
const SIGNATURE: Answer = (403, "SignatureDoesNotMatch");
const TOO_LARGE: Answer = (400, "EntityTooLarge");
const TRAILER: Answer = (400, "MalformedTrailerError");

type Headers = &'static [(&'static str, &'static str)];

/// Headers of a PUT of `hello`, the answer, and words of its message.
const PLAIN_CASES: &[(Headers, Answer, &str)] = &[
    (&[("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")], GOOD, ""),
    (&[("content-md5", "YWJyYWNhZGFicmE=")], INVALID_DIGEST, "invalid"),
    (&[("content-md5", "")], INVALID_DIGEST, "invalid"),
    (&[("content-md5", "AWS HAHAHA")], INVALID_DIGEST, "invalid"),
    (&[("content-md5", "rL0Y20xC+Fzt72VPzMSk2A==")], DIGEST, "Content-MD5"),
    (&[CRC32], GOOD, ""),
    (&[("x-amz-checksum-crc32", "AAAA")], REQUEST, "x-amz-checksum-crc32 header is invalid"),
    (&[("x-amz-checksum-crc32", "NhCmhh==")], REQUEST, "x-amz-checksum-crc32 header is invalid"),
    (&[("x-amz-checksum-crc32", "AAAAAA==")], DIGEST, "The CRC32 you specified"),
    (&[("x-amz-checksum-crc32c", "AAAAAA==")], DIGEST, "The CRC32C you specified"),
    (&[("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")], DIGEST, "The CRC64NVME you specified"),
    (&[CRC32, ("x-amz-checksum-sha1", "AAAA")], REQUEST, "Expecting a single"),
    (&[("x-amz-checksum-crc16", "AAA=")], REQUEST, "algorithm type"),
    (&[("x-amz-checksum-xxhash64", "AAA=")], REQUEST, "algorithm type"),
    (&[CRC32, ("x-amz-checksum-type", "FULL_OBJECT")], GOOD, ""),
    (&[("x-amz-sdk-checksum-algorithm", "CRC16")], REQUEST, "unsupported"),
    (&[CRC32, ("x-amz-sdk-checksum-algorithm", "CRC32")], GOOD, ""),
    (&[CRC32, ("x-amz-sdk-checksum-algorithm", "SHA1")], REQUEST, "header is invalid"),
    (&[("x-amz-sdk-checksum-algorithm", "SHA1")], REQUEST, "no corresponding"),
    (&[("content-length", "five")], REQUEST, "Content-Length"),
    (&[("content-length", "5368709121")], TOO_LARGE, "exceeds"),
    (&[("content-length", "6")], INCOMPLETE, "number of bytes"),
    (&[("content-length", "4")], INCOMPLETE, "number of bytes"),
];
const CRC32: (&str, &str) = ("x-amz-checksum-crc32", "NhCmhg==");

/// Headers of an empty body in unsigned chunks, the answer, and words of its message.
const CHUNK_HEAD_CASES: &[(Headers, Answer, &str)] = &[
    (&[ZERO], GOOD, ""),
    (&[], LENGTH, "Content-Length"),
    (&[("x-amz-decoded-content-length", "-1")], LENGTH, "Content-Length"),
    (&[("x-amz-decoded-content-length", "")], LENGTH, "Content-Length"),
    (&[("x-amz-decoded-content-length", "5368709121")], TOO_LARGE, "exceeds"),
    (&[ZERO, ("x-amz-trailer", "x-amz-meta-a")], REQUEST, "x-amz-trailer"),
    (&[ZERO, ("x-amz-trailer", "x-amz-checksum-sha1,x-amz-checksum-crc32")], REQUEST, "single"),
    (&[ZERO, CRC32, ("x-amz-trailer", "x-amz-checksum-crc32")], REQUEST, "Expecting a single"),
    (&[ZERO, ("x-amz-trailer", "x-amz-checksum-crc32")], TRAILER, "trailing"),
];
const ZERO: (&str, &str) = ("x-amz-decoded-content-length", "0");

/// Bodies in unsigned chunks that declare 5 bytes, `T` standing for a right trailer line; whether
/// the trailer is announced; the answer.
const FRAME_CASES: &[(&str, bool, Answer)] = &[
    ("5\r\nhello\r\n0\r\nT\r\n\r\n", true, GOOD),
    ("5\r\nhello\r\n0\r\nT\n\r\n", true, GOOD),
    ("5\r\nhello\r\n0\r\n\r\n", false, GOOD),
    ("00005\r\nhello\r\n000\r\n\r\n", false, GOOD),
    ("5\r\nhello\r\n0\r\n\r\n", true, TRAILER),
    ("5\r\nhello\r\n0\r\nT\r\n\r\n", false, TRAILER),
    ("5\r\nhello\r\n0\r\nx:M3eFcAZSQlc=\r\n\r\n", true, TRAILER),
    ("5\r\nhello\r\n0\r\nT\r\nT\r\n\r\n", true, TRAILER),
    ("5\r\nhello\r\n0\r\nx-amz-trailer-signature:00\r\nT\r\n\r\n", true, TRAILER),
    ("5\r\nhello\r\n0\r\nx-amz-checksum-crc64nvme\r\n\r\n", true, TRAILER),
    ("5\r\nhello\r\n0\r\nx-amz-checksum-crc64nvme:bad\r\n\r\n", true, REQUEST),
    ("5\r\nhello\r\n0\r\nx-amz-checksum-crc64nvme:\r\n\r\n", true, REQUEST),
    ("5\r\nhello\r\n0\r\nT \r\n\r\n", true, REQUEST),
    ("5\r\nhello\r\n0\r\nx-amz-checksum-crc64nvme:QFRKMGE3tuw=\r\n\r\n", true, DIGEST),
    ("5\r\nhellO\r\n0\r\nT\r\n\r\n", true, DIGEST),
    ("", false, INCOMPLETE),
    ("\r\nhello\r\n0\r\n\r\n", false, INCOMPLETE),
    ("+5\r\nhello\r\n0\r\n\r\n", false, INCOMPLETE),
    ("-5\r\nhello\r\n0\r\n\r\n", false, INCOMPLETE),
    ("0x5\r\nhello\r\n0\r\n\r\n", false, INCOMPLETE),
    (" 5\r\nhello\r\n0\r\n\r\n", false, INCOMPLETE),
    ("5 \r\nhello\r\n0\r\n\r\n", false, INCOMPLETE),
    ("10000000000000005\r\nhello\r\n0\r\n\r\n", false, INCOMPLETE),
    ("5\nhello\r\n0\r\n\r\n", false, INCOMPLETE),
    ("5;a=b\r\nhello\r\n0\r\n\r\n", false, INCOMPLETE),
    ("5;chunk-signature=00\r\nhello\r\n0\r\n\r\n", false, INCOMPLETE),
    ("5\r\nhelloX\r\n0\r\n\r\n", false, INCOMPLETE),
    ("5\r\nhello0\r\n\r\n", false, INCOMPLETE),
    ("6\r\nhello\r\n0\r\n\r\n", false, INCOMPLETE),
    ("6\r\nhello!\r\n0\r\n\r\n", false, INCOMPLETE),
    ("4\r\nhell\r\n0\r\n\r\n", false, INCOMPLETE),
    ("0\r\n\r\n", false, INCOMPLETE),
    ("5\r\nhello\r\n0\r\n", false, INCOMPLETE),
    ("5\r\nhello\r\n0\r\nT\r\n", true, INCOMPLETE),
    ("5\r\nhello\r\n0\r\n\r\nX", false, INCOMPLETE),
    ("2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", false, CHUNK_SIZE),
];

#[track_caller]
fn check(name: &str, upload: &Upload, (status, code): Answer, words: &str) {
    for sizes in [&[usize::MAX][..], &[1], &[3, 1]] {
        match upload.read(sizes).end {
            Ok(_) => assert_eq!(status, 200, "{name}"),
            Err(error) => {
                let got = (error.status.as_u16(), error.code.as_ref());
                assert_eq!(got, (status, code), "{name}: {error:?}");
                assert!(error.message.contains(words), "{name}: {}", error.message);
            }
        }
    }
}

#[test]
fn every_bad_head_has_the_code_of_aws() {
    for (headers, answer, words) in PLAIN_CASES {
        let upload = Upload::new("UNSIGNED-PAYLOAD", "hello", headers);
        check(&format!("{headers:?}"), &upload, *answer, words);
    }
    for (headers, answer, words) in CHUNK_HEAD_CASES {
        let upload = Upload::new(UNSIGNED_TRAILER, "0\r\n\r\n", headers);
        check(&format!("{headers:?}"), &upload, *answer, words);
    }
    let upload = Upload::new(SIGNED_TRAILER, "", &[ZERO]);
    check("signed, nothing announced", &upload, TRAILER, "trailing");
    let upload = Upload::new(crate::auth::testing::EMPTY_SHA256, "x", &[]);
    check("other SHA-256", &upload, SHA256, "x-amz-content-sha256");
    for form in ["", "STREAMING", "e3b0c4", &"g".repeat(64)] {
        let error = PayloadForm::parse(form).unwrap_err();
        assert_eq!((error.status.as_u16(), error.code.as_ref()), (400, "InvalidArgument"));
    }
}

#[test]
fn every_bad_frame_has_the_code_of_aws() {
    let five = ("x-amz-decoded-content-length", "5");
    let trailer = ("x-amz-trailer", "x-amz-checksum-crc64nvme");
    for (raw, announced, answer) in FRAME_CASES {
        let line = "\nx-amz-checksum-crc64nvme:M3eFcAZSQlc=";
        let body = raw.replace("\nT", line);
        let headers: &[(&str, &str)] = if *announced { &[five, trailer] } else { &[five] };
        check(raw, &Upload::new(UNSIGNED_TRAILER, body, headers), *answer, "");
    }
    let long_line = Upload::new(UNSIGNED_TRAILER, "0".repeat(1_025), &[five]);
    check("long line", &long_line, INCOMPLETE, "");
    let raw = format!("5\r\nhello\r\n0\r\n{}", "a".repeat(16_385));
    let long_trailer = Upload::new(UNSIGNED_TRAILER, raw, &[five, trailer]);
    check("long trailer", &long_trailer, TRAILER, "");
}

#[test]
fn every_bad_signed_chunk_has_the_code_of_aws() {
    let signed = |raw: Vec<u8>, count: &str| {
        Upload::new(SIGNED, raw, &[("x-amz-decoded-content-length", count)])
    };
    let hello = || framed(b"hello", 5, true, None);
    check("good", &signed(hello(), "5"), GOOD, "");
    check(
        "small chunk",
        &signed(framed(&data(20_000), 8_191, true, None), "20000"),
        CHUNK_SIZE,
        "8192",
    );
    let large = format!("1000001;chunk-signature={SEED}\r\n").into_bytes();
    check("large chunk", &signed(large, "16777217"), CHUNK_SIZE, "16777216");
    let bare = b"5\r\nhello\r\n0\r\n\r\n".to_vec();
    check("unsigned chunk", &signed(bare, "5"), INCOMPLETE, "");
    let mut other = hello();
    let at = other.windows(5).position(|window| window == b"hello").unwrap();
    other[at] = b'H';
    check("other data", &signed(other, "5"), SIGNATURE, "signature");
    let mut replayed = framed(&data(16_384), 8_192, true, None);
    let first: Vec<u8> = replayed[..replayed.len() / 2].to_vec();
    replayed.splice(..0, first);
    check("chunk twice", &signed(replayed, "24576"), SIGNATURE, "signature");
    let mut with_trailer = hello();
    with_trailer.truncate(with_trailer.len() - 2);
    with_trailer.extend_from_slice(b"x-amz-trailer-signature:00\r\n\r\n");
    check("trailer without its form", &signed(with_trailer, "5"), TRAILER, "trailing");
}

#[test]
fn a_signed_trailer_is_checked_as_well() {
    let headers =
        [("x-amz-decoded-content-length", "5"), ("x-amz-trailer", "x-amz-checksum-crc32")];
    let raw = framed(b"hello", 5, true, Some(("x-amz-checksum-crc32", "NhCmhg==")));
    let text = String::from_utf8(raw).unwrap();
    let upload = |text: &str| Upload::new(SIGNED_TRAILER, text, &headers);
    check("good", &upload(&text), GOOD, "");
    let (before, signature) = text.split_once("x-amz-trailer-signature:").unwrap();
    check("no signature", &upload(&format!("{before}\r\n")), TRAILER, "trailing");
    let zeroes = "0".repeat(64);
    let other = format!("{before}x-amz-trailer-signature:{zeroes}\r\n\r\n");
    check("other signature", &upload(&other), SIGNATURE, "signature");
    let swapped = text.replace("NhCmhg==", "AAAAAA==");
    assert!(swapped.contains(signature));
    check("other value", &upload(&swapped), SIGNATURE, "signature");
}
