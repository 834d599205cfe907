//! What a call consumes that is not counted in text tokens: images, characters, seconds of audio, searches, tools.
//! Filled by the data plane from requests and answers, priced by [`crate::price`].

use crate::NanosPerMillion;

/// What is counted. Names are part of the contract: price lists and the request log hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Images made.
    Images,
    /// Characters (Unicode scalar values) of a text that is to be spoken.
    Characters,
    /// Audio that was listened to, in milliseconds: integers, and exact for every answer that tells seconds.
    AudioMilliseconds,
    /// As rerank providers bill: one search over up to a hundred documents.
    SearchUnits,
    /// Documents that were ranked.
    Documents,
    /// Calls, for what is billed by the call or free.
    Requests,
    /// Part of the input tokens that is images.
    ImageInputTokens,
    /// Part of the output tokens that is images.
    ImageOutputTokens,
    /// Part of the input tokens that is audio. For price lists; the count is in [`crate::Usage`].
    AudioInputTokens,
    /// Part of the output tokens that is audio. For price lists; the count is in [`crate::Usage`].
    AudioOutputTokens,
    /// Searches of the web that the provider made for the model.
    WebSearches,
    /// Searches in files that the provider keeps.
    FileSearches,
    /// Containers in which the provider ran the model's code.
    CodeSessions,
}

impl Unit {
    pub const ALL: [Self; 13] = [
        Self::Images,
        Self::Characters,
        Self::AudioMilliseconds,
        Self::SearchUnits,
        Self::Documents,
        Self::Requests,
        Self::ImageInputTokens,
        Self::ImageOutputTokens,
        Self::AudioInputTokens,
        Self::AudioOutputTokens,
        Self::WebSearches,
        Self::FileSearches,
        Self::CodeSessions,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Characters => "characters",
            Self::AudioMilliseconds => "audio_milliseconds",
            Self::SearchUnits => "search_units",
            Self::Documents => "documents",
            Self::Requests => "requests",
            Self::ImageInputTokens => "image_input_tokens",
            Self::ImageOutputTokens => "image_output_tokens",
            Self::AudioInputTokens => "audio_input_tokens",
            Self::AudioOutputTokens => "audio_output_tokens",
            Self::WebSearches => "web_searches",
            Self::FileSearches => "file_searches",
            Self::CodeSessions => "code_sessions",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|unit| unit.name() == name)
    }

    /// Whether it is a part of the token counts, and not something beside them.
    pub fn is_token(self) -> bool {
        matches!(
            self,
            Self::ImageInputTokens
                | Self::ImageOutputTokens
                | Self::AudioInputTokens
                | Self::AudioOutputTokens
        )
    }

    /// Whether it is a tool that the provider runs and bills on top of the answer: never in place of its tokens, and
    /// never for nothing.
    pub fn is_tool(self) -> bool {
        matches!(self, Self::WebSearches | Self::FileSearches | Self::CodeSessions)
    }
}

/// So much of one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measure {
    pub unit: Unit,
    pub quantity: u64,
    /// Of images, where told: `high`. Empty: not told.
    pub quality: Box<str>,
    /// Of images, where told: `1024x1024`. Empty: not told.
    pub size: Box<str>,
}

impl Measure {
    /// Longest quality or size that is kept, in bytes.
    pub const MAX_TEXT: usize = 32;

    pub fn new(unit: Unit, quantity: u64) -> Self {
        Self { unit, quantity, quality: "".into(), size: "".into() }
    }
}

/// What one unit costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPrice {
    pub unit: Unit,
    /// Only for this quality; empty: for any.
    pub quality: Box<str>,
    /// Only for this size; empty: for any.
    pub size: Box<str>,
    /// Nano-USD for a million units: 0.04 USD per image is 40 000 000 000 000.
    pub price: NanosPerMillion,
}

impl UnitPrice {
    /// Whether it is meant for `measure`.
    pub fn fits(&self, measure: &Measure) -> bool {
        let matches = |wanted: &str, told: &str| wanted.is_empty() || wanted == told;
        self.unit == measure.unit
            && matches(&self.quality, &measure.quality)
            && matches(&self.size, &measure.size)
    }

    /// More is closer: a price for this very quality and size wins over one for any.
    pub fn closeness(&self) -> u8 {
        u8::from(!self.quality.is_empty()) + u8::from(!self.size.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_found_by_its_name_and_by_no_other() {
        for unit in Unit::ALL {
            assert_eq!(Unit::from_name(unit.name()), Some(unit));
        }
        assert_eq!(Unit::from_name("Images"), None);
    }

    #[test]
    fn a_price_for_a_quality_fits_no_other_quality() {
        let price = |quality: &str, size: &str| UnitPrice {
            unit: Unit::Images,
            quality: quality.into(),
            size: size.into(),
            price: NanosPerMillion(1),
        };
        let measure = Measure { quality: "high".into(), ..Measure::new(Unit::Images, 1) };
        assert!(price("high", "").fits(&measure) && price("", "").fits(&measure));
        assert!(!price("low", "").fits(&measure) && !price("high", "1024x1024").fits(&measure));
        assert!(price("high", "").closeness() > price("", "").closeness());
    }
}
