//! Comparing continuations: log-likelihoods, their normalisations, and the measures of an item.

use glmbench_metrics::truthfulqa::{mc2, mc3};

use super::parse::Spec;
use super::stage::{StageKind, StageSpec};
use crate::dataset::file::strings;
use crate::document::DocumentError;
use crate::document::table::{Table, found, word};

/// What a continuation's log-likelihood is divided by, or compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Normalisation {
    /// Nothing.
    None,
    /// The option's length in characters: lm-evaluation-harness's `acc_norm`.
    Characters,
    /// The option's length in UTF-8 bytes.
    Bytes,
    /// The number of continuation tokens.
    Tokens,
    /// The log-likelihood after a prompt without the question is subtracted.
    Unconditional,
}

const WORDS: [(&str, Normalisation); 5] = [
    ("none", Normalisation::None),
    ("characters", Normalisation::Characters),
    ("bytes", Normalisation::Bytes),
    ("tokens", Normalisation::Tokens),
    ("unconditional", Normalisation::Unconditional),
];

/// Measures that weigh all right answers against all wrong ones.
const SETS: [&str; 2] = ["mc2", "mc3"];

impl Normalisation {
    pub(super) fn parse(table: &mut Table) -> Result<Self, DocumentError> {
        let names = WORDS.map(|(name, _)| name);
        let find = |name: &str| WORDS.iter().find(|(known, _)| *known == name).map(|(_, of)| *of);
        table.take("normalise").map_or(Ok(Self::None), |node| word(&node, &names, find))
    }

    pub(super) fn of(spec: &Spec) -> Self {
        spec.continuations().map_or(Self::None, |continuations| continuations.normalisation)
    }

    /// Says what is done, behind "the sum over the tokens".
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Characters => ", divided by the option's length in characters",
            Self::Bytes => ", divided by the option's length in bytes",
            Self::Tokens => ", divided by the number of tokens",
            Self::Unconditional => ", minus the sum after the prompt without the question",
        }
    }
}

/// Reads `measures`.
pub(super) fn parse(table: &mut Table, stages: &[StageSpec]) -> Result<Vec<String>, DocumentError> {
    let Some(node) = table.take("measures") else { return Ok(Vec::new()) };
    let named = strings(node.clone(), "names of measures")?;
    let Some(StageKind::Continuations(continuations)) = stages.last().map(|stage| &stage.kind) else {
        return Err(found(&node, "`measures`", "them with a last stage of kind \"continuations\" only"));
    };
    let known: Vec<String> =
        WORDS.iter().map(|(word, _)| format!("acc-{word}")).chain(SETS.map(str::to_owned)).collect();
    if let Some(unknown) = named.iter().find(|name| !known.contains(name)) {
        return Err(found(
            &node,
            &format!("the measure {unknown:?}"),
            &format!("one of {}", known.join(", ")),
        ));
    }
    if !continuations.unconditional && named.iter().any(|name| name == "acc-unconditional") {
        return Err(found(
            &node,
            "the measure \"acc-unconditional\"",
            "the template `unconditional` in the stage",
        ));
    }
    Ok(named)
}

/// The log-likelihoods of the continuations of an item, in the order of its options.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scores {
    pub(super) sums: Vec<f32>,
    /// After the prompt without the question; empty if there is none.
    pub(super) unconditional: Vec<f32>,
    pub(super) options: Vec<String>,
    /// Number of tokens of each continuation that count.
    pub(super) tokens: Vec<usize>,
    /// Index of the right option.
    pub(super) gold: Option<usize>,
    /// Whether each option is right, if several may be (`labels`). `None` for one that is in neither set.
    pub(super) labels: Vec<Option<bool>>,
}

