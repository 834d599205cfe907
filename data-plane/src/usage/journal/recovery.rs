//! What earlier processes left: a chain for each of their epochs. Called by [`super::Journal::open`], before anything is
//! served.
//!
//! - Of each request that was opened and not closed, the event that its `Opened` holds is sent, with the charges of its
//!   last `Extended`: what was reserved for it is charged.
//! - A torn tail is what the death of a process leaves: one record that was being written, of a request that was not sent
//!   yet, or whose `Opened` tells of it. It is cut off, counted, and nothing is missing.
//! - Anything else that is no record is damage, and so is a gap in the numbers. Reading goes on behind it, and the
//!   epoch is not exact: the budgets' policies for lost leases decide.
//! - After another boot of the machine the end may be missing without a trace, unless the process ended in order.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    ops::Range,
};

use bytes::Bytes;
use nemo_proto::usage::{Outcome, UsageEvent};
use prost::Message as _;

use super::{
    log::{Chain, SPARE, Segment, parse_segment_name},
    marker::{self, Marker},
    record::{self, Kind, SEGMENT_HEAD},
    shapes,
    storage::Storage,
};

/// Longer files are not ours, and are read so far.
const MAX_FILE: usize = 64 << 20;

/// What was found of one former epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub epoch: u64,
    /// Of requests that were over, and not acknowledged.
    pub events: u64,
    /// Requests that were under way.
    pub lost: u64,
    /// Bytes of torn tails.
    pub torn: u64,
    /// Places with something else than records.
    pub damaged: u64,
    pub exact: bool,
}

/// Requests that are open as far as was read.
type OpenEvents = BTreeMap<u64, OpenEvent>;

struct OpenEvent {
    opened: Vec<u8>,
    shape: Option<Bytes>,
    /// What replaces its charges.
    extended: Option<Vec<u8>>,
}

