//! A request's way through the journal and its budgets: written down before it is sent, extended while it goes on, settled
//! and closed at its end. Called by [`super`], [`crate::pipeline::attempts`] and [`crate::pipeline::dispatch`].

use super::*;

impl RequestContext {
    /// Tokens that each answer may have at most, because no more is paid for.
    pub fn cap(&self) -> Option<u64> {
        self.spending.as_ref().and_then(|spending| spending.output_cap())
    }

    /// The first attempt is about to be sent.
    ///
    /// # Errors
    /// When it could not be billed, and a budget wants it to be.
    pub fn opening(&mut self) -> Result<(), GatewayError> {
        let Some(key) = self.key.clone() else { return Ok(()) };
        let held = self.spending.as_ref().filter(|it| it.is_bound()).map(|it| (it.held(), it.charges()));
        let cost = held.as_ref().map(|(nanos, _)| Cost { nanos: *nanos, source: CostSource::Estimated });
        let recorded = Recorded {
            outcome: Outcome::Lost,
            code: "",
            total: Duration::ZERO,
            usage: None,
            estimated: false,
            cost,
            // Unfinished it can't be replayed, and every byte of this is written for every request.
            decision: &[],
            charges: held.as_ref().map_or(&[], |(_, charges)| charges),
        };
        match self.sinks.journal.opened(&self.event(&key, &recorded, &[])) {
            Ok(ticket) => self.ticket = Some(ticket),
            // If it cannot be billed, it is not served, where that was asked for.
            Err(Full) if self.spending.as_ref().is_some_and(|it| it.is_hard()) => {
                return Err(refusal::journal_full());
            }
            Err(Full) => {}
        }
        Ok(())
    }

    /// From now on the request costs something.
    pub fn sending(&mut self) {
        if let Some(spending) = &mut self.spending {
            spending.sent();
        }
    }

    /// More is held than before.
    pub fn extended(&self) {
        if let (Some(ticket), Some(spending)) = (&self.ticket, &self.spending) {
            let charges: SmallVec<[wire::Charge; 4]> = spending.charges().iter().map(Into::into).collect();
            self.sinks.journal.extended(ticket, &charges, spending.held());
        }
    }

    /// Ends what is held, at what the request has cost. Where it was sent and nobody knows that, at what is held.
    pub(super) fn settle(
        &mut self,
        ending: Ending<'_>,
        cost: Option<Cost>,
        usage: Option<&Usage>,
    ) -> (Option<Cost>, Charges) {
        let billable = self.is_billable(ending);
        if let Some(pass) = &mut self.pass {
            let count = |tokens: Option<u64>| tokens.unwrap_or(0);
            // The gateway's own answers count as any.
            let answered = matches!(ending, Ending::Complete);
            match usage {
                _ if self.attempts.is_empty() && !answered => pass.refund(),
                Some(usage) => pass.settle_tokens(count(usage.input).saturating_add(count(usage.output))),
                None if billable => {}
                None => pass.settle_tokens(0),
            }
        }
        let Some(spending) = self.spending.take() else { return (cost, Charges::new()) };
        if self.attempts.is_empty() {
            return (cost, Charges::new());
        }
        let unknown = || Cost { nanos: spending.held(), source: CostSource::Estimated };
        let cost = cost.or_else(|| (spending.is_bound() && billable).then(unknown));
        let charges = spending.settle(cost.map_or(Nanos::ZERO, |cost| cost.nanos));
        (cost, charges)
    }

    pub(super) fn event<'a>(
        &'a self,
        key: &'a KeyRecord,
        recorded: &Recorded<'a>,
        units: &'a [Measure],
    ) -> Event<'a> {
        let Recorded { outcome, code, total, usage, estimated, cost, decision, charges } = *recorded;
        let deployment = self.deployment.as_deref();
        let price = deployment.and_then(|it| it.price.as_ref()).filter(|_| cost.is_some());
        Event {
            request_id: self.id.as_bytes(),
            org_id: key.org_id.as_bytes(),
            team_id: key.team_id.as_bytes(),
            key_id: key.id.as_bytes(),
            deployment_id: deployment.map(|it| it.id.as_bytes()),
            endpoint: self.endpoint.label(),
            requested_model: &self.requested_model,
            model: self.group.as_ref().map_or("", |group| &group.name),
            provider: deployment.map_or("", |it| &it.provider),
            upstream_model: deployment.map_or("", |it| &it.upstream_model),
            stream: self.stream,
            outcome,
            http_status: self.status,
            error_code: code,
            finish_reason: self.finish_reason.as_ref().map_or("", FinishReason::as_str),
            usage,
            usage_estimated: usage.is_some() && estimated,
            cost_nanos: cost.map(|cost| cost.nanos.0),
            cost_source: cost.map_or(CostSource::Unspecified, |cost| cost.source),
            price_id: price.map_or("", |price| &price.id),
            attempts: u32::try_from(self.attempts.len()).unwrap_or(u32::MAX),
            strategy: self.strategy.map_or("", Strategy::name),
            config_revision: self.config_revision,
            started_unix_us: self.started_unix_us,
            total_us: micros(total),
            upstream_us: micros(self.upstream),
            first_byte_us: self.first_byte.map(micros),
            overhead_us: micros(self.overhead),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            client_request_id: self.client_request_id.as_ref().map_or(b"", HeaderValue::as_bytes),
            metadata: self.metadata.as_deref().unwrap_or(&key.policy.metadata),
            units,
            decision,
            charges,
            service_tier: self.service_tier.as_str(),
        }
    }
}

/// What an ending came to.
#[derive(Clone, Copy)]
pub(super) struct Recorded<'a> {
    pub(super) outcome: Outcome,
    pub(super) code: &'a str,
    pub(super) total: Duration,
    pub(super) usage: Option<&'a Usage>,
    pub(super) estimated: bool,
    pub(super) cost: Option<Cost>,
    pub(super) decision: &'a [u8],
    pub(super) charges: &'a [Charge],
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
