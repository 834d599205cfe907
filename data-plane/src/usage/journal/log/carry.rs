//! Requests that stay open for long: they are written again at the end, so that the segments that they were opened in can
//! go. Called by [`super::super::keeper`], and by [`super`] where the oldest segment makes room.

use nemo_proto::usage::UsageEvent;

use super::{
    super::{
        record::{self, Kind},
        recovery::lost_event,
        shapes::{self, Draft},
    },
    Log, Open, Place, Segment,
};

/// Up to so many segments, open requests keep the oldest one; beyond, they are written again at the end.
const PINNED: usize = 4;

/// Of an open request, as far as they could be read.
pub struct Payloads {
    opened: Option<UsageEvent>,
    extended: Option<UsageEvent>,
}

impl Log {
    /// Lets go of the front of the live chain as far as nobody needs it.
    pub fn release(&mut self) {
        for _ in 0..self.live.segments.len() {
            let (count, Some(front)) = (self.live.segments.len(), self.live.segments.front()) else { return };
            if count < 2 || !front.is_done() || (front.open > 0 && count <= PINNED) {
                return;
            }
            if front.open > 0 {
                let open = self.open_in(front);
                for (slot, payloads) in open {
                    self.write_again(slot, payloads);
                }
            }
            match self.live.segments.pop_front() {
                Some(segment) if segment.open == 0 && segment.is_done() => self.bury(segment),
                Some(segment) => {
                    self.live.segments.push_front(segment);
                    return;
                }
                None => return,
            }
        }
    }

    pub(super) fn open_in(&self, segment: &Segment) -> Vec<(usize, Payloads)> {
        let in_it =
            self.open.iter().enumerate().filter(|(_, it)| it.seq > 0 && it.opened.segment == segment.id);
        in_it.map(|(slot, open)| (slot, self.payloads(open, segment))).collect()
    }

    fn payloads(&self, open: &Open, segment: &Segment) -> Payloads {
        let read = |place: Place| {
            let file = match place.segment == segment.id {
                true => Some(&segment.file),
                false => self.live.segments.iter().find(|it| it.id == place.segment).map(|it| &it.file),
            }?;
            let line = file.read(place.at as u64, place.len).ok()?;
            let found = record::read(&line, 0, self.live.epoch)?;
            let shape = match found.shape {
                0 => None,
                at => Some(shapes::read_file(&**file, at, self.live.epoch)?),
            };
            shapes::event(&line[found.payload], shape.as_deref())
        };
        Payloads { opened: read(open.opened), extended: open.extended.and_then(read) }
    }

    /// Adds an open request once more, so that the segment that it was opened in can go.
    pub(super) fn write_again(&mut self, slot: usize, payloads: Payloads) {
        let Some(Open { seq, opened: before, extended }) = self.open.get(slot).copied() else { return };
        if extended.is_some() && payloads.extended.is_none() {
            // It is charged less than it may have cost.
            self.spoil_live();
        }
        // In one record: half of it must not be all that is left.
        let event = payloads.opened.map(|opened| lost_event(opened, payloads.extended));
        let written = event.and_then(|event| {
            let mut draft = Draft::default();
            draft.message(|text| text.extend_from_slice(&event));
            self.append(&mut draft, Kind::Opened, seq).ok()
        });
        let Some((_, opened)) = written else {
            self.spoil_live();
            return;
        };
        self.pin(before.segment, false);
        self.pin(opened.segment, true);
        if let Some(open) = self.open.get_mut(slot) {
            (open.opened, open.extended) = (opened, None);
        }
    }
}
