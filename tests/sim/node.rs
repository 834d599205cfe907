//! One node: its disk, which outlives its processes, and a process with the real table and the real journal. Requests on
//! it do what the pipeline does, in the same order.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use nemo_data_plane::{
    quota::{Charges, Clock, Denied, Hold, QuotaMetrics, QuotaTable},
    usage::{
        Event, Journal,
        journal::{Batch, Limits, Ticket, Writer},
    },
};
use nemo_proto::usage::{CostSource, Outcome};
use nemo_snapshot::{Budget, OverBudget};
use nemo_types::Nanos;
use uuid::Uuid;

use crate::{model::Disk, plane::Plane};

/// Small segments, so that they come and go.
const SEGMENT: usize = 32 * 1024;
const ORG: [u8; 16] = [1; 16];

pub struct Node {
    pub name: Arc<str>,
    pub epoch: u64,
    pub boot: u64,
    pub disk: Disk,
    pub process: Option<Process>,
    pub partitioned: bool,
    /// How much faster its clock goes than true time.
    pub drift_ppm: i64,
}

pub struct Process {
    pub inc: u64,
    pub clock: Clock,
    clock_at: u64,
    pub table: QuotaTable,
    pub journal: Journal,
    pub requests: BTreeMap<u128, Request>,
    /// Streams follow each other; when the last messages of this one arrive, at the plane and here.
    pub stream: u32,
    pub up: u64,
    pub down: u64,
    /// Its stream has lost a message.
    pub broken: bool,
    /// It will ask again for what there was nothing of.
    pub retries: bool,
    pub begin: bool,
    pub unanswered: Option<u64>,
    pub report_due: bool,
    pub unacked: Option<Batch>,
    pub batch: u64,
}

/// A request that was dispatched.
pub struct Request {
    pub hold: Hold,
    ticket: Ticket,
    /// What the upstream will have billed.
    pub actual: i64,
    pub extensions: u32,
    started: u64,
}

/// What a request would like to hold.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub bound: i64,
    /// It can be cut down to so much where its budgets allow that.
    pub least: i64,
    /// It has waited: now it takes less.
    pub waited: bool,
}

pub enum Begun {
    Dispatched,
    Denied(Denied),
    JournalFull,
}

impl Node {
    pub fn new(name: String, drift_ppm: i64) -> Self {
        Self {
            name: name.into(),
            epoch: 0,
            boot: 1,
            disk: Disk::new(),
            process: None,
            partitioned: false,
            drift_ppm,
        }
    }

    pub fn start(&mut self, inc: u64, now: u64) {
        self.epoch += 1;
        let limits = Limits { segment: SEGMENT, max: 64 * SEGMENT as u64, memory: 1 << 16 };
        let writer = Writer { epoch: self.epoch, boot_id: format!("boot {}", self.boot) };
        let (journal, _) =
            Journal::open(Arc::new(self.disk.clone()), limits, writer).expect("the disk works");
        let clock = Clock::manual();
        clock.advance(Duration::from_secs(1 + inc % 1000));
        self.process = Some(Process {
            inc,
            table: QuotaTable::new(clock.clone(), QuotaMetrics::default()),
            clock,
            clock_at: now,
            journal,
            requests: BTreeMap::new(),
            stream: 0,
            up: 0,
            down: 0,
            broken: false,
            retries: false,
            begin: true,
            unanswered: None,
            report_due: false,
            unacked: None,
            batch: 0,
        });
    }

    /// The process at this moment, its clock moved on.
    pub fn at(&mut self, now: u64) -> Option<&mut Process> {
        let drift = self.drift_ppm;
        let process = self.process.as_mut()?;
        let passed = now.saturating_sub(process.clock_at);
        let skewed = i128::from(passed) + i128::from(passed) * i128::from(drift) / 1_000_000;
        process.clock.advance(Duration::from_nanos(u64::try_from(skewed).unwrap()));
        process.clock_at = process.clock_at.max(now);
        Some(process)
    }
}

impl Process {
    /// Reserve, write down, send. `share` of what is held, in thousandths, is what it will have cost.
    pub fn begin(&mut self, id: u128, budgets: &[Arc<Budget>], need: Need, share: i64, now: u64) -> Begun {
        let mut hold = match self.hold(budgets, need) {
            Ok(hold) => hold,
            Err(denied) => return Begun::Denied(denied),
        };
        let actual = i64::try_from(i128::from(hold.reserved().0) * i128::from(share) / 1000).unwrap();
        let charges = hold.charges();
        let event = event(id, (Outcome::Lost, hold.reserved().0), &charges, now);
        let request_id = *Uuid::from_u128(id).as_bytes();
        let Ok(ticket) = self.journal.opened(&Event { request_id: &request_id, ..event }) else {
            return Begun::JournalFull;
        };
        hold.sent();
        self.requests.insert(id, Request { hold, ticket, actual, extensions: 0, started: now });
        Begun::Dispatched
    }

    fn hold(&self, budgets: &[Arc<Budget>], need: Need) -> Result<Hold, Denied> {
        let least = Nanos(need.least);
        let denied = match self.table.reserve_or_less(budgets, Nanos(need.bound), || least) {
            Ok(hold) => return Ok(hold),
            Err(denied) => denied,
        };
        let over = need.waited || matches!(denied, Denied::Exhausted { .. });
        if !over || denied.budget().over_budget == OverBudget::Reject {
            return Err(denied);
        }
        match self.table.affordable(budgets).min(Nanos(need.bound)) {
            part if part >= least => self.table.reserve_or_less(budgets, part, || least),
            _ => Err(denied),
        }
    }

    /// True when the stream may go on.
    pub fn extend(&mut self, id: u128, more: i64) -> bool {
        let Some(request) = self.requests.get_mut(&id) else { return false };
        if request.hold.extend(Nanos(more)).is_err() {
            return false;
        }
        request.extensions += 1;
        let charges: Vec<_> = request.hold.charges().iter().map(Into::into).collect();
        self.journal.extended(&request.ticket, &charges, request.hold.reserved());
        true
    }

    pub fn end(&mut self, id: u128, actual: i64) {
        let Some(request) = self.requests.remove(&id) else { return };
        let charges = request.hold.settle(Nanos(actual));
        let event = event(id, (Outcome::Ok, actual), &charges, request.started);
        let request_id = *Uuid::from_u128(id).as_bytes();
        self.journal.closed(Some(request.ticket), &Event { request_id: &request_id, ..event });
    }
}

fn event<'a>(_id: u128, (outcome, cost): (Outcome, i64), charges: &'a Charges, now: u64) -> Event<'a> {
    Event {
        request_id: &ORG,
        org_id: &ORG,
        team_id: &ORG,
        key_id: &ORG,
        deployment_id: None,
        endpoint: "chat.completions",
        requested_model: "m",
        model: "m",
        provider: "p",
        upstream_model: "m",
        stream: false,
        outcome,
        http_status: 200,
        error_code: "",
        finish_reason: "",
        usage: None,
        usage_estimated: false,
        cost_nanos: Some(cost),
        cost_source: CostSource::Priced,
        price_id: "",
        attempts: 1,
        strategy: "",
        config_revision: 0,
        started_unix_us: Plane::wall_us(now),
        total_us: 0,
        upstream_us: 0,
        first_byte_us: None,
        overhead_us: 0,
        request_bytes: 0,
        response_bytes: 0,
        client_request_id: b"",
        metadata: "",
        units: &[],
        decision: b"",
        charges,
        service_tier: "",
    }
}
