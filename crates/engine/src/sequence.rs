//! One sequence on its way through the engine: what is fed, what was chosen, and when it ends.

use super::cache;
use super::config::ModelConfig;
use super::logprobs::TokenLogprobs;
use super::lookup::GuessLength;
use super::output::TextOutput;
use super::sampler::{Sampler, log_sum_exp};
use super::tokenizer::Tokenizer;
use super::{Completion, FinishReason, NotFinite, PromptDetail, Request, RequestId, Step, TokenDetail};

/// A request that waits or runs.
pub(super) struct Sequence {
    pub(super) id: RequestId,
    pub(super) request: Request,
    pub(super) sampler: Sampler,
    /// Tokens already in the cache, prompt and output.
    pub(super) fed: usize,
    /// Prompt and output tokens.
    pub(super) tokens: Vec<u32>,
    pub(super) blocks: Vec<u32>,
    pub(super) choice_logprobs: Vec<f32>,
    /// Log-probabilities of the prompt tokens from [`Request::score_from`] on.
    scored: Vec<f32>,
    /// The output as text, if the request needs it.
    text: Option<TextOutput>,
    prompt_logprobs: Vec<Option<TokenLogprobs>>,
    pub(super) start_ns: Option<u64>,
    /// How many tokens to guess.
    pub(super) guesses: GuessLength,
}

/// What choosing a token needs beside the logits.
pub(super) struct Choosing<'a> {
    pub(super) config: &'a ModelConfig,
    pub(super) tokenizer: Option<&'a Tokenizer>,
}

impl Sequence {
    pub(super) fn new(id: RequestId, request: Request) -> Self {
        let stop = &request.stop;
        let text = (request.report.tokens || !stop.texts.is_empty())
            .then(|| TextOutput::new(stop.texts.clone(), stop.keep));
        Self {
            id,
            sampler: Sampler::new(request.sampling),
            fed: 0,
            tokens: request.prompt.clone(),
            blocks: Vec::new(),
            choice_logprobs: Vec::new(),
            scored: Vec::new(),
            text,
            prompt_logprobs: Vec::new(),
            start_ns: None,
            guesses: GuessLength::default(),
            request,
        }
    }

    /// Returns the number of prompt tokens that are not fed yet.
    pub(super) fn prompt_left(&self) -> usize {
        self.request.prompt.len().saturating_sub(self.fed)
    }

    /// Notes the log-probabilities of the requested choices after the prompt.
    pub(super) fn note_choices(&mut self, logits: &[f32]) {
        let ids = &self.request.choice_ids;
        if !ids.is_empty() {
            let total = log_sum_exp(logits);
            let logprob = |id: &u32| (f64::from(logits[*id as usize]) - total) as f32;
            self.choice_logprobs = ids.iter().map(logprob).collect();
        }
    }

    /// Notes the log-probability of the token after `position`, if the prompt's are wanted and the token is one of it.
    /// Returns why the sequence ends, if it does.
    pub(super) fn note_prompt(&mut self, position: usize, logits: &[f32]) -> Option<FinishReason> {
        let report = &self.request.report;
        let (Some(top), Some(&next)) = (report.prompt, self.request.prompt.get(position + 1)) else {
            return None;
        };
        if let Some(place) = NotFinite::find(position, logits) {
            return Some(FinishReason::BrokenLogits(place));
        }
        self.prompt_logprobs.resize(self.prompt_logprobs.len().max(1), None);
        self.prompt_logprobs.push(Some(TokenLogprobs::of(logits, next, top, &report.ids)));
        None
    }

    /// Notes the log-probability of the token after `position`, if it is one to be scored. Returns why the sequence ends, if
    /// it does.
    fn note_scored(&mut self, position: usize, logits: &[f32]) -> Option<FinishReason> {
        let from = self.request.score_from?;
        let next = *self.request.prompt.get(position + 1).filter(|_| position + 1 >= from)?;
        if let Some(place) = NotFinite::find(position, logits) {
            return Some(FinishReason::BrokenLogits(place));
        }
        self.scored.push((f64::from(logits[next as usize]) - log_sum_exp(logits)) as f32);
        None
    }

    /// Returns how many of the prompt's next `count` rows need logits, from the last backwards.
    pub(super) fn wanted_rows(&self, count: usize) -> usize {
        let end = self.fed + count;
        let whole = self.request.report.prompt.map(|_| 0);
        let scored = self.request.score_from.map(|from| from.saturating_sub(1));
        match whole.or(scored) {
            Some(first) => end - first.clamp(self.fed, end),
            None => usize::from(end == self.request.prompt.len()),
        }
    }

    /// Returns the part of the prompt that may come from the cache, and the token behind it. Rows that are scored are
    /// computed.
    pub(super) fn reusable(&self) -> &[u32] {
        &self.request.prompt[..self.request.score_from.unwrap_or(self.request.prompt.len())]
    }

    /// Returns the prompt's log-probabilities, once.
    pub(super) fn take_prompt_detail(&mut self) -> Option<PromptDetail> {
        self.request.report.prompt?;
        let mut logprobs = std::mem::take(&mut self.prompt_logprobs);
        logprobs.resize(self.request.prompt.len(), None);
        Some(PromptDetail { id: self.id, logprobs })
    }

    /// Whether the prompt's beginning may come from the cache. The log-probabilities of a prompt need all of its rows.
    pub(super) fn shares(&self) -> bool {
        self.leaves_prefix() && self.request.report.prompt.is_none()
    }

