//! What is written of an event. Most of it is the same for every request of a key with a model: ids, names, the price, the
//! budgets and their leases. That part is a shape; it is written once in a segment, and what is left of the events that
//! have it says where. A segment has all that its records need, so that it can be read, or deleted, alone.
//!
//! A shape of which a segment has had one event only is not worth a record: that event is written whole. Called by
//! [`super::log`], [`super::reader`] and [`super::recovery`].

use std::collections::HashMap;

use bytes::Bytes;
use nemo_proto::usage::UsageEvent;
use prost::Message as _;

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
    /// Charges without amounts, what is common, what is the event's own, charges. The first two are the shape, all but the
    /// first the message.
    text: Vec<u8>,
    common: usize,
    own: usize,
    charges: usize,
    /// It says everything together with its shape.
    fits: bool,
    line: Vec<u8>,
    crc: u32,
    /// What is in the line.
    is_short: bool,
}

impl Draft {
    pub fn event(&mut self, event: &Event<'_>) {
        let text = &mut self.text;
        text.clear();
        event.put_charged(text);
        self.common = text.len();
        event.put_common(text);
        self.own = text.len();
        event.put_own(text);
        self.charges = text.len();
        event.put_charges(text);
        self.fits = event.is_charged_its_cost();
        self.press(self.fits);
    }

    /// Something that has no shape.
    pub fn message(&mut self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.text.clear();
        fill(&mut self.text);
        (self.common, self.own, self.charges, self.fits) = (0, 0, self.text.len(), false);
        self.press(false);
    }

    fn press(&mut self, short: bool) {
        let payload = if short { &self.text[self.own..self.charges] } else { &self.text[self.common..] };
        self.crc = record::press(&mut self.line, |line| line.extend_from_slice(payload));
        self.is_short = short;
    }

    /// What it shares with others, if it can be written without.
    pub fn shape(&self) -> Option<&[u8]> {
        self.fits.then(|| &self.text[..self.own])
    }

    /// All of it.
    pub fn whole(&self) -> &[u8] {
        &self.text[self.common..]
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

/// The event of a payload and its shape.
pub fn event(payload: &[u8], shape: Option<&[u8]>) -> Option<UsageEvent> {
    let Some(shape) = shape else { return UsageEvent::decode(payload).ok() };
    let mut event = UsageEvent::decode(shape).ok()?;
    event.merge(payload).ok()?;
    let nanos = event.cost_nanos.unwrap_or_default();
    event.charges.iter_mut().for_each(|charge| charge.nanos = nanos);
    Some(event)
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
        let whole = super::event(draft.whole(), None).unwrap();
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
        assert!(record::payload(line).len() > shape.len());
    }

    #[test]
    fn what_is_not_charged_its_cost_has_no_shape() {
        let mut draft = Draft::default();
        draft.event(&Event { cost_nanos: Some(8), charges: &[charge(7), charge(1)], ..Event::blank(3) });
        assert!(draft.shape().is_none());
        draft.event(&Event { cost_nanos: None, charges: &[charge(0)], ..Event::blank(3) });
        assert!(draft.shape().is_none());
        draft.event(&Event::blank(3));
        assert!(draft.shape().is_some(), "what is charged nothing has");
        draft.message(|text| text.extend_from_slice(b"other"));
        assert!(draft.shape().is_none());
        assert_eq!(draft.whole(), b"other");
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
