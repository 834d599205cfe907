//! What a request has consumed and what that costs: as the upstream says, else as can be estimated and priced. Called by
//! [`super`] and [`super::billing`], and by whoever tells the client.

use super::*;

impl RequestContext {
    /// Reported usage, else what can be estimated of a request that was sent; with whether it is an estimate. What a
    /// stream that broke off has reported does not count what came afterwards: Anthropic begins with a report.
    pub(super) fn measured(&self, ending: Ending<'_>) -> (Option<Usage>, bool) {
        let billable = self.is_billable(ending);
        if let Some(mut usage) = self.usage {
            let cut = self.stream && billable && !matches!(ending, Ending::Complete);
            let rest = cut && self.output_bytes > 0;
            if rest {
                let since = estimate_output_tokens(self.output_bytes);
                usage.output = Some(usage.output.unwrap_or(0).saturating_add(since));
            }
            return (Some(usage), rest);
        }
        if !self.endpoint.is_text() {
            // Bytes of sound and images say nothing about tokens; what was counted in units is exact at the end only.
            return (None, billable && !matches!(ending, Ending::Complete));
        }
        let estimate = || Usage {
            input: Some(self.estimated_input()),
            output: Some(estimate_output_tokens(self.output_bytes)),
            ..Usage::default()
        };
        (billable.then(estimate), billable)
    }

    pub(super) fn is_billable(&self, ending: Ending<'_>) -> bool {
        match ending {
            // Counting is free.
            _ if self.endpoint.counts().is_some() => false,
            Ending::Complete => true,
            // Unless the last attempt has failed, whose cost is counted with it: nobody answered a stream that was kept
            // alive, or the client left between two attempts.
            Ending::Interrupted(_) | Ending::Cancelled => {
                self.attempts.last().is_some_and(|attempt| attempt.error.is_none())
            }
            Ending::Failed(_) | Ending::Refused { .. } => false,
        }
    }

    /// What was consumed in other units than text tokens.
    pub(super) fn units(&self, ending: Ending<'_>) -> Vec<Measure> {
        if !self.is_billable(ending) {
            return Vec::new();
        }
        let form = self.upload.as_ref().map(|upload| upload.asked(self.endpoint));
        nemo_llm::measures(self.endpoint, form.as_ref().or(self.asked.as_deref()), self.measures.clone())
    }

    /// The cost of what was consumed: the upstream's own figure wins, else the price of the deployment. Failed attempts
    /// count too, as far as they have reported anything.
    pub(super) fn cost_of(
        &self,
        ending: Ending<'_>,
        usage: Option<&Usage>,
        units: &[Measure],
        estimated: bool,
    ) -> Option<Cost> {
        match (self.own_cost(ending, usage, units, estimated), self.lost()) {
            (Some(own), Some(lost)) => Some(Cost { nanos: Nanos(own.nanos.0.saturating_add(lost.0)), ..own }),
            (None, Some(nanos)) => Some(Cost { nanos, source: CostSource::Priced }),
            (own, None) => own,
        }
    }

    fn own_cost(
        &self,
        ending: Ending<'_>,
        usage: Option<&Usage>,
        units: &[Measure],
        estimated: bool,
    ) -> Option<Cost> {
        if self.endpoint.counts().is_some() {
            // Free, also where the price is one for each call.
            return None;
        }
        if let Some(nanos) = self.provider_cost {
            return Some(Cost { nanos, source: CostSource::Provider });
        }
        if usage.is_none() && !self.is_billable(ending) {
            // Nor is a call paid for that brought no answer.
            return None;
        }
        let nanos =
            self.deployment.as_ref()?.price.as_ref()?.cost_in(self.service_tier.as_str(), usage, units)?;
        let source = if estimated { CostSource::Estimated } else { CostSource::Priced };
        Some(Cost { nanos, source })
    }

    /// The same for a stream that is under way, whose last chunk shall tell its cost.
    pub fn pricing(&self) -> Pricing {
        let price = self.deployment.as_ref().and_then(|it| it.price.clone());
        let lost = self.lost().unwrap_or(Nanos::ZERO);
        Pricing::new(move |told| {
            let priced = || price.as_ref()?.cost_in(told.service_tier.as_str(), told.usage, told.measures);
            told.provider_cost.or_else(priced)?.checked_add(lost)
        })
    }

    /// What the request costs if it ended well now, for the response headers.
    pub fn cost(&self) -> Option<Cost> {
        let (usage, estimated) = self.measured(Ending::Complete);
        self.cost_of(Ending::Complete, usage.as_ref(), &self.units(Ending::Complete), estimated)
    }

    /// What failed attempts have cost all the same.
    fn lost(&self) -> Option<Nanos> {
        let costs = self.attempts.iter().filter_map(|attempt| attempt.cost);
        costs.reduce(|sum, cost| Nanos(sum.0.saturating_add(cost.0)))
    }
}
