//! The run in a few sentences.

use super::accuracy::ALL;
use super::format::{percent, significant};
use crate::record::{AccuracyRow, PerfRow, Phase, RunRecord};

/// What is said of a run without anything to say.
pub(super) const NOTHING: &str = "Nothing has finished yet.";

/// One sentence a task, and one on speed.
pub(super) fn sentences(run: &RunRecord, accuracy: &[AccuracyRow], performance: &[PerfRow]) -> Vec<String> {
    let wholes = accuracy.iter().filter(|row| row.subject == ALL && row.category == ALL);
    let part_of = |task: &str| run.plan.accuracy.iter().find(|case| case.task == task)?.part_of();
    let mut sentences: Vec<String> = wholes.filter_map(|row| score(row, part_of(&row.task))).collect();
    sentences.extend(speed(run, performance));
    sentences.extend(left_out(run));
    if sentences.is_empty() {
        sentences.push(NOTHING.to_owned());
    }
    sentences
}

fn score(row: &AccuracyRow, part_of: Option<u64>) -> Option<String> {
    let (acc, low, high) = (row.acc?, row.ci95_lo?, row.ci95_hi?);
    let answered = row.scored + row.unscorable;
    let limited = part_of.map(|all| format!(", {} of {all} taken", row.n)).unwrap_or_default();
    Some(format!(
        "{} ({}): {} % of {answered} items right{limited} (95 % interval {} to {}).",
        row.task,
        row.protocol,
        percent(acc),
        percent(low),
        percent(high),
    ))
}

/// The cases that were not run, a sentence a reason.
fn left_out(run: &RunRecord) -> Vec<String> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for case in &run.plan.performance {
        let Some(reason) = case.unfit.as_deref() else { continue };
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, cases)) => cases.push(&case.case_id),
            None => reasons.push((reason, vec![&case.case_id])),
        }
    }
    let sentence = |(reason, cases): (&str, Vec<&str>)| format!("Left out: {} ({reason}).", cases.join(", "));
    reasons.into_iter().map(sentence).collect()
}

/// The fastest decode, and the aggregate rate: all output tokens over all time.
fn speed(run: &RunRecord, performance: &[PerfRow]) -> Option<String> {
    let usable = |phase| performance.iter().filter(move |r| r.phase == phase && r.valid == Some(true));
    let rate = |row: &&PerfRow| row.tokens_per_s_median.unwrap_or(0.0);
    let best = usable(Phase::Decode).max_by(|a, b| rate(a).total_cmp(&rate(b)))?;
    let (tokens, seconds) = usable(Phase::E2e)
        .filter_map(|row| row.mean_ns.map(|mean| (row.reps as f64, row.tokens as f64, mean as f64 / 1e9)))
        .fold((0.0, 0.0), |(t, s), (reps, tokens, seconds)| (t + reps * tokens, s + reps * seconds));
    let from = &run.provenance;
    Some(format!(
        "Decode reaches {} tokens/s at batch {} ({} in, {} out), {} on {} in {}; {} output tokens/s end to end over \
         all cases.",
        significant(rate(&best), 4),
        best.batch,
        best.input_tokens,
        best.output_tokens,
        from.clock,
        from.device,
        from.dtype,
        significant(tokens / seconds, 4),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{accuracy_rows, fixture, perf_rows};

    #[test]
    fn says_what_was_reached_and_by_which_clock() {
        let (run, samples, requests) = fixture::realistic();
        let said = sentences(&run, &accuracy_rows(&run, &samples), &perf_rows(&run, &requests));
        assert_eq!(said.len(), 3);
        assert!(
            said[0].starts_with("ceval (modeltest-5shot): ") && said[0].contains("of 239 items"),
            "{said:?}"
        );
        assert!(said[2].contains("measured on cpu in fp16"), "{said:?}");
        assert_eq!(sentences(&run, &[], &[]), ["Nothing has finished yet."]);
    }
}
