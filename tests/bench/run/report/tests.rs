use super::super::metering::tests::metering;
use super::*;

fn report(small: [f64; 3], open_p99: [f64; 3]) -> Report {
    let mut report = Report {
        names: vec!["floor".into(), "gateway".into()],
        outcomes: BTreeMap::new(),
        memory: BTreeMap::new(),
        rate: 100.0,
        metering: Some(metering(1000, 0, 0)),
        limited: true,
        translated: false,
    };
    let outcome = |cpu: f64, p99_us| Outcome {
        seconds: 1.0,
        requests: 1000,
        chunks: 1000,
        cpu_us: Some(cpu * 1000.0),
        p99_us,
        ..Outcome::default()
    };
    for round in 0..3 {
        for workload in [
            Workload::Small,
            Workload::Large,
            Workload::Stream,
            Workload::Paced,
            Workload::Open { rate: 100.0, punctual: false },
        ] {
            report.add(0, workload, outcome(10.0, 50.0 * round as f64));
            report.add(1, workload, outcome(small[round], 50.0 * round as f64 + open_p99[round]));
        }
    }
    report
}

#[test]
fn goals_are_judged_by_the_median_round() {
    assert!(report([12.0, 13.0, 99.0], [999.0, 10.0, 9999.0]).goals_met());
    assert!(!report([12.0, 13.1, 13.1], [1.0; 3]).goals_met());
    assert!(!report([12.0; 3], [1.0, 1000.0, 1000.0]).goals_met());
}

/// A machine that others slow down for a round slows both.
#[test]
fn comparisons_are_made_within_a_round() {
    let mut report = report([15.0, 30.0, 24.0], [0.0; 3]);
    for (outcome, cpu_us) in report.outcomes.get_mut(&(0, "1KB")).unwrap().iter_mut().zip([10e3, 20e3, 12e3])
    {
        outcome.cpu_us = Some(cpu_us);
    }
    let table = report.table();
    let line = table.lines().find(|line| line.starts_with("CPU µs per request, 1 KB")).unwrap();
    assert!(line.contains("12.00       24.00") && line.contains("x 1.50"), "{line}");
}

#[test]
fn the_table_names_missed_goals() {
    let first = |report: &Report| {
        let table = report.table();
        table.lines().find(|line| line.starts_with("CPU µs per request, 1 KB")).unwrap().to_owned()
    };
    let mut slow = report([16.0; 3], [1.0; 3]);
    // With budgets and rate limits it may take a little longer.
    assert!(first(&slow).contains("x 1.60") && first(&slow).ends_with("met"), "{}", first(&slow));
    slow.limited = false;
    assert!(first(&slow).ends_with("MISSED"), "{}", first(&slow));
    let slower = report([16.1; 3], [1.0; 3]);
    assert!(first(&slower).ends_with("MISSED"), "{}", first(&slower));
    let table = slow.table();
    let line = table.lines().find(|line| line.starts_with("p99 µs")).unwrap();
    assert!(line.contains("+1") && line.ends_with("met"), "{line}");
}

#[test]
fn the_open_loop_runs_at_half_of_what_the_gateway_can_do() {
    assert!((report([10.0; 3], [0.0; 3]).saturation() - 1000.0).abs() < 1e-9);
}

/// What is not metered may not count as fast.
#[test]
fn a_run_that_lost_usage_events_misses_its_goals_and_says_so() {
    let mut report = report([10.0; 3], [0.0; 3]);
    assert!(
        report.goals_met() && report.table().contains("0 dropped, 1000 rows in the request log: complete")
    );
    assert!(report.table().contains("40.0 µs CPU per request in its own process"), "{}", report.table());
    for (dropped, missing) in [(7, 0), (0, 7)] {
        report.metering = Some(metering(1000, dropped, missing));
        assert!(!report.goals_met());
        let table = report.table();
        assert!(table.contains("INCOMPLETE") && table.contains(&format!("{dropped} dropped")), "{table}");
        assert_eq!(report.json()["metering"]["complete"], false);
    }
}

/// The raw floor is shown, the goals are those of the first.
#[test]
fn the_gateway_is_compared_with_the_first_floor() {
    let mut report = report([14.0; 3], [0.0; 3]);
    report.names = vec!["floor".into(), "floor-raw".into(), "gateway".into()];
    let gateway: Vec<_> = report.outcomes.extract_if(.., |(target, _), _| *target == 1).collect();
    for ((_, workload), outcomes) in gateway {
        let raw = outcomes.iter().cloned().map(|outcome| Outcome { cpu_us: Some(1000.0), ..outcome });
        report.outcomes.insert((1, workload), raw.collect());
        report.outcomes.insert((2, workload), outcomes);
    }
    let table = report.table();
    let line = table.lines().find(|line| line.starts_with("CPU µs per request, 1 KB")).unwrap();
    assert!(line.contains("10.00        1.00       14.00") && line.contains("x 1.40"), "{line}");
}
