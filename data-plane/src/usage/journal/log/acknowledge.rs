//! What need not be kept any more: events that were acknowledged, the segments and the epochs that are done with them.
//! Called by [`super::super`] and by its keeper.

use super::{Log, Origin, Segment};

impl Log {
    /// The first `count` events of those that were given out need not be kept any more.
    pub fn acknowledge(&mut self, mut count: u64) {
        while count > 0 {
            let Some((origin, given)) = self.given.front_mut() else { break };
            let (origin, part) = (*origin, count.min(*given));
            *given -= part;
            if *given == 0 {
                self.given.pop_front();
            }
            count -= part;
            self.acknowledge_of(origin, part);
        }
        self.end_former();
    }

    fn acknowledge_of(&mut self, origin: Origin, count: u64) {
        let mut chains = self.former.iter_mut().chain([&mut self.live]);
        match origin {
            Origin::Lost { epoch } => {
                if let Some(chain) = chains.find(|chain| chain.epoch == epoch) {
                    chain.lost_unacked -= count;
                    self.unacked -= count;
                }
            }
            // That of a segment which was dropped meanwhile is dropped, and counted.
            Origin::Segment { id } => {
                if let Some(segment) = chains.find_map(|chain| chain.segment(id)) {
                    segment.acked += count;
                    self.unacked -= count;
                }
            }
        }
    }

    /// Former epochs end where everything of them is acknowledged.
    pub fn end_former(&mut self) {
        let mut former = std::mem::take(&mut self.former);
        former.retain_mut(|chain| {
            while chain.lost_unacked == 0 && chain.segments.front().is_some_and(Segment::is_done) {
                if let Some(segment) = chain.segments.pop_front() {
                    self.bury(segment);
                }
            }
            let over = chain.lost_unacked == 0 && chain.segments.is_empty();
            if over {
                self.over.push((chain.epoch, chain.exact));
            }
            !over
        });
        self.former = former;
    }

    /// Everything of the live chain, if it is all acknowledged and nothing is open.
    pub fn release_all(&mut self) {
        let done = |segment: &Segment| segment.is_done() && segment.open == 0;
        if self.live.segments.iter().all(done) {
            while let Some(segment) = self.live.segments.pop_front() {
                self.bury(segment);
            }
        }
    }

    pub(super) fn bury(&mut self, segment: Segment) {
        self.bytes -= segment.size;
        self.graveyard.push(segment.name);
    }
}
