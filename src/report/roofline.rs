//! Compares a run with its machine's roofline: the rows of `limits.csv`, and their tables.

mod reached;
mod tables;

use self::reached::{Reached, Trial};
use super::modelled;
use super::performance::{good_repetitions, phase_cost, phase_ns, scaled};
use super::validity::{ON_HUGE_PAGES, on_huge_pages, percent_below};
use crate::language::{Text, joined, text};
use crate::record::{
    Cost, Figure, LimitRow, OperatorRecord, PerfRow, PerformanceCase, Phase, RequestRecord, Roofline,
    RooflineSample, RunRecord, SCHEMA, Target,
};

pub(super) use self::tables::{machine, phases, table};

/// `limit_of` of a row that is held against the memory.
const BANDWIDTH: &str = "bandwidth";

/// Returns one row per target of the plan.
pub fn limit_rows(run: &RunRecord, performance: &[PerfRow], requests: &[RequestRecord]) -> Vec<LimitRow> {
    let of = Measured { run, performance, requests };
    run.plan.targets.iter().map(|target| of.row(target)).collect()
}

struct Measured<'a> {
    run: &'a RunRecord,
    performance: &'a [PerfRow],
    requests: &'a [RequestRecord],
}

impl<'a> Measured<'a> {
    fn row(&self, target: &Target) -> LimitRow {
        let reached = match target.figure {
            Figure::DecodeBandwidth => {
                self.over_bandwidth(target, self.trials(target, Phase::Decode, |cost| cost.bytes))
            }
            Figure::AttentionBandwidth => self.over_bandwidth(target, self.attention(target)),
            Figure::PrefillPeak => self.over_peak(target),
            Figure::DecodeSpeedup => {
                let tokens = |_: &PerformanceCase, row: &PerfRow| Some(row.tokens as f64);
                self.over_case(target, Phase::Decode, tokens)
            }
            Figure::PrefillRate => self.over_case(target, Phase::Prefill, flops_of_prefill),
            Figure::LoadTime | Figure::LoadMemory => self.loading(target),
        };
        let range = reached.range();
        LimitRow {
            schema: SCHEMA,
            run_id: self.run.run_id.clone(),
            figure: target.figure,
            case_id: target.case_id.clone(),
            value: reached.value,
            limit: reached.limit,
            unit: unit(target.figure).to_owned(),
            ratio: reached.ratio,
            ratio_low: range.map(|range| range.low),
            ratio_high: range.map(|range| range.high),
            at_least: target.at_least,
            at_most: target.at_most,
            met: reached.meets(target),
            note: self.note(target, &reached),
            limit_of: reached.limit_of,
        }
    }

    /// Returns the remarks of a row. A modelled value carries the error of its phase.
    fn note(&self, target: &Target, reached: &Reached) -> Option<Text> {
        let case =
            self.run.plan.performance.iter().find(|case| Some(&case.case_id) == target.case_id.as_ref());
        let error = case.zip(phase_of(target.figure)).and_then(|(case, phase)| {
            let lengths = [case.batch, case.input_tokens, case.output_tokens];
            modelled::error_at(self.run, phase, case.tp, lengths)
        });
        let error = error.as_ref().filter(|_| reached.value.is_some()).map(modelled::remark);
        let notes: Vec<Text> = reached.notes(target).into_iter().chain(error).collect();
        (!notes.is_empty()).then(|| joined(notes, "; "))
    }

    /// Returns a case with its row of a phase, or why the row may not be used.
    fn usable(&self, case_id: &str, phase: Phase) -> Result<(&PerformanceCase, &PerfRow), Text> {
        let case = self.run.plan.performance.iter().find(|case| case.case_id == case_id);
        let case = case.ok_or_else(|| text!("the suite has no case {case_id}", case_id))?;
        let row = self.performance.iter().find(|row| row.case_id == case_id && row.phase == phase);
        let row = row.ok_or_else(|| text!("not measured"))?;
        if row.valid != Some(true) {
            return Err(row.invalid_reason.clone().unwrap_or_else(|| text!("not measured")));
        }
        Ok((case, row))
    }

    /// Returns the rate per second of a count in a phase of a case, over all its repetitions, or why there is none.
    fn rate_of(
        &self,
        case_id: &str,
        phase: Phase,
        count: impl Fn(&PerformanceCase, &PerfRow) -> Option<f64>,
    ) -> Result<f64, Text> {
        let (case, row) = self.usable(case_id, phase)?;
        let seconds = row.mean_ns.filter(|&ns| ns > 0).map(|ns| ns as f64 / 1e9);
        let rate = count(case, row).zip(seconds).map(|(count, seconds)| count / seconds);
        rate.ok_or_else(unknown_work)
    }

