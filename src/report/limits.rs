//! A run against its machine's limits: the rows of `limits.csv`, and the tables.

use super::format::{NONE, fixed, significant};
use super::performance::{limits, phase_cost};
use super::tables::Table;
use crate::record::{
    Figure, LimitRate, LimitRow, MachineLimits, OperatorRow, PerfRow, PerformanceCase, Phase, Roofline,
    RunRecord, SCHEMA, Target,
};

/// What was reached, and what it is held against.
#[derive(Default)]
struct Reached {
    value: Option<f64>,
    limit: Option<f64>,
    limit_of: Option<String>,
    /// The limit when the run had ended.
    at_end: Option<f64>,
    note: Option<String>,
}

impl Reached {
    /// Whether the limit has moved by so much that it is worth a word.
    fn moved(&self) -> Option<f64> {
        let (limit, at_end) = self.limit.zip(self.at_end)?;
        (at_end.max(limit) > DRIFT * at_end.min(limit)).then_some(at_end)
    }

    /// Whether the target is met; not told where the limit before the run and that after it answer differently.
    fn meets(&self, target: &Target) -> Option<bool> {
        let value = self.value?;
        let least = |least: f64| {
            let met = value >= least * self.limit?;
            self.at_end.is_none_or(|at_end| (value >= least * at_end) == met).then_some(met)
        };
        match (target.at_least, target.at_most) {
            (Some(at_least), _) => least(at_least),
            (None, Some(at_most)) => Some(value <= at_most),
            (None, None) => None,
        }
    }
}

/// The larger of two like measurements over the smaller, from which on a limit is said to have moved.
const DRIFT: f64 = 1.1;

/// One row a target of the plan.
pub fn limit_rows(run: &RunRecord, performance: &[PerfRow], operators: &[OperatorRow]) -> Vec<LimitRow> {
    let of = Measured { run, performance, operators };
    run.plan.targets.iter().map(|target| of.row(target)).collect()
}

struct Measured<'a> {
    run: &'a RunRecord,
    performance: &'a [PerfRow],
    operators: &'a [OperatorRow],
}

