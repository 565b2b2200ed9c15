//! Compares a figure with its limit and decides whether a target is met.

use crate::language::{Text, joined, text};
use crate::record::{RequestRecord, RooflineSample, RooflineSamples, Target};
use crate::stats::{Interval, median};

/// One repetition: its rate, and the machine's limits around it.
pub(super) struct Trial<'a> {
    rate: f64,
    roofline_samples: Option<&'a RooflineSamples>,
    /// Index of the batch of real prompts that it used, if there are several.
    group: Option<u32>,
}

impl<'a> Trial<'a> {
    /// Builds a trial from `count` bytes or operations in `time_ns`. `None` if either is 0.
    pub(super) fn of(request: &'a RequestRecord, count: u64, time_ns: u64) -> Option<Self> {
        let rate = 1e9 * count as f64 / time_ns as f64;
        let group = request.prompts.as_ref().map(|prompts| prompts.group);
        (count > 0 && time_ns > 0).then_some(Self {
            rate,
            roofline_samples: request.roofline_samples.as_ref(),
            group,
        })
    }
}

/// The value reached, and its limit.
#[derive(Debug, Default)]
pub(super) struct Reached {
    pub(super) value: Option<f64>,
    pub(super) limit: Option<f64>,
    pub(super) limit_of: Option<String>,
    /// Value over limit. If each repetition has its own limit, the median of their ratios.
    pub(super) ratio: Option<f64>,
    /// Number of repetitions with a limit measured around them.
    pub(super) repetitions: usize,
    /// Ratios of each of these repetitions to the limit before it, and to the limit after it.
    pub(super) each: Vec<f64>,
    pub(super) note: Option<Text>,
}

impl Reached {
    /// Compares one value with one limit. A missing one gives its reason as the note.
    pub(super) fn of(value: Result<f64, Text>, limit: Result<f64, Text>, limit_of: Option<String>) -> Self {
        let note = value.as_ref().err().or(limit.as_ref().err()).cloned();
        let (value, limit) = (value.ok(), limit.ok());
        let ratio = value.zip(limit).map(|(value, limit)| value / limit);
        Self { value, limit, limit_of, ratio, note, ..Self::default() }
    }

