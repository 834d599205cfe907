//! Aligned columns.

use crate::console;

pub(super) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(head: [&str; N]) -> Self {
        Self { rows: vec![head.map(str::to_owned)] }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    pub(super) fn print(&self) {
        self.lines().for_each(console::result);
    }

    fn lines(&self) -> impl Iterator<Item = String> {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        self.rows.iter().map(move |row| {
            let cells: Vec<_> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            cells.join("  ").trim_end().to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["A", "B", "C"]);
        table.row(["long".into(), "é".into(), String::new()]);
        table.row(["x".into(), "yy".into(), "z".into()]);
        assert_eq!(table.lines().collect::<Vec<_>>(), ["A     B   C", "long  é", "x     yy  z"]);
    }
}
