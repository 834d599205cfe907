//! What an upstream's answer means for the client and for the other candidates (requirements B2, B3, B4). Called by
//! `pipeline::dispatch` and, for errors inside a stream, by `pipeline::feed`.

use nemo_llm::UpstreamErrorInfo;

/// There was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// No connection: nothing was sent.
    Connect,
    /// No connection in time: nothing was sent.
    ConnectTimeout,
    /// Its address is none that an organization's own deployment may have: nothing was sent.
    OutOfReach,
    /// The head did not come in time.
    Timeout,
    /// The connection broke before the head was complete.
    Broken,
    /// What came is no HTTP.
    Protocol,
}

impl CallError {
    pub(super) fn from_hyper(error: &hyper::Error) -> Self {
        if error.is_parse() { Self::Protocol } else { Self::Broken }
    }

    /// For headers, metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::OutOfReach => "out_of_reach",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::Protocol => "protocol",
        }
    }
}

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it.
    Success,
    /// The client's fault as the upstream sees it: pass it through.
    ClientFault,
    /// Our credential or our account: never shown as the client's 401.
    CredentialFault,
    /// Too many requests.
    RateLimited,
    /// The upstream failed.
    Failure,
}

/// Judges a status.
pub fn classify(status: u16) -> Verdict {
    match status {
        200..=299 => Verdict::Success,
        401..=403 => Verdict::CredentialFault,
        429 => Verdict::RateLimited,
        408 | 500..=599 => Verdict::Failure,
        400..=499 => Verdict::ClientFault,
        // We follow no redirects, and an informational final status is no answer.
        _ => Verdict::Failure,
    }
}

/// Judges a refusal by what it says, where the status alone is misleading: an account that is not paid is refused with
/// a 400 or a 429, and no waiting and no other request of the client would help.
pub fn refine(verdict: Verdict, said: &UpstreamErrorInfo) -> Verdict {
    let may_be_billing = matches!(verdict, Verdict::ClientFault | Verdict::RateLimited);
    if may_be_billing && is_billing(said) { Verdict::CredentialFault } else { verdict }
}

const BILLING_CODES: [&str; 8] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "billing_error",
    "insufficient_credits",
    "insufficient_balance",
    "account_deactivated",
    "access_terminated",
];

/// Whole phrases of providers that have no code for it: a prompt that is quoted must not look like one.
const BILLING_PHRASES: [&str; 3] = [
    "Your credit balance is too low to access",
    "You exceeded your current quota, please check your plan and billing details",
    "This organization has been disabled",
];

fn is_billing(said: &UpstreamErrorInfo) -> bool {
    let named = [&said.code, &said.kind].into_iter().flatten().any(|it| BILLING_CODES.contains(&&**it));
    named || starts_with_one_of(said, &BILLING_PHRASES)
}

fn starts_with_one_of(said: &UpstreamErrorInfo, phrases: &[&str]) -> bool {
    said.message.as_deref().is_some_and(|message| phrases.iter().any(|it| message.starts_with(it)))
}

const TOO_LONG_CODES: [&str; 4] = [
    "context_length_exceeded",
    "exceed_context_size_error",
    "model_context_window_exceeded",
    "string_above_max_length",
];

/// How providers without such a code begin what they say.
const TOO_LONG_PHRASES: [&str; 6] = [
    "This model's maximum context length is",
    "This endpoint's maximum context length is",
    "prompt is too long",
    "input length and `max_tokens` exceed context limit",
    "The input token count",
    "Input is too long for requested model",
];

/// Whether the request was longer than the model's context (B3): a model with a larger one may take it.
pub fn is_too_long(status: u16, said: &UpstreamErrorInfo) -> bool {
    let named = [&said.code, &said.kind].into_iter().flatten().any(|it| TOO_LONG_CODES.contains(&&**it));
    matches!(status, 400 | 413 | 422) && (named || starts_with_one_of(said, &TOO_LONG_PHRASES))
}

/// Judges an error that came inside a success: an event of a stream.
pub fn told(said: &UpstreamErrorInfo) -> Verdict {
    let code = said.code.as_deref().unwrap_or_default();
    let kind = said.kind.as_deref().unwrap_or_default();
    let verdict = match (code, kind) {
        _ if code.len() == 3 && code.parse::<u16>().is_ok_and(|it| (400..600).contains(&it)) => {
            classify(code.parse().unwrap_or(500))
        }
        ("rate_limit_exceeded" | "rate_limit_error", _) | (_, "rate_limit_error" | "RESOURCE_EXHAUSTED") => {
            Verdict::RateLimited
        }
        ("invalid_api_key", _) | (_, "authentication_error" | "permission_error" | "PERMISSION_DENIED") => {
            Verdict::CredentialFault
        }
        ("context_length_exceeded" | "invalid_prompt" | "content_filter", _)
        | (_, "invalid_request_error" | "INVALID_ARGUMENT") => Verdict::ClientFault,
        _ => Verdict::Failure,
    };
    refine(verdict, said)
}

