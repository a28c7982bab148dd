//! The API's client against a server that checks every signature and answers from a script.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::auth::testing::{EXAMPLE_ID, EXAMPLE_SECRET, Signer};

/// An answer to come: a status and a document.
pub(in crate::cli) type Answer = (u16, Value);

/// A node that answers from a script, and remembers what it was asked.
#[derive(Clone)]
pub(in crate::cli) struct Fake {
    endpoint: String,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Fake {
    /// Starts it. Every connection is closed after `per_connection` answers.
    pub(in crate::cli) async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let fake =
            Self { endpoint, answers: Arc::new(Mutex::new(answers.into())), asked: Arc::default() };
        let serving = fake.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let fake = serving.clone();
                let service = service_fn(move |request| {
                    let fake = fake.clone();
                    async move { Ok::<_, Infallible>(fake.answer(request).await) }
                });
                tokio::spawn(
                    server::Builder::new().serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        fake
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        // The server's own verifier signs what came; the result has to be what came.
        let sent = parts.headers.remove(AUTHORIZATION).unwrap();
        parts.headers.remove("content-length");
        let date = AmzDate::parse_basic(parts.headers[DATE].to_str().unwrap()).unwrap();
        let scope =
            Scope { day: date.day(), region: "eu-west-1".to_owned(), service: "kms".to_owned() };
        let signer = Signer { scope, date, ..Signer::new(EXAMPLE_ID, EXAMPLE_SECRET) };
        signer.sign(&mut parts, &signing::sha256_hex(&body));
        assert_eq!(parts.headers[AUTHORIZATION], sent);
        let target = parts.headers[TARGET].to_str().unwrap().to_owned();
        let input = serde_json::from_slice(&body).unwrap();
        self.asked.lock().unwrap().push((target, input));
        let (status, answer) = self.answers.lock().unwrap().pop_front().unwrap();
        let body = if answer.is_null() { String::new() } else { answer.to_string() };
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    pub(in crate::cli) fn client(&self) -> Api {
        endpoint(&self.endpoint).client_of(example_key()).unwrap()
    }

    /// What was asked, in order.
    pub(in crate::cli) fn asked(&self) -> Vec<(String, Value)> {
        self.asked.lock().unwrap().clone()
    }
}

fn endpoint(text: &str) -> Endpoint {
    Endpoint { endpoint: Some(text.to_owned()), region: "eu-west-1".to_owned(), ca: None }
}

fn example_key() -> AccessKey {
    AccessKey { id: EXAMPLE_ID.to_owned(), secret: Zeroizing::new(EXAMPLE_SECRET.to_owned()) }
}

#[tokio::test]
async fn calls_are_signed_and_answered() {
    let fake = Fake::start(vec![(200, json!({"KeyId": "x"})), (200, Value::Null)]).await;
    let mut api = fake.client();
    let input = json!({"KeyId": "alias/ключ"});
    let answer = api.call("TrentService.DescribeKey", &input).await.unwrap();
    assert_eq!(answer, json!({"KeyId": "x"}));
    assert_eq!(api.call("KluisKms.ListJobs", &json!({})).await.unwrap(), Value::Null);
    let asked = fake.asked();
    assert_eq!(asked[0], ("TrentService.DescribeKey".to_owned(), input));
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn a_refusal_has_its_name_and_message() {
    let refusal = json!({"__type": "com.amazonaws.kms#DisabledException", "message": "it is off"});
    let nameless = json!({});
    let fake = Fake::start(vec![(400, refusal), (503, nameless)]).await;
    let mut api = fake.client();
    let refused = api.call("TrentService.Encrypt", &json!({})).await.unwrap_err();
    assert_eq!(refused.to_string(), "DisabledException: it is off");
    assert_eq!(Failure::from(refused).code, EXIT_REFUSED);
    let refused = api.call("TrentService.Encrypt", &json!({})).await.unwrap_err();
    assert_eq!(refused.to_string(), "503 Service Unavailable");
}

#[tokio::test]
async fn nobody_at_the_address_and_strange_answers_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let mut api = endpoint(&address).client_of(example_key()).unwrap();
    let error = api.call("TrentService.ListKeys", &json!({})).await.unwrap_err();
    assert!(error.to_string().contains("connect to 127.0.0.1"), "{error}");
    assert_eq!(Failure::from(error).code, EXIT_COULD_NOT_RUN);
}

#[test]
fn addresses_that_are_none_are_refused() {
    let wrong =
        ["", "127.0.0.1:9000", "ftp://host", "http://host/path", "http://user@host", "http://"];
    for text in wrong {
        let error = endpoint(text).client_of(example_key()).err().unwrap();
        assert!(matches!(error, ApiError::Setup(_)), "{text}");
    }
    let without = Endpoint { endpoint: None, ..endpoint("") };
    let error = without.client_of(example_key()).err().unwrap();
    assert!(error.to_string().contains("--endpoint"));
    assert!(endpoint("http://[::1]:9000/").client_of(example_key()).is_ok());
}

#[test]
fn a_file_of_trusted_certificates_has_to_hold_one() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (text, words) in [("", "no certificate"), ("-----BEGIN CERTIFICATE-----\nAA\n", "")] {
        std::fs::write(file.path(), text).unwrap();
        let asked = Endpoint { ca: Some(file.path().to_owned()), ..endpoint("https://host:9000") };
        let error = asked.client_of(example_key()).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
    let asked = Endpoint { ca: Some("/nowhere".into()), ..endpoint("https://host:9000") };
    assert!(asked.client_of(example_key()).is_err());
}
