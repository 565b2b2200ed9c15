//! Turns timed repetitions into the rows of `perf.csv`.

use crate::language::{Text, joined, text};
use crate::record::{
    Clock, Cost, PerfRow, PerformanceCase, Phase, Provenance, RepetitionKind, RequestRecord, Roofline,
    RooflineSample, RunRecord, SCHEMA,
};
use crate::report::compare::common::Comparable;
use crate::report::workloads::{Part, Reported};
use crate::stats::{RESAMPLES, mad, mean, median, median_interval, quantile, stddev};
use std::collections::BTreeMap;

/// Seed of the bootstrap behind every printed interval. Arbitrary but fixed.
const BOOTSTRAP_SEED: u64 = 1;
/// Fewest samples for a 99 % quantile.
const P99_SAMPLES: usize = 100;

/// What shapes add to a report here: nothing. [`Summary`](crate::report::Summary) shows their rows among its own tables,
/// because targets, operators, gates and the comparison of speed read them, too.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShapesReport;

impl Part for ShapesReport {}

impl Reported for ShapesReport {
    type Case = PerformanceCase;
    const NAMES: [&'static str; 2] = ["timed case", "timed cases"];

    fn of(_: &RunRecord, _: &[RequestRecord]) -> Self {
        Self
    }
}

/// The comparison of speed reads the rows.
impl Comparable for ShapesReport {}

/// Returns three rows (prefill, decode, e2e) for each case, in plan order.
pub fn perf_rows(run: &RunRecord, requests: &[RequestRecord]) -> Vec<PerfRow> {
    run.plan
        .performance
        .iter()
        .flat_map(|case| {
            let repetitions = Repetitions::of(case, requests);
            [Phase::Prefill, Phase::Decode, Phase::E2e].map(|phase| row(run, case, phase, &repetitions))
        })
        .collect()
}

/// Returns the median time per token after the first, in nanoseconds.
pub(crate) fn per_token_ns(decode: &PerfRow) -> Option<f64> {
    decode.median_ns.map(|ns| ns as f64 / f64::from(decode.output_tokens.saturating_sub(1).max(1)))
}

/// Duration of a phase of a repetition. `None` if the repetition lacks that phase.
pub fn phase_ns(request: &RequestRecord, phase: Phase) -> Option<u64> {
    match phase {
        Phase::Prefill => Some(request.prefill_ns),
        Phase::Decode if request.output_tokens < 2 => None,
        Phase::Decode => request.end_ns.checked_sub(request.first_token_ns),
        Phase::E2e => request.end_ns.checked_sub(request.start_ns),
    }
}

/// Tokens that a phase of one repetition processes, over the whole batch.
pub fn phase_tokens(case: &PerformanceCase, phase: Phase) -> u64 {
    let each = match phase {
        Phase::Prefill => case.input_tokens,
        Phase::Decode => case.output_tokens.saturating_sub(1),
        Phase::E2e => case.output_tokens,
    };
    u64::from(case.batch) * u64::from(each)
}

/// Time to first token of a repetition: from its start to the end of prefill, including the choice of the first
/// token.
pub fn ttft_ns(request: &RequestRecord) -> Option<u64> {
    request.first_token_ns.checked_sub(request.start_ns)
}

/// Time per output token after the first. `None` for a single token.
pub fn tpot_ns(request: &RequestRecord) -> Option<f64> {
    phase_ns(request, Phase::Decode).map(|ns| ns as f64 / f64::from(request.output_tokens - 1))
}

/// The repetitions that the figures use: timed, complete, without error, in the order they were run.
pub fn good_repetitions<'a>(case: &PerformanceCase, requests: &'a [RequestRecord]) -> Vec<&'a RequestRecord> {
    Repetitions::of(case, requests).good
}

/// The repetitions of a case, sorted by usability.
pub(crate) struct Repetitions<'a> {
    /// Timed, complete and without error, in the order they were run. The figures use these.
    pub(crate) good: Vec<&'a RequestRecord>,
    /// Number of warm-ups.
    pub(crate) warmups: u64,
    /// No timed repetition was run, good or bad, and no warm-up failed.
    pub(crate) unrun: bool,
    /// Why the figures may not be used.
    pub(crate) invalid: Option<Text>,
}

