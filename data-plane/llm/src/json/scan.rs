//! The inner loop of the walker: finding what is special in a string (a quote, a backslash, a control character).
//! Words for the short strings, which are most; for long ones blocks of 64 bytes as bit masks, with the widest
//! instructions that the machine has.

use fearless_simd::{Level, Simd, SimdBase as _, SimdMask as _, dispatch, u8x64};

const WORD: usize = 8;

/// Bytes per mask.
const BLOCK: usize = 64;

/// The first byte at or after `at` that ends the plain part of a string, or the length of `document`.
#[inline]
pub(crate) fn special_in_string(document: &[u8], mut at: usize) -> usize {
    while let Some(bits) = word(document, at).map(special_bits) {
        if bits != 0 {
            return at + first_byte(bits);
        }
        at += WORD;
    }
    bytewise(document, at)
}

/// Words that [`special_nearby`] looks at: longer than nearly every name.
const NEARBY: usize = 4;

/// [`special_in_string`] in the next few words only; `None` when they are plain or the document ends before.
#[inline]
pub(crate) fn special_nearby(document: &[u8], at: usize) -> Option<usize> {
    let words: &[u8; NEARBY * WORD] = document.get(at..)?.first_chunk()?;
    words.as_chunks::<WORD>().0.iter().enumerate().find_map(|(index, bytes)| {
        let bits = special_bits(u64::from_le_bytes(*bytes));
        (bits != 0).then(|| at + index * WORD + first_byte(bits))
    })
}

