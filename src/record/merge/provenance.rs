//! Where a merged run was made.

use super::super::run::Provenance;
use super::gather::Source;
use std::collections::BTreeSet;

/// Returns the different values of a fact, in the order of the shards.
fn values<'a>(sources: &'a [Source], of: impl Fn(&'a Provenance) -> &'a str) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    let all = sources.iter().map(|source| of(&source.record.provenance));
    all.filter(|value| seen.insert(*value)).collect()
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
        // The limits of a case's machine are in its part.
        roofline: first.roofline.clone().filter(|_| sources.len() == 1),
        load: first.load.clone().filter(|_| sources.len() == 1),
        weight_faults: (all_looked || !faults.is_empty()).then(|| faults.into_iter().cloned().collect()),
        telemetry: first.telemetry.iter().map(stays).collect(),
        started: values(sources, |of| &of.started).into_iter().min().unwrap_or_default().to_owned(),
        finished: sources.iter().filter_map(|source| source.record.provenance.finished.clone()).max(),
        resumed: sources.iter().map(|source| source.record.provenance.resumed).sum(),
        command_line: Vec::new(),
        ..first.clone()
    }
}

/// Sentences on what the machines of the shards have not in common.
pub(super) fn differences(sources: &[Source]) -> Vec<String> {
    let facts: [(&str, fn(&Provenance) -> &str); 3] = [
        ("processors", |of| &of.cpu_model),
        ("kernels", |of| &of.kernel),
        ("commits", |of| of.git_commit.as_deref().unwrap_or("")),
    ];
    let told = |(what, of): (&str, fn(&Provenance) -> &str)| {
        let values = values(sources, of);
        (values.len() > 1).then(|| format!("the shards have different {what}: {}", values.join("; ")))
    };
    facts.into_iter().filter_map(told).collect()
}
