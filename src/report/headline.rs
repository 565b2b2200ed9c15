//! The headline: the run in a few sentences.

use super::accuracy::ALL;
use super::expectation;
use super::failures::{Failure, of_cases, of_task};
use super::format::{fixed, percent, significant};
use super::measures::{leading, perplexities, perplexity};
use super::{modelled, published};
use crate::language::{Text, joined, text};
use crate::record::{
    AccuracyCase, AccuracyRow, PerfRow, Phase, Plan, RequestRecord, RunRecord, SampleRecord,
};
use crate::stats::{Estimate, Interval, mean};

/// The headline of a run without results.
pub(super) const NOTHING: Text = text!("Nothing has finished yet.");

/// Title: what was run, and on what.
pub(super) fn title(run: &RunRecord) -> Text {
    let from = &run.provenance;
    let tp = if from.tp > 1 { text!(", tp {tp}", tp = from.tp) } else { Text::EMPTY };
    let part = run.part_words().map(|part| text!(", {part}", part)).unwrap_or_default();
    let part = part + run.lacking().map(|whole| extent(run, whole)).unwrap_or_default();
    text!(
        "{model} on {device} in {dtype}{tp}, {clock} (suite {suite}{part}, run {run_id})",
        model = from.model,
        device = from.device,
        dtype = from.dtype,
        tp,
        clock = from.clock,
        suite = from.suite,
        part,
        run_id = run.run_id
    )
}

/// What a merged run has of the whole plan: `, 48 of 120 items, 1 of 15 timed cases`.
fn extent(run: &RunRecord, whole: &Plan) -> Text {
    let items = |plan: &Plan| plan.accuracy.iter().map(|case| case.items).fold(0, u64::saturating_add);
    let timed = |plan: &Plan| plan.timed_ids().len() as u64;
    let (taken, all) = (items(&run.plan), items(whole));
    let of_items = if all > 0 { text!(", {taken} of {all} item{all:s}", taken, all) } else { Text::EMPTY };
    let (taken, all) = (timed(&run.plan), timed(whole));
    let of_cases =
        if all > 0 { text!(", {taken} of {all} timed case{all:s}", taken, all) } else { Text::EMPTY };
    of_items + of_cases
}

/// Returns the sentences of the headline. They state each task's score, its failures, and its comparison with the
/// published score. One sentence is on speed. The last name failed and skipped cases.
pub(super) fn sentences(
    run: &RunRecord,
    accuracy: &[AccuracyRow],
    samples: &[SampleRecord],
    performance: &[PerfRow],
    requests: &[RequestRecord],
) -> Vec<Text> {
    let whole = |task: &str| {
        accuracy.iter().find(|row| row.task == task && row.subject == ALL && row.category == ALL)
    };
    let of_case = |case: &AccuracyCase| {
        let row = whole(&case.task);
        let failure = of_task(case, samples);
        let score = if case.keyless {
            text_score(case, samples, failure.as_ref())
        } else {
            row.and_then(|row| score(row, case.part_of(), failure.as_ref()))
        };
        let unscored = failure.as_ref().filter(|_| score.is_none()).map(|failure| {
            text!(
                "{task} ({protocol}): no score; {failure}.",
                task = case.task,
                protocol = case.protocol,
                failure = failure.words()
            )
        });
        let published = row.filter(|_| score.is_some()).and_then(|row| expectation::sentence(case, row));
        [score, unscored, published].into_iter().flatten().collect::<Vec<_>>()
    };
    let mut sentences: Vec<Text> = run.plan.accuracy.iter().flat_map(of_case).collect();
    sentences.extend(speed(run, performance));
    sentences.extend(modelled::sentence(run));
    sentences.extend(published::sentence(run, performance));
    sentences.extend(of_cases(run, requests));
    sentences.extend(left_out(run));
    if sentences.is_empty() {
        sentences.push(NOTHING);
    }
    sentences
}

