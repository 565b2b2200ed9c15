//! What was read from a model's folder, and the decisions where the folder is silent. Shown before a run, recorded, and
//! part of the identity.

use std::collections::BTreeMap;

use glmbench_device::rotary::RotaryScaling;

use glmbench_engine::config::ModelConfig;
use glmbench_engine::tokenizer::Tokenizer;

/// The settings of a loaded model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelFacts {
    /// The shape as text.
    pub shape: String,
    /// The files that hold the weights.
    pub weights: String,
    /// What `rope_ratio` scales, as in the identity: `none`, `positions/16`, `base*16`.
    pub rotary_scaling: String,
    /// The source of `rotary_scaling`.
    rotary_from: &'static str,
    /// Ids before each prompt, as in the identity: `64790 64792`, or `none`.
    pub prefix_ids: String,
    /// Their pieces, and what decided on them.
    prefix_from: String,
    /// Ids that end a sequence.
    pub end_ids: String,
    /// Keys of `config.json` that this engine does not know, with their values, or `none`.
    pub config_words: String,
}

impl ModelFacts {
    /// Collects the settings of a model with these weight files. `scaling_said` says whether the user chose what
    /// `rope_ratio` scales.
    pub fn new(
        config: &ModelConfig,
        tokenizer: Option<&Tokenizer>,
        weights: String,
        scaling_said: bool,
    ) -> Self {
        let rotary_scaling = match config.rotary_scaling() {
            RotaryScaling::None => "none".to_owned(),
            RotaryScaling::Positions(ratio) => format!("positions/{ratio}"),
            RotaryScaling::Base(ratio) => format!("base*{ratio}"),
        };
        let rotary_from = match (config.rope_ratio, scaling_said) {
            (None, _) => "config.json has no rope_ratio",
            (Some(_), true) => "by --rope-scaling",
            (Some(_), false) => "by _name_or_path",
        };
        let words = config.unread.iter().map(|(key, value)| format!("{key} = {value}"));
        Self {
            shape: config.shape(),
            weights,
            rotary_scaling,
            rotary_from,
            prefix_ids: ids(tokenizer.map_or(&[], Tokenizer::prefix_ids)),
            prefix_from: tokenizer.map_or_else(|| "there is no tokenizer".to_owned(), prefix_from),
            end_ids: ids(&config.eos_token_ids),
            config_words: or_none(words.collect::<Vec<_>>().join(", ")),
        }
    }

    /// Returns the fields that decide whether two runs use the same model.
    pub fn identity(&self) -> [(&'static str, String); 4] {
        [
            ("rotary_scaling", self.rotary_scaling.clone()),
            ("prefix_ids", self.prefix_ids.clone()),
            ("end_ids", self.end_ids.clone()),
            ("config_words", self.config_words.clone()),
        ]
    }

    /// Returns all settings by name, with what decided on them.
    pub fn details(&self) -> BTreeMap<String, String> {
        BTreeMap::from(
            [
                ("shape", self.shape.clone()),
                ("weights", self.weights.clone()),
                ("rotary_scaling", format!("{} ({})", self.rotary_scaling, self.rotary_from)),
                ("prefix_ids", format!("{} ({})", self.prefix_ids, self.prefix_from)),
                ("end_ids", self.end_ids.clone()),
                ("config_words", self.config_words.clone()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        )
    }
}

fn ids(ids: &[u32]) -> String {
    or_none(ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

/// Describes the prefix: `[gMASK] sop, the class in tokenizer_config.json`.
fn prefix_from(tokenizer: &Tokenizer) -> String {
    let pieces = tokenizer.prefix_ids().iter().filter_map(|&id| tokenizer.piece(id));
    let pieces = pieces.collect::<Vec<_>>().join(" ");
    let comma = if pieces.is_empty() { "" } else { ", " };
    format!("{pieces}{comma}{}", tokenizer.prefix_from())
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_engine::config::RopeScaling;

    fn facts(config: &ModelConfig, said: bool) -> ModelFacts {
        ModelFacts::new(config, None, "random, seed 0".into(), said)
    }

    #[test]
    fn the_facts_of_the_plain_model_are_the_defaults_of_identity() {
        let plain = facts(&ModelConfig::chatglm2_6b(), false);
        let expected =
            [("rotary_scaling", "none"), ("prefix_ids", "none"), ("end_ids", "2"), ("config_words", "none")];
        assert_eq!(plain.identity(), expected.map(|(name, value)| (name, value.to_owned())));
        assert_eq!(
            plain.shape,
            "28 layers, hidden 4096, ffn 13696, 32 heads of 128, 2 KV heads, vocabulary 65024"
        );
        assert_eq!(plain.details()["rotary_scaling"], "none (config.json has no rope_ratio)");
    }

    #[test]
    fn every_choice_changes_identity() {
        let base = ModelConfig { rope_ratio: Some(16.0), ..ModelConfig::chatglm2_6b() };
        let scaled = |scaling| ModelConfig { rope_scaling: Some(scaling), ..base.clone() };
        let (positions, over) = (scaled(RopeScaling::Positions), scaled(RopeScaling::Base));
        assert_eq!(facts(&positions, false).rotary_scaling, "positions/16");
        assert_eq!(facts(&over, true).details()["rotary_scaling"], "base*16 (by --rope-scaling)");
        let ends = ModelConfig { eos_token_ids: vec![2, 7], ..base };
        assert_eq!(facts(&ends, false).end_ids, "2 7");
        let words = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "\"x\"".to_owned())]);
        let wordy = ModelConfig { unread: words, ..ModelConfig::chatglm2_6b() };
        assert_eq!(facts(&wordy, false).config_words, "a = 1, b = \"x\"");
    }
}
