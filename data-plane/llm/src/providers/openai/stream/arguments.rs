//! Whether the arguments of a call are complete. Chat streams don't say where a call ends, and may go on with an earlier
//! call after a later one has begun; clients of other dialects want one call closed before the next. A complete object
//! is the end of its call.

/// Follows the pieces of one JSON object.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    depth: u32,
    in_text: bool,
    escaped: bool,
}

impl Arguments {
    /// True once the outermost object is closed. What follows then is white space at most.
    pub(super) fn push(&mut self, piece: &str) -> bool {
        for byte in piece.bytes() {
            if self.in_text {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_text = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_text = true,
                b'{' | b'[' => self.depth = self.depth.saturating_add(1),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_ends_with_its_last_brace() {
        for (pieces, end) in [
            (&["{}"][..], 0),
            (&["{\"a", "\":\"}\\\"", "}\"", "}"], 3),
            (&["", " ", "{\"a\":[{}", "]}"], 3),
            (&["{\"a\":\"\\", "\"}\"", "}"], 2),
        ] {
            let mut arguments = Arguments::default();
            let ended = pieces.iter().position(|piece| arguments.push(piece));
            assert_eq!(ended, Some(end), "{pieces:?}");
        }
        for open in ["", "null", "{", "{\"}", "text"] {
            assert!(!Arguments::default().push(open), "{open}");
        }
    }
}
