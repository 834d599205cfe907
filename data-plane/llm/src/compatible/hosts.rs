//! Services that run models which others made, and servers of one's own.

use super::{BUDGET, CEREBRAS, CHAT_AND_EMBEDDINGS, CHAT_AND_TEXT, GROQ, REMOTE, STRICT, TEXT, chat, home};
use crate::{
    AuthScheme, Endpoint, Provider,
    endpoint::Endpoint::{
        ChatCompletions, Completions, Embeddings, ImageGenerations, Rerank, Responses, Speech,
        Transcriptions, Translations,
    },
    quirks::{ChatQuirks, ReasoningStyle},
};

/// All that OpenAI has, and rankings. Other dialects are written from it.
const ANY: &[Endpoint] = &[
    Endpoint::ChatCompletions,
    Endpoint::Completions,
    Endpoint::Embeddings,
    Endpoint::Responses,
    Endpoint::ImageGenerations,
    Endpoint::ImageEdits,
    Endpoint::ImageVariations,
    Endpoint::Speech,
    Endpoint::Transcriptions,
    Endpoint::Translations,
    Endpoint::Moderations,
    Endpoint::Rerank,
    Endpoint::Videos,
];

/// Open models that think by themselves: how much can't be said in one way for all of them.
const OPEN: ChatQuirks = ChatQuirks { reasoning: ReasoningStyle::None, ..ChatQuirks::COMPATIBLE };

/// Providers that are not in the table are called as OpenAI itself is.
pub static COMPATIBLE: Provider =
    Provider { id: "openai-compatible", name: "OpenAI-compatible", endpoints: ANY, ..REMOTE };

