//! Records as they lie in a segment. Called by [`super::log`], [`super::recovery`] and [`super::reader`].
//!
//! ```text
//! segment:  "NEMOJRN1" | epoch u64 | first seq u64 | CRC32C of all before u32 | 0 u32 | records | zeros
//! record:   kind u8 << 24 + payload length | CRC32C u32 | seq u64 | ticket u64 | shape u32 | payload | zeros up to the next 8
//! ```
//!
//! Integers are little-endian. The CRC covers the payload, then the epoch and the head without itself, so that a record
//! of another epoch or place is none. A head is never all zeros: zeros are the end. `shape` is where in the segment the
//! [`Kind::Shape`] begins that has the rest of the event, see [`super::shapes`]; 0: the payload is all of it.

use std::ops::Range;

/// Of a segment's head.
pub const SEGMENT_HEAD: usize = 32;
/// Of a record's head.
pub const HEAD: usize = 28;
const MAGIC: &[u8; 8] = b"NEMOJRN1";
const ALIGN: usize = 8;
/// Longest payload: three bytes tell its length.
pub const MAX_PAYLOAD: usize = (1 << 24) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request is about to be sent: the event that it becomes if nothing else is heard of it.
    Opened,
    /// An event with the charges and the cost that replace those of the ticket's `Opened`, and nothing else.
    Extended,
    /// The event of a request that is over.
    Closed,
    /// What the events of others have in common.
    Shape,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Opened),
            2 => Some(Self::Extended),
            3 => Some(Self::Closed),
            4 => Some(Self::Shape),
            _ => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Opened => 1,
            Self::Extended => 2,
            Self::Closed => 3,
            Self::Shape => 4,
        }
    }
}

/// A record that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub kind: Kind,
    /// Records of an epoch are numbered from 1, without gap.
    pub seq: u64,
    /// Seq of the request's first `Opened`; 0: it had none.
    pub ticket: u64,
    /// Where the segment has the rest of the event; 0: there is none.
    pub shape: u32,
    /// In the bytes that were searched.
    pub payload: Range<usize>,
    /// Where the next one begins.
    pub next: usize,
}

/// What a record of so long a payload takes.
pub fn size(payload: usize) -> usize {
    (HEAD + payload).next_multiple_of(ALIGN)
}

pub fn segment_head(epoch: u64, first_seq: u64) -> [u8; SEGMENT_HEAD] {
    let mut head = [0; SEGMENT_HEAD];
    head[..8].copy_from_slice(MAGIC);
    head[8..16].copy_from_slice(&epoch.to_le_bytes());
    head[16..24].copy_from_slice(&first_seq.to_le_bytes());
    let crc = crc32c::crc32c(&head[..24]);
    head[24..28].copy_from_slice(&crc.to_le_bytes());
    head
}

/// Lays out a record around the payload that `fill` appends; what is only known under the lock is set by [`seal`].
/// Returns the CRC of the payload.
pub fn press(line: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) -> u32 {
    line.clear();
    line.resize(HEAD, 0);
    fill(line);
    let crc = crc32c::crc32c(&line[HEAD..]);
    let payload = line.len() - HEAD;
    line.resize(size(payload), 0);
    // The length, until the kind joins it.
    line[..4].copy_from_slice(&u32::try_from(payload).unwrap_or(u32::MAX).to_le_bytes());
    crc
}

/// Completes what [`press`] laid out.
pub fn seal(
    line: &mut [u8],
    payload_crc: u32,
    kind: Kind,
    (epoch, seq, ticket): (u64, u64, u64),
    shape: u32,
) {
    line[3] = kind.byte();
    line[8..16].copy_from_slice(&seq.to_le_bytes());
    line[16..24].copy_from_slice(&ticket.to_le_bytes());
    line[24..28].copy_from_slice(&shape.to_le_bytes());
    let crc = head_crc(line, payload_crc, epoch);
    line[4..8].copy_from_slice(&crc.to_le_bytes());
}

fn head_crc(line: &[u8], payload_crc: u32, epoch: u64) -> u32 {
    let mut covered = [0; 32];
    covered[..8].copy_from_slice(&epoch.to_le_bytes());
    covered[8..12].copy_from_slice(&line[..4]);
    covered[12..].copy_from_slice(&line[8..HEAD]);
    crc32c::crc32c_append(payload_crc, &covered)
}