    /// Compares each repetition with the limit around it, which `limit` reads from a sample.
    ///
    /// If no repetition has such a limit, as in older records, compares their median with the limit `before` the
    /// cases. Repetitions with different prompts are not trials of one thing, so their median is compared with the
    /// median limit.
    pub(super) fn by_trials(
        trials: Result<Vec<Trial<'_>>, Text>,
        limit: impl Fn(&RooflineSample) -> Option<f64>,
        before: Result<f64, Text>,
        limit_of: Option<String>,
    ) -> Self {
        let trials = match trials {
            Ok(trials) => trials,
            Err(why) => return Self::of(Err(why), before, limit_of),
        };
        let held = |trial: &Trial<'_>| Some((trial.rate, trial.roofline_samples?.mean(&limit)?));
        let (rates, limits): (Vec<f64>, Vec<f64>) = trials.iter().filter_map(held).unzip();
        let repetitions = rates.len();
        if repetitions == 0 {
            let rates: Vec<f64> = trials.iter().map(|trial| trial.rate).collect();
            let value = median(&rates).ok_or_else(|| text!("not measured"));
            let tried = before.is_ok() && trials.iter().any(|trial| trial.roofline_samples.is_some());
            let reached = Self::of(value, before, limit_of);
            let note = tried
                .then(|| text!("the limit is that before the cases: it could not be measured around them"));
            return Self { note: reached.note.or(note), ..reached };
        }
        let note = (repetitions < trials.len()).then(|| {
            text!(
                "the limit was measured around {repetitions} of {trials} repetitions",
                repetitions,
                trials = trials.len()
            )
        });
        let (value, middle) = (median(&rates), median(&limits));
        let reached = Self { value, limit: middle, limit_of, repetitions, note, ..Self::default() };
        if trials.iter().any(|trial| trial.group != trials[0].group) {
            return Self { ratio: value.zip(middle).map(|(value, limit)| value / limit), ..reached };
        }
        let ratios: Vec<f64> = rates.iter().zip(&limits).map(|(rate, limit)| rate / limit).collect();
        let roofline_samples = |trial: &Trial<'_>| {
            Some((trial.rate, trial.roofline_samples?.both(&limit).collect::<Vec<f64>>()))
        };
        let each = trials.iter().filter_map(roofline_samples);
        let each =
            each.flat_map(|(rate, limits)| limits.into_iter().map(move |limit| rate / limit)).collect();
        Self { ratio: median(&ratios), each, ..reached }
    }

    /// The smallest and the largest ratio of a repetition to a limit beside it.
    pub(super) fn range(&self) -> Option<Interval> {
        Interval::spanning(self.each.iter().copied())
    }

    /// Whether the target is met. `Some` if all repetitions agree, with the limit before them and with the one after.
    /// `None` if only some meet it.
    pub(super) fn meets(&self, target: &Target) -> Option<bool> {
        match (target.at_least, target.at_most) {
            (Some(least), _) => {
                let ratios = if self.each.is_empty() { self.ratio.as_slice() } else { &self.each };
                let met = ratios.first().map(|ratio| *ratio >= least)?;
                ratios.iter().all(|ratio| (*ratio >= least) == met).then_some(met)
            }
            (None, Some(most)) => self.value.map(|value| value <= most),
            (None, None) => None,
        }
    }

    /// Notes on the result, and why a verdict is open.
    pub(super) fn notes(&self, target: &Target) -> Option<Text> {
        let range = self.range().filter(|_| self.meets(target).is_none());
        let open = range.map(|range| {
            text!(
                "{low} to {high} over {repetitions} repetitions",
                low = format!("{:.3}", range.low),
                high = format!("{:.3}", range.high),
                repetitions = self.repetitions
            )
        });
        let notes: Vec<Text> = open.into_iter().chain(self.note.clone()).collect();
        (!notes.is_empty()).then(|| joined(notes, "; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Figure, GroupPrompts};
    use crate::report::fixture;

    /// A repetition between two samples with these bandwidths in bytes per second. `None` for one without samples.
    fn repetition(roofline_samples: Option<[Option<u64>; 2]>) -> RequestRecord {
        let sample =
            |bandwidth_bytes_per_s| RooflineSample { bandwidth_bytes_per_s, ..RooflineSample::default() };
        let roofline_samples = roofline_samples
            .map(|[before, after]| RooflineSamples { before: sample(before), after: sample(after) });
        RequestRecord { roofline_samples, ..fixture::request() }
    }

    fn at_least(least: f64) -> Target {
        Target {
            figure: Figure::DecodeBandwidth,
            case_id: None,
            over: None,
            unit: None,
            at_least: Some(least),
            at_most: None,
        }
    }

    /// Each rate against its samples. The limit before the cases is 60 bytes/s.
    fn reached(rates: &[(u64, Option<[Option<u64>; 2]>)]) -> Reached {
        let requests: Vec<_> =
            rates.iter().map(|&(rate, roofline_samples)| (rate, repetition(roofline_samples))).collect();
        let trials = requests.iter().filter_map(|(rate, request)| Trial::of(request, *rate, 1_000_000_000));
        Reached::by_trials(Ok(trials.collect()), RooflineSample::bandwidth, Ok(60.0), None)
    }

    fn around(before: u64, after: u64) -> [Option<u64>; 2] {
        [Some(before), Some(after)]
    }

    #[test]
    fn a_target_is_met_in_every_repetition_or_in_none_or_left_open() {
        // 0.9, 0.8 and 0.75 of the limits around them, regardless of the limit before.
        let reached =
            reached(&[(36, Some(around(40, 40))), (40, Some(around(50, 50))), (15, Some(around(20, 20)))]);
        assert_eq!((reached.value, reached.limit, reached.ratio), (Some(36.0), Some(40.0), Some(0.8)));
        assert_eq!(reached.range(), Some(Interval { low: 0.75, high: 0.9 }));
        for (least, met) in
            [(0.5, Some(true)), (0.75, Some(true)), (0.76, None), (0.9, None), (0.91, Some(false))]
        {
            assert_eq!(reached.meets(&at_least(least)), met, "{least}");
            let note = met.is_none().then(|| "0.750 to 0.900 over 3 repetitions".into());
            assert_eq!(reached.notes(&at_least(least)), note, "{least}");
        }
    }

    #[test]
    fn where_a_limit_moves_during_a_repetition_both_its_values_have_to_agree() {
        let reached = reached(&[(36, Some(around(57, 30))), (36, Some(around(40, 50)))]);
        assert_eq!(
            (reached.ratio, reached.range()),
            (Some(f64::midpoint(36.0 / 43.5, 0.8)), Some(Interval { low: 36.0 / 57.0, high: 1.2 }))
        );
        assert_eq!(
            [0.6, 0.8, 1.3].map(|least| reached.meets(&at_least(least))),
            [Some(true), None, Some(false)]
        );
        assert_eq!(reached.notes(&at_least(0.8)).unwrap(), "0.632 to 1.200 over 2 repetitions");
    }

    #[test]
    fn repetitions_of_different_prompts_go_by_their_median() {
        let group = |group, rate| {
            let prompts = Some(GroupPrompts { group, input_tokens: vec![3] });
            (rate, RequestRecord { prompts, ..repetition(Some(around(100, 100))) })
        };
        let requests = [group(0, 70), group(1, 90), group(0, 80)];
        let trials = requests.iter().filter_map(|(rate, request)| Trial::of(request, *rate, 1_000_000_000));
        let reached = Reached::by_trials(Ok(trials.collect()), RooflineSample::bandwidth, Ok(60.0), None);
        assert_eq!(
            (reached.ratio, reached.range(), reached.meets(&at_least(0.75))),
            (Some(0.8), None, Some(true))
        );
    }

    #[test]
    fn the_ratio_is_the_median_of_ratios() {
        let reached = reached(&[
            (10, Some(around(20, 20))),
            (20, Some(around(100, 100))),
            (90, Some(around(100, 100))),
        ]);
        assert_eq!((reached.value, reached.limit, reached.ratio), (Some(20.0), Some(100.0), Some(0.5)));
    }

    #[test]
    fn records_without_roofline_samples_go_by_the_limit_before_the_cases() {
        let reached = reached(&[(30, None), (66, None), (54, None)]);
        assert_eq!((reached.value, reached.limit, reached.ratio), (Some(54.0), Some(60.0), Some(0.9)));
        assert_eq!(reached.range(), None);
        let verdicts = [0.9, 0.92].map(|least| reached.meets(&at_least(least)));
        assert_eq!((verdicts, reached.notes(&at_least(0.92))), ([Some(true), Some(false)], None));
    }

    #[test]
    fn what_could_not_be_measured_is_said() {
        let none = reached(&[(54, Some([None, None])), (54, Some([None, None]))]);
        assert_eq!((none.ratio, none.meets(&at_least(0.9))), (Some(0.9), Some(true)));
        assert!(
            none.notes(&at_least(0.9)).unwrap().to_string().ends_with("it could not be measured around them")
        );
        // One side of a repetition is enough. A repetition without any does not count.
        let some = reached(&[(20, Some([None, Some(40)])), (30, Some(around(30, 30))), (54, None)]);
        assert_eq!((some.ratio, some.range()), (Some(0.75), Some(Interval { low: 0.5, high: 1.0 })));
        assert_eq!(
            some.notes(&at_least(0.75)).unwrap(),
            "0.500 to 1.000 over 2 repetitions; the limit was measured around 2 of 3 repetitions"
        );
    }
}