impl Measured<'_> {
    fn row(&self, target: &Target) -> LimitRow {
        let reached = match target.figure {
            Figure::DecodeBandwidth => self.over_bandwidth(
                target,
                self.rate(target, Phase::Decode, |_, row| row.bytes_touched.map(|bytes| bytes as f64)),
            ),
            Figure::AttentionBandwidth => self.over_bandwidth(target, self.attention(target)),
            Figure::PrefillPeak => self.over_peak(target),
            Figure::DecodeSpeedup => {
                let tokens = |_: &PerformanceCase, row: &PerfRow| Some(row.tokens as f64);
                self.over_case(target, Phase::Decode, tokens)
            }
            Figure::PrefillRate => self.over_case(target, Phase::Prefill, flops_of_prefill),
            Figure::LoadTime | Figure::LoadMemory => self.loading(target),
        };
        let ratio = reached.value.zip(reached.limit).map(|(value, limit)| value / limit);
        let met = reached.meets(target);
        let moved = reached.moved().map(|at_end| {
            format!("the limit was {} when the run had ended", shown(Some(at_end), target.figure))
        });
        LimitRow {
            schema: SCHEMA,
            run_id: self.run.run_id.clone(),
            figure: target.figure,
            case_id: target.case_id.clone(),
            value: reached.value,
            limit: reached.limit,
            unit: unit(target.figure).to_owned(),
            limit_of: reached.limit_of,
            ratio,
            at_least: target.at_least,
            at_most: target.at_most,
            met,
            note: reached.note.or(moved),
        }
    }

    /// What a case's phase has of something, a second of its median time; else why not.
    fn rate_of(
        &self,
        case_id: &str,
        phase: Phase,
        count: impl Fn(&PerformanceCase, &PerfRow) -> Option<f64>,
    ) -> Result<f64, String> {
        let case = self.run.plan.performance.iter().find(|case| case.case_id == case_id);
        let case = case.ok_or_else(|| format!("the suite has no case {case_id}"))?;
        let row = self.performance.iter().find(|row| row.case_id == case_id && row.phase == phase);
        let row = row.ok_or_else(|| "not measured".to_owned())?;
        if row.valid != Some(true) {
            return Err(row.invalid_reason.clone().unwrap_or_else(|| "not measured".to_owned()));
        }
        let seconds = row.median_ns.filter(|&ns| ns > 0).map(|ns| ns as f64 / 1e9);
        let rate = count(case, row).zip(seconds).map(|(count, seconds)| count / seconds);
        rate.ok_or_else(|| "the work of this case is not known".to_owned())
    }

    fn rate(
        &self,
        target: &Target,
        phase: Phase,
        count: impl Fn(&PerformanceCase, &PerfRow) -> Option<f64>,
    ) -> Result<f64, String> {
        self.rate_of(target.case_id.as_deref().unwrap_or_default(), phase, count)
    }

    /// Bytes a second of the cache that the attention operator reads while decoding.
    fn attention(&self, target: &Target) -> Result<f64, String> {
        // What spoils the case spoils its operators.
        self.rate(target, Phase::Decode, |_, row| Some(row.tokens as f64))?;
        let is = |row: &&OperatorRow| {
            Some(&row.case_id) == target.case_id.as_ref()
                && row.phase == Phase::Decode
                && row.operator == "attention"
        };
        let row = self.operators.iter().find(is);
        let row = row.ok_or_else(|| "operators were not timed: --profile-operators".to_owned())?;
        row.achieved_gb_s.map(|rate| 1e9 * rate).ok_or_else(|| "nothing was read".to_owned())
    }

    /// What the target's case has at most.
    fn roofline(&self, target: &Target) -> Option<Roofline> {
        let is = |case: &&PerformanceCase| Some(&case.case_id) == target.case_id.as_ref();
        let tp = self.run.plan.performance.iter().find(is).map_or(1, |case| case.tp);
        limits(&self.run.provenance, tp)
    }

    /// What was measured when the run had ended.
    fn at_end(&self) -> Option<&MachineLimits> {
        self.run.provenance.roofline.as_ref()?.limits.as_ref()?.at_end.as_deref()
    }

    fn over_bandwidth(&self, target: &Target, value: Result<f64, String>) -> Reached {
        let limit = self.roofline(target).map(|roofline| roofline.bandwidth_bytes_per_s);
        let note = value.clone().err().or_else(|| limit.is_none().then(no_limits));
        let at_end = self.at_end().map(|limits| limits.bandwidth.median);
        Reached { value: value.ok(), limit, limit_of: Some("bandwidth".to_owned()), at_end, note }
    }

    fn over_peak(&self, target: &Target) -> Reached {
        let value = self.rate(target, Phase::Prefill, flops_of_prefill);
        let roofline = self.roofline(target);
        let limits = self.run.provenance.roofline.as_ref().and_then(|roofline| roofline.limits.as_ref());
        let (limit, limit_of) = match &target.unit {
            None => (
                roofline.as_ref().map(|roofline| roofline.peak_flops_per_s),
                limits.and_then(|limits| limits.peak_unit.clone()),
            ),
            Some(name) => (
                limits.and_then(|limits| limits.unit(name)).map(|unit| unit.all_threads.median),
                Some(name.clone()),
            ),
        };
        let absent = || match &target.unit {
            Some(name) if roofline.is_some() => format!("not applicable: this machine has no {name}"),
            _ => no_limits(),
        };
        let note = value.clone().err().or_else(|| limit.is_none().then(absent));
        let again = limit_of.as_ref().and_then(|unit| self.at_end()?.unit(unit));
        Reached {
            value: value.ok(),
            limit,
            at_end: again.map(|unit| unit.all_threads.median),
            limit_of,
            note,
        }
    }

    fn over_case(
        &self,
        target: &Target,
        phase: Phase,
        count: impl Fn(&PerformanceCase, &PerfRow) -> Option<f64>,
    ) -> Reached {
        let over = target.over.clone().unwrap_or_default();
        let value = self.rate(target, phase, &count);
        let limit = self.rate_of(&over, phase, &count);
        let note = value.clone().err().or_else(|| limit.clone().err().map(|why| format!("{over}: {why}")));
        Reached { value: value.ok(), limit: limit.ok(), limit_of: Some(over), at_end: None, note }
    }

    fn loading(&self, target: &Target) -> Reached {
        let Some(load) = &self.run.provenance.load else {
            return Reached { note: Some("loading was not watched".to_owned()), ..Reached::default() };
        };
        let value = match target.figure {
            Figure::LoadTime => Some(load.load_ns as f64 / 1e9),
            _ => load
                .peak_rss_bytes
                .map(|peak| (peak as f64 - load.weight_bytes as f64 - load.kv_bytes as f64) / 1e9),
        };
        let made = load.made && target.figure == Figure::LoadTime;
        let note = match value {
            None => Some("the system does not tell".to_owned()),
            Some(_) => made.then(|| "random weights, made while loading instead of read".to_owned()),
        };
        Reached { value, note, ..Reached::default() }
    }
}

