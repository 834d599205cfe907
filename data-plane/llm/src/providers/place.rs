//! What writers for targets without state, sound and alternatives have in common: how they name a place in the client's
//! request, and what they refuse alike. Called by [`super::bedrock`] and [`super::cohere`], and for files by
//! [`crate::inline`] and [`crate::links`].

use crate::{
    Dialect,
    codec::CodecError,
    ir::{Content, Message, Param, Part, Request, Role},
};

/// Where a part of a message is, in the client's words; `messages[3].content[0].image_url`.
pub(crate) fn of(request: &Request<'_>, message: &Message<'_>, part: &Part<'_>) -> String {
    request.dialect.place(message.at, Some(part.at)) + member(request.dialect, part)
}

/// The member of a part that holds the file, with a dot before it.
fn member(dialect: Dialect, part: &Part<'_>) -> &'static str {
    use Dialect::{Chat, GenerateContent, Messages, Responses};
    match (&part.content, dialect) {
        (Content::Image(_), Chat | Responses) => ".image_url",
        (Content::Audio(_), Chat | Responses) => ".input_audio",
        (Content::Document(_), Chat) => ".file",
        (Content::Image(_) | Content::Document(_), Messages) => ".source",
        (
            Content::Image(_) | Content::Audio(_) | Content::Video(_) | Content::Document(_),
            GenerateContent,
        ) => ".inlineData",
        _ => "",
    }
}

/// A part itself, or what is in it where it is the result of a tool: where files may stand.
pub(crate) fn files<'r, 'a>(part: &'r Part<'a>) -> impl Iterator<Item = &'r Part<'a>> {
    let inner = match &part.content {
        Content::ToolResult(result) => &*result.content,
        _ => &[],
    };
    std::iter::once(part).chain(inner)
}

/// Where a file is: in `part`, or `part` itself.
pub(crate) fn within(
    request: &Request<'_>,
    message: &Message<'_>,
    part: &Part<'_>,
    file: &Part<'_>,
) -> String {
    let Content::ToolResult(_) = &part.content else { return of(request, message, part) };
    let member = member(request.dialect, file);
    let (outer, at) = (request.dialect.place(message.at, Some(part.at)), file.at);
    match request.dialect {
        Dialect::Messages => format!("{outer}.content[{at}]{member}"),
        Dialect::Responses => format!("input[{}].output[{at}]{member}", message.at),
        Dialect::GenerateContent => format!("{outer}.functionResponse.parts[{at}]{member}"),
        // There the message is the result.
        _ => of(request, message, file),
    }
}

/// One answer, of text, to a conversation that is sent whole: all that some targets can do. `target`: their name.
///
/// # Errors
/// When more is asked for.
pub(super) fn one_text_answer(request: &Request<'_>, target: &str) -> Result<(), CodecError> {
    if request.choices > 1 {
        let path = Param::Choices.name(request.dialect);
        return Err(CodecError::unsupported(
            path,
            format!("{target} gives one answer to a request, not {}. Expected 1.", request.choices),
        ));
    }
    if let Some(other) = request.modalities.iter().find(|it| !it.eq_ignore_ascii_case("text")) {
        let path = Param::Modalities.name(request.dialect);
        return Err(CodecError::unsupported(path, format!("{target} answers in text, not in {other}.")));
    }
    let talks = |message: &Message<'_>| !matches!(message.role, Role::System | Role::Developer);
    if !request.messages.iter().any(talks) {
        let path = if request.dialect == Dialect::Responses { "input" } else { "messages" };
        let path = if request.dialect == Dialect::GenerateContent { "contents" } else { path };
        return Err(CodecError::unsupported(
            path,
            format!("{target} wants at least one message of the user beside instructions."),
        ));
    }
    Ok(())
}

/// Notes a parameter once.
pub(super) fn drop(dropped: &mut Vec<Param>, param: Param) {
    if !dropped.contains(&param) {
        dropped.push(param);
    }
}

/// A number within what the target takes; noted where that changes it.
pub(super) fn clamped(
    value: Option<f64>,
    range: (f64, f64),
    param: Param,
    dropped: &mut Vec<Param>,
) -> Option<f64> {
    let value = value?;
    let within = value.clamp(range.0, range.1);
    // The range's ends are exact, so that a value that is within it is not changed at all.
    if within.to_bits() != value.to_bits() && within.abs() + value.abs() > 0.0 {
        drop(dropped, param);
    }
    Some(within)
}
