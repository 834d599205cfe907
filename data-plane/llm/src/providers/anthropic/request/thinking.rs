//! How much Claude is to think, in the form that its version takes, and what thinking rules out: other temperatures than
//! 1, and tools that must be called.

use super::{
    super::{claude::Claude, writer::Object},
    encode::Dropped,
    messages::Conversation,
    tools::Tools,
};
use crate::ir::{Effort, Param, Reasoning, Request};

/// Least that Claude takes.
const LEAST_BUDGET: u64 = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thinking {
    /// As the model does by itself.
    Unsaid,
    Off,
    Budget(u64),
    Adaptive {
        effort: Option<Effort>,
        visible: bool,
    },
}

impl Thinking {
    pub(super) fn is_on(self, claude: Claude) -> bool {
        match self {
            Self::Unsaid => claude.thinks_by_itself(),
            Self::Off => false,
            Self::Budget(_) | Self::Adaptive { .. } => true,
        }
    }

    pub(super) fn write(self, body: &mut Object<'_>) {
        if self == Self::Unsaid {
            return;
        }
        let mut thinking = Object::open(body.member("thinking"));
        match self {
            Self::Unsaid | Self::Off => thinking.value("type", "disabled"),
            Self::Budget(tokens) => {
                thinking.value("type", "enabled");
                thinking.value("budget_tokens", tokens);
            }
            Self::Adaptive { visible, .. } => {
                thinking.value("type", "adaptive");
                // Newer models leave the text out unless asked.
                thinking.value("display", if visible { "summarized" } else { "omitted" });
            }
        }
        thinking.close();
    }
}

/// Whether thoughts are asked for: not when only their display is forbidden.
fn is_wanted(reasoning: &Reasoning) -> bool {
    !is_off(reasoning)
        && (reasoning.budget.is_some()
            || reasoning.effort.is_some()
            || reasoning.adaptive
            || reasoning.visible == Some(true))
}

fn is_off(reasoning: &Reasoning) -> bool {
    match reasoning.budget {
        Some(budget) => budget == 0,
        None => reasoning.effort == Some(Effort::None),
    }
}

/// Tokens of thought that are asked for, however they are asked for.
pub(super) fn wanted_budget(request: &Request<'_>) -> Option<u64> {
    let reasoning = request.reasoning.as_ref().filter(|it| is_wanted(it))?;
    let effort = reasoning.effort.unwrap_or(Effort::Medium);
    Some(reasoning.budget.unwrap_or_else(|| effort.budget()).max(LEAST_BUDGET))
}

pub(super) fn decide(
    request: &Request<'_>,
    claude: Claude,
    conversation: &Conversation<'_, '_>,
    tools: &mut Tools<'_, '_>,
    max_tokens: u64,
    dropped: &mut Dropped,
) -> Thinking {
    let reasoning = request.reasoning.unwrap_or_default();
    let wanted = is_wanted(&reasoning);
    if !claude.thinks() {
        dropped.add_if(wanted, Param::Reasoning);
        return Thinking::Unsaid;
    }
    // A model that thinks may not be forced to call: the call is what the client relies on, thoughts are not.
    if is_off(&reasoning) || tools.must_be_called() {
        dropped.add_if(wanted, Param::Reasoning);
        if !claude.thinks_by_itself() {
            return Thinking::Unsaid;
        }
        if claude.can_stop_thinking() {
            return Thinking::Off;
        }
        dropped.add_if(is_off(&reasoning), Param::Reasoning);
        if tools.must_be_called() {
            tools.only_may_be_called();
            dropped.add(Param::ToolChoice);
        }
        return Thinking::Unsaid;
    }
    if !wanted {
        return Thinking::Unsaid;
    }
    if claude.adapts() && (reasoning.budget.is_none() || !claude.takes_budget()) {
        let effort = reasoning.effort.or(reasoning.budget.map(Effort::from_budget));
        return Thinking::Adaptive { effort, visible: reasoning.visible != Some(false) };
    }
    // In the middle of a round of calls Claude wants to see what it thought before them.
    let budget = wanted_budget(request).and_then(|budget| fitting(budget, max_tokens));
    match budget.filter(|_| !conversation.lacks_thoughts()) {
        Some(budget) => {
            // It always shows them.
            dropped.add_if(reasoning.visible == Some(false), Param::Reasoning);
            Thinking::Budget(budget)
        }
        None => {
            dropped.add(Param::Reasoning);
            Thinking::Unsaid
        }
    }
}

/// Below the limit of the whole answer, with some of it left for what is said.
fn fitting(budget: u64, max_tokens: u64) -> Option<u64> {
    let fitting = if budget < max_tokens { budget } else { max_tokens / 5 * 4 };
    let budget = fitting.max(LEAST_BUDGET);
    (budget < max_tokens).then_some(budget)
}

pub(super) fn effort_name(effort: Effort) -> &'static str {
    match effort {
        Effort::None | Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
        Effort::Max => "max",
    }
}

/// Writes what the model takes; a value that it would use by itself is none to report.
pub(super) fn write_sampling(
    body: &mut Object<'_>,
    request: &Request<'_>,
    claude: Claude,
    thinks: bool,
    dropped: &mut Dropped,
) {
    let is_default = |value: &f64| (value - 1.0).abs() < f64::EPSILON;
    let mut temperature = request.sampling.temperature.filter(|it| !is_default(it));
    let mut top_p = request.sampling.top_p.filter(|it| !is_default(it));
    let mut top_k = request.sampling.top_k;
    let mut without = |is_said: bool, param| dropped.add_if(is_said, param);
    if thinks || !claude.samples() {
        without(temperature.take().is_some(), Param::Temperature);
        without(top_k.take().is_some(), Param::TopK);
        // Thinking leaves a little room here.
        let fits = claude.samples() && top_p.is_some_and(|it| (0.95..1.0).contains(&it));
        without(!fits && top_p.is_some(), Param::TopP);
        top_p = top_p.filter(|_| fits);
    }
    if temperature.is_some() && claude.samples_by_one() {
        without(top_p.take().is_some(), Param::TopP);
    }
    // Elsewhere it goes up to 2.
    let hot = temperature.is_some_and(|it| it > 1.0);
    without(hot, Param::Temperature);
    if let Some(temperature) = temperature.filter(|_| !hot) {
        body.value("temperature", temperature);
    }
    if let Some(top_p) = top_p {
        body.value("top_p", top_p);
    }
    if let Some(top_k) = top_k {
        body.value("top_k", top_k);
    }
}