fn no_limits() -> String {
    "the limits of this device were not measured".to_owned()
}

fn flops_of_prefill(case: &PerformanceCase, _: &PerfRow) -> Option<f64> {
    phase_cost(case, Phase::Prefill).map(|cost| cost.flops as f64)
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

fn words(figure: Figure) -> &'static str {
    match figure {
        Figure::DecodeBandwidth => "decode, bytes",
        Figure::AttentionBandwidth => "decode, KV bytes of attention",
        Figure::DecodeSpeedup => "decode, tokens",
        Figure::PrefillPeak | Figure::PrefillRate => "prefill, operations",
        Figure::LoadTime => "ready to generate",
        Figure::LoadMemory => "resident beyond weights and KV, at most",
    }
}

/// A value with its unit, as people read it.
fn shown(value: Option<f64>, figure: Figure) -> String {
    let Some(value) = value else { return NONE.to_owned() };
    match figure {
        Figure::DecodeBandwidth | Figure::AttentionBandwidth => {
            format!("{} GB/s", significant(value / 1e9, 4))
        }
        Figure::PrefillPeak | Figure::PrefillRate => format!("{} GFLOP/s", significant(value / 1e9, 4)),
        Figure::DecodeSpeedup => format!("{} tokens/s", significant(value, 4)),
        Figure::LoadTime => format!("{} s", significant(value, 3)),
        Figure::LoadMemory => format!("{} GB", significant(value, 3)),
    }
}

/// One row a target.
pub(super) fn table(run: &RunRecord, rows: &[LimitRow]) -> Table {
    let title = format!("Against the machine's limits, {}", run.provenance.clock);
    let mut table = Table::new(
        title,
        &["Figure", "Case", "Held against"],
        &["Reached", "Limit", "Ratio", "Target", "Met"],
    );
    table.columns.push(super::tables::Column { name: "Note".to_owned(), numeric: false });
    for row in rows {
        let target = match (row.at_least, row.at_most) {
            (Some(least), _) => format!("≥ {least}"),
            (None, Some(most)) => format!("≤ {most} {}", row.unit),
            (None, None) => NONE.to_owned(),
        };
        table.push(
            false,
            vec![
                words(row.figure).to_owned(),
                row.case_id.clone().unwrap_or_else(|| NONE.to_owned()),
                row.limit_of.clone().unwrap_or_else(|| NONE.to_owned()),
                shown(row.value, row.figure),
                shown(row.limit, row.figure),
                fixed(row.ratio, 3),
                target,
                row.met.map_or(NONE, |met| if met { "yes" } else { "NO" }).to_owned(),
                row.note.clone().unwrap_or_default(),
            ],
        );
    }
    table
}

/// What each phase of each case had to do, and how fast it did.
pub(super) fn phases(run: &RunRecord, performance: &[PerfRow]) -> Table {
    let numbers = ["Bytes", "Operations", "ms", "GB/s", "GFLOP/s", "Roofline %"];
    let mut table =
        Table::new(format!("Work of the phases, {}", run.provenance.clock), &["Case", "Phase"], &numbers);
    for row in performance.iter().filter(|row| row.phase != Phase::E2e) {
        let case = run.plan.performance.iter().find(|case| case.case_id == row.case_id);
        let Some(cost) = case.and_then(|case| phase_cost(case, row.phase)) else { continue };
        let ns = row.median_ns.filter(|&ns| ns > 0).map(|ns| ns as f64);
        table.push(
            false,
            vec![
                row.case_id.clone(),
                row.phase.to_string(),
                format!("{} GB", significant(cost.bytes as f64 / 1e9, 4)),
                format!("{} GFLOP", significant(cost.flops as f64 / 1e9, 4)),
                fixed(ns.map(|ns| ns / 1e6), 1),
                fixed(row.achieved_gb_s, 2),
                fixed(ns.map(|ns| cost.flops as f64 / ns), 1),
                fixed(row.roofline_pct, 1),
            ],
        );
    }
    table
}

