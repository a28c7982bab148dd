//! `kluis audit` against a scripted node: pages, gaps, answers that are none.

use super::*;
use crate::cli::EXIT_COULD_NOT_RUN;
use crate::cli::api::tests::Fake;

const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn event(sequence: u64, previous: &str, hash: &str) -> Value {
    json!({"Sequence": sequence, "PreviousHash": previous, "EntryHash": hash})
}

fn page(events: &[Value]) -> (u16, Value) {
    (200, json!({"Events": events}))
}

fn code(outcome: Outcome) -> u8 {
    outcome.unwrap_or_else(|failure| failure.code)
}

fn afters(fake: &Fake) -> Vec<u64> {
    fake.asked().iter().map(|(_, input)| input["After"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn an_export_reads_every_page() {
    let one = [event(1, NO_HASH, "aa"), event(2, "aa", "bb")];
    let two = [event(3, "bb", "cc")];
    let fake = Fake::start(vec![page(&one), page(&two), page(&[])]).await;
    assert_eq!(code(export(Events::Whole(fake.client()), 0).await), EXIT_DONE);
    assert_eq!(afters(&fake), [0, 2, 3]);
    assert_eq!(fake.asked()[0].0, "KluisKms.ListAuditEvents");
}

#[tokio::test]
async fn an_export_with_a_gap_or_a_wrong_hash_ends_with_one() {
    let missing = [event(1, NO_HASH, "aa"), event(3, "bb", "cc")];
    let edited = [event(1, NO_HASH, "aa"), event(2, "ab", "bb")];
    for events in [missing, edited] {
        let fake = Fake::start(vec![page(&events), page(&[])]).await;
        assert_eq!(code(export(Events::Whole(fake.client()), 0).await), EXIT_REFUSED);
    }
}

#[tokio::test]
async fn a_node_that_gives_the_same_page_again_does_not_hold_an_export() {
    let same = [event(5, "aa", "bb")];
    let fake = Fake::start(vec![page(&same), page(&same)]).await;
    assert_eq!(code(export(Events::Whole(fake.client()), 4).await), EXIT_REFUSED);
    assert_eq!(afters(&fake), [4, 5]);
}

#[tokio::test]
async fn an_answer_without_events_is_an_error_and_not_an_empty_log() {
    for answer in [json!({}), json!({"Events": 3}), Value::Null] {
        let fake = Fake::start(vec![(200, answer)]).await;
        let outcome = export(Events::Whole(fake.client()), 0).await;
        assert_eq!(code(outcome), EXIT_COULD_NOT_RUN);
    }
    let refusal = json!({"__type": "AccessDeniedException", "message": "no"});
    let fake = Fake::start(vec![(400, refusal)]).await;
    assert_eq!(code(export(Events::Whole(fake.client()), 0).await), EXIT_REFUSED);
}

#[tokio::test]
async fn a_tail_goes_on_behind_what_it_showed() {
    let refusal = json!({"__type": "DisabledException", "message": "suspended"});
    let first = [event(1, NO_HASH, "aa"), event(2, "aa", "bb")];
    let answers = vec![page(&first), page(&[]), page(&[event(3, "bb", "cc")]), (400, refusal)];
    let fake = Fake::start(answers).await;
    // It ends only because the node refuses at last.
    assert_eq!(code(tail(Events::Whole(fake.client()), None).await), EXIT_REFUSED);
    assert_eq!(afters(&fake), [0, 2, 2, 3]);
}
