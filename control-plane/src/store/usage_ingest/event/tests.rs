use nemo_proto::common::Usage;

use super::*;

fn now() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap()
}

/// A request id of that time.
fn id_at(at: OffsetDateTime) -> Vec<u8> {
    let ms = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap();
    let mut bytes = *RequestId::generate().as_bytes();
    bytes[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
    bytes.to_vec()
}

fn event() -> UsageEvent {
    UsageEvent {
        request_id: id_at(now()).into(),
        org_id: OrgId::generate().as_bytes().to_vec().into(),
        team_id: TeamId::generate().as_bytes().to_vec().into(),
        key_id: KeyId::generate().as_bytes().to_vec().into(),
        outcome: Outcome::Ok.into(),
        cost_nanos: Some(42),
        cost_source: CostSource::Priced.into(),
        started_unix_us: i64::try_from(now().unix_timestamp_nanos() / 1000).unwrap(),
        ..UsageEvent::default()
    }
}

fn row_of(event: UsageEvent) -> Row {
    row(event, "node-1", now()).unwrap()
}

#[test]
fn the_day_is_that_of_the_request_id() {
    let event = UsageEvent { request_id: id_at(now() - Duration::days(2)).into(), ..event() };
    assert_eq!(row_of(event).event_day, (now() - Duration::days(2)).date());
}

#[test]
fn events_far_from_now_are_only_settled() {
    let at = |at| row_of(UsageEvent { request_id: id_at(at).into(), ..event() }).unlogged;
    assert_eq!(at(now() - Duration::days(29)), None);
    assert_eq!(at(now() - Duration::days(31)), Some(Unlogged::Expired));
    assert_eq!(at(now() + Duration::hours(23)), None);
    let ahead = now() + Duration::hours(25);
    assert_eq!(at(ahead), Some(Unlogged::Ahead));
    // Nobody knows when that was: it is charged to the present windows.
    let started_unix_us = i64::try_from(ahead.unix_timestamp_nanos() / 1000).unwrap();
    let event = UsageEvent { request_id: id_at(ahead).into(), started_unix_us, ..event() };
    assert_eq!(row_of(event.clone()).started_at, now());
    let after_all = UsageEvent { request_id: [&[0xff; 6], &id_at(ahead)[6..]].concat().into(), ..event };
    assert_eq!(row_of(after_all).unlogged, Some(Unlogged::Ahead), "after the year 9999");
}

#[test]
fn charges_that_make_no_sense_are_counted_and_the_others_kept() {
    let good = nemo_proto::usage::Charge {
        budget_id: vec![7; 16].into(),
        window_start_unix_s: 1_790_000_000,
        nanos: 5,
        ..Default::default()
    };
    let bad = nemo_proto::usage::Charge { nanos: -5, ..good.clone() };
    let row = row_of(UsageEvent { charges: vec![good, bad], service_tier: "flex".into(), ..event() });
    assert_eq!((row.charged.len(), row.malformed_charges, row.service_tier.as_str()), (1, 1, "flex"));
    assert_eq!(crate::ledger::charge::from_column(row.charges.as_deref()), row.charged);
}

#[test]
fn bad_ids_are_malformed() {
    let bad = || bytes::Bytes::from_static(b"short");
    let cases = [
        (UsageEvent { request_id: bad(), ..event() }, Malformed::RequestId),
        (UsageEvent { request_id: vec![0; 16].into(), ..event() }, Malformed::RequestId),
        (UsageEvent { org_id: bad(), ..event() }, Malformed::Id("org_id")),
        (UsageEvent { team_id: bytes::Bytes::new(), ..event() }, Malformed::Id("team_id")),
        (UsageEvent { key_id: bad(), ..event() }, Malformed::Id("key_id")),
        (UsageEvent { deployment_id: bad(), ..event() }, Malformed::Id("deployment_id")),
    ];
    for (event, expected) in cases {
        assert_eq!(row(event, "n", now()).err(), Some(expected));
    }
}

#[test]
fn unknown_counts_and_costs_stay_unknown() {
    let row = row_of(UsageEvent { usage: None, cost_nanos: None, ..event() });
    assert_eq!(
        (row.input_tokens, row.output_tokens, row.cost_nanos, row.cost_source),
        (None, None, None, "")
    );
    let usage = Usage { input_tokens: Some(0), ..Usage::default() };
    assert_eq!(row_of(UsageEvent { usage: Some(usage), ..event() }).input_tokens, Some(0));
    assert_eq!(row_of(UsageEvent { cost_nanos: Some(-1), ..event() }).cost_nanos, None);
}

#[test]
fn values_out_of_range_are_made_to_fit() {
    let usage = Usage { input_tokens: Some(u64::MAX), ..Usage::default() };
    let row = row_of(UsageEvent {
        usage: Some(usage),
        http_status: u32::MAX,
        requested_model: "é".repeat(200),
        error_code: "a\0b".into(),
        started_unix_us: i64::MIN,
        outcome: 99,
        ..event()
    });
    assert_eq!((row.input_tokens, row.http_status), (Some(i64::MAX), i32::MAX));
    assert_eq!(row.requested_model.len(), 256);
    assert_eq!((row.error_code.as_str(), row.outcome), ("a\u{fffd}b", "error"));
    assert_eq!(row.started_at, now());
}

#[test]
fn metadata_is_an_object_or_nothing() {
    let of = |text: &str| row_of(UsageEvent { metadata: text.into(), ..event() }).metadata;
    assert_eq!(of(r#"{"a": "\u0000"}"#), r#"{"a": "\u0000"}"#);
    for text in ["", "[1]", "\"text\"", "{\"cut\":", &format!("{{\"a\":\"{}\"}}", "x".repeat(5000))] {
        assert_eq!(of(text), "", "{text}");
    }
}
