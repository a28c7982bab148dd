//! `flips`: single bits of what lies on disk, flipped; every flip has to be noticed.
//!
//! `flips --seed N --count N` takes sealed chunks and manifests of random content and flips one
//! random bit of each in turn, `count` times, and flips *every* bit of superblocks and extent
//! headers of every shape (docs/FORMAT.md). A flip is noticed if the checksum differs and, where
//! there is a tag, decryption refuses. One line of JSON tells what was done; the status is 1 if a
//! flip went unnoticed.
//!
//! Owns: drawing content, flipping, judging. Knows nothing of: files, nodes.
//!
//! Invariants
//! - The same seed and count flip the same bits.
//! - What is not flipped is read as it was written: a judge that refuses everything has failed.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

use kluis_kms::{
    CHUNK_SHIFT, ChunkPosition, ContentScope, DataKey, Rng, SeededRng, StreamKey, TAG_BYTES,
    TenantId, random_array,
};
use kluis_storage::format::{
    ChunkLayout, ExtentHeader, ExtentId, RecordBody, Superblock, VolumeId, crc32c,
};
use kluis_storage::{NsId, StreamId};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Bytes of the largest chunk whose bits are flipped one at a time; larger ones are drawn rarely.
const SMALL_BYTES: u64 = 512;
/// One chunk in so many is a full one.
const FULL_EVERY: u64 = 64;
/// Flips of one chunk before the next is drawn: sealing costs more than opening.
const FLIPS_OF_ONE: u64 = 32;

/// What was flipped, and what nobody noticed.
#[derive(Default)]
struct Tally {
    header_flips: u64,
    payload_flips: u64,
    manifest_flips: u64,
    violations: u64,
}

impl Tally {
    fn judge(&mut self, is_noticed: bool) {
        self.violations += u64::from(!is_noticed);
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "flips: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Outcome<u64> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["--seed", seed, "--count", count] = words.as_slice() else {
        return Err("usage: flips --seed N --count N".into());
    };
    let (seed, count) = (seed.parse()?, count.parse()?);
    let mut dice = Dice(SeededRng::new(seed));
    let mut tally = Tally::default();
    flip_headers(&mut dice, &mut tally);
    flip_payloads(&mut dice, count, &mut tally)?;
    let Tally { header_flips, payload_flips, manifest_flips, violations } = tally;
    writeln!(
        std::io::stdout(),
        "{{\"row\":\"flips\",\"sequences\":{},\"seeds\":[{seed},{seed}],\"faults\":{{\"header \
         bits\":{header_flips},\"payload bits\":{payload_flips},\"manifest bits\":\
         {manifest_flips}}},\"states\":{{}},\"violations\":{violations}}}",
        header_flips + payload_flips + manifest_flips,
    )?;
    Ok(violations)
}

struct Dice(SeededRng);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        u64::from_le_bytes(random_array(&self.0)) % bound.max(1)
    }

    fn bytes(&mut self, count: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(count).unwrap_or_default()];
        self.0.fill(&mut bytes);
        bytes
    }

    fn id(&mut self) -> [u8; 16] {
        random_array(&self.0)
    }
}

/// Flips bit `bit` of `bytes`; a second call undoes it.
fn flip(bytes: &mut [u8], bit: u64) {
    let place = usize::try_from(bit / 8).unwrap_or(usize::MAX);
    if let Some(byte) = bytes.get_mut(place) {
        *byte ^= 1 << (bit % 8);
    }
}

fn bits(bytes: &[u8]) -> u64 {
    8 * bytes.len() as u64
}

/// Every bit of every kind of header.
fn flip_headers(dice: &mut Dice, tally: &mut Tally) {
    let block = superblock(dice);
    let encoded = block.encode();
    tally.judge(Superblock::decode(&encoded) == Ok(block));
    every_bit(encoded, tally, |bytes| Superblock::decode(bytes).is_err());
    let lengths = [0, 1, 4_096, 65_536, 65_537, 4 << 20];
    let extents = lengths.map(|len| extent(dice, len));
    for body in extents.into_iter().flatten().chain([RecordBody::Filler(8_192)]) {
        let (header, table) = header(dice, body);
        let encoded = header.encode(&table);
        tally.judge(ExtentHeader::decode(&encoded).is_ok_and(|(read, _)| read == header));
        every_bit(encoded, tally, |bytes| ExtentHeader::decode(bytes).is_err());
    }
}

fn every_bit(mut bytes: Vec<u8>, tally: &mut Tally, is_refused: impl Fn(&[u8]) -> bool) {
    for bit in 0..bits(&bytes) {
        flip(&mut bytes, bit);
        tally.judge(is_refused(&bytes));
        tally.header_flips += 1;
        flip(&mut bytes, bit);
    }
}

