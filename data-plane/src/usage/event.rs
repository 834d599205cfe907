//! A usage event as the pipeline knows it, written as the `UsageEvent` of `usage.proto` without being built first: every
//! text in it belongs to somebody else, and every request makes one. Made by `pipeline::context`, written by the journal in
//! the parts that it keeps apart: one behind the other they are the message.

use nemo_proto::{
    common,
    usage::{CostSource, Outcome},
};
use nemo_types::{Measure, Nanos, Usage};
use prost::encoding::encoded_len_varint;

use crate::quota::Charge;

/// Field by field the `UsageEvent` of `usage.proto`.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub request_id: &'a [u8; 16],
    pub org_id: &'a [u8; 16],
    pub team_id: &'a [u8; 16],
    pub key_id: &'a [u8; 16],
    pub deployment_id: Option<&'a [u8; 16]>,
    pub endpoint: &'a str,
    pub requested_model: &'a str,
    pub model: &'a str,
    pub provider: &'a str,
    pub upstream_model: &'a str,
    pub stream: bool,
    pub outcome: Outcome,
    pub http_status: u16,
    pub error_code: &'a str,
    pub finish_reason: &'a str,
    pub usage: Option<&'a Usage>,
    pub usage_estimated: bool,
    pub cost_nanos: Option<i64>,
    pub cost_source: CostSource,
    pub price_id: &'a str,
    pub attempts: u32,
    pub strategy: &'a str,
    pub config_revision: u64,
    pub started_unix_us: i64,
    pub total_us: u64,
    pub upstream_us: u64,
    pub first_byte_us: Option<u64>,
    pub overhead_us: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub client_request_id: &'a [u8],
    pub metadata: &'a str,
    pub units: &'a [Measure],
    /// Encoded, as `routing::record` makes it.
    pub decision: &'a [u8],
    pub charges: &'a [Charge],
    pub service_tier: &'a str,
}

impl Event<'_> {
    /// Appends what the events of many requests have in common: those of one key with one model.
    pub fn put_common(&self, out: &mut Vec<u8>) {
        let mut out = Fields(out);
        out.ids([(2, self.org_id), (3, self.team_id), (4, self.key_id)]);
        if let Some(id) = self.deployment_id {
            out.ids([(5, id)]);
        }
        out.bytes(6, self.endpoint.as_bytes());
        out.bytes(7, self.requested_model.as_bytes());
        out.bytes(8, self.model.as_bytes());
        out.bytes(9, self.provider.as_bytes());
        out.bytes(10, self.upstream_model.as_bytes());
        out.count(11, self.stream.into());
        out.bytes(20, self.price_id.as_bytes());
        out.bytes(22, self.strategy.as_bytes());
        out.count(23, self.config_revision);
    }

    /// Appends everything else but the charges.
    pub fn put_own(&self, out: &mut Vec<u8>) {
        let mut out = Fields(out);
        out.ids([(1, self.request_id)]);
        out.count(12, self.outcome as u64);
        out.count(13, self.http_status.into());
        out.bytes(14, self.error_code.as_bytes());
        out.bytes(15, self.finish_reason.as_bytes());
        if let Some(usage) = self.usage {
            out.message(16, &common::Usage::from(usage));
        }
        out.count(17, self.usage_estimated.into());
        if let Some(nanos) = self.cost_nanos {
            // Negative ones, which no price gives, would be the ten bytes of their two's complement.
            out.present(18, nanos.cast_unsigned());
        }
        out.count(19, self.cost_source as u64);
        out.count(21, self.attempts.into());
        out.count(24, self.started_unix_us.cast_unsigned());
        out.count(25, self.total_us);
        out.count(26, self.upstream_us);
        if let Some(micros) = self.first_byte_us {
            out.present(27, micros);
        }
        out.count(28, self.overhead_us);
        out.count(29, self.request_bytes);
        out.count(30, self.response_bytes);
        out.bytes(31, self.client_request_id);
        out.bytes(32, self.metadata.as_bytes());
        for unit in self.units {
            out.message(33, &common::Measure::from(unit));
        }
        out.bytes(34, self.decision);
        out.bytes(36, self.service_tier.as_bytes());
    }

    /// Appends the charges.
    pub fn put_charges(&self, out: &mut Vec<u8>) {
        self.charges.iter().for_each(|charge| Fields(out).charge(35, charge));
    }

    /// Appends them without what is charged.
    pub fn put_charged(&self, out: &mut Vec<u8>) {
        for charge in self.charges {
            Fields(out).charge(35, &Charge { nanos: Nanos::ZERO, ..*charge });
        }
    }

    /// Each budget is charged what the request cost: [`Event::put_charged`] and the cost tell the charges.
    pub fn is_charged_its_cost(&self) -> bool {
        self.charges.iter().all(|charge| self.cost_nanos == Some(charge.nanos.0))
    }
}