    /// Whether the sequence's blocks are kept for others.
    pub(super) fn leaves_prefix(&self) -> bool {
        self.request.savings.shared_prefixes
    }

    /// Returns what the blocks hold: a P-tuning prefix of `prefix` tokens, and the tokens that are fed.
    pub(super) fn content(&self, prefix: usize) -> Vec<u32> {
        cache::content(prefix, &self.tokens[..self.fed])
    }

    /// Takes in `count` rows of the prompt. `rows` has the logits of the last of them. Returns why the sequence ends, if it
    /// does.
    pub(super) fn read<'l>(
        &mut self,
        count: usize,
        rows: impl ExactSizeIterator<Item = &'l [f32]>,
        of: &Choosing<'_>,
        step: &mut Step,
    ) -> Option<FinishReason> {
        self.fed += count;
        let (mut position, mut last) = (self.fed - rows.len(), None);
        for logits in rows {
            let broken = self.note_prompt(position, logits);
            if let Some(finish) = broken.or_else(|| self.note_scored(position, logits)) {
                return Some(finish);
            }
            position += 1;
            last = Some(logits);
        }
        let logits = last.filter(|_| self.prompt_left() == 0)?;
        self.note_choices(logits);
        step.prompts.extend(self.take_prompt_detail());
        self.advance(logits, of, step)
    }

    /// Chooses the next token, and the ones after it as long as they were guessed. Returns why the sequence ends, if it does.
    pub(super) fn verify<'l>(
        &mut self,
        guesses: &[u32],
        rows: impl Iterator<Item = &'l [f32]>,
        of: &Choosing<'_>,
        step: &mut Step,
    ) -> Option<FinishReason> {
        let (mut right, mut finish) = (0, None);
        for logits in rows {
            self.fed += 1;
            finish = self.advance(logits, of, step);
            if finish.is_some() || guesses.get(right) != self.tokens.last() {
                break;
            }
            right += 1;
        }
        step.saved.accepted += right;
        self.guesses.note(guesses.len(), right);
        finish
    }

    /// Chooses and keeps the next token. Returns why the sequence ends, if it does.
    pub(super) fn advance(
        &mut self,
        logits: &[f32],
        of: &Choosing<'_>,
        step: &mut Step,
    ) -> Option<FinishReason> {
        if let Some(place) = NotFinite::find(self.fed - 1, logits) {
            return Some(FinishReason::BrokenLogits(place));
        }
        let max_new_tokens = self.request.max_new_tokens;
        if max_new_tokens == 0 {
            return Some(FinishReason::Length);
        }
        let generated = self.tokens.len() - self.request.prompt.len();
        let may_end = generated >= self.request.stop.min_new_tokens;
        let ends = &of.config.eos_token_ids;
        let token = self.choose(logits, ends, may_end);
        let end = if may_end { self.end(token, ends) } else { None };
        let logprobs = self.request.report.top.map(|top| {
            let ids = &self.request.report.ids;
            TokenLogprobs::of(logits, token, top, ids)
        });
        if end.is_none() {
            self.tokens.push(token);
            step.emitted.push((self.id, token));
        }
        let mut finish = end.or((generated + 1 == max_new_tokens).then_some(FinishReason::Length));
        let text = self.decode(token, of.tokenizer, may_end, &mut finish);
        if self.request.report.tokens {
            step.details.push(TokenDetail { id: self.id, token, text, logprobs, finish });
        }
        finish
    }

    /// Chooses a token. One that would end the sequence is left out unless the sequence may end.
    fn choose(&mut self, logits: &[f32], ends: &[u32], may_end: bool) -> u32 {
        if may_end {
            return self.sampler.choose(logits, &self.tokens);
        }
        let mut left = logits.to_vec();
        let ends = if self.request.ignore_eos { &[] } else { ends };
        for &id in ends.iter().chain(&*self.request.stop.ids) {
            left[id as usize] = f32::NEG_INFINITY;
        }
        self.sampler.choose(&left, &self.tokens)
    }

    fn end(&self, token: u32, ends: &[u32]) -> Option<FinishReason> {
        if ends.contains(&token) && !self.request.ignore_eos {
            return Some(FinishReason::Eos);
        }
        self.request.stop.ids.contains(&token).then_some(FinishReason::StopToken(token))
    }

    /// Decodes a chosen token and returns the text that is now final. A stop text changes `finish`.
    fn decode(
        &mut self,
        token: u32,
        tokenizer: Option<&Tokenizer>,
        may_end: bool,
        finish: &mut Option<FinishReason>,
    ) -> String {
        let (Some(output), Some(tokenizer)) = (&mut self.text, tokenizer) else { return String::new() };
        let ended = matches!(finish, Some(FinishReason::Eos | FinishReason::StopToken(_)));
        let mut text = if ended { String::new() } else { output.push(tokenizer, token, may_end) };
        if finish.is_some() {
            text += &output.finish(tokenizer);
        }
        if let Some(index) = output.stopped() {
            *finish = Some(FinishReason::StopText(index));
        }
        text
    }

    /// Turns the ended sequence into a completion, and returns its blocks.
    pub(super) fn complete(mut self, finish: FinishReason, step: &Step) -> (Completion, Vec<u32>) {
        let completion = Completion {
            id: self.id,
            tokens: self.tokens.split_off(self.request.prompt.len()),
            text: self.text.map(TextOutput::into_text),
            choice_logprobs: self.choice_logprobs,
            prompt_logprobs: self.scored,
            finish,
            start_ns: self.start_ns.unwrap_or(step.start_ns),
            end_ns: step.end_ns,
        };
        (completion, self.blocks)
    }
}
