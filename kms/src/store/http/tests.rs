//! Which addresses a key store may have.

use super::*;

fn kind(url: &str, ca_file: Option<&Path>) -> Option<ErrorKind> {
    HttpClient::new(url, ca_file, Duration::from_secs(1)).err().map(|error| error.kind())
}

#[test]
fn in_clear_only_to_this_machine() {
    for url in ["http://127.0.0.1:8200", "http://[::1]:8200/bao/", "http://localhost:1"] {
        assert_eq!(kind(url, None), None, "{url}");
    }
    let refused = [
        "http://10.0.0.1:8200",
        "http://vault.example.com",
        "http://127.0.0.1.example.com",
        "https://127.0.0.1:8200",
        "ftp://127.0.0.1",
        "127.0.0.1:8200",
        "http://127.0.0.1/?x=1",
        "http://user:pass@127.0.0.1/",
        "",
        "http://",
    ];
    for url in refused {
        assert_eq!(kind(url, None), Some(ErrorKind::Refused), "{url}");
    }
}

#[test]
fn https_needs_certificates_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    assert_eq!(kind("https://store.example", Some(&file)), Some(ErrorKind::Unavailable));
    std::fs::write(&file, "no certificate").unwrap();
    assert_eq!(kind("https://store.example", Some(&file)), Some(ErrorKind::Unavailable));
}

#[test]
fn the_path_of_the_base_is_kept() {
    let client = |url| HttpClient::new(url, None, Duration::from_secs(1)).unwrap();
    assert_eq!(client("http://127.0.0.1:1/a/b/").base_path(), "/a/b");
    assert_eq!(client("http://127.0.0.1:1/").base_path(), "");
    assert_eq!(client("http://127.0.0.1:1").host(), "127.0.0.1:1");
}

#[test]
fn nobody_there_is_unavailable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = HttpClient::new(&url, None, Duration::from_secs(1)).unwrap();
    let question = Question { method: Method::GET, path: "/", headers: &[], body: &[] };
    assert_eq!(client.ask(&question).err().unwrap().kind(), ErrorKind::Unavailable);
}

#[test]
fn a_store_that_says_nothing_is_unavailable_in_time() {
    // The kernel takes the connection; nobody answers on it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let client = HttpClient::new(&url, None, Duration::from_millis(100)).unwrap();
    let question = Question { method: Method::POST, path: "/", headers: &[], body: b"{}" };
    assert_eq!(client.ask(&question).err().unwrap().kind(), ErrorKind::Unavailable);
}

#[test]
fn an_endless_answer_is_cut_off() {
    use std::io::Write as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(head.as_bytes());
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let client = HttpClient::new(&url, None, Duration::from_secs(5)).unwrap();
    let question = Question { method: Method::GET, path: "/", headers: &[], body: &[] };
    assert_eq!(client.ask(&question).err().unwrap().kind(), ErrorKind::Unavailable);
    drop(client);
    server.join().unwrap();
}