#[cfg(test)]
impl Event<'static> {
    /// Nothing but ids and this number.
    pub fn blank(attempts: u32) -> Self {
        const ID: &[u8; 16] = &[7; 16];
        Self {
            request_id: ID,
            org_id: ID,
            team_id: ID,
            key_id: ID,
            deployment_id: None,
            endpoint: "",
            requested_model: "",
            model: "",
            provider: "",
            upstream_model: "",
            stream: false,
            outcome: Outcome::Ok,
            http_status: 0,
            error_code: "",
            finish_reason: "",
            usage: None,
            usage_estimated: false,
            cost_nanos: None,
            cost_source: CostSource::Unspecified,
            price_id: "",
            attempts,
            strategy: "",
            config_revision: 0,
            started_unix_us: 0,
            total_us: 0,
            upstream_us: 0,
            first_byte_us: None,
            overhead_us: 0,
            request_bytes: 0,
            response_bytes: 0,
            client_request_id: b"",
            metadata: "",
            units: &[],
            decision: &[],
            charges: &[],
            service_tier: "",
        }
    }
}

/// Writes fields as Protocol Buffers encode them: those with their default value not at all.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    const VARINT: u32 = 0;
    const LENGTH_DELIMITED: u32 = 2;

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    fn key(&mut self, tag: u32, wire_type: u32) {
        self.varint((tag << 3 | wire_type).into());
    }

    fn present(&mut self, tag: u32, value: u64) {
        self.key(tag, Self::VARINT);
        self.varint(value);
    }

    fn count(&mut self, tag: u32, value: u64) {
        if value != 0 {
            self.present(tag, value);
        }
    }

    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.key(tag, Self::LENGTH_DELIMITED);
            self.varint(bytes.len() as u64);
            self.0.extend_from_slice(bytes);
        }
    }

    /// Of tags below 16.
    fn ids<const N: usize>(&mut self, ids: [(u8, &[u8; 16]); N]) {
        let mut text = [[0; 18]; N];
        for (text, (tag, id)) in text.iter_mut().zip(ids) {
            (text[0], text[1]) = (tag << 3 | 2, 16);
            text[2..].copy_from_slice(id);
        }
        self.0.extend_from_slice(text.as_flattened());
    }

    fn charge(&mut self, tag: u32, charge: &Charge) {
        let (window, nanos) = (charge.window_start_unix_s.cast_unsigned(), charge.nanos.0.cast_unsigned());
        let number = |value: u64| if value == 0 { 0 } else { 1 + encoded_len_varint(value) };
        let lease = if charge.lease.is_some() { 18 } else { 0 };
        self.key(tag, Self::LENGTH_DELIMITED);
        self.varint((18 + number(window) + lease + number(nanos)) as u64);
        self.ids([(1, charge.budget.as_bytes())]);
        self.count(2, window);
        if let Some(lease) = &charge.lease {
            self.ids([(3, lease.as_bytes())]);
        }
        self.count(4, nanos);
    }

    fn message(&mut self, tag: u32, message: &impl prost::Message) {
        self.key(tag, Self::LENGTH_DELIMITED);
        self.varint(message.encoded_len() as u64);
        message.encode_raw(self.0);
    }
}

#[cfg(test)]
mod tests {
    use nemo_proto::usage::{self as wire, UsageEvent};
    use nemo_types::{BudgetId, LeaseId, Unit};
    use prost::Message as _;

    use super::*;

    fn id(byte: u8) -> [u8; 16] {
        [byte; 16]
    }

