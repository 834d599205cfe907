//! Where an answer is from: Google's grounding and citation metadata, which stand beside the text and count in bytes, and
//! the hub's citations, which stand on the text and count in characters.

use std::borrow::Cow;

use serde::Serialize;

use super::wire::{Candidate, GroundingChunk, Segment};
use crate::ir::Citation;

/// How many are read or written; no answer has so many.
pub(super) const MOST: usize = 256;

/// The citations of a candidate that has said `text` so far, each with the byte of `text` at which what it supports ends.
/// `start`: where a part begins in `text`.
pub(super) fn read<'a>(
    candidate: &mut Candidate<'a>,
    text: &str,
    start: &dyn Fn(usize) -> usize,
) -> Vec<(usize, Citation<'a>)> {
    let mut found = Vec::new();
    if let Some(grounding) = candidate.grounding_metadata.take() {
        let chunks = grounding.grounding_chunks.unwrap_or_default();
        let supports = grounding.grounding_supports.unwrap_or_default();
        if supports.is_empty() {
            found.extend(chunks.iter().take(MOST).map(|chunk| (text.len(), source(chunk))));
        }
        for support in supports.iter().take(MOST) {
            let (from, to) = support.segment.as_ref().map_or((None, None), |it| bounds(it, start));
            for chunk in
                support.grounding_chunk_indices.iter().flatten().filter_map(|at| chunks.get(*at)).take(MOST)
            {
                let quote = support.segment.as_ref().and_then(|it| it.text.clone()).map(|it| it.0);
                let span = span(text, from, to);
                found.push((to.unwrap_or(text.len()), Citation { quote, span, ..source(chunk) }));
            }
        }
    }
    let citations = candidate.citation_metadata.take().and_then(|it| it.citations);
    for cited in citations.into_iter().flatten().take(MOST) {
        let index = |it: Option<u32>| it.and_then(|it| usize::try_from(it).ok());
        let to = index(cited.end_index);
        let span = span(text, index(cited.start_index).or(Some(0)), to);
        let (url, title) = (cited.uri.map(|it| it.0), cited.title.map(|it| it.0));
        found.push((to.unwrap_or(text.len()), Citation { url, title, span, ..Citation::default() }));
    }
    found
}

fn source<'a>(chunk: &GroundingChunk<'a>) -> Citation<'a> {
    let source = chunk.web.as_ref().or(chunk.retrieved_context.as_ref()).or(chunk.maps.as_ref());
    Citation {
        url: source.and_then(|it| it.uri.clone()).map(|it| it.0),
        title: source.and_then(|it| it.title.clone()).map(|it| it.0),
        ..Citation::default()
    }
}

fn bounds(segment: &Segment<'_>, start: &dyn Fn(usize) -> usize) -> (Option<usize>, Option<usize>) {
    let base = segment.part_index.map_or(0, start);
    let from = segment.start_index.unwrap_or(0).checked_add(base);
    (from, segment.end_index.and_then(|it| it.checked_add(base)))
}

/// In characters; `None` where the bytes are not within `text`.
fn span(text: &str, from: Option<usize>, to: Option<usize>) -> Option<(u32, u32)> {
    let before = text.get(..from?)?.chars().count();
    let within = text.get(from?..to?)?.chars().count();
    Some((u32::try_from(before).ok()?, u32::try_from(before + within).ok()?))
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Written {
    grounding_chunks: Vec<Chunk>,
    grounding_supports: Vec<Support>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Chunk {
    Web {
        #[serde(skip_serializing_if = "Option::is_none")]
        uri: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<String>,
    },
    RetrievedContext {
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<String>,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Support {
    segment: WrittenSegment,
    grounding_chunk_indices: [usize; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WrittenSegment {
    #[serde(skip_serializing_if = "Option::is_none")]
    start_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end_index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Written {
    pub fn is_empty(&self) -> bool {
        self.grounding_chunks.is_empty()
    }

    /// `text`: what the span counts in, if all of it is known.
    pub fn push(&mut self, citation: &Citation<'_>, text: Option<&str>) {
        if self.grounding_supports.len() >= MOST {
            return;
        }
        let owned = |it: &Option<Cow<'_, str>>| it.as_deref().map(str::to_owned);
        let chunk = match &citation.url {
            Some(_) => Chunk::Web { uri: owned(&citation.url), title: owned(&citation.title) },
            None => Chunk::RetrievedContext { title: owned(&citation.title) },
        };
        let known = self.grounding_chunks.iter().position(|it| *it == chunk);
        let at = known.unwrap_or(self.grounding_chunks.len());
        if known.is_none() {
            self.grounding_chunks.push(chunk);
        }
        let bytes =
            citation.span.zip(text).and_then(|((from, to), text)| Some((byte(text, from)?, byte(text, to)?)));
        let segment = WrittenSegment {
            start_index: bytes.map(|it| it.0).filter(|from| *from > 0),
            end_index: bytes.map(|it| it.1),
            text: bytes
                .and_then(|(from, to)| text?.get(from..to))
                .map(str::to_owned)
                .or_else(|| owned(&citation.quote)),
        };
        self.grounding_supports.push(Support { segment, grounding_chunk_indices: [at] });
    }
}

/// Where the character is that has this number.
fn byte(text: &str, character: u32) -> Option<usize> {
    let character = usize::try_from(character).ok()?;
    let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    ends.into_iter().nth(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_characters_and_back() {
        let text = "Ä Ö cited.";
        let json = r#"{"groundingMetadata":{"groundingChunks":[{"web":{"uri":"https://a","title":"A"}}],
            "groundingSupports":[{"segment":{"startIndex":6,"endIndex":11,"text":"cited"},"groundingChunkIndices":[0,7]}]}}"#;
        let mut candidate: Candidate<'_> = serde_json::from_str(json).unwrap();
        let found = read(&mut candidate, text, &|_| 0);
        let [(end, citation)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((*end, citation.span), (11, Some((4, 9))));
        let mut written = Written::default();
        written.push(citation, Some(text));
        written.push(citation, None);
        let json = serde_json::to_string(&written).unwrap();
        assert_eq!(
            json,
            r#"{"groundingChunks":[{"web":{"uri":"https://a","title":"A"}}],"groundingSupports":[{"segment":{"startIndex":6,"endIndex":11,"text":"cited"},"groundingChunkIndices":[0]},{"segment":{"text":"cited"},"groundingChunkIndices":[0]}]}"#
        );
    }

    #[test]
    fn offsets_out_of_the_text_have_no_span() {
        assert_eq!(span("aä", Some(0), Some(2)), None);
        assert_eq!(span("aä", Some(3), Some(1)), None);
        assert_eq!(span("aä", Some(0), Some(3)), Some((0, 2)));
        assert_eq!((byte("aä", 2), byte("aä", 3)), (Some(3), None));
    }
}
