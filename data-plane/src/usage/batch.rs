//! `UsageBatch` as the node sends it: with events that are encoded already. On the wire a message and its bytes are
//! the same. Called by `control::usage_stream`.

use bytes::Bytes;

/// Field by field the `UsageBatch` of `usage.proto`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EncodedBatch {
    #[prost(string, tag = "1")]
    pub node_id: String,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint64, tag = "3")]
    pub first_seq: u64,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub events: Vec<Bytes>,
    #[prost(uint64, tag = "5")]
    pub dropped_total: u64,
}

#[cfg(test)]
mod tests {
    use nemo_proto::usage::{UsageBatch, UsageEvent};
    use prost::Message as _;

    use super::*;

    #[test]
    fn it_is_the_usage_batch_of_the_contract() {
        let events: Vec<_> = (1..4)
            .map(|attempts| UsageEvent { attempts, model: "m".into(), ..UsageEvent::default() })
            .collect();
        let encoded = EncodedBatch {
            node_id: "node".into(),
            epoch: 7,
            first_seq: 42,
            events: events.iter().map(|event| event.encode_to_vec().into()).collect(),
            dropped_total: 9,
        };
        let plain = UsageBatch { node_id: "node".into(), epoch: 7, first_seq: 42, events, dropped_total: 9 };
        assert_eq!(encoded.encode_to_vec(), plain.encode_to_vec());
    }
}
