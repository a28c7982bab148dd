//! What is put on record of every change to who may get in.
//!
//! Owns: the target of these log lines, and how they name the operator. Knows nothing of: secrets;
//! no value here comes from one.

use std::fmt;
use std::path::Path;

use kluis_kms::TenantId;

use crate::auth::Operator;
use crate::http::Peer;

/// The target of the lines. They are logged at every level: `logging.rs`.
pub(crate) const TARGET: &str = "kluis::admin";

/// Who asked for a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A process with this uid, on the socket.
    Uid(u32),
    /// The holder of a client certificate.
    Tls,
}

impl Asker {
    pub(super) fn new(peer: &Peer) -> Self {
        peer.operator.map_or(Self::Tls, |operator: Operator| Self::Uid(operator.uid()))
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uid(uid) => uid.fmt(f),
            Self::Tls => f.write_str("tls"),
        }
    }
}

/// Records that access was given: somebody can get in with it from now on.
pub(super) fn record_given(
    who: Asker,
    change: &'static str,
    tenant: TenantId,
    access_key_id: &str,
) {
    tracing::warn!(target: TARGET, %who, change, %tenant, access_key_id, "access given");
}

/// Records that an access key was taken away.
pub(super) fn record_revoked(who: Asker, tenant: TenantId, access_key_id: &str) {
    let change = "access key revoked";
    tracing::warn!(target: TARGET, %who, change, %tenant, access_key_id, "access taken");
}

/// Records a change to a tenant that concerns no access key.
pub(super) fn record_change(who: Asker, change: &'static str, tenant: TenantId) {
    tracing::warn!(target: TARGET, %who, change, %tenant, "tenant changed");
}

/// Records that a copy of the node was asked for.
pub(super) fn record_backup(who: Asker, to: &Path) {
    tracing::warn!(target: TARGET, %who, change = "backup", to = %to.display(), "backup asked for");
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use kluis_kms::env::SeededRng;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_change_is_one_line_that_says_who_and_what() {
        let tenant = TenantId::random(&SeededRng::new(1));
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            record_given(Asker::Uid(7), "access key created", tenant, "AKIAONE");
            record_revoked(Asker::Tls, tenant, "AKIATWO");
            record_change(Asker::Tls, "tenant suspended", tenant);
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(found.len(), 3, "{text}");
        for (line, who, what) in [
            (found[0], "\"7\"", "AKIAONE"),
            (found[1], "\"tls\"", "AKIATWO"),
            (found[2], "\"tls\"", "tenant suspended"),
        ] {
            assert!(line.contains(&format!("\"who\":{who}")) && line.contains(what), "{line}");
            assert!(line.contains(&tenant.to_string()) && line.contains(TARGET), "{line}");
        }
    }

    #[test]
    fn an_asker_is_a_uid_or_a_certificate() {
        let mut peer = Peer { address: None, is_tls: true, operator: None };
        assert_eq!(Asker::new(&peer).to_string(), "tls");
        peer.operator = Some(Operator::from_admin_socket(7));
        assert_eq!(Asker::new(&peer).to_string(), "7");
    }
}
