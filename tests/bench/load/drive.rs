//! The loops that keep connections busy and count what comes back.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::connection::{Connection, Progress};
use super::{Args, Outcome};
use crate::histogram::Histogram;
use crate::poll::{Poller, Ready, Ticker};
use crate::proc;

const TICKER: usize = usize::MAX - 1;
const READ_BUFFER: usize = 256 * 1024;
/// Longest wait, after which the end of the measurement is looked at.
const LONGEST_WAIT: Duration = Duration::from_millis(20);
/// How long after its time a measurement may still wait for something to count.
const LONGEST_OVERTIME: Duration = Duration::from_secs(30);
/// Open loop: with so many requests waiting the rate is beyond the server, and the run is given up.
const MAX_BACKLOG: usize = 100_000;
/// With so many errors the run is given up.
const MAX_ERRORS: u64 = 1000;

struct Driver<'a> {
    args: &'a Args,
    request: Vec<u8>,
    poller: Poller,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    /// Due times of requests that wait for a connection (open loop).
    backlog: VecDeque<Instant>,
    schedule: Option<Schedule>,
    buffer: Vec<u8>,
    histogram: Histogram,
    outcome: Outcome,
}

/// When the requests of an open loop are due.
struct Schedule {
    start: Instant,
    period: f64,
    next: u64,
}

impl Schedule {
    fn due(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.next as f64 * self.period)
    }
}

/// Runs one measurement.
pub(crate) fn measure(args: &Args) -> anyhow::Result<Outcome> {
    let mut driver = Driver::new(args)?;
    let ticker = driver.start()?;
    driver.run(ticker.as_ref(), args.warmup(), args.max_requests / 5)?;
    anyhow::ensure!(driver.outcome.errors == 0, "in the warm-up: {}", driver.first_error());

    let (backlog, warmup_requests) = (driver.backlog.len(), driver.outcome.requests);
    driver.histogram = Histogram::new();
    driver.outcome = Outcome { backlog, warmup_requests, ..Outcome::default() };
    let cpu = args.pid.map(proc::cpu_time).transpose()?;
    let start = Instant::now();
    let (mut time, mut max_requests) = (args.duration(), args.max_requests);
    let (seconds, cpu_end) = loop {
        driver.run(ticker.as_ref(), time, max_requests)?;
        let took = start.elapsed();
        let cpu_end = args.pid.map(proc::cpu_time).transpose()?;
        // A machine that stood still all the time has shown nothing yet.
        let shown = driver.has_counted() && (cpu.is_none() || cpu_end > cpu);
        if shown || took >= args.duration() + LONGEST_OVERTIME {
            break (took.as_secs_f64(), cpu_end);
        }
        (time, max_requests) = (LONGEST_WAIT, u64::MAX);
    };

    let micros = |share| micros_of(driver.histogram.quantile(share));
    let spent = |before| cpu_end.map(|end| end.saturating_sub(before));
    Ok(Outcome {
        seconds,
        p50_us: micros(0.5),
        p99_us: micros(0.99),
        p999_us: micros(0.999),
        max_us: micros_of(driver.histogram.max()),
        cpu_us: cpu.and_then(spent).map(micros_of),
        cpu_end_us: cpu_end.map(micros_of),
        ..driver.outcome
    })
}

