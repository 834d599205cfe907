//! What is written of an event. Most of it is the same for every request of a key with a model: ids, names, the price, the
//! budgets and their leases. That part is a shape; it is written once in a segment, and what is left of the events that
//! have it says where. A segment has all that its records need, so that it can be read, or deleted, alone.
//!
//! A shape of which a segment has had one event only is not worth a record: that event is written whole. Called by
//! [`super::log`], [`super::reader`] and [`super::recovery`].

use std::collections::HashMap;

use bytes::{BufMut, Bytes};
use nemo_proto::usage::UsageEvent;
use prost::{
    Message as _,
    encoding::{self, DecodeContext, WireType},
};

use super::{
    record::{self, Kind},
    storage::SegmentFile,
};
use crate::usage::Event;

/// Of one segment. Events of others are written whole.
const MAX: usize = 4096;

/// An event, or another payload, as it may be written.
#[derive(Default)]
pub struct Draft {
    /// The shape, which is charges without amounts and what is common, and what is the event's own. One that has no shape
    /// begins with what is common, and ends with its charges.
    text: Vec<u8>,
    own: usize,
    /// Of each charge.
    cost: u64,
    has_shape: bool,
    line: Vec<u8>,
    crc: u32,
    /// What is in the line.
    is_short: bool,
}

impl Draft {
    pub fn event(&mut self, event: &Event<'_>) {
        let text = &mut self.text;
        text.clear();
        self.has_shape = event.is_charged_its_cost();
        self.cost = event.cost_nanos.unwrap_or_default().cast_unsigned();
        if self.has_shape {
            event.put_charged(text);
        }
        event.put_common(text);
        self.own = text.len();
        event.put_own(text);
        if !self.has_shape {
            event.put_charges(text);
        }
        self.press(self.has_shape);
    }

    /// Something that has no shape.
    pub fn message(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.text.clear();
        fill(&mut self.text);
        self.has_shape = false;
        self.press(false);
    }

    fn press(&mut self, short: bool) {
        let whole = Draft::parts(&self.text, self.own, self.has_shape, self.cost);
        self.crc = record::press(&mut self.line, |line| {
            if short { line.extend_from_slice(whole.own) } else { whole.put(line) }
        });
        self.is_short = short;
    }

    /// What it shares with others, if it can be written without.
    pub fn shape(&self) -> Option<&[u8]> {
        self.has_shape.then(|| &self.text[..self.own])
    }

    /// All of it.
    pub fn whole(&self) -> Whole<'_> {
        Self::parts(&self.text, self.own, self.has_shape, self.cost)
    }

    fn parts(text: &[u8], own: usize, has_shape: bool, cost: u64) -> Whole<'_> {
        if !has_shape {
            return Whole::new(text);
        }
        let (shape, own) = text.split_at(own);
        Whole::of(shape, own, cost)
    }

    /// What is to be written, and the CRC of its payload.
    pub fn line(&mut self, short: bool) -> (&mut Vec<u8>, u32) {
        if self.is_short != short {
            self.press(short);
        }
        (&mut self.line, self.crc)
    }
}

/// The shapes of one segment.
#[derive(Default)]
pub struct Shapes {
    hasher: ahash::RandomState,
    known: HashMap<u64, Known, ahash::RandomState>,
}

struct Known {
    /// Empty: it was seen, and is not written.
    shape: Box<[u8]>,
    at: u32,
}

/// What a segment has of a shape.
pub enum Place {
    /// It is written there.
    At(u32),
    /// It is worth being written, and comes with this hash.
    Wanted(u64),
    None,
}

impl Shapes {
    /// Another segment has begun.
    pub fn clear(&mut self) {
        self.known.clear();
    }

    pub fn find(&mut self, shape: &[u8]) -> Place {
        let hash = self.hasher.hash_one(shape);
        match self.known.get(&hash) {
            Some(known) if *known.shape == *shape => Place::At(known.at),
            Some(known) if known.shape.is_empty() => Place::Wanted(hash),
            None if self.known.len() < MAX => {
                self.known.insert(hash, Known { shape: Box::default(), at: 0 });
                Place::None
            }
            _ => Place::None,
        }
    }

