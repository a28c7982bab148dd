//! Cut, split and changed bodies, and any bytes at all.

use proptest::prelude::*;

use super::*;

/// Whether two bytes mean the same to the framing: hex digits and field names in either case.
fn same_meaning(before: u8, after: u8) -> bool {
    before.eq_ignore_ascii_case(&after)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_body_cut_short_never_ends_well(
        form in 0usize..5, count in 1usize..20_000, at in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(1usize..9_000, 1..5),
    ) {
        let data = data(count);
        let mut upload = five_forms(&data).swap_remove(form);
        upload.raw.truncate(at.index(upload.raw.len()));
        let outcome = upload.read(&sizes);
        prop_assert!(outcome.end.is_err());
        prop_assert!(outcome.bytes.len() < data.len());
        prop_assert!(data.starts_with(&outcome.bytes));
    }

    #[test]
    fn packets_make_no_difference(
        form in 0usize..5, count in 0usize..20_000,
        sizes in prop::collection::vec(1usize..9_000, 1..8),
    ) {
        let data = data(count);
        let outcome = five_forms(&data).swap_remove(form).read(&sizes);
        prop_assert!(outcome.end.is_ok());
        prop_assert_eq!(outcome.bytes, data);
    }

    #[test]
    fn a_body_with_a_changed_byte_never_ends_well(
        form in 0usize..5, count in 1usize..20_000, at in any::<prop::sample::Index>(),
        to in any::<u8>(), sizes in prop::collection::vec(1usize..9_000, 1..3),
    ) {
        let data = data(count);
        let mut upload = five_forms(&data).swap_remove(form);
        let at = at.index(upload.raw.len());
        prop_assume!(upload.raw[at] != to);
        let framing_letter = form >= 2 && same_meaning(upload.raw[at], to);
        upload.raw[at] = to;
        let outcome = upload.read(&sizes);
        // The letters of a size line or field name may change case; those of the body may not.
        prop_assert!(outcome.end.is_err() || (framing_letter && outcome.bytes == data));
    }

    #[test]
    fn a_changed_byte_in_the_framing_never_ends_well(
        form in 2usize..5, back in 0usize..260, to in any::<u8>(),
    ) {
        let data = data(9_000);
        let mut upload = five_forms(&data).swap_remove(form);
        let at = upload.raw.len().saturating_sub(back + 1);
        prop_assume!(!same_meaning(upload.raw[at], to));
        upload.raw[at] = to;
        prop_assert!(upload.read(&[usize::MAX]).end.is_err());
    }

    /// Any bytes at all: no panic, and never more than was declared.
    #[test]
    fn any_bytes_are_read_or_refused(
        form in 0usize..3, raw in prop::collection::vec(any::<u8>(), 0..400),
        sizes in prop::collection::vec(1usize..50, 1..4),
    ) {
        let forms = [SIGNED, UNSIGNED_TRAILER, "UNSIGNED-PAYLOAD"];
        let upload = Upload::new(forms[form], raw, &[("x-amz-decoded-content-length", "20")]);
        let declared = if form == 2 { upload.raw.len() } else { 20 };
        let outcome = upload.read(&sizes);
        prop_assert!(outcome.bytes.len() <= declared);
    }

    /// The same with bytes that look like framing.
    #[test]
    fn any_framing_is_read_or_refused(
        signed in any::<bool>(), trailer in any::<bool>(),
        raw in concat!(
            "([0-9a-f]{0,3}(;chunk-signature=[0-9a-f]{0,4})?\r?\n[a-z]{0,6}(\r\n)?){0,6}",
            "(x-amz-checksum-crc32:[A-Za-z=]{0,9}\r?\n)?(\r\n)?",
        ),
        sizes in prop::collection::vec(1usize..50, 1..4),
    ) {
        let forms = [UNSIGNED_TRAILER, if trailer { SIGNED_TRAILER } else { SIGNED }];
        let mut headers = vec![("x-amz-decoded-content-length", "6")];
        if trailer {
            headers.push(("x-amz-trailer", "x-amz-checksum-crc32"));
        }
        let outcome = Upload::new(forms[usize::from(signed)], raw, &headers).read(&sizes);
        prop_assert!(outcome.bytes.len() <= 6);
    }
}
