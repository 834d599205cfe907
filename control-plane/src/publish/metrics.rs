//! Instruments of publishing: which revision is out, and whether a newer one can't be.

use std::sync::atomic::AtomicI64;

use nemo_runtime::metrics::Registry;
use nemo_snapshot::prover::{Finding, Severity};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::Published;

#[derive(Clone, Debug, Default)]
pub struct PublishMetrics {
    published_revision: Gauge<i64, AtomicI64>,
    database_revision: Gauge<i64, AtomicI64>,
    resources: Gauge<i64, AtomicI64>,
    unpublishable: Gauge<i64, AtomicI64>,
    published: Counter<u64>,
    failed_reads: Counter<u64>,
    unfit: Gauge<i64, AtomicI64>,
    doubtful: Gauge<i64, AtomicI64>,
}

impl PublishMetrics {
    pub fn register(registry: &Registry) -> Self {
        let it = Self::default();
        registry.register(|r| {
            r.register("config_revision", "Published configuration revision", it.published_revision.clone());
            let help = "Newest configuration revision seen in the database";
            r.register("config_database_revision", help, it.database_revision.clone());
            r.register("config_resources", "Resources of the published revision", it.resources.clone());
            let help = "1 while the newest revision does not compile and an older one stays published";
            r.register("config_unpublishable_revision", help, it.unpublishable.clone());
            r.register("config_published", "Revisions published since the start", it.published.clone());
            let help = "Reads of the configuration that failed";
            r.register("config_failed_reads", help, it.failed_reads.clone());
            let help = "Links of model groups that can never serve a request";
            r.register("config_unfit_links", help, it.unfit.clone());
            let help = "Warnings about links that can't serve all that the first link of their group does";
            r.register("config_link_warnings", help, it.doubtful.clone());
        });
        it
    }

    pub(super) fn database_revision(&self, revision: u64) {
        self.database_revision.set(as_gauge(revision));
    }

    pub(super) fn published(&self, published: &Published) {
        self.published_revision.set(as_gauge(published.revision));
        self.resources.set(as_gauge(published.set.len() as u64));
        self.unpublishable.set(0);
        self.published.inc();
    }

    pub(super) fn unpublishable(&self) {
        self.unpublishable.set(1);
    }

    /// What the chain prover found about the published revision.
    pub(super) fn findings(&self, findings: &[Finding]) {
        let unfit = findings.iter().filter(|finding| finding.severity == Severity::Unfit).count();
        self.unfit.set(as_gauge(unfit as u64));
        self.doubtful.set(as_gauge((findings.len() - unfit) as u64));
    }

    pub(super) fn failed_read(&self) {
        self.failed_reads.inc();
    }

    #[cfg(test)]
    pub(super) fn unfit_and_doubtful(&self) -> (i64, i64) {
        (self.unfit.get(), self.doubtful.get())
    }

    #[cfg(test)]
    pub(super) fn is_unpublishable(&self) -> bool {
        self.unpublishable.get() == 1
    }
}

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
