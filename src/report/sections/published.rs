//! The comparison with published scores. Its sentences are in the headline.

use super::{Definition, Section};
use crate::record::RunRecord;
use crate::report::expectation;

pub(super) struct Published;

impl Section for Published {
    fn definitions(&self, run: &RunRecord) -> Vec<Definition> {
        let is_published = run.plan.accuracy.iter().any(|case| case.published.is_some());
        is_published.then_some(expectation::DEFINITION).into_iter().collect()
    }
}
