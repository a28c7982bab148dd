//! `rows`: the raw rows of a stopped node's metadata, out of and into RocksDB.
//!
//! `rows dump META` prints every row as `family TAB hex key TAB hex value`. `rows edit META` reads
//! such lines and writes them, `-` as value for a deletion. What rows mean is judged elsewhere, by
//! programs that share no code with the node; this one only knows how to open the database.
//!
//! Owns: hexadecimal and the options that opening needs. Knows nothing of: keys, row formats.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, Write};

use rocksdb::{
    ColumnFamilyDescriptor, DB, IteratorMode, MergeOperands, Options, SliceTransform, WriteBatch,
    WriteOptions,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Bytes of a namespace id, by which rows of tenants are grouped (docs/FORMAT.md, "Rows").
const PREFIX_BYTES: usize = 16;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["dump", meta] => dump(meta),
        ["edit", meta] => edit(meta),
        _ => Err("usage: rows dump|edit META".into()),
    }
}

/// Opens every family that is there, read-only or for writing.
fn open(meta: &str, writes: bool) -> Outcome<(DB, Vec<String>)> {
    let options = Options::default();
    let families = DB::list_cf(&options, meta)?;
    let descriptors =
        families.iter().map(|name| ColumnFamilyDescriptor::new(name, family_options(name)));
    let db = if writes {
        DB::open_cf_descriptors(&options, meta, descriptors)?
    } else {
        DB::open_cf_descriptors_read_only(&options, meta, descriptors, false)?
    };
    Ok((db, families))
}

fn family_options(name: &str) -> Options {
    let mut options = Options::default();
    if name.starts_with("ns") {
        options.set_prefix_extractor(SliceTransform::create_fixed_prefix(PREFIX_BYTES));
    }
    if name == "gc" {
        options.set_merge_operator_associative("kluis.add.be64", add);
    }
    options
}

/// Counters are 64-bit big-endian numbers that RocksDB adds up (docs/FORMAT.md, "Rows").
fn add(_: &[u8], held: Option<&[u8]>, operands: &MergeOperands) -> Option<Vec<u8>> {
    let mut sum = 0_i64;
    for bytes in held.into_iter().chain(operands) {
        sum = sum.checked_add(i64::from_be_bytes(*bytes.first_chunk()?))?;
    }
    Some(sum.to_be_bytes().to_vec())
}

fn dump(meta: &str) -> Outcome<()> {
    let (db, families) = open(meta, false)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for name in &families {
        let family = db.cf_handle(name).ok_or("a family vanished")?;
        for row in db.iterator_cf(&family, IteratorMode::Start) {
            let (row_key, value) = row?;
            writeln!(out, "{name}\t{}\t{}", to_hex(&row_key), to_hex(&value))?;
        }
    }
    out.flush()?;
    Ok(())
}

fn edit(meta: &str) -> Outcome<()> {
    let (db, _) = open(meta, true)?;
    let mut batch = WriteBatch::default();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let [name, row_key, value] = line.split('\t').collect::<Vec<_>>()[..] else {
            return Err(format!("not a row: {line}").into());
        };
        let family = db.cf_handle(name).ok_or_else(|| format!("no family {name}"))?;
        if value == "-" {
            batch.delete_cf(&family, from_hex(row_key)?);
        } else {
            batch.put_cf(&family, from_hex(row_key)?, from_hex(value)?);
        }
    }
    let mut options = WriteOptions::default();
    options.set_sync(true);
    db.write_opt(batch, &options)?;
    Ok(())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Outcome<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}
