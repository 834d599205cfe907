//! Where the providers are. The control plane fills a deployment's base URL in from here, and the data plane's
//! provider table takes it from here too.

/// Base URLs by provider id, without trailing slash, as the providers document them.
const BASE_URLS: &[(&str, &str)] = &[
    ("alibaba", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
    ("anthropic", "https://api.anthropic.com/v1"),
    ("cerebras", "https://api.cerebras.ai/v1"),
    ("cohere", "https://api.cohere.ai/compatibility/v1"),
    ("deepinfra", "https://api.deepinfra.com/v1/openai"),
    ("deepseek", "https://api.deepseek.com/v1"),
    ("fireworks", "https://api.fireworks.ai/inference/v1"),
    ("google-ai-studio", "https://generativelanguage.googleapis.com/v1beta/openai"),
    ("groq", "https://api.groq.com/openai/v1"),
    ("hyperbolic", "https://api.hyperbolic.xyz/v1"),
    ("mistral", "https://api.mistral.ai/v1"),
    ("moonshot", "https://api.moonshot.ai/v1"),
    ("nebius", "https://api.tokenfactory.nebius.com/v1"),
    ("novita", "https://api.novita.ai/openai/v1"),
    ("nvidia", "https://integrate.api.nvidia.com/v1"),
    ("ollama", "http://127.0.0.1:11434/v1"),
    ("openai", "https://api.openai.com/v1"),
    ("openrouter", "https://openrouter.ai/api/v1"),
    ("perplexity", "https://api.perplexity.ai"),
    ("sambanova", "https://api.sambanova.ai/v1"),
    ("together", "https://api.together.ai/v1"),
    ("xai", "https://api.x.ai/v1"),
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
