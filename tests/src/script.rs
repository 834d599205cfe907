//! What the scripted upstream does with one request: the content of its answer, and how the answer goes wrong.
//!
//! [`crate::upstream`] takes a script from the `x-mock-script` header, from its queue, from the requested model, or
//! from the part of the model name after `!` (`gpt-4o!status=503`), in this order. Header and model name carry the
//! [text form](Script::parse), which works across processes and languages.

use std::str::FromStr as _;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::sync::watch;

/// One answer. The default is a correct one.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Before the head of the response.
    pub delay: Duration,
    /// Anything but a success answers with an OpenAI error envelope, unless `body` is given.
    pub status: Option<StatusCode>,
    /// Added to the response, or replacing what it would have.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// In place of the computed body, byte for byte; golden files are replayed with this.
    pub body: Option<Bytes>,
    /// Text of the answer, in place of the usual sentence.
    pub content: Option<String>,
    /// Number of content pieces of a stream.
    pub pieces: Option<usize>,
    pub usage: UsageReport,
    /// Before each event of a stream after the first.
    pub pause: Duration,
    /// Nothing after so many events of a stream until this is true, or nobody is left to say so. Has no text form.
    pub gate: Option<(usize, watch::Receiver<bool>)>,
    /// Cuts the body into frames of so many bytes, with a pause before each: events then arrive in halves.
    pub drip: Option<(usize, Duration)>,
    /// Breaks the JSON: of the body, or of the third event of a stream.
    pub malformed: bool,
    pub ending: Ending,
    /// These bytes on the connection in place of any HTTP response, then the connection is closed.
    pub wire: Option<Bytes>,
    /// The connection is reset after them, not closed.
    pub reset: bool,
}

/// The usage that an answer reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UsageReport {
    /// Numbers that follow from the request: see [`crate::upstream::PROMPT_TOKENS`].
    #[default]
    Computed,
    Tokens {
        prompt: u64,
        completion: u64,
        cached: u64,
    },
    /// No usage, even if asked for.
    Missing,
}

/// How the body ends. Counts are of body bytes, or of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ending {
    #[default]
    Whole,
    /// Close the connection after so many bytes, in the middle of the message.
    Cut(usize),
    /// Reset the connection (RST) after so many bytes.
    Reset(usize),
    /// Send so many bytes and then nothing more, with the connection open.
    Hang(usize),
    /// End the HTTP message correctly but without `[DONE]`.
    NoDone,
    /// End the HTTP message correctly, half-way through the last event before `[DONE]`.
    HalfEvent,
    /// After so many events an error event, then the end without `[DONE]`.
    ErrorEvent(usize),
}

impl Script {
    /// A correct answer.
    pub fn ok() -> Self {
        Self::default()
    }

    pub fn status(status: u16) -> Self {
        Self { status: StatusCode::from_u16(status).ok(), ..Self::default() }
    }

    /// A recorded response: status 200, this content type and body.
    pub fn replay(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = vec![(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
        Self { headers, body: Some(body.into()), ..Self::default() }
    }

    pub fn wire(bytes: impl Into<Bytes>) -> Self {
        Self { wire: Some(bytes.into()), ..Self::default() }
    }

    /// No answer: the connection is reset once the request is there.
    pub fn reset() -> Self {
        Self { reset: true, ..Self::wire("") }
    }

    #[must_use]
    pub fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    #[must_use]
    pub fn pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    #[must_use]
    pub fn gate(self, after: usize, gate: &watch::Receiver<bool>) -> Self {
        Self { gate: Some((after, gate.clone())), ..self }
    }

    #[must_use]
    pub fn drip(self, bytes: usize, pause: Duration) -> Self {
        Self { drip: Some((bytes.max(1), pause)), ..self }
    }

    #[must_use]
    pub fn pieces(self, pieces: usize) -> Self {
        Self { pieces: Some(pieces), ..self }
    }

    #[must_use]
    pub fn content(self, content: impl Into<String>) -> Self {
        Self { content: Some(content.into()), ..self }
    }

    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: Some(body.into()), ..self }
    }

