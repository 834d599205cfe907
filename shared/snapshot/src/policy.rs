//! What a key may do and what its requests carry by default. Most keys of an installation have one of a few policies,
//! so equal ones are held once ([`crate::Tenancy`] interns them by [`KeyPolicy::digest`]).

use std::net::IpAddr;

use ipnet::IpNet;
use nemo_proto::config::ApiKey;
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_128;

/// Limits and defaults of one or many keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KeyPolicy {
    pub(crate) digest: u128,
    pub allowed_models: Allowed,
    /// By label, `chat.completions` and so on.
    pub allowed_endpoints: Allowed,
    /// Where requests may come from; empty: from everywhere.
    pub allowed_cidrs: Box<[IpNet]>,
    /// Capability tags of requests that name none.
    pub default_tags: Box<[Box<str>]>,
    /// A JSON object as it was given; empty: none.
    pub metadata: Box<str>,
}

impl KeyPolicy {
    /// Equal policies have equal digests; 0 is that of the policy that limits nothing.
    pub(crate) fn digest(key: &ApiKey) -> u128 {
        let limits = ApiKey {
            allowed_models: key.allowed_models.clone(),
            allowed_endpoints: key.allowed_endpoints.clone(),
            allowed_cidrs: key.allowed_cidrs.clone(),
            default_tags: key.default_tags.clone(),
            metadata: key.metadata.clone(),
            ..ApiKey::default()
        };
        match limits.encode_to_vec().as_slice() {
            [] => 0,
            encoded => xxh3_128(encoded),
        }
    }

    /// # Errors
    /// The field that can't be understood.
    pub(crate) fn compile(key: &ApiKey, digest: u128) -> Result<Self, (&'static str, String)> {
        let network = |text: &String| {
            text.parse::<IpNet>().map_err(|_| ("allowed_cidrs", format!("{text:?} is no network")))
        };
        Ok(Self {
            digest,
            allowed_models: Allowed::new(&key.allowed_models),
            allowed_endpoints: Allowed::new(&key.allowed_endpoints),
            allowed_cidrs: key.allowed_cidrs.iter().map(network).collect::<Result<_, _>>()?,
            default_tags: key.default_tags.iter().map(|tag| tag.as_str().into()).collect(),
            metadata: key.metadata.as_str().into(),
        })
    }

    /// Whether a client at this address may use the key. An IPv4 address in IPv6 clothes is the IPv4 address.
    pub fn permits_client(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        self.allowed_cidrs.is_empty() || self.allowed_cidrs.iter().any(|network| network.contains(&client))
    }
}

/// Names that are allowed: all, or those that match one of some patterns.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Allowed {
    #[default]
    All,
    /// Exact names, and patterns in which `*` stands for any characters.
    Only(Box<[Box<str>]>),
}

impl Allowed {
    pub fn new(patterns: &[String]) -> Self {
        if patterns.is_empty() {
            return Self::All;
        }
        Self::Only(patterns.iter().map(|pattern| pattern.as_str().into()).collect())
    }

    pub fn permits(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(patterns) => patterns.iter().any(|pattern| glob(pattern, name)),
        }
    }

    /// For models: `requested` is what the client sent, `resolved` the group's own name. Either may be listed.
    pub fn permit(&self, requested: &str, resolved: &str) -> bool {
        self.permits(requested) || self.permits(resolved)
    }
}

/// Whether `text` matches `pattern`. Goes back to the last star only, so the work is at most the product of the two.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(byte) if *byte == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, t) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(patterns: &[&str]) -> Allowed {
        Allowed::new(&patterns.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn allowed_models_match_names_and_patterns_but_no_lookalikes() {
        let allowed = only(&["gpt-5.2", "groq/*", "*-mini", "a*b*c"]);
        for (requested, resolved) in [
            ("gpt-5.2", "gpt-5.2"),
            ("openai/gpt-5.2", "gpt-5.2"),
            ("groq/llama-4", "llama-4"),
            ("gpt-5-mini", "gpt-5-mini"),
            ("axxbyybzc", "x"),
            ("abc", "x"),
        ] {
            assert!(allowed.permit(requested, resolved), "{requested} {resolved}");
        }
        for name in ["groqqy/llama-4", "groq", "gpt-5.2-pro", "gpt-5x2", "gpt-5-mini-2", "ab", "xabc", ""] {
            assert!(!allowed.permit(name, name), "{name}");
        }
        assert!(only(&[]).permits("anything") && only(&["*"]).permits(""));
    }

    #[test]
    fn clients_are_matched_by_network_in_both_families() {
        let key = ApiKey {
            allowed_cidrs: vec!["10.1.0.0/16".into(), "2001:db8::/32".into(), "192.0.2.7/32".into()],
            ..ApiKey::default()
        };
        let policy = KeyPolicy::compile(&key, 1).unwrap();
        for (client, permitted) in [
            ("10.1.255.1", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:1::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(policy.permits_client(client.parse().unwrap()), permitted, "{client}");
        }
        assert!(KeyPolicy::default().permits_client("203.0.113.1".parse().unwrap()));
        let wrong = ApiKey { allowed_cidrs: vec!["10.0.0.0/33".into()], ..ApiKey::default() };
        assert_eq!(KeyPolicy::compile(&wrong, 1).unwrap_err().0, "allowed_cidrs");
    }

    #[test]
    fn only_what_limits_counts_for_the_digest() {
        let (one, other) = (
            ApiKey { name: "a".into(), ..ApiKey::default() },
            ApiKey { name: "b".into(), ..ApiKey::default() },
        );
        assert_eq!((KeyPolicy::digest(&one), KeyPolicy::digest(&other)), (0, 0));
        let models = ApiKey { allowed_models: vec!["m".into()], ..one.clone() };
        let endpoints = ApiKey { allowed_endpoints: vec!["m".into()], ..one };
        assert_ne!(KeyPolicy::digest(&models), KeyPolicy::digest(&endpoints));
    }
}