/// All former epochs, oldest first.
pub fn recover(
    storage: &dyn Storage,
    boot_id: &str,
    live_epoch: u64,
    next_id: &mut u64,
) -> io::Result<Vec<(Chain, Recovered)>> {
    let mut files: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for (name, _) in storage.list()? {
        if let Some((epoch, first_seq)) = parse_segment_name(&name) {
            files.entry(epoch).or_default().insert(first_seq);
        } else if let Some(epoch) = marker::parse_name(&name) {
            files.entry(epoch).or_default();
        } else if name == SPARE {
            storage.remove(&name)?;
        }
    }
    if files.contains_key(&live_epoch) {
        let message =
            format!("the usage journal has epoch {live_epoch} already: another process uses this directory");
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let mut epochs = Vec::new();
    for (epoch, segments) in files {
        epochs.push(recover_epoch(storage, boot_id, epoch, &segments, next_id));
    }
    Ok(epochs)
}

fn recover_epoch(
    storage: &dyn Storage,
    boot_id: &str,
    epoch: u64,
    segments: &BTreeSet<u64>,
    next_id: &mut u64,
) -> (Chain, Recovered) {
    let marker = Marker::read(storage, epoch);
    let known = marker
        .as_ref()
        .is_some_and(|it| it.exact && (it.clean || (!boot_id.is_empty() && it.boot_id == boot_id)));
    let mut chain = Chain::new(epoch, known);
    let mut report = Recovered { epoch, events: 0, lost: 0, torn: 0, damaged: 0, exact: known };
    let mut open = OpenEvents::new();
    let mut next = None;
    let mut following = segments.iter().skip(1);
    for first_seq in segments {
        let until = following.next().copied();
        let name = super::log::segment_name(epoch, *first_seq);
        if next.is_some_and(|next| next != *first_seq) {
            report.damaged += 1;
        }
        match recover_segment(storage, (epoch, *first_seq), name, until, &mut open) {
            Ok((segment, scan)) => {
                report.events += segment.closed;
                report.torn += scan.torn;
                report.damaged += scan.damaged;
                next = Some(scan.next);
                chain.segments.push_back(Segment { id: *next_id, ..segment });
                *next_id += 1;
            }
            Err(error) => {
                tracing::error!(%error, epoch, first_seq, "a segment of the usage journal can't be read");
                report.damaged += 1;
            }
        }
    }
    for open in open.into_values() {
        let extended = open.extended.map(|it| UsageEvent::decode(&*it)).transpose();
        match (shapes::event(&open.opened, open.shape.as_deref()), extended) {
            (Some(event), Ok(extended)) => chain.lost.push_back(lost_event(event, extended)),
            _ => report.damaged += 1,
        }
    }
    report.lost = chain.lost.len() as u64;
    chain.lost_unacked = report.lost;
    chain.exact &= report.damaged == 0;
    report.exact = chain.exact;
    if let (false, Some(marker)) = (chain.exact, marker.filter(|it| it.exact)) {
        // The files that show it may be gone when a later process looks.
        Marker { exact: false, ..marker }.write(storage, epoch);
    }
    chain.segments.iter_mut().for_each(|segment| cut(storage, segment));
    (chain, report)
}

/// Preallocated room that is not used counts for nothing.
fn cut(storage: &dyn Storage, segment: &mut Segment) {
    let (name, end) = (&segment.name, segment.end as u64);
    if end >= segment.size {
        return;
    }
    match storage.truncate(name, end) {
        Ok(()) => segment.size = end,
        Err(error) => tracing::warn!(%error, name, "a segment of the usage journal can't be cut to its size"),
    }
}

fn recover_segment(
    storage: &dyn Storage,
    (epoch, first_seq): (u64, u64),
    name: String,
    until: Option<u64>,
    open: &mut OpenEvents,
) -> io::Result<(Segment, Scan)> {
    let file = storage.open(&name)?;
    let bytes = file.read(0, MAX_FILE)?;
    let scan = scan(&bytes, (epoch, first_seq), until, open);
    let segment = Segment {
        id: 0,
        name,
        file,
        size: bytes.len() as u64,
        unread: scan.runs.clone(),
        end: scan.end,
        closed: scan.closed,
        taken: 0,
        acked: 0,
        open: 0,
        unsynced: false,
    };
    Ok((segment, scan))
}

/// What is in the bytes of a segment.
struct Scan {
    runs: VecDeque<Range<usize>>,
    end: usize,
    closed: u64,
    /// The number after the last one.
    next: u64,
    torn: u64,
    damaged: u64,
}

/// `until`: where the next segment begins; `None`: there is none.
fn scan(bytes: &[u8], (epoch, first_seq): (u64, u64), until: Option<u64>, open: &mut OpenEvents) -> Scan {
    let mut scan =
        Scan { runs: VecDeque::new(), end: SEGMENT_HEAD, closed: 0, next: first_seq, torn: 0, damaged: 0 };
    let head_fits = bytes.get(..SEGMENT_HEAD) == Some(&record::segment_head(epoch, first_seq)[..]);
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    // A process may die between making a segment and writing its head, or in the middle of that.
    let torn_head = until.is_none() && used <= SEGMENT_HEAD;
    scan.damaged += u64::from(!head_fits && !torn_head);
    scan.torn += if torn_head && !head_fits { used as u64 } else { 0 };
    // A record that the next segment has as well could not be written here: the disk refused at its last bytes.
    let ours = |seq| until.is_none_or(|until| seq < until);
    let (mut at, mut begun) = (SEGMENT_HEAD, SEGMENT_HEAD);
    let mut shapes = Found::default();
    while at < used {
        if let Some(record) = record::read(bytes, at, epoch).filter(|it| it.seq == scan.next && ours(it.seq))
        {
            if shapes.apply(&record, bytes, epoch, open, &mut scan.closed) {
                at = record.next;
            } else {
                // It is there, and what it refers to is not.
                scan.damaged += 1;
                scan.runs.push_back(begun..at);
                (at, begun) = (record.next, record.next);
            }
            scan.next = record.seq + 1;
            continue;
        }
        let resumed = record::resume(bytes, at, epoch, scan.next);
        let resumed = resumed.and_then(|at| Some((at, record::read(bytes, at, epoch)?)));
        let Some((found, record)) = resumed.filter(|(_, record)| ours(record.seq)) else {
            let torn = at + record::claimed(bytes, at).unwrap_or(0).max(record::HEAD);
            scan.torn += (used - at) as u64;
            // In another segment than the last one the numbers tell: a write that failed was made again behind.
            scan.damaged += u64::from(until.is_none() && used > torn);
            break;
        };
        scan.damaged += 1;
        scan.runs.push_back(begun..at);
        (at, begun, scan.next) = (found, found, record.seq);
    }
    let at = at.min(bytes.len().max(SEGMENT_HEAD));
    scan.runs.push_back(begun..at);
    scan.runs.retain(|run| run.start < run.end);
    scan.end = at;
    scan
}

/// The shapes of a segment, each read once.
#[derive(Default)]
struct Found(BTreeMap<u32, Option<Bytes>>);

impl Found {
    /// False: the record can't be understood.
    fn apply(
        &mut self,
        record: &record::Record,
        bytes: &[u8],
        epoch: u64,
        open: &mut OpenEvents,
        closed: &mut u64,
    ) -> bool {
        let payload = bytes.get(record.payload.clone()).unwrap_or_default();
        let shape = match record.shape {
            0 => None,
            at => {
                let read = || usize::try_from(at).ok().and_then(|at| shapes::read(bytes, at, epoch));
                let Some(shape) = self.0.entry(at).or_insert_with(read) else { return false };
                Some(shape.clone())
            }
        };
        match record.kind {
            // Written again, it has in it what extended it before.
            Kind::Opened => {
                open.insert(record.ticket, OpenEvent { opened: payload.to_vec(), shape, extended: None });
            }
            // Where its `Opened` is gone with an earlier segment, the request was told of and acknowledged.
            Kind::Extended => {
                if let Some(open) = open.get_mut(&record.ticket) {
                    open.extended = Some(payload.to_vec());
                }
            }
            Kind::Closed => {
                open.remove(&record.ticket);
                *closed += 1;
            }
            Kind::Shape => {}
        }
        true
    }
}

/// The event of a request of which nobody knows how it ended.
pub fn lost_event(mut event: UsageEvent, extended: Option<UsageEvent>) -> Bytes {
    if let Some(extended) = extended {
        (event.charges, event.cost_nanos) = (extended.charges, extended.cost_nanos);
    }
    event.set_outcome(Outcome::Lost);
    event.encode_to_vec().into()
}
