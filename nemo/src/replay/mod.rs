//! Logged decisions, made again: against the configuration that each of them saw, and against another policy.
//!
//! - [`log`]: what is read of the control plane, page by page
//! - [`revisions`]: the configuration by revision, a few of them held at a time
//! - [`candidate`]: the policy of a file, laid over a revision
//! - [`tally`]: what the other policy would change, summed up
//!
//! Called by `nemo replay`. Nothing here says anything about latency or quality: what an upstream would have answered
//! is not known.

pub mod candidate;
pub mod log;
pub mod revisions;
pub mod tally;

use nemo_data_plane::{
    nemo_llm::Endpoint,
    routing::{
        record::Record,
        replay::{Choices, Logged, Outcome, Policy, difference},
    },
};
use nemo_proto::admin::LoggedDecision;
use nemo_types::OrgId;
use serde::Serialize;

use self::{candidate::Candidate, log::Log, revisions::Revisions, tally::Tally};

/// Failures that are told one by one; the others are counted.
const TOLD: usize = 100;

/// A decision that did not come out as it was logged, or could not be made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub request_id: String,
    pub config_revision: u64,
    pub reason: String,
}

/// What a run found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Requests that were looked at.
    pub requests: u64,
    /// Those that came out as they were logged.
    pub reproduced: u64,
    /// Refused before they were routed, so there is nothing to reproduce.
    pub not_routed: u64,
    /// Those that did not come out, or could not be made again.
    pub failed: u64,
    /// Different revisions that were seen.
    pub revisions: u64,
    /// The first hundred.
    pub failures: Vec<Failure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Tally>,
}

/// One run.
pub struct Replay<'a> {
    log: Log<'a>,
    revisions: Revisions<'a>,
    report: Report,
}

impl<'a> Replay<'a> {
    pub fn new(log: Log<'a>, candidate: Option<Candidate>) -> Self {
        let report = Report { candidate: candidate.is_some().then(Tally::default), ..Report::default() };
        let revisions = Revisions::new(log.client, candidate);
        Self { log, revisions, report }
    }

    /// Goes through the log. `seen` is called once for each request, with how many there are in all, at least.
    ///
    /// # Errors
    /// When the control plane can't be read, or the file names what no revision has.
    pub async fn run(mut self, mut seen: impl FnMut(u64)) -> anyhow::Result<Report> {
        while let Some(page) = self.log.next().await? {
            for decision in &page {
                self.one(decision).await?;
                seen(self.log.total());
            }
        }
        self.revisions.check_names()?;
        self.report.revisions = self.revisions.seen();
        Ok(self.report)
    }

    async fn one(&mut self, decision: &LoggedDecision) -> anyhow::Result<()> {
        self.report.requests += 1;
        if decision.record.is_empty() {
            self.report.not_routed += 1;
            return Ok(());
        }
        if let Err(reason) = self.again(decision).await? {
            self.report.failed += 1;
            if self.report.failures.len() < TOLD {
                let (request_id, config_revision) = (decision.request_id.clone(), decision.config_revision);
                self.report.failures.push(Failure { request_id, config_revision, reason });
            }
        }
        Ok(())
    }

    /// The outer error ends the run, the inner one is about this decision.
    async fn again(&mut self, decision: &LoggedDecision) -> anyhow::Result<Result<(), String>> {
        let (org, endpoint, record) = match read(decision) {
            Ok(read) => read,
            Err(reason) => return Ok(Err(reason)),
        };
        let logged = Logged { org, endpoint, record: &record };
        let revision = match self.revisions.get(decision.config_revision).await? {
            Ok(revision) => revision,
            Err(reason) => return Ok(Err(reason)),
        };
        let outcome = match revision.policy.decide(&logged, Choices::Recorded) {
            Ok(outcome) => outcome,
            Err(unresolved) => return Ok(Err(unresolved.to_string())),
        };
        if let Some(difference) = difference(&record, &outcome) {
            return Ok(Err(difference));
        }
        self.report.reproduced += 1;
        if let (Some(tally), Some(candidate)) = (&mut self.report.candidate, &revision.candidate) {
            let changed = changed(candidate, &logged);
            tally.add(decision, &revision.policy, candidate.as_ref().ok(), &outcome, changed.as_ref());
        }
        Ok(Ok(()))
    }
}

/// The decision by the other policy.
fn changed(candidate: &Result<Policy, String>, logged: &Logged<'_>) -> Result<Outcome, String> {
    let policy = candidate.as_ref().map_err(Clone::clone)?;
    policy.decide(logged, Choices::Policy).map_err(|unresolved| unresolved.to_string())
}

fn read(decision: &LoggedDecision) -> Result<(OrgId, Endpoint, Record), String> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let org = decision.org_id.parse().map_err(|_| format!("{:?} is no organization", decision.org_id))?;
    let endpoint = Endpoint::from_label(&decision.endpoint);
    let endpoint = endpoint.ok_or_else(|| format!("this build has no endpoint {:?}", decision.endpoint))?;
    let bytes = BASE64_STANDARD.decode(&decision.record);
    let bytes = bytes.map_err(|error| format!("the record can't be read: {error}"))?;
    let record = Record::decode(&bytes).map_err(|error| format!("the record can't be read: {error}"))?;
    Ok((org, endpoint, record))
}