    /// Every field set, so that none can be forgotten: the message that is decoded must be the one that is written
    /// out here, with no byte more.
    #[test]
    fn it_is_the_usage_event_of_the_contract() {
        let (request, org, team, key, deployment) = (id(1), id(2), id(3), id(4), id(5));
        let usage = Usage {
            input: Some(0),
            output: Some(300),
            cache_read: Some(1),
            cache_write: Some(2),
            reasoning: Some(3),
            audio_input: Some(4),
            audio_output: Some(5),
            cache_write_1h: Some(1),
        };
        let (budget, lease) = (BudgetId::from_bytes(&id(6)).unwrap(), LeaseId::from_bytes(&id(7)));
        let charge = Charge { budget, window_start_unix_s: 1_790_000_000, lease, nanos: Nanos(5) };
        let charges =
            [charge, Charge { lease: None, window_start_unix_s: 0, nanos: Nanos(i64::MAX), ..charge }];
        let units = [
            Measure { quality: "high".into(), size: "1x1".into(), ..Measure::new(Unit::Images, 2) },
            Measure::new(Unit::Requests, 1),
        ];
        let event = Event {
            request_id: &request,
            org_id: &org,
            team_id: &team,
            key_id: &key,
            deployment_id: Some(&deployment),
            endpoint: "chat.completions",
            requested_model: "m",
            model: "g",
            provider: "p",
            upstream_model: "u",
            stream: true,
            outcome: Outcome::Interrupted,
            http_status: 200,
            error_code: "e",
            finish_reason: "stop",
            usage: Some(&usage),
            usage_estimated: true,
            cost_nanos: Some(-7),
            cost_source: CostSource::Priced,
            price_id: "price",
            attempts: 2,
            strategy: "simple-shuffle",
            config_revision: 1 << 40,
            started_unix_us: 1_790_000_000_000_000,
            total_us: 127,
            upstream_us: 128,
            first_byte_us: Some(0),
            overhead_us: 16_384,
            request_bytes: 1,
            response_bytes: u64::MAX,
            client_request_id: b"req-1",
            metadata: "{}",
            units: &units,
            decision: b"decision",
            charges: &charges,
            service_tier: "flex",
        };
        let mut encoded = Vec::new();
        event.put_common(&mut encoded);
        event.put_own(&mut encoded);
        event.put_charges(&mut encoded);
        let expected = UsageEvent {
            request_id: request.to_vec().into(),
            org_id: org.to_vec().into(),
            team_id: team.to_vec().into(),
            key_id: key.to_vec().into(),
            deployment_id: deployment.to_vec().into(),
            endpoint: "chat.completions".into(),
            requested_model: "m".into(),
            model: "g".into(),
            provider: "p".into(),
            upstream_model: "u".into(),
            stream: true,
            outcome: Outcome::Interrupted.into(),
            http_status: 200,
            error_code: "e".into(),
            finish_reason: "stop".into(),
            usage: Some((&usage).into()),
            usage_estimated: true,
            cost_nanos: Some(-7),
            cost_source: CostSource::Priced.into(),
            price_id: "price".into(),
            attempts: 2,
            strategy: "simple-shuffle".into(),
            config_revision: 1 << 40,
            started_unix_us: 1_790_000_000_000_000,
            total_us: 127,
            upstream_us: 128,
            first_byte_us: Some(0),
            overhead_us: 16_384,
            request_bytes: 1,
            response_bytes: u64::MAX,
            client_request_id: "req-1".into(),
            metadata: "{}".into(),
            units: units.iter().map(Into::into).collect(),
            decision: b"decision".to_vec().into(),
            charges: charges.iter().map(Into::into).collect(),
            service_tier: "flex".into(),
        };
        assert_eq!(UsageEvent::decode(&*encoded).unwrap(), expected);
        assert_eq!(encoded.len(), expected.encoded_len());
        let mut charged = Vec::new();
        event.put_charged(&mut charged);
        let free: Vec<_> =
            expected.charges.iter().map(|it| wire::Charge { nanos: 0, ..it.clone() }).collect();
        assert_eq!(UsageEvent::decode(&*charged).unwrap().charges, free);
        assert!(!event.is_charged_its_cost());
    }
}