fn micros_of(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

impl<'a> Driver<'a> {
    fn new(args: &'a Args) -> anyhow::Result<Self> {
        let poller = Poller::new()?;
        let open = |token| Connection::open(args.target, &poller, token);
        let connections: Result<Vec<_>, _> = (0..args.connections.max(1)).map(open).collect();
        let connections = connections.with_context(|| format!("connect to {}", args.target))?;
        Ok(Self {
            args,
            request: args.request(),
            idle: (0..connections.len()).rev().collect(),
            connections,
            poller,
            backlog: VecDeque::new(),
            schedule: None,
            buffer: vec![0; READ_BUFFER],
            histogram: Histogram::new(),
            outcome: Outcome::default(),
        })
    }

    fn start(&mut self) -> anyhow::Result<Option<Ticker>> {
        let now = Instant::now();
        if let Some(rate) = self.args.rate {
            anyhow::ensure!(rate > 0.0 && rate <= 1e6, "rate {rate} is not between 0 and a million");
            let period = 1.0 / rate;
            self.schedule = Some(Schedule { start: now, period, next: 1 });
            let ticker = Ticker::new(Duration::from_secs_f64(period))?;
            self.poller.add(&ticker, TICKER)?;
            return Ok(Some(ticker));
        }
        while let Some(token) = self.idle.pop() {
            self.send(token, now)?;
        }
        Ok(None)
    }

    /// Until the time is over or so many answers have come.
    fn run(&mut self, ticker: Option<&Ticker>, time: Duration, max_requests: u64) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        let mut ready = Vec::new();
        loop {
            let now = Instant::now();
            // Also at the end: what was due by then has been sent or waits.
            self.send_due(now)?;
            if now >= end || self.outcome.requests >= max_requests {
                return Ok(());
            }
            anyhow::ensure!(self.backlog.len() < MAX_BACKLOG, "the server is slower than the rate");
            anyhow::ensure!(self.outcome.errors < MAX_ERRORS, "too many errors: {}", self.first_error());
            self.poller.wait(Some((end - now).min(LONGEST_WAIT)), &mut ready)?;
            for event in &ready {
                match ticker {
                    Some(ticker) if event.token == TICKER => ticker.clear(),
                    _ => self.serve(*event)?,
                }
            }
        }
    }

    /// What the measurement is divided by is not zero.
    fn has_counted(&self) -> bool {
        if self.args.stream { self.outcome.chunks > 0 } else { self.outcome.requests > 0 }
    }

    /// Open loop: sends what is due by now, as far as connections are free.
    fn send_due(&mut self, now: Instant) -> anyhow::Result<()> {
        let Some(schedule) = &mut self.schedule else { return Ok(()) };
        while schedule.due() <= now {
            self.backlog.push_back(schedule.due());
            schedule.next += 1;
        }
        while !self.idle.is_empty() && !self.backlog.is_empty() {
            if let (Some(token), Some(due)) = (self.idle.pop(), self.backlog.pop_front()) {
                self.send(token, due)?;
            }
        }
        self.outcome.backlog = self.outcome.backlog.max(self.backlog.len());
        Ok(())
    }

    fn send(&mut self, token: usize, due: Instant) -> anyhow::Result<()> {
        match self.connections[token].start(&self.request, due, &self.poller) {
            Ok(()) => Ok(()),
            Err(error) => self.broken(token, &error),
        }
    }

    fn serve(&mut self, event: Ready) -> anyhow::Result<()> {
        let token = event.token;
        let progress = match self.exchange(event) {
            Ok(progress) => progress,
            Err(error) => {
                self.broken(token, &error)?;
                Progress::default()
            }
        };
        self.outcome.reads += u64::from(progress.bytes > 0);
        self.outcome.chunks += progress.events;
        if let Some(due) = progress.answered {
            self.answered(token, due);
            if self.connections[token].closes() {
                self.connections[token] = self.open(token)?;
            }
        }
        if self.connections[token].is_idle() && self.schedule.is_none() {
            self.send(token, Instant::now())?;
        }
        Ok(())
    }

    fn exchange(&mut self, event: Ready) -> io::Result<Progress> {
        let connection = &mut self.connections[event.token];
        if event.writable {
            connection.write(&self.request, &self.poller)?;
        }
        if event.readable { connection.read(&mut self.buffer) } else { Ok(Progress::default()) }
    }

    fn answered(&mut self, token: usize, due: Instant) {
        self.histogram.record(due.elapsed());
        self.outcome.requests += 1;
        if self.args.stream {
            // `[DONE]` ends every good stream and is no chunk.
            self.outcome.chunks = self.outcome.chunks.saturating_sub(1);
        }
        if let Some(failure) = self.connections[token].failure() {
            self.failed(failure);
        }
        if self.schedule.is_some() {
            self.idle.push(token);
        }
    }

    /// Counts an error and replaces the connection. A server that accepts none any more ends the run.
    fn broken(&mut self, token: usize, error: &io::Error) -> anyhow::Result<()> {
        self.failed(error.to_string());
        // An idle connection (open loop) is in the list of idle ones already.
        if !self.connections[token].is_idle() && self.schedule.is_some() {
            self.idle.push(token);
        }
        self.connections[token] = self.open(token)?;
        Ok(())
    }

    fn open(&self, token: usize) -> anyhow::Result<Connection> {
        let target = self.args.target;
        Connection::open(target, &self.poller, token).with_context(|| format!("connect to {target}"))
    }

    fn failed(&mut self, what: String) {
        self.outcome.errors += 1;
        self.outcome.first_error.get_or_insert(what);
    }

    fn first_error(&self) -> String {
        self.outcome.first_error.clone().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::super::tests::args;
    use super::*;

    /// A server that stalls for 100 ms at every so many requests.
    fn stalling_server(every: u64) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 65536];
            let mut count = 0_u64;
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {
                count += 1;
                if count.is_multiple_of(every) {
                    thread::sleep(Duration::from_millis(100));
                }
                if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                    return;
                }
            }
        });
        addr
    }

    #[test]
    fn an_open_loop_charges_a_stall_to_every_request_that_was_due_in_it() {
        let line = "--connections 1 --rate 200 --warmup-seconds 0.2 --seconds 1";
        let mut args = args(line);
        args.target = stalling_server(20);
        let outcome = measure(&args).unwrap();
        let (requests, backlog) = (outcome.requests, outcome.backlog);
        assert_eq!((outcome.errors, outcome.first_error), (0, None));
        // 200 are due, give or take one, and another may be in flight: all others are answered or wait.
        assert!(requests > 0 && requests + backlog as u64 >= 198, "{requests} {backlog}");
        // One request in twenty stalls. Measured from when they were sent, only 5 % would take long; but in 100 ms
        // twenty are due, so about all of them wait, half of them for more than 40 ms.
        assert!(outcome.p50_us > 20_000.0 && backlog > 10, "{} {backlog}", outcome.p50_us);
    }

    #[test]
    fn a_measurement_ends_at_its_number_of_requests_and_knows_its_warm_up() {
        let mut args = args("--connections 1 --warmup-seconds 60 --seconds 60 --max-requests 10");
        args.target = stalling_server(20);
        let outcome = measure(&args).unwrap();
        assert_eq!((outcome.requests, outcome.warmup_requests), (10, 2));
        assert!(outcome.seconds < 30.0, "{}", outcome.seconds);
    }

    #[test]
    fn a_measurement_waits_for_its_first_answer() {
        let mut args = args("--connections 1 --warmup-seconds 0 --seconds 0.02");
        args.target = stalling_server(1);
        let outcome = measure(&args).unwrap();
        assert!(outcome.requests > 0, "{outcome:?}");
    }

    #[test]
    fn a_closed_loop_counts_answers_and_their_time() {
        let mut args = args("--connections 1 --warmup-seconds 0.05 --seconds 60 --max-requests 100");
        args.target = stalling_server(20);
        let outcome = measure(&args).unwrap();
        assert!(outcome.requests == 100 && outcome.p50_us < 50_000.0, "{outcome:?}");
        assert!(outcome.max_us > 90_000.0, "{outcome:?}");
    }
}
