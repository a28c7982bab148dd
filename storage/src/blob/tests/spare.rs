//! Spare segments are made in the background and used.

use std::time::Duration;

use super::*;

fn prewriting() -> VolumeConfig {
    VolumeConfig { prewrite: true, ..config(4 * MIB + MIB) }
}

/// Waits until `done`, or for longer than anything here takes.
async fn until(done: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits for as long as the janitor would take to make a spare.
async fn wait() {
    tokio::time::sleep(Duration::from_millis(80)).await;
}

/// Fills most of a segment; which one.
async fn fill_one(volume: &Volume, number: u32) -> u32 {
    let placed = [put_streamed(volume, number, 4 * MIB).await.unwrap()];
    volume.flush(&placed).await.unwrap();
    placed[0].location().segment()
}

fn free(volume: &Volume) -> Vec<u32> {
    let rows = volume.segments().into_iter();
    rows.filter(|row| row.state == SegmentState::Free).map(|row| row.segment).collect()
}

#[test]
fn a_new_node_makes_no_spare_and_a_busy_one_keeps_two() {
    run(async {
        let sim = SimDisk::new(1);
        let rig = Rig::new(sim.clone(), 1);
        let (volume, _) = rig.open_with(prewriting()).await.unwrap();
        drop(put_packed(&volume, &rig.pool, 1, 5_000).await.unwrap());
        wait().await;
        assert_eq!(volume.usage().allocated_bytes, 5 * MIB);
        fill_one(&volume, 2).await;
        volume.wake_janitor();
        until(|| volume.usage().segments_free == 1).await;
        wait().await;
        assert_eq!(volume.usage().segments_free, 1, "its first segment is half full");
        fill_one(&volume, 3).await;
        until(|| volume.usage().segments_free == 2).await;
        wait().await;
        assert_eq!(volume.usage().segments_free, 2, "it has filled one");
        let spares = free(&volume);
        assert!(spares.contains(&fill_one(&volume, 4).await), "a spare was used");
        until(|| volume.usage().segments_free == 2).await;
        assert_eq!(volume.usage().segments_free, 2);
    });
}

#[test]
fn a_spare_in_the_making_is_finished_after_a_restart() {
    run(async {
        let sim = SimDisk::new(2);
        let rig = Rig::new(sim.clone(), 2);
        let (volume, _) = rig.open_with(prewriting()).await.unwrap();
        fill_one(&volume, 1).await;
        volume.wake_janitor();
        until(|| volume.usage().allocated_bytes > 5 * MIB).await;
        assert!(rig.table.load().unwrap().iter().all(|row| row.state != SegmentState::Free));
        let rig = rig.after(sim.crash());
        let (volume, _) = rig.open_with(prewriting()).await.unwrap();
        assert_eq!(volume.usage().segments_free, 1, "made, not zeroed");
        assert_eq!(fill_one(&volume, 2).await, 1, "it was used");
    });
}

#[test]
fn no_space_for_a_spare_harms_nobody() {
    run(async {
        let sim = SimDisk::with(SimConfig { seed: 3, capacity_bytes: 6 * MIB });
        let rig = Rig::new(sim, 3);
        let (volume, _) = rig.open_with(prewriting()).await.unwrap();
        fill_one(&volume, 1).await;
        volume.wake_janitor();
        wait().await;
        assert!(!volume.is_fenced());
        drop(put_packed(&volume, &rig.pool, 2, 5_000).await.unwrap());
    });
}

#[test]
fn a_failed_write_to_a_spare_fences() {
    run(async {
        let sim = SimDisk::new(4);
        let rig = Rig::new(sim.clone(), 4);
        let (volume, _) = rig.open_with(prewriting()).await.unwrap();
        fill_one(&volume, 1).await;
        sim.inject(SimOp::Write, 0, SimFault::Eio);
        volume.wake_janitor();
        until(|| volume.is_fenced()).await;
        assert!(volume.is_fenced());
    });
}
