//! What the program promises of itself: it starts, tells the truth, stops, and refuses strangers.

use crate::node::{Node, check};

#[test]
fn a_node_starts_stops_cleanly_and_starts_again() {
    let node = Node::start();
    let (folder, status) = node.stop();
    assert!(status.success(), "{status}");
    let clean = check(&folder);
    assert!(clean.status.success(), "{}", String::from_utf8_lossy(&clean.stderr));
    let again = Node::start_in(folder);
    assert!(again.stop().1.success());
}

#[test]
fn a_tenant_is_made_once_and_told_its_secret_once() {
    let node = Node::start();
    let made = node.command(&["tenant", "create", "first"]);
    let told = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for field in ["tenant_id", "account_id", "name", "access_key_id", "secret_access_key"] {
        assert!(told.contains(&format!("\"{field}\"")), "no {field} in {told}");
    }
    let again = node.command(&["tenant", "create", "first"]);
    assert!(!again.status.success(), "a second tenant of the same name was made");
    let shown = node.command(&["tenant", "show", "first"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("first") && !shown.contains("secret"), "{shown}");
}

#[test]
fn a_request_without_credentials_is_refused_with_a_request_id() {
    let node = Node::start();
    let reply = node.get("/bucket/object").unwrap();
    assert!(reply.starts_with("HTTP/1.1 403"), "{reply}");
    assert!(reply.contains("<Code>AccessDenied</Code>"), "{reply}");
    assert!(reply.to_ascii_lowercase().contains("x-amz-request-id: "), "{reply}");
}

#[test]
fn metrics_name_the_backend_that_carries_the_bytes() {
    let node = Node::start();
    let reply = node.get("/metrics").unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    let named = |kind: &str| reply.contains(&format!("kluis_io_backend{{kind=\"{kind}\"}} 1\n"));
    assert!(named("ring") != named("threads"), "{reply}");
}

#[test]
fn check_says_where_to_look_when_there_is_no_data() {
    let folder = tempfile::tempdir().unwrap();
    let done = check(&folder);
    assert!(!done.status.success());
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(!told.is_empty() && !told.contains("panicked"), "{told}");
}
