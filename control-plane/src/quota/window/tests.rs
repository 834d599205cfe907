use proptest::prelude::*;

use super::*;

fn window(kind: &str, zone: &str) -> Window {
    Window::parse(kind, None, zone).unwrap()
}

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

fn span(kind: &str, zone: &str, now: &str) -> (i64, i64) {
    let span = window(kind, zone).span(at(now));
    (span.start, span.end.unwrap())
}

#[test]
fn windows_begin_where_their_zone_says() {
    let day = span("day", "Europe/Berlin", "2026-07-01T23:30:00Z");
    assert_eq!(day, (at("2026-07-01T22:00:00Z"), at("2026-07-02T22:00:00Z")));
    // A Wednesday; the week begins on Monday.
    let week = span("week", "UTC", "2026-07-01T23:30:00Z");
    assert_eq!(week, (at("2026-06-29T00:00:00Z"), at("2026-07-06T00:00:00Z")));
    let month = span("month", "America/New_York", "2026-03-01T03:00:00Z");
    assert_eq!(month, (at("2026-02-01T05:00:00Z"), at("2026-03-01T05:00:00Z")));
}

#[test]
fn a_day_has_as_many_hours_as_the_clocks_there_give_it() {
    let hours = |(start, end): (i64, i64)| (end - start) / 3600;
    assert_eq!(hours(span("day", "Europe/Berlin", "2026-03-29T12:00:00Z")), 23);
    assert_eq!(hours(span("day", "Europe/Berlin", "2026-10-25T12:00:00Z")), 25);
    // Midnight is skipped: the day begins at one.
    let beirut = span("day", "Asia/Beirut", "2022-03-27T12:00:00Z");
    assert_eq!((beirut.0, hours(beirut)), (at("2022-03-26T22:00:00Z"), 23));
    // A date that never was.
    let samoa = span("day", "Pacific/Apia", "2011-12-30T09:59:59Z");
    assert_eq!(samoa.1, at("2011-12-30T10:00:00Z"));
}

#[test]
fn rolling_and_total_windows_are_one_for_ever() {
    let rolling = Window::parse("rolling", Some(24), "UTC").unwrap();
    assert_eq!(rolling.span(at("2026-07-01T23:30:00Z")), Span { start: EVER, end: None });
    assert_eq!(rolling.rolling_hours(), Some(24));
    let total = window("total", "Asia/Tokyo");
    assert_eq!(total.next(total.span(5)), None);
}

#[test]
fn what_is_no_window_is_refused_with_its_field() {
    for (kind, hours, zone, field) in [
        ("year", None, "UTC", "window_kind"),
        ("rolling", None, "UTC", "window_hours"),
        ("rolling", Some(0), "UTC", "window_hours"),
        ("rolling", Some(745), "UTC", "window_hours"),
        ("rolling", Some(-1), "UTC", "window_hours"),
        ("day", Some(24), "UTC", "window_hours"),
        ("day", None, "Europe/Nowhere", "time_zone"),
        ("day", None, "europe/berlin", "time_zone"),
        ("day", None, "../etc/passwd", "time_zone"),
    ] {
        let error = Window::parse(kind, hours, zone).unwrap_err();
        assert_eq!(error.field(), field, "{kind} {hours:?} {zone}: {error}");
    }
}

proptest! {
    /// Without gap and without overlap, wherever and whenever.
    #[test]
    fn windows_tile_time(
        zone in prop::sample::select(vec![
            "UTC", "Europe/Berlin", "America/St_Johns", "America/Sao_Paulo", "Asia/Beirut", "Pacific/Apia",
            "Africa/Cairo", "Asia/Tehran", "America/Havana", "Antarctica/Troll", "Australia/Lord_Howe",
        ]),
        kind in prop::sample::select(vec!["day", "week", "month"]),
        now in 0_i64..4_102_444_800,
    ) {
        let window = window(kind, zone);
        let span = window.span(now);
        let end = span.end.unwrap();
        prop_assert!(span.start <= now && now < end);
        prop_assert_eq!(window.span(span.start), span);
        prop_assert_eq!(window.span(end - 1), span);
        let next = window.next(span).unwrap();
        prop_assert_eq!(next.start, end);
        prop_assert!(next.end.unwrap() > end);
    }
}