fn score(row: &AccuracyRow, part_of: Option<u64>, failure: Option<&Failure>) -> Option<Text> {
    let (acc, low, high) = (row.acc?, row.ci95_lo?, row.ci95_hi?);
    let answered = row.scored + row.unscorable;
    Some(text!(
        "{task} ({protocol}): {acc} % of {answered} items right{limited} (95 % interval {low} to {high}).{failed}",
        task = row.task,
        protocol = row.protocol,
        acc = percent(acc),
        answered,
        limited = limited(part_of, row.n),
        low = percent(low),
        high = percent(high),
        failed = failed(failure)
    ))
}

/// How many of all items were taken; empty if all were.
fn limited(part_of: Option<u64>, taken: u64) -> Text {
    part_of.map(|all| text!(", {n} of {all} taken", n = taken, all)).unwrap_or_default()
}

/// The failed items, which are outside a score; empty without any.
fn failed(failure: Option<&Failure>) -> Text {
    failure.map(|of| text!(" Apart from these: {failure}.", failure = of.words())).unwrap_or_default()
}

/// The perplexity of a task of scored texts, or the mean of their [leading] measure. `None` if no text has either.
fn text_score(case: &AccuracyCase, samples: &[SampleRecord], failure: Option<&Failure>) -> Option<Text> {
    let own = samples.iter().filter(|sample| sample.task == case.task);
    let (name, value, interval, texts) =
        if let (Some((name, ..)), Some((_, Estimate { value, interval }, texts))) =
            (perplexities(own.clone()).into_iter().next(), perplexity(own.clone()))
        {
            (name, fixed(Some(value), 3), interval, texts)
        } else {
            let measure = own.clone().find_map(leading)?;
            let values: Vec<f64> = own.filter_map(|sample| sample.measures.get(measure)).copied().collect();
            (text!("mean {measure}", measure), fixed(mean(&values), 4), None, values.len())
        };
    let interval = interval.map(|Interval { low, high }| {
        text!(" (95 % interval {low} to {high})", low = fixed(Some(low), 3), high = fixed(Some(high), 3))
    });
    Some(text!(
        "{task} ({protocol}): {name} {value} over {texts} text{texts:s}{limited}{interval}.{failed}",
        task = case.task,
        protocol = case.protocol,
        name,
        value,
        texts,
        limited = limited(case.part_of(), texts as u64),
        interval = interval.unwrap_or_default(),
        failed = failed(failure)
    ))
}

/// Cases that were skipped, one sentence per reason.
fn left_out(run: &RunRecord) -> Vec<Text> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for case in &run.plan.performance {
        let Some(reason) = case.unfit.as_deref() else { continue };
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, cases)) => cases.push(&case.case_id),
            None => reasons.push((reason, vec![&case.case_id])),
        }
    }
    let sentence = |(reason, cases): (&str, Vec<&str>)| {
        text!("Left out: {cases} ({reason}).", cases = joined(&cases, ", "), reason)
    };
    reasons.into_iter().map(sentence).collect()
}

