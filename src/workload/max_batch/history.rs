//! What a history follows of a search: the largest batch.

use crate::record::{ProbeRecord, RunRecord, SearchCase, search_answer};
use crate::report::followed::{Figure, Kind};

/// Returns the figure of each search that was decided. A failed or contradictory one has none.
pub(super) fn figures(run: &RunRecord, probes: &[ProbeRecord]) -> Vec<Figure> {
    let of_case = |case: &SearchCase| {
        let own: Vec<ProbeRecord> =
            probes.iter().filter(|probe| probe.search_id == case.search_id).cloned().collect();
        let answer = search_answer(&own);
        let is_decided = !own.is_empty() && answer.failure.is_none() && answer.contradiction.is_none();
        let ms = |ns: u64| ns as f64 / 1e6;
        let mut limits = format!("TPOT ≤ {} ms", ms(case.limit_tpot.ns()));
        if let Some(ttft) = case.limit_ttft {
            limits += &format!(", TTFT ≤ {} ms", ms(ttft.ns()));
        }
        is_decided.then(|| Figure {
            kind: Kind::LargestBatch,
            case: format!("{} in, {} out, {limits}", case.input_tokens, case.output_tokens),
            basis: format!("{} to {}", case.low, case.high),
            tp: case.tp,
            value: f64::from(answer.batch),
            low: None,
            high: None,
            n: own.len() as u64,
            marks: None,
        })
    };
    run.plan.searches.iter().filter_map(of_case).collect()
}
