//! ModelTest's `performance_maxbs` files: for each search one file with all rounds, and a file with the best row of
//! each.

use super::super::{File, Records};
use super::performance::{Figures, Outcome, cells, model, plain_rows, rows};
use super::{folder, mark, table};
use crate::record::{
    Clock, PerformanceCase, ProbeOutcome, ProbeRecord, ProbeRepetition, SearchCase, search_answer,
};
use crate::stats::median;

/// The answer of a search.
struct Best {
    clock: Clock,
    case: PerformanceCase,
    figures: Figures,
}

pub(super) fn files(records: &Records, notes: &mut Vec<String>) -> Result<Vec<File>, csv::Error> {
    let folder = folder(records, "results", "performance", "performance_maxbs");
    let mut files = Vec::new();
    let mut best: Vec<Best> = Vec::new();
    for search in &records.run.plan.searches {
        let probes: Vec<ProbeRecord> =
            records.probes.iter().filter(|probe| probe.search_id == search.search_id).cloned().collect();
        let Some(clock) = probes.first().map(|probe| probe.clock) else {
            notes.push(format!("search {} has no probe and no files", search.search_id));
            continue;
        };
        let SearchCase { input_tokens, output_tokens, tp, .. } = search;
        let name =
            format!("{folder}/performance_maxbs_pa_{input_tokens}_{output_tokens}_tp{tp}{}", mark(clock));
        let rounds = rounds(&model(records, clock), search, &probes);
        files.push(File {
            path: format!("{name}_round_result.csv"),
            bytes: table(b',', &plain_rows(&rounds))?,
        });
        let answer = search_answer(&probes).batch;
        let of_answer = |probe: &&ProbeRecord| probe.batch == answer && probe.outcome == ProbeOutcome::Fits;
        match probes.iter().rfind(of_answer).and_then(|probe| Some((probe, figures(search, probe).ok()?))) {
            Some((probe, figures)) => best.push(Best { clock, case: case(search, probe), figures }),
            None => notes.push(format!("search {} found no batch: 0 in ModelTest's words", search.search_id)),
        }
    }
    let mut kinds: Vec<(u32, Clock)> = Vec::new();
    for kind in best.iter().map(|best| (best.case.tp, best.clock)) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    for (tp, clock) in kinds {
        let of_kind: Vec<Outcome<'_>> = best
            .iter()
            .filter(|best| (best.case.tp, best.clock) == (tp, clock))
            .map(|best| Outcome { case: &best.case, clock, figures: Ok(best.figures) })
            .collect();
        let rows = rows(&model(records, clock), &of_kind.iter().collect::<Vec<_>>());
        let path = format!("{folder}/performance_maxbs_pa_tp{tp}{}_final_result.csv", mark(clock));
        files.push(File { path, bytes: table(b',', &plain_rows(&rows))? });
    }
    Ok(files)
}

/// In ModelTest every round is a result file of one row with averages. This puts them one below the other.
fn rounds(model: &str, search: &SearchCase, probes: &[ProbeRecord]) -> Vec<Vec<String>> {
    let round = |probe: &ProbeRecord| {
        let case = case(search, probe);
        let outcome = Outcome { case: &case, clock: probe.clock, figures: figures(search, probe) };
        // A failed round has no averages.
        if outcome.figures.is_err() { vec![cells(model, &outcome)] } else { rows(model, &[&outcome]) }
    };
    probes.iter().flat_map(round).collect()
}

/// A probe as a timed case.
fn case(search: &SearchCase, probe: &ProbeRecord) -> PerformanceCase {
    PerformanceCase {
        case_id: search.search_id.clone(),
        tp: search.tp,
        batch: probe.batch,
        input_tokens: search.input_tokens,
        output_tokens: search.output_tokens,
        prompts: None,
        unfit: None,
        largest_batch: None,
        alone_bytes: None,
        repetitions: search.repetitions,
        seed: None,
        prefill_cost: None,
        decode_cost: None,
    }
}

/// Returns medians over the repetitions, or why there are none. A probe records the time to its last sequence's first
/// token. The prefill steps run in sequence within it, so it stands for their sum.
fn figures(search: &SearchCase, probe: &ProbeRecord) -> Result<Figures, String> {
    let middle = |ns: fn(&ProbeRepetition) -> u64| {
        median(&probe.repetitions.iter().map(|r| ns(r) as f64).collect::<Vec<_>>())
    };
    let times = || {
        let total_ns = middle(|r| r.end_ns.saturating_sub(r.start_ns))?;
        let prefill_ns = middle(|r| r.first_token_ns.saturating_sub(r.start_ns))?;
        Some((total_ns, prefill_ns, middle(|r| r.end_ns.saturating_sub(r.first_token_ns))?))
    };
    let (total_ns, prefill_ns, decode_ns) =
        times().ok_or_else(|| probe.reason.clone().unwrap_or_else(|| probe.outcome.words().to_string()))?;
    Ok(Figures::of(probe.batch, search.output_tokens, total_ns / 1e9, prefill_ns / 1e6, decode_ns / 1e6))
}