impl<'a> Repetitions<'a> {
    pub(crate) fn of(case: &PerformanceCase, requests: &'a [RequestRecord]) -> Self {
        let of_case = || requests.iter().filter(|r| r.case_id == case.case_id);
        let warmups = of_case().filter(|r| r.kind == RepetitionKind::Warmup).count() as u64;
        let mut timed: Vec<_> = of_case().filter(|r| r.kind == RepetitionKind::Timed).collect();
        timed.sort_by_key(|r| r.repetition);
        let failed = of_case().find(|r| r.kind == RepetitionKind::Warmup && r.error.is_some());
        let unrun = timed.is_empty() && failed.is_none();
        let (good, bad): (Vec<_>, Vec<_>) = timed.into_iter().partition(|r| fault(case, r).is_none());
        let invalid = match bad.first().and_then(|r| fault(case, r)) {
            Some(first) => Some(text!(
                "{bad} of {all} repetitions: {first}",
                bad = bad.len(),
                all = bad.len() + good.len(),
                first
            )),
            None if failed.is_some() => {
                failed.and_then(|r| r.error.as_ref()).map(|error| text!("warm-up: {error}", error))
            }
            None if case.unfit.is_some() => None,
            None if good.is_empty() => Some(text!("no timed repetition finished")),
            None => unequal_outputs(&good),
        };
        Self { good, warmups, unrun, invalid }
    }
}

/// Returns what makes a repetition's times meaningless.
fn fault(case: &PerformanceCase, request: &RequestRecord) -> Option<Text> {
    if let Some(error) = &request.error {
        return Some(error.into());
    }
    // Real prompts have their own lengths.
    let input_tokens = if request.prompts.is_some() { case.input_tokens } else { request.input_tokens };
    let shape = (request.batch, input_tokens, request.output_tokens);
    let wanted = (case.batch, case.input_tokens, case.output_tokens);
    if shape != wanted {
        return Some(text!(
            "batch, input and output of {shape} where {wanted} was asked for",
            shape = format!("{shape:?}"),
            wanted = format!("{wanted:?}")
        ));
    }
    let forward = request.start_ns <= request.first_token_ns && request.first_token_ns <= request.end_ns;
    (!forward).then(|| text!("its clock ran backwards"))
}

/// Equal prompts with greedy decoding: a repetition with another output did other or wrong work.
fn unequal_outputs(good: &[&RequestRecord]) -> Option<Text> {
    let mut groups: BTreeMap<Option<u32>, BTreeMap<&str, u32>> = BTreeMap::new();
    for request in good {
        let group = request.prompts.as_ref().map(|prompts| prompts.group);
        *groups.entry(group).or_default().entry(&request.output_hash).or_default() += 1;
    }
    let counts = groups.values().find(|counts| counts.len() > 1)?;
    let parts: Vec<String> = counts.iter().map(|(hash, count)| format!("{hash} × {count}")).collect();
    Some(text!("output differs between repetitions: {parts}", parts = joined(&parts, ", ")))
}

/// Tokens that a phase of a repetition processes.
fn tokens_of(case: &PerformanceCase, phase: Phase, request: &RequestRecord) -> u64 {
    match phase {
        Phase::Prefill if case.prompts.is_some() => request.prompt_tokens(),
        _ => phase_tokens(case, phase),
    }
}

/// Tokens per second: all tokens over total time.
fn rate_over_all(tokens: u64, times: &[u64]) -> Option<f64> {
    // Times that no machine has are still numbers: their sum may need more bits.
    let ns: u128 = times.iter().map(|&ns| u128::from(ns)).sum();
    (tokens > 0 && ns > 0).then(|| tokens as f64 / (ns as f64 / 1e9))
}

/// Tokens per second of the middle repetition: from the median time if all have the same tokens, else the median of
/// their rates.
fn median_rate(
    case: &PerformanceCase,
    phase: Phase,
    good: &[&RequestRecord],
    median_ns: Option<u64>,
) -> Option<f64> {
    let rate = |tokens: u64, ns: u64| (tokens > 0 && ns > 0).then(|| tokens as f64 / (ns as f64 / 1e9));
    if case.prompts.is_none() {
        return rate(phase_tokens(case, phase), median_ns?);
    }
    let rates = good.iter().filter_map(|r| rate(tokens_of(case, phase, r), phase_ns(r, phase)?));
    median(&rates.collect::<Vec<f64>>())
}

