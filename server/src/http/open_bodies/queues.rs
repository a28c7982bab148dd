//! What the kernel has not brought to the other side yet.
//!
//! Linux tells the bytes of a socket that are unsent or unacknowledged by an ioctl, which safe code
//! cannot make, and in `/proc/net/tcp` (proc(5)), which it can read. Owns: reading that table.

use std::collections::HashMap;
use std::os::fd::AsFd;

/// The tables of this process's network, for sockets of either address family.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
/// The fields `tx_queue:rx_queue` and `inode` of a line, counted from 0.
const QUEUES_FIELD: usize = 4;
const INODE_FIELD: usize = 9;

/// The send queues of all sockets, read when first asked for.
#[derive(Default)]
pub(super) struct SendQueues(Option<HashMap<u64, u64>>);

impl SendQueues {
    /// Whether the other side has acknowledged everything. `false` where that cannot be known.
    pub(super) fn is_empty_of(&mut self, socket: impl AsFd) -> bool {
        let Ok(status) = rustix::fs::fstat(socket) else {
            return false;
        };
        let queues = self.0.get_or_insert_with(read);
        queues.get(&status.st_ino) == Some(&0)
    }
}

fn read() -> HashMap<u64, u64> {
    let tables = TABLES.into_iter().filter_map(|path| std::fs::read_to_string(path).ok());
    tables.flat_map(|table| parse(&table)).collect()
}

/// Inode and bytes in the send queue of each line that has both; the heading has neither.
fn parse(table: &str) -> Vec<(u64, u64)> {
    let line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let queues = fields.nth(QUEUES_FIELD)?;
        let inode = fields.nth(INODE_FIELD - QUEUES_FIELD - 1)?.parse().ok()?;
        let (unsent, _) = queues.split_once(':')?;
        Some((inode, u64::from_str_radix(unsent, 16).ok()?))
    };
    table.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests;
