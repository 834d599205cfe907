//! Color, on a terminal and unless NO_COLOR is set. Used by tables and by the diff of `nemo apply`.

use std::io::{self, IsTerminal as _};

/// What a piece of text means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    #[default]
    Plain,
    Heading,
    Good,
    Bad,
    Change,
    Dim,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Heading => "1",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Change => "33",
            Self::Dim => "2",
        }
    }
}

/// The text for standard output, in color where that is wanted.
pub fn paint(text: &str, style: Style) -> String {
    painted(text, style, color())
}

/// <https://no-color.org>: set and not empty means no color.
fn color() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb") && io::stdout().is_terminal()
}

fn painted(text: &str, style: Style, color: bool) -> String {
    if !color || style == Style::Plain || text.is_empty() {
        return text.to_owned();
    }
    format!("\x1b[{}m{text}\x1b[0m", style.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn color_is_only_where_it_is_wanted() {
        assert_eq!(painted("ok", Style::Good, false), "ok");
        assert_eq!(painted("ok", Style::Plain, true), "ok");
        assert_eq!(painted("ok", Style::Good, true), "\x1b[32mok\x1b[0m");
    }
}
