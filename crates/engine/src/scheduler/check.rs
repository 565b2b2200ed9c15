//! Checks requests before they are queued.

use super::Engine;
use crate::cache::blocks_for;
use crate::{EngineError, Request};

impl Engine {
    /// Checks that the model can run a request.
    ///
    /// # Errors
    /// The prompt is empty, a token is unknown, or the sequence is too long.
    pub(super) fn check(&self, request: &Request) -> Result<(), EngineError> {
        let config = self.model.config();
        let capacity = self.model.capacity();
        let refuse = |problem: String| Err(EngineError::Request(problem));
        if request.prompt.is_empty() {
            return refuse("the prompt is empty".into());
        }
        let known = config.padded_vocab_size;
        let ids = [&request.prompt[..], &request.choice_ids, &request.stop.ids, &request.report.ids];
        if let Some(id) = ids.into_iter().flatten().find(|&&id| id as usize >= known) {
            return refuse(format!("token {id} is outside the model's vocabulary of {known}"));
        }
        if let Some(from) = request.score_from.filter(|from| !(1..request.prompt.len()).contains(from)) {
            return refuse(format!(
                "log-probabilities are wanted from token {from} of a prompt of {}; expected one that has a token before it",
                request.prompt.len()
            ));
        }
        if !request.stop.texts.is_empty() && self.tokenizer.is_none() {
            return refuse("the engine has no tokenizer, so it cannot watch for stop texts".into());
        }
        let length = request.prompt.len().saturating_add(request.max_new_tokens);
        if length > config.seq_length {
            return refuse(format!(
                "prompt of {} and {} new tokens exceed the model's seq_length {}",
                request.prompt.len(),
                request.max_new_tokens,
                config.seq_length
            ));
        }
        let context = length + config.pre_seq_len.unwrap_or(0);
        if context > capacity.max_context || blocks_for(context) > capacity.kv_blocks {
            return refuse(format!(
                "prompt of {} and {} new tokens exceed the {} tokens that memory was taken for",
                request.prompt.len(),
                request.max_new_tokens,
                capacity.max_context
            ));
        }
        Ok(())
    }
}