/// Of a whole record.
#[cfg(test)]
pub fn payload(line: &[u8]) -> &[u8] {
    let len = kind_and_length(line).map_or(0, |(_, len)| len);
    line.get(HEAD..HEAD + len).unwrap_or_default()
}

/// The record at `at`, if a whole one is there.
pub fn read(bytes: &[u8], at: usize, epoch: u64) -> Option<Record> {
    let head = bytes.get(at..at.checked_add(HEAD)?)?;
    let (kind, len) = kind_and_length(head)?;
    let payload = at + HEAD..at + HEAD + len;
    let crc = head_crc(head, crc32c::crc32c(bytes.get(payload.clone())?), epoch);
    if crc.to_le_bytes() != head[4..8] {
        return None;
    }
    let (seq, ticket, shape) = (u64_at(head, 8), u64_at(head, 16), u32_at(head, 24));
    let record = Record { kind, seq, ticket, shape, payload, next: at + size(len) };
    (record.seq > 0).then_some(record)
}

/// Where the record behind the one at `at` begins, if that is of another kind and whole as far as its head tells.
pub fn skip(bytes: &[u8], at: usize, wanted: Kind) -> Option<usize> {
    let (kind, len) = kind_and_length(bytes.get(at..at.checked_add(HEAD)?)?)?;
    let next = at.checked_add(size(len)).filter(|next| *next <= bytes.len())?;
    (kind != wanted).then_some(next)
}

/// What the head at `at` says it takes, whether it is true or not; `None`: no head.
pub fn claimed(bytes: &[u8], at: usize) -> Option<usize> {
    kind_and_length(bytes.get(at..at.checked_add(HEAD)?)?).map(|(_, len)| size(len))
}

/// The first whole record at or after `at` that comes at `seq` or later.
pub fn resume(bytes: &[u8], at: usize, epoch: u64, seq: u64) -> Option<usize> {
    let first = at.next_multiple_of(ALIGN);
    (first..bytes.len()).step_by(ALIGN).find(|at| {
        // Cheap first: garbage must not cost a CRC at every place.
        let place = bytes.get(*at..at + HEAD).filter(|head| kind_and_length(head).is_some());
        let near =
            place.map(|head| u64_at(head, 8)).is_some_and(|it| (seq..seq + bytes.len() as u64).contains(&it));
        near && read(bytes, *at, epoch).is_some()
    })
}

fn kind_and_length(head: &[u8]) -> Option<(Kind, usize)> {
    let kind = Kind::of(head[3])?;
    Some((kind, usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|it| it.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|it| it.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(payload: &[u8], kind: Kind, at: (u64, u64, u64), shape: u32) -> Vec<u8> {
        let mut line = Vec::new();
        let crc = press(&mut line, |line| line.extend_from_slice(payload));
        seal(&mut line, crc, kind, at, shape);
        line
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_any_changed_bit_makes_it_none() {
        let mut bytes = line(b"payload", Kind::Extended, (9, 5, 3), 0);
        bytes.extend(line(b"", Kind::Closed, (9, 6, 0), 4711));
        let first = read(&bytes, 0, 9).unwrap();
        assert_eq!(
            (first.kind, first.seq, first.ticket, &bytes[first.payload.clone()]),
            (Kind::Extended, 5, 3, &b"payload"[..])
        );
        let second = read(&bytes, first.next, 9).unwrap();
        assert_eq!(
            (second.kind, second.seq, second.ticket, second.shape, second.payload.len(), second.next),
            (Kind::Closed, 6, 0, 4711, 0, bytes.len())
        );
        assert_eq!(read(&bytes, 0, 8), None, "of another epoch");
        for bit in 0..(HEAD + 7) * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&bytes, 0, 9), None, "bit {bit}");
        }
    }

    #[test]
    fn reading_resumes_behind_damage_with_a_later_record() {
        let mut bytes: Vec<u8> =
            (1..=4).flat_map(|seq| line(b"some payload", Kind::Closed, (1, seq, 0), 0)).collect();
        let each = size(12);
        bytes[each + 30] ^= 1;
        assert_eq!(resume(&bytes, each, 1, 2), Some(2 * each));
        assert_eq!(resume(&bytes, each, 1, 4), Some(3 * each), "none that is behind");
        assert_eq!(resume(&bytes, 3 * each + 1, 1, 2), None);
    }
}
