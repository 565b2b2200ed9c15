//! Rows as a CSV file.

use crate::record::csv_table;
use serde::Serialize;

/// A table as a file.
#[derive(Debug, Clone)]
pub(crate) struct Csv {
    /// File name.
    pub(crate) name: &'static str,
    /// The content.
    pub(crate) bytes: Vec<u8>,
    /// Whether it has no rows.
    pub(crate) is_empty: bool,
}

impl Csv {
    /// Formats rows below a header.
    ///
    /// # Errors
    /// A row cannot be written as CSV.
    pub(crate) fn of<R: Serialize>(name: &'static str, header: &str, rows: &[R]) -> Result<Self, csv::Error> {
        Ok(Self { name, bytes: csv_table(header, rows)?, is_empty: rows.is_empty() })
    }
}