/// What was measured of the machine before the cases.
pub(super) fn machine(limits: &MachineLimits) -> Table {
    let numbers = ["All threads", "Slowest round", "Fastest round", "One thread"];
    let title = format!("The machine's limits, measured with {} threads", limits.threads);
    let mut table = Table::new(title, &["Unit", "Rate"], &numbers);
    let mut push = |name: &str, unit: &str, all: &LimitRate, one: &LimitRate| {
        let shown = [all.median, all.low, all.high, one.median].map(|rate| significant(rate / 1e9, 4));
        table.push(false, [vec![name.to_owned(), unit.to_owned()], shown.to_vec()].concat());
    };
    push("memory, streamed reads", "GB/s", &limits.bandwidth, &limits.bandwidth_one_thread);
    for unit in &limits.units {
        push(&unit.unit, "10⁹ operations/s", &unit.all_threads, &unit.one_thread);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{LoadFacts, Roofline, UnitLimit};
    use crate::report::{fixture, operator_rows, perf_rows};

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

    fn rate(median: f64) -> LimitRate {
        LimitRate { median, low: median, high: median }
    }

    #[test]
    fn each_figure_is_held_against_its_limit_and_says_why_where_it_cannot() {
        let (mut run, _, requests) = fixture::quiet();
        let unit = |name: &str, peak: f64| UnitLimit {
            unit: name.to_owned(),
            all_threads: rate(peak),
            one_thread: rate(peak / 2.0),
        };
        run.provenance.roofline = Some(Roofline {
            bandwidth_bytes_per_s: 2e10,
            peak_flops_per_s: 1e11,
            limits: Some(MachineLimits {
                threads: 2,
                method: "a test".into(),
                bandwidth: rate(2e10),
                bandwidth_one_thread: rate(1e10),
                units: vec![unit("fp32-avx2", 1e11)],
                peak_unit: Some("fp32-avx2".into()),
                at_end: None,
            }),
        });
        run.provenance.load = Some(LoadFacts {
            load_ns: 2_000_000_000,
            peak_rss_bytes: Some(5_000_000_000),
            weight_bytes: 3_000_000_000,
            kv_bytes: 1_000_000_000,
            working_bytes: 1,
            made: true,
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
        let rows = limit_rows(&run, &performance, &operator_rows(&run, &requests));
        let decode = performance.iter().find(|r| r.phase == Phase::Decode).unwrap();
        assert!((rows[0].ratio.unwrap() - decode.achieved_gb_s.unwrap() / 20.0).abs() < 1e-9);
        assert_eq!(rows[0].met, rows[0].ratio.map(|ratio| ratio >= 0.5));
        assert_eq!((rows[1].limit, rows[1].limit_of.as_deref()), (Some(1e11), Some("fp32-avx2")));
        assert_eq!((rows[2].ratio, rows[2].met), (None, None));
        assert_eq!(rows[2].note.as_deref(), Some("not applicable: this machine has no amx-bf16"));
        assert!(rows[2].value.is_some(), "what was reached is said all the same");
        assert_eq!((rows[3].ratio, rows[3].met), (Some(1.0), Some(true)));
        assert_eq!(rows[4].note.as_deref(), Some("operators were not timed: --profile-operators"));
        assert_eq!(rows[5].note.as_deref(), Some("the suite has no case b9-i9-o9"));
        assert_eq!((rows[6].value, rows[6].met), (Some(2.0), Some(false)));
        assert!(rows[6].note.as_deref().unwrap().starts_with("random weights"));
        assert_eq!((rows[7].value, rows[7].met, &rows[7].note), (Some(1.0), Some(true), &None));
        let table = table(&run, &rows);
        assert!(table.rows.iter().all(|row| row.cells.len() == table.columns.len()));
    }

    #[test]
    fn a_limit_that_moved_is_said_to_have_and_decides_nothing_that_hangs_on_it() {
        let at_least = |least| Target { at_least: Some(least), ..target(Figure::DecodeBandwidth, None) };
        let reached = |at_end| Reached { value: Some(30e9), limit: Some(60e9), at_end, ..Reached::default() };
        for (at_end, moved, met) in [
            (None, None, Some(false)),
            (Some(58e9), None, Some(false)),
            (Some(40e9), Some(40e9), Some(false)),
            (Some(32e9), Some(32e9), None),
        ] {
            let reached = reached(at_end);
            assert_eq!((reached.moved(), reached.meets(&at_least(0.92))), (moved, met), "{at_end:?}");
        }
        assert_eq!(reached(Some(32e9)).meets(&at_least(0.4)), Some(true));
    }
}
