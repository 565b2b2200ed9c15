//! The published speeds: `crates/ascend-emulator/calibration/published.csv`, facts only.

use std::str::FromStr;

use serde::Deserialize;

use glmbench_ascend::Chip;
use glmbench_device::words::one_of;
use glmbench_device::{Precision, Word};
use glmbench_engine::config::ModelConfig;

/// The committed table.
const TABLE: &str = include_str!("../../ascend-emulator/calibration/published.csv");

/// The phase that a speed is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// All prompt tokens of the batch.
    Prefill,
    /// One step of the whole batch.
    Decode,
}

impl Phase {
    /// Both phases.
    pub const ALL: [Self; 2] = [Self::Prefill, Self::Decode];

    /// Returns the word of the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

/// How the software launched operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Whole steps as graphs.
    Graph,
    /// One operator after another, from native code.
    Single,
    /// One operator after another, from an interpreter, which is slower than the chip.
    Eager,
}

/// What a row is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// The profiles are fitted to it.
    Fit,
    /// No profile is fitted to it; the fitted profiles are checked against it.
    Check,
    /// It is only reported; its note says why.
    Report,
}

/// Lengths in tokens: one, or the powers of two of a range, over which the published figure is a mean.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Lengths(Vec<usize>);

impl Lengths {
    /// Returns all lengths.
    pub fn all(&self) -> &[usize] {
        &self.0
    }

    /// Returns the mean length, rounded down.
    pub fn mean(&self) -> usize {
        self.0.iter().sum::<usize>() / self.0.len().max(1)
    }
}

impl FromStr for Lengths {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse::<usize>().ok().filter(|n| *n <= 1 << 20);
        let wrong = || format!("found \"{word}\"; expected a number of tokens, or a range such as 32..1024");
        let Some((from, to)) = word.split_once("..") else {
            return number(word).map(|n| Self(vec![n])).ok_or_else(wrong);
        };
        let (from, to) =
            number(from).zip(number(to)).filter(|(from, to)| *from > 0 && from < to).ok_or_else(wrong)?;
        Ok(Self(std::iter::successors(Some(from), |n| Some(2 * n)).take_while(|n| *n <= to).collect()))
    }
}

impl TryFrom<String> for Lengths {
    type Error = String;

    fn try_from(word: String) -> Result<Self, String> {
        word.parse()
    }
}

/// What a word of the column `chip` stands for.
#[derive(Debug, Clone, Copy)]
struct ChipWord {
    word: &'static str,
    card: Chip,
    /// The profile of the chip; `None` if the word does not state the variant.
    profile: Option<&'static str>,
}

/// The words of the column `chip`.
const CHIPS: [ChipWord; 4] = [
    ChipWord { word: "310P3", card: Chip::Duo300i, profile: Some("300i-duo") },
    ChipWord { word: "910B3", card: Chip::A2800i, profile: Some("800i-a2-64g") },
    ChipWord { word: "910B4", card: Chip::A2800i, profile: Some("800i-a2") },
    ChipWord { word: "910B?", card: Chip::A2800i, profile: None },
];

/// A published speed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Name of the model.
    pub model: String,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Matrices of the feed-forward layer: three with a gate, two without.
    pub ffn_matrices: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// The chip: `310P3`, `910B3` or `910B4`. `910B?` if the variant is not stated.
    pub chip: String,
    /// Chips that share the model.
    pub chips: usize,
    /// Type of the weights.
    pub dtype: Word<Precision>,
    /// How operators were launched.
    pub mode: Mode,
    /// Sequences.
    pub batch: usize,
    /// Prompt tokens of a sequence.
    pub input_tokens: Lengths,
    /// Generated tokens of a sequence.
    pub output_tokens: Lengths,
    /// The phase.
    pub phase: Phase,
    /// The published time.
    pub value: f64,
    /// Its unit, `ms`.
    pub unit: String,
    /// What the row is used for.
    #[serde(rename = "use")]
    pub purpose: Use,
    /// Why it is only reported.
    pub note: String,
    /// Where it was published.
    pub source: String,
}

