//! The Unix socket `admin.sock`, and who may talk through it.
//!
//! Owns: its path and its access check. Knows nothing of: what is said.
//!
//! Invariants
//! - Only root and the user that runs the node are served; the kernel says who is at the other end
//!   (`SO_PEERCRED`), whatever the permissions of the file and its folder.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::auth::Operator;
use crate::http::{Drain, Peer, Shared, finish, serve_one};

/// The name of the socket in the data directory.
const SOCKET_NAME: &str = "admin.sock";
/// Connections open at one time; operators are few.
const CONNECTIONS_MAX: usize = 64;
/// The longest path that a socket address takes (`sockaddr_un`, unix(7)), without its final zero.
const PATH_BYTES_MAX: usize = 107;

/// Where the socket of a data directory is.
pub(crate) fn socket_path(data: &Path) -> PathBuf {
    data.join(SOCKET_NAME)
}

/// A path to the socket that is short enough, and the open folder that it may go through.
pub(super) fn reachable_path(data: &Path) -> io::Result<(PathBuf, Option<File>)> {
    let path = socket_path(data);
    if path.as_os_str().len() <= PATH_BYTES_MAX {
        return Ok((path, None));
    }
    let folder = File::open(data)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET_NAME}", folder.as_raw_fd()));
    Ok((short, Some(folder)))
}

/// Makes the socket, in place of one that a dead node left. The caller holds the directory's lock.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn bind(data: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(socket_path(data)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (path, _folder) = reachable_path(data)?;
    UnixListener::bind(path)
}

/// Serves the socket until the drain has ended.
pub(crate) async fn serve_socket(listener: UnixListener, shared: Arc<Shared>, drain: Drain) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let own_uid = rustix::process::geteuid().as_raw();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = drain.begun() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((socket, permit)) = accepted else {
            continue;
        };
        let Some(operator) = operator_of(&socket, own_uid) else {
            continue;
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let peer = Peer { address: None, is_tls: false, operator: Some(operator) };
            serve_one(socket, peer, &shared).await;
            drop(permit);
        });
    }
    drop(listener);
    finish(connections, shared.drain_time()).await;
}

type Accepted = (UnixStream, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &UnixListener, permits: &Arc<Semaphore>) -> Option<Accepted> {
    let permit = Arc::clone(permits).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, _)) => Some((socket, permit)),
        Err(error) => {
            tracing::warn!(%error, "accept on the admin socket failed");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            None
        }
    }
}

/// The operator behind a connection, if it is one.
fn operator_of(socket: &UnixStream, own_uid: u32) -> Option<Operator> {
    let uid = match socket.peer_cred() {
        Ok(credentials) => credentials.uid(),
        Err(error) => {
            tracing::warn!(%error, "the peer of the admin socket is unknown");
            return None;
        }
    };
    if uid == own_uid || uid == 0 {
        return Some(Operator::from_admin_socket(uid));
    }
    tracing::warn!(uid, "refused on the admin socket: neither root nor the user of the node");
    None
}
