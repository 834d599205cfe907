//! `generationConfig`, where Google's clients say what others say beside their messages. Called by [`Reader::read`].

use super::{EnvelopeError, Reader, Span};
use crate::{
    Features,
    json::{Kind, Members, Value},
};

/// `generationConfig` as the client sent it, for a limit that is to be put into it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum GoogleConfig {
    #[default]
    Absent,
    Null(Span),
    /// `inside` is the position behind its opening brace.
    Object {
        inside: usize,
        empty: bool,
    },
}

impl Reader<'_> {
    /// Reads what the gateway has to know of it.
    pub(super) fn generation_config(&mut self, value: &Value) -> Result<(), EnvelopeError> {
        const LIMIT: &str = "generationConfig.maxOutputTokens";
        const COUNT: &str = "generationConfig.candidateCount";
        if value.kind == Kind::Null {
            self.envelope.limits.google = GoogleConfig::Null(value.span);
            return Ok(());
        }
        let Some(mut members) = Members::of(self.body(), value) else {
            return Err(EnvelopeError::wrong_type("generationConfig", "an object", value));
        };
        let (mut empty, mut counted) = (true, false);
        while let Some(member) = self.inner(members.next())? {
            empty = false;
            let Some(name) = member.name.text(self.body()) else { continue };
            match &*name {
                "maxOutputTokens" | "max_output_tokens" => {
                    if self.envelope.limits.max_tokens.is_some() {
                        return Err(EnvelopeError::repeated(LIMIT));
                    }
                    let limit = self.token_limit(LIMIT, &member.value)?;
                    self.envelope.limits.max_tokens = Some((member.value.span, limit));
                }
                "candidateCount" | "candidate_count" => {
                    if std::mem::replace(&mut counted, true) {
                        return Err(EnvelopeError::repeated(COUNT));
                    }
                    self.envelope.n = self.positive(COUNT, &member.value)?;
                }
                "responseMimeType" | "response_mime_type" => {
                    let kind = member.value.text(self.body());
                    if kind.is_some_and(|kind| kind == "application/json") {
                        self.envelope.features.insert(Features::JSON);
                    }
                }
                "responseModalities" | "response_modalities" => {
                    self.envelope.features.insert(self.modalities(&member.value));
                }
                _ => {}
            }
        }
        self.envelope.limits.google = GoogleConfig::Object { inside: value.span.start + 1, empty };
        Ok(())
    }
}