/// The fastest decode, and the aggregate rate: all output tokens over total time.
fn speed(run: &RunRecord, performance: &[PerfRow]) -> Option<Text> {
    let usable = |phase| performance.iter().filter(move |r| r.phase == phase && r.valid == Some(true));
    let rate = |row: &&PerfRow| row.tokens_per_s.unwrap_or(0.0);
    let best = usable(Phase::Decode).max_by(|a, b| rate(a).total_cmp(&rate(b)))?;
    let (tokens, seconds) = usable(Phase::E2e)
        .filter_map(|row| row.mean_ns.map(|mean| (row.reps as f64, row.tokens as f64, mean as f64 / 1e9)))
        .fold((0.0, 0.0), |(t, s), (reps, tokens, seconds)| (t + reps * tokens, s + reps * seconds));
    let from = &run.provenance;
    Some(text!(
        "Decode reaches {rate} tokens/s{after} at batch {batch} ({input_tokens} in, {output_tokens} out), {clock} on {device} in {dtype}; {tokens} output tokens/s{span} end to end \
         over all cases.",
        rate = significant(rate(&best), 4),
        after = modelled::after(run, best, Phase::Decode),
        batch = best.batch,
        input_tokens = best.input_tokens,
        output_tokens = best.output_tokens,
        clock = from.clock,
        device = from.device,
        dtype = from.dtype,
        tokens = significant(tokens / seconds, 4),
        span = modelled::span(run, performance.iter(), Phase::E2e)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SampleState;
    use crate::report::{accuracy_rows, fixture, perf_rows};

    fn said(fixture::Records { run, samples, requests }: &fixture::Records) -> Vec<Text> {
        let (accuracy, performance) = (accuracy_rows(run, samples), perf_rows(run, requests));
        sentences(run, &accuracy, samples, &performance, requests)
    }

    #[test]
    fn texts_without_right_answers_have_their_perplexity_or_mean_score() {
        let mut records = fixture::realistic();
        let task = records.run.plan.accuracy[0].task.clone();
        records.run.plan.accuracy[0].keyless = true;
        let own = |measures: &[(&str, f64)], records: &mut fixture::Records| {
            for sample in records.samples.iter_mut().filter(|sample| sample.task == task) {
                sample.measures = measures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
            }
        };
        own(&[("loglikelihood", -20.0), ("tokens", 10.0)], &mut records);
        let words = said(&records)[0].to_string();
        assert!(
            words.contains(": token perplexity 7.389 over 240 texts (95 % interval 7.389 to 7.389)."),
            "{words}"
        );
        own(&[("score", 0.25)], &mut records);
        let words = said(&records)[0].to_string();
        assert!(words.contains(": mean score 0.2500 over 240 texts."), "{words}");
        own(&[("bleu-diff", -1.5), ("bleu-max", 3.0)], &mut records);
        let words = said(&records)[0].to_string();
        assert!(words.contains(": mean bleu-diff -1.5000 over 240 texts."), "{words}");
        // Failed texts are told, and are outside the mean.
        let failed = records.samples.iter_mut().find(|sample| sample.task == task).unwrap();
        (failed.state, failed.error) = (SampleState::Failed, Some("no answer".into()));
        failed.measures.clear();
        let words = said(&records)[0].to_string();
        assert!(
            words.contains("over 239 texts. Apart from these: ") && words.contains("no answer"),
            "{words}"
        );
    }

    #[test]
    fn says_what_was_reached_and_by_which_clock() {
        let found = said(&fixture::realistic());
        assert_eq!(found.len(), 3);
        assert!(
            found[0].starts_with("ceval (modeltest-5shot): ") && found[0].contains("of 239 items"),
            "{found:?}"
        );
        // Failures are named beside the score.
        assert!(found[0].contains(" Apart from these: prompt of 2311 tokens"), "{found:?}");
        assert!(found[0].to_string().ends_with("; 1 of 240 items failed."), "{found:?}");
        assert!(found[2].contains("measured on cpu in fp16"), "{found:?}");
        let run = fixture::run();
        assert!(title(&run).starts_with("demo on cpu in fp16, measured (suite quickstart, run "));
        let mut running = run.clone();
        running.status = crate::record::Status::Running;
        assert_eq!(said(&fixture::Records::empty(running)), ["Nothing has finished yet."]);
    }

    #[test]
    fn a_run_of_which_all_failed_says_why() {
        let fixture::Records { run, mut samples, mut requests } = fixture::quiet();
        for sample in &mut samples {
            sample.state = crate::record::SampleState::Failed;
            sample.error = Some("logits not finite: position 7, token id 0 is NaN".into());
        }
        requests.truncate(1);
        requests[0].error = Some("sequence 0 of the batch: logits not finite".into());
        let found = said(&fixture::Records { run, samples, requests });
        assert_eq!(
            found[1],
            "boolq (loglikelihood): no score; logits not finite: position 7, token id 0 is NaN (from item val--0 of boolq); \
             120 of 120 items failed."
        );
        assert_eq!(found[2], "Failed: b1-i32-o32 (warm-up: sequence 0 of the batch: logits not finite).");
        assert!(found[3].starts_with("Failed: b2-i32-o32, b4-i32-o32"), "{found:?}");
    }
}
