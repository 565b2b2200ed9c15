//! Runs items again and compares each answer with the record.

use std::collections::{BTreeMap, HashMap};

use glmbench_device::DType;
use glmbench_engine::{EngineError, Request, RequestId};

use crate::backend::Backend;
use crate::record::{PromptRecord, SampleRecord, SampleState};
use crate::task::{Next, Outcome, Progress, State};

use super::super::accuracy::{AccuracyRun, heard};
use super::Difference;

/// Allowed difference between answers and the record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// The same bits.
    Exact,
    /// Log-probabilities and logits differ by at most this much, in nats.
    Within(f32),
}

impl Bound {
    /// Returns the bound for sums in another order in this type: at least five times the largest difference on 240
    /// items of the demo model. The differences were 1.6e-2 nat in fp16, 1.1e-1 in bf16 and 7.2e-6 in fp32. They were
    /// measured between kernel families, between one rank and two, and between the CPU and emulated cards.
    pub fn across(dtype: DType) -> Self {
        Self::Within(match dtype {
            DType::Fp32 => 1e-4,
            DType::Fp16 => 0.1,
            DType::Bf16 => 0.5,
        })
    }

    fn holds(self, recorded: f32, found: f32) -> bool {
        match self {
            Self::Exact => recorded.to_bits() == found.to_bits() || (recorded.is_nan() && found.is_nan()),
            Self::Within(most) => (recorded - found).abs() <= most || (recorded.is_nan() && found.is_nan()),
        }
    }
}

/// The result for a sample.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verified {
    /// The differences found.
    pub differences: Vec<Difference>,
    /// Items with other generated tokens, where each recorded token is within the bound of the likeliest.
    pub other_tokens: usize,
    /// The largest difference between log-probabilities.
    pub largest: f32,
}

impl Verified {
    /// Adds what differs in an item, if anything does.
    fn note(&mut self, sample: &SampleRecord, differences: &[String]) {
        if !differences.is_empty() {
            let of = format!("item {} of {}", sample.doc_id, sample.task);
            self.differences.push(Difference { of, what: differences.join("; ") });
        }
    }
}

/// Runs a task's items and compares each answer with its sample. Calls `each` for every item.
///
/// `kept` has the recorded prompts by item. A backend without teacher forcing cannot be given the recorded tokens, so other tokens
/// are a difference.
///
/// # Errors
/// Errors of the backend.
pub fn items(
    run: &AccuracyRun<'_>,
    picked: &[SampleRecord],
    kept: &BTreeMap<String, PromptRecord>,
    backend: &mut dyn Backend,
    bound: Bound,
    each: &mut dyn FnMut(),
) -> Result<Verified, EngineError> {
    let outcomes = outcomes(run, backend, each)?;
    let can_force = backend.capabilities().logits;
    let mut verified = Verified::default();
    for (sample, outcome) in picked.iter().zip(&outcomes) {
        let mut differences = facts(sample, outcome);
        let same_text = sample.output_tokens == outcome.output_tokens();
        match bound {
            Bound::Within(most) if can_force && !same_text => match kept.get(&sample.doc_id) {
                Some(prompts) => {
                    let forced = Forced { sample, prompts, most, run };
                    let found = forced.differences(backend, &mut verified.largest)?;
                    verified.other_tokens += usize::from(found.is_empty());
                    differences.extend(found);
                }
                None => differences
                    .push("other tokens, and the run kept no prompts to force the recorded ones".to_owned()),
            },
            _ => differences.extend(numbers(sample, outcome, bound, &mut verified.largest)),
        }
        verified.note(sample, &differences);
    }
    Ok(verified)
}

/// Returns every item's outcome, in order.
fn outcomes(
    run: &AccuracyRun<'_>,
    backend: &mut dyn Backend,
    each: &mut dyn FnMut(),
) -> Result<Vec<Outcome>, EngineError> {
    let evaluation = &run.evaluation;
    let mut running: HashMap<RequestId, (usize, Progress)> = HashMap::new();
    let mut done: BTreeMap<usize, Outcome> = BTreeMap::new();
    let mut next = 0;
    while done.len() < evaluation.len() {
        let mut ready: Vec<(usize, Progress, Next)> = Vec::new();
        while next < evaluation.len() && running.len() + ready.len() < run.batch {
            let (progress, ask) = evaluation.start(next);
            ready.push((next, progress, ask));
            next += 1;
        }
        if ready.is_empty() {
            for completion in backend.step()?.finished {
                let Some((index, mut progress)) = running.remove(&completion.id) else { continue };
                let heard = backend.exchange(completion.id).map(heard).unwrap_or_default();
                let ask = evaluation.advance_heard(&mut progress, &completion, heard);
                ready.push((index, progress, ask));
            }
        }
        for (index, mut progress, ask) in ready {
            let outcome = match ask {
                Next::Done(outcome) => outcome,
                Next::Ask(request) => match backend.submit_text(request, evaluation.asked(&progress)) {
                    Ok(id) => {
                        running.insert(id, (index, progress));
                        continue;
                    }
                    Err(EngineError::Request(reason)) => evaluation.give_up(&mut progress, reason),
                    Err(error) => return Err(error),
                },
            };
            done.insert(index, outcome);
            each();
        }
    }
    Ok(done.into_values().collect())
}

/// Compares the properties of an item that do not depend on the computation.
fn facts(sample: &SampleRecord, outcome: &Outcome) -> Vec<String> {
    let compared = [
        ("content hash", sample.doc_hash.as_str(), outcome.doc_hash.as_str()),
        ("prompt hash", sample.prompt_hash.as_str(), &outcome.prompt_hash()),
        ("key", sample.gold.as_str(), &outcome.gold.to_string()),
        ("subject", sample.subject.as_str(), outcome.subject.as_str()),
    ];
    let differs = compared.iter().filter(|(_, recorded, found)| recorded != found);
    differs.map(|(name, recorded, found)| format!("{name}: recorded {recorded}, found {found}")).collect()
}

