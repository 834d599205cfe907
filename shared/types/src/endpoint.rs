//! Names of the proxied endpoints, as keys are limited by them. The data plane's own table is in `nemo-llm`, which the
//! control plane does not know; a test there compares the two.

/// In the order of that table.
pub const LABELS: [&str; 17] = [
    "chat.completions",
    "completions",
    "embeddings",
    "responses",
    "images.generations",
    "images.edits",
    "images.variations",
    "audio.speech",
    "audio.transcriptions",
    "audio.translations",
    "moderations",
    "rerank",
    "messages",
    "messages.count_tokens",
    "generate_content",
    "generate_content.count_tokens",
    "videos",
];
