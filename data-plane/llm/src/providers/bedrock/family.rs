//! Whose model it is. Converse is one API, but what it takes beyond plain chat differs by family. Called by
//! [`super::request`] and [`crate::inline`].

/// The makers of models whose abilities differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    Anthropic,
    /// Amazon's Nova.
    Nova,
    /// OpenAI's models with open weights.
    OpenAi,
    /// They take tools, but can't be told to call one.
    Meta,
    Cohere,
    Ai21,
    /// Everything else, and what an ARN doesn't tell.
    Other,
}

/// How the answer can be made to be JSON of a schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Structured {
    /// As a call of a function, which the model is made to call.
    ForcedTool,
    /// As a call of a function, which the model is asked to call.
    AskedTool,
    /// `outputConfig.textFormat`
    Native,
}

impl Family {
    /// Of a model id (`anthropic.claude-…`), an inference profile (`us.anthropic.claude-…`), or an ARN of either.
    pub(crate) fn of(model: &str) -> Self {
        let id = model.rsplit('/').next().unwrap_or(model);
        let maker = |name: &str| {
            id.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
                || id.split_once('.').is_some_and(|(_, rest)| {
                    rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
                })
        };
        let known = [
            ("anthropic", Self::Anthropic),
            ("openai", Self::OpenAi),
            ("meta", Self::Meta),
            ("cohere", Self::Cohere),
            ("ai21", Self::Ai21),
        ];
        if maker("amazon") && id.contains("nova") {
            return Self::Nova;
        }
        known.into_iter().find(|(name, _)| maker(name)).map_or(Self::Other, |(_, family)| family)
    }

    /// `toolChoice` other than `auto`.
    pub(super) fn can_force_tools(self) -> bool {
        !matches!(self, Self::Meta | Self::Cohere | Self::Ai21)
    }

    pub(super) fn structured(self) -> Structured {
        match self {
            Self::Anthropic | Self::Nova => Structured::ForcedTool,
            Self::Meta | Self::Cohere | Self::Ai21 => Structured::AskedTool,
            Self::OpenAi | Self::Other => Structured::Native,
        }
    }

    /// Marks where the provider is to cache the prompt up to.
    pub(super) fn caches(self) -> bool {
        matches!(self, Self::Anthropic | Self::Nova)
    }

    /// The same between tools.
    pub(super) fn caches_tools(self) -> bool {
        self == Self::Anthropic
    }

    /// Wants its own thoughts back, with their signature.
    pub(super) fn reads_thoughts(self) -> bool {
        matches!(self, Self::Anthropic | Self::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_told_by_the_id() {
        for (model, family) in [
            ("anthropic.claude-sonnet-4-5-20250929-v1:0", Family::Anthropic),
            ("us.anthropic.claude-haiku-4-5-20251001-v1:0", Family::Anthropic),
            ("arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude-opus-4-1", Family::Anthropic),
            ("amazon.nova-pro-v1:0", Family::Nova),
            ("apac.amazon.nova-lite-v1:0", Family::Nova),
            ("amazon.titan-text-premier-v1:0", Family::Other),
            ("meta.llama3-1-70b-instruct-v1:0", Family::Meta),
            ("us.meta.llama4-maverick-17b-instruct-v1:0", Family::Meta),
            ("openai.gpt-oss-120b-1:0", Family::OpenAi),
            ("mistral.mistral-large-2407-v1:0", Family::Other),
            ("arn:aws:bedrock:us-east-1:1:application-inference-profile/abc", Family::Other),
            ("metaphor.x", Family::Other),
            ("", Family::Other),
        ] {
            assert_eq!(Family::of(model), family, "{model}");
        }
    }
}
