//! AWS's published signatures, and the chain of chunk signatures.

use super::*;

const SECRET: &[u8] = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

fn scope() -> Scope {
    Scope { day: "20130524".to_owned(), region: "us-east-1".to_owned(), service: "s3".to_owned() }
}

fn chain(signature: &str) -> ChunkChain {
    let date = AmzDate::parse("20130524T000000Z").unwrap();
    ChunkChain::new(SigningKey::derive(SECRET, &scope()), date, &scope(), signature)
}

/// AWS, "Signature calculations …: Transferring payload in multiple chunks", its example.
#[test]
fn the_published_chunk_signatures_verify() {
    let mut chain = chain("4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9");
    let chunks: [(usize, &str); 3] = [
        (65_536, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"),
        (1_024, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497"),
        (0, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9"),
    ];
    for (bytes, signature) in chunks {
        assert!(chain.verify_chunk(&Sha256::digest(vec![b'a'; bytes]), signature.as_bytes()));
    }
}

/// AWS, "… Transferring payload in multiple chunks … including trailing headers", its example.
#[test]
fn the_published_trailer_signature_verifies() {
    let mut chain = chain("106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e");
    let chunks: [(usize, &str); 3] = [
        (65_536, "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2"),
        (1_024, "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7"),
        (0, "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992"),
    ];
    for (bytes, signature) in chunks {
        assert!(chain.verify_chunk(&Sha256::digest(vec![b'a'; bytes]), signature.as_bytes()));
    }
    let trailer = Sha256::digest(b"x-amz-checksum-crc32c:sOO8/Q==\n");
    let signature = b"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";
    assert!(chain.verify_trailer(&trailer, signature));
}

#[test]
fn a_chunk_does_not_verify_in_another_place() {
    let mut chain = chain("4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9");
    let second = b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497";
    assert!(!chain.verify_chunk(&Sha256::digest([b'a'; 1_024]), second));
}

#[test]
fn an_upper_case_or_short_signature_does_not_verify() {
    let signing_key = SigningKey::derive(SECRET, &scope());
    let good = signing_key.sign_for_test("x");
    assert!(signing_key.verify("x", good.as_bytes()));
    assert!(!signing_key.verify("x", good.to_uppercase().as_bytes()));
    assert!(!signing_key.verify("x", good.get(..63).unwrap().as_bytes()));
    assert!(!signing_key.verify("x", b""));
}
