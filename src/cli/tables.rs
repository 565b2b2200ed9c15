//! Tables in the width of the terminal.
//!
//! A pipe or a file gets every column and every row. On a terminal, a table that is too wide loses its lesser columns first, and is
//! then stacked, one block a row. A long one shows the rows that matter. What was left out, and where it is, is said below.

use crate::language::{Language, Text, joined, text, texts, unbroken};
use std::io::IsTerminal;

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, presets};
use console::{Term, measure_text_width};

use crate::report::Table;
use crate::text::one_line;

/// Columns that a narrow terminal does without, in the order in which they go.
const LESSER: [Text; 34] = texts![
    "MAD",
    "Min",
    "p90",
    "Repetitions",
    "Host",
    "Run",
    "p",
    "Macro %",
    "Unscorable",
    "Probes",
    "GB/s",
    "A per W",
    "B per W",
    "A per GB",
    "B per GB",
    "A error",
    "B error",
    "Prefill tokens/s",
    "E2E tokens/s",
    "Prefill error",
    "TPOT error",
    "Range",
    "Protocol",
    "p (Holm)",
    "n",
    "Lost",
    "Gained",
    "Validity",
    "Model",
    "Peak memory",
    "95 % interval",
    "Clock",
    "E2E ms",
    "Valid",
];
/// Most rows of a table on a terminal. A longer one shows [`SHOWN_ROWS`].
const MOST_ROWS: usize = 24;
/// Rows that a long table shows.
const SHOWN_ROWS: usize = 10;

/// The width of the terminal that standard output is. `None` for a pipe or a file.
fn width() -> Option<usize> {
    std::io::stdout().is_terminal().then(|| usize::from(Term::stdout().size().1))
}

/// Formats a table below its title, in the width of the terminal.
pub(super) fn titled(table: &Table, language: Language) -> String {
    format!("{}\n{}", one_line(&table.title.in_language(language)), drawn(table, language))
}

/// Formats a table for printing, in the width of the terminal.
pub(super) fn drawn(table: &Table, language: Language) -> String {
    fitted(table, width(), language)
}

/// Formats a table for a width. `None` leaves out nothing.
fn fitted(table: &Table, width: Option<usize>, language: Language) -> String {
    let whole = |table: &Table| whole(table, language);
    let Some(width) = width else { return whole(table) };
    let (table, rows_left) = brief(table);
    let (mut shown, mut columns_left) = (table.clone(), Vec::new());
    let mut text = whole(&shown);
    for lesser in LESSER {
        if widest(&text) <= width {
            break;
        }
        if let Some(at) = shown.columns.iter().position(|column| column.name == lesser) {
            shown.columns.remove(at);
            shown.rows.iter_mut().for_each(|row| drop(row.cells.remove(at)));
            columns_left.push(lesser);
            text = whole(&shown);
        }
    }
    if widest(&text) > width {
        // Nothing needs to be left out of a stack.
        text = stacked(&table, width, language);
        columns_left.clear();
    }
    let mut left = Vec::new();
    if rows_left > 0 {
        left.push(text!("{rows} more rows", rows = rows_left));
    }
    match columns_left.as_slice() {
        [] => {}
        [one] => left.push(text!("the column {name}", name = one)),
        several => left.push(text!("the columns {names}", names = joined(several, ", "))),
    }
    if !left.is_empty() {
        let left = joined(left, " and ");
        let note = text!("(left out on this terminal: {left}; a pipe or a file gets all)", left);
        text.push('\n');
        text += &wrapped(&note.in_language(language), width, 1);
    }
    text
}

fn widest(text: &str) -> usize {
    text.lines().map(|line| measure_text_width(line.trim_end())).max().unwrap_or(0)
}

/// Formats every column and row.
fn whole(table: &Table, language: Language) -> String {
    let say = |text: &Text| one_line(&text.in_language(language)).into_owned();
    let mut drawn = comfy_table::Table::new();
    let rule = LineStyle::none().fill('─').junction('─');
    drawn.load_style(presets::NOTHING.header_separator(rule));
    drawn.set_content_arrangement(ContentArrangement::Disabled);
    drawn.set_header(table.columns.iter().map(|column| say(&column.name)));
    for row in &table.rows {
        drawn.add_row(row.cells.iter().map(say));
    }
    for (drawn, column) in drawn.column_iter_mut().zip(&table.columns) {
        drawn.set_cell_alignment(if column.numeric { CellAlignment::Right } else { CellAlignment::Left });
    }
    drawn.to_string()
}

