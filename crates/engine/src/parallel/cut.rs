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
pub const MAX_WORLD: usize = 8;

/// One rank's shard of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    rank: usize,
    world: usize,
}

impl Cut {
    /// The whole model on one rank.
    pub const WHOLE: Self = Self { rank: 0, world: 1 };

    /// Creates the shard of rank `rank` of `world`.
    ///
    /// # Errors
    /// The model cannot be split over `world` ranks, as in [`check_world`].
    pub fn new(config: &ModelConfig, rank: usize, world: usize) -> Result<Self, EngineError> {
        check_world(config, world)?;
        assert!(rank < world, "invariant: rank {rank} is one of {world}");
        Ok(Self { rank, world })
    }

    /// Returns the rank.
    pub fn rank(self) -> usize {
        self.rank
    }

    /// Returns the number of ranks.
    pub fn world(self) -> usize {
        self.world
    }

    /// Returns the smaller model that this rank computes: its heads, its part of the feed-forward layer, and its output
    /// rows as `padded_vocab_size`. The embedding keeps all its rows on every rank.
    pub fn config(self, whole: &ModelConfig) -> ModelConfig {
        ModelConfig {
            num_attention_heads: whole.num_attention_heads / self.world,
            num_kv_heads: self.kv_heads(whole).len(),
            ffn_hidden_size: whole.ffn_hidden_size / self.world,
            padded_vocab_size: whole.padded_vocab_size / self.world,
            ..whole.clone()
        }
    }

    /// Returns the KV heads that this rank's query heads read.
    pub fn kv_heads(self, whole: &ModelConfig) -> Range<usize> {
        let parts = self.world.min(whole.num_kv_heads);
        let each = whole.num_kv_heads / parts;
        let part = self.rank * parts / self.world;
        part * each..(part + 1) * each
    }

    /// Returns the part of a tensor that this rank needs.
    pub fn part(self, whole: &ModelConfig, name: &str) -> Part {
        if self.world == 1 {
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
        let each = count / self.world;
        self.rank * each..(self.rank + 1) * each
    }
}

/// Returns `range` shifted by `offset`.
fn behind(offset: usize, range: &Range<usize>) -> Range<usize> {
    offset + range.start..offset + range.end
}

/// Returns the world sizes, up to [`MAX_WORLD`], that a model can be split over.
pub fn worlds(config: &ModelConfig) -> Vec<usize> {
    (1..=MAX_WORLD).filter(|&world| obstacle(config, world).is_none()).collect()
}

/// Checks that a model can be split over `world` ranks.
///
/// # Errors
/// It cannot. The message says what does not divide and which world sizes work.
pub fn check_world(config: &ModelConfig, world: usize) -> Result<(), EngineError> {
    let Some(obstacle) = obstacle(config, world) else { return Ok(()) };
    let possible: Vec<String> = worlds(config).iter().map(usize::to_string).collect();
    Err(EngineError::Option(format!(
        "tp {world} cannot be: {obstacle}; this model can run with tp {}",
        possible.join(", ")
    )))
}

/// Returns why a model cannot be split over `world` ranks, or `None` if it can.
fn obstacle(config: &ModelConfig, world: usize) -> Option<String> {
    if world == 0 || world > MAX_WORLD {
        return Some(format!("1 to {MAX_WORLD} ranks are possible"));
    }
    let (heads, groups) = (config.num_attention_heads, config.num_kv_heads);
    let divides = |count: usize| count.is_multiple_of(world);
    let parts = [
        (divides(heads), format!("{heads} query heads cannot be cut in {world} equal parts")),
        (
            divides(groups) || world.is_multiple_of(groups),
            format!(
                "{groups} KV heads can neither be cut in {world} equal parts nor repeated on {world} ranks"
            ),
        ),
        (
            divides(config.ffn_hidden_size),
            format!("ffn_hidden_size {} cannot be cut in {world} equal parts", config.ffn_hidden_size),
        ),
        (
            divides(config.padded_vocab_size),
            format!("padded_vocab_size {} cannot be cut in {world} equal parts", config.padded_vocab_size),
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

    fn rows(config: &ModelConfig, rank: usize, world: usize, part: &str) -> Vec<usize> {
        match Cut::new(config, rank, world).unwrap().part(config, &layout::layer_tensor(0, part)) {
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
        let heads = |world: usize| -> Vec<Range<usize>> {
            (0..world).map(|rank| Cut::new(&config, rank, world).unwrap().kv_heads(&config)).collect()
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
        for world in [1, 2, 4, 8] {
            let local = Cut::new(&whole, world - 1, world).unwrap().config(&whole);
            assert_eq!(local.num_attention_heads, 32 / world);
            assert_eq!(local.num_kv_heads, (2 / world).max(1));
            assert_eq!((local.ffn_hidden_size, local.padded_vocab_size), (13696 / world, 65024 / world));
            assert_eq!((local.hidden_size, local.kv_channels), (4096, 128));
        }
    }

    /// Every element of the model is on a rank. Only KV heads and replicated tensors are on several.
    #[test]
    fn the_parts_cover_every_tensor() {
        for groups in [1, 2, 4, 8] {
            let config = ModelConfig { num_kv_heads: groups, ..small() };
            for world in worlds(&config) {
                for (name, shape) in layout::model_tensors(&config) {
                    let mut seen = vec![0usize; shape.iter().product()];
                    for rank in 0..world {
                        let part = Cut::new(&config, rank, world).unwrap().part(&config, &name);
                        part.runs(&shape).into_iter().flatten().for_each(|i| seen[i] += 1);
                    }
                    let most = if name.contains("query_key_value") { world.div_ceil(groups) } else { world };
                    assert!(seen.iter().all(|&n| n == 1 || n == most), "{name} {groups} {world}");
                }
            }
        }
    }

    #[test]
    fn an_impossible_world_is_refused_with_those_that_can_be() {
        let refusal = |config: &ModelConfig, world| check_world(config, world).unwrap_err().to_string();
        let six_b = ModelConfig::chatglm2_6b();
        assert_eq!(worlds(&six_b), [1, 2, 4, 8]);
        assert_eq!(
            refusal(&six_b, 3),
            "tp 3 cannot be: 32 query heads cannot be cut in 3 equal parts; this model can run with tp 1, 2, 4, 8"
        );
        assert!(refusal(&six_b, 16).contains("tp 16 cannot be: 1 to 8 ranks are possible"));
        assert!(refusal(&six_b, 0).contains("1 to 8"));
        let odd = ModelConfig { ffn_hidden_size: 15, ..small() };
        assert!(refusal(&odd, 2).contains("ffn_hidden_size 15") && worlds(&odd) == [1]);
        let odd = ModelConfig { padded_vocab_size: 34, ..small() };
        assert!(refusal(&odd, 4).contains("padded_vocab_size 34") && worlds(&odd) == [1, 2]);
        let threes = ModelConfig { num_attention_heads: 12, num_kv_heads: 3, ..small() };
        assert!(refusal(&threes, 2).contains("3 KV heads can neither") && worlds(&threes) == [1]);
    }
}
