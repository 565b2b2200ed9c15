//! Which part of a model each rank holds.
//!
//! Query heads, both halves of the feed-forward layer and the output layer's vocabulary are split into equal parts. KV
//! heads are split while there is at least one per rank; beyond that, consecutive ranks hold the same head. Projections
//! back to the residual stream are split along their input, and their results summed over the ranks. Embedding and
//! norms are on every rank.

use std::ops::Range;

use crate::EngineError;
use crate::config::ModelConfig;
use crate::weights::{Part, layout};

/// Maximum number of ranks: the devices of one machine.
pub const MAX_TP: usize = 8;

/// One rank's shard of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    rank: usize,
    tp: usize,
}

impl Cut {
    /// The whole model on one rank.
    pub const WHOLE: Self = Self { rank: 0, tp: 1 };

    /// Creates the shard of rank `rank` of `tp`.
    ///
    /// # Errors
    /// The model cannot be split over `tp` ranks, as in [`check_tp`].
    pub fn new(config: &ModelConfig, rank: usize, tp: usize) -> Result<Self, EngineError> {
        check_tp(config, tp)?;
        assert!(rank < tp, "invariant: rank {rank} is one of {tp}");
        Ok(Self { rank, tp })
    }

    /// Returns the rank.
    pub fn rank(self) -> usize {
        self.rank
    }

    /// Returns the number of ranks.
    pub fn tp(self) -> usize {
        self.tp
    }

    /// Returns the smaller model that this rank computes: its heads, its part of the feed-forward layer, and its output
    /// rows as `padded_vocab_size`. The embedding keeps all its rows on every rank.
    pub fn config(self, whole: &ModelConfig) -> ModelConfig {
        ModelConfig {
            num_attention_heads: whole.num_attention_heads / self.tp,
            num_kv_heads: self.kv_heads(whole).len(),
            ffn_hidden_size: whole.ffn_hidden_size / self.tp,
            padded_vocab_size: whole.padded_vocab_size / self.tp,
            ..whole.clone()
        }
    }

    /// Returns the KV heads that this rank's query heads read.
    pub fn kv_heads(self, whole: &ModelConfig) -> Range<usize> {
        let parts = self.tp.min(whole.num_kv_heads);
        let each = whole.num_kv_heads / parts;
        let part = self.rank * parts / self.tp;
        part * each..(part + 1) * each
    }

    /// Returns the part of a tensor that this rank needs.
    pub fn part(self, whole: &ModelConfig, name: &str) -> Part {
        if self.tp == 1 {
            return Part::Whole;
        }
        let (ffn, channels) = (whole.ffn_hidden_size, whole.kv_channels);
        match layout::part_of_layer(name).unwrap_or(name) {
            layout::QKV_WEIGHT | layout::QKV_BIAS => {
                let heads = self.kv_heads(whole);
                let kv = heads.start * channels..heads.end * channels;
                let (keys, values) = (whole.q_width(), whole.q_width() + whole.kv_width());
                Part::Rows(vec![self.of(whole.q_width()), behind(keys, &kv), behind(values, &kv)])
            }
            layout::FFN_UP => Part::Rows(vec![self.of(ffn), behind(ffn, &self.of(ffn))]),
            layout::OUTPUT => Part::Rows(vec![self.of(whole.padded_vocab_size)]),
            layout::ATTENTION_DENSE => Part::Columns(self.of(whole.q_width())),
            layout::FFN_DOWN => Part::Columns(self.of(ffn)),
            _ => Part::Whole,
        }
    }

    /// Returns this rank's range of `count` items that are split equally.
    fn of(self, count: usize) -> Range<usize> {
        let each = count / self.tp;
        self.rank * each..(self.rank + 1) * each
    }
}

/// Returns `range` shifted by `offset`.
fn behind(offset: usize, range: &Range<usize>) -> Range<usize> {
    offset + range.start..offset + range.end
}

/// Returns the numbers of ranks, up to [`MAX_TP`], that a model can be split over.
pub fn possible_tp(config: &ModelConfig) -> Vec<usize> {
    (1..=MAX_TP).filter(|&tp| obstacle(config, tp).is_none()).collect()
}

