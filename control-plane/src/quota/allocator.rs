//! How large a slice is. Pure.
//!
//! While there is plenty, a slice is what the node wants, bounded so that a few nodes can't take all: half of what is
//! left, divided by the nodes that use it. It lasts the node through an outage of the control plane, if the budget is
//! large enough. Near the end, slices shrink to what single requests need, with a short time to live, and idle slices
//! are called back, so that what is left can be used to the last cent by whoever needs it. The rest that is too little for
//! the largest request goes to who has a smaller one, or one whose answer can be cut short.

use super::{books::WindowRow, settings::Settings};

/// Time to live of a slice near the end: a node that dies with it must not lock it for long.
const ENDGAME_TTL_MS: u32 = 60_000;
/// Until a node should ask again, when something may come back.
pub const RETRY_MS: u32 = 50;
/// A slice that is given unasked is not worth the row below a hundredth of a cent.
const LEAST_STANDBY: i64 = 100_000;
/// A budget has at least so many slices per node that uses it before its end begins.
const SLICES: i64 = 50;

/// What a node asks for. Nano-USD.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Beyond what it has.
    pub wants: i64,
    /// The largest request that waits; 0: none does.
    pub needs: i64,
    /// The smallest grant that is of use to a request that waits: another one is smaller, or the answer can be cut short.
    pub least: i64,
    /// Per second, lately.
    pub spend_rate: i64,
    /// What it has not spent, as far as is known.
    pub held: i64,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    Grant {
        nanos: i64,
        ttl_ms: u32,
        /// Near the end.
        endgame: bool,
    },
    /// Nothing, or nothing of use.
    Nothing,
}

/// Decides what `ask` gets of `window`, whose `users` count the asking node.
pub fn slice(window: &WindowRow, ask: Ask, settings: &Settings) -> Slice {
    let left = window.headroom();
    let users = i64::from(window.users.max(1));
    let (wants, needs) = (ask.wants.max(0), ask.needs.max(0));
    let least = ask.least.clamp(needs.min(1), needs);
    if left == 0 || (wants == 0 && needs == 0) || least > left {
        return Slice::Nothing;
    }
    // Small budgets have small slices.
    let min_slice = settings.min_slice.0.min(window.limit / (SLICES * users)).max(1);
    let share = left / (2 * users);
    if share < min_slice {
        // Near the end. Who has no request waiting can do without. The last of it is for who can use a part: it stays
        // with nobody otherwise, and may be worth many short answers.
        if needs == 0 {
            return Slice::Nothing;
        }
        let nanos = needs.max(wants.min(share)).min(left);
        return Slice::Grant { nanos, ttl_ms: ENDGAME_TTL_MS.min(settings.ttl_ms()), endgame: true };
    }
    let outage = ask.spend_rate.max(0).saturating_mul(i64::from(settings.outage_minutes) * 60);
    let target = wants.max(outage.saturating_sub(ask.held.max(0))).max(min_slice);
    // A single request may need more than a share. Where there is less than the largest needs, the part is for others, or
    // for an answer that is cut short (`over_budget: cap`).
    let whole = if needs > left { least } else { needs };
    let nanos = target.min(settings.max_slice.0).min(share).max(whole);
    Slice::Grant { nanos, ttl_ms: settings.ttl_ms(), endgame: false }
}

/// What a node gets unasked, so that its first request need not wait; 0: nothing. `nodes` live.
pub fn standby(window: &WindowRow, nodes: u32, settings: &Settings) -> i64 {
    let nodes = i64::from(nodes.max(1));
    let slice = settings.min_slice.0.min(window.headroom() / (4 * nodes));
    // Half of a budget at most, all nodes together.
    let slice = slice.min(window.limit / (2 * nodes));
    if slice < LEAST_STANDBY { 0 } else { slice }
}

#[cfg(test)]
mod tests;
