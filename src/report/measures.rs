//! Further measures of accuracy tasks, such as the accuracy under another normalisation: their means over the items.

use crate::language::{Text, cells, text, texts};
use std::collections::BTreeMap;

use glmbench_metrics::Perplexity;

use super::format::fixed;
use super::table::Table;
use crate::record::{RunRecord, SampleRecord};
use crate::stats::{Estimate, Interval, mean};

/// Returns a table with a row for each measure of each task; `None` if no task has any.
pub(super) fn table(run: &RunRecord, samples: &[SampleRecord]) -> Option<Table> {
    let mut table = Table::new(
        text!("Further measures"),
        &texts!["Task", "Measure"],
        &texts!["Items", "Mean", "Standard error"],
    );
    for case in &run.plan.accuracy {
        let of_case = || samples.iter().filter(|sample| sample.task == case.task);
        let mut names: Vec<&str> =
            of_case().flat_map(|sample| sample.measures.keys().map(String::as_str)).collect();
        names.sort_unstable();
        names.dedup();
        for (name, figure, items) in perplexities(of_case()) {
            table.push(false, cells![case.task, name, items, fixed(Some(figure), 4), Text::EMPTY]);
        }
        for name in names.into_iter().filter(|name| !SUMS.contains(name)) {
            let values: Vec<f64> =
                of_case().filter_map(|sample| sample.measures.get(name).copied()).collect();
            let [mean, error] = [mean(&values), standard_error(&values)].map(|figure| fixed(figure, 4));
            table.push(false, cells![case.task, name, values.len(), mean, error]);
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Returns a table with the measures of each subject, if an item has some and there are several subjects. First comes the mean of
/// the subject means, in which each subject has the same weight.
pub(super) fn subjects(run: &RunRecord, samples: &[SampleRecord]) -> Option<Table> {
    let mut table = Table::new(
        text!("Further measures by subject"),
        &texts!["Task", "Measure", "Subject"],
        &texts!["Items", "Mean", "Standard error"],
    );
    for case in &run.plan.accuracy {
        let mut all: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
        for sample in samples.iter().filter(|sample| sample.task == case.task) {
            for (name, value) in sample.measures.iter().filter(|(name, _)| !SUMS.contains(&name.as_str())) {
                all.entry(name).or_default().entry(&sample.subject).or_default().push(*value);
            }
        }
        for (name, of_subjects) in all.into_iter().filter(|(_, of_subjects)| of_subjects.len() > 1) {
            let means: Vec<f64> = of_subjects.values().filter_map(|values| mean(values)).collect();
            let items: usize = of_subjects.values().map(Vec::len).sum();
            let row = |subject: Text, items: usize, figures: [Option<f64>; 2]| {
                let [mean, error] = figures.map(|figure| fixed(figure, 4));
                cells![case.task, name, subject, items, mean, error]
            };
            table.push(true, row(text!("all, each with the same weight"), items, [mean(&means), None]));
            for (subject, values) in of_subjects {
                table
                    .push(false, row(subject.into(), values.len(), [mean(&values), standard_error(&values)]));
            }
        }
    }
    (!table.rows.is_empty()).then_some(table)
}

/// Names of the sums from which perplexities follow. They are no figures by themselves.
const SUMS: [&str; 4] = ["bytes", "loglikelihood", "tokens", "words"];

/// Returns the [perplexities](Perplexity) of the texts of a task, each with its name and the number of texts.
pub(super) fn perplexities<'a>(
    samples: impl Iterator<Item = &'a SampleRecord> + Clone,
) -> Vec<(Text, f64, usize)> {
    let texts = samples.filter(|sample| sample.measures.contains_key("loglikelihood"));
    let sum = |name: &str| texts.clone().filter_map(|sample| sample.measures.get(name)).sum::<f64>();
    let (items, likelihood) = (texts.clone().count(), sum("loglikelihood"));
    if items == 0 {
        return Vec::new();
    }
    let by = |unit: &str| {
        let mut perplexity = Perplexity::default();
        perplexity.add(likelihood, sum(unit) as u64);
        perplexity
    };
    [
        (text!("word perplexity"), by("words").value()),
        (text!("byte perplexity"), by("bytes").value()),
        (text!("bits per byte"), by("bytes").bits_per_unit()),
        (text!("token perplexity"), by("tokens").value()),
    ]
    .into_iter()
    .filter_map(|(name, figure)| Some((name, figure?, items)))
    .collect()
}

/// Returns the first of the [`perplexities`] for the texts of a task: its name, the figure with its 95 % interval, and the number
/// of texts.
///
/// The logarithm is a ratio of two sums over texts, so its error is that of a ratio estimator (W. G. Cochran, *Sampling
/// Techniques*, 1977, ch. 6), with texts as the sample. No interval for fewer than two texts.
pub(super) fn perplexity<'a>(
    samples: impl Iterator<Item = &'a SampleRecord> + Clone,
) -> Option<(String, Estimate, usize)> {
    let (name, value, texts) = perplexities(samples.clone()).into_iter().next()?;
    let name = name.to_string();
    let unit = match name.as_str() {
        "word perplexity" => "words",
        "token perplexity" => "tokens",
        _ => "bytes",
    };
    let of = |sample: &SampleRecord| {
        Some((sample.measures.get("loglikelihood")?, sample.measures.get(unit)?)).map(|(a, b)| (-*a, *b))
    };
    let pairs: Vec<(f64, f64)> = samples.filter_map(of).collect();
    let (loss, units) = pairs.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let n = pairs.len() as f64;
    let squares: f64 = pairs.iter().map(|(x, y)| (x - loss / units * y).powi(2)).sum();
    let error = (n / (n - 1.0) * squares).sqrt() / units;
    let end = |side: f64| value * (side * 1.959_964 * error).exp();
    let interval =
        (pairs.len() > 1 && error.is_finite()).then(|| Interval { low: end(-1.0), high: end(1.0) });
    Some((name, Estimate { value, interval }, texts))
}

/// Returns the measure that stands for a scored text: the score, or else the first that ModelTest would report.
pub(super) fn leading(sample: &SampleRecord) -> Option<&str> {
    let is_leading = |name: &&String| *name == "score" || name.ends_with("-diff");
    sample.measures.keys().filter(is_leading).max_by_key(|name| *name == "score").map(String::as_str)
}

/// Returns the standard error of the mean; `None` for fewer than two values.
fn standard_error(values: &[f64]) -> Option<f64> {
    let mean = mean(values)?;
    let n = values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn perplexities_follow_from_the_sums_over_all_texts() {
        let of = |sum: f64, words: f64| SampleRecord {
            measures: [
                ("loglikelihood", sum),
                ("words", words),
                ("bytes", 4.0 * words),
                ("tokens", 2.0 * words),
            ]
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
            ..fixture::sample()
        };
        let found = perplexities([of(-30.0, 10.0), of(-50.0, 10.0)].iter());
        let expected = [(4.0_f64).exp(), (1.0_f64).exp(), 1.0 / std::f64::consts::LN_2, (2.0_f64).exp()];
        assert_eq!(found.iter().map(|(_, figure, _)| *figure).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_perplexity_has_the_interval_of_its_texts() {
        let of = |sum: f64, words: f64| SampleRecord {
            measures: [("loglikelihood", sum), ("words", words)]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            ..fixture::sample()
        };
        assert_eq!(perplexity([of(-30.0, 0.0)].iter()), None);
        let (name, one, _) = perplexity([of(-30.0, 10.0)].iter()).unwrap();
        assert_eq!((name, one.interval), ("word perplexity".to_owned(), None));
        // Loss 3 and 5 a word in equally long texts: mean 4, standard error 1.
        let (_, two, texts) = perplexity([of(-30.0, 10.0), of(-50.0, 10.0)].iter()).unwrap();
        let Interval { low, high } = two.interval.unwrap();
        assert!(
            (low.ln() - (4.0 - 1.959_964)).abs() < 1e-12 && (high.ln() - (4.0 + 1.959_964)).abs() < 1e-12
        );
        assert_eq!((two.value, texts), (4.0_f64.exp(), 2));
    }

    #[test]
    fn each_measure_has_its_mean_over_the_items_that_have_it() {
        let run = fixture::run();
        let task = run.plan.accuracy[0].task.clone();
        let of = |value: Option<f64>| SampleRecord {
            task: task.clone(),
            measures: value.map(|value| ("mc2".to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
            ..fixture::sample()
        };
        assert_eq!(table(&run, &[of(None)]), None);
        let found = table(&run, &[of(Some(1.0)), of(Some(0.5)), of(None), of(Some(0.0))]).unwrap();
        assert_eq!(subjects(&run, &[of(Some(1.0))]), None);
        let of_law = SampleRecord { subject: "law".into(), ..of(Some(0.0)) };
        let found_by_subject = subjects(&run, &[of(Some(1.0)), of(Some(0.5)), of_law]).unwrap();
        let means: Vec<&Text> = found_by_subject.rows.iter().map(|row| &row.cells[4]).collect();
        assert_eq!(*means[0], "0.3750", "{found_by_subject:?}");
        // The sample variance is 0.25, so the standard error is 0.5 / √3.
        assert_eq!(found.rows[0].cells, [task.as_str(), "mc2", "3", "0.5000", "0.2887"]);
    }
}
