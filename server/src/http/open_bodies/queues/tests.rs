//! The kernel's table: what its lines say, and that a real socket's line is found.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;

const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:07E8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1521 1 x
   1: 0100007F:A1B2 0100007F:07E8 01 002AD000:00000010 01:00000014 00000000     0        0 77 2 x
   2: cut short
";

#[test]
fn lines_tell_inode_and_send_queue() {
    assert_eq!(parse(TABLE), [(1521, 0), (77, 0x2a_d000)]);
}

#[test]
fn a_real_socket_is_empty_until_its_client_stops_reading() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    assert!(SendQueues::default().is_empty_of(&socket));
    socket.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(count) = socket.write(&vec![0; 64 << 10]) {
        sent += count;
    }
    assert!(!SendQueues::default().is_empty_of(&socket));
    let mut read = vec![0; sent];
    client.read_exact(&mut read).unwrap();
    // The acknowledgement of the last bytes may be under way.
    while !SendQueues::default().is_empty_of(&socket) {
        std::thread::yield_now();
    }
}

#[test]
fn what_is_in_no_table_is_not_known_to_be_empty() {
    let file = tempfile::tempfile().unwrap();
    assert!(!SendQueues::default().is_empty_of(&file));
}
