//! A table, shared by the terminal, the page and the Markdown summary. Cells are formatted text.

use crate::language::Text;

/// A table to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The title, with the clock if the table shows times.
    pub title: Text,
    /// The columns, left to right.
    pub columns: Vec<Column>,
    /// The rows, each with a cell for every column.
    pub rows: Vec<Row>,
}

/// A column header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name with unit.
    pub name: Text,
    /// Whether the column holds numbers, which are right-aligned.
    pub numeric: bool,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// One text for each column.
    pub cells: Vec<Text>,
    /// Whether the row sums up the rows below it, and is emphasised.
    pub strong: bool,
}

impl Table {
    /// Creates an empty table with `text` columns, then `numeric` ones.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn new(title: Text, text: &[Text], numeric: &[Text]) -> Self {
        let column = |numeric| move |name: &Text| Column { name: name.clone(), numeric };
        let columns = text.iter().map(column(false)).chain(numeric.iter().map(column(true))).collect();
        #[cfg(test)]
        made::note(std::panic::Location::caller());
        Self { title, columns, rows: Vec::new() }
    }

    pub(crate) fn push<C: Into<Text>>(&mut self, strong: bool, cells: Vec<C>) {
        self.rows.push(Row { cells: cells.into_iter().map(C::into).collect(), strong });
    }

    /// Builds a table from numeric columns, each of the same length.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn of_columns(title: Text, columns: &[Titled]) -> Self {
        let names: Vec<Text> = columns.iter().map(|(name, _)| name.clone()).collect();
        let mut table = Self::new(title, &[], &names);
        let height = columns.iter().map(|(_, cells)| cells.len()).min().unwrap_or(0);
        for index in 0..height {
            table.push(false, columns.iter().map(|(_, cells)| cells[index].clone()).collect());
        }
        table
    }
}

/// A column with its name.
pub(crate) type Titled = (Text, Vec<Text>);

/// The places in the sources that made a table, so that a test can say which ones it has seen.
#[cfg(test)]
pub(super) mod made {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::panic::Location;

    thread_local! {
        static PLACES: RefCell<BTreeSet<(String, usize)>> = const { RefCell::new(BTreeSet::new()) };
    }

    pub(super) fn note(place: &Location<'_>) {
        PLACES.with_borrow_mut(|places| places.insert((place.file().to_owned(), place.line() as usize)));
    }

    /// Returns file and line of each place that made a table on this thread.
    pub(in crate::report) fn places() -> BTreeSet<(String, usize)> {
        PLACES.with_borrow(Clone::clone)
    }
}
