//! What the tests of mirrors share: a mirror over simulated disks and a witness.

use std::sync::Arc;

use tokio::runtime;

use super::super::*;
use crate::error::Result as StorageResult;
use crate::format::MirrorId;
use crate::io::sim::SimDisk;
use crate::io::{BLOCK_BYTES, BLOCK_LEN, BufClass};

/// Runs `check` on one thread, so that a seed means one run.
pub(super) fn run<T>(check: impl Future<Output = T>) -> T {
    runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(check)
}

/// The disks of one mirror.
#[derive(Clone)]
pub(super) struct Rig {
    pub(super) disks: [SimDisk; 2],
    pub(super) witness: SimDisk,
    pub(super) pool: BufPool,
}

impl Rig {
    pub(super) fn new(seed: u64) -> Self {
        let disk = |salt| SimDisk::new(seed.wrapping_mul(31).wrapping_add(salt));
        let pool = BufPool::new(8 << 20, false).unwrap();
        Self { disks: [disk(1), disk(2)], witness: disk(3), pool }
    }

    /// What a power loss leaves.
    pub(super) fn crash(&self) -> Self {
        let disks = self.disks.each_ref().map(SimDisk::crash);
        Self { disks, witness: self.witness.crash(), pool: self.pool.clone() }
    }

    pub(super) async fn open(&self) -> StorageResult<MirrorDisk> {
        let [a, b] = self.disks.clone();
        self.open_with([Some(a), Some(b)], Some(self.witness.clone())).await
    }

    pub(super) async fn open_with(
        &self,
        disks: [Option<SimDisk>; 2],
        witness: Option<SimDisk>,
    ) -> StorageResult<MirrorDisk> {
        let mut paths = ["/a", "/b"].into_iter();
        let members = disks.map(|disk| MirrorMember {
            path: paths.next().unwrap().to_owned(),
            disk: match disk {
                Some(disk) => Ok(Arc::new(disk)),
                None => Err("no such directory".to_owned()),
            },
        });
        let witness = witness.map(|disk| -> Arc<dyn Disk> { Arc::new(disk) });
        MirrorDisk::open(MirrorParts {
            members,
            witness,
            pool: self.pool.clone(),
            mirror: MirrorId::from_bytes([7; 16]),
            rebuild_bytes_per_second: u64::MAX,
        })
        .await
    }

    pub(super) async fn block(&self, byte: u8) -> Buf {
        let mut buf = self.pool.acquire(BufClass::Small).await;
        buf.set_len(BLOCK_LEN);
        buf.fill(byte);
        buf
    }

    pub(super) async fn put(
        &self,
        disk: &MirrorDisk,
        file: FileId,
        block: u64,
        byte: u8,
    ) -> io::Result<()> {
        let buf = self.block(byte).await;
        disk.write_at(file, buf, block * BLOCK_BYTES).await.1?;
        disk.sync(file).await
    }

    pub(super) async fn get(&self, disk: &MirrorDisk, file: FileId, block: u64) -> io::Result<u8> {
        let buf = self.block(0xEE).await;
        let (buf, read) = disk.read_at(file, buf, block * BLOCK_BYTES).await;
        read?;
        let byte = buf[0];
        assert!(buf.iter().all(|it| *it == byte), "one block, one byte");
        Ok(byte)
    }
}

/// A file of `blocks` blocks.
pub(super) async fn create(disk: &MirrorDisk, name: &str, blocks: u64) -> FileId {
    disk.open(name, OpenMode::Create { len: blocks * BLOCK_BYTES }).await.unwrap()
}

pub(super) fn states(disk: &MirrorDisk) -> [MemberState; 2] {
    let states: Vec<_> = disk.status().members.iter().map(|member| member.state).collect();
    states.try_into().unwrap()
}

/// Waits for the end of the rebuild.
pub(super) async fn rebuilt(disk: &MirrorDisk) -> RebuildStatus {
    loop {
        let status = disk.status().rebuild.unwrap();
        if status.state != RebuildState::Running {
            return status;
        }
        tokio::task::yield_now().await;
    }
}
