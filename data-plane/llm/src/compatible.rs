//! The table of OpenAI-compatible providers: one row each. Base URLs, key variables and departures from OpenAI's
//! behaviour as the providers document them.

use crate::{
    AuthScheme, Endpoint, Provider, Quirks,
    endpoint::Endpoint::{
        ChatCompletions, Completions, Embeddings, ImageEdits, ImageGenerations, ImageVariations, Moderations,
        Rerank, Responses, Speech, Transcriptions, Translations,
    },
    extras::ExtraField,
    provider::{LimitName, StreamUsage},
};

const TEXT: &[Endpoint] = &[ChatCompletions, Completions, Embeddings];
/// All that OpenAI itself serves.
const OPENAI: &[Endpoint] = &[
    ChatCompletions,
    Completions,
    Embeddings,
    Responses,
    ImageGenerations,
    ImageEdits,
    ImageVariations,
    Speech,
    Transcriptions,
    Translations,
    Moderations,
];
const CHAT: &[Endpoint] = &[ChatCompletions];
const CHAT_AND_TEXT: &[Endpoint] = &[ChatCompletions, Completions];
const CHAT_AND_EMBEDDINGS: &[Endpoint] = &[ChatCompletions, Embeddings];

/// A remote service with a bearer token that behaves like OpenAI; rows override what differs.
const REMOTE: Provider = Provider {
    id: "",
    name: "",
    aliases: &[],
    base_url: "",
    base_url_env: None,
    auth: AuthScheme::Bearer,
    env: &[],
    endpoints: CHAT,
    quirks: Quirks::STANDARD,
    static_headers: &[],
    origin_paths: &[],
};

const fn home(id: &str) -> &'static str {
    match nemo_types::base_url(id) {
        Some(url) => url,
        None => "",
    }
}

/// OpenRouter reads its own request extras. `models` and `route` are stripped even there: they would let the
/// upstream pick a model that the key may not use.
const OPENROUTER: Quirks = Quirks {
    stream_usage: StreamUsage::Inject,
    native: &[ExtraField::Provider, ExtraField::Plugins, ExtraField::Transforms, ExtraField::Usage],
    ..Quirks::STANDARD
};

