//! `report.html`: one self-contained page.

use super::{ComparisonPage, Format, Picture, ReportError, RunPage, Table};
use crate::language::Language;
use crate::report::compare;
use crate::report::compare::charts::LEADING;
use crate::report::page::{fill, inline, table, words};
use minijinja::{Value, context};

pub(super) struct Html;

impl Format for Html {
    fn file(&self) -> &'static str {
        "report.html"
    }

    fn run(&self, page: RunPage<'_>) -> Result<String, ReportError> {
        fill(
            "report.html",
            page.language,
            context! {
                style => style(),
                pictures => pictures(page.pictures.iter()),
                details => tables(page.details, page.language),
                ..words(page.summary, page.language)
            },
        )
    }

    fn comparison(&self, page: ComparisonPage<'_>) -> Result<String, ReportError> {
        let language = page.comparison.options.language;
        fill(
            "comparison.html",
            language,
            context! {
                style => style(),
                leading => pictures(page.pictures.iter().filter(|picture| is_leading(picture))),
                pictures => pictures(page.pictures.iter().filter(|picture| !is_leading(picture))),
                details => tables(&compare::page::details(page.comparison), language),
                ..compare::page::words(page.comparison, page.judgements)
            },
        )
    }
}

fn style() -> Value {
    Value::from_safe_string(include_str!("../templates/style.css").to_owned())
}

fn tables(of: &[Table], language: Language) -> Vec<Value> {
    of.iter().map(|of| table(of, language)).collect()
}

/// Whether a chart of a comparison belongs to its answer.
fn is_leading(picture: &Picture) -> bool {
    LEADING.contains(&picture.name.as_str())
}

fn pictures<'a>(of: impl Iterator<Item = &'a Picture>) -> Vec<Value> {
    let picture = |p: &Picture| {
        context! {
            name => p.name.as_str(),
            alt => p.alt.as_str(),
            wide => p.wide,
            svg => Value::from_safe_string(inline(&p.svg)),
        }
    };
    of.map(picture).collect()
}
