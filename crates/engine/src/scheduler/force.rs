//! Teacher forcing: the logits of every position of given tokens.

use glmbench_device::SequenceView;

use super::{Engine, no_blocks};
use crate::model::StepInput;
use crate::{EngineError, Request};

/// Tokens that an engine is fed chunk by chunk, with the logits of every position. The engine's blocks are given back when this is
/// dropped.
pub struct Forced<'a> {
    engine: &'a mut Engine,
    tokens: &'a [u32],
    blocks: Vec<u32>,
    /// Number of tokens fed so far.
    fed: usize,
}

impl Engine {
    /// Feeds `tokens` in chunks and passes the logits of every position to `each(position, logits)`. The engine must
    /// be idle.
    pub fn teacher_force(
        &mut self,
        tokens: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        let mut forced = self.force(tokens)?;
        while forced.next_chunk(each)? {}
        Ok(())
    }

    /// Returns `tokens`, ready to be fed chunk by chunk. So two engines can go through the same tokens side by side, and no one holds
    /// the logits of all positions. The engine must be idle.
    pub fn force<'a>(&'a mut self, tokens: &'a [u32]) -> Result<Forced<'a>, EngineError> {
        if !self.is_idle() {
            return Err(EngineError::Request("sequences are running".into()));
        }
        let probe = Request { prompt: tokens.to_vec(), ..Request::probe() };
        self.check(&probe)?;
        self.allocator.drop_cached();
        let prefix = self.model.config().pre_seq_len.unwrap_or(0);
        let blocks = self.allocator.take(prefix + tokens.len()).ok_or_else(no_blocks)?;
        Ok(Forced { engine: self, tokens, blocks, fed: 0 })
    }
}

impl Forced<'_> {
    /// Feeds the next chunk and passes on the logits of its rows. Returns false, and feeds nothing, once all tokens are fed.
    pub fn next_chunk(&mut self, each: &mut dyn FnMut(usize, &[f32])) -> Result<bool, EngineError> {
        let Self { engine, tokens, blocks, fed } = self;
        let Engine { model, logits, .. } = &mut **engine;
        if *fed == tokens.len() {
            return Ok(false);
        }
        let (capacity, config) = (model.capacity(), model.config());
        let (prefix, vocab) = (config.pre_seq_len.unwrap_or(0), config.padded_vocab_size);
        if *fed == 0 {
            model.write_prefix(blocks)?;
        }
        let begin = *fed;
        let end = tokens.len().min(begin + capacity.max_step_tokens.min(capacity.max_logit_rows));
        let positions: Vec<u32> = (begin as u32..end as u32).collect();
        let rows: Vec<usize> = (0..end - begin).collect();
        let view = SequenceView { rows: 0..end - begin, context: prefix + end, blocks };
        let input = StepInput {
            tokens: &tokens[begin..end],
            positions: &positions,
            sequences: &[view],
            logit_rows: &rows,
        };
        model.forward(&input, logits)?;
        *fed = end;
        for (row, logits) in logits.chunks_exact(vocab).enumerate() {
            each(begin + row, logits);
        }
        Ok(true)
    }
}

impl Drop for Forced<'_> {
    fn drop(&mut self) {
        self.engine.allocator.give(std::mem::take(&mut self.blocks));
    }
}
