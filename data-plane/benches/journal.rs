//! What the usage journal costs a request: on a real directory, with its keeper, its shipper and nobody else. Run with
//! `cargo bench -p nemo-data-plane --bench journal`. The CPU time of the whole process counts, so that of the threads
//! beside as well.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark that can't begin says why, and prints its numbers"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nemo_data_plane::usage::{
    Event,
    journal::{Directory, Journal, Limits, MEMORY, SEGMENT, Writer},
};
use nemo_proto::usage::{CostSource, Outcome};

const REQUESTS: u32 = 400_000;
const ID: &[u8; 16] = &[7; 16];

fn event<'a>(outcome: Outcome, decision: &'a [u8]) -> Event<'a> {
    Event {
        request_id: ID,
        org_id: ID,
        team_id: ID,
        key_id: ID,
        deployment_id: Some(ID),
        endpoint: "chat.completions",
        requested_model: "gpt-4o-mini",
        model: "gpt-4o-mini",
        provider: "custom",
        upstream_model: "gpt-4o-mini",
        stream: false,
        outcome,
        http_status: 200,
        error_code: "",
        finish_reason: "stop",
        usage: None,
        usage_estimated: false,
        cost_nanos: Some(123_456),
        cost_source: CostSource::Priced,
        price_id: "0198f3c2-0000-7000-8000-000000000000",
        attempts: 1,
        strategy: "simple-shuffle",
        config_revision: 12,
        started_unix_us: 1_790_000_000_000_000,
        total_us: 1234,
        upstream_us: 1200,
        first_byte_us: Some(1200),
        overhead_us: 12,
        request_bytes: 345,
        response_bytes: 567,
        client_request_id: b"",
        metadata: "",
        units: &[],
        decision,
        charges: &[],
        service_tier: "default",
    }
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Nanoseconds of CPU for each request, if so much else is done between two of them.
fn measure(name: &str, decision: &[u8], pause: Duration, work: impl Fn(&Journal, &[u8])) {
    let dir = tempfile::tempdir().expect("a directory");
    let storage = Arc::new(Directory::open(dir.path()).expect("a directory"));
    let limits = Limits { segment: SEGMENT, max: 1 << 30, memory: MEMORY };
    let writer = Writer { epoch: 1, boot_id: "boot".into() };
    let journal = Journal::open(storage, limits, writer).expect("a journal").0;
    journal.keep(Duration::from_millis(10)).expect("a thread");
    let done = AtomicBool::new(false);
    let (mut spent, mut wall) = (Duration::ZERO, Duration::ZERO);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(2));
                while journal.untaken() >= 500 {
                    let Some(batch) = journal.take(500) else { break };
                    journal.acknowledged(batch.events.len());
                }
            }
        });
        let (begun, before) = (Instant::now(), cpu());
        for _ in 0..REQUESTS {
            work(&journal, decision);
            let until = Instant::now() + pause;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
        }
        (wall, spent) = (begun.elapsed(), cpu() - before);
        done.store(true, Ordering::Relaxed);
    });
    let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(REQUESTS);
    println!(
        "{name:<44} {:>7.0} ns CPU, {:>7.0} ns wall a request, {} dropped",
        each(spent),
        each(wall),
        journal.stats().dropped
    );
}

fn main() {
    let decision = vec![5; 300];
    for pause in [Duration::ZERO, Duration::from_micros(10)] {
        println!("{} µs of other work between two requests:", pause.as_micros());
        measure("nothing", &decision, pause, |_, _| {});
        measure("closed", &decision, pause, |journal, decision| {
            journal.closed(None, &event(Outcome::Ok, decision));
        });
        measure("opened without a decision, closed", &decision, pause, |journal, decision| {
            let ticket = journal.opened(&event(Outcome::Lost, b"")).ok();
            journal.closed(ticket, &event(Outcome::Ok, decision));
        });
        measure("opened, closed", &decision, pause, |journal, decision| {
            let ticket = journal.opened(&event(Outcome::Lost, decision)).ok();
            journal.closed(ticket, &event(Outcome::Ok, decision));
        });
    }
}
