//! What a chunk costs: encrypt and decrypt, in place and from one buffer to another.
//!
//! `cargo bench --profile release -p kluis-benches` runs it; how to read the figures is in
//! README.md.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kluis_kms::{ChunkPosition, ContentScope, DataKey, OsRng, StreamKey, TenantId};

const TAG_BYTES: usize = 16;
const SIZES: [usize; 3] = [4 << 10, 16 << 10, 64 << 10];

fn stream_key() -> StreamKey {
    let scope = ContentScope::new(TenantId::from_bytes([1; 16]), [2; 16]);
    let data_key = DataKey::generate(&OsRng).expect("locked memory for one key");
    data_key.stream_key(&scope, &[3; 16]).expect("locked memory for one key")
}

fn chunks(criterion: &mut Criterion) {
    let key = stream_key();
    let last = ChunkPosition { index: 0, is_last: true };
    let mut group = criterion.benchmark_group("chunk");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let plain = vec![7_u8; size];
        let mut sealed = vec![0_u8; size + TAG_BYTES];
        group.bench_function(BenchmarkId::new("encrypt_in_place", size), |bencher| {
            let mut buffer = plain.clone();
            bencher.iter(|| black_box(key.encrypt_chunk(last, black_box(&mut buffer))));
        });
        group.bench_function(BenchmarkId::new("encrypt_to", size), |bencher| {
            bencher.iter(|| key.encrypt_chunk_to(last, black_box(&plain), black_box(&mut sealed)));
        });
        key.encrypt_chunk_to(last, &plain, &mut sealed);
        let mut out = vec![0_u8; size];
        group.bench_function(BenchmarkId::new("decrypt_to", size), |bencher| {
            bencher.iter(|| {
                key.decrypt_chunk_to(last, black_box(&sealed), black_box(&mut out))
                    .expect("what was just encrypted");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, chunks);
criterion_main!(benches);
