//! The mock's answers in the words of Anthropic, Google, Amazon Bedrock and Cohere: correct in form, and a function of the
//! request and the script, as those of OpenAI in [`super::reply`] are. Tools are called (once, until their result is
//! there), JSON is given where it is asked for, and thoughts are told where they are wanted.

mod anthropic;
mod cohere;
mod converse;
mod count;
mod google;
mod vectors;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};

use super::reply::{self, Answer, PROMPT_TOKENS};
use crate::script::{Script, UsageReport};

pub use vectors::{TEXT_TOKENS, vector};

/// What stands for a signature of thoughts.
pub const SIGNATURE: &str = "c2lnbmF0dXJlLW9mLXRob3VnaHRz";
/// What is thought.
pub const THOUGHT: &str = "Let me think about that.";

/// Whose words a path is called in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Anthropic,
    Google {
        stream: bool,
    },
    GoogleEmbeddings,
    GoogleEmbedding,
    GooglePredict,
    Converse {
        stream: bool,
    },
    /// A model of Bedrock's in the words of its maker.
    Invoke,
    Cohere,
    CohereEmbeddings,
    Counts(count::Counts),
}

/// Whose words this path is called in, and the model that it names, if it does.
pub(super) fn of_path(method: &Method, path: &str) -> Option<(Spoken, String)> {
    if *method != Method::POST {
        return None;
    }
    if let Some((counts, model)) = count::of_path(path) {
        return Some((Spoken::Counts(counts), model));
    }
    match path {
        "/v1/messages" => return Some((Spoken::Anthropic, String::new())),
        "/v2/chat" => return Some((Spoken::Cohere, String::new())),
        "/v2/embed" => return Some((Spoken::CohereEmbeddings, String::new())),
        _ => {}
    }
    if let Some(rest) = path.strip_prefix("/model/") {
        let (model, method) = rest.split_once('/')?;
        let model = model.replace("%3A", ":").replace("%2F", "/");
        let spoken = match method {
            "invoke" => Spoken::Invoke,
            _ => Spoken::Converse { stream: method == "converse-stream" },
        };
        return Some((spoken, model));
    }
    let (_, call) = path.split_once("/models/")?;
    let (model, method) = call.rsplit_once(':')?;
    let spoken = match method {
        "generateContent" => Spoken::Google { stream: false },
        "streamGenerateContent" => Spoken::Google { stream: true },
        "batchEmbedContents" => Spoken::GoogleEmbeddings,
        "embedContent" => Spoken::GoogleEmbedding,
        "predict" => Spoken::GooglePredict,
        "rawPredict" | "streamRawPredict" => Spoken::Anthropic,
        _ => return None,
    };
    Some((spoken, model.to_owned()))
}

/// The answer to a request.
pub(super) fn answer(spoken: Spoken, request: &Value, model: &str, script: &Script, number: u64) -> Answer {
    match spoken {
        Spoken::Counts(counts) => Answer::Unary(reply::json_bytes(&count::answer(counts))),
        Spoken::Anthropic => anthropic::answer(request, model, script, number),
        Spoken::Google { stream } => google::answer(request, model, script, number, stream),
        Spoken::GoogleEmbeddings => Answer::Unary(reply::json_bytes(&vectors::batch(request))),
        Spoken::GoogleEmbedding => Answer::Unary(reply::json_bytes(&vectors::single())),
        Spoken::GooglePredict => Answer::Unary(reply::json_bytes(&vectors::predict(request))),
        Spoken::Invoke => Answer::Unary(reply::json_bytes(&vectors::invoke(request))),
        Spoken::CohereEmbeddings => Answer::Unary(reply::json_bytes(&vectors::embed(request))),
        Spoken::Converse { stream } => converse::answer(request, script, stream),
        Spoken::Cohere => cohere::answer(request, script, number),
    }
}

/// What the provider would refuse.
pub(super) fn invalid(spoken: Spoken, path: &str, request: &Value) -> Option<&'static str> {
    match spoken {
        Spoken::Counts(counts) => count::invalid(counts, path, request),
        Spoken::Anthropic if request["max_tokens"].as_u64().is_none() => Some("max_tokens: Field required"),
        Spoken::Anthropic if !path.starts_with("/v1/messages") && request["anthropic_version"].is_null() => {
            Some("anthropic_version: Field required")
        }
        Spoken::Anthropic if !path.starts_with("/v1/messages") && !request["model"].is_null() => {
            Some("model: Extra inputs are not permitted")
        }
        Spoken::GoogleEmbeddings if !request["requests"].is_array() => Some("requests is not specified"),
        Spoken::GoogleEmbedding if !request["content"].is_object() => Some("content is not specified"),
        Spoken::GooglePredict if !request["instances"].is_array() => Some("instances is not specified"),
        Spoken::Invoke if !request["inputText"].is_string() && !request["texts"].is_array() => {
            Some("Malformed input request, please reformat your input and try again.")
        }
        Spoken::CohereEmbeddings if !request["input_type"].is_string() => Some("input_type is required"),
        Spoken::Google { .. } if !request["contents"].is_array() => Some("contents is not specified"),
        Spoken::Converse { .. } if !request["messages"].is_array() => Some("messages is required"),
        _ => None,
    }
}

