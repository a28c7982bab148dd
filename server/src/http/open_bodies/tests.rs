//! Cut connections over real sockets: what a client that does not read still gets, and who is left
//! alone.
//!
//! Every test runs on one thread, and `cut` is called on it: no task of the node runs before it
//! returns. A client that does not read has a full receive buffer, so nothing is on its way to it;
//! what its kernel holds when `cut` returns is all it may ever read.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{sleep, timeout};

use super::*;
use crate::http::{Answer, BoxError, Drain, Handler, Peer, ResponseBody, Settings, Shared, serve};
use crate::limits::{Limits, RequestBody};
use crate::tls::Tls;
use crate::tls::tests::{FIRST, connector, write_files};

const LONG: Duration = Duration::from_secs(30);
/// More than all buffers on the way to a client that does not read.
const BIG: usize = 64 << 20;
/// Less than the kernel takes from us at once, more than the client's side takes.
const TAIL: usize = 200 << 10;
const PIECE: usize = 256 << 10;
const CLIENT_BUFFER: u32 = 4 << 10;

fn tenant_key(number: u8) -> TenantKeyId {
    TenantKeyId::from_bytes([number; 16])
}

/// Answers `/KEY/BYTES` with so many bytes under key KEY, `/KEY/BYTES/late` half a second later.
struct Stub;

impl Handler for Stub {
    fn handle(self: Arc<Self>, request: Request<RequestBody>, _: Peer) -> Answer {
        Box::pin(async move {
            let words: Vec<_> = request.uri().path().split('/').skip(1).collect();
            let (key, length) = (words[0].parse().unwrap(), words[1].parse::<usize>().unwrap());
            if words.len() > 2 {
                sleep(Duration::from_millis(500)).await;
            }
            let mut response = Response::new(body(length));
            response.headers_mut().insert("content-length", length.into());
            response.extensions_mut().insert(Plaintext { tenant_key: tenant_key(key) });
            response
        })
    }
}

fn body(length: usize) -> ResponseBody {
    let pieces = (0..length).step_by(PIECE).map(move |at| {
        let bytes = Bytes::from(vec![b'x'; PIECE.min(length - at)]);
        Ok::<_, BoxError>(Frame::data(bytes))
    });
    StreamBody::new(futures::stream::iter(pieces)).boxed_unsync()
}

struct Node {
    address: SocketAddr,
    open_bodies: OpenBodies,
}

async fn start(tls: Option<Arc<Tls>>) -> Node {
    let settings = Settings {
        limits: Limits {
            header_bytes_max: 8 << 10,
            header_timeout: LONG,
            idle_timeout: LONG,
            stall_timeout: LONG,
        },
        connections_max: 100,
        header_count_max: 50,
        http2_streams_max: 8,
        drain: LONG,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let open_bodies = OpenBodies::new();
    let shared = Shared::new(Arc::new(Stub), settings, Drain::new()).await;
    tokio::spawn(serve(listener, tls, Arc::new(shared.with_open_bodies(open_bodies.clone()))));
    Node { address, open_bodies }
}

impl Node {
    /// A client with a small receive buffer.
    async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(CLIENT_BUFFER).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// A client that asked and does not read; its and the node's buffers are as full as they get.
    async fn ask(&self, path: &str, headers: &str) -> TcpStream {
        let mut socket = self.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(200)).await;
        socket
    }

    /// Cuts, and tells what `socket`'s own kernel held when that was done.
    fn cut(&self, key: u8, socket: &TcpStream) -> u64 {
        self.open_bodies.cut(tenant_key(key));
        rustix::io::ioctl_fionread(socket).unwrap()
    }
}

