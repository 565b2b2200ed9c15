//! Finding the item or case of a run that an argument names.

use std::collections::BTreeSet;

use anyhow::bail;

use crate::record::{LoadCase, PerformanceCase, SampleRecord};

use super::Shown;

/// The match of an argument.
#[derive(Debug)]
pub(super) enum Choice<'a> {
    /// One item, under each task that has it.
    Items(Vec<&'a SampleRecord>),
    /// A performance case.
    Case(&'a PerformanceCase),
    /// A load.
    Load(&'a LoadCase),
}

/// Maximum number of names in a message.
const LISTED: usize = 5;

/// Finds what `word` names. Tries an exact match, then a suffix after a slash, then a prefix of any path component. The
/// first of these with a match must match exactly one name.
pub(super) fn select<'a>(run: &'a Shown, word: &str) -> anyhow::Result<Choice<'a>> {
    let (samples, plan) = (&run.records.samples, &run.records.run.plan);
    let behind_slash = format!("/{word}");
    let exact = |name: &str| name == word;
    let by_end = |name: &str| name.ends_with(&behind_slash);
    let by_part = |name: &str| format!("/{name}").contains(&behind_slash);
    let ways: [&dyn Fn(&str) -> bool; 3] = [&exact, &by_end, &by_part];
    for fits in ways.into_iter().filter(|_| !word.is_empty()) {
        let fits_item = |sample: &&SampleRecord| fits(&sample.doc_id) || fits(&full_name(sample));
        let items: Vec<&SampleRecord> = samples.iter().filter(fits_item).collect();
        let cases: Vec<&PerformanceCase> =
            plan.performance.iter().filter(|case| fits(&case.case_id)).collect();
        let loads: Vec<&LoadCase> = plan.loads.iter().filter(|load| fits(&load.load_id)).collect();
        let names: BTreeSet<&str> = items.iter().map(|sample| sample.doc_id.as_str()).collect();
        match (names.len(), cases.as_slice(), loads.as_slice()) {
            (0, [], []) => {}
            (1, [], []) => return Ok(Choice::Items(items)),
            (0, [case], []) => return Ok(Choice::Case(case)),
            (0, [], [load]) => return Ok(Choice::Load(load)),
            _ => {
                let cases = cases.iter().map(|case| case.case_id.as_str());
                let loads = loads.iter().map(|load| load.load_id.as_str());
                let names: Vec<&str> = names.into_iter().chain(cases).chain(loads).collect();
                bail!(
                    "{word} matches {} items, cases and loads: {}; give more of the name",
                    names.len(),
                    listed(&names)
                )
            }
        }
    }
    bail!("run {} has no item, case or load \"{word}\"; {}", run.id(), examples(run))
}

fn full_name(sample: &SampleRecord) -> String {
    format!("{}/{}", sample.task, sample.doc_id)
}

/// Lists examples of what can be shown.
fn examples(run: &Shown) -> String {
    let plan = &run.records.run.plan;
    let kinds: [(&str, Vec<&str>); 3] = [
        ("items", run.records.samples.iter().map(|sample| sample.doc_id.as_str()).collect()),
        ("cases", plan.performance.iter().map(|case| case.case_id.as_str()).collect()),
        ("loads", plan.loads.iter().map(|load| load.load_id.as_str()).collect()),
    ];
    let there = kinds.iter().filter(|(_, names)| !names.is_empty());
    let words: Vec<String> = there.map(|(kind, names)| format!("{kind} such as {}", listed(names))).collect();
    if words.is_empty() { "it has none yet".to_owned() } else { format!("it has {}", words.join(", and ")) }
}

fn listed(names: &[&str]) -> String {
    let shown = names.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    if names.len() > LISTED { format!("{shown}, …") } else { shown }
}