impl Row {
    /// Returns the model's shape, or why this program cannot run it on the chip.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn config(&self) -> Result<ModelConfig, String> {
        if self.ffn_matrices != 3 {
            return Err(format!("{} feed-forward matrices; the engine's layer has three", self.ffn_matrices));
        }
        self.precision()?;
        if self.mode == Mode::Eager {
            return Err("launched by an interpreter; the clock has no such host".into());
        }
        Ok(ModelConfig {
            num_layers: self.layers,
            hidden_size: self.hidden,
            ffn_hidden_size: self.ffn,
            kv_channels: self.head_dim,
            num_attention_heads: self.heads,
            num_kv_heads: self.kv_heads,
            padded_vocab_size: self.vocab,
            seq_length: 1 << 17,
            name: Some(self.model.clone()),
            ..ModelConfig::chatglm2_6b()
        })
    }

    /// Returns the types that the row ran in.
    ///
    /// # Errors
    /// The chip is unknown, or the card has no such weights.
    pub fn precision(&self) -> Result<Precision, String> {
        let card = self.card()?.device();
        let found = self.dtype.known().filter(|of| card.instead_of(*of).is_none());
        found.ok_or_else(|| format!("{} weights; no operator of the card's reads them", self.dtype))
    }

    /// Returns the card of the row's chip.
    ///
    /// # Errors
    /// The chip is unknown.
    pub fn card(&self) -> Result<Chip, String> {
        let unknown = || {
            let words = one_of(CHIPS.map(|known| known.word));
            format!("chip \"{}\" is unknown, expected {words}", self.chip)
        };
        self.known_chip().map(|known| known.card).ok_or_else(unknown)
    }

    /// Returns the profile of the chip in the row; `None` if the chip is unknown or its variant is not stated.
    pub fn profile(&self) -> Option<&'static str> {
        self.known_chip()?.profile
    }

    fn known_chip(&self) -> Option<ChipWord> {
        CHIPS.into_iter().find(|known| known.word == self.chip)
    }
}

/// Returns the committed rows.
///
/// # Errors
/// The line and the problem.
pub fn rows() -> Result<Vec<Row>, csv::Error> {
    csv::Reader::from_reader(TABLE.as_bytes()).deserialize().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_ascend::profile::Profile;
    use std::collections::BTreeMap;

    #[test]
    fn every_row_parses_and_those_that_the_engine_cannot_express_say_why() {
        let rows = rows().unwrap();
        assert!(rows.len() > 200, "{}", rows.len());
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for row in &rows {
            assert_eq!(row.unit, "ms");
            assert!(row.value > 0.0 && row.batch > 0 && row.chips > 0, "{row:?}");
            assert_eq!(row.note.is_empty(), row.purpose != Use::Report, "{row:?}");
            assert!(!row.source.is_empty() && row.source.len() < 200, "{row:?}");
            if let Err(reason) = row.config() {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        let said: Vec<String> = reasons.iter().map(|(reason, n)| format!("{n}: {reason}")).collect();
        assert_eq!(
            said,
            [
                "4: 2 feed-forward matrices; the engine's layer has three",
                "4: launched by an interpreter; the clock has no such host",
                "2: w8a8sc weights; no operator of the card's reads them",
            ]
        );
    }

    #[test]
    fn profiles_are_of_their_chips() {
        for ChipWord { word, card, profile } in CHIPS {
            let Some(profile) = profile else { continue };
            let soc = Profile::builtin(profile).unwrap().soc;
            assert_eq!((soc.as_str(), Chip::of_soc(&soc)), (&*format!("Ascend{word}"), Some(card)));
        }
    }

    #[test]
    fn rows_of_an_unknown_chip_say_so() {
        let row = Row { chip: "910C".into(), ..rows().unwrap().swap_remove(0) };
        let problem = row.config().unwrap_err();
        assert_eq!(problem, "chip \"910C\" is unknown, expected 310P3, 910B3, 910B4 or 910B?");
        assert_eq!((row.card(), row.profile()), (Err(problem), None));
    }

    #[test]
    fn ranges_are_powers_of_two_and_mistakes_are_said() {
        let range: Lengths = "32..1024".parse().unwrap();
        assert_eq!(range.all(), [32, 64, 128, 256, 512, 1024]);
        assert_eq!(range.mean(), 336);
        assert_eq!("0".parse::<Lengths>().unwrap().mean(), 0);
        for wrong in ["", "x", "-1", "8..4", "0..4", "1..", "99999999999999999999"] {
            assert!(wrong.parse::<Lengths>().unwrap_err().contains("expected"), "{wrong}");
        }
    }
}
