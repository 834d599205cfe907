//! Aligned columns that fit the terminal. Used by every command that lists.

use crate::console::{self, Style};

/// Space between columns.
const GAP: usize = 2;
/// A column that has to give way keeps at least this.
const NARROWEST: usize = 8;

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    title: &'static str,
    right: bool,
    /// May be cut with `…` where the terminal is narrow.
    flexible: bool,
}

impl Column {
    pub(super) const fn text(title: &'static str) -> Self {
        Self { title, right: false, flexible: true }
    }

    /// For what is of no use when cut: ids, times.
    pub(super) const fn whole(title: &'static str) -> Self {
        Self { title, right: false, flexible: false }
    }

    pub(super) const fn title(self) -> &'static str {
        self.title
    }

    pub(super) const fn number(title: &'static str) -> Self {
        Self { title, right: true, flexible: false }
    }
}

/// A cell: text, and what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }

    /// Words like `active` and `disabled` in the color of what they mean.
    pub(super) fn state(text: &str) -> Self {
        let style = match text {
            "active" | "ok" | "enabled" | "connected" => Style::Good,
            "disabled" | "error" | "expired" | "interrupted" | "disconnected" => Style::Bad,
            "cancelled" => Style::Change,
            _ => Style::Plain,
        };
        Self::styled(text, style)
    }

    pub(super) fn enabled(disabled: bool) -> Self {
        Self::state(if disabled { "disabled" } else { "enabled" })
    }

    /// Unknown is not zero.
    pub(super) fn count(count: Option<impl ToString>) -> Self {
        count.map_or_else(|| Self::styled("?", Style::Dim), |count| Self::from(count.to_string()))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, style: Style::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    pub(super) fn print(&self) {
        self.lines(console::width()).into_iter().for_each(console::result);
    }

    fn lines(&self, terminal: Option<usize>) -> Vec<String> {
        let widths = self.widths(terminal);
        let heading: Vec<_> =
            self.columns.iter().map(|column| Cell::styled(column.title, Style::Heading)).collect();
        std::iter::once(&heading).chain(&self.rows).map(|row| line(&self.columns, &widths, row)).collect()
    }

    /// As wide as the widest cell; where the terminal is narrower, the widest flexible columns give way.
    fn widths(&self, terminal: Option<usize>) -> Vec<usize> {
        let widest = |(at, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.text.chars().count());
            cells.max().unwrap_or(0).max(column.title.chars().count())
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(widest).collect();
        let Some(terminal) = terminal else { return widths };
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > terminal {
            let flexible = |at: &usize| self.columns[*at].flexible && widths[*at] > NARROWEST;
            let Some(at) = (0..widths.len()).filter(flexible).max_by_key(|at| widths[*at]) else { break };
            widths[at] -= 1;
        }
        widths
    }
}

/// One line of a table that grows while it is shown, with widths that were fixed before.
pub(super) fn line(columns: &[Column], widths: &[usize], row: &[Cell]) -> String {
    let mut text = String::new();
    for (at, ((column, width), cell)) in columns.iter().zip(widths).zip(row).enumerate() {
        let shown = cut(&cell.text, *width);
        let padding = " ".repeat(width.saturating_sub(shown.chars().count()));
        let painted = console::paint(&shown, cell.style);
        if at > 0 {
            text.push_str(&" ".repeat(GAP));
        }
        let (before, after) = if column.right { (padding.as_str(), "") } else { ("", padding.as_str()) };
        text.extend([before, &painted, after]);
    }
    text.truncate(text.trim_end().len());
    text
}

/// At most `width` characters, the last one `…` when something is missing. No control characters: what comes from
/// outside must not steer the terminal.
fn cut(text: &str, width: usize) -> String {
    let clean = |c: char| if c.is_control() { '·' } else { c };
    if text.chars().count() <= width {
        return text.chars().map(clean).collect();
    }
    text.chars().take(width.saturating_sub(1)).map(clean).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[Column::text("A"), Column::number("B"), Column::whole("C")]);
        table.row(vec!["long".into(), "é".into(), "".into()]);
        table.row(vec!["x".into(), "yy".into(), "z".into()]);
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_numbers_are_right() {
        assert_eq!(table().lines(None), ["A      B  C", "long   é", "x     yy  z"]);
    }

    #[test]
    fn a_narrow_terminal_cuts_flexible_columns_only() {
        let mut table = Table::new(&[Column::text("NAME"), Column::whole("ID")]);
        table.row(vec!["a-name-that-is-long".into(), "0123456789".into()]);
        assert_eq!(table.lines(Some(22))[1], "a-name-th…  0123456789");
        assert_eq!(table.lines(Some(5))[1], "a-name-…  0123456789");
        assert_eq!(table.lines(None)[1], "a-name-that-is-long  0123456789");
    }

    #[test]
    fn nothing_from_outside_steers_the_terminal() {
        let mut table = Table::new(&[Column::text("NAME")]);
        table.row(vec!["a\x1b[31mb\n".into()]);
        assert_eq!(table.lines(None)[1], "a·[31mb·");
    }
}
