//! What a Claude takes, by its version: newer ones refuse what older ones need. Used by [`super::request`]; the name may
//! be Anthropic's (`claude-sonnet-4-5-20250929`), Vertex's (`…@20250929`) or Bedrock's (`us.anthropic.claude-…-v1:0`).

/// A model, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claude {
    /// Major and minor; `None`: the name has none, so that nothing newer than version 4 can be taken for granted.
    version: Option<(u8, u8)>,
    /// Cannot be told not to think.
    always_thinks: bool,
}

impl Claude {
    pub(crate) fn of(model: &str) -> Self {
        let name = model.rsplit('/').next().unwrap_or(model);
        let always_thinks = name.contains("mythos") || name.contains("fable");
        let words = name.split(['-', '.', '@', ':', '_']);
        let mut words =
            words.skip_while(|word| *word != "claude").skip(1).skip_while(|it| number(it).is_none());
        let major = words.next().and_then(number);
        let minor = words.next().and_then(number);
        let preview = (always_thinks && major.is_none()).then_some((5, 0));
        Self { version: major.map(|major| (major, minor.unwrap_or(0))).or(preview), always_thinks }
    }

    fn since(self, version: (u8, u8)) -> bool {
        self.version.is_some_and(|own| own >= version)
    }

    /// Can think at all.
    pub(crate) fn thinks(self) -> bool {
        self.version.is_none_or(|own| own >= (3, 7))
    }

    /// Takes `thinking.budget_tokens`.
    pub(crate) fn takes_budget(self) -> bool {
        !self.since((4, 7))
    }

    /// Takes `thinking.type: adaptive` with `output_config.effort`.
    pub(crate) fn adapts(self) -> bool {
        self.since((4, 6))
    }

    /// Thinks without being told to.
    pub(crate) fn thinks_by_itself(self) -> bool {
        self.since((5, 0))
    }

    pub(crate) fn can_stop_thinking(self) -> bool {
        !self.always_thinks
    }

    /// Takes `temperature`, `top_p` and `top_k`.
    pub(crate) fn samples(self) -> bool {
        !self.since((4, 7))
    }

    /// Takes only one of `temperature` and `top_p`.
    pub(crate) fn samples_by_one(self) -> bool {
        self.since((4, 1))
    }

    /// On Bedrock: takes PDFs that are larger than other documents may be.
    pub(crate) fn reads_large_pdfs(self) -> bool {
        self.since((4, 0))
    }

    /// Holds to schemas: `output_config.format` and strict tools. `hosted`: on Vertex, which came later to it.
    pub(crate) fn holds_schemas(self, hosted: bool) -> bool {
        self.since(if hosted { (4, 6) } else { (4, 5) })
    }
}

/// A part of a version, which a date is not.
fn number(word: &str) -> Option<u8> {
    if word.len() <= 2 { word.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_every_form_of_name() {
        for (name, version) in [
            ("claude-3-5-sonnet-20241022", Some((3, 5))),
            ("claude-3-opus-20240229", Some((3, 0))),
            ("claude-sonnet-4-20250514", Some((4, 0))),
            ("claude-sonnet-4-5@20250929", Some((4, 5))),
            ("us.anthropic.claude-opus-4-6-v1", Some((4, 6))),
            ("anthropic/claude-opus-4.7", Some((4, 7))),
            ("claude-haiku-5-5", Some((5, 5))),
            ("claude-opus-5", Some((5, 0))),
            ("claude-mythos-preview", Some((5, 0))),
            ("claude-latest", None),
            ("my-model-4-7", None),
        ] {
            assert_eq!(Claude::of(name).version, version, "{name}");
        }
    }

    #[test]
    fn each_generation_takes_its_own_form_of_thinking() {
        let of = Claude::of;
        assert!(!of("claude-3-5-haiku-latest").thinks());
        assert!(of("claude-sonnet-4-5").takes_budget() && !of("claude-sonnet-4-5").adapts());
        assert!(of("claude-opus-4-6").takes_budget() && of("claude-opus-4-6").adapts());
        assert!(!of("claude-opus-4-7").takes_budget() && of("claude-opus-4-7").adapts());
        assert!(of("claude-opus-5").thinks_by_itself() && !of("claude-opus-4-8").thinks_by_itself());
        assert!(!of("claude-fable-5-1").can_stop_thinking());
        assert!(
            of("unknown").takes_budget() && of("unknown").samples() && !of("unknown").holds_schemas(false)
        );
    }
}