impl Scores {
    /// Returns the values of all options.
    fn values(&self, by: Normalisation) -> Vec<f32> {
        let divided = |length: &dyn Fn(usize) -> usize| {
            self.sums.iter().enumerate().map(|(index, sum)| sum / length(index).max(1) as f32).collect()
        };
        match by {
            Normalisation::None => self.sums.clone(),
            Normalisation::Characters => divided(&|index| self.options[index].chars().count()),
            Normalisation::Bytes => divided(&|index| self.options[index].len()),
            Normalisation::Tokens => divided(&|index| self.tokens[index]),
            Normalisation::Unconditional => {
                self.sums.iter().zip(&self.unconditional).map(|(sum, without)| sum - without).collect()
            }
        }
    }

    /// Whether option `index` competes for the answer: another right answer does not.
    fn competes(&self, index: usize) -> bool {
        Some(index) == self.gold || self.labels.get(index).is_none_or(|label| *label == Some(false))
    }

    /// Returns the values of the options that compete for the answer.
    pub(super) fn compared(&self, by: Normalisation) -> Vec<f32> {
        let values = self.values(by).into_iter().enumerate();
        values.filter(|(index, _)| self.competes(*index)).map(|(_, value)| value).collect()
    }

    /// Returns a measure by its name.
    pub(super) fn measure(&self, name: &str) -> Option<f64> {
        if SETS.contains(&name) {
            return self.of_sets(name);
        }
        let (_, by) = WORDS.iter().find(|(word, _)| name.strip_prefix("acc-") == Some(word))?;
        let values = self.values(*by);
        let best = (0..values.len()).filter(|&index| self.competes(index)).fold(
            None,
            |best: Option<usize>, index| match best {
                Some(best) if values[index].total_cmp(&values[best]).is_le() => Some(best),
                _ => Some(index),
            },
        )?;
        Some(f64::from(Some(best) == self.gold))
    }

    /// TruthfulQA's measures. `None` without right or without wrong answers.
    fn of_sets(&self, name: &str) -> Option<f64> {
        let of = |right: bool| {
            let sums = self.sums.iter().zip(&self.labels);
            sums.filter(move |(_, label)| **label == Some(right))
                .map(|(sum, _)| f64::from(*sum))
                .collect::<Vec<_>>()
        };
        let (right, wrong) = (of(true), of(false));
        if right.is_empty() || wrong.is_empty() {
            return None;
        }
        Some(if name == "mc3" { mc3(&right, &wrong) } else { mc2(&right, &wrong) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores() -> Scores {
        Scores {
            sums: vec![-4.0, -6.0, -5.0],
            unconditional: vec![-1.0, -6.0, -5.0],
            options: vec!["ab".into(), "abcdef".into(), "中".into()],
            tokens: vec![1, 2, 4],
            gold: Some(0),
            labels: vec![],
        }
    }

    #[test]
    fn each_normalisation_divides_by_its_length() {
        let scores = scores();
        assert_eq!(scores.compared(Normalisation::None), [-4.0, -6.0, -5.0]);
        assert_eq!(scores.compared(Normalisation::Characters), [-2.0, -1.0, -5.0]);
        assert_eq!(scores.compared(Normalisation::Bytes), [-2.0, -1.0, -5.0 / 3.0]);
        assert_eq!(scores.compared(Normalisation::Tokens), [-4.0, -3.0, -1.25]);
        assert_eq!(scores.compared(Normalisation::Unconditional), [-3.0, 0.0, 0.0]);
        assert_eq!(scores.measure("acc-none"), Some(1.0));
        assert_eq!(scores.measure("acc-characters"), Some(0.0));
    }

    #[test]
    fn other_right_answers_do_not_compete_and_weigh_in_the_sets() {
        let scores = Scores { labels: vec![Some(true), Some(false), Some(true)], ..scores() };
        assert_eq!(scores.compared(Normalisation::None), [-4.0, -6.0]);
        let (right, wrong) = ((-4.0_f64).exp() + (-5.0_f64).exp(), (-6.0_f64).exp());
        assert!((scores.measure("mc2").unwrap() - right / (right + wrong)).abs() < 1e-12);
        assert_eq!(scores.measure("mc3"), Some(1.0));
    }
}
