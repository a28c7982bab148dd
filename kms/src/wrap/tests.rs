//! Wrapped keys against known answers, and every way of damaging one.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::derive::mac;
use crate::env::SeededRng;
use crate::fixtures::{flip, ramp, version_context};
use crate::types::context_digest;

const KIND_3: &str = "010103000102030405060708090a0b0c0d0e0f1000000007\
    e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff\
    57d85ab84d36edb6d8b89be253caf8593d1891d3d9d258d549049ebb089970c3\
    8e0cacea118ed87d9b88975d586aa63f";
const KIND_2: &str = "0101020102030405060708090a0b0c0d0e0f101100000001\
    e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff00\
    05e2e10a8807003b06337bbf10486b5fa15b87fd06842cee08da41203dc9f176\
    8378c60f6e471ad5dfb66a528ba0ed33\
    e5e8bc77a6d5d40ddb895ac374f105357b5a32f749892f208a4e5bf874a8043a";
const KIND_4: &str = "010104000102030405060708090a0b0c0d0e0f1000000007\
    e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff\
    0a5cc70d075445d923366bea0cf0493ce17d0de73aa2c10de5a2f318359c7181\
    7b6227a0ed1effc84de45247319e4ac9";
const KIND_1: &str = "01010101030405060708090a0b0c0d0e0f10111200000002\
    e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff0001\
    5e71ec30227a30fc77468cecdcd0bdfee0ca4dcb2fdc14b9af2d0168293f984e\
    2ac85704f53aa952328dead51278be56\
    a37e267f993a12b82ce4978670d7f6715209111255cc8b87856b66868a9c1ced";

struct Case {
    kind: WrapKind,
    kek: [u8; 32],
    id: u8,
    version: u32,
    digest: [u8; 32],
    secret: [u8; 32],
    salt: u8,
    want: &'static str,
}

fn cases() -> [Case; 4] {
    let data_digest = version_context(ramp(0x30)).digest();
    let bucket_digest = context_digest(&[
        (b"b", &ramp::<16>(0x20)),
        (b"n", &[0, 0, 0, 7]),
        (b"p", b"data"),
        (b"t", &ramp::<16>(0x10)),
    ]);
    let tenant_digest =
        context_digest(&[(b"k", &ramp::<16>(0x02)), (b"o", &[1]), (b"t", &ramp::<16>(0x10))]);
    let data = Case {
        kind: WrapKind::DataKey,
        kek: ramp(0xa0),
        id: 0x01,
        version: 7,
        digest: data_digest,
        secret: ramp(0xc0),
        salt: 0xe0,
        want: KIND_3,
    };
    let customer = Case {
        kind: WrapKind::DataKeyCustomer,
        kek: mac(&ramp(0xa0), &[&ramp::<32>(0x60)]),
        want: KIND_4,
        ..data
    };
    let bucket = Case {
        kind: WrapKind::BucketKey,
        kek: ramp(0x80),
        id: 0x02,
        version: 1,
        digest: bucket_digest,
        secret: ramp(0xa0),
        salt: 0xe1,
        want: KIND_2,
    };
    let tenant = Case {
        kind: WrapKind::TenantKey,
        kek: *extract(&ramp::<32>(0x70), &ramp::<32>(0x05)),
        id: 0x03,
        version: 2,
        digest: tenant_digest,
        secret: ramp(0x80),
        salt: 0xe2,
        want: KIND_1,
    };
    [data, customer, bucket, tenant]
}

impl Case {
    fn wrap(&self) -> WrappedKey {
        let header = WrapHeader {
            kind: self.kind,
            wrapping_key_id: ramp(self.id),
            wrapping_version: self.version,
        };
        wrap_with_salt(&self.kek, header, &self.digest, (&self.secret, &ramp(self.salt)))
    }

    fn unwrap(&self, wrapped: &WrappedKey) -> Result<[u8; 32]> {
        let mut secret = [0xaa; 32];
        unwrap_into(&self.kek, wrapped, &self.digest, &mut secret).map(|()| secret)
    }
}

#[test]
fn known_answers() {
    for case in cases() {
        let wrapped = case.wrap();
        assert_eq!(hex::encode(wrapped.as_bytes()), case.want);
        let parsed = WrappedKey::parse(wrapped.as_bytes()).unwrap();
        assert_eq!(parsed, wrapped);
        assert_eq!(parsed.kind(), case.kind);
        assert_eq!(parsed.wrapping_key_id(), &ramp::<16>(case.id));
        assert_eq!(parsed.wrapping_version(), case.version);
        assert_eq!(case.unwrap(&parsed).unwrap(), case.secret);
    }
}

#[test]
fn another_key_or_context_does_not_open() {
    for mut case in cases() {
        let wrapped = case.wrap();
        case.kek[31] ^= 1;
        assert_eq!(case.unwrap(&wrapped).unwrap_err().kind(), ErrorKind::Corrupt);
        case.kek[31] ^= 1;
        case.digest[0] ^= 1;
        assert_eq!(case.unwrap(&wrapped).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn another_version_id_does_not_open() {
    let [mut case, ..] = cases();
    let wrapped = case.wrap();
    case.digest = version_context(ramp(0x31)).digest();
    assert_eq!(case.unwrap(&wrapped).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn no_flipped_bit_opens() {
    for case in cases() {
        let good = case.wrap();
        for bit in 0..good.as_bytes().len() * 8 {
            let mut bytes = good.as_bytes().to_vec();
            flip(&mut bytes, bit);
            if let Ok(wrapped) = WrappedKey::parse(&bytes) {
                let mut secret = [0xaa; 32];
                assert!(unwrap_into(&case.kek, &wrapped, &case.digest, &mut secret).is_err());
                assert_eq!(secret, [0; 32], "a failure left bytes behind");
            }
        }
    }
}

#[test]
fn wrong_lengths_are_refused() {
    for case in cases() {
        let good = case.wrap();
        for length in 0..good.as_bytes().len() {
            assert!(WrappedKey::parse(&good.as_bytes()[..length]).is_err());
        }
        assert!(WrappedKey::parse(&[good.as_bytes(), &[0]].concat()).is_err());
    }
}

#[test]
fn other_kinds_are_refused() {
    let mut bytes = hex::decode(KIND_2).unwrap();
    for kind in [0, 5, 6, 8, 255] {
        bytes[2] = kind;
        assert_eq!(WrappedKey::parse(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn two_wraps_of_one_key_differ() {
    let [case, ..] = cases();
    let rng = SeededRng::new(1);
    let header = WrapHeader { kind: case.kind, wrapping_key_id: ramp(1), wrapping_version: 7 };
    let one = wrap(&case.kek, header, &case.digest, (&case.secret, &rng));
    let two = wrap(&case.kek, header, &case.digest, (&case.secret, &rng));
    assert_ne!(one.as_bytes()[24..], two.as_bytes()[24..]);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_open(mut bytes in vec(any::<u8>(), 104..=136), kind in 1_u8..=6) {
        let [case, ..] = cases();
        bytes[..4].copy_from_slice(&[1, 1, kind, u8::from(kind < 3)]);
        if let Ok(wrapped) = WrappedKey::parse(&bytes) {
            prop_assert!(case.unwrap(&wrapped).is_err());
        }
    }
}