    pub fn written(&mut self, hash: u64, shape: &[u8], at: u32) {
        self.known.insert(hash, Known { shape: shape.into(), at });
    }
}

/// The shape that was written there, in these bytes of a segment.
pub fn read(bytes: &[u8], at: usize, epoch: u64) -> Option<Bytes> {
    let found = record::read(bytes, at, epoch).filter(|it| it.kind == Kind::Shape)?;
    Some(Bytes::copy_from_slice(bytes.get(found.payload)?))
}

/// The same, from the file.
pub fn read_file(file: &dyn SegmentFile, at: u32, epoch: u64) -> Option<Bytes> {
    const USUAL: usize = 1024;
    let bytes = file.read(at.into(), USUAL).ok()?;
    match record::claimed(&bytes, 0)? {
        size if size > bytes.len() => read(&file.read(at.into(), size).ok()?, 0, epoch),
        _ => read(&bytes, 0, epoch),
    }
}

/// The message of an event, in its parts.
#[derive(Clone, Copy)]
pub struct Whole<'a> {
    common: &'a [u8],
    own: &'a [u8],
    /// Without amounts.
    charges: &'a [u8],
    cost: u64,
}

impl<'a> Whole<'a> {
    /// Of one that has no shape.
    pub fn new(message: &'a [u8]) -> Self {
        Self { common: &[], own: message, charges: &[], cost: 0 }
    }

    /// `None`: the payload is no message.
    pub fn read(payload: &'a [u8], shape: Option<&'a [u8]>) -> Option<Self> {
        match shape {
            None => Some(Self::new(payload)),
            Some(shape) => Some(Self::of(shape, payload, cost_of(payload)?)),
        }
    }

    fn of(shape: &'a [u8], own: &'a [u8], cost: u64) -> Self {
        let mut common = shape;
        while split_charge(&mut common).is_some() {}
        let (charges, common) = shape.split_at(shape.len() - common.len());
        Self { common, own, charges, cost }
    }

    fn charges(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.charges;
        std::iter::from_fn(move || split_charge(&mut rest))
    }

    /// What the amount takes in a charge.
    fn amount(&self) -> usize {
        if self.cost == 0 { 0 } else { 1 + encoding::encoded_len_varint(self.cost) }
    }

    pub fn len(&self) -> usize {
        let amount = self.amount();
        let charge = |charge: &[u8]| {
            let length = charge.len() + amount;
            CHARGE_KEY.len() + encoding::encoded_len_varint(length as u64) + length
        };
        self.common.len() + self.own.len() + self.charges().map(charge).sum::<usize>()
    }

    pub fn put(&self, out: &mut impl BufMut) {
        out.put_slice(self.common);
        out.put_slice(self.own);
        if self.charges.is_empty() {
            return;
        }
        // The same behind each.
        let (mut amount, room) = ([0; 11], self.amount());
        if room > 0 {
            amount[0] = NANOS_KEY;
            encoding::encode_varint(self.cost, &mut &mut amount[1..]);
        }
        for charge in self.charges() {
            out.put_slice(&CHARGE_KEY);
            encoding::encode_varint((charge.len() + room) as u64, out);
            out.put_slice(charge);
            out.put_slice(&amount[..room]);
        }
    }
}

/// Of `charges` in a `UsageEvent`, and of `nanos` in a `Charge`.
const CHARGE_KEY: [u8; 2] = [0x9a, 0x02];
const NANOS_KEY: u8 = 0x20;

/// A charge in front of the rest, without its key and its length.
fn split_charge<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = bytes.strip_prefix(&CHARGE_KEY)?;
    let length = usize::try_from(encoding::decode_varint(&mut rest).ok()?).ok()?;
    let (charge, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(charge)
}

/// `cost_nanos` of a message, 0 if it has none; `None`: it is no message.
fn cost_of(mut message: &[u8]) -> Option<u64> {
    const COST: u32 = 18;
    while !message.is_empty() {
        let (tag, wire_type) = encoding::decode_key(&mut message).ok()?;
        if (tag, wire_type) == (COST, WireType::Varint) {
            return encoding::decode_varint(&mut message).ok();
        }
        encoding::skip_field(wire_type, tag, &mut message, DecodeContext::default()).ok()?;
    }
    Some(0)
}

