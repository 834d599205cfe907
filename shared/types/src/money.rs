//! Money as integer nano-dollars. No floats anywhere: a float can't hold a tenth of a cent exactly.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Nano-USD: 1 USD is 1 000 000 000. The largest amount is about 9.2 billion USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub i64);

impl Nanos {
    pub const ZERO: Self = Self(0);
    pub const ONE_USD: Self = Self(1_000_000_000);

    /// Sum; `None` on overflow.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Difference; `None` on overflow.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl Nanos {
    /// Decimal USD without exponent and without trailing zeros: `0.00001234`, `12`, `-0.5`.
    pub fn to_decimal(self) -> Decimal {
        let value = self.0.unsigned_abs();
        Decimal::new(self.0 < 0, value / 1_000_000_000, value % 1_000_000_000, 9).trimmed()
    }
}

impl Nanos {
    /// Reads decimal USD: digits, and up to nine decimals. `None` for anything else: a sign, an exponent, an amount
    /// that is too large or finer than a nano-dollar.
    pub fn from_decimal(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let scale = 9_u32.checked_sub(u32::try_from(fraction.len()).ok()?)?;
        let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<i64>().ok()? };
        let whole = whole.parse::<i64>().ok()?.checked_mul(Self::ONE_USD.0)?;
        whole.checked_add(fraction * 10_i64.pow(scale)).map(Self)
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.to_decimal().as_str())
    }
}

/// A decimal number as text, without a heap: every answer of the gateway carries two.
#[derive(Clone, Copy)]
pub struct Decimal {
    /// Right-aligned: sign, up to 20 digits, point, up to 15 digits.
    text: [u8; Self::CAPACITY],
    start: usize,
    end: usize,
}

impl Decimal {
    const CAPACITY: usize = 40;

    /// `whole.fraction`, the fraction with exactly `digits` (1 to 15) digits.
    pub fn new(negative: bool, mut whole: u64, mut fraction: u64, digits: usize) -> Self {
        let mut text = [b'0'; Self::CAPACITY];
        let mut at = Self::CAPACITY;
        let digit = |value: u64| b'0' + u8::try_from(value % 10).unwrap_or(0);
        for _ in 0..digits.clamp(1, 15) {
            at -= 1;
            text[at] = digit(fraction);
            fraction /= 10;
        }
        at -= 1;
        text[at] = b'.';
        loop {
            at -= 1;
            text[at] = digit(whole);
            whole /= 10;
            if whole == 0 {
                break;
            }
        }
        if negative {
            at -= 1;
            text[at] = b'-';
        }
        Self { text, start: at, end: Self::CAPACITY }
    }

    /// Without trailing zeros of the fraction, and without a point that nothing follows.
    #[must_use]
    pub fn trimmed(mut self) -> Self {
        while self.text[self.end - 1] == b'0' {
            self.end -= 1;
        }
        if self.text[self.end - 1] == b'.' {
            self.end -= 1;
        }
        self
    }

    pub fn as_str(&self) -> &str {
        // Only ASCII is ever written.
        std::str::from_utf8(&self.text[self.start..self.end]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn displays_decimal_dollars() {
        for (nanos, text) in [
            (0, "0"),
            (1, "0.000000001"),
            (1_234_500, "0.0012345"),
            (-500_000_000, "-0.5"),
            (104_000_000_000, "104"),
            (i64::MIN, "-9223372036.854775808"),
        ] {
            assert_eq!(Nanos(nanos).to_string(), text);
        }
    }

    #[test]
    fn decimal_dollars_are_read_exactly_or_not_at_all() {
        for (text, nanos) in [
            ("0", 0),
            ("0.25", 250_000_000),
            ("12", 12_000_000_000),
            ("0.000000001", 1),
            ("1.50000000000", 1_500_000_000),
            ("9223372036.854775807", i64::MAX),
        ] {
            assert_eq!(Nanos::from_decimal(text), Some(Nanos(nanos)), "{text}");
        }
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "0.0000000001",
            "9223372036.854775808",
            "99999999999",
            "1,5",
        ] {
            assert_eq!(Nanos::from_decimal(text), None, "{text}");
        }
    }

    #[test]
    fn addition_reports_overflow() {
        assert_eq!(Nanos(i64::MAX).checked_add(Nanos(1)), None);
        assert_eq!(Nanos(1).checked_sub(Nanos(3)), Some(Nanos(-2)));
    }

    proptest! {
        #[test]
        fn display_is_exact(nanos in any::<i64>()) {
            let text = Nanos(nanos).to_string();
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let digits = format!("{}{fraction:0<9}", whole.trim_start_matches('-'));
            let value: i128 = digits.parse().unwrap();
            let value = if text.starts_with('-') { -value } else { value };
            prop_assert_eq!(value, i128::from(nanos));
        }
    }
}
