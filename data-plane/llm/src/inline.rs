//! How large the files may be that stand in a request itself, by target. What is larger is refused here by its place, not
//! upstream in the provider's words; another candidate may take it. Called by [`crate::codec`] before a request is written,
//! with what was fetched in its place already ([`crate::links`]).

use crate::{
    CodecError, Destination, Dialect, Hosting,
    ir::{Content, Part, Request, Source},
    links::{File, Link},
    providers::{anthropic::claude::Claude, bedrock::family::Family, place},
};

/// What a target takes, as its provider documents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limits {
    /// Bytes of one image.
    image: Option<u64>,
    /// Bytes of one document.
    document: Option<u64>,
    /// Documents that the limit of documents does not hold for.
    exempt: &'static [&'static str],
    /// Bytes of all files as they are sent, which is as base64: what the provider says of a request as a whole.
    all: Option<u64>,
}

const NONE: Limits = Limits { image: None, document: None, exempt: &[], all: None };

const MIB: u64 = 1 << 20;
/// Anthropic measures images as base64.
const fn of_base64(bytes: u64) -> u64 {
    bytes / 4 * 3
}

const ANTHROPIC: Limits = Limits { image: Some(of_base64(10 * MIB)), all: Some(32 * MIB), ..NONE };
const CLAUDE_ON_VERTEX: Limits = Limits { image: Some(of_base64(5 * MIB)), all: Some(30 * MIB), ..NONE };
const PDF: &str = "application/pdf";
const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
/// 3.75 and 4.5 MiB.
const BEDROCK: Limits = Limits { image: Some(15 * MIB / 4), document: Some(9 * MIB / 2), ..NONE };
const NOVA: Limits = Limits { image: None, exempt: &[PDF, DOCX], all: Some(25 * MIB), ..BEDROCK };
const GEMINI: Limits = Limits { document: Some(50 * MIB), all: Some(100 * MIB), ..NONE };
const GEMINI_ON_VERTEX: Limits = Limits { image: Some(7 * MIB), document: Some(50 * MIB), ..NONE };

impl Limits {
    fn of(dialect: Dialect, to: &Destination<'_>) -> Self {
        match (dialect, to.provider.hosting) {
            (Dialect::Messages, _) if to.hosted => CLAUDE_ON_VERTEX,
            // Others that speak it have limits of their own.
            (Dialect::Messages, _) if to.provider.id == "anthropic" => ANTHROPIC,
            (Dialect::Converse, _) => match Family::of(to.model) {
                Family::Nova => NOVA,
                Family::Anthropic if Claude::of(to.model).reads_large_pdfs() => {
                    Self { exempt: &[PDF], ..BEDROCK }
                }
                // It may be any of these.
                Family::Other => Self { exempt: NOVA.exempt, ..BEDROCK },
                _ => BEDROCK,
            },
            (Dialect::GenerateContent, Hosting::AiStudio) => GEMINI,
            (Dialect::GenerateContent, Hosting::Vertex) => GEMINI_ON_VERTEX,
            _ => NONE,
        }
    }
}

/// # Errors
/// The first file that the target would not take.
pub(crate) fn check(request: &Request<'_>, dialect: Dialect, to: &Destination<'_>) -> Result<(), CodecError> {
    let limits = Limits::of(dialect, to);
    if limits == NONE {
        return Ok(());
    }
    let mut all = 0;
    for message in &request.messages {
        for part in &message.parts {
            for file in place::files(part) {
                let refused = fits(file, limits, &mut all);
                refused.map_err(|why| too_large(place::within(request, message, part, file), &why))?;
            }
        }
    }
    Ok(())
}

/// What it is, how large, and how large it may be: bytes.
#[derive(Debug, PartialEq, Eq)]
struct TooLarge {
    what: &'static str,
    bytes: u64,
    most: u64,
}

/// `all`: what the files so far take as base64.
fn fits(file: &Part<'_>, limits: Limits, all: &mut u64) -> Result<(), TooLarge> {
    let (what, source, most) = match &file.content {
        Content::Image(media) => ("an image", &media.source, limits.image),
        Content::Document(document) => ("a document", &document.source, limits.document),
        Content::Audio(media) => ("a recording", &media.source, None),
        Content::Video(media) => ("a film", &media.source, None),
        _ => return Ok(()),
    };
    let Source::Base64 { media_type, data } = source else { return Ok(()) };
    let bytes = decoded(data);
    let exempt = limits.exempt.iter().any(|it| it.eq_ignore_ascii_case(media_type));
    if let Some(most) = most.filter(|most| bytes > *most && !exempt) {
        return Err(TooLarge { what, bytes, most });
    }
    *all = all.saturating_add(data.len() as u64);
    match limits.all {
        Some(most) if *all > most => {
            let what = "one of files that are together, as base64,";
            Err(TooLarge { what, bytes: *all, most })
        }
        _ => Ok(()),
    }
}

/// Bytes that this base64 stands for. Nothing is decoded.
fn decoded(data: &str) -> u64 {
    let padding = data.bytes().rev().take(2).take_while(|byte| *byte == b'=').count();
    (data.len() / 4 * 3).saturating_sub(padding) as u64
}

/// A file that was fetched for Claude on Vertex AI, for a request that is passed on as it is.
///
/// # Errors
/// When it is larger than is taken there.
pub(crate) fn check_fetched(file: &File, link: Link) -> Result<(), CodecError> {
    let bytes = decoded(&file.data);
    match CLAUDE_ON_VERTEX.image {
        Some(most) if bytes > most && !link.document => {
            Err(too_large(link.path, &TooLarge { what: "an image", bytes, most }))
        }
        _ => Ok(()),
    }
}

fn too_large(path: String, TooLarge { what, bytes, most }: &TooLarge) -> CodecError {
    let text = format!(
        "`{path}` is {what} of {bytes} bytes. Expected at most {most}, which is what this model takes."
    );
    CodecError::unsupported(path, text)
}

#[cfg(test)]
mod tests;
