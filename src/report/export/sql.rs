//! SQL text for sqlite3: four tables, all in one transaction.

use super::fields::{
    self, Field, Kind, LOAD, REQUEST, RUN, Row, SAMPLE, load_row, request_row, run_row, sample_row,
};
use super::{Export, Output, Records, Sink};
use crate::workload::load::rows::load_rows;
use serde_json::Value;
use std::io;

/// The format `sql`.
#[derive(Debug)]
pub(super) struct Sql;

impl Export for Sql {
    fn name(&self) -> &'static str {
        "sql"
    }

    fn about(&self) -> &'static str {
        "SQL text for sqlite3: tables runs, samples, requests, loads"
    }

    fn details(&self) -> String {
        fields::help()
    }

    fn output(&self) -> Output {
        Output::Stream(write)
    }
}

/// Writes tables and rows. Importing again, or beside other runs, replaces only this run's own rows.
fn write(records: &Records, to: Sink<'_>) -> io::Result<()> {
    writeln!(to, "BEGIN;")?;
    table(to, "runs", &RUN, &["run_id"])?;
    table(to, "samples", &with_run(&SAMPLE), &["run_id", "task", "doc_id"])?;
    table(to, "requests", &with_run(&REQUEST), &["run_id", "case_id", "kind", "repetition"])?;
    table(to, "loads", &with_run(&LOAD), &["run_id", "load_id", "level"])?;
    insert(to, "runs", &RUN, &run_row(&records.run))?;
    let id = Value::from(records.run.run_id.as_str());
    let with_id = |row: Row| -> Row { std::iter::once(id.clone()).chain(row).collect() };
    for sample in &records.samples {
        insert(to, "samples", &with_run(&SAMPLE), &with_id(sample_row(&records.run, sample)))?;
    }
    for request in &records.requests {
        insert(to, "requests", &with_run(&REQUEST), &with_id(request_row(request)))?;
    }
    for level in &load_rows(&records.run, &records.levels) {
        insert(to, "loads", &with_run(&LOAD), &with_id(load_row(level)))?;
    }
    writeln!(to, "COMMIT;")
}

/// The fields, preceded by the run id, which joins rows to `runs`.
fn with_run(fields: &[Field]) -> Vec<Field> {
    let id = RUN.iter().filter(|field| field.name == "run_id");
    id.chain(fields).copied().collect()
}

fn table(to: Sink<'_>, name: &str, fields: &[Field], key: &[&str]) -> io::Result<()> {
    writeln!(to, "CREATE TABLE IF NOT EXISTS {name} (")?;
    for field in fields {
        let not_null = if key.contains(&field.name) { " NOT NULL" } else { "" };
        writeln!(to, "  \"{}\" {}{not_null}, -- {}", field.name, sql_type(field.kind), field.about)?;
    }
    writeln!(to, "  PRIMARY KEY ({})\n);", key.join(", "))
}

fn sql_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer | Kind::Boolean => "INTEGER",
        Kind::Real => "REAL",
        Kind::Text | Kind::List => "TEXT",
    }
}

fn insert(to: Sink<'_>, table: &str, fields: &[Field], row: &Row) -> io::Result<()> {
    let names: Vec<String> = fields.iter().map(|field| format!("\"{}\"", field.name)).collect();
    let values: Vec<String> = row.iter().map(literal).collect();
    writeln!(to, "INSERT OR REPLACE INTO {table} ({}) VALUES ({});", names.join(", "), values.join(", "))
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(yes) => u8::from(*yes).to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text_literal(text),
        Value::Array(_) | Value::Object(_) => text_literal(&value.to_string()),
    }
}

/// Doubles quotes. A NUL would end the statement for sqlite3, so such a text is written as its bytes.
fn text_literal(text: &str) -> String {
    if text.contains('\0') {
        return format!("CAST(X'{}' AS TEXT)", crate::record::hex(text.as_bytes()));
    }
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_text_ends_its_literal() {
        for (value, text) in [
            (json!(null), "NULL"),
            (json!(true), "1"),
            (json!(-0.5), "-0.5"),
            (json!("it's; DROP TABLE runs; --"), "'it''s; DROP TABLE runs; --'"),
            (json!("a\nb\\\""), "'a\nb\\\"'"),
            (json!("a\0'b"), "CAST(X'61002762' AS TEXT)"),
            (json!([1, null]), "'[1,null]'"),
        ] {
            assert_eq!(literal(&value), text);
        }
    }
}
