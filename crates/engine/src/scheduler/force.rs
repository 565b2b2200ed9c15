//! Teacher forcing: the logits of every position of given tokens.

use glmbench_device::SequenceView;

use super::{Engine, no_blocks};
use crate::model::StepInput;
use crate::{EngineError, Request};

impl Engine {
    /// Feeds `tokens` in chunks and passes the logits of every position to `each(position, logits)`. The engine must
    /// be idle.
    pub fn teacher_force(
        &mut self,
        tokens: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        if !self.is_idle() {
            return Err(EngineError::Request("sequences are running".into()));
        }
        let probe = Request { prompt: tokens.to_vec(), ..Request::probe() };
        self.check(&probe)?;
        self.allocator.drop_cached();
        let prefix = self.model.config().pre_seq_len.unwrap_or(0);
        let blocks = self.allocator.take(prefix + tokens.len()).ok_or_else(no_blocks)?;
        let result = self.feed(tokens, &blocks, each);
        self.allocator.give(blocks);
        result
    }

    /// Feeds one sequence in chunks and passes on the logits of every row.
    fn feed(
        &mut self,
        tokens: &[u32],
        blocks: &[u32],
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        let capacity = self.model.capacity();
        let prefix = self.model.config().pre_seq_len.unwrap_or(0);
        let vocab = self.model.config().padded_vocab_size;
        self.model.write_prefix(blocks)?;
        let chunk = capacity.max_step_tokens.min(capacity.max_logit_rows);
        for begin in (0..tokens.len()).step_by(chunk) {
            let end = tokens.len().min(begin + chunk);
            let positions: Vec<u32> = (begin as u32..end as u32).collect();
            let rows: Vec<usize> = (0..end - begin).collect();
            let view = SequenceView { rows: 0..end - begin, context: prefix + end, blocks };
            let input = StepInput {
                tokens: &tokens[begin..end],
                positions: &positions,
                sequences: &[view],
                logit_rows: &rows,
            };
            self.model.forward(&input, &mut self.logits)?;
            for (row, logits) in self.logits.chunks_exact(vocab).enumerate() {
                each(begin + row, logits);
            }
        }
        Ok(())
    }
}