/// Checks that a model can be split over `tp` ranks.
///
/// # Errors
/// It cannot. The message says what does not divide and which numbers of ranks work.
pub fn check_tp(config: &ModelConfig, tp: usize) -> Result<(), EngineError> {
    let Some(obstacle) = obstacle(config, tp) else { return Ok(()) };
    let possible: Vec<String> = possible_tp(config).iter().map(usize::to_string).collect();
    Err(EngineError::Option(format!(
        "tp {tp} cannot be: {obstacle}; this model can run with tp {}",
        possible.join(", ")
    )))
}

/// Returns why a model cannot be split over `tp` ranks, or `None` if it can.
fn obstacle(config: &ModelConfig, tp: usize) -> Option<String> {
    if tp == 0 || tp > MAX_TP {
        return Some(format!("1 to {MAX_TP} ranks are possible"));
    }
    let (heads, groups) = (config.num_attention_heads, config.num_kv_heads);
    let divides = |count: usize| count.is_multiple_of(tp);
    let parts = [
        (divides(heads), format!("{heads} query heads cannot be cut in {tp} equal parts")),
        (
            divides(groups) || tp.is_multiple_of(groups),
            format!("{groups} KV heads can neither be cut in {tp} equal parts nor repeated on {tp} ranks"),
        ),
        (
            divides(config.ffn_hidden_size),
            format!("ffn_hidden_size {} cannot be cut in {tp} equal parts", config.ffn_hidden_size),
        ),
        (
            divides(config.padded_vocab_size),
            format!("padded_vocab_size {} cannot be cut in {tp} equal parts", config.padded_vocab_size),
        ),
    ];
    parts.into_iter().find(|(fits, _)| !fits).map(|(_, problem)| problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 8 query heads of 4 channels, 2 KV heads, feed-forward width 16, vocabulary 32.
    fn small() -> ModelConfig {
        ModelConfig {
            num_layers: 1,
            hidden_size: 32,
            ffn_hidden_size: 16,
            kv_channels: 4,
            num_attention_heads: 8,
            num_kv_heads: 2,
            padded_vocab_size: 32,
            ..ModelConfig::chatglm2_6b()
        }
    }

    fn rows(config: &ModelConfig, rank: usize, tp: usize, part: &str) -> Vec<usize> {
        match Cut::new(config, rank, tp).unwrap().part(config, &layout::layer_tensor(0, part)) {
            Part::Rows(ranges) => ranges.into_iter().flatten().collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn two_ranks_have_a_kv_head_each() {
        let config = small();
        let expected = [
            (0..16).chain(32..36).chain(40..44).collect::<Vec<_>>(),
            (16..32).chain(36..40).chain(44..48).collect(),
        ];
        for (rank, expected) in expected.iter().enumerate() {
            assert_eq!(rows(&config, rank, 2, layout::QKV_WEIGHT), *expected);
            assert_eq!(rows(&config, rank, 2, layout::QKV_BIAS), *expected);
        }
        assert_eq!(rows(&config, 1, 2, layout::FFN_UP), (8..16).chain(24..32).collect::<Vec<_>>());
        let cut = Cut::new(&config, 1, 2).unwrap();
        let part = |name: &str| cut.part(&config, name);
        assert_eq!(part(&layout::layer_tensor(0, layout::ATTENTION_DENSE)), Part::Columns(16..32));
        assert_eq!(part(&layout::layer_tensor(0, layout::FFN_DOWN)), Part::Columns(8..16));
        assert_eq!(part(layout::OUTPUT), Part::Rows(std::iter::once(16..32).collect()));
        for name in [layout::EMBEDDING, layout::FINAL_NORM, layout::PREFIX_EMBEDDING] {
            assert_eq!(part(name), Part::Whole);
        }
        assert_eq!(part(&layout::layer_tensor(0, layout::INPUT_NORM)), Part::Whole);
    }

    #[test]
    fn beyond_the_kv_heads_ranks_in_a_row_share_one() {
        let config = small();
        let heads = |tp: usize| -> Vec<Range<usize>> {
            (0..tp).map(|rank| Cut::new(&config, rank, tp).unwrap().kv_heads(&config)).collect()
        };
        assert_eq!(heads(1), vec![0..2; 1]);
        assert_eq!(heads(2), [0..1, 1..2]);
        assert_eq!(heads(4), [0..1, 0..1, 1..2, 1..2]);
        assert_eq!(heads(8), [0..1, 0..1, 0..1, 0..1, 1..2, 1..2, 1..2, 1..2]);
        let third = (8..12).chain(32..36).chain(40..44).collect::<Vec<_>>();
        assert_eq!(rows(&config, 2, 8, layout::QKV_WEIGHT), third);
        let sixth = (20..24).chain(36..40).chain(44..48).collect::<Vec<_>>();
        assert_eq!(rows(&config, 5, 8, layout::QKV_WEIGHT), sixth);
    }

    #[test]
    fn several_kv_heads_a_rank_stay_together() {
        let config = ModelConfig { num_kv_heads: 8, ..small() };
        let cut = Cut::new(&config, 1, 4).unwrap();
        assert_eq!(cut.kv_heads(&config), 2..4);
        assert_eq!(cut.config(&config).num_kv_heads, 2);
    }

    #[test]
    fn a_rank_is_a_smaller_model_of_the_same_widths() {
        let whole = ModelConfig::chatglm2_6b();
        for tp in [1, 2, 4, 8] {
            let local = Cut::new(&whole, tp - 1, tp).unwrap().config(&whole);
            assert_eq!(local.num_attention_heads, 32 / tp);
            assert_eq!(local.num_kv_heads, (2 / tp).max(1));
            assert_eq!((local.ffn_hidden_size, local.padded_vocab_size), (13696 / tp, 65024 / tp));
            assert_eq!((local.hidden_size, local.kv_channels), (4096, 128));
        }
    }

    /// Every element of the model is on a rank. Only KV heads and replicated tensors are on several.
    #[test]
    fn the_parts_cover_every_tensor() {
        for groups in [1, 2, 4, 8] {
            let config = ModelConfig { num_kv_heads: groups, ..small() };
            for tp in possible_tp(&config) {
                for (name, shape) in layout::model_tensors(&config) {
                    let mut seen = vec![0usize; shape.iter().product()];
                    for rank in 0..tp {
                        let part = Cut::new(&config, rank, tp).unwrap().part(&config, &name);
                        part.runs(&shape).into_iter().flatten().for_each(|i| seen[i] += 1);
                    }
                    let most = if name.contains("query_key_value") { tp.div_ceil(groups) } else { tp };
                    assert!(seen.iter().all(|&n| n == 1 || n == most), "{name} {groups} {tp}");
                }
            }
        }
    }

    #[test]
    fn an_impossible_number_of_ranks_is_refused_with_those_that_can_be() {
        let refusal = |config: &ModelConfig, tp| check_tp(config, tp).unwrap_err().to_string();
        let six_b = ModelConfig::chatglm2_6b();
        assert_eq!(possible_tp(&six_b), [1, 2, 4, 8]);
        assert_eq!(
            refusal(&six_b, 3),
            "tp 3 cannot be: 32 query heads cannot be cut in 3 equal parts; this model can run with tp 1, 2, 4, 8"
        );
        assert!(refusal(&six_b, 16).contains("tp 16 cannot be: 1 to 8 ranks are possible"));
        assert!(refusal(&six_b, 0).contains("1 to 8"));
        let odd = ModelConfig { ffn_hidden_size: 15, ..small() };
        assert!(refusal(&odd, 2).contains("ffn_hidden_size 15") && possible_tp(&odd) == [1]);
        let odd = ModelConfig { padded_vocab_size: 34, ..small() };
        assert!(refusal(&odd, 4).contains("padded_vocab_size 34") && possible_tp(&odd) == [1, 2]);
        let threes = ModelConfig { num_attention_heads: 12, num_kv_heads: 3, ..small() };
        assert!(refusal(&threes, 2).contains("3 KV heads can neither") && possible_tp(&threes) == [1]);
    }
}
