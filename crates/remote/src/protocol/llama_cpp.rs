//! llama.cpp's own server: `/completion`.

use serde_json::{Value, json};

use super::{
    Answer, Call, Candidates, Ending, PromptTokens, Protocol, Unary, Unsupported, Update, Wrong, chat, lacks,
    set,
};
use crate::json::Json;
use crate::response::{ServerTimes, TokenLogprob};
use crate::{Choice, FailureKind, Finish, Generation, Prompt, Route, Sampling};

const ROUTE: &str = "/completion";
/// The server tells no probabilities of a generated token that is a part of a character, so candidates are asked for beside
/// this token, which is whole. Probabilities are those before the bias (seen with llama.cpp 0c1e570).
const WHOLE: &str = "A";
/// Lets that token win over any other.
const BIAS: f32 = 1e6;

pub(super) struct LlamaCpp;

impl Protocol for LlamaCpp {
    fn names_model(&self, _: Route, _: Option<&Prompt>) -> bool {
        false
    }

    fn generate(
        &self,
        route: Route,
        model: Option<&str>,
        generation: &Generation,
    ) -> Result<Call, Unsupported> {
        super::only_default(route)?;
        if let Prompt::Chat(text) = &generation.prompt {
            let mut call = chat::call(model, text, generation, true);
            call.body["cache_prompt"] = json!(false);
            return Ok(call);
        }
        let mut body = body(&generation.prompt, generation.max_tokens, &generation.sampling);
        body["stream"] = json!(true);
        body["ignore_eos"] = json!(generation.ignore_end);
        body["stop"] = json!(generation.stop);
        if generation.top_logprobs > 0 {
            body["n_probs"] = json!(generation.top_logprobs);
        }
        Ok(Call {
            route: ROUTE,
            body,
            ending: Ending::Event,
            read,
            no_stop_texts: generation.stop.is_empty(),
        })
    }

    fn candidates(
        &self,
        model: Option<&str>,
        prompt: &Prompt,
        _: &[Choice],
        depth: u32,
    ) -> Result<Unary<Candidates>, Unsupported> {
        if let Prompt::Chat(text) = prompt {
            return Ok(chat::candidates(model, text));
        }
        let mut body = body(prompt, 1, &Sampling::default());
        body["stream"] = json!(false);
        body["n_probs"] = json!(depth);
        body["logit_bias"] = json!([[WHOLE, BIAS]]);
        Ok(Unary { route: ROUTE, body, read: read_candidates })
    }

    /// The server reveals any number. Few are enough nearly always, and a whole vocabulary is megabytes.
    fn depths(&self, prompt: &Prompt) -> &'static [u32] {
        if matches!(prompt, Prompt::Chat(_)) { &[chat::DEPTH] } else { &[64, 4_096, 300_000] }
    }

    fn prompt_logprobs(&self, _: Option<&str>, _: &Prompt) -> Result<Unary<PromptTokens>, Unsupported> {
        Err("llama.cpp has no log-probabilities of the prompt: score choices by the next token instead"
            .into())
    }
}

/// Sets everything: the server's defaults sample, penalize, go on without end, and reuse earlier prompts.
fn body(prompt: &Prompt, max_tokens: u32, sampling: &Sampling) -> Value {
    let mut body = json!({
        "prompt": super::prompt_json(prompt),
        "n_predict": max_tokens,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k.unwrap_or(0),
        "top_p": sampling.top_p.unwrap_or(1.0),
        "min_p": 0.0,
        "typical_p": 1.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "dry_multiplier": 0.0,
        "xtc_probability": 0.0,
        "dynatemp_range": 0.0,
        "mirostat": 0,
        "cache_prompt": false,
        "post_sampling_probs": false,
        "return_tokens": true,
    });
    set(&mut body, "seed", sampling.seed);
    body
}

fn read(json: &Json, answer: &mut Answer) -> Result<Update, Wrong> {
    let Some(text) = json.get("content").text() else { return Err(lacks("content", json)) };
    let ids = json.get("tokens").ids();
    let top: Vec<Vec<TokenLogprob>> =
        json.get("completion_probabilities").list().iter().map(candidates_of).collect();
    if json.get("stop").is_true() {
        read_end(json, answer);
        // The last event repeats all ids of the answer in some versions.
        return Ok(Update { text: text.to_owned(), is_token: !text.is_empty(), ..Update::default() });
    }
    answer.top.extend(top);
    let tokens = u32::try_from(ids.len()).ok().filter(|&count| count > 0);
    let is_token = !text.is_empty() || !ids.is_empty();
    Ok(Update { text: text.to_owned(), ids, tokens, is_token })
}

fn read_end(json: &Json, answer: &mut Answer) {
    answer.complete = true;
    let old = [("stopped_eos", "eos"), ("stopped_limit", "limit"), ("stopped_word", "word")];
    let word = json.get("stop_type").text().filter(|&word| word != "none");
    let word = word.or_else(|| old.iter().find(|(name, _)| json.get(name).is_true()).map(|(_, word)| *word));
    answer.finish = word.map(Finish::from_word);
    answer.prompt_tokens = json.get("tokens_evaluated").count();
    answer.output_tokens = json.get("tokens_predicted").count();
    answer.model = json.get("model").text().map(str::to_owned);
    let timings = json.get("timings");
    if !timings.is_null() {
        answer.server = Some(ServerTimes {
            prefill_ms: timings.get("prompt_ms").number(),
            decode_ms: timings.get("predicted_ms").number().into_iter().collect(),
            ..ServerTimes::default()
        });
    }
}

fn candidates_of(position: &Json) -> Vec<TokenLogprob> {
    let mut list: Vec<TokenLogprob> =
        position.get("top_logprobs").list().iter().filter_map(token_logprob).collect();
    super::add_chosen(&mut list, token_logprob(position));
    list
}

fn token_logprob(json: &Json) -> Option<TokenLogprob> {
    let (logprob, text) = (json.get("logprob").number()?, json.get("token").text()?.to_owned());
    Some(TokenLogprob { id: json.get("id").count(), text, logprob })
}

fn read_candidates(json: &Json) -> Result<Candidates, Wrong> {
    if json.get("content").text().is_none() {
        return Err(lacks("content", json));
    }
    let list = candidates_of(json.get("completion_probabilities").at(0));
    if list.is_empty() {
        return Err((
            FailureKind::NotRevealed,
            "no `completion_probabilities` of the generated token".into(),
        ));
    }
    Ok(Candidates { list, prompt_tokens: json.get("tokens_evaluated").count(), model: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_asked_for_beside_a_whole_token() {
        let asked = LlamaCpp.candidates(None, &Prompt::Ids(vec![5, 6]), &[], 64);
        let Ok(unary) = asked else { panic!("the protocol has candidates") };
        assert_eq!(unary.body["logit_bias"], json!([["A", 1e6]]));
        assert_eq!(unary.body["post_sampling_probs"], json!(false));
    }
}