pub(crate) const PROVIDERS: &[Provider] = &[
    Provider {
        id: "openai",
        name: "OpenAI",
        base_url: home("openai"),
        env: &["OPENAI_API_KEY"],
        endpoints: OPENAI,
        quirks: Quirks { limit: LimitName::MaxCompletionTokens, ..Quirks::STANDARD },
        ..REMOTE
    },
    Provider {
        id: "openrouter",
        name: "OpenRouter",
        base_url: home("openrouter"),
        env: &["OPENROUTER_API_KEY"],
        endpoints: &[ChatCompletions, Completions, Embeddings, Responses],
        quirks: OPENROUTER,
        ..REMOTE
    },
    Provider {
        // Its compatibility layer takes the key as a bearer token.
        id: "anthropic",
        name: "Anthropic",
        aliases: &["claude"],
        base_url: home("anthropic"),
        env: &["ANTHROPIC_API_KEY"],
        ..REMOTE
    },
    Provider {
        id: "google-ai-studio",
        name: "Google AI Studio",
        aliases: &["gemini", "google"],
        base_url: home("google-ai-studio"),
        env: &["GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_AI_STUDIO_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        ..REMOTE
    },
    Provider {
        id: "groq",
        name: "Groq",
        base_url: home("groq"),
        env: &["GROQ_API_KEY"],
        endpoints: &[ChatCompletions, Responses, Speech, Transcriptions, Translations],
        ..REMOTE
    },
    Provider {
        // Answers 422 to `stream_options`; usage comes with the last chunk.
        id: "mistral",
        name: "Mistral AI",
        aliases: &["mistralai"],
        base_url: home("mistral"),
        env: &["MISTRAL_API_KEY"],
        endpoints: &[ChatCompletions, Embeddings, Transcriptions, Moderations],
        quirks: Quirks::USAGE_ALWAYS,
        ..REMOTE
    },
    Provider {
        id: "deepseek",
        name: "DeepSeek",
        base_url: home("deepseek"),
        env: &["DEEPSEEK_API_KEY"],
        ..REMOTE
    },
    Provider {
        id: "xai",
        name: "xAI",
        aliases: &["x-ai"],
        base_url: home("xai"),
        env: &["XAI_API_KEY"],
        endpoints: &[ChatCompletions, Completions, Responses, ImageGenerations],
        ..REMOTE
    },
    Provider {
        id: "together",
        name: "Together AI",
        aliases: &["together_ai", "together-ai", "togetherai"],
        base_url: home("together"),
        env: &["TOGETHER_API_KEY", "TOGETHERAI_API_KEY", "TOGETHER_AI_API_KEY"],
        endpoints: &[
            ChatCompletions,
            Completions,
            Embeddings,
            ImageGenerations,
            Speech,
            Transcriptions,
            Rerank,
        ],
        ..REMOTE
    },
    Provider {
        id: "fireworks",
        name: "Fireworks AI",
        aliases: &["fireworks_ai", "fireworks-ai"],
        base_url: home("fireworks"),
        env: &["FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY"],
        endpoints: &[ChatCompletions, Completions, Embeddings, Responses, Rerank],
        ..REMOTE
    },
    Provider {
        id: "cerebras",
        name: "Cerebras",
        base_url: home("cerebras"),
        env: &["CEREBRAS_API_KEY"],
        endpoints: CHAT_AND_TEXT,
        ..REMOTE
    },
    Provider {
        // Usage comes with every chunk; `stream_options` is no parameter of its API.
        id: "perplexity",
        name: "Perplexity",
        base_url: home("perplexity"),
        env: &["PERPLEXITY_API_KEY", "PERPLEXITYAI_API_KEY"],
        quirks: Quirks::USAGE_ALWAYS,
        ..REMOTE
    },
    Provider {
        id: "moonshot",
        name: "Moonshot AI",
        aliases: &["moonshotai", "kimi"],
        base_url: home("moonshot"),
        env: &["MOONSHOT_API_KEY"],
        ..REMOTE
    },
    Provider {
        id: "nvidia",
        name: "NVIDIA NIM",
        aliases: &["nvidia_nim", "nvidia-nim"],
        base_url: home("nvidia"),
        env: &["NVIDIA_API_KEY", "NVIDIA_NIM_API_KEY"],
        endpoints: TEXT,
        ..REMOTE
    },
    Provider {
        id: "deepinfra",
        name: "DeepInfra",
        base_url: home("deepinfra"),
        env: &["DEEPINFRA_API_KEY", "DEEPINFRA_TOKEN"],
        endpoints: &[ChatCompletions, Completions, Embeddings, ImageGenerations, Speech, Transcriptions],
        ..REMOTE
    },
    Provider {
        // The international endpoint of DashScope's compatible mode.
        id: "alibaba",
        name: "Alibaba Cloud",
        aliases: &["dashscope", "qwen"],
        base_url: home("alibaba"),
        env: &["DASHSCOPE_API_KEY"],
        endpoints: TEXT,
        ..REMOTE
    },
    Provider {
        id: "zai",
        name: "Z.ai",
        aliases: &["z-ai", "zhipu"],
        base_url: home("zai"),
        env: &["ZAI_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        ..REMOTE
    },
    Provider {
        id: "novita",
        name: "Novita AI",
        aliases: &["novita-ai"],
        base_url: home("novita"),
        env: &["NOVITA_API_KEY"],
        endpoints: TEXT,
        ..REMOTE
    },
    Provider {
        id: "sambanova",
        name: "SambaNova",
        base_url: home("sambanova"),
        env: &["SAMBANOVA_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        ..REMOTE
    },
    Provider {
        id: "hyperbolic",
        name: "Hyperbolic",
        base_url: home("hyperbolic"),
        env: &["HYPERBOLIC_API_KEY"],
        endpoints: CHAT_AND_TEXT,
        ..REMOTE
    },
    Provider {
        id: "nebius",
        name: "Nebius Token Factory",
        base_url: home("nebius"),
        env: &["NEBIUS_API_KEY"],
        endpoints: &[ChatCompletions, Completions, Embeddings, ImageGenerations],
        ..REMOTE
    },
    Provider {
        // The compatibility endpoint; the native API is another dialect.
        id: "cohere",
        name: "Cohere",
        base_url: home("cohere"),
        env: &["COHERE_API_KEY", "CO_API_KEY"],
        endpoints: &[ChatCompletions, Embeddings, Rerank],
        // Rerank is no part of the compatibility layer, but has the shape that others took from it.
        origin_paths: &[(Rerank, "/v2/rerank")],
        ..REMOTE
    },
    Provider {
        // The variable holds the server's address, not a key.
        id: "ollama",
        name: "Ollama",
        base_url: home("ollama"),
        base_url_env: Some("OLLAMA_HOST"),
        auth: AuthScheme::None,
        endpoints: &[ChatCompletions, Completions, Embeddings, Responses],
        ..REMOTE
    },
    Provider {
        // Any other compatible server; a deployment says where, and a credential is optional.
        id: "custom",
        name: "OpenAI-compatible server",
        aliases: &["openai-compatible", "vllm", "lm-studio", "lm_studio", "llama-cpp", "sglang"],
        endpoints: &Endpoint::ALL,
        ..REMOTE
    },
    Provider {
        // The built-in responder; its deployment says where it listens.
        id: "demo",
        name: "Demo",
        auth: AuthScheme::None,
        endpoints: &Endpoint::ALL,
        ..REMOTE
    },
];
