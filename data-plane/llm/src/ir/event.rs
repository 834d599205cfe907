//! What a stream tells, step by step. The order that every reader keeps and every writer may rely on:
//!
//! `Start`, then per choice any number of blocks, each `BlockStart`, `Delta`…, `BlockStop`, one `Finish` per choice, `Usage`
//! at any time (cumulative: the last one counts), and at the end `End` or `Error`. Blocks of a choice may be open at the
//! same time only where the upstream interleaves parallel tool calls.

use nemo_types::Usage;
use smallvec::SmallVec;

use super::{Citation, Finish, Json, Media, Text};
use crate::{ServiceTier, UpstreamErrorInfo};

/// What one event of an upstream becomes: mostly one or two.
pub type Events<'a> = SmallVec<[Event<'a>; 4]>;

#[derive(Clone, Debug)]
pub enum Event<'a> {
    Start {
        /// Empty where the upstream has none.
        id: Text<'a>,
        model: Text<'a>,
        /// Seconds since the epoch.
        created: Option<u64>,
        service_tier: ServiceTier,
    },
    BlockStart {
        choice: u32,
        /// Counts up from 0 within a choice, over all kinds of blocks.
        block: u32,
        kind: Block<'a>,
    },
    Delta {
        choice: u32,
        block: u32,
        delta: Delta<'a>,
    },
    BlockStop {
        choice: u32,
        block: u32,
    },
    /// OpenAI's shape, for what was written since the last one.
    Logprobs {
        choice: u32,
        logprobs: Json<'a>,
    },
    Finish {
        choice: u32,
        finish: Finish<'a>,
    },
    Usage(Usage),
    /// The upstream failed in the middle. Nothing follows.
    Error(UpstreamErrorInfo),
    /// The upstream says that the answer is complete. Nothing follows.
    End,
}

#[derive(Clone, Debug)]
pub enum Block<'a> {
    Text,
    Thinking {
        /// Of OpenAI's reasoning item; empty elsewhere.
        id: Text<'a>,
    },
    /// Whole: Anthropic's `redacted_thinking`, OpenAI's `encrypted_content`.
    Encrypted {
        data: Text<'a>,
        id: Text<'a>,
    },
    ToolCall {
        /// Empty where the upstream has none; the writer makes one up.
        id: Text<'a>,
        name: Text<'a>,
        custom: bool,
    },
    Refusal,
    /// Whole.
    Image(Media<'a>),
    Audio,
}

#[derive(Clone, Debug)]
pub enum Delta<'a> {
    Text(Text<'a>),
    Thinking(Text<'a>),
    /// Of a thinking block; of a text or a call it is Google's `thoughtSignature`. That of a call comes right after its
    /// `BlockStart`, before its arguments, so that a writer can put it into the id of the call.
    Signature(Text<'a>),
    /// A piece of the JSON text.
    Arguments(Text<'a>),
    Refusal(Text<'a>),
    Citation(Citation<'a>),
    /// Base64, or a transcript, as OpenAI's `delta.audio` has it.
    Audio(Json<'a>),
}