    #[must_use]
    pub fn usage(self, usage: UsageReport) -> Self {
        Self { usage, ..self }
    }

    #[must_use]
    pub fn ending(self, ending: Ending) -> Self {
        Self { ending, ..self }
    }

    #[must_use]
    pub fn malformed(self) -> Self {
        Self { malformed: true, ..self }
    }

    /// Sets a response header.
    ///
    /// # Errors
    /// When name or value cannot be sent.
    pub fn header(mut self, name: &str, value: &str) -> anyhow::Result<Self> {
        let name = HeaderName::from_str(name).with_context(|| format!("header name {name:?}"))?;
        let value = HeaderValue::from_str(value).with_context(|| format!("header value {value:?}"))?;
        self.headers.push((name, value));
        Ok(self)
    }

    /// Reads the text form: settings separated by commas, each a word or `name=value`.
    ///
    /// `delay=200ms` `status=429` `header=retry-after:2` `pieces=20` `pause=10ms` `drip=5/20ms` `usage=10/20`
    /// `usage=none` `malformed` `cut=100` `reset=100` `hang=100` `no-done` `half-event` `error-event=3`
    ///
    /// # Errors
    /// Names the setting that is unknown or malformed.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut script = Self::default();
        for setting in text.split(',').map(str::trim).filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            script = script.set(name, value).with_context(|| format!("script setting {setting:?}"))?;
        }
        Ok(script)
    }

    fn set(mut self, name: &str, value: &str) -> anyhow::Result<Self> {
        match name {
            "delay" => self.delay = duration(value)?,
            "pause" => self.pause = duration(value)?,
            "status" => self.status = Some(StatusCode::from_bytes(value.as_bytes())?),
            "header" => {
                let (name, value) = value.split_once(':').context("expected name:value")?;
                return self.header(name.trim(), value.trim());
            }
            "pieces" => self.pieces = Some(value.parse()?),
            "drip" => {
                let (bytes, pause) = value.split_once('/').context("expected bytes/pause")?;
                return Ok(self.drip(bytes.parse()?, duration(pause)?));
            }
            "usage" if value == "none" => self.usage = UsageReport::Missing,
            "usage" => {
                let (prompt, completion) =
                    value.split_once('/').context("expected prompt/completion, or none")?;
                let (prompt, completion) = (prompt.parse()?, completion.parse()?);
                self.usage = UsageReport::Tokens { prompt, completion, cached: 0 };
            }
            "malformed" => self.malformed = true,
            "cut" => self.ending = Ending::Cut(value.parse()?),
            "reset" => self.ending = Ending::Reset(value.parse()?),
            "hang" => self.ending = Ending::Hang(value.parse()?),
            "no-done" => self.ending = Ending::NoDone,
            "half-event" => self.ending = Ending::HalfEvent,
            "error-event" => self.ending = Ending::ErrorEvent(value.parse()?),
            _ => anyhow::bail!("unknown"),
        }
        Ok(self)
    }
}

/// `250ms` or `2s`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1000),
        (None, None) => anyhow::bail!("expected a duration such as 250ms or 2s"),
    };
    let number: u64 = number.parse()?;
    Ok(Duration::from_millis(number.checked_mul(unit).context("too long")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_sets_every_field_it_names() {
        let script =
            Script::parse("delay=200ms, status=429,header=retry-after:2,drip=5/1s,usage=10/20,cut=100")
                .unwrap();
        assert_eq!(script.delay, Duration::from_millis(200));
        assert_eq!(script.status, Some(StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(script.headers, [(http::header::RETRY_AFTER, HeaderValue::from_static("2"))]);
        assert_eq!(script.drip, Some((5, Duration::from_secs(1))));
        assert_eq!(script.usage, UsageReport::Tokens { prompt: 10, completion: 20, cached: 0 });
        assert_eq!(script.ending, Ending::Cut(100));
    }

    #[test]
    fn a_setting_that_means_nothing_is_an_error_that_names_it() {
        for bad in ["stauts=500", "delay=5", "status=abc", "header=x", "drip=5"] {
            let error = Script::parse(&format!("malformed,{bad}")).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }
}
