//! Where a text is from. Anthropic has a kind of citation for each kind of source; what the hub can't hold of one stays
//! with it whole, for clients and upstreams of the same dialect.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    wire::Str,
    writer::{self, Array, Object},
};
use crate::{Dialect, ir};

#[derive(Debug, Deserialize)]
struct Citation<'a> {
    #[serde(borrow, default)]
    cited_text: Option<Str<'a>>,
    #[serde(borrow, default)]
    url: Option<Str<'a>>,
    /// Of a search result: an address, or whatever the client put there.
    #[serde(borrow, default)]
    source: Option<Str<'a>>,
    #[serde(borrow, default)]
    title: Option<Str<'a>>,
    #[serde(borrow, default)]
    document_title: Option<Str<'a>>,
    #[serde(default)]
    document_index: Option<u32>,
}

/// Reads a citation; of one that makes no sense only the whole is kept.
pub(super) fn decode(raw: &RawValue) -> ir::Citation<'_> {
    let native = Some((Dialect::Messages, Cow::Borrowed(raw)));
    let Ok(wire) = serde_json::from_str::<Citation<'_>>(raw.get()) else {
        return ir::Citation { native, ..ir::Citation::default() };
    };
    let address = |source: &Str<'_>| source.0.starts_with("https://") || source.0.starts_with("http://");
    ir::Citation {
        url: wire.url.or(wire.source.filter(address)).map(|it| it.0),
        title: wire.title.or(wire.document_title).map(|it| it.0),
        quote: wire.cited_text.map(|it| it.0),
        document: wire.document_index,
        span: None,
        native,
    }
}

/// Whether [`write()`] has a form for it.
pub(super) fn is_writable(citation: &ir::Citation<'_>) -> bool {
    is_native(citation) || citation.url.is_some()
}

pub(super) fn is_native(citation: &ir::Citation<'_>) -> bool {
    matches!(citation.native, Some((Dialect::Messages, _)))
}

/// Writes a citation for clients: as it came, or as of a search of the web, which is the kind with an address.
pub(super) fn write(out: &mut Vec<u8>, citation: &ir::Citation<'_>) {
    if let Some((Dialect::Messages, raw)) = &citation.native {
        return writer::raw(out, raw.get());
    }
    let mut object = Object::open(out);
    object.value("type", "web_search_result_location");
    object.value("cited_text", citation.quote.as_deref().unwrap_or_default());
    object.value("url", citation.url.as_deref().unwrap_or_default());
    object.value("title", &citation.title);
    object.value("encrypted_index", "");
    object.close();
}

pub(super) fn write_all(out: &mut Vec<u8>, citations: &[ir::Citation<'_>]) {
    let mut array = Array::open(out);
    for citation in citations.iter().filter(|citation| is_writable(citation)) {
        write(array.item(), citation);
    }
    array.close();
}
