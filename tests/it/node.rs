//! A node as a child process with a data directory of its own.
//!
//! Owns: start, stop, one plain HTTP request. Knows nothing of: S3.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

/// How often a start or a stop is looked at, and how many times before it has failed: 60 s.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS_MAX: u32 = 3_000;

/// A node, killed when dropped.
pub(crate) struct Node {
    pub(crate) folder: TempDir,
    port: u16,
    child: Child,
}

impl Node {
    /// Starts a node on a free port and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    /// Starts a node on the data of an earlier one.
    pub(crate) fn start_in(folder: TempDir) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log =
            File::options().create(true).append(true).open(folder.path().join("node.log")).unwrap();
        let child = Command::new(binary())
            .arg("serve")
            .arg(folder.path().join("data"))
            .args(["--dev", "--listen", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut node = Self { folder, port, child };
        node.wait_until("ready", |node| {
            assert!(node.child.try_wait().unwrap().is_none(), "it ended: {}", node.log());
            node.get("/health/ready").is_some_and(|reply| reply.starts_with("HTTP/1.1 200"))
        });
        node
    }

    /// The answer to a GET without credentials; none if there is no connection to be had.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut link = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        link.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
            self.port
        );
        link.write_all(request.as_bytes()).ok()?;
        let mut reply = String::new();
        link.read_to_string(&mut reply).ok()?;
        Some(reply)
    }

    /// Runs an operator's command against this node.
    pub(crate) fn command(&self, words: &[&str]) -> Output {
        let data = self.folder.path().join("data");
        Command::new(binary())
            .args(words)
            .arg("--data-dir")
            .arg(data)
            .arg("--json")
            .output()
            .unwrap()
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn stop(mut self) -> (TempDir, ExitStatus) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.wait_until("stopped", |node| node.child.try_wait().unwrap().is_some());
        let status = self.child.wait().unwrap();
        let empty = tempfile::tempdir().unwrap();
        (std::mem::replace(&mut self.folder, empty), status)
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("node.log")).unwrap_or_default()
    }

    fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let (_keep, never) = mpsc::channel::<()>();
        for _ in 0..LOOKS_MAX {
            if is_so(self) {
                return;
            }
            let _ = never.recv_timeout(LOOK);
        }
        panic!("not {what} after 60 s: {}", self.log());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `kluis check` on a data directory that no node has open.
pub(crate) fn check(folder: &TempDir) -> Output {
    Command::new(binary())
        .arg("check")
        .arg(folder.path().join("data"))
        .arg("--dev")
        .output()
        .unwrap()
}

/// The program under test: `$NODE_UNDER_TEST`, or the one built beside this test.
fn binary() -> PathBuf {
    let named = std::env::var_os("NODE_UNDER_TEST").map(PathBuf::from);
    let path = named.unwrap_or_else(|| {
        let test = std::env::current_exe().unwrap();
        test.parent().and_then(|deps| deps.parent()).unwrap().join("kluis")
    });
    assert!(path.is_file(), "no {}: cargo build --release -p kluis-server", path.display());
    path
}