/// Passes the part of a string that lies in whole blocks from `at`: to the first byte that ends it or does not
/// belong into it, or to where less than a block is left. Tells where it stopped and whether it passed escapes.
pub(super) fn stretch(document: &[u8], at: usize) -> (usize, bool) {
    dispatch!(Level::new(), simd => stretch_with(simd, document, at))
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled once per instruction set, inside of the dispatch")]
fn stretch_with<S: Simd>(simd: S, document: &[u8], mut at: usize) -> (usize, bool) {
    let (mut carry, mut any_escaped) = (0, false);
    while let Some(block) = document.get(at..).and_then(|rest| rest.first_chunk()) {
        let masks = masks(simd, block);
        let escaped = if masks.backslashes | carry == 0 { 0 } else { escaped(masks.backslashes, &mut carry) };
        let end = masks.quotes & !escaped;
        // The bits before the closing quote, or all.
        let inside = (end & end.wrapping_neg()).wrapping_sub(1);
        any_escaped |= escaped & inside != 0;
        let stop = end | masks.controls;
        // All but the escapes of one letter, which are nearly all.
        let mut others = escaped & inside & !masks.letters;
        while others != 0 {
            let index = others.trailing_zeros();
            if !is_unicode_escape(document, at + index as usize) {
                if stop.trailing_zeros() < index {
                    break;
                }
                return (at + index as usize - 1, any_escaped);
            }
            others &= others - 1;
        }
        if stop != 0 {
            return (at + stop.trailing_zeros() as usize, any_escaped);
        }
        at += BLOCK;
    }
    // With a carry, the last block ended between a backslash and what it escapes.
    (at - usize::from(carry == 1), any_escaped)
}

/// Whether a `u` stands at `at`, and four hexadecimal digits behind it.
fn is_unicode_escape(document: &[u8], at: usize) -> bool {
    let escape = document.get(at..).and_then(|rest| rest.first_chunk::<5>());
    escape.is_some_and(|[letter, digits @ ..]| *letter == b'u' && digits.iter().all(u8::is_ascii_hexdigit))
}

/// What stands where in a block: one bit per byte, the lowest for the first.
#[derive(Clone, Copy)]
struct Masks {
    quotes: u64,
    backslashes: u64,
    controls: u64,
    /// Bytes that a backslash before them turns into a character by themselves: all escapes but `\u`.
    letters: u64,
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled once per instruction set, inside of the dispatch")]
fn masks<S: Simd>(simd: S, block: &[u8; BLOCK]) -> Masks {
    let bytes = u8x64::from_slice(simd, block);
    // A byte is one of the letters when the two halves of it have a bit in common.
    let low = u8x64::from_slice(simd, &LETTERS_LOW).swizzle_dyn_within_blocks(bytes & 0x0f);
    let high = u8x64::from_slice(simd, &LETTERS_HIGH).swizzle_dyn_within_blocks(bytes >> 4);
    Masks {
        quotes: bytes.simd_eq(b'"').to_bitmask(),
        backslashes: bytes.simd_eq(b'\\').to_bitmask(),
        controls: bytes.simd_lt(0x20).to_bitmask(),
        letters: (low & high).simd_gt(0).to_bitmask(),
    }
}

/// For each low half of a byte, the high halves (bits as in [`LETTERS_HIGH`]) that make it one of `"\/bfnrt`.
const LETTERS_LOW: [u8; BLOCK] =
    repeat([0, 0, 0b1101, 0, 0b1000, 0, 0b0100, 0, 0, 0, 0, 0, 0b0010, 0, 0b0100, 0b0001]);
/// 2, 5, 6 and 7 are the high halves that occur.
const LETTERS_HIGH: [u8; BLOCK] =
    repeat([0, 0, 0b0001, 0, 0, 0b0010, 0b0100, 0b1000, 0, 0, 0, 0, 0, 0, 0, 0]);

const fn repeat(table: [u8; 16]) -> [u8; BLOCK] {
    let mut all = [0; BLOCK];
    let mut at = 0;
    while at < BLOCK {
        all[at] = table[at % 16];
        at += 1;
    }
    all
}

/// The bytes that a backslash before them escapes: those after runs of odd length. `carry` is 1 when the first byte
/// of the block is escaped, and becomes so for the next block. The addition carries each run to its end; the method
/// is that of simdjson (Langdale and Lemire, "Parsing gigabytes of JSON per second", 2019).
#[inline]
fn escaped(backslashes: u64, carry: &mut u64) -> u64 {
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

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            20 => "[a-z ]{1,20}".prop_map(String::into_bytes),
            6 => prop::sample::select(vec!["\\n", "\\\"", "\\\\", "\\/", "\\b", "\\u00e9", "\\uD83D\\uDE00", "ü"])
                .prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::sample::select(vec!["\"", "\\u00g0", "\\x", "\n", "\u{0}", "\\\n"])
                .prop_map(|text| text.as_bytes().to_vec()),
        ]
    }

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
            if let Some(found) = special_nearby(&bytes, at) {
                prop_assert_eq!(found, plain);
            }
            if let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
                let Masks { quotes, backslashes, controls, letters } = dispatch!(Level::new(), simd => masks(simd, block));
                for (index, byte) in block.iter().enumerate() {
                    let found = [quotes, backslashes, controls, letters].map(|mask| mask >> index & 1 == 1);
                    let letter = br#""\/bfnrt"#.contains(byte);
                    prop_assert_eq!(found, [*byte == b'"', *byte == b'\\', *byte < 0x20, letter], "byte {}", index);
                }
            }
        }

        #[test]
        fn a_stretch_is_what_the_walk_byte_by_byte_passes(
            pieces in proptest::collection::vec(piece(), 0..120),
        ) {
            let text = pieces.concat();
            let (end, escaped) = stretch(&text, 0);
            // The same by hand: where the first stop is, and no further than whole blocks reach.
            let (mut at, mut any_escaped) = (0, false);
            while at < text.len() {
                let step = match text[at] {
                    b'\\' if is_unicode_escape(&text, at + 1) => 6,
                    b'\\' if text.get(at + 1).is_some_and(|byte| br#""\/bfnrt"#.contains(byte)) => 2,
                    b'\\' | b'"' | 0..0x20 => break,
                    _ => 1,
                };
                // An escape counts when what it escapes lies in a block that was read.
                if at + usize::from(step > 1) >= text.len() / BLOCK * BLOCK {
                    break;
                }
                any_escaped |= step > 1;
                at += step;
            }
            // A `\u` may reach over the last block, which was passed as a whole.
            let at = if at > text.len() / BLOCK * BLOCK { text.len() / BLOCK * BLOCK } else { at };
            prop_assert_eq!(end, at);
            // At what does not belong into a string, nobody asks for its escapes.
            if at + 1 >= text.len() / BLOCK * BLOCK || text[at] == b'"' {
                prop_assert_eq!(escaped, any_escaped);
            }
        }

        #[test]
        fn escapes_are_found_across_blocks(text in proptest::collection::vec(prop::sample::select(vec![b'\\', b'\\', b'x']), 4 * BLOCK)) {
            let mut carry = 0;
            let mut next = false;
            for block in text.as_chunks::<BLOCK>().0 {
                let found = escaped(dispatch!(Level::new(), simd => masks(simd, block)).backslashes, &mut carry);
                for (index, byte) in block.iter().enumerate() {
                    prop_assert_eq!(found >> index & 1 == 1, next, "byte {}", index);
                    next = *byte == b'\\' && !next;
                }
            }
            prop_assert_eq!(carry == 1, next);
        }
    }
}
