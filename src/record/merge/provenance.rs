//! Where a merged run was made.

use super::super::run::Provenance;
use super::super::work::TaskWork;
use super::gather::Source;
use std::collections::{BTreeMap, BTreeSet};

/// Returns the different values of a fact, in the order of the shards.
fn values<'a>(sources: &'a [Source], of: impl Fn(&'a Provenance) -> &'a str) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    let all = sources.iter().map(|source| of(&source.record.provenance));
    all.filter(|value| seen.insert(*value)).collect()
}

/// Returns the work of all shards, by task.
fn work(sources: &[Source]) -> BTreeMap<String, TaskWork> {
    let mut sums: BTreeMap<String, TaskWork> = BTreeMap::new();
    for (task, work) in sources.iter().flat_map(|source| &source.record.provenance.work) {
        sums.entry(task.clone()).or_default().add(*work);
    }
    sums
}

/// Returns the provenance of a merged run. Facts that differ are listed; what belongs to one machine stays with the shards.
pub(super) fn merged(sources: &[Source]) -> Provenance {
    let first = &sources[0].record.provenance;
    let joined = |of: fn(&Provenance) -> &str| values(sources, of).join("; ");
    let hosts = values(sources, |of| &of.host);
    let same =
        |holds: &dyn Fn(&Provenance) -> bool| sources.iter().all(|source| holds(&source.record.provenance));
    let faults: BTreeSet<&String> = sources
        .iter()
        .filter_map(|source| source.record.provenance.weight_faults.as_ref())
        .flatten()
        .collect();
    let all_looked = sources.iter().all(|source| source.record.provenance.weight_faults.is_some());
    let stays = |(column, _): (&String, &String)| {
        (column.clone(), "absent: telemetry.csv stays with the shards".to_owned())
    };
    Provenance {
        host: hosts.join(", "),
        cpu_model: joined(|of| &of.cpu_model),
        kernel: joined(|of| &of.kernel),
        os: joined(|of| &of.os),
        governor: first.governor.clone().filter(|_| same(&|of| of.governor == first.governor)),
        threads: sources.iter().map(|source| source.record.provenance.threads).min().unwrap_or_default(),
        // The machine limits of a case are in its part.
        roofline: first.roofline.clone().filter(|_| sources.len() == 1),
        load: first.load.clone().filter(|_| sources.len() == 1),
        weight_faults: (all_looked || !faults.is_empty()).then(|| faults.into_iter().cloned().collect()),
        telemetry: first.telemetry.iter().map(stays).collect(),
        started: values(sources, |of| &of.started).into_iter().min().unwrap_or_default().to_owned(),
        finished: sources.iter().filter_map(|source| source.record.provenance.finished.clone()).max(),
        resumed: sources.iter().map(|source| source.record.provenance.resumed).sum(),
        work: work(sources),
        command_line: Vec::new(),
        ..first.clone()
    }
}

/// A fact of a run.
type Fact = fn(&Provenance) -> &str;

/// Sentences on what the machines of the shards have not in common.
pub(super) fn differences(sources: &[Source]) -> Vec<String> {
    let facts: [(&str, Fact); 3] = [
        ("processors", |of| &of.cpu_model),
        ("kernels", |of| &of.kernel),
        ("commits", |of| of.git_commit.as_deref().unwrap_or("")),
    ];
    let told = |(what, of): (&str, Fact)| {
        let values = values(sources, of);
        (values.len() > 1).then(|| format!("the shards have different {what}: {}", values.join("; ")))
    };
    facts.into_iter().filter_map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merged_run_has_the_work_of_all_shards() {
        let source = |index, tasks: &[(&str, u64)]| {
            let mut record = crate::record::golden::run();
            let work = |prefilled| TaskWork { prefilled, generated: 1, ..TaskWork::default() };
            record.provenance.work = tasks.iter().map(|(task, n)| ((*task).to_owned(), work(*n))).collect();
            Source { path: "r".into(), record, index }
        };
        let merged = merged(&[source(1, &[("ceval", 5)]), source(2, &[("boolq", 2), ("ceval", 3)])]);
        let work = |prefilled, generated| TaskWork { prefilled, generated, ..TaskWork::default() };
        let expected = [("boolq", work(2, 1)), ("ceval", work(8, 2))];
        assert_eq!(merged.work, expected.map(|(task, work)| (task.to_owned(), work)).into());
    }
}
