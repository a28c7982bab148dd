//! Short, interrupted, stalled and failed steps, without a kernel.

use super::*;

const KIB64: usize = 64 << 10;

fn transfer(direction: Direction) -> Transfer {
    Transfer::admit(direction, 8192, KIB64, 1 << 20).unwrap()
}

/// Feeds answers until the transfer ends; returns its result and where each step started.
fn feed(
    mut transfer: Transfer,
    answers: impl IntoIterator<Item = io::Result<usize>>,
) -> (io::Result<()>, Vec<usize>) {
    let counters = Counters::default();
    let mut positions = Vec::new();
    for answer in answers {
        positions.push(transfer.position());
        assert_eq!(transfer.file_offset(), 8192 + transfer.position() as u64);
        assert_eq!(transfer.remaining(), KIB64 - transfer.position());
        if let Step::Done(result) = transfer.step(answer, &counters) {
            return (result, positions);
        }
    }
    panic!("the transfer wants more answers than there are");
}

#[test]
fn a_whole_answer_finishes() {
    let (result, positions) = feed(transfer(Direction::Write), [Ok(KIB64)]);
    result.unwrap();
    assert_eq!(positions, [0]);
}

#[test]
fn a_short_answer_is_continued_from_the_last_block() {
    let answers = [Ok(4096), Ok(10_000), Ok(KIB64 - 12_288)];
    let (result, positions) = feed(transfer(Direction::Write), answers);
    result.unwrap();
    assert_eq!(positions, [0, 4096, 12_288]);
}

#[test]
fn an_answer_inside_a_block_moves_that_block_again() {
    let answers = [Ok(100), Ok(200), Ok(KIB64)];
    let (result, positions) = feed(transfer(Direction::Read), answers);
    result.unwrap();
    assert_eq!(positions, [0, 0, 0]);
}

#[test]
fn an_answer_that_gets_no_further_ends_it() {
    let (result, _) = feed(transfer(Direction::Read), [Ok(5000), Ok(904)]);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    let (result, _) = feed(transfer(Direction::Write), [Ok(0)]);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::WriteZero);
}

#[test]
fn an_interrupted_step_is_issued_again() {
    let interrupted = || Err(io::ErrorKind::Interrupted.into());
    let would_block = || Err(io::ErrorKind::WouldBlock.into());
    let answers = [interrupted(), Ok(4096), would_block(), Ok(KIB64 - 4096)];
    let (result, positions) = feed(transfer(Direction::Write), answers);
    result.unwrap();
    assert_eq!(positions, [0, 0, 4096, 4096]);
}

#[test]
fn endless_interruptions_are_an_error_in_the_end() {
    let interrupted = std::iter::repeat_with(|| Err(io::ErrorKind::Interrupted.into()));
    let (result, positions) = feed(transfer(Direction::Write), interrupted);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::Interrupted);
    assert_eq!(positions.len(), REISSUES_MAX as usize + 1);
}

#[test]
fn other_errors_are_final() {
    let error = io::Error::from(rustix::io::Errno::IO);
    let (result, positions) = feed(transfer(Direction::Write), [Ok(4096), Err(error)]);
    assert_eq!(result.unwrap_err().raw_os_error(), Some(rustix::io::Errno::IO.raw_os_error()));
    assert_eq!(positions, [0, 4096]);
}

#[test]
fn counters_tell_what_happened() {
    let counters = Counters::default();
    let mut write = transfer(Direction::Write);
    drop(write.step(Err(io::ErrorKind::Interrupted.into()), &counters));
    drop(write.step(Ok(4096), &counters));
    drop(write.step(Ok(KIB64), &counters));
    drop(transfer(Direction::Read).step(Err(io::ErrorKind::Other.into()), &counters));
    counters.synced(&Ok(()));
    let expected = DiskStats {
        writes: 1,
        written_bytes: KIB64 as u64,
        syncs: 1,
        errors: 1,
        continued: 1,
        reissued: 1,
        ..DiskStats::default()
    };
    assert_eq!(counters.snapshot(), expected);
}