/// The event of a payload and its shape.
pub fn event(payload: &[u8], shape: Option<&[u8]>) -> Option<UsageEvent> {
    let mut message = Vec::new();
    Whole::read(payload, shape)?.put(&mut message);
    UsageEvent::decode(&*message).ok()
}

#[cfg(test)]
mod tests {
    use nemo_types::{BudgetId, LeaseId, Nanos};

    use super::*;
    use crate::quota::Charge;

    fn charge(nanos: i64) -> Charge {
        let budget = BudgetId::from_bytes(&[9; 16]).unwrap();
        Charge { budget, window_start_unix_s: 5, lease: LeaseId::from_bytes(&[8; 16]), nanos: Nanos(nanos) }
    }

    #[test]
    fn a_shape_and_the_rest_are_the_event() {
        let charges = [charge(7), charge(7)];
        let event = Event { model: "m", cost_nanos: Some(7), charges: &charges, ..Event::blank(3) };
        let mut draft = Draft::default();
        draft.event(&event);
        let mut message = Vec::new();
        draft.whole().put(&mut message);
        assert_eq!(draft.whole().len(), message.len());
        let whole = super::event(&message, None).unwrap();
        assert_eq!((&*whole.model, whole.attempts, whole.charges[1].nanos), ("m", 3, 7));
        let shape = draft.shape().unwrap().to_vec();
        let (line, crc) = draft.line(true);
        record::seal(line, crc, Kind::Closed, (1, 1, 0), 32);
        let length = record::payload(line).len();
        assert_eq!(super::event(record::payload(line), Some(&shape)), Some(whole));
        assert!(length < shape.len() / 2, "{length} of {}", shape.len());
        // The line is made again as it is asked for.
        let (line, crc) = draft.line(false);
        record::seal(line, crc, Kind::Closed, (1, 1, 0), 0);
        assert_eq!(record::payload(line), message);
        assert_eq!(super::event(b"\x0a", Some(&shape)), None);
    }

    #[test]
    fn what_is_not_charged_its_cost_has_no_shape() {
        let mut draft = Draft::default();
        draft.event(&Event { cost_nanos: Some(8), charges: &[charge(7), charge(1)], ..Event::blank(3) });
        assert!(draft.shape().is_none());
        let mut message = Vec::new();
        draft.whole().put(&mut message);
        let charged = |event: UsageEvent| event.charges.iter().map(|it| it.nanos).collect::<Vec<_>>();
        assert_eq!(super::event(&message, None).map(charged), Some(vec![7, 1]));
        draft.event(&Event { cost_nanos: None, charges: &[charge(0)], ..Event::blank(3) });
        assert!(draft.shape().is_none());
        // Nothing is an amount as well.
        draft.event(&Event { cost_nanos: Some(0), charges: &[charge(0)], ..Event::blank(3) });
        assert!(draft.shape().is_some());
        message.clear();
        draft.whole().put(&mut message);
        assert_eq!(super::event(&message, None).map(charged), Some(vec![0]));
        draft.event(&Event::blank(3));
        assert!(draft.shape().is_some(), "what is charged nothing has");
        draft.message(|text| text.extend_from_slice(b"other"));
        assert!(draft.shape().is_none());
        let mut message = Vec::new();
        draft.whole().put(&mut message);
        assert_eq!(message, b"other");
    }

    #[test]
    fn a_shape_is_written_when_it_comes_again_and_their_number_is_bounded() {
        let mut shapes = Shapes::default();
        assert!(matches!(shapes.find(b"one"), Place::None));
        let Place::Wanted(hash) = shapes.find(b"one") else { panic!("it came again") };
        shapes.written(hash, b"one", 32);
        assert!(matches!(shapes.find(b"one"), Place::At(32)));
        for other in 0..2 * MAX {
            shapes.find(&other.to_le_bytes());
        }
        assert_eq!(shapes.known.len(), MAX);
        assert!(matches!(shapes.find(b"one"), Place::At(32)));
        shapes.clear();
        assert!(matches!(shapes.find(b"one"), Place::None));
    }
}
