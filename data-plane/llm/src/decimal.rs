//! Decimal text to nano-dollars, exactly: money never passes through a float.

use nemo_types::Nanos;

const NANO_DIGITS: i64 = 9;
/// Bound on exponents and digit counts. Far outside every amount, far inside `i64`.
const MAX_SCALE: i64 = 400;

/// Nano-dollars of an amount in dollars, written as a JSON number (`0.00014`, `1.4e-4`, `2`). A fraction of a
/// nano-dollar is rounded up, as everywhere where cost is computed.
///
/// `None` for what is no JSON number, for negative amounts, and for amounts beyond the range of [`Nanos`].
pub fn nanos(text: &str) -> Option<Nanos> {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i64>().ok().filter(|e| e.abs() <= MAX_SCALE)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let well_formed = !whole.is_empty()
        && whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
        && mantissa.ends_with(|c: char| c.is_ascii_digit());
    let digits = whole.len().checked_add(fraction.len()).and_then(|n| i64::try_from(n).ok())?;
    if !well_formed || digits > MAX_SCALE {
        return None;
    }
    // The value is `digits` with the decimal point after `point` of them, counted in nano-dollars.
    let point = i64::try_from(whole.len()).ok()? + exponent + NANO_DIGITS;
    let (mut value, mut remainder) = (0_i64, false);
    for (position, digit) in (0_i64..).zip(whole.bytes().chain(fraction.bytes())) {
        let digit = i64::from(digit - b'0');
        if position < point {
            value = value.checked_mul(10)?.checked_add(digit)?;
        } else {
            remainder |= digit != 0;
        }
    }
    for _ in digits..point {
        if value == 0 {
            break;
        }
        value = value.checked_mul(10)?;
    }
    value.checked_add(i64::from(remainder)).map(Nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_round_up() {
        for (text, expected) in [
            ("0", 0),
            ("0.0", 0),
            ("0e10", 0),
            ("0e400", 0),
            ("1", 1_000_000_000),
            ("0.00014", 140_000),
            ("1.4e-4", 140_000),
            ("1.4E-04", 140_000),
            ("12e+1", 120_000_000_000),
            ("0.1", 100_000_000),
            ("0.000000001", 1),
            ("0.0000000001", 1),
            ("1e-300", 1),
            ("0.0000000010", 1),
            ("0.0000000011", 2),
            ("0.30000000000000004", 300_000_001),
            ("9223372036.854775807", i64::MAX),
        ] {
            assert_eq!(nanos(text), Some(Nanos(expected)), "{text}");
        }
    }

    #[test]
    fn other_text_and_other_ranges_are_unknown() {
        for text in [
            "",
            "-1",
            "-0.1",
            "+1",
            ".5",
            "1.",
            "1.e3",
            "1e",
            "e3",
            "NaN",
            "0x1",
            "1 ",
            "1e401",
            "9223372036.854775808",
            "1e30",
            "١",
        ] {
            assert_eq!(nanos(text), None, "{text}");
        }
    }
}
