//! Dates as AWS writes them: read, compared, refused.

use super::*;

#[test]
fn both_forms_name_the_same_second() {
    let basic = AmzDate::parse("20130524T000000Z").unwrap();
    let http = AmzDate::parse("Fri, 24 May 2013 00:00:00 GMT").unwrap();
    assert_eq!(basic, http);
    assert_eq!(basic.unix_ms(), 1_369_353_600_000);
    assert_eq!(basic.day(), "20130524");
    assert_eq!(basic.basic(), "20130524T000000Z");
    assert_eq!(basic.extended(), "2013-05-24T00:00:00Z");
}

#[test]
fn every_day_of_a_century_round_trips() {
    for day in 0..40_000 {
        let date = AmzDate::from_unix_ms(day * DAY_S * 1_000 + 86_399_000);
        assert_eq!(AmzDate::parse(&date.basic()), Some(date));
        assert!(is_day(&date.day()));
    }
}

#[test]
fn the_last_second_is_written_in_four_digits() {
    assert_eq!(AmzDate::from_unix_ms(u64::MAX).extended(), "9999-12-31T23:59:59Z");
}

#[test]
fn malformed_dates_are_none() {
    let bad = [
        "",
        "20130524",
        "20130524T000000",
        "20130524T000000z",
        "20130524 000000Z",
        "20130229T000000Z",
        "20131301T000000Z",
        "20130500T000000Z",
        "20130524T240000Z",
        "20130524T006000Z",
        "20130524T000060Z",
        "+0130524T000000Z",
        "19691231T235959Z",
        "Fri, 24 Mai 2013 00:00:00 GMT",
        "Fri, 24 May 2013 00:00:00 CET",
        "Fri, 24 May 2013 00:00:00 GMT ",
        "Fri, 24 May 2013 00:00 GMT",
        "24 May 2013 00:00:00 GMT",
    ];
    for text in bad {
        assert_eq!(AmzDate::parse(text), None, "{text}");
    }
    assert!(AmzDate::parse("20000229T000000Z").is_some());
    assert!(!is_day("20130229"));
    assert!(!is_day("2013-5-2"));
}
