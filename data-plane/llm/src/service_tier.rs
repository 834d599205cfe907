//! The service tier that a call was served in, as the answer says: it decides which prices hold.

use std::fmt;

/// `service_tier` of an answer: `default`, `flex`, `priority` and the like. Empty: not told.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceTier {
    text: [u8; Self::MAX],
    length: u8,
}

impl ServiceTier {
    /// Longest name that is kept: it goes into the request log, and no tier has a longer one.
    pub const MAX: usize = 23;

    /// What is no name of a tier is not told: `auto` is what a request says, and anything but a short word.
    pub fn new(name: &[u8]) -> Self {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        let mut tier = Self::default();
        if let Some(text) = tier.text.get_mut(..name.len())
            && name != b"auto"
            && name.iter().all(word)
        {
            text.copy_from_slice(name);
            tier.length = u8::try_from(name.len()).unwrap_or(0);
        }
        tier
    }

    pub fn as_str(&self) -> &str {
        // Only ASCII is ever written.
        std::str::from_utf8(&self.text[..usize::from(self.length)]).unwrap_or_default()
    }

    /// In OpenAI's words, which its SDKs have an enumeration of; `None`: there is none, or none that is like it.
    pub fn openai(&self) -> Option<&str> {
        match self.as_str() {
            // Anthropic's and others'.
            "standard" | "on_demand" => Some("default"),
            name @ ("default" | "flex" | "scale" | "priority") => Some(name),
            _ => None,
        }
    }

    pub fn is_told(&self) -> bool {
        self.length > 0
    }

    /// This one, unless it was not told.
    #[must_use]
    pub(crate) fn or(self, other: Self) -> Self {
        if self.is_told() { self } else { other }
    }
}

impl fmt::Debug for ServiceTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_a_short_word() {
        for name in ["default", "flex", "priority", "on_demand", "standard", "a23456789012345678901.3"] {
            assert_eq!(ServiceTier::new(name.as_bytes()).as_str(), name);
        }
        for name in ["", "auto", "a\"b", "é", "two words", "a23456789012345678901234"] {
            assert!(!ServiceTier::new(name.as_bytes()).is_told(), "{name}");
        }
    }
}
