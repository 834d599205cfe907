//! The control plane: the real bank in memory, an idempotent ingest, and a clock that is not quite right.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use nemo_control_plane::quota::{
    Settings,
    bank::{MemoryBank, NodeEpoch, SettledCharge},
    books::LostLease,
    desk::Terms,
    window::Window,
};
use nemo_proto::{
    quota::{LeaseDirective, LeaseReport},
    usage::{Outcome, UsageEvent},
};
use nemo_types::{BudgetId, LeaseId, Nanos, OrgId};
use prost::Message as _;
use uuid::Uuid;

use crate::sabotage::Sabotage;

/// 2026-11-21 23:45 UTC: a quarter of an hour before windows end.
const BASE_MS: i64 = 1_795_304_700_000;

pub struct Plane {
    pub bank: MemoryBank,
    pub settings: Settings,
    /// By request: what was charged of each budget.
    pub ingested: BTreeMap<u128, UsageEvent>,
    /// The sum of what was ingested, by budget.
    pub charged: BTreeMap<BudgetId, i128>,
    pub duplicates: u64,
    pub fenced: u64,
    drift_ppm: i64,
    sabotage: Sabotage,
}

pub fn settings(ttl_s: u32) -> Settings {
    Settings {
        lease_ttl_s: ttl_s,
        report_ms: 2000,
        hold_s: 120,
        min_slice: Nanos(2_000_000),
        max_slice: Nanos(100_000_000),
        outage_minutes: 1,
    }
}

pub fn terms(budget: u128, window: (&str, Option<i64>), limit: i64, lost: LostLease) -> Terms {
    Terms {
        budget: BudgetId(Uuid::from_u128(budget)),
        org: OrgId(Uuid::from_u128(1)),
        window: Window::parse(window.0, window.1, "UTC").unwrap(),
        limit,
        lost,
        disabled: false,
    }
}

impl Plane {
    pub fn new(settings: Settings, drift_ppm: i64, sabotage: Sabotage) -> Self {
        Self {
            bank: MemoryBank::new(settings, BASE_MS),
            settings,
            ingested: BTreeMap::new(),
            charged: BTreeMap::new(),
            duplicates: 0,
            fenced: 0,
            drift_ppm,
            sabotage,
        }
    }

    pub fn put(&self, terms: &Terms) {
        let factor = if self.sabotage == Sabotage::NoLimit { 2 } else { 1 };
        self.bank.put_budget(Terms { limit: terms.limit * factor, ..terms.clone() });
    }

    /// `now`: nanoseconds of true time.
    pub fn set_now(&self, now: u64) {
        let ms = i64::try_from(now / 1_000_000).unwrap();
        self.bank.set_now(BASE_MS + ms + ms * self.drift_ppm / 1_000_000);
    }

    pub fn report(&mut self, node: &NodeEpoch, report: &LeaseReport) -> Option<LeaseDirective> {
        let mut report = report.clone();
        if self.sabotage == Sabotage::LostReturns {
            report.budgets.iter_mut().for_each(|it| it.returned_total = 0);
        }
        let Ok(answer) = self.bank.report_now(node, &report) else {
            self.fenced += 1;
            return None;
        };
        let mut directive = answer.directive;
        // As the service does.
        directive.answers = report.seq;
        if self.sabotage == Sabotage::LongLives {
            directive.grants.iter_mut().for_each(|grant| grant.ttl_ms *= 100);
        }
        if self.sabotage == Sabotage::DoubledGrants {
            directive.grants.iter_mut().for_each(|grant| grant.granted_total *= 2);
        }
        Some(directive)
    }

    /// As the usage service and the ledger do. Returns the requests that were new.
    pub fn ingest(&mut self, events: &[Bytes]) -> Vec<(u128, UsageEvent)> {
        let mut new = Vec::new();
        for event in events {
            let event = UsageEvent::decode(event.clone()).expect("what the journal ships can be read");
            let id = Uuid::from_slice(&event.request_id).unwrap().as_u128();
            if self.ingested.contains_key(&id) {
                self.duplicates += 1;
                if self.sabotage != Sabotage::IngestTwice {
                    continue;
                }
            }
            let charge = |it: &nemo_proto::usage::Charge| SettledCharge {
                budget_id: BudgetId::from_bytes(&it.budget_id).unwrap(),
                window_start: it.window_start_unix_s,
                lease_id: LeaseId::from_bytes(&it.lease_id),
                nanos: it.nanos,
                at: event.started_unix_us / 1000,
            };
            let charges: Vec<_> = event.charges.iter().map(charge).collect();
            self.bank.settle_now(&charges);
            for charge in &charges {
                *self.charged.entry(charge.budget_id).or_default() += i128::from(charge.nanos);
            }
            self.ingested.insert(id, event.clone());
            new.push((id, event));
        }
        new
    }

    pub fn expire(&self) {
        if self.sabotage == Sabotage::NoFencing {
            let now = self.bank.now();
            self.bank.set_now(now + i64::from(self.settings.lease_ttl_s) * 900);
            self.bank.expire_now();
            self.bank.set_now(now);
        }
        self.bank.expire_now();
    }

    /// What a wall clock says at `now` nanoseconds of true time, in microseconds.
    pub fn wall_us(now: u64) -> i64 {
        BASE_MS * 1000 + i64::try_from(now / 1000).unwrap()
    }
}

pub fn node_epoch(name: &Arc<str>, epoch: u64) -> NodeEpoch {
    NodeEpoch { node_id: name.clone(), epoch }
}

pub fn is_lost(event: &UsageEvent) -> bool {
    event.outcome() == Outcome::Lost
}
