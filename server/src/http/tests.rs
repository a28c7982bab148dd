//! Limits and manners of a listener, over real sockets, with a handler that stands in for S3.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::StatusCode;
use http_body_util::{BodyExt as _, Empty, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::limits::BodyFault;

const HEADER_TIMEOUT: Duration = Duration::from_millis(300);
const IDLE_TIMEOUT: Duration = Duration::from_millis(500);
const STALL_TIMEOUT: Duration = Duration::from_millis(300);

/// Answers by path: `/early` refuses without reading, `/slow` takes a second, `/big` sends 64 MiB,
/// anything else reads the body and tells its length.
struct Stub {
    bodies_begun: AtomicUsize,
}

fn full(status: StatusCode, text: String) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("etag", http::HeaderValue::from_static("\"x\""));
    response.headers_mut().insert("x-amz-request-id", http::HeaderValue::from_static("1"));
    response
}

impl Handler for Stub {
    fn handle(self: Arc<Self>, request: Request<RequestBody>, _: Peer) -> Answer {
        Box::pin(async move {
            match request.uri().path() {
                "/early" => full(StatusCode::FORBIDDEN, "no".to_owned()),
                "/slow" => {
                    sleep(Duration::from_secs(1)).await;
                    full(StatusCode::OK, "late".to_owned())
                }
                "/big" => full(StatusCode::OK, "x".repeat(64 << 20)),
                _ => {
                    self.bodies_begun.fetch_add(1, Ordering::SeqCst);
                    match request.into_body().collect().await {
                        Ok(body) => full(StatusCode::OK, body.to_bytes().len().to_string()),
                        Err(BodyFault::Stalled) => full(StatusCode::BAD_REQUEST, "stalled".into()),
                        Err(BodyFault::Broken(_)) => full(StatusCode::BAD_REQUEST, "broken".into()),
                    }
                }
            }
        })
    }
}

struct Node {
    address: SocketAddr,
    drain: Drain,
    stub: Arc<Stub>,
    served: tokio::task::JoinHandle<()>,
}

fn settings() -> Settings {
    Settings {
        limits: Limits {
            header_bytes_max: 8 << 10,
            header_timeout: HEADER_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            stall_timeout: STALL_TIMEOUT,
        },
        connections_max: 4,
        header_count_max: 50,
        http2_streams_max: 8,
        drain: Duration::from_millis(400),
    }
}

async fn start(settings: Settings, tls: Option<Arc<Tls>>) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stub = Arc::new(Stub { bodies_begun: AtomicUsize::new(0) });
    let drain = Drain::new();
    let handler: Arc<dyn Handler> = Arc::<Stub>::clone(&stub);
    let shared = Arc::new(Shared::new(handler, settings, drain.clone()).await);
    let served = tokio::spawn(serve(listener, tls, shared));
    Node { address, drain, stub, served }
}

async fn plain() -> Node {
    start(settings(), None).await
}

/// Sends `bytes` and reads until the node closes.
async fn exchange(node: &Node, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    // A node that refuses may close before it has taken everything.
    let _ = socket.write_all(bytes).await;
    read_all(&mut socket).await
}

