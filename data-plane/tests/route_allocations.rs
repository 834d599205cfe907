//! A decision takes no heap but for its record: nothing where the record fits into itself, else at most one piece for
//! the picks, one for the health that was seen, and one for what was passed over.

#[path = "../benches/fleet/mod.rs"]
mod fleet;

use allocation_counter::measure;
use fleet::Fleet;
use nemo_data_plane::routing::{Ask, decide};
use nemo_snapshot::{Strategy, TagSet};

fn allocations(fleet: &Fleet, ask: &Ask<'_>, seed: u64) -> u64 {
    let mut outcome = None;
    let counted = measure(|| outcome = Some(decide(&fleet.served, ask, fleet, seed)));
    assert!(outcome.is_some_and(|outcome| outcome.is_ok()));
    counted.count_total
}

#[test]
fn few_candidates_take_no_heap_at_all() {
    for links in [&[1][..], &[4], &[2, 2], &[1, 1, 1]] {
        let fleet = Fleet::new(links);
        for strategy in Strategy::ALL {
            for seed in 0..50 {
                assert_eq!(allocations(&fleet, &fleet.ask(strategy), seed), 0, "{links:?} {strategy}");
            }
        }
    }
}

#[test]
fn many_candidates_take_heap_for_the_record_alone() {
    for fleet in [Fleet::new(&[8, 6, 6]), Fleet::new(&[1_000])] {
        for strategy in Strategy::ALL {
            for seed in 0..50 {
                let count = allocations(&fleet, &fleet.ask(strategy), seed);
                assert!((1..=2).contains(&count), "{count} {strategy}");
            }
        }
    }
    // How many cool is not known before, so that list grows.
    let fleet = Fleet::new(&[1_000]).cooling(50);
    for seed in 0..50 {
        let count = allocations(&fleet, &fleet.ask(Strategy::Balanced), seed);
        assert!((1..=5).contains(&count), "{count}");
    }
}

/// The counter counts.
#[test]
fn what_is_passed_over_is_recorded_on_the_heap() {
    let fleet = Fleet::new(&[8]);
    let ask = Ask { tags: TagSet(8), ..fleet.ask(Strategy::SimpleShuffle) };
    let counted = measure(|| assert!(decide(&fleet.served, &ask, &fleet, 1).is_err()));
    assert!((1..=3).contains(&counted.count_total), "{counted:?}");
}