fn superblock(dice: &mut Dice) -> Superblock {
    Superblock {
        seq: dice.below(1 << 40),
        volume: VolumeId::from_bytes(dice.id()),
        segment_bytes: 256 << 20,
        pooled_families: 16,
        open_count: dice.below(1 << 20),
        incarnation_next: dice.below(1 << 40),
        meta_seq: dice.below(1 << 40),
        write_time_ms: dice.below(1 << 42),
        clean: dice.below(2) == 1,
    }
}

fn extent(dice: &mut Dice, plain_len: u64) -> Option<RecordBody> {
    let layout = ChunkLayout::for_plain_len(CHUNK_SHIFT, plain_len)?;
    let ns = NsId::from_bytes(dice.id());
    let stream = StreamId::from_bytes(dice.id());
    let number = u32::try_from(dice.below(1 << 20)).unwrap_or_default();
    let logical_off = u64::from(number) * (4 << 20);
    Some(RecordBody::Extent { id: ExtentId { ns, stream, number }, layout, logical_off })
}

fn header(dice: &mut Dice, body: RecordBody) -> (ExtentHeader, Vec<u32>) {
    let n_chunks = match &body {
        RecordBody::Extent { layout, .. } => layout.n_chunks(),
        RecordBody::Filler(_) => 0,
    };
    let table = (0..n_chunks).map(|_| u32::try_from(dice.below(1 << 32)).unwrap_or_default());
    let table = table.collect();
    let header = ExtentHeader {
        volume: VolumeId::from_bytes(dice.id()),
        segment: u32::try_from(dice.below(1 << 24)).unwrap_or_default(),
        incarnation: dice.below(1 << 40),
        rec_seq: dice.below(1 << 60),
        meta_seq: dice.below(1 << 40),
        write_time_ms: dice.below(1 << 42),
        body,
    };
    (header, table)
}

/// Random bits of sealed chunks and manifests.
fn flip_payloads(dice: &mut Dice, count: u64, tally: &mut Tally) -> Outcome<()> {
    let scope = ContentScope::new(TenantId::from_bytes(dice.id()), dice.id());
    let data_key = DataKey::generate(&dice.0)?;
    let stream_key = data_key.stream_key(&scope, &dice.id())?;
    while tally.payload_flips + tally.manifest_flips < count {
        let left = count - tally.payload_flips - tally.manifest_flips;
        flip_chunk(dice, &stream_key, left.min(FLIPS_OF_ONE), tally);
        if tally.payload_flips.is_multiple_of(8 * FLIPS_OF_ONE) {
            flip_manifest(dice, &data_key, &scope, tally);
        }
    }
    Ok(())
}

fn flip_chunk(dice: &mut Dice, key: &StreamKey, flips: u64, tally: &mut Tally) {
    let is_full = dice.below(FULL_EVERY) == 0;
    let len = if is_full { 1 << CHUNK_SHIFT } else { 1 + dice.below(SMALL_BYTES) };
    let position = ChunkPosition { index: dice.below(1 << 20), is_last: !is_full };
    let plain = dice.bytes(len);
    let mut sealed = vec![0; plain.len() + TAG_BYTES];
    key.encrypt_chunk_to(position, &plain, &mut sealed);
    let crc = crc32c(&sealed);
    let mut opened = vec![0; plain.len()];
    tally.judge(key.decrypt_chunk_to(position, &sealed, &mut opened).is_ok() && opened == plain);
    for _ in 0..flips {
        let bit = dice.below(bits(&sealed));
        flip(&mut sealed, bit);
        tally.judge(crc32c(&sealed) != crc);
        tally.judge(key.decrypt_chunk_to(position, &sealed, &mut opened).is_err());
        // What did not verify is not handed on either.
        tally.judge(opened.iter().all(|byte| *byte == 0));
        tally.payload_flips += 1;
        flip(&mut sealed, bit);
    }
}

fn flip_manifest(dice: &mut Dice, key: &DataKey, scope: &ContentScope, tally: &mut Tally) {
    let len = 1 + dice.below(SMALL_BYTES);
    let manifest = dice.bytes(len);
    let seq = u32::try_from(1 + dice.below(100)).unwrap_or(1);
    let mut sealed = key.seal_manifest(scope, seq, &manifest);
    let opened = key.open_manifest(scope, seq, &sealed);
    tally.judge(opened.is_ok_and(|opened| *opened == manifest));
    for _ in 0..FLIPS_OF_ONE {
        let bit = dice.below(bits(&sealed));
        flip(&mut sealed, bit);
        tally.judge(key.open_manifest(scope, seq, &sealed).is_err());
        tally.manifest_flips += 1;
        flip(&mut sealed, bit);
    }
    tally.judge(key.open_manifest(scope, seq + 1, &sealed).is_err());
}
