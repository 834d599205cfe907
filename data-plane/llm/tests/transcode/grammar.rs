//! The order of events that `ir::Event` promises, as a little machine. A reader that breaks it breaks some writer.

use std::collections::{BTreeMap, BTreeSet};

use nemo_llm::ir::{Block, Delta, Event};

#[derive(Default)]
pub struct Grammar {
    started: bool,
    ended: bool,
    finished: BTreeSet<u32>,
    /// The next block of each choice.
    next: BTreeMap<u32, u32>,
    open: BTreeMap<(u32, u32), Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    Encrypted,
    ToolCall,
    Refusal,
    Image,
    Audio,
}

impl Kind {
    fn of(block: &Block<'_>) -> Self {
        match block {
            Block::Text => Self::Text,
            Block::Thinking { .. } => Self::Thinking,
            Block::Encrypted { .. } => Self::Encrypted,
            Block::ToolCall { .. } => Self::ToolCall,
            Block::Refusal => Self::Refusal,
            Block::Image(_) => Self::Image,
            Block::Audio => Self::Audio,
        }
    }

    fn takes(self, delta: &Delta<'_>) -> bool {
        match delta {
            Delta::Text(_) | Delta::Citation(_) => self == Self::Text,
            Delta::Thinking(_) => self == Self::Thinking,
            Delta::Signature(_) => true,
            Delta::Arguments(_) => self == Self::ToolCall,
            Delta::Refusal(_) => self == Self::Refusal,
            Delta::Audio(_) => self == Self::Audio,
        }
    }
}

impl Grammar {
    pub fn ended(&self) -> bool {
        self.ended
    }

    pub fn check(&mut self, event: &Event<'_>) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{what}: {event:?}"));
        if self.ended {
            return wrong("something follows the end");
        }
        if !self.started && !matches!(event, Event::Start { .. } | Event::Error(_)) {
            return wrong("something comes before the start");
        }
        match event {
            Event::Start { .. } if std::mem::replace(&mut self.started, true) => {
                return wrong("a second start");
            }
            Event::BlockStart { choice, block, kind } => {
                let next = self.next.entry(*choice).or_default();
                if *block != *next {
                    return wrong("a block out of order");
                }
                *next += 1;
                if self.finished.contains(choice) {
                    return wrong("a block after the finish");
                }
                let (kind, calls) = (Kind::of(kind), |kind| kind == Kind::ToolCall);
                let others = self.open.iter().filter(|((of, _), _)| of == choice);
                if !others.clone().all(|(_, other)| calls(*other) && calls(kind)) {
                    return wrong("a block within a block");
                }
                self.open.insert((*choice, *block), kind);
            }
            Event::Delta { choice, block, delta } => match self.open.get(&(*choice, *block)) {
                None => return wrong("a piece of no block"),
                Some(kind) if !kind.takes(delta) => return wrong("a piece of another kind of block"),
                Some(_) => {}
            },
            Event::BlockStop { choice, block } if self.open.remove(&(*choice, *block)).is_none() => {
                return wrong("an end of no block");
            }
            Event::Finish { choice, .. } => {
                if self.open.keys().any(|(of, _)| of == choice) {
                    return wrong("a finish within a block");
                }
                if !self.finished.insert(*choice) {
                    return wrong("a second finish");
                }
            }
            Event::End => {
                if !self.open.is_empty() {
                    return wrong("an end within a block");
                }
                self.ended = true;
            }
            _ => {}
        }
        Ok(())
    }
}