pub(crate) const HOSTS: &[Provider] = &[
    Provider {
        id: "groq",
        name: "Groq",
        base_url: home("groq"),
        env: &["GROQ_API_KEY"],
        endpoints: &[ChatCompletions, Responses, Speech, Transcriptions, Translations],
        quirks: chat(GROQ),
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
        quirks: chat(CEREBRAS),
        ..REMOTE
    },
    Provider {
        id: "nvidia",
        name: "NVIDIA NIM",
        aliases: &["nvidia_nim", "nvidia-nim"],
        base_url: home("nvidia"),
        env: &["NVIDIA_API_KEY", "NVIDIA_NIM_API_KEY"],
        endpoints: TEXT,
        quirks: chat(ChatQuirks { reasoning: ReasoningStyle::None, ..ChatQuirks::STRICT }),
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
        id: "huggingface",
        name: "Hugging Face",
        aliases: &["hugging-face", "hf"],
        base_url: home("huggingface"),
        env: &["HF_TOKEN", "HUGGINGFACE_API_KEY"],
        ..REMOTE
    },
    Provider {
        id: "novita",
        name: "Novita AI",
        aliases: &["novita-ai"],
        base_url: home("novita"),
        env: &["NOVITA_API_KEY"],
        endpoints: TEXT,
        quirks: chat(OPEN),
        ..REMOTE
    },
    Provider {
        id: "sambanova",
        name: "SambaNova",
        base_url: home("sambanova"),
        env: &["SAMBANOVA_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        quirks: STRICT,
        ..REMOTE
    },
    Provider {
        id: "hyperbolic",
        name: "Hyperbolic",
        base_url: home("hyperbolic"),
        env: &["HYPERBOLIC_API_KEY"],
        endpoints: CHAT_AND_TEXT,
        quirks: chat(OPEN),
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
        id: "siliconflow",
        name: "SiliconFlow",
        base_url: home("siliconflow"),
        env: &["SILICONFLOW_API_KEY"],
        endpoints: &[ChatCompletions, Embeddings, ImageGenerations, Speech, Transcriptions, Rerank],
        quirks: BUDGET,
        ..REMOTE
    },
    Provider {
        id: "baseten",
        name: "Baseten",
        base_url: home("baseten"),
        env: &["BASETEN_API_KEY"],
        ..REMOTE
    },
    Provider {
        id: "chutes",
        name: "Chutes",
        base_url: home("chutes"),
        env: &["CHUTES_API_KEY"],
        endpoints: CHAT_AND_TEXT,
        quirks: chat(OPEN),
        ..REMOTE
    },
    Provider {
        id: "featherless",
        name: "Featherless AI",
        aliases: &["featherless_ai", "featherless-ai"],
        base_url: home("featherless"),
        env: &["FEATHERLESS_API_KEY", "FEATHERLESS_AI_API_KEY"],
        endpoints: CHAT_AND_TEXT,
        quirks: chat(OPEN),
        ..REMOTE
    },
    Provider {
        id: "friendli",
        name: "FriendliAI",
        aliases: &["friendliai"],
        base_url: home("friendli"),
        env: &["FRIENDLI_TOKEN"],
        endpoints: CHAT_AND_TEXT,
        ..REMOTE
    },
    Provider {
        id: "nscale",
        name: "Nscale",
        base_url: home("nscale"),
        env: &["NSCALE_API_KEY", "NSCALE_SERVICE_TOKEN"],
        endpoints: &[ChatCompletions, Embeddings, ImageGenerations],
        quirks: chat(OPEN),
        ..REMOTE
    },
    Provider {
        id: "ovhcloud",
        name: "OVHcloud AI Endpoints",
        aliases: &["ovh"],
        base_url: home("ovhcloud"),
        env: &["OVHCLOUD_API_KEY", "OVH_AI_ENDPOINTS_ACCESS_TOKEN"],
        endpoints: CHAT_AND_EMBEDDINGS,
        ..REMOTE
    },
    Provider {
        id: "scaleway",
        name: "Scaleway Generative APIs",
        base_url: home("scaleway"),
        env: &["SCW_SECRET_KEY", "SCALEWAY_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        ..REMOTE
    },
    Provider {
        id: "parasail",
        name: "Parasail",
        base_url: home("parasail"),
        env: &["PARASAIL_API_KEY"],
        endpoints: CHAT_AND_TEXT,
        quirks: chat(OPEN),
        ..REMOTE
    },
    Provider {
        id: "venice",
        name: "Venice AI",
        aliases: &["veniceai"],
        base_url: home("venice"),
        env: &["VENICE_API_KEY", "VENICE_AI_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        ..REMOTE
    },
    Provider {
        id: "lambda",
        name: "Lambda",
        aliases: &["lambda_ai", "lambda-ai"],
        base_url: home("lambda"),
        env: &["LAMBDA_API_KEY"],
        endpoints: CHAT_AND_TEXT,
        quirks: chat(OPEN),
        ..REMOTE
    },
    Provider {
        id: "inference-net",
        name: "Inference.net",
        base_url: home("inference-net"),
        env: &["INFERENCE_API_KEY"],
        endpoints: CHAT_AND_TEXT,
        quirks: chat(OPEN),
        ..REMOTE
    },
    Provider {
        id: "io-net",
        name: "io.net",
        aliases: &["ionet"],
        base_url: home("io-net"),
        env: &["IOINTELLIGENCE_API_KEY"],
        endpoints: CHAT_AND_EMBEDDINGS,
        ..REMOTE
    },
    Provider {
        id: "wandb",
        name: "W&B Inference",
        base_url: home("wandb"),
        env: &["WANDB_API_KEY"],
        quirks: chat(OPEN),
        ..REMOTE
    },
    Provider {
        id: "digitalocean",
        name: "DigitalOcean Inference",
        aliases: &["gradient_ai"],
        base_url: home("digitalocean"),
        env: &["GRADIENT_MODEL_ACCESS_KEY", "DIGITALOCEAN_INFERENCE_KEY"],
        quirks: STRICT,
        ..REMOTE
    },
    Provider {
        id: "gmi",
        name: "GMI Cloud",
        base_url: home("gmi"),
        env: &["GMI_API_KEY"],
        quirks: chat(OPEN),
        ..REMOTE
    },
    Provider {
        id: "crusoe",
        name: "Crusoe",
        base_url: home("crusoe"),
        env: &["CRUSOE_API_KEY"],
        quirks: chat(OPEN),
        ..REMOTE
    },
    Provider {
        id: "ionos",
        name: "IONOS AI Model Hub",
        base_url: home("ionos"),
        env: &["IONOS_API_TOKEN"],
        endpoints: &[ChatCompletions, Completions, Embeddings, ImageGenerations],
        quirks: chat(OPEN),
        ..REMOTE
    },
    Provider {
        // `https://api.cloudflare.com/client/v4/accounts/<account>/ai/v1`
        id: "cloudflare",
        name: "Cloudflare Workers AI",
        aliases: &["workers-ai", "cloudflare-workers-ai"],
        endpoints: CHAT_AND_EMBEDDINGS,
        quirks: chat(OPEN),
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
        id: "vllm",
        name: "vLLM",
        base_url: home("vllm"),
        base_url_env: Some("VLLM_HOST"),
        env: &["VLLM_API_KEY"],
        endpoints: &[ChatCompletions, Completions, Embeddings, Responses, Transcriptions, Rerank],
        ..REMOTE
    },
    Provider {
        id: "lm-studio",
        name: "LM Studio",
        aliases: &["lm_studio", "lmstudio"],
        base_url: home("lm-studio"),
        base_url_env: Some("LM_STUDIO_HOST"),
        auth: AuthScheme::None,
        endpoints: &[ChatCompletions, Completions, Embeddings, Responses],
        ..REMOTE
    },
    Provider {
        id: "llama-cpp",
        name: "llama.cpp",
        aliases: &["llama.cpp", "llamafile"],
        base_url: home("llama-cpp"),
        base_url_env: Some("LLAMA_CPP_HOST"),
        env: &["LLAMA_CPP_API_KEY"],
        endpoints: &[ChatCompletions, Completions, Embeddings, Rerank],
        ..REMOTE
    },
    Provider {
        id: "sglang",
        name: "SGLang",
        base_url: home("sglang"),
        base_url_env: Some("SGLANG_HOST"),
        env: &["SGLANG_API_KEY"],
        endpoints: &[ChatCompletions, Completions, Embeddings, Rerank],
        ..REMOTE
    },
    Provider {
        // Any other compatible server; a deployment says where, and a credential is optional.
        id: "custom",
        name: "OpenAI-compatible server",
        aliases: &["openai-compatible"],
        endpoints: ANY,
        ..REMOTE
    },
    Provider {
        // The built-in responder; its deployment says where it listens.
        id: "demo",
        name: "Demo",
        auth: AuthScheme::None,
        endpoints: ANY,
        ..REMOTE
    },
];
