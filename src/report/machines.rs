//! Where the shards of a merged run ran, and whether their times may be judged together.

use super::check::{Check, Outcome, yes_if};
use super::format::or_none;
use super::table::Table;
use crate::language::{cells, text, texts};
use crate::record::{Clock, RunRecord};

/// One row per shard: host, processor, measured limits and timed cases. Empty for other runs.
pub(super) fn table(run: &RunRecord) -> Option<Table> {
    let shards = run.shards.as_ref().filter(|shards| shards.single().is_none())?;
    let columns = texts!["Shard", "Host", "Processor", "Kernels", "Limits", "Standing", "Timed cases"];
    let mut table = Table::new(text!("Machines: {shards}", shards = shards.words()), &columns, &[]);
    for part in &shards.parts {
        let Some(origin) = &part.origin else { continue };
        let limits = or_none(origin.roofline.as_ref(), |limit| {
            let (memory, arithmetic) = (limit.bandwidth_bytes_per_s / 1e9, limit.peak_flops_per_s / 1e9);
            format!("{memory:.1} GB/s, {arithmetic:.0} GFLOP/s")
        });
        let cases: Vec<&str> = part.cases.iter().map(|case| case.id.as_str()).collect();
        let cells = cells![
            part.index,
            origin.host,
            origin.cpu_model,
            origin.kernel,
            limits,
            if origin.complete { text!("whole") } else { text!("in part") },
            cases.join(", "),
        ];
        table.push(false, cells);
    }
    Some(table)
}

/// The condition that a merged run's timed cases ran on machines of one kind. `None` for other runs.
pub(super) fn check(run: &RunRecord) -> Option<Check> {
    let shards = run.shards.as_ref().filter(|shards| shards.single().is_none())?;
    let modelled = run.provenance.clock == Clock::Modelled;
    let kinds = shards.unlike_hosts().filter(|_| !modelled);
    let found = match &kinds {
        None if modelled => text!("the times are of a virtual clock"),
        None => text!("machines of one kind"),
        Some(kinds) => {
            let names: Vec<String> = kinds.iter().map(|hosts| hosts.join(", ")).collect();
            let words = shards.unlike_words().unwrap_or_default();
            text!(
                "{kinds} kinds of machines: {names} ({words})",
                kinds = kinds.len(),
                names = names.join(" | "),
                words
            )
        }
    };
    Some(Check {
        name: text!("one kind of machine"),
        condition: text!("All cases were timed on machines of one kind"),
        outcome: if modelled { Outcome::DoesNotApply } else { yes_if(kinds.is_none()) },
        found,
        advice: text!(
            "Compare cases of one kind only: each row names its host. Shards on equal nodes have no such limit."
        ),
        required: false,
    })
}