fn row(run: &RunRecord, case: &PerformanceCase, phase: Phase, repetitions: &Repetitions<'_>) -> PerfRow {
    let times: Vec<u64> = repetitions.good.iter().filter_map(|r| phase_ns(r, phase)).collect();
    let ns: Vec<f64> = times.iter().map(|&t| t as f64).collect();
    let whole = |x: Option<f64>| x.map(|x| x.round() as u64);
    let interval = median_interval(&ns, 0.95, RESAMPLES, BOOTSTRAP_SEED);
    let median_ns = whole(median(&ns));
    let seconds = median_ns.filter(|&t| t > 0).map(|t| t as f64 / 1e9);
    // A damaged plan may claim counts with a sum above the type.
    let all_tokens = repetitions.good.iter().map(|r| tokens_of(case, phase, r)).fold(0, u64::saturating_add);
    // The rounded mean for real prompts.
    let tokens = match repetitions.good.len() as u64 {
        0 => phase_tokens(case, phase),
        n => all_tokens.saturating_add(n / 2) / n,
    };
    let cost = phase_cost(case, phase);
    let absent = phase == Phase::Decode && case.output_tokens < 2;
    PerfRow {
        schema: SCHEMA,
        run_id: run.run_id.clone(),
        case_id: case.case_id.clone(),
        engine: run.provenance.engine.clone(),
        device: run.provenance.device.clone(),
        clock: run.provenance.clock,
        dtype: run.provenance.dtype.clone(),
        tp: case.tp,
        threads: run.origin_of(&case.case_id).map_or(run.provenance.threads, |origin| origin.threads),
        batch: case.batch,
        input_tokens: case.input_tokens,
        output_tokens: case.output_tokens,
        phase,
        reps: times.len() as u64,
        warmups: repetitions.warmups,
        median_ns,
        mad_ns: whole(mad(&ns)),
        mean_ns: whole(mean(&ns)),
        stddev_ns: whole(stddev(&ns)),
        ci95_lo_ns: whole(interval.map(|i| i.low)),
        ci95_hi_ns: whole(interval.map(|i| i.high)),
        min_ns: times.iter().min().copied(),
        max_ns: times.iter().max().copied(),
        p50_ns: whole(quantile(&ns, 0.5)),
        p90_ns: whole(quantile(&ns, 0.9)),
        p99_ns: whole(p99(&ns)),
        tokens,
        tokens_per_s: rate_over_all(all_tokens, &times),
        tokens_per_s_median: median_rate(case, phase, &repetitions.good, median_ns),
        bytes_touched: cost.map(|c| c.bytes),
        achieved_gb_s: cost.zip(seconds).map(|(c, s)| c.bytes as f64 / s / 1e9),
        roofline_pct: least_seconds(case, phase, case_roofline(run, case, &repetitions.good).as_ref())
            .zip(seconds)
            .map(|(least, s)| 100.0 * least / s),
        peak_rss_bytes: repetitions.good.iter().filter_map(|r| r.peak_rss_bytes).max(),
        device_memory_bytes: repetitions.good.iter().filter_map(|r| r.device_memory_bytes).max(),
        energy_j: None,
        j_per_token: None,
        output_hash: repetitions.good.first().map(|r| r.output_hash.clone()),
        valid: (!absent && case.unfit.is_none()).then_some(repetitions.invalid.is_none()),
        invalid_reason: repetitions
            .invalid
            .clone()
            .or_else(|| case.unfit.as_ref().map(Text::from))
            .or_else(|| absent.then(|| text!("no decode phase: one output token"))),
        host: run.host_of(&case.case_id).to_owned(),
    }
}

/// The 99 % quantile, if there are enough samples.
pub(crate) fn p99(samples: &[f64]) -> Option<f64> {
    quantile(samples, 0.99).filter(|_| samples.len() >= P99_SAMPLES)
}

/// Work of a phase. End to end is the sum of both.
pub(crate) fn phase_cost(case: &PerformanceCase, phase: Phase) -> Option<Cost> {
    match phase {
        Phase::Prefill => case.prefill_cost,
        Phase::Decode => case.decode_cost.filter(|_| case.output_tokens > 1),
        Phase::E2e if case.output_tokens < 2 => case.prefill_cost,
        Phase::E2e => case.prefill_cost.zip(case.decode_cost).map(|(a, b)| Cost {
            bytes: a.bytes.saturating_add(b.bytes),
            flops: a.flops.saturating_add(b.flops),
        }),
    }
}

/// The roofline of a case: for each limit the median of what was measured around the repetitions. Without such
/// measurements, [`roofline_of`].
pub(crate) fn case_roofline(
    run: &RunRecord,
    case: &PerformanceCase,
    good: &[&RequestRecord],
) -> Option<Roofline> {
    let before = scaled(run.roofline_of(&case.case_id)?, run.provenance.clock, case.tp);
    let around = |of: &dyn Fn(&RooflineSample) -> Option<f64>| {
        let found: Vec<f64> =
            good.iter().filter_map(|request| request.roofline_samples.as_ref()?.mean(of)).collect();
        median(&found)
    };
    let measured = run.roofline_of(&case.case_id).and_then(|roofline| roofline.measured.as_ref());
    let peak = measured.and_then(|measured| around(&|sample| measured.peak_in(sample)));
    Some(Roofline {
        bandwidth_bytes_per_s: around(&RooflineSample::bandwidth).unwrap_or(before.bandwidth_bytes_per_s),
        peak_flops_per_s: peak.unwrap_or(before.peak_flops_per_s),
        measured: None,
    })
}

