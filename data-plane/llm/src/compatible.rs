//! The table of OpenAI-compatible providers: one row each. Here are those that make models and those that pass requests on;
//! in [`hosts`] those that run others' models, and servers of one's own. Base URLs, key variables and departures from
//! OpenAI's behaviour as the providers document them.

use crate::{
    AuthScheme, Dialect, Endpoint, Provider, Quirks,
    endpoint::Endpoint::{
        ChatCompletions, Completions, CountTokens, Embeddings, ImageEdits, ImageGenerations, ImageVariations,
        Messages, Moderations, Rerank, Responses, Speech, Transcriptions, Translations, Videos,
    },
    extras::ExtraField,
    ir::Param,
    provider::{Hosting, LimitName},
    quirks::{CallIds, ChatQuirks, ReasoningStyle, Thoughts},
};

mod hosts;

pub use hosts::COMPATIBLE;
pub(crate) use hosts::HOSTS;

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
    Videos,
];
const CHAT: &[Endpoint] = &[ChatCompletions];
const CHAT_AND_TEXT: &[Endpoint] = &[ChatCompletions, Completions];
const CHAT_AND_EMBEDDINGS: &[Endpoint] = &[ChatCompletions, Embeddings];

/// A remote service with a bearer token that behaves like OpenAI; rows override what differs.
pub(crate) const REMOTE: Provider = Provider {
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
    speaks: Some(Dialect::Chat),
    hosting: Hosting::Plain,
    conversions: &[],
    origin_paths: &[],
    counts_input: false,
};

pub(crate) const fn home(id: &str) -> &'static str {
    match nemo_types::base_url(id) {
        Some(url) => url,
        None => "",
    }
}

/// Quirks in chat requests alone.
const fn chat(chat: ChatQuirks) -> Quirks {
    Quirks { chat, ..Quirks::STANDARD }
}

const STRICT: Quirks = chat(ChatQuirks::STRICT);

/// `thinking: {"type": …}`, and earlier thoughts in a loop of tool calls.
const SWITCH: Quirks =
    chat(ChatQuirks { reasoning: ReasoningStyle::Switch, thoughts: Thoughts::Text, ..ChatQuirks::STRICT });

/// `enable_thinking`
const BUDGET: Quirks = chat(ChatQuirks { reasoning: ReasoningStyle::Budget, ..ChatQuirks::STRICT });

/// OpenRouter reads its own request extras. `models` and `route` are stripped even there: they would let the
/// upstream pick a model that the key may not use.
const OPENROUTER: Quirks = Quirks {
    native: &[ExtraField::Provider, ExtraField::Plugins, ExtraField::Transforms, ExtraField::Usage],
    chat: ChatQuirks {
        developer: true,
        cache_marks: true,
        reasoning: ReasoningStyle::Object,
        thoughts: Thoughts::Details,
        ..ChatQuirks::COMPATIBLE
    },
    ..Quirks::STANDARD
};

const OPENAI_ITSELF: Quirks =
    Quirks { limit: LimitName::MaxCompletionTokens, chat: ChatQuirks::OPENAI, ..Quirks::STANDARD };

/// Answers 422 to every member that its API does not have, `stream_options` among them; usage comes with the last chunk.
const MISTRAL: Quirks = Quirks {
    chat: ChatQuirks {
        reasoning: ReasoningStyle::None,
        seed: "random_seed",
        call_ids: CallIds::Nine,
        refuses: &[
            Param::Store,
            Param::Metadata,
            Param::CacheKey,
            Param::ServiceTier,
            Param::TopK,
            Param::MinP,
            Param::User,
            Param::Logprobs,
        ],
        ..ChatQuirks::STRICT
    },
    ..Quirks::USAGE_ALWAYS
};

/// Knows `json_object` alone, and no seeds.
const DEEPSEEK: ChatQuirks = ChatQuirks {
    schemas: false,
    reasoning: ReasoningStyle::Switch,
    thoughts: Thoughts::Text,
    refuses: &[
        Param::Store,
        Param::Metadata,
        Param::CacheKey,
        Param::ServiceTier,
        Param::TopK,
        Param::MinP,
        Param::Seed,
        Param::User,
    ],
    ..ChatQuirks::STRICT
};

/// Answers 400 to parameters that its models don't have.
const GROQ: ChatQuirks = ChatQuirks {
    refuses: &[
        Param::Store,
        Param::Metadata,
        Param::CacheKey,
        Param::ServiceTier,
        Param::TopK,
        Param::MinP,
        Param::Logprobs,
    ],
    ..ChatQuirks::STRICT
};

