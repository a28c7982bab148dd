//! The bytes of the rows.

use super::*;
use crate::blob::ExtentId;
use crate::types::{NsId, StreamId};

#[test]
fn rows_come_back_as_they_went() {
    let place = DamagePlace { segment: 3, offset: 0x1234_5678, incarnation: 0xAB };
    assert_eq!(place.to_string(), "00000003-12345678-ab");
    assert_eq!(DamagePlace::parse(&place.to_string()), Some(place));
    for wrong in ["", "3", "00000003-12345678", "3-12345678-ab", "00000003-12345678-ab-1", "x-y-z"]
    {
        assert_eq!(DamagePlace::parse(wrong), None, "{wrong}");
    }
    let id = ExtentId {
        ns: NsId::from_bytes([1; 16]),
        stream: StreamId::from_bytes([2; 16]),
        number: 9,
    };
    let kinds =
        [DamageKind::Rot, DamageKind::Unreadable, DamageKind::Misplaced, DamageKind::Tampered];
    for kind in kinds {
        let row = DamageRow { kind, id, found_ms: 77 };
        let (row_key, value) = (place.row().bytes, row.encode());
        assert_eq!((row_key.len(), value.len()), (21, 46));
        assert_eq!(DamageRow::decode(&row_key, &value).unwrap(), (place, row));
        check_refused(&value, |value| DamageRow::decode(&row_key, value).map(drop));
    }
    for phase in [Phase::Idle, Phase::Segments, Phase::Metadata, Phase::Checkpoints] {
        let cursor = Cursor {
            phase,
            next: 1,
            pass: 2,
            started_ms: 3,
            ended_ms: 4,
            segments: 5,
            bytes: 6,
            repaired: 7,
            left: 8,
            dead: 9,
            metadata_faults: 10,
            checkpoint_faults: 11,
        };
        let value = cursor.encode();
        assert_eq!(value.len(), 86);
        assert_eq!(Cursor::decode(&value).unwrap(), cursor);
        check_refused(&value, |value| Cursor::decode(value).map(drop));
    }
}

/// Cut short, too long, of another version or with an unknown enumerator, it is refused.
fn check_refused(value: &[u8], decode: impl Fn(&[u8]) -> Result<(), Error>) {
    for len in 0..value.len() {
        assert_eq!(decode(&value[..len]).unwrap_err().kind(), ErrorKind::Corrupt, "{len} bytes");
    }
    for at in [0, 1] {
        let mut changed = value.to_vec();
        changed[at] = 99;
        assert_eq!(decode(&changed).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
    }
    let longer = [value, &[0]].concat();
    assert_eq!(decode(&longer).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_cursor_that_cannot_be_read_begins_anew() {
    run(async {
        let bench = Ledger::new(1, None).open().await;
        let mut draft = crate::commit::Draft::default();
        draft.put(Cursor::row(), vec![9, 9]);
        bench.committer.commit(draft).await.unwrap();
        let list = Arc::new(DamageList::default());
        let pass = Pass::load(ground(&bench, &list)).await.unwrap();
        assert_eq!(pass.cursor, Cursor::default());
    });
}