/// Returns a long table with the rows that matter, and the number of the others. The rows that matter are the sums, if there are a
/// few of them. Else they are, of cases, the smallest and the largest batch of each pair of lengths. Else they are the first.
fn brief(table: &Table) -> (Table, usize) {
    if table.rows.len() <= MOST_ROWS {
        return (table.clone(), 0);
    }
    let strong: Vec<usize> = (0..table.rows.len()).filter(|&index| table.rows[index].strong).collect();
    let chosen = match strong.len() {
        1..=SHOWN_ROWS => strong,
        _ => ends_of_sweeps(table).unwrap_or_else(|| (0..table.rows.len()).collect()),
    };
    let chosen = spread(&chosen, SHOWN_ROWS);
    let rows = chosen.iter().map(|&index| table.rows[index].clone()).collect();
    (Table { rows, ..table.clone() }, table.rows.len() - chosen.len())
}

/// The rows with the smallest and the largest batch of each pair of lengths and number of ranks. `None` without such columns.
fn ends_of_sweeps(table: &Table) -> Option<Vec<usize>> {
    let at = |name: &str| table.columns.iter().position(|column| column.name == name);
    let (batch, input, output) = (at("Batch")?, at("In")?, at("Out")?);
    let others = [Some(input), Some(output), at("TP"), at("Phase"), at("Compared")];
    let key = |index: usize| {
        let cells = &table.rows[index].cells;
        others.iter().flatten().map(|&column| cells[column].clone()).collect::<Vec<Text>>()
    };
    let size = |index: usize| table.rows[index].cells[batch].to_string().parse::<u64>().unwrap_or(0);
    let ends = |index: &usize| {
        let own = (0..table.rows.len()).filter(|other| key(*other) == key(*index));
        let sizes: Vec<u64> = own.map(size).collect();
        let size = size(*index);
        sizes.iter().min() == Some(&size) || sizes.iter().max() == Some(&size)
    };
    Some((0..table.rows.len()).filter(ends).collect())
}

/// At most `most` of the indices, evenly from the first to the last.
fn spread(indices: &[usize], most: usize) -> Vec<usize> {
    if indices.len() <= most {
        return indices.to_vec();
    }
    (0..most).map(|i| indices[i * (indices.len() - 1) / (most - 1)]).collect()
}

/// One block a row: its first cell, then every other with its column's name.
fn stacked(table: &Table, width: usize, language: Language) -> String {
    let say = |text: &Text| one_line(&text.in_language(language)).into_owned();
    let mut blocks = Vec::new();
    for row in &table.rows {
        let cells = table.columns.iter().zip(&row.cells).map(|(column, cell)| (say(&column.name), say(cell)));
        let named = |(name, cell): (String, String)| {
            if name.is_empty() { cell } else { format!("{name} {cell}") }
        };
        let words: Vec<String> = cells.filter(|(_, cell)| !cell.trim().is_empty()).map(named).collect();
        blocks.push(wrapped(&words.join(" · "), width, 1));
    }
    blocks.join("\n")
}

