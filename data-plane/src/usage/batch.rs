//! Events in the form in which they are sent, and `UsageBatch` around them. On the wire a message and its bytes are the
//! same, so that nothing is decoded and no event is encoded a second time. Filled by [`super::journal`], sent by
//! `control::usage_stream`.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

/// Of the events in a `UsageBatch`.
const EVENTS: u32 = 4;
/// What is in front of an event, at most: its key and its length.
pub const MAX_HEAD: usize = 11;

/// Encoded events, in order, each with what is in front of it in a `UsageBatch`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// An event is in one of them.
    pieces: VecDeque<Bytes>,
    count: usize,
    bytes: usize,
}

impl Events {
    /// `piece` has `count` whole events.
    pub fn push(&mut self, piece: Bytes, count: usize) {
        self.count += count;
        self.bytes += piece.len();
        self.pieces.push_back(piece);
    }

    /// One of which there is only its message.
    pub fn push_message(&mut self, event: &[u8]) {
        let mut piece = BytesMut::with_capacity(MAX_HEAD + event.len());
        put_head(&mut piece, event.len());
        piece.put_slice(event);
        self.push(piece.freeze(), 1);
    }

    pub fn append(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.pieces.extend(other.pieces);
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Of all together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The messages.
    pub fn messages(&self) -> impl Iterator<Item = Bytes> {
        self.pieces.iter().flat_map(|piece| {
            let mut rest = piece.clone();
            std::iter::from_fn(move || {
                let size = first_event(&rest)?;
                let mut event = rest.split_to(size);
                strip_head(&mut event)?;
                Some(event)
            })
        })
    }

    /// Forgets the first `count`.
    pub fn drop_first(&mut self, mut count: usize) {
        if count >= self.count {
            *self = Self::default();
            return;
        }
        self.count -= count;
        while count > 0
            && let Some(piece) = self.pieces.front_mut()
        {
            match first_event(piece) {
                Some(size) => {
                    piece.advance(size);
                    (self.bytes, count) = (self.bytes - size, count - 1);
                }
                None => drop(self.pieces.pop_front()),
            }
        }
    }
}

/// Appends what is in front of an event of so many bytes.
pub fn put_head(out: &mut impl BufMut, length: usize) {
    encoding::encode_key(EVENTS, WireType::LengthDelimited, out);
    encoding::encode_varint(length as u64, out);
}

/// What the first event of these takes.
fn first_event(bytes: &Bytes) -> Option<usize> {
    let mut rest = &bytes[..];
    let length = strip_head(&mut rest)?;
    Some(bytes.len() - rest.len() + length).filter(|size| *size <= bytes.len())
}

/// The length of the message behind.
fn strip_head(bytes: &mut impl Buf) -> Option<usize> {
    encoding::decode_key(bytes).ok()?;
    usize::try_from(encoding::decode_varint(bytes).ok()?).ok()
}

/// Field by field the `UsageBatch` of `usage.proto`.
#[derive(Clone, Debug, Default)]
pub struct EncodedBatch {
    pub node_id: String,
    pub epoch: u64,
    pub first_seq: u64,
    pub events: Events,
    pub dropped_total: u64,
}

impl EncodedBatch {
    fn length_of(tag: u32, number: u64) -> usize {
        if number == 0 { 0 } else { encoding::uint64::encoded_len(tag, &number) }
    }
}

/// For sending only.
impl Message for EncodedBatch {
    fn encode_raw(&self, out: &mut impl BufMut) {
        if !self.node_id.is_empty() {
            encoding::string::encode(1, &self.node_id, out);
        }
        let number = |tag, number: u64, out: &mut _| {
            if number != 0 {
                encoding::uint64::encode(tag, &number, out);
            }
        };
        number(2, self.epoch, out);
        number(3, self.first_seq, out);
        self.events.pieces.iter().for_each(|piece| out.put_slice(piece));
        number(5, self.dropped_total, out);
    }

    fn encoded_len(&self) -> usize {
        let node_id =
            if self.node_id.is_empty() { 0 } else { encoding::string::encoded_len(1, &self.node_id) };
        let [epoch, first_seq, dropped] = [(2, self.epoch), (3, self.first_seq), (5, self.dropped_total)]
            .map(|(tag, it)| Self::length_of(tag, it));
        node_id + epoch + first_seq + self.events.bytes + dropped
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        bytes: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        encoding::skip_field(wire_type, tag, bytes, context)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use nemo_proto::usage::{UsageBatch, UsageEvent};

    use super::*;

    fn event(attempts: u32) -> UsageEvent {
        let metadata = "m".repeat(attempts as usize * 100);
        UsageEvent { attempts, metadata, ..UsageEvent::default() }
    }

    /// Three in a piece, the others alone; the first has no field.
    fn events() -> Events {
        let mut all = Events::default();
        let mut piece = BytesMut::new();
        for attempts in 0..3 {
            let event = event(attempts).encode_to_vec();
            put_head(&mut piece, event.len());
            piece.put_slice(&event);
        }
        all.push(piece.freeze(), 3);
        let mut more = Events::default();
        (3..5).for_each(|attempts| more.push_message(&event(attempts).encode_to_vec()));
        all.append(more);
        all
    }

    #[test]
    fn it_is_the_usage_batch_of_the_contract() {
        for (epoch, first_seq, dropped_total) in [(7, 42, 9), (0, 0, 0)] {
            let node_id = "node".repeat(usize::from(epoch > 0));
            let encoded = EncodedBatch { node_id, epoch, first_seq, events: events(), dropped_total };
            let plain = UsageBatch {
                node_id: encoded.node_id.clone(),
                epoch,
                first_seq,
                events: (0..5).map(event).collect(),
                dropped_total,
            };
            assert_eq!(encoded.encode_to_vec(), plain.encode_to_vec());
        }
    }

    #[test]
    fn the_first_events_can_be_forgotten() {
        for count in 0..7_usize {
            let mut events = events();
            events.drop_first(count);
            let left: Vec<_> = events.messages().map(|it| UsageEvent::decode(it).unwrap().attempts).collect();
            let expected: Vec<_> = (u32::try_from(count).unwrap()..5).collect();
            assert_eq!(left, expected);
            assert_eq!((events.len(), events.is_empty()), (left.len(), left.is_empty()));
            let batch = EncodedBatch { events: events.clone(), ..EncodedBatch::default() };
            assert_eq!(batch.encode_to_vec().len(), events.bytes());
        }
    }
}
