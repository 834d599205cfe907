//! Where the providers are. The control plane fills a deployment's base URL in from here, and the data plane's
//! provider table takes it from here too.

/// Base URLs by provider id, without trailing slash, as the providers document them.
const BASE_URLS: &[(&str, &str)] = &[
    ("ai21", "https://api.ai21.com/studio/v1"),
    ("aihubmix", "https://aihubmix.com/v1"),
    ("alibaba", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
    ("anthropic", "https://api.anthropic.com/v1"),
    ("baseten", "https://inference.baseten.co/v1"),
    ("bedrock", "https://bedrock-runtime.us-east-1.amazonaws.com"),
    ("bytedance", "https://ark.ap-southeast.bytepluses.com/api/v3"),
    ("cerebras", "https://api.cerebras.ai/v1"),
    ("chutes", "https://llm.chutes.ai/v1"),
    ("cohere", "https://api.cohere.com"),
    ("crusoe", "https://managed-inference-api-proxy.crusoecloud.com/v1"),
    ("deepinfra", "https://api.deepinfra.com/v1/openai"),
    ("deepseek", "https://api.deepseek.com/v1"),
    ("digitalocean", "https://inference.do-ai.run/v1"),
    ("featherless", "https://api.featherless.ai/v1"),
    ("fireworks", "https://api.fireworks.ai/inference/v1"),
    ("friendli", "https://api.friendli.ai/serverless/v1"),
    ("github", "https://models.github.ai/inference"),
    ("gmi", "https://api.gmi-serving.com/v1"),
    ("google-ai-studio", "https://generativelanguage.googleapis.com/v1beta"),
    ("groq", "https://api.groq.com/openai/v1"),
    ("huggingface", "https://router.huggingface.co/v1"),
    ("hyperbolic", "https://api.hyperbolic.xyz/v1"),
    ("inception", "https://api.inceptionlabs.ai/v1"),
    ("inference-net", "https://api.inference.net/v1"),
    ("io-net", "https://api.intelligence.io.solutions/api/v1"),
    ("ionos", "https://openai.inference.de-txl.ionos.com/v1"),
    ("jina", "https://api.jina.ai/v1"),
    ("lambda", "https://api.lambda.ai/v1"),
    ("llama", "https://api.llama.com/compat/v1"),
    ("llama-cpp", "http://127.0.0.1:8080/v1"),
    ("lm-studio", "http://127.0.0.1:1234/v1"),
    ("minimax", "https://api.minimax.io/v1"),
    ("mistral", "https://api.mistral.ai/v1"),
    ("moonshot", "https://api.moonshot.ai/v1"),
    ("morph", "https://api.morphllm.com/v1"),
    ("nano-gpt", "https://nano-gpt.com/api/v1"),
    ("nebius", "https://api.tokenfactory.nebius.com/v1"),
    ("novita", "https://api.novita.ai/openai/v1"),
    ("nscale", "https://inference.api.nscale.com/v1"),
    ("nvidia", "https://integrate.api.nvidia.com/v1"),
    ("ollama", "http://127.0.0.1:11434/v1"),
    ("openai", "https://api.openai.com/v1"),
    ("openrouter", "https://openrouter.ai/api/v1"),
    ("ovhcloud", "https://oai.endpoints.kepler.ai.cloud.ovh.net/v1"),
    ("parasail", "https://api.parasail.io/v1"),
    ("perplexity", "https://api.perplexity.ai"),
    ("poe", "https://api.poe.com/v1"),
    ("requesty", "https://router.requesty.ai/v1"),
    ("sambanova", "https://api.sambanova.ai/v1"),
    ("scaleway", "https://api.scaleway.ai/v1"),
    ("sglang", "http://127.0.0.1:30000/v1"),
    ("siliconflow", "https://api.siliconflow.com/v1"),
    ("stepfun", "https://api.stepfun.com/v1"),
    ("together", "https://api.together.ai/v1"),
    ("upstage", "https://api.upstage.ai/v1"),
    ("venice", "https://api.venice.ai/api/v1"),
    ("vercel", "https://ai-gateway.vercel.sh/v1"),
    ("vllm", "http://127.0.0.1:8000/v1"),
    ("voyage", "https://api.voyageai.com/v1"),
    ("wandb", "https://api.inference.wandb.ai/v1"),
    ("writer", "https://api.writer.com/v1"),
    ("xai", "https://api.x.ai/v1"),
    ("xiaomi", "https://api.xiaomimimo.com/v1"),
    ("zai", "https://api.z.ai/api/paas/v4"),
];

/// The base URL of a provider; `None` for one that is not known or has none of its own.
pub const fn base_url(provider: &str) -> Option<&'static str> {
    let mut at = 0;
    while at < BASE_URLS.len() {
        if same(BASE_URLS[at].0.as_bytes(), provider.as_bytes()) {
            return Some(BASE_URLS[at].1);
        }
        at += 1;
    }
    None
}

/// `==` can't be used in a `const fn`.
const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_finds_its_own_url() {
        for (id, url) in BASE_URLS {
            assert_eq!(base_url(id), Some(*url));
            assert!(url.starts_with("http") && !url.ends_with('/'), "{url}");
        }
        assert!(BASE_URLS.is_sorted());
        assert_eq!(base_url("nobody"), None);
        assert_eq!(base_url(""), None);
    }
}
