//! What one routing decision costs: `cargo bench -p nemo-data-plane --bench route`, or with `--profile dist` as it is
//! shipped. Prints nanoseconds per decision, the median of many short rounds and the best; then the same with the record
//! of the decision, which has its size.

mod fleet;

use std::{hint::black_box, io::Write as _, time::Instant};

use fleet::Fleet;
use nemo_data_plane::routing::{
    Ask, decide,
    record::{self, Asked},
};
use nemo_snapshot::{Strategy, TagNames};

const ROUNDS: usize = 201;
/// How long a round is meant to take, in nanoseconds.
const ROUND_NS: u128 = 1_000_000;

fn main() {
    let fleets = [
        ("1 candidate", Fleet::new(&[1])),
        ("4 in one pool", Fleet::new(&[4])),
        ("20 in 3 links", Fleet::new(&[8, 6, 6])),
        ("1000 in one pool", Fleet::new(&[1_000])),
        ("1000, 90 % cooling", Fleet::new(&[1_000]).cooling(90)),
        ("1000, all cooling", Fleet::new(&[1_000]).cooling(100)),
    ];
    let mut out = std::io::stdout().lock();
    let _ = write!(out, "{:<20}", "ns per decision");
    for strategy in Strategy::ALL {
        let _ = write!(out, "{:>16}", strategy.name());
    }
    let _ = writeln!(out, "{:>26}", "with record");
    let tags = TagNames::new(["code", "function-calling", "vision"]).unwrap_or_default();
    for (name, fleet) in &fleets {
        let _ = write!(out, "{name:<20}");
        for strategy in Strategy::ALL {
            let ask = fleet.ask(strategy);
            let (median, best) =
                measure(|seed| drop(black_box(decide(&fleet.served, black_box(&ask), fleet, seed))));
            let _ = write!(out, "{:>16}", format!("{median} ({best})"));
        }
        let ask = fleet.ask(Strategy::SimpleShuffle);
        let mut size = 0;
        let (median, best) = measure(|seed| size = recorded(fleet, black_box(&ask), &tags, seed).len());
        let _ = writeln!(out, "{:>26}", format!("{median} ({best}), {size} B"));
    }
}

fn recorded(fleet: &Fleet, ask: &Ask<'_>, tags: &TagNames, seed: u64) -> Vec<u8> {
    let outcome = decide(&fleet.served, ask, fleet, seed);
    let asked = Asked { ask, model: "m", chain: &[], strategy_asked: false, max_cost_asked: false };
    black_box(record::begin(&asked, tags, outcome.as_ref().map_err(|none| &**none)))
}

/// Median and best, in nanoseconds.
fn measure(mut decide: impl FnMut(u64)) -> (u128, u128) {
    let mut seed = 0_u64;
    let mut round = |count: u128| {
        let started = Instant::now();
        for _ in 0..count {
            seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            decide(seed);
        }
        started.elapsed().as_nanos() / count
    };
    let count = (ROUND_NS / round(100).max(1)).max(1);
    let mut taken: Vec<u128> = (0..ROUNDS).map(|_| round(count)).collect();
    taken.sort_unstable();
    (taken[ROUNDS / 2], taken[0])
}