async fn read_all(socket: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = timeout(Duration::from_secs(5), socket.read_to_end(&mut text)).await.unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn names_are_spelled_as_aws_spells_them() {
    let node = plain().await;
    let answer = exchange(&node, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    for line in
        ["\r\nETag: \"x\"", "\r\nContent-Length: 1", "\r\nDate: ", "\r\nx-amz-request-id: 1"]
    {
        assert!(answer.contains(line), "{answer}");
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let node = plain().await;
    let answer = exchange(
        &node,
        b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc\
          PUT / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n\
          5\r\nabcde\r\n0\r\n\r\n",
    )
    .await;
    assert_eq!(answer.matches("200 OK").count(), 2, "{answer}");
    assert!(answer.ends_with("\r\n\r\n5"), "{answer}");
}

#[tokio::test]
async fn a_header_flood_is_told_431() {
    let node = plain().await;
    let flood = format!("GET / HTTP/1.1\r\nhost: x\r\nx-flood: {}\r\n\r\n", "y".repeat(1 << 20));
    assert!(exchange(&node, flood.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let endless = format!("GET / HTTP/1.1\r\nhost: x\r\nx-flood: {}", "y".repeat(20 << 10));
    assert!(exchange(&node, endless.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let lines = "x-y: z\r\n".repeat(60);
    let many = format!("GET / HTTP/1.1\r\nhost: x\r\n{lines}\r\n");
    assert!(exchange(&node, many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn a_half_open_connection_is_closed() {
    let node = plain().await;
    let begun = Instant::now();
    assert_eq!(exchange(&node, b"").await, "");
    assert!(begun.elapsed() >= HEADER_TIMEOUT, "closed too early");
}

#[tokio::test]
async fn a_slow_header_is_told_408_however_it_drips() {
    let node = plain().await;
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    let (mut read, mut write) = socket.split();
    let drip = async {
        for byte in b"GET / HTTP/1.1\r\nhost: abcdefghijklmnopqrstuvwxyz".iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let mut answer = Vec::new();
    let reading = read.read_to_end(&mut answer);
    tokio::select! {
        _ = reading => {}
        () = drip => {}
        () = sleep(Duration::from_secs(3)) => panic!("still open"),
    }
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let node = plain().await;
    let begun = Instant::now();
    let answer = exchange(&node, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(begun.elapsed() >= IDLE_TIMEOUT, "closed too early");
}

#[tokio::test]
async fn a_stopped_request_body_is_an_error() {
    let node = plain().await;
    let answer =
        exchange(&node, b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("stalled"), "{answer}");
}

#[tokio::test]
async fn a_slow_but_steady_request_body_is_served() {
    let node = plain().await;
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    let piece = [b'x'; STALL_PIECE];
    let header = format!(
        "PUT / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        6 * STALL_PIECE
    );
    socket.write_all(header.as_bytes()).await.unwrap();
    for _ in 0..6 {
        sleep(STALL_TIMEOUT / 3).await;
        socket.write_all(&piece).await.unwrap();
    }
    assert!(read_all(&mut socket).await.contains("200 OK"));
}

/// More than a stall window in one piece.
const STALL_PIECE: usize = 10 << 10;

#[tokio::test]
async fn a_client_that_takes_no_answer_is_dropped() {
    let node = plain().await;
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    socket.write_all(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    sleep(STALL_TIMEOUT * 5).await;
    let mut text = Vec::new();
    let _ = timeout(Duration::from_secs(5), socket.read_to_end(&mut text)).await.unwrap();
    assert!(text.len() < 64 << 20, "all {} bytes came", text.len());
}

#[tokio::test]
async fn slow_work_of_the_server_is_not_held_against_the_client() {
    let node = plain().await;
    let answer =
        exchange(&node, b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("late"), "{answer}");
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let node = plain().await;
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    socket
        .write_all(b"PUT /early HTTP/1.1\r\nhost: x\r\ncontent-length: 8388608\r\n\r\n")
        .await
        .unwrap();
    socket.write_all(&vec![0; 8 << 20]).await.unwrap();
    let answer = read_all(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("no"), "{answer}");
    assert_eq!(node.stub.bodies_begun.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn continue_is_sent_when_the_body_is_wanted_and_not_before() {
    let node = plain().await;
    let head = b"PUT /early HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
        content-length: 3\r\n\r\n";
    let refused = exchange(&node, head).await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    let head = String::from_utf8(head.to_vec()).unwrap().replace("/early", "/");
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut line = [0; 25];
    socket.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"abc").await.unwrap();
    assert!(read_all(&mut socket).await.contains("200 OK"));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let node = plain().await;
    let mut open = Vec::new();
    for _ in 0..settings().connections_max {
        open.push(TcpStream::connect(node.address).await.unwrap());
    }
    sleep(Duration::from_millis(50)).await;
    let waiting = exchange(&node, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut waiting = std::pin::pin!(waiting);
    assert!(timeout(Duration::from_millis(100), waiting.as_mut()).await.is_err());
    open.clear();
    assert!(waiting.await.contains("200 OK"));
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_takes_no_new_ones() {
    let mut long = settings();
    long.drain = Duration::from_secs(5);
    let node = start(long, None).await;
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    socket.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut idle = TcpStream::connect(node.address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(100)).await;
    node.drain.begin();
    assert!(read_all(&mut idle).await.contains("200 OK"));
    assert!(read_all(&mut socket).await.ends_with("late"));
    node.served.await.unwrap();
    TcpStream::connect(node.address).await.unwrap_err();
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let node = plain().await;
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    socket.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    sleep(Duration::from_millis(50)).await;
    node.drain.begin();
    node.served.await.unwrap();
    // The answer was still to come when the drain gave up.
    assert_eq!(read_all(&mut socket).await, "");
}

#[tokio::test]
async fn tls_speaks_http_1_and_2() {
    let folder = tempfile::tempdir().unwrap();
    let files = crate::tls::tests::write_files(folder.path(), crate::tls::tests::FIRST);
    let node = start(settings(), Some(Tls::open(files).unwrap())).await;
    let connect = || async {
        let socket = TcpStream::connect(node.address).await.unwrap();
        let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
        let connector = crate::tls::tests::connector(crate::tls::tests::FIRST.0);
        connector.connect(name, socket).await.unwrap()
    };
    let mut socket = connect().await;
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    assert!(text.contains("200 OK"), "{text}");

    let io = hyper_util::rt::TokioIo::new(connect().await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::get("https://localhost/").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "0");
    drop(sender);
    driver.abort();
}
