//! `report.html`: one self-contained page.

use super::{ComparisonPage, Format, Picture, ReportError, RunPage, Table};
use crate::report::compare;
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
            context! {
                style => style(),
                pictures => pictures(page.pictures),
                details => tables(page.details),
                ..words(page.summary)
            },
        )
    }

    fn comparison(&self, page: ComparisonPage<'_>) -> Result<String, ReportError> {
        fill(
            "comparison.html",
            context! {
                style => style(),
                pictures => pictures(page.pictures),
                details => tables(&compare::page::details(page.comparison)),
                ..compare::page::words(page.comparison, page.judgements)
            },
        )
    }
}

fn style() -> Value {
    Value::from_safe_string(include_str!("../templates/style.css").to_owned())
}

fn tables(of: &[Table]) -> Vec<Value> {
    of.iter().map(table).collect()
}

fn pictures(of: &[Picture]) -> Vec<Value> {
    let picture = |p: &Picture| {
        context! {
            name => p.name.as_str(),
            alt => p.alt.as_str(),
            wide => p.wide,
            svg => Value::from_safe_string(inline(&p.svg)),
        }
    };
    of.iter().map(picture).collect()
}
