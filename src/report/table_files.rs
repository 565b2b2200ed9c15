//! The tables of a page as CSV files beside it, in `tables/`: cells and column names in English, whatever the page's language.

use super::error::ReportError;
use super::table::Table;
use crate::record::{RecordError, write_whole};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Folder of the files.
const FOLDER: &str = "tables";
/// Most letters of a title in a file name.
const MOST_LETTERS: usize = 48;

/// Writes `tables/NN-title.csv` for each table with rows. Removes the files of an earlier page.
///
/// # Errors
/// A file cannot be written or removed.
pub(super) fn write(folder: &Path, tables: &[Table]) -> Result<(), ReportError> {
    let folder = folder.join(FOLDER);
    let failed = |e: std::io::Error| RecordError::io("prepare", &folder)(e);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error).into()),
        _ => {}
    }
    let tables: Vec<&Table> = tables.iter().filter(|table| !table.rows.is_empty()).collect();
    if !tables.is_empty() {
        fs::create_dir_all(&folder).map_err(failed)?;
    }
    for (index, table) in tables.into_iter().enumerate() {
        let bytes = bytes(table).map_err(|e| failed(e.into()))?;
        write_whole(
            &folder.join(format!("{:02}-{}.csv", index + 1, slug(&table.title.to_string()))),
            &bytes,
        )?;
    }
    Ok(())
}

fn bytes(table: &Table) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(table.columns.iter().map(|column| column.name.to_string()))?;
    for row in &table.rows {
        writer.write_record(row.cells.iter().map(ToString::to_string))?;
    }
    writer.into_inner().map_err(|e| e.into_error().into())
}

/// The title's letters and digits in lower case, with hyphens between words.
fn slug(title: &str) -> String {
    let mut slug = String::new();
    for c in title.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.chars().count() >= MOST_LETTERS {
            break;
        }
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_titles_and_an_earlier_page_leaves_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut table =
            Table::new("Peak memory, B (x) against A".into(), &["Case, as planned".into()], &["A".into()]);
        table.push(false, vec!["b1 \"quoted\"", "1"]);
        let empty = Table::new("Nothing".into(), &[], &["A".into()]);
        write(folder.path(), &[empty.clone(), table.clone()]).unwrap();
        let text = fs::read_to_string(folder.path().join("tables/01-peak-memory-b-x-against-a.csv")).unwrap();
        assert_eq!(text, "\"Case, as planned\",A\n\"b1 \"\"quoted\"\"\",1\n");
        table.title = "Other".into();
        write(folder.path(), &[table]).unwrap();
        let names: Vec<_> =
            fs::read_dir(folder.path().join("tables")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["01-other.csv"]);
        write(folder.path(), &[empty]).unwrap();
        assert!(!folder.path().join("tables").exists());
    }
}
