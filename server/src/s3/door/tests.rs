//! Requests through the door on a real engine: operations, codes, and names of others.

use super::*;

fn request(uri: &str) -> Request<()> {
    Request::builder().uri(uri).body(()).unwrap()
}

#[test]
fn operations_that_s3s_would_mistake_are_refused() {
    for uri in [
        "/b/k?renameObject",
        "/b?abac=",
        "/b?x-id=1&metadataConfiguration",
        "/b?session",
        "/b/k?%72enameObject",
    ] {
        assert!(unknown(&request(uri)).is_some(), "{uri}");
    }
    for uri in ["/b/k", "/b?list-type=2", "/b/k?renameObjectX", "/b/renameObject", "/b?prefix=abac"]
    {
        assert!(unknown(&request(uri)).is_none(), "{uri}");
    }
    let renaming = Request::builder().header("x-amz-rename-source", "a").body(()).unwrap();
    assert_eq!(unknown(&renaming), Some("x-amz-rename-source"));
}

#[test]
fn the_document_of_a_buckets_encryption_is_read_here() {
    let brings = |method: &str, uri: &str| {
        brings_encryption(&Request::builder().method(method).uri(uri).body(()).unwrap())
    };
    for uri in ["/b?encryption", "/b/?encryption=", "/b?x-id=1&%65ncryption"] {
        assert!(brings("PUT", uri), "{uri}");
        assert!(!brings("GET", uri) && !brings("DELETE", uri), "{uri}");
    }
    for uri in ["/b/k?encryption", "/b?encryptionX", "/b", "/b?policy"] {
        assert!(!brings("PUT", uri), "{uri}");
    }
}

#[test]
fn documents_of_s3s_are_read() {
    let text = "<?xml version=\"1.0\"?><Error><Code>InvalidArgument</Code>\
        <Message>invalid header: &quot;a&amp;lt;&quot;</Message></Error>";
    let error = of_document(StatusCode::BAD_REQUEST, text);
    assert_eq!(error.code, "InvalidArgument");
    assert_eq!(error.message, "invalid header: \"a&lt;\"");
    let bare = of_document(StatusCode::BAD_REQUEST, "<Error><Code>MalformedXML</Code></Error>");
    assert!(bare.message.starts_with("The XML you provided"));
    assert_eq!(of_document(StatusCode::BAD_REQUEST, "").code, "InternalError");
}

#[test]
fn an_error_answer_carries_its_error_and_no_body() {
    let mut broken = Response::new(s3s::Body::from("<Error/>".to_owned()));
    *broken.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let cause = ApiError::new(StatusCode::BAD_REQUEST, "BadDigest", "no match");
    let answer = finish(broken, || Some(cause));
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(answer.extensions().get::<ApiError>().unwrap().code, "BadDigest");
    assert_eq!(answer.body().bytes().unwrap_or_default(), Bytes::new());
}

#[test]
fn a_verb_may_send_what_s3s_cannot() {
    let mut answer = Response::new(s3s::Body::empty());
    let wanted = Finish::document(StatusCode::OK, b"<a/>".to_vec());
    answer.extensions_mut().insert(wanted);
    let answer = finish(answer, || None);
    assert_eq!(answer.body().bytes().unwrap(), Bytes::from_static(b"<a/>"));
    let mut partial = Response::new(s3s::Body::empty());
    partial.extensions_mut().insert(Finish::status(StatusCode::PARTIAL_CONTENT));
    assert_eq!(finish(partial, || None).status(), StatusCode::PARTIAL_CONTENT);
}

#[test]
fn only_put_object_and_upload_part_stream() {
    let streams = |method: &str, uri: &str, is_copy: bool| {
        let mut request = Request::builder().method(method).uri(uri);
        if is_copy {
            request = request.header("x-amz-copy-source", "a/b");
        }
        streams_body(&request.body(()).unwrap().into_parts().0)
    };
    for uri in ["/b/k", "/b/k?x-id=PutObject", "/b/k?partNumber=1&uploadId=2", "/b//", "/b/a/b"] {
        assert!(streams("PUT", uri, false), "{uri}");
        assert!(!streams("PUT", uri, true), "{uri} as a copy");
        assert!(!streams("POST", uri, false), "POST {uri}");
    }
    for uri in
        ["/", "/b", "/b/", "/b?policy", "/b/k?acl", "/b/k?%61cl", "/b/k?partNumber=1&tagging="]
    {
        assert!(!streams("PUT", uri, false), "{uri}");
    }
}
