//! The tools that a provider ran for a response, counted from what it put out: they are billed by the call, and no count of
//! them is reported. Called by [`super::units`].

use nemo_types::{Measure, Unit};
use smallvec::SmallVec;

use super::{text, units::member};
use crate::json::Value;

/// Containers of one response that are told apart; who uses more is billed for each call.
const MAX_CONTAINERS: usize = 16;

/// How often each tool was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tools {
    web_searches: u64,
    file_searches: u64,
    code_sessions: u64,
}

impl Tools {
    /// Counts the items of a response's `output`.
    pub(super) fn used(document: &[u8], output: &Value) -> Self {
        let mut used = Self::default();
        let mut containers: SmallVec<[&[u8]; 4]> = SmallVec::new();
        text::for_each_object(document, output, |item| {
            let Some(kind) = member(document, item, b"type") else { return };
            match kind.inner(document) {
                b"web_search_call" if is_search(document, item) => used.web_searches += 1,
                b"file_search_call" => used.file_searches += 1,
                b"code_interpreter_call" => {
                    let container = member(document, item, b"container_id");
                    let container = container.map(|id| id.raw(document));
                    if container.is_some_and(|id| containers.contains(&id)) {
                        return;
                    }
                    used.code_sessions += 1;
                    containers.extend(container.filter(|_| containers.len() < MAX_CONTAINERS));
                }
                _ => {}
            }
        });
        used
    }

    pub(super) fn measures(self) -> impl Iterator<Item = Measure> {
        let counts = [
            (Unit::WebSearches, self.web_searches),
            (Unit::FileSearches, self.file_searches),
            (Unit::CodeSessions, self.code_sessions),
        ];
        counts.into_iter().filter(|(_, count)| *count > 0).map(|(unit, count)| Measure::new(unit, count))
    }
}

/// Pages that were opened, and texts that were looked for in them, are not billed.
fn is_search(document: &[u8], item: &Value) -> bool {
    let action = member(document, item, b"action").and_then(|action| member(document, &action, b"type"));
    action.is_none_or(|kind| kind.inner(document) == b"search")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::Cursor;

    #[test]
    fn searches_and_containers_are_counted_as_they_are_billed() {
        let output = r#"[{"type":"reasoning"},
            {"type":"web_search_call","id":"ws_1","status":"completed","action":{"type":"search","query":"x"}},
            {"type":"web_search_call","id":"ws_2","action":{"type":"open_page","url":"x"}},
            {"type":"web_search_call","id":"ws_3"},
            {"type":"file_search_call"},
            {"type":"code_interpreter_call","container_id":"cntr_1"},
            {"type":"code_interpreter_call","container_id":"cntr_1"},
            {"type":"code_interpreter_call","container_id":"cntr_2"},
            {"type":"function_call"}, null, 7]"#;
        let value = Cursor::new(output.as_bytes(), 0).value(0).unwrap();
        let used = Tools::used(output.as_bytes(), &value);
        assert_eq!(used, Tools { web_searches: 2, file_searches: 1, code_sessions: 2 });
        assert_eq!(used.measures().count(), 3);
        assert_eq!(Tools::default().measures().count(), 0, "a tool that was not used is no measure");
    }
}
