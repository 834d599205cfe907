//! What a call is billed by beside text tokens: each endpoint's own unit, from what the request asked for and what the
//! answer told. Called by the pipeline when a request is over.

use nemo_types::{Measure, Unit};

use crate::Endpoint;

/// What a request says about its own size. Empty and `None`: not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Unicode characters of the text to be spoken.
    pub characters: Option<u64>,
    /// Documents to be ranked.
    pub documents: Option<u64>,
    /// Images to be made.
    pub images: Option<u64>,
    pub quality: Box<str>,
    pub size: Box<str>,
}

/// A quality or size as it is kept: cut to a bound.
pub(crate) fn kept(text: &str) -> Box<str> {
    text[..text.floor_char_boundary(Measure::MAX_TEXT)].into()
}

/// The measures of a call that was billed. What the answer `told` wins over what was asked for.
pub fn measures(endpoint: Endpoint, asked: Option<&Asked>, mut told: Vec<Measure>) -> Vec<Measure> {
    let has = |told: &[Measure], unit| told.iter().any(|measure| measure.unit == unit);
    match endpoint {
        Endpoint::ImageGenerations | Endpoint::ImageEdits | Endpoint::ImageVariations => {
            if !has(&told, Unit::Images) {
                let count = asked.and_then(|asked| asked.images).unwrap_or(1);
                told.insert(0, Measure::new(Unit::Images, count));
            }
            if let (Some(asked), Some(images)) =
                (asked, told.iter_mut().find(|measure| measure.unit == Unit::Images))
            {
                fill(&mut images.quality, &asked.quality);
                fill(&mut images.size, &asked.size);
            }
        }
        Endpoint::Speech => {
            let characters = asked.and_then(|asked| asked.characters);
            told.extend(characters.map(|count| Measure::new(Unit::Characters, count)));
        }
        Endpoint::Rerank => {
            let documents = asked.and_then(|asked| asked.documents);
            told.extend(documents.map(|count| Measure::new(Unit::Documents, count)));
        }
        Endpoint::Moderations => told.push(Measure::new(Unit::Requests, 1)),
        Endpoint::ChatCompletions
        | Endpoint::Completions
        | Endpoint::Embeddings
        | Endpoint::Responses
        | Endpoint::Transcriptions
        | Endpoint::Translations
        | Endpoint::Messages
        | Endpoint::CountTokens
        | Endpoint::GenerateContent
        | Endpoint::GoogleCountTokens
        | Endpoint::Videos => {}
    }
    told
}

/// `auto` says as little as nothing.
fn fill(told: &mut Box<str>, asked: &str) {
    if told.is_empty() && asked != "auto" {
        *told = asked.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_wins_over_the_request() {
        let asked = Asked { images: Some(3), size: "512x512".into(), ..Asked::default() };
        let told = Measure { size: "1024x1024".into(), ..Measure::new(Unit::Images, 2) };
        let measured = measures(Endpoint::ImageGenerations, Some(&asked), vec![told.clone()]);
        assert_eq!(measured, [told]);
        let silent = measures(Endpoint::ImageGenerations, Some(&asked), Vec::new());
        assert_eq!((silent[0].quantity, &*silent[0].size), (3, "512x512"));
        let nothing = measures(Endpoint::ImageVariations, None, Vec::new());
        assert_eq!(nothing, [Measure::new(Unit::Images, 1)]);
    }

    #[test]
    fn each_endpoint_has_its_unit() {
        let asked = Asked { characters: Some(12), documents: Some(4), ..Asked::default() };
        let of = |endpoint| {
            let measures = measures(endpoint, Some(&asked), Vec::new());
            measures.iter().map(|measure| (measure.unit.name(), measure.quantity)).collect::<Vec<_>>()
        };
        assert_eq!(of(Endpoint::Speech), [("characters", 12)]);
        assert_eq!(of(Endpoint::Rerank), [("documents", 4)]);
        assert_eq!(of(Endpoint::Moderations), [("requests", 1)]);
        assert_eq!(of(Endpoint::ChatCompletions), []);
        assert_eq!(of(Endpoint::Transcriptions), [], "unknown is not zero");
    }
}
