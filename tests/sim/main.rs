//! Fleet simulation: nodes with the real quota table and the real journal, the real bank of the control plane, and between
//! them time, links and disks that are made up. One thread, virtual time, everything drawn from a seed: what fails is
//! replayed by its seed.
//!
//! - [`world`]: time, events and links; [`node`]: one node; [`plane`]: the control plane
//! - [`oracle`]: what must hold at any time, and at the end
//! - [`sabotage`]: ways to break it on purpose, so that the oracles are seen to see
//!
//! Longer, or a single world again:
//! `NEMO_SIM_STEPS=50000000 cargo nextest run -p nemo-tests --test sim --no-capture`,
//! `NEMO_SIM_SEED=17 cargo nextest run -p nemo-tests --test sim --no-capture fleet`.
//!
//! `NEMO_SIM_TRACE=1` prints every event.
//!
//! I3 and I6; C1 to C6; D6 to D8.

#[cfg(test)]
#[path = "../../data-plane/src/usage/journal/model.rs"]
#[allow(dead_code, reason = "the journal's own tests use more of it")]
mod model;
#[cfg(test)]
mod node;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod plane;
#[cfg(test)]
mod sabotage;
#[cfg(test)]
mod world;

/// Where the model of the disk looks for the traits that it implements.
#[cfg(test)]
mod storage {
    pub use nemo_data_plane::usage::journal::{SegmentFile, Storage};
}

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use self::{
    sabotage::Sabotage,
    world::{Stats, World},
};

/// Of each world. A new one begins with everything at rest, and ends with everything settled.
const STEPS_OF_WORLD: u64 = 10_000;
/// In `make test`.
const STEPS: u64 = 1_000_000;

#[cfg(test)]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: expected a number")))
}

#[cfg(test)]
fn replay(seed: u64) -> String {
    format!("replay: NEMO_SIM_SEED={seed} cargo nextest run -p nemo-tests --test sim --no-capture fleet")
}

/// Runs one world to its end.
#[cfg(test)]
fn run(seed: u64, sabotage: Sabotage) -> Stats {
    let mut world = World::new(seed, sabotage);
    world.run(STEPS_OF_WORLD);
    world.finish();
    world.stats
}

#[test]
fn i3_i6_a_fleet_never_overspends_and_bills_every_request_once() {
    if let Some(seed) = setting("NEMO_SIM_SEED") {
        println!("{:#?}", run(seed, Sabotage::None));
        return;
    }
    let (steps, began) = (setting("NEMO_SIM_STEPS").unwrap_or(STEPS), Instant::now());
    let (done, next) = (AtomicU64::new(0), AtomicU64::new(setting("NEMO_SIM_FROM").unwrap_or(1)));
    let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
    let total = std::thread::scope(|scope| {
        let work = || {
            let mut sum = Stats::default();
            while done.load(Relaxed) < steps {
                let seed = next.fetch_add(1, Relaxed);
                let stats = catch_unwind(AssertUnwindSafe(|| run(seed, Sabotage::None)));
                let Ok(stats) = stats else { panic!("seed {seed} failed; {}", replay(seed)) };
                done.fetch_add(stats.steps, Relaxed);
                sum.add(&stats);
            }
            sum
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut total = Stats::default();
        for thread in threads {
            // A failed world has said which seed it was.
            total.add(&thread.join().expect("a world failed"));
        }
        total
    });
    println!("{total:#?}\nin {:.1?}", began.elapsed());
    assert!(total.steps >= steps);
    total.assert_covered();
}

/// The oracles see: each way to break the fleet fails within a few worlds.
#[test]
fn each_sabotage_is_found() {
    std::panic::set_hook(Box::new(|_| {}));
    for sabotage in Sabotage::ALL {
        let broken = |seed| catch_unwind(AssertUnwindSafe(|| run(seed, *sabotage))).err();
        let found = (1..=60).find_map(|seed| Some((seed, broken(seed)?)));
        let _ = std::panic::take_hook();
        let (seed, panic) = found.unwrap_or_else(|| panic!("{sabotage:?} is not noticed"));
        let said = panic.downcast_ref::<String>().map_or("", String::as_str);
        println!("{sabotage:?}: found in world {seed}: {}", said.get(..120).unwrap_or(said));
        std::panic::set_hook(Box::new(|_| {}));
    }
}