/// Reads to the end. `Err` holds what came before the reset.
async fn read(socket: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<usize, usize> {
    let (mut count, mut piece) = (0, vec![0; 64 << 10]);
    loop {
        match timeout(LONG, socket.read(&mut piece)).await.unwrap() {
            Ok(0) => return Ok(count),
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Err(count),
            Err(error) => panic!("{error}"),
        }
    }
}

fn held(count: u64) -> Result<usize, usize> {
    Err(usize::try_from(count).unwrap())
}

#[tokio::test]
async fn an_open_download_ends_with_what_the_client_has() {
    let node = start(None).await;
    let mut socket = node.ask(&format!("/1/{BIG}"), "").await;
    let at_return = node.cut(1, &socket);
    assert!(at_return > 0, "the download had begun");
    assert_eq!(read(&mut socket).await, held(at_return));
}

#[tokio::test]
async fn a_body_that_has_ended_is_cut_while_the_kernel_holds_some_of_it() {
    let node = start(None).await;
    for headers in ["", "connection: close\r\n"] {
        let mut socket = node.ask(&format!("/1/{TAIL}"), headers).await;
        let at_return = node.cut(1, &socket);
        assert!(at_return < TAIL as u64 / 2, "{at_return} bytes had come: nothing to cut");
        assert_eq!(read(&mut socket).await, held(at_return), "{headers}");
    }
}

#[tokio::test]
async fn a_socket_that_is_being_closed_is_cut_however_slow_its_client() {
    let node = start(None).await;
    let mut socket = node.ask(&format!("/1/{TAIL}"), "connection: close\r\n").await;
    // The node's patience with a client that does not close has run out.
    sleep(Duration::from_millis(2_500)).await;
    let at_return = node.cut(1, &socket);
    assert_eq!(read(&mut socket).await, held(at_return));
    // Without a cut the client would have had all of it.
    let mut slow = node.ask(&format!("/2/{TAIL}"), "connection: close\r\n").await;
    sleep(Duration::from_millis(2_500)).await;
    assert!(read(&mut slow).await.unwrap() > TAIL);
}

#[tokio::test]
async fn an_answer_that_comes_up_after_the_cut_is_not_sent() {
    let node = start(None).await;
    let mut socket = node.ask("/1/10/late", "").await;
    assert_eq!(node.cut(1, &socket), 0);
    assert_eq!(read(&mut socket).await, Err(0));
    // A request that begins after it is the gate's to refuse, or the key's to serve again.
    let mut later = node.ask("/1/10/late", "connection: close\r\n").await;
    assert!(read(&mut later).await.unwrap() > 10);
}

#[tokio::test]
async fn a_client_that_has_read_everything_is_left_alone() {
    let node = start(None).await;
    let mut socket = node.ask("/1/10", "").await;
    let mut piece = [0; 1_024];
    let count = socket.read(&mut piece).await.unwrap();
    assert!(piece[..count].ends_with(b"xxxxxxxxxx"), "the answer came in one piece");
    assert_eq!(node.cut(1, &socket), 0);
    let next = b"GET /1/20 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    socket.write_all(next).await.unwrap();
    assert!(read(&mut socket).await.unwrap() > 20);
}

#[tokio::test]
async fn downloads_under_other_keys_go_on() {
    let node = start(None).await;
    let mut socket = node.ask(&format!("/1/{BIG}"), "connection: close\r\n").await;
    node.cut(2, &socket);
    assert!(read(&mut socket).await.unwrap() > BIG);
    drop(socket);
    let gone = async {
        while !node.open_bodies.lock().lines.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, gone).await.expect("ended connections leave the list");
}

#[tokio::test]
async fn sixty_four_downloads_are_cut_at_once() {
    let node = start(None).await;
    let mut sockets = Vec::new();
    for _ in 0..64 {
        let mut socket = node.connect().await;
        let request = format!("GET /1/{BIG} HTTP/1.1\r\nhost: x\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    sleep(Duration::from_secs(1)).await;
    node.open_bodies.cut(tenant_key(1));
    let at_return: Vec<_> =
        sockets.iter().map(|it| rustix::io::ioctl_fionread(it).unwrap()).collect();
    for (socket, at_return) in sockets.iter_mut().zip(at_return) {
        assert_eq!(read(socket).await, held(at_return));
    }
}

#[tokio::test]
async fn tls_is_cut_below_its_records() {
    let folder = tempfile::tempdir().unwrap();
    let node = start(Some(Tls::open(write_files(folder.path(), FIRST)).unwrap())).await;
    let name = rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let mut socket = connector(FIRST.0).connect(name, node.connect().await).await.unwrap();
    let request = format!("GET /1/{BIG} HTTP/1.1\r\nhost: x\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    let at_return = node.cut(1, socket.get_ref().0);
    let got = read(&mut socket).await.unwrap_err();
    assert!(got as u64 <= at_return, "{got} bytes of plaintext in {at_return} of ciphertext");
}

#[tokio::test]
async fn http_2_is_cut_with_all_its_requests() {
    let node = start(None).await;
    let io = hyper_util::rt::TokioIo::new(node.connect().await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut bodies = Vec::new();
    for key in [1, 2] {
        let uri = format!("http://localhost/{key}/{BIG}");
        let request = Request::get(uri).body(Full::<Bytes>::default()).unwrap();
        bodies.push(sender.send_request(request).await.unwrap().into_body());
    }
    node.open_bodies.cut(tenant_key(1));
    for body in bodies {
        timeout(LONG, body.collect()).await.unwrap().unwrap_err();
    }
    driver.await.unwrap().unwrap_err();
}