/// The roofline of a case with `tp` ranks: the machine as measured before the cases, or `tp` times the profile's chip.
pub(crate) fn roofline_of(of: &Provenance, tp: u32) -> Option<Roofline> {
    of.roofline.as_ref().map(|one| scaled(one, of.clock, tp))
}

/// Returns the roofline of `tp` ranks: the roofline of the machine, or `tp` times that of the chip in a profile.
pub(crate) fn scaled(one: &Roofline, clock: Clock, tp: u32) -> Roofline {
    let chips = if clock == Clock::Modelled { f64::from(tp) } else { 1.0 };
    Roofline {
        bandwidth_bytes_per_s: chips * one.bandwidth_bytes_per_s,
        peak_flops_per_s: chips * one.peak_flops_per_s,
        measured: None,
    }
}

/// Least time that the machine's limits allow. The phases run in sequence, so the end-to-end bound is the sum of
/// their bounds, not the bound of the summed work.
fn least_seconds(case: &PerformanceCase, phase: Phase, roofline: Option<&Roofline>) -> Option<f64> {
    let bound = |cost: Cost, limit: &Roofline| {
        let memory = cost.bytes as f64 / limit.bandwidth_bytes_per_s;
        let arithmetic = cost.flops as f64 / limit.peak_flops_per_s;
        Some(memory.max(arithmetic)).filter(|s| s.is_finite() && *s > 0.0)
    };
    if phase == Phase::E2e && case.output_tokens > 1 {
        let prefill = least_seconds(case, Phase::Prefill, roofline)?;
        return Some(prefill + least_seconds(case, Phase::Decode, roofline)?);
    }
    bound(phase_cost(case, phase)?, roofline?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RooflineSamples;
    use crate::report::fixture;

    /// Two sequences of 16 + 3 tokens. Start at 1000; prefill steps of 40 and 50 with 10 between them; first tokens
    /// at 1110. Decode steps of 20 and 25, each followed by 5 of bookkeeping; last token at 1160.
    fn timeline() -> RequestRecord {
        RequestRecord {
            case_id: "b2-i16-o3".into(),
            batch: 2,
            input_tokens: 16,
            output_tokens: 3,
            start_ns: 1000,
            prefill_ns: 90,
            first_token_ns: 1110,
            step_ns: vec![20, 25],
            end_ns: 1160,
            ..fixture::request()
        }
    }

    fn case() -> PerformanceCase {
        PerformanceCase {
            case_id: "b2-i16-o3".into(),
            tp: 1,
            batch: 2,
            input_tokens: 16,
            output_tokens: 3,
            prompts: None,
            unfit: None,
            largest_batch: None,
            alone_bytes: None,
            repetitions: 1,
            seed: None,
            prefill_cost: Some(Cost { bytes: 100, flops: 9_000 }),
            decode_cost: Some(Cost { bytes: 200, flops: 100 }),
        }
    }

    fn rows(requests: &[RequestRecord]) -> Vec<PerfRow> {
        let mut run = fixture::run();
        run.plan.performance = vec![case()];
        // 10 bytes and 200 operations per nanosecond.
        run.provenance.roofline =
            Some(Roofline { bandwidth_bytes_per_s: 1e10, peak_flops_per_s: 2e11, measured: None });
        perf_rows(&run, requests)
    }

    #[test]
    fn the_definitions_hold_on_a_hand_made_timeline() {
        let request = timeline();
        assert_eq!(ttft_ns(&request), Some(110));
        assert_eq!(phase_ns(&request, Phase::Prefill), Some(90));
        assert_eq!(phase_ns(&request, Phase::Decode), Some(50));
        assert_eq!(tpot_ns(&request), Some(25.0));
        assert_eq!(phase_ns(&request, Phase::E2e), Some(160));
        let rows = rows(&[request]);
        let rates: Vec<f64> = rows.iter().map(|r| r.tokens_per_s_median.unwrap()).collect();
        assert_eq!(rates, [32.0 / 90e-9, 4.0 / 50e-9, 6.0 / 160e-9]);
        assert_eq!(rows.iter().map(|r| r.tokens).collect::<Vec<_>>(), [32, 4, 6]);
    }

    #[test]
    fn the_roofline_is_the_nearer_of_the_two_limits() {
        let rows = rows(&[timeline()]);
        // Prefill: 10 ns of bytes, 45 ns of arithmetic. Decode: 20 ns of bytes.
        let shares: Vec<f64> = rows.iter().map(|r| r.roofline_pct.unwrap()).collect();
        for (share, wanted) in
            shares.iter().zip([100.0 * 45.0 / 90.0, 100.0 * 20.0 / 50.0, 100.0 * 65.0 / 160.0])
        {
            assert!((share - wanted).abs() < 1e-9, "{share} {wanted}");
        }
        assert!((rows[1].achieved_gb_s.unwrap() - 4.0).abs() < 1e-9);
        assert_eq!(rows[2].bytes_touched, Some(300));
    }

    #[test]
    fn limits_around_the_repetitions_go_before_those_before_the_cases() {
        let roofline_samples = |bandwidth: u64| {
            let sample = |bandwidth| RooflineSample {
                bandwidth_bytes_per_s: Some(bandwidth),
                ..RooflineSample::default()
            };
            Some(RooflineSamples {
                before: sample(bandwidth - 1_000_000_000),
                after: sample(bandwidth + 1_000_000_000),
            })
        };
        let repetition =
            |repetition, roofline_samples| RequestRecord { repetition, roofline_samples, ..timeline() };
        let rows = rows(&[
            repetition(0, roofline_samples(5_000_000_000)),
            repetition(1, roofline_samples(4_000_000_000)),
            repetition(2, roofline_samples(8_000_000_000)),
            repetition(3, None),
        ]);
        // Decode: 200 bytes at 5 bytes/ns. No peak was measured around the repetitions, so prefill's arithmetic bound
        // stays.
        let shares: Vec<f64> = rows.iter().map(|r| r.roofline_pct.unwrap()).collect();
        assert!((shares[0] - 50.0).abs() < 1e-9 && (shares[1] - 80.0).abs() < 1e-9, "{shares:?}");
    }

    #[test]
    fn warm_ups_are_counted_and_not_averaged() {
        let slow = RequestRecord { kind: RepetitionKind::Warmup, end_ns: 9000, ..timeline() };
        let rows = rows(&[slow, timeline()]);
        assert_eq!((rows[2].reps, rows[2].warmups, rows[2].median_ns), (1, 1, Some(160)));
        assert_eq!((rows[2].stddev_ns, rows[2].ci95_lo_ns, rows[2].p99_ns), (None, None, None));
    }

    #[test]
    fn what_spoils_a_case_is_said() {
        let second = || RequestRecord { repetition: 1, ..timeline() };
        let reason = |requests: &[RequestRecord]| {
            let row = rows(requests).remove(2);
            assert_eq!(row.valid, Some(row.invalid_reason.is_none()));
            row.invalid_reason.unwrap_or_default()
        };
        assert_eq!(reason(&[timeline(), second()]), "");
        assert_eq!(reason(&[]), "no timed repetition finished");
        let other = RequestRecord { output_hash: "beef".into(), ..second() };
        assert!(reason(&[timeline(), other]).starts_with("output differs between repetitions: "));
        let failed = RequestRecord { error: Some("device lost".into()), ..second() };
        assert_eq!(reason(&[timeline(), failed]), "1 of 2 repetitions: device lost");
        let short = RequestRecord { output_tokens: 2, ..second() };
        assert!(reason(&[timeline(), short]).contains("(2, 16, 2) where (2, 16, 3)"));
        let backwards = RequestRecord { end_ns: 5, ..second() };
        assert!(reason(&[timeline(), backwards]).contains("backwards"));
    }

    #[test]
    fn one_output_token_has_no_decode_and_says_so() {
        let mut run = fixture::run();
        run.plan.performance = vec![PerformanceCase { output_tokens: 1, ..case() }];
        let request = RequestRecord { output_tokens: 1, step_ns: vec![], end_ns: 1110, ..timeline() };
        let rows = perf_rows(&run, std::slice::from_ref(&request));
        assert_eq!(tpot_ns(&request), None);
        assert_eq!((rows[1].median_ns, rows[1].reps, rows[1].valid), (None, 0, None));
        assert_eq!(
            rows[1].invalid_reason.as_ref().map(ToString::to_string).as_deref(),
            Some("no decode phase: one output token")
        );
        assert_eq!((rows[0].valid, rows[2].valid), (Some(true), Some(true)));
    }

    #[test]
    fn p99_needs_a_hundred_samples() {
        let samples: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(p99(&samples[1..]), None);
        assert!((p99(&samples).unwrap() - 98.01).abs() < 1e-9);
    }
}
