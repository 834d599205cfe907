//! How hard a model of OpenAI's is to think, in a word that it knows: each generation takes other ones and answers 400 to
//! the rest. Called by the writers of Chat Completions and of Responses.

use crate::ir::Effort;

/// The word that comes nearest, for a model that reasons.
pub(in super::super) fn word(effort: Effort, model: &str) -> &'static str {
    let model = model.rsplit('/').next().unwrap_or(model);
    let generation = Generation::of(model);
    let (least, most) = range(generation, model);
    match effort.clamp(least, most) {
        // Only the first of them has it.
        Effort::Minimal if generation != Generation::Gpt5 => name(Effort::Low),
        effort => name(effort),
    }
}

/// In OpenAI's words, whether a model knows them or not.
pub(in super::super) fn name(effort: Effort) -> &'static str {
    match effort {
        Effort::None => "none",
        Effort::Minimal => "minimal",
        Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
        Effort::Max => "xhigh",
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Generation {
    /// o1 to o4
    O,
    Gpt5,
    Gpt5_1,
    Later,
}

impl Generation {
    fn of(model: &str) -> Self {
        if model == "gpt-5" || model.starts_with("gpt-5-") {
            Self::Gpt5
        } else if model == "gpt-5.1" || model.starts_with("gpt-5.1-") {
            Self::Gpt5_1
        } else if model.starts_with("gpt-") {
            Self::Later
        } else {
            Self::O
        }
    }
}

/// The least and the most that it can think.
fn range(generation: Generation, model: &str) -> (Effort, Effort) {
    let (least, most) = match generation {
        Generation::O => (Effort::Low, Effort::High),
        Generation::Gpt5 => (Effort::Minimal, Effort::High),
        Generation::Gpt5_1 if model.contains("-codex-max") => (Effort::Low, Effort::Max),
        Generation::Gpt5_1 => (Effort::None, Effort::High),
        Generation::Later => (Effort::None, Effort::Max),
    };
    // Of some it is the point that they think.
    let least = match generation {
        Generation::Gpt5 if model.contains("-pro") => Effort::High,
        _ if model.contains("-pro") => Effort::Medium.max(least),
        _ if model.contains("-codex") || model.contains("-astra") => Effort::Low.max(least),
        _ => least,
    };
    (least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_is_asked_in_a_word_that_it_knows() {
        use Effort::{High, Low, Max, Medium, Minimal, None};
        // As the models list them when they refuse a word.
        for (model, words) in [
            ("o3-mini", ["low", "low", "low", "medium", "high", "high"]),
            ("gpt-5", ["minimal", "minimal", "low", "medium", "high", "high"]),
            ("openai/gpt-5-mini-2025-08-07", ["minimal", "minimal", "low", "medium", "high", "high"]),
            ("gpt-5-codex", ["low", "low", "low", "medium", "high", "high"]),
            ("gpt-5-pro", ["high", "high", "high", "high", "high", "high"]),
            ("gpt-5.1", ["none", "low", "low", "medium", "high", "high"]),
            ("gpt-5.1-codex", ["low", "low", "low", "medium", "high", "high"]),
            ("gpt-5.1-codex-max", ["low", "low", "low", "medium", "high", "xhigh"]),
            ("gpt-5.2", ["none", "low", "low", "medium", "high", "xhigh"]),
            ("gpt-5.2-pro", ["medium", "medium", "medium", "medium", "high", "xhigh"]),
            ("gpt-6-luna", ["none", "low", "low", "medium", "high", "xhigh"]),
            ("gpt-6-astra", ["low", "low", "low", "medium", "high", "xhigh"]),
        ] {
            let said = [None, Minimal, Low, Medium, High, Max].map(|effort| word(effort, model));
            assert_eq!(said, words, "{model}");
        }
    }
}
