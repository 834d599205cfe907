//! What this node has of budgets and rate limits goes out, grants and recalls come in. Called by [`super`].
//!
//! A session begins with everything that is held. Then a report goes out every few seconds, which is what renews the
//! leases, and at once when a request waits for money, a slice runs low, or something was asked back. One report at a
//! time: the next one goes when the last one was answered, or when it is due.

use std::{sync::Mutex, time::Duration};

use nemo_proto::{
    common::NodeInfo,
    quota::{CloseEpoch, LeaseDirective, LeaseReport, quota_service_client::QuotaServiceClient},
};
use nemo_runtime::drain::DrainWatcher;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::NodeChannel;
use crate::{quota::QuotaTable, usage::Journal};

/// Until the control plane says how often.
const REPORT: Duration = Duration::from_secs(2);
const REPORT_RANGE: (u32, u32) = (50, 60_000);
/// Needs that arise together are one report.
const COALESCE: Duration = Duration::from_millis(1);
/// Budgets, or rate limits, in one message.
const MAX_LINES: usize = 4096;

/// The node's side of `QuotaService.Lease`, over all sessions.
pub struct QuotaStream {
    info: NodeInfo,
    quota: QuotaTable,
    journal: Journal,
    every: Mutex<Duration>,
}

impl QuotaStream {
    pub fn new(info: NodeInfo, quota: QuotaTable, journal: Journal) -> Self {
        Self { info, quota, journal, every: Mutex::new(REPORT) }
    }

    /// One session. Ends with `Ok` when the server ends the stream. On drain everything is handed back, and
    /// `handed_back` tells when the control plane has heard of it.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn run(
        &self,
        channel: &NodeChannel,
        drain: &DrainWatcher,
        handed_back: &CancellationToken,
    ) -> Result<(), Status> {
        let mut client = QuotaServiceClient::new(channel.clone());
        let (reports, outgoing) = mpsc::channel(1);
        let mut everything = parts(self.report(true)).into_iter();
        if let Some(mut first) = everything.next() {
            first.info = Some(self.info.clone());
            send(&reports, first).await?;
        }
        let mut directives = match client.lease(ReceiverStream::new(outgoing)).await {
            Ok(directives) => directives.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => {
                tracing::info!("the control plane is an older one: budgets are not served");
                handed_back.cancel();
                return std::future::pending().await;
            }
            Err(status) => return Err(status),
        };
        for part in everything {
            send(&reports, part).await?;
        }
        let (mut unanswered, mut draining) = (true, false);
        let mut due = Instant::now() + self.every();
        loop {
            tokio::select! {
                directive = directives.message() => match directive? {
                    Some(directive) => {
                        unanswered = false;
                        self.apply(&directive);
                        if draining && self.quota.is_empty() {
                            handed_back.cancel();
                        }
                        continue;
                    }
                    None => return Ok(()),
                },
                () = self.worthwhile(), if !unanswered => tokio::time::sleep(COALESCE).await,
                () = sleep_until(due) => {}
                () = drain.signaled(), if !draining => {
                    draining = true;
                    self.quota.drain();
                }
            }
            for part in parts(self.report(false)) {
                send(&reports, part).await?;
            }
            unanswered = true;
            due = Instant::now() + self.every();
        }
    }

    /// Something has come up that should not wait for the next report.
    async fn worthwhile(&self) {
        let retry = async {
            match self.quota.retry_in() {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.quota.urgent() => {}
            () = retry => {}
        }
    }

    fn report(&self, full: bool) -> LeaseReport {
        let over = self.journal.closed_epochs().into_iter();
        let closed_epochs = over.map(|(epoch, exact)| CloseEpoch { epoch, exact }).collect();
        LeaseReport { closed_epochs, ..self.quota.report(full) }
    }

    fn apply(&self, directive: &LeaseDirective) {
        self.quota.apply(directive);
        for epoch in &directive.epochs_closed {
            self.journal.forget_epoch(*epoch);
        }
        if directive.report_ms != 0 {
            let ms = directive.report_ms.clamp(REPORT_RANGE.0, REPORT_RANGE.1);
            *self.every.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                Duration::from_millis(ms.into());
        }
    }

    fn every(&self) -> Duration {
        *self.every.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn send(reports: &mpsc::Sender<LeaseReport>, report: LeaseReport) -> Result<(), Status> {
    reports.send(report).await.map_err(|_| Status::unavailable("the stream has ended"))
}

/// As messages of bounded size; usually one.
fn parts(mut report: LeaseReport) -> Vec<LeaseReport> {
    let mut parts = Vec::new();
    while report.budgets.len() > MAX_LINES || report.rates.len() > MAX_LINES {
        let budgets = report.budgets.drain(..report.budgets.len().min(MAX_LINES)).collect();
        let rates = report.rates.drain(..report.rates.len().min(MAX_LINES)).collect();
        let (full, seq) = (report.full, report.seq);
        parts.push(LeaseReport { full, more: true, seq, budgets, rates, ..LeaseReport::default() });
    }
    parts.push(report);
    parts
}

#[cfg(test)]
mod tests {
    use nemo_proto::quota::{BudgetReport, RateReport};

    use super::*;

    #[test]
    fn large_reports_go_in_parts_and_nothing_is_left_out() {
        let report = LeaseReport {
            full: true,
            seq: 7,
            budgets: (0..10_000).map(|wants| BudgetReport { wants, ..BudgetReport::default() }).collect(),
            rates: (0..5000).map(|refused| RateReport { refused, ..RateReport::default() }).collect(),
            closed_epochs: vec![CloseEpoch { epoch: 3, exact: true }],
            ..LeaseReport::default()
        };
        let parts = parts(report);
        let more: Vec<_> = parts.iter().map(|part| (part.full, part.seq, part.more)).collect();
        assert_eq!(more, [(true, 7, true), (true, 7, true), (true, 7, false)]);
        let wants: Vec<_> = parts.iter().flat_map(|part| &part.budgets).map(|it| it.wants).collect();
        assert_eq!(wants, (0..10_000).collect::<Vec<_>>());
        assert_eq!(parts.iter().map(|part| part.rates.len()).sum::<usize>(), 5000);
        assert_eq!(parts.iter().map(|part| part.closed_epochs.len()).sum::<usize>(), 1);
    }
}