/// Compares the model's results.
fn numbers(sample: &SampleRecord, outcome: &Outcome, bound: Bound, largest: &mut f32) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differ = |name: &str, recorded: String, found: String| {
        if recorded != found {
            differences.push(format!("{name}: recorded {recorded}, found {found}"));
        }
    };
    let state = match outcome.state {
        State::Scored => SampleState::Scored,
        State::Unscorable(_) => SampleState::Unscorable,
        State::Failed(_) => SampleState::Failed,
    };
    let found = &outcome.choice_logprobs;
    differ("outcome", format!("{:?}", sample.state), format!("{state:?}"));
    differ("output tokens", format!("{:?}", sample.output_tokens), format!("{:?}", outcome.output_tokens()));
    differ("text", format!("{:?}", sample.text), format!("{:?}", outcome.text()));
    differ("choices", sample.choice_logprobs.len().to_string(), found.len().to_string());
    let mut tie = false;
    for (index, (recorded, found)) in sample.choice_logprobs.iter().zip(found).enumerate() {
        *largest = largest.max((recorded - found).abs());
        if !bound.holds(*recorded, *found) {
            differ(
                &format!("log-probability of choice {}", index + 1),
                recorded.to_string(),
                found.to_string(),
            );
        }
    }
    if let Bound::Within(most) = bound {
        // Either side may be off by the bound, so a lead of up to twice the bound may reverse.
        tie = sample.margin.is_some_and(|margin| margin <= 2.0 * most);
    }
    if !tie {
        let word = |pred: Option<String>| pred.unwrap_or_else(|| "none".to_owned());
        let found = outcome.pred.as_ref().map(ToString::to_string);
        differ("answer", word(sample.pred.clone()), word(found));
        differ("right", sample.correct.to_string(), outcome.is_correct().to_string());
        differ("rule", sample.extract_rule.clone(), outcome.rule.clone());
    }
    differences
}

/// A recorded answer for which other tokens were generated. Each recorded token must be nearly the likeliest at its
/// place.
struct Forced<'a> {
    sample: &'a SampleRecord,
    prompts: &'a PromptRecord,
    most: f32,
    run: &'a AccuracyRun<'a>,
}

impl Forced<'_> {
    fn differences(&self, backend: &mut dyn Backend, largest: &mut f32) -> Result<Vec<String>, EngineError> {
        let Some(first) = self.prompts.calls.first() else { return Ok(Vec::new()) };
        let (prompt, tokens) = (&first.input_tokens, &self.sample.output_tokens);
        let fed: Vec<u32> = prompt.iter().chain(tokens).copied().collect();
        let mut worst: Option<(usize, f32)> = None;
        backend.teacher_force(&fed, &mut |position, logits| {
            let Some(at) = (position + 1).checked_sub(prompt.len()) else { return };
            let Some(chosen) = tokens.get(at).and_then(|&token| logits.get(token as usize)) else { return };
            let likeliest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let lead = likeliest - chosen;
            if worst.is_none_or(|(_, most)| lead > most) {
                worst = Some((at, lead));
            }
        })?;
        let mut differences = Vec::new();
        if let Some((at, lead)) = worst {
            *largest = largest.max(lead);
            if lead.is_nan() || lead > self.most {
                differences.push(format!(
                    "generated token {}: recorded {}, which here is {lead} nat less likely than the likeliest",
                    at + 1,
                    tokens[at]
                ));
            }
        }
        if let (Some(last), [_, ..]) = (self.prompts.calls.last(), self.sample.choice_logprobs.as_slice()) {
            differences.extend(self.choices(&last.input_tokens, backend, largest)?);
        }
        Ok(differences)
    }

    /// Compares the recorded log-probabilities after the recorded last prompt.
    fn choices(
        &self,
        prompt: &[u32],
        backend: &mut dyn Backend,
        largest: &mut f32,
    ) -> Result<Vec<String>, EngineError> {
        let request = Request {
            prompt: prompt.to_vec(),
            choice_ids: self.run.evaluation.choices().iter().map(|choice| choice.id).collect(),
            ..Request::probe()
        };
        backend.submit(request)?;
        let mut found = Vec::new();
        while !backend.is_idle() {
            found.extend(
                backend.step()?.finished.into_iter().flat_map(|completion| completion.choice_logprobs),
            );
        }
        let pairs = self.sample.choice_logprobs.iter().zip(&found).enumerate();
        let mut differences = Vec::new();
        for (index, (recorded, found)) in pairs {
            *largest = largest.max((recorded - found).abs());
            if !Bound::Within(self.most).holds(*recorded, *found) {
                differences.push(format!(
                    "log-probability of choice {}: recorded {recorded}, found {found}",
                    index + 1
                ));
            }
        }
        Ok(differences)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_is_to_the_bit_and_a_bound_is_a_bound() {
        let next = f32::from_bits(1.0_f32.to_bits() + 1);
        assert!(Bound::Exact.holds(1.0, 1.0) && !Bound::Exact.holds(1.0, next));
        assert!(Bound::Exact.holds(f32::NAN, f32::NAN) && !Bound::Exact.holds(0.0, -0.0));
        assert!(Bound::Within(0.5).holds(1.0, 1.5) && !Bound::Within(0.5).holds(1.0, 1.6));
        assert!(!Bound::Within(0.5).holds(1.0, f32::NAN));
    }
}