    /// Returns the rate per second of a count in a phase for each repetition of the target case, or why there are
    /// none.
    fn trials(
        &self,
        target: &Target,
        phase: Phase,
        count: impl Fn(Cost) -> u64,
    ) -> Result<Vec<Trial<'a>>, Text> {
        let (case, _) = self.usable(target.case_id.as_deref().unwrap_or_default(), phase)?;
        let count = phase_cost(case, phase).map(count).filter(|&count| count > 0).ok_or_else(unknown_work)?;
        let trial = |request| Trial::of(request, count, phase_ns(request, phase)?);
        Ok(good_repetitions(case, self.requests).into_iter().filter_map(trial).collect())
    }

    /// For each repetition, returns the bytes per second of KV cache that the attention operator reads during decode.
    fn attention(&self, target: &Target) -> Result<Vec<Trial<'a>>, Text> {
        // An invalid case invalidates its operators.
        let (case, _) = self.usable(target.case_id.as_deref().unwrap_or_default(), Phase::Decode)?;
        let is = |o: &&OperatorRecord| o.phase == Phase::Decode && o.operator == "attention";
        let attention = |request: &'a RequestRecord| Some((request, request.operators.iter().find(is)?));
        let timed: Vec<_> = good_repetitions(case, self.requests).into_iter().filter_map(attention).collect();
        if timed.is_empty() {
            return Err(text!("operators were not timed: --profile-operators"));
        }
        let trial = |(request, attention): (_, &OperatorRecord)| {
            Trial::of(request, attention.bytes, attention.time_ns)
        };
        let trials: Vec<_> = timed.into_iter().filter_map(trial).collect();
        if trials.is_empty() { Err(text!("nothing was read")) } else { Ok(trials) }
    }

    /// Limits of the target case as measured before the cases.
    fn roofline(&self, target: &Target) -> Option<Roofline> {
        let is = |case: &&PerformanceCase| Some(&case.case_id) == target.case_id.as_ref();
        let tp = self.run.plan.performance.iter().find(is).map_or(1, |case| case.tp);
        let one = self.run.roofline_of(target.case_id.as_deref().unwrap_or_default())?;
        Some(scaled(one, self.run.provenance.clock, tp))
    }

    fn over_bandwidth(&self, target: &Target, trials: Result<Vec<Trial<'_>>, Text>) -> Reached {
        let before =
            self.roofline(target).map(|roofline| roofline.bandwidth_bytes_per_s).ok_or_else(no_limits);
        Reached::by_trials(trials, RooflineSample::bandwidth, before, Some(BANDWIDTH.to_owned()))
    }

    fn over_peak(&self, target: &Target) -> Reached {
        let trials = self.trials(target, Phase::Prefill, |cost| cost.flops);
        let of_case = self.run.roofline_of(target.case_id.as_deref().unwrap_or_default());
        let measured = of_case.and_then(|roofline| roofline.measured.as_ref());
        let roofline = self.roofline(target);
        let (before, unit) = match &target.unit {
            None => (
                roofline.as_ref().map(|roofline| roofline.peak_flops_per_s),
                measured.and_then(|measured| measured.peak_words()),
            ),
            Some(name) => (
                measured.and_then(|measured| measured.unit(name)).map(|unit| unit.all_threads.median),
                Some(name.clone()),
            ),
        };
        let before = before.ok_or_else(|| match &target.unit {
            Some(name) if roofline.is_some() => text!("not applicable: this machine has no {name}", name),
            _ => no_limits(),
        });
        let around = |sample: &RooflineSample| match &target.unit {
            None => measured?.peak_in(sample),
            Some(name) => sample.peak(name),
        };
        Reached::by_trials(trials, around, before, unit.clone())
    }

    fn over_case(
        &self,
        target: &Target,
        phase: Phase,
        count: impl Fn(&PerformanceCase, &PerfRow) -> Option<f64>,
    ) -> Reached {
        let over = target.over.clone().unwrap_or_default();
        let value = self.rate_of(target.case_id.as_deref().unwrap_or_default(), phase, &count);
        let own = target.case_id.as_deref().unwrap_or_default();
        let limit = match self.run.unlike_machines(own, self.run, &over) {
            Some(why) => Err(why),
            None => self.rate_of(&over, phase, &count).map_err(|why| text!("{over}: {why}", over, why)),
        };
        Reached::of(value, limit, Some(over))
    }

    fn loading(&self, target: &Target) -> Reached {
        let Some(load) = &self.run.provenance.load else {
            return Reached { note: Some(text!("loading was not watched")), ..Reached::default() };
        };
        let value = match target.figure {
            Figure::LoadTime => Some(load.load_ns as f64 / 1e9),
            _ => load
                .peak_rss_bytes
                .map(|peak| (peak as f64 - load.weight_bytes as f64 - load.kv_bytes as f64) / 1e9),
        };
        let mut note = match (value, load.pack_cache.as_deref()) {
            (None, _) => Some(text!("the system does not tell")),
            _ if target.figure != Figure::LoadTime => None,
            _ if load.made => Some(text!("random weights, made while loading instead of read")),
            (_, Some("mapped")) => Some(text!("packed weights, mapped from their cache")),
            (_, Some("written")) => Some(text!("with writing the cache of packed weights")),
            _ => None,
        };
        let share = on_huge_pages(load).map(|(share, _)| share).filter(|share| *share < ON_HUGE_PAGES);
        if let (Some(share), Figure::LoadTime) = (share, target.figure) {
            let pages = text!("{share} % of the large weights on huge pages", share = percent_below(share));
            note = Some(joined(note.into_iter().chain([pages]), "; "));
        }
        Reached { value, note, ..Reached::default() }
    }
}

