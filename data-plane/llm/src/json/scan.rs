//! The inner loop of the walker: finding what is special in a string (a quote, a backslash, a control character).
//! Words for the short strings, which are most; for long ones blocks of 64 bytes as bit masks.

use wide::u8x16;

const WORD: usize = 8;

/// Bytes per mask of [`special_mask`].
pub(super) const BLOCK: usize = 64;

/// The first byte at or after `at` that ends the plain part of a string, or the length of `document`.
#[inline]
pub(super) fn special_in_string(document: &[u8], mut at: usize) -> usize {
    while let Some(bits) = word(document, at).map(special_bits) {
        if bits != 0 {
            return at + first_byte(bits);
        }
        at += WORD;
    }
    bytewise(document, at)
}

/// [`special_in_string`] in the next two words only; `None` when they are plain or the document ends before.
#[inline]
pub(super) fn special_in_two_words(document: &[u8], at: usize) -> Option<usize> {
    let words = [word(document, at)?, word(document, at + WORD)?].map(special_bits);
    match words {
        [0, 0] => None,
        [0, bits] => Some(at + WORD + first_byte(bits)),
        [bits, _] => Some(at + first_byte(bits)),
    }
}

/// What stands where in a block: one bit per byte, the lowest for the first.
#[derive(Clone, Copy)]
pub(super) struct Masks {
    pub(super) quotes: u64,
    pub(super) backslashes: u64,
    /// Whether there is a control character anywhere; where, [`controls`] tells.
    pub(super) any_control: bool,
}

#[inline]
pub(super) fn masks(block: &[u8; BLOCK]) -> Masks {
    let (quote, backslash, control) = (u8x16::splat(b'"'), u8x16::splat(b'\\'), u8x16::splat(0x1f));
    let (mut quotes, mut backslashes, mut any_control) = (0, 0, u8x16::ZERO);
    for bytes in block.as_chunks::<16>().0.iter().rev() {
        let lanes = u8x16::new(*bytes);
        quotes = quotes << 16 | u64::from(lanes.simd_eq(quote).to_bitmask());
        backslashes = backslashes << 16 | u64::from(lanes.simd_eq(backslash).to_bitmask());
        any_control |= lanes.min(control).simd_eq(lanes);
    }
    Masks { quotes, backslashes, any_control: any_control.to_bitmask() != 0 }
}

/// Where control characters stand. Rarely needed: they are legal outside of strings only.
#[cold]
pub(super) fn controls(block: &[u8; BLOCK]) -> u64 {
    block.iter().rev().fold(0, |mask, &byte| mask << 1 | u64::from(byte < 0x20))
}

/// Bytes that a backslash turns into one character by themselves: all escapes but `\u`.
pub(super) const SIMPLE_ESCAPES: [bool; 256] = {
    let mut table = [false; 256];
    let bytes = br#""\/bfnrt"#;
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
};

/// The bytes that a backslash before them escapes: those after runs of odd length. `carry` is 1 when the first byte
/// of the block is escaped, and becomes so for the next block. The addition carries each run to its end; the method
/// is that of simdjson (Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019).
#[inline]
pub(super) fn escaped(backslashes: u64, carry: &mut u64) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let backslashes = backslashes & !*carry;
    let follows = backslashes << 1 | *carry;
    let odd_starts = backslashes & !EVEN & !follows;
    let (even_starts, overflow) = odd_starts.overflowing_add(backslashes);
    *carry = u64::from(overflow);
    (EVEN ^ even_starts << 1) & follows
}

fn word(document: &[u8], at: usize) -> Option<u64> {
    document.get(at..)?.first_chunk::<WORD>().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Sets the high bit of bytes that are special. The lowest set bit is exact; above it there may be false ones,
/// since a borrow can carry over.
fn special_bits(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let zero_bytes = |word: u64| word.wrapping_sub(ONES) & !word;
    let quote = zero_bytes(word ^ (ONES * b'"' as u64));
    let backslash = zero_bytes(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | backslash | control) & HIGH
}

fn first_byte(bits: u64) -> usize {
    bits.trailing_zeros() as usize / 8
}

fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

fn bytewise(document: &[u8], at: usize) -> usize {
    let rest = document.get(at..).unwrap_or_default();
    at + rest.iter().position(|&byte| is_special(byte)).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_the_same_byte_as_a_plain_search(
            mut bytes in proptest::collection::vec(0x20_u8..=255, 0..200),
            special in proptest::collection::vec((0_usize..200, prop::sample::select(vec![0_u8, 0x1f, b'"', b'\\', b'\n'])), 0..3),
            at in 0_usize..220,
        ) {
            for (index, byte) in special {
                if let Some(slot) = bytes.get_mut(index) {
                    *slot = byte;
                }
            }
            let at = at.min(bytes.len());
            let plain = bytewise(&bytes, at);
            prop_assert_eq!(special_in_string(&bytes, at), plain);
            if let Some(found) = special_in_two_words(&bytes, at) {
                prop_assert_eq!(found, plain);
            }
            if let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
                let Masks { quotes, backslashes, any_control } = masks(block);
                for (index, byte) in block.iter().enumerate() {
                    let found = [quotes, backslashes, controls(block)].map(|mask| mask >> index & 1 == 1);
                    prop_assert_eq!(found, [*byte == b'"', *byte == b'\\', *byte < 0x20], "byte {}", index);
                }
                prop_assert_eq!(any_control, controls(block) != 0);
            }
        }

        #[test]
        fn escapes_are_found_across_blocks(text in proptest::collection::vec(prop::sample::select(vec![b'\\', b'\\', b'x']), 4 * BLOCK)) {
            let mut carry = 0;
            let mut next = false;
            for block in text.as_chunks::<BLOCK>().0 {
                let found = escaped(masks(block).backslashes, &mut carry);
                for (index, byte) in block.iter().enumerate() {
                    prop_assert_eq!(found >> index & 1 == 1, next, "byte {}", index);
                    next = *byte == b'\\' && !next;
                }
            }
            prop_assert_eq!(carry == 1, next);
        }
    }
}