/// Breaks a text to a width. Lines after the first are indented by two more.
fn wrapped(text: &str, width: usize, indent: usize) -> String {
    let mut lines = vec![" ".repeat(indent)];
    for (word, spaced) in unbroken(text) {
        let line = lines.last_mut().expect("invariant: there is a line");
        let is_new = line.trim().is_empty();
        let space = if is_new || !spaced { "" } else { " " };
        if is_new || measure_text_width(line) + space.len() + measure_text_width(&word) <= width {
            line.push_str(space);
            line.push_str(&word);
        } else {
            lines.push(format!("{}{word}", " ".repeat(indent + 2)));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::table::{Column, Row};

    fn table(names: &[(&str, bool)], rows: Vec<Vec<String>>) -> Table {
        Table {
            title: "t".into(),
            columns: names.iter().map(|&(name, numeric)| Column { name: name.into(), numeric }).collect(),
            rows: rows
                .into_iter()
                .map(|cells| Row { cells: cells.into_iter().map(Text::from).collect(), strong: false })
                .collect(),
        }
    }

    /// A sweep over batch and lengths.
    fn sweep() -> Table {
        let names = [
            ("Batch", true),
            ("In", true),
            ("Out", true),
            ("Prefill ms", true),
            ("Prefill tokens/s", true),
            ("TPOT ms", true),
            ("E2E tokens/s", true),
            ("Peak memory", true),
            ("Valid", true),
        ];
        let row = |batch: u32, input: u32| {
            let cells = [batch, input, 64, 10 * batch * input, 12_345, 71, 9_876, 0, 0];
            let mut cells: Vec<String> = cells.iter().map(u32::to_string).collect();
            (cells[7], cells[8]) = ("13.4 GiB".into(), "yes".into());
            cells
        };
        let lengths = [128, 512, 2048, 8192];
        table(
            &names,
            lengths.iter().flat_map(|i| [1, 2, 4, 8, 16, 32, 64].map(|batch| row(batch, *i))).collect(),
        )
    }

    #[test]
    fn numbers_stand_flush_right_also_beside_wide_letters() {
        let rows = vec![vec!["物理".into(), "7".into()], vec!["law".into(), "1346".into()]];
        let text = whole(&table(&[("Task", false), ("Items", true)], rows), Language::En);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains(char::is_alphanumeric)).collect();
        assert_eq!(lines, [" Task   Items ", " 物理       7 ", " law     1346 "]);
    }

    #[test]
    fn a_pipe_gets_everything() {
        let sweep = sweep();
        assert_eq!(fitted(&sweep, None, Language::En), whole(&sweep, Language::En));
        assert_eq!(whole(&sweep, Language::En).lines().count(), 2 + sweep.rows.len());
    }

    #[test]
    fn every_width_is_kept_and_what_is_left_out_is_said() {
        for width in [132, 100, 79, 60, 40] {
            let text = fitted(&sweep(), Some(width), Language::En);
            assert!(widest(&text) <= width, "{width}:\n{text}");
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains("20 more rows"), "{width}:\n{text}");
        }
        insta::assert_snapshot!(
            "widths",
            [120, 80, 40].map(|w| fitted(&sweep(), Some(w), Language::En)).join("\n\n")
        );
    }

    #[test]
    fn every_width_is_kept_in_chinese_and_columns_stand_in_line() {
        let mut sweep = sweep();
        for column in &mut sweep.columns {
            column.name = Text::term(column.name.to_string());
        }
        for row in &mut sweep.rows {
            row.cells[8] = text!("yes");
        }
        for width in [132, 100, 79, 60, 40] {
            let text = fitted(&sweep, Some(width), Language::Zh);
            assert!(widest(&text) <= width, "{width}:\n{text}");
            assert!(text.contains("20 行") && !text.contains("yes"), "{width}:\n{text}");
        }
        let whole = whole(&sweep, Language::Zh);
        let widths: Vec<usize> = whole.lines().map(measure_text_width).collect();
        assert!(widths.iter().all(|width| *width == widths[0]), "{whole}");
        insta::assert_snapshot!(
            "widths.zh",
            [120, 80, 40].map(|w| fitted(&sweep, Some(w), Language::Zh)).join("\n\n")
        );
    }

    #[test]
    fn a_long_sweep_shows_the_ends_of_each_pair_of_lengths() {
        let (short, left) = brief(&sweep());
        assert_eq!(left, 20);
        let shown: Vec<[&Text; 2]> = short.rows.iter().map(|row| [&row.cells[0], &row.cells[1]]).collect();
        assert_eq!(shown[..3], [["1", "128"], ["64", "128"], ["1", "512"]]);
        assert_eq!(spread(&[3, 5, 8, 9, 12], 3), [3, 8, 12]);
    }

    #[test]
    fn sums_come_before_their_parts() {
        let mut sweep = sweep();
        for index in [0, 9, 20] {
            sweep.rows[index].strong = true;
        }
        let (short, left) = brief(&sweep);
        assert_eq!((short.rows.len(), left), (3, 25));
    }
}