/// An error in the same words.
pub(super) fn error(spoken: Spoken, status: u16, message: &str) -> Value {
    use count::Counts;
    match spoken {
        Spoken::Counts(Counts::OpenAi) => reply::error(status, message),
        Spoken::Anthropic | Spoken::Counts(Counts::Anthropic | Counts::Claude) => json!({
            "type": "error", "error": { "type": anthropic::error_type(status), "message": message },
            "request_id": "req_mock",
        }),
        Spoken::Google { .. }
        | Spoken::GoogleEmbeddings
        | Spoken::GoogleEmbedding
        | Spoken::GooglePredict
        | Spoken::Counts(Counts::AiStudio | Counts::Vertex) => {
            let name = match status {
                400 => "INVALID_ARGUMENT",
                401 => "UNAUTHENTICATED",
                429 => "RESOURCE_EXHAUSTED",
                503 => "UNAVAILABLE",
                _ => "INTERNAL",
            };
            json!({ "error": { "code": status, "message": message, "status": name } })
        }
        Spoken::Converse { .. } | Spoken::Invoke | Spoken::Counts(Counts::Bedrock) => {
            json!({ "message": message })
        }
        Spoken::Cohere | Spoken::CohereEmbeddings => json!({ "id": "mock", "message": message }),
    }
}

/// What an answer consists of, whatever the dialect.
struct Wish {
    pieces: Vec<String>,
    /// Name and arguments.
    tool: Option<(String, Value)>,
    /// The limit of the output was met.
    cut: bool,
    thinks: bool,
    prompt: u64,
    completion: u64,
    cached: u64,
    reports: bool,
}

/// What the dialects say in their own places.
struct Asked {
    /// Name and schema of each function.
    tools: Vec<(String, Value)>,
    /// Which of them is to be called; `Some("")`: none.
    choice: Option<String>,
    /// The result of a call is the last message.
    answered: bool,
    limit: Option<u64>,
    /// The schema of the answer; null: any JSON.
    json: Option<Value>,
    thinks: bool,
}

impl Wish {
    fn new(asked: &Asked, script: &Script) -> Self {
        let wanted = |name: &str| asked.choice.as_deref().is_none_or(|choice| choice == name);
        let tool = asked.tools.iter().find(|(name, _)| !asked.answered && wanted(name));
        let tool = tool.map(|(name, schema)| (name.clone(), reply::sample(schema)));
        let of_json = asked.json.as_ref().map(|schema| match schema {
            Value::Null => json!({ "answer": "mock" }).to_string(),
            schema => reply::sample(schema).to_string(),
        });
        let content = script.content.clone().or(of_json).unwrap_or_else(|| reply::SENTENCE.into());
        let mut pieces = match &tool {
            Some((_, arguments)) => reply::halves(&arguments.to_string()),
            None => reply::split(&content, script.pieces),
        };
        let limit = asked.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let cut = tool.is_none() && pieces.len() > limit;
        if cut {
            pieces.truncate(limit);
        }
        let count = pieces.len() as u64;
        let (prompt, completion, cached) = match script.usage {
            UsageReport::Tokens { prompt, completion, cached } => (prompt, completion, cached),
            UsageReport::Computed | UsageReport::Missing => (PROMPT_TOKENS, count, 0),
        };
        let reports = script.usage != UsageReport::Missing;
        Self { pieces, tool, cut, thinks: asked.thinks, prompt, completion, cached, reports }
    }

    fn text(&self) -> String {
        self.pieces.concat()
    }
}

/// An event with a name, as Anthropic sends them.
fn named(value: &Value) -> Bytes {
    let name = value["type"].as_str().unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {value}\n\n"))
}

fn list<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    value[member].as_array().into_iter().flatten()
}

/// Whether the last of these messages has a part with this member.
fn last_has(request: &Value, messages: &str, parts: &str, is: impl Fn(&Value) -> bool) -> bool {
    let last = request[messages].as_array().and_then(|messages| messages.last());
    last.is_some_and(|message| list(message, parts).any(is))
}

fn owned(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}