/// Like [`GROQ`], and has no penalties.
const CEREBRAS: ChatQuirks = ChatQuirks {
    refuses: &[
        Param::Store,
        Param::Metadata,
        Param::CacheKey,
        Param::ServiceTier,
        Param::TopK,
        Param::MinP,
        Param::FrequencyPenalty,
        Param::PresencePenalty,
    ],
    ..ChatQuirks::STRICT
};

/// A proxy that knows what many providers know.
const PROXY: ChatQuirks =
    ChatQuirks { developer: true, cache_marks: true, thoughts: Thoughts::Text, ..ChatQuirks::COMPATIBLE };

pub(crate) const PROVIDERS: &[Provider] = &[
    Provider {
        id: "openai",
        name: "OpenAI",
        base_url: home("openai"),
        env: &["OPENAI_API_KEY"],
        endpoints: OPENAI,
        quirks: OPENAI_ITSELF,
        counts_input: true,
        ..REMOTE
    },
    Provider {
        // A resource of one's own: `https://<resource>.openai.azure.com/openai/v1`, or without the path for deployments by
        // name; `?api-version=…` behind it chooses a version.
        id: "azure",
        name: "Azure OpenAI",
        aliases: &["azure-openai", "azure_openai"],
        auth: AuthScheme::Header("api-key"),
        env: &["AZURE_OPENAI_API_KEY", "AZURE_API_KEY"],
        endpoints: OPENAI,
        quirks: OPENAI_ITSELF,
        hosting: Hosting::Azure,
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
        // Its own API: the compatibility layer knows neither caching nor thoughts.
        id: "anthropic",
        name: "Anthropic",
        aliases: &["claude"],
        base_url: home("anthropic"),
        auth: AuthScheme::Header("x-api-key"),
        env: &["ANTHROPIC_API_KEY"],
        endpoints: &[Messages, CountTokens],
        static_headers: &[("anthropic-version", "2023-06-01")],
        speaks: Some(Dialect::Messages),
        ..REMOTE
    },
    Provider {
        id: "mistral",
        name: "Mistral AI",
        aliases: &["mistralai"],
        base_url: home("mistral"),
        env: &["MISTRAL_API_KEY"],
        endpoints: &[ChatCompletions, Embeddings, Transcriptions, Moderations],
        quirks: MISTRAL,
        ..REMOTE
    },
    Provider {
        id: "deepseek",
        name: "DeepSeek",
        base_url: home("deepseek"),
        env: &["DEEPSEEK_API_KEY"],
        quirks: chat(DEEPSEEK),
        ..REMOTE
    },
    Provider {
        id: "xai",
        name: "xAI",
        aliases: &["x-ai"],
        base_url: home("xai"),
        env: &["XAI_API_KEY"],
        endpoints: &[ChatCompletions, Completions, Responses, ImageGenerations],
        quirks: STRICT,
        ..REMOTE
    },
    Provider {
        // Usage comes with every chunk; `stream_options` is no parameter of its API.
        id: "perplexity",
        name: "Perplexity",
        base_url: home("perplexity"),
        env: &["PERPLEXITY_API_KEY", "PERPLEXITYAI_API_KEY"],
        quirks: Quirks { chat: ChatQuirks::STRICT, ..Quirks::USAGE_ALWAYS },
        ..REMOTE
    },
    Provider {
        id: "moonshot",
        name: "Moonshot AI",
        aliases: &["moonshotai", "kimi"],
        base_url: home("moonshot"),
        env: &["MOONSHOT_API_KEY"],
        quirks: SWITCH,
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
        quirks: BUDGET,
        ..REMOTE
    },
    Provider {
        id: "zai",
        name: "Z.ai",
        aliases: &["z-ai", "zhipu"],
        base_url: home("zai"),
        env: &["ZAI_API_KEY", "ZHIPU_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        quirks: chat(DEEPSEEK),
        ..REMOTE
    },
    Provider {
        id: "minimax",
        name: "MiniMax",
        base_url: home("minimax"),
        env: &["MINIMAX_API_KEY"],
        quirks: chat(ChatQuirks { reasoning: ReasoningStyle::None, ..ChatQuirks::STRICT }),
        ..REMOTE
    },
    Provider {
        id: "ai21",
        name: "AI21 Labs",
        base_url: home("ai21"),
        env: &["AI21_API_KEY"],
        quirks: chat(ChatQuirks { reasoning: ReasoningStyle::None, ..ChatQuirks::STRICT }),
        ..REMOTE
    },
    Provider {
        id: "inception",
        name: "Inception",
        base_url: home("inception"),
        env: &["INCEPTION_API_KEY"],
        endpoints: CHAT_AND_TEXT,
        quirks: STRICT,
        ..REMOTE
    },
    Provider {
        id: "upstage",
        name: "Upstage",
        base_url: home("upstage"),
        env: &["UPSTAGE_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        quirks: STRICT,
        ..REMOTE
    },
    Provider {
        id: "writer",
        name: "Writer",
        base_url: home("writer"),
        env: &["WRITER_API_KEY"],
        quirks: chat(ChatQuirks { reasoning: ReasoningStyle::None, ..ChatQuirks::STRICT }),
        ..REMOTE
    },
    Provider {
        id: "stepfun",
        name: "StepFun",
        base_url: home("stepfun"),
        env: &["STEPFUN_API_KEY"],
        quirks: STRICT,
        ..REMOTE
    },
    Provider {
        id: "bytedance",
        name: "BytePlus ModelArk",
        aliases: &["byteplus", "volcengine"],
        base_url: home("bytedance"),
        env: &["ARK_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        quirks: SWITCH,
        ..REMOTE
    },
    Provider {
        id: "xiaomi",
        name: "Xiaomi MiMo",
        aliases: &["xiaomi_mimo"],
        base_url: home("xiaomi"),
        env: &["XIAOMI_MIMO_API_KEY"],
        quirks: SWITCH,
        ..REMOTE
    },
    Provider {
        id: "llama",
        name: "Meta Llama API",
        aliases: &["meta-llama", "meta_llama"],
        base_url: home("llama"),
        env: &["LLAMA_API_KEY"],
        quirks: STRICT,
        ..REMOTE
    },
    Provider {
        id: "morph",
        name: "Morph",
        base_url: home("morph"),
        env: &["MORPH_API_KEY"],
        quirks: STRICT,
        ..REMOTE
    },
    Provider {
        id: "jina",
        name: "Jina AI",
        aliases: &["jina_ai", "jina-ai"],
        base_url: home("jina"),
        env: &["JINA_API_KEY"],
        endpoints: &[Embeddings, Rerank],
        ..REMOTE
    },
    Provider { id: "poe", name: "Poe", base_url: home("poe"), env: &["POE_API_KEY"], ..REMOTE },
    Provider {
        id: "vercel",
        name: "Vercel AI Gateway",
        aliases: &["vercel-ai-gateway", "vercel_ai_gateway"],
        base_url: home("vercel"),
        env: &["AI_GATEWAY_API_KEY", "VERCEL_AI_GATEWAY_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        quirks: chat(OPENROUTER.chat),
        ..REMOTE
    },
    Provider {
        id: "requesty",
        name: "Requesty",
        base_url: home("requesty"),
        env: &["REQUESTY_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        quirks: chat(PROXY),
        ..REMOTE
    },
    Provider {
        id: "nano-gpt",
        name: "NanoGPT",
        aliases: &["nanogpt"],
        base_url: home("nano-gpt"),
        env: &["NANOGPT_API_KEY"],
        ..REMOTE
    },
    Provider {
        id: "aihubmix",
        name: "AIHubMix",
        base_url: home("aihubmix"),
        env: &["AIHUBMIX_API_KEY"],
        endpoints: TEXT,
        ..REMOTE
    },
    Provider {
        // The usual GITHUB_TOKEN is set for other purposes nearly everywhere, so it is not taken.
        id: "github",
        name: "GitHub Models",
        aliases: &["github-models"],
        base_url: home("github"),
        env: &["GITHUB_MODELS_TOKEN"],
        endpoints: CHAT_AND_EMBEDDINGS,
        quirks: chat(ChatQuirks { developer: true, ..ChatQuirks::STRICT }),
        ..REMOTE
    },
    Provider {
        // A proxy of one's own.
        id: "litellm",
        name: "LiteLLM",
        aliases: &["litellm_proxy"],
        base_url_env: Some("LITELLM_PROXY_API_BASE"),
        env: &["LITELLM_API_KEY"],
        endpoints: &Endpoint::ALL,
        quirks: chat(PROXY),
        ..REMOTE
    },
];
