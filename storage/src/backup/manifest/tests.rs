//! Manifests and lists: what is accepted, and that nothing that was changed is.

use proptest::prelude::*;

use super::*;

fn sum(byte: u8) -> Sum {
    Sum([byte; 32])
}

fn manifest() -> Manifest {
    let file = |name: &str, byte| MetaFile {
        name: name.to_owned(),
        bytes: 17,
        modified_ns: u64::MAX,
        sum: sum(byte),
    };
    let piece = |from, to, byte| Piece { from, to, sum: sum(byte) };
    Manifest {
        head: Head {
            kind: BackupKind::Full,
            created_ms: 1_800_000_000_000,
            volume: VolumeId::from_bytes([7; 16]),
            segment_bytes: 1 << 20,
            pooled_families: 16,
            open_count: 3,
            incarnation_next: 65_537,
            sequence: 900,
            watermark: 950,
            unreadable_bytes: 0,
        },
        files: vec![file("000012.sst", 1), file("CURRENT", 2)],
        segments: vec![
            SegmentCopy {
                segment: 0,
                incarnation: 5,
                settled: 8192,
                pieces: vec![piece(0, 12288, 3), piece(8192, 16384, 4)],
            },
            SegmentCopy { segment: 9, incarnation: 6, settled: 0, pieces: Vec::new() },
        ],
    }
}

#[test]
fn a_manifest_comes_back_as_it_was() {
    let text = manifest().encode();
    assert_eq!(Manifest::decode(text.as_bytes()), Some(manifest()));
    assert!(text.starts_with("kluis backup 1\nkind full\n") && text.contains("\nfile 000012.sst "));
    let needs: Vec<_> = manifest().needs().map(|(sum, bytes, _)| (sum.0[0], bytes)).collect();
    assert_eq!(needs, [(1, 17), (2, 17), (3, 12288), (4, 8192)]);
}

#[test]
fn no_changed_byte_is_accepted() {
    let text = manifest().encode().into_bytes();
    for at in 0..text.len() {
        for flip in [1, 0x20, 0x80] {
            let mut changed = text.clone();
            changed[at] ^= flip;
            assert_eq!(Manifest::decode(&changed), None, "byte {at} by {flip}");
        }
        assert_eq!(Manifest::decode(&text[..at]), None, "cut at {at}");
    }
}

/// A manifest that breaks a rule and has the digest of what it says.
#[track_caller]
fn check_refused(change: impl FnOnce(&mut Manifest)) {
    let mut changed = manifest();
    change(&mut changed);
    assert_eq!(Manifest::decode(changed.encode().as_bytes()), None);
}

#[test]
fn rules_between_fields_are_kept() {
    check_refused(|it| it.files[0].name = "../keys".to_owned());
    check_refused(|it| it.files[0].name = ".hidden".to_owned());
    check_refused(|it| it.files.swap(0, 1));
    check_refused(|it| it.segments.swap(0, 1));
    check_refused(|it| it.head.segment_bytes = 4095);
    check_refused(|it| it.head.segment_bytes = 8192);
    check_refused(|it| it.segments[0].settled = 20_480);
    // A gap, a piece backwards, one that is no whole blocks, one that hides the end of another.
    check_refused(|it| it.segments[0].pieces[0].from = 4096);
    check_refused(|it| it.segments[0].pieces[1].to = 8192);
    check_refused(|it| it.segments[0].pieces[0].to = 12_000);
    check_refused(|it| it.segments[0].pieces[0].to = 20_480);
    check_refused(|it| it.segments[0].pieces[1].from = 16_384);
}

#[test]
fn a_list_comes_back_and_changes_are_refused() {
    let listed = |name: &str| Listed { name: name.to_owned(), bytes: 5, sum: sum(8) };
    let list = vec![listed("root.sealed"), listed("slots.3")];
    let text = encode_list(&list).into_bytes();
    assert_eq!(decode_list(&text), Some(list));
    for at in 0..text.len() {
        let mut changed = text.clone();
        changed[at] ^= 1;
        assert_eq!(decode_list(&changed), None, "byte {at}");
    }
    assert_eq!(decode_list(encode_list(&[listed("a/b")]).as_bytes()), None);
    assert_eq!(decode_list(manifest().encode().as_bytes()), None);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(Manifest::decode(&bytes), None);
        prop_assert_eq!(decode_list(&bytes), None);
    }

    #[test]
    fn no_sealed_text_makes_it_panic(lines in prop::collection::vec("[a-z0-9 ]{0,40}", 0..12)) {
        let text = seal(format!("{MANIFEST}\n{}\n", lines.join("\n")));
        prop_assert_eq!(Manifest::decode(text.as_bytes()), None);
    }
}
