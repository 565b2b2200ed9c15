//! `summary.md`: a page without its charts and folded tables.

use super::{ComparisonPage, Format, ReportError, RunPage};
use crate::report::compare;
use crate::report::page::{fill, words};

pub(super) struct Markdown;

impl Format for Markdown {
    fn file(&self) -> &'static str {
        "summary.md"
    }

    fn run(&self, page: RunPage<'_>) -> Result<String, ReportError> {
        fill("summary.md", page.language, words(page.summary, page.language))
    }

    fn comparison(&self, page: ComparisonPage<'_>) -> Result<String, ReportError> {
        let language = page.comparison.options.language;
        fill("comparison.md", language, compare::page::words(page.comparison, page.judgements))
    }
}