#[cfg(test)]
mod tests {
    use nemo_llm::decode_error;

    use super::*;

    #[test]
    fn statuses_mean_what_the_decisions_say() {
        for (status, expected) in [
            (200, Verdict::Success),
            (400, Verdict::ClientFault),
            (401, Verdict::CredentialFault),
            (402, Verdict::CredentialFault),
            (403, Verdict::CredentialFault),
            (404, Verdict::ClientFault),
            (408, Verdict::Failure),
            (422, Verdict::ClientFault),
            (429, Verdict::RateLimited),
            (302, Verdict::Failure),
            (500, Verdict::Failure),
            (529, Verdict::Failure),
        ] {
            assert_eq!(classify(status), expected, "{status}");
        }
    }

    /// B3: our unpaid bill is not the client's fault, whatever status it has.
    #[test]
    fn an_unpaid_account_is_a_fault_of_ours() {
        for (status, body) in [
            (
                400,
                r#"{"error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."}}"#,
            ),
            (
                400,
                r#"{"error":{"code":"billing_hard_limit_reached","message":"Billing hard limit has been reached"}}"#,
            ),
            (
                429,
                r#"{"error":{"type":"insufficient_quota","code":"insufficient_quota","message":"You exceeded your current quota"}}"#,
            ),
        ] {
            let said = decode_error(body.as_bytes());
            assert_eq!(refine(classify(status), &said), Verdict::CredentialFault, "{body}");
        }
        for (status, body) in [
            (400, r#"{"error":{"message":"bad prompt: 'Your credit balance is too low to access'"}}"#),
            (429, r#"{"error":{"code":"rate_limit_exceeded","message":"Rate limit reached"}}"#),
            (500, r#"{"error":{"code":"insufficient_quota"}}"#),
        ] {
            let said = decode_error(body.as_bytes());
            assert_eq!(refine(classify(status), &said), classify(status), "{body}");
        }
    }

    #[test]
    fn only_what_was_too_long_is_called_so() {
        for (status, body, too_long) in [
            (400, r#"{"error":{"code":"context_length_exceeded","message":"x"}}"#, true),
            (400, r#"{"error":{"message":"This model's maximum context length is 8192 tokens."}}"#, true),
            (
                400,
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
                true,
            ),
            (
                400,
                r#"[{"error":{"code":400,"message":"The input token count (9) exceeds the maximum number of tokens allowed (8).","status":"INVALID_ARGUMENT"}}]"#,
                true,
            ),
            (400, r#"{"error":{"message":"Invalid message: 'prompt is too long'"}}"#, false),
            (500, r#"{"error":{"code":"context_length_exceeded"}}"#, false),
        ] {
            assert_eq!(is_too_long(status, &decode_error(body.as_bytes())), too_long, "{body}");
        }
    }

    #[test]
    fn errors_inside_a_stream_are_judged_by_what_they_say() {
        for (event, verdict) in [
            (r#"{"error":{"code":429,"message":"slow down"}}"#, Verdict::RateLimited),
            (r#"{"error":{"code":"rate_limit_exceeded","message":"slow down"}}"#, Verdict::RateLimited),
            (r#"{"error":{"code":502,"message":"gone"}}"#, Verdict::Failure),
            (r#"{"error":{"type":"server_error","message":"gone"}}"#, Verdict::Failure),
            (r#"{"error":{"type":"overloaded_error","message":"busy"}}"#, Verdict::Failure),
            (r#"{"error":{"type":"invalid_request_error","message":"no"}}"#, Verdict::ClientFault),
            (r#"{"error":{"code":"invalid_api_key","message":"no"}}"#, Verdict::CredentialFault),
            (
                r#"{"error":{"code":"insufficient_quota","type":"rate_limit_error"}}"#,
                Verdict::CredentialFault,
            ),
            (r#"{"error":"gone"}"#, Verdict::Failure),
        ] {
            assert_eq!(told(&decode_error(event.as_bytes())), verdict, "{event}");
        }
    }
}
