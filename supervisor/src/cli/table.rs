//! Text in columns.
//!
//! # Invariants
//!
//! - Every cell is escaped here, once; what is asked to be coloured is coloured after it was measured.
//! - A line never ends in blanks, so that the last column may be of any length.

use super::escape;
use super::screen::{Colours, Tone};

/// A cell: its text as it came, and what its colour says.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Option<Tone>,
    /// Characters that are shown at most.
    width_max: usize,
}

impl Cell {
    /// A cell that is cut where it is longer than `width_max`.
    pub(crate) fn cut(text: impl Into<String>, width_max: usize) -> Self {
        Self {
            text: text.into(),
            tone: None,
            width_max,
        }
    }

    /// A cell in a colour.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone: Some(tone),
            width_max: usize::MAX,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            tone: None,
            width_max: usize::MAX,
        }
    }
}

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        let headings = headings.map(|text| Cell::toned(text, Tone::Heading));
        Self {
            rows: vec![headings.into()],
        }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    /// The lines, with two blanks between columns.
    pub(crate) fn lines(&self, colours: Colours) -> Vec<String> {
        let shown: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                row.iter()
                    .map(|cell| escape::short(&cell.text, cell.width_max))
                    .collect()
            })
            .collect();
        let width_of = |column: usize| {
            let cells = shown.iter().filter_map(|row| row.get(column));
            cells.map(|text| text.chars().count()).max().unwrap_or(0)
        };
        let columns = shown.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width_of).collect();
        let mut lines = Vec::with_capacity(shown.len());
        for (row, texts) in self.rows.iter().zip(&shown) {
            let mut line = String::new();
            let mut blanks = 0;
            for ((cell, text), width) in row.iter().zip(texts).zip(&widths) {
                if !text.is_empty() {
                    line.extend(std::iter::repeat_n(' ', blanks));
                    blanks = 0;
                    match cell.tone {
                        Some(tone) => line.push_str(&colours.paint(tone, text)),
                        None => line.push_str(text),
                    }
                }
                blanks += width - text.chars().count() + 2;
            }
            lines.push(line);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let mut table = Table::new(["ID", "STATE", "COMMAND"]);
        table.row(["1".into(), "queued".into(), "".into()]);
        table.row(["22".into(), "".into(), "true".into()]);
        assert_eq!(
            table.lines(Colours::Off),
            ["ID  STATE   COMMAND", "1   queued", "22          true"]
        );
    }

    #[test]
    fn colours_do_not_move_columns_and_cells_are_escaped() {
        let mut table = Table::new(["A", "B"]);
        table.row([Cell::toned("x\x1b", Tone::Bad), "y".into()]);
        let lines = table.lines(Colours::On);
        assert_eq!(lines[1], "\x1b[31mx\\u{1b}\x1b[0m  y");
    }
}