fn no_limits() -> Text {
    text!("the limits of this device were not measured")
}

fn unknown_work() -> Text {
    text!("the work of this case is not known")
}

fn flops_of_prefill(case: &PerformanceCase, _: &PerfRow) -> Option<f64> {
    phase_cost(case, Phase::Prefill).map(|cost| cost.flops as f64)
}

/// The phase that a figure times. `None` for figures of loading, which the host's clock measures.
fn phase_of(figure: Figure) -> Option<Phase> {
    match figure {
        Figure::DecodeBandwidth | Figure::AttentionBandwidth | Figure::DecodeSpeedup => Some(Phase::Decode),
        Figure::PrefillPeak | Figure::PrefillRate => Some(Phase::Prefill),
        Figure::LoadTime | Figure::LoadMemory => None,
    }
}

fn unit(figure: Figure) -> &'static str {
    match figure {
        Figure::DecodeBandwidth | Figure::AttentionBandwidth => "byte/s",
        Figure::DecodeSpeedup => "token/s",
        Figure::PrefillPeak | Figure::PrefillRate => "flop/s",
        Figure::LoadTime => "s",
        Figure::LoadMemory => "GB",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{
        Clock, HugePages, LoadFacts, MeasuredLimits, MeasuredRate, MeasuredUnit, RooflineSamples,
    };
    use crate::report::{fixture, perf_rows};
    use std::collections::BTreeMap;

    fn target(figure: Figure, case: Option<&str>) -> Target {
        Target {
            figure,
            case_id: case.map(str::to_owned),
            over: None,
            unit: None,
            at_least: None,
            at_most: None,
        }
    }

    fn rate(median: f64) -> MeasuredRate {
        MeasuredRate { median, low: median, high: median }
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "one run, and every figure of it")]
    fn each_figure_is_held_against_its_limit_and_says_why_where_it_cannot() {
        let fixture::Records { mut run, mut requests, .. } = fixture::quiet();
        let unit = |name: &str, peak: f64| MeasuredUnit {
            unit: name.to_owned(),
            all_threads: rate(peak),
            one_thread: rate(peak / 2.0),
        };
        run.provenance.roofline = Some(Roofline {
            bandwidth_bytes_per_s: 2e10,
            peak_flops_per_s: 1e11,
            measured: Some(MeasuredLimits {
                threads: 2,
                method: "a test".into(),
                bandwidth: rate(2e10),
                bandwidth_one_thread: rate(1e10),
                units: vec![unit("fp32-avx2", 1e11)],
                peak_unit: Some("fp32-avx2".into()),
                peak_products: 1,
                reader: "one stream each".into(),
            }),
        });
        run.provenance.load = Some(LoadFacts {
            load_ns: 2_000_000_000,
            peak_rss_bytes: Some(5_000_000_000),
            weight_bytes: 3_000_000_000,
            kv_bytes: 1_000_000_000,
            working_bytes: 1,
            made: true,
            pack_cache: None,
            huge_pages: None,
        });
        let ids: Vec<String> = run.plan.performance.iter().map(|case| case.case_id.clone()).collect();
        let case = Some(ids[0].as_str());
        let least = |target: Target| Target { at_least: Some(0.5), ..target };
        let most = |target: Target| Target { at_most: Some(1.5), ..target };
        run.plan.targets = vec![
            least(target(Figure::DecodeBandwidth, case)),
            least(target(Figure::PrefillPeak, case)),
            least(Target { unit: Some("amx-bf16".into()), ..target(Figure::PrefillPeak, case) }),
            least(Target { over: case.map(str::to_owned), ..target(Figure::DecodeSpeedup, case) }),
            least(target(Figure::AttentionBandwidth, case)),
            least(target(Figure::DecodeBandwidth, Some("b9-i9-o9"))),
            most(target(Figure::LoadTime, None)),
            most(target(Figure::LoadMemory, None)),
        ];
        let performance = perf_rows(&run, &requests);
        let rows = limit_rows(&run, &performance, &requests);
        let decode = performance.iter().find(|r| r.phase == Phase::Decode).unwrap();
        assert!((rows[0].ratio.unwrap() - decode.achieved_gb_s.unwrap() / 20.0).abs() < 1e-9);
        assert_eq!(rows[0].met, rows[0].ratio.map(|ratio| ratio >= 0.5));
        assert_eq!((rows[1].limit, rows[1].limit_of.as_deref()), (Some(1e11), Some("fp32-avx2")));
        assert_eq!((rows[2].ratio, rows[2].met), (None, None));
        assert_eq!(
            rows[2].note.as_ref().map(ToString::to_string).as_deref(),
            Some("not applicable: this machine has no amx-bf16")
        );
        assert!(rows[2].value.is_some(), "what was reached is said all the same");
        assert_eq!((rows[3].ratio, rows[3].met), (Some(1.0), Some(true)));
        assert_eq!(
            rows[4].note.as_ref().map(ToString::to_string).as_deref(),
            Some("operators were not timed: --profile-operators")
        );
        assert_eq!(
            rows[5].note.as_ref().map(ToString::to_string).as_deref(),
            Some("the suite has no case b9-i9-o9")
        );
        assert_eq!((rows[6].value, rows[6].met), (Some(2.0), Some(false)));
        assert!(
            rows[6].note.as_ref().map(ToString::to_string).as_deref().unwrap().starts_with("random weights")
        );
        // From the bound on, and for small weights, huge pages are no remark.
        let large = 100 << 30;
        for (possible_bytes, huge_bytes, says) in [
            (large, 80 << 30, ""),
            (large, 79 << 30, "; 79.0 % of the large weights on huge pages"),
            (1 << 20, 0, ""),
        ] {
            let told = HugePages { possible_bytes, huge_bytes };
            run.provenance.load.as_mut().unwrap().huge_pages = Some(told);
            let row = &limit_rows(&run, &performance, &requests)[6];
            let wanted = format!("random weights, made while loading instead of read{says}");
            assert_eq!(row.note.as_ref().map(ToString::to_string), Some(wanted));
        }
        run.provenance.load.as_mut().unwrap().huge_pages = None;
        assert_eq!((rows[7].value, rows[7].met, &rows[7].note), (Some(1.0), Some(true), &None));
        let sample = RooflineSample {
            bandwidth_bytes_per_s: Some(1_000_000_000),
            peak_ops_per_s: BTreeMap::from([("fp32-avx2".to_owned(), 50_000_000_000)]),
        };
        for request in &mut requests {
            request.roofline_samples =
                Some(RooflineSamples { before: sample.clone(), after: sample.clone() });
            let (phase, operator) = (Phase::Decode, "attention".to_owned());
            request.operators =
                vec![OperatorRecord { phase, operator, calls: 1, time_ns: 10, bytes: 9, flops: 0 }];
        }
        let around = limit_rows(&run, &performance, &requests);
        assert_eq!((around[0].limit, around[1].limit), (Some(1e9), Some(5e10)));
        assert_eq!((around[0].ratio_low, around[0].ratio_high), (around[0].ratio, around[0].ratio));
        assert!((around[1].ratio.unwrap() - 2.0 * rows[1].ratio.unwrap()).abs() < 1e-9);
        assert_eq!((around[4].value, around[4].ratio, around[4].met), (Some(9e8), Some(0.9), Some(true)));
        assert_eq!(
            (&around[2..4], &around[5..]),
            (&rows[2..4], &rows[5..]),
            "what is held against no limit of the machine"
        );
        let table = table(&run, &rows);
        assert!(table.rows.iter().all(|row| row.cells.len() == table.columns.len()));
        // A modelled value carries the error of its phase; what the host's clock measured has none.
        run.provenance.clock = Clock::Modelled;
        run.provenance.clock_profile = Some("mine sha256:00".into());
        let modelled = limit_rows(&run, &performance, &requests);
        let says = |row: &LimitRow| {
            row.note
                .as_ref()
                .map(ToString::to_string)
                .as_deref()
                .is_some_and(|note| note.contains("error unknown here"))
        };
        assert!(says(&modelled[0]) && says(&modelled[1]) && !says(&modelled[6]), "{modelled:?}");
        assert!(!says(&modelled[5]), "no value, no error");
        let work = phases(&run, &performance);
        assert_eq!(work.columns.last().unwrap().name, "Model error");
        assert!(work.rows.iter().all(|row| row.cells.len() == work.columns.len()));
    }
}
