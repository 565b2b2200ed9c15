//! llama.cpp's own server: `/completion`.

use serde_json::{Value, json};

use super::{
    About, Answer, Base, Call, Candidates, Chats, Ending, PromptTokens, Protocol, Unary, Unsupported, Update,
    Wrong, lacks, set,
};
use crate::identity::{Identity, Limits, count, text};
use crate::json::Json;
use crate::response::{ServerTimes, TokenLogprob};
use crate::{FailureKind, Finish, Generation, Prompt, Route, Sampling};

const ROUTE: &str = "/completion";
/// The server tells no probabilities of a generated token that is a part of a character. So candidates are asked for beside
/// this token, which is whole. Probabilities are those before the bias (seen with llama.cpp 0c1e570).
const WHOLE: &str = "A";
/// Lets that token win over any other.
const BIAS: f32 = 1e6;
/// Log-probabilities below are no model's own.
const NO_MODELS: f64 = -1e4;
/// Log-probability of a token that is certain.
const CERTAIN: f64 = -1e-3;

pub(super) struct LlamaCpp;

impl Protocol for LlamaCpp {
    fn word(&self) -> &'static str {
        "llama.cpp"
    }

    /// No other server speaks this protocol.
    fn server(&self) -> Option<&'static str> {
        Some("llama.cpp")
    }

    fn about(&self) -> &'static [About] {
        const PROPS: About = About {
            base: Base::Inference,
            route: "/props",
            what: "information about the server",
            read: read_props,
        };
        &[PROPS]
    }

    #[cfg(feature = "testing")]
    fn stub(&self) -> crate::wire::Stub {
        crate::wire::Stub {
            generates: &[(ROUTE, &stub::Completion), (super::chat::ROUTE, &super::chat::stub::Chat)],
            states: &[
                ("/health", r#"{"status":"ok"}"#),
                (
                    "/props",
                    r#"{"total_slots":4,"build_info":"b1-stub","default_generation_settings":{"n_ctx":4096},"model_path":"stub.gguf"}"#,
                ),
            ],
        }
    }

    fn names_model(&self, _: Route, _: Option<&Prompt>) -> bool {
        false
    }

    fn chats(&self) -> Result<Chats, Unsupported> {
        Ok(Chats { add: |body, _| body["cache_prompt"] = json!(false), ..Chats::PLAIN })
    }

    fn stream(&self, _: Route, _: Option<&str>, generation: &Generation) -> Result<Call, Unsupported> {
        let mut body = body(&generation.prompt, generation.max_tokens, &generation.sampling);
        body["stream"] = json!(true);
        body["ignore_eos"] = json!(generation.ignore_end);
        body["stop"] = json!(generation.stop);
        if generation.top_logprobs > 0 {
            body["n_probs"] = json!(generation.top_logprobs);
        }
        let no_stop_texts = generation.stop.is_empty();
        Ok(Call { route: ROUTE, body, ending: Ending::Event, read, no_stop_texts })
    }

    fn next_token(
        &self,
        _: Option<&str>,
        prompt: &Prompt,
        depth: u32,
    ) -> Result<Unary<Candidates>, Unsupported> {
        let mut body = body(prompt, 1, &Sampling::default());
        body["stream"] = json!(false);
        body["n_probs"] = json!(depth);
        body["logit_bias"] = json!([[WHOLE, BIAS]]);
        Ok(Unary { route: ROUTE, body, read: read_candidates })
    }

    /// The server reveals any number. Few are enough nearly always, and a whole vocabulary is megabytes.
    fn own_depths(&self) -> &'static [u32] {
        &[64, 4_096, 300_000]
    }

    fn own_prompt_logprobs(&self, _: Option<&str>, _: &Prompt) -> Result<Unary<PromptTokens>, Unsupported> {
        Err("llama.cpp has no log-probabilities of the prompt: score choices by the next token instead"
            .into())
    }
}

fn read_props(json: &Json, identity: &mut Identity) {
    identity.version = text(json, "build_info");
    identity.models = text(json, "model_path").into_iter().collect();
    identity.limits = Limits {
        max_total: count(json.get("default_generation_settings"), &["n_ctx"]),
        max_concurrent: count(json, &["total_slots"]),
        ..Limits::default()
    };
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
    let position = json.get("completion_probabilities").at(0);
    let list = candidates_of(position);
    if list.is_empty() {
        return Err((
            FailureKind::NotRevealed,
            "no `completion_probabilities` of the generated token".into(),
        ));
    }
    if is_biased(&list, position.get("logprob").number()) {
        return Err((
            FailureKind::NotRevealed,
            format!(
                "the log-probabilities are those after the bias on `{WHOLE}`, not the model's own: this version of llama.cpp \
                 cannot score choices"
            ),
        ));
    }
    Ok(Candidates { list, prompt_tokens: json.get("tokens_evaluated").count(), model: None })
}

/// Whether the probabilities are those after the bias. It leaves nothing for the tokens without it: they are at zero, or all
/// at the same floor. (The bias may be on two tokens: a space, and the token.) A model that is certain of a token still tells the others
/// apart, so that certainty alone says nothing, unless there is one other token. `chosen` is the value of the generated token, which
/// has the bias.
fn is_biased(list: &[TokenLogprob], chosen: Option<f64>) -> bool {
    let mut values: Vec<f64> = list.iter().map(|token| token.logprob).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    match values.as_slice() {
        [] | [_] => false,
        // One value cannot be told from a floor, unless the model is certain of a token without the bias.
        [first, last] => {
            let is_chosen = chosen.is_none_or(|chosen| chosen >= CERTAIN);
            *first >= CERTAIN && (is_chosen || *last < NO_MODELS)
        }
        [_, _, third] => *third < NO_MODELS,
        [first, second, third, .., last] => *third < NO_MODELS || (*first >= CERTAIN && second == last),
    }
}

/// The server's side, for tests.
#[cfg(feature = "testing")]
mod stub {
    use crate::wire::{Reply, Wire};

    /// `/completion`.
    pub(super) struct Completion;

    impl Wire for Completion {
        fn prompt(&self) -> &'static str {
            "/prompt"
        }

        fn limit(&self) -> &'static str {
            "/n_predict"
        }

        fn event(&self, _: &Reply, from: u32, count: u32) -> String {
            let (text, ids) = (Reply::text(from, count), Reply::ids(from, count));
            format!(r#"{{"content":"{text}","tokens":{ids:?},"stop":false}}"#)
        }

        fn tail(&self, reply: &Reply) -> Vec<String> {
            vec![format!("{}}}", end(reply, ""))]
        }

        fn whole(&self, reply: &Reply) -> String {
            format!(
                r#"{},"completion_probabilities":[{{"id":65,"token":"A","logprob":-1.0,"top_logprobs":[{}]}}]}}"#,
                end(reply, &Reply::text(0, reply.tokens)),
                Reply::candidate_objects()
            )
        }
    }

    /// Returns the last event without its closing brace.
    fn end(reply: &Reply, text: &str) -> String {
        let Reply { prompt_tokens, tokens, .. } = reply;
        let reason = reply.reason("limit", "eos");
        format!(
            r#"{{"content":"{text}","tokens":[],"stop":true,"stop_type":"{reason}","model":"stub.gguf","tokens_evaluated":{prompt_tokens},"tokens_predicted":{tokens},"timings":{{"prompt_n":{prompt_tokens},"prompt_ms":12.5,"predicted_ms":50.0}}"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_asked_for_beside_a_whole_token() {
        let asked = LlamaCpp.next_token(None, &Prompt::Ids(vec![5, 6]), 64);
        let Ok(unary) = asked else { panic!("the protocol has candidates") };
        assert_eq!(unary.body["logit_bias"], json!([["A", 1e6]]));
        assert_eq!(unary.body["post_sampling_probs"], json!(false));
    }

    fn told(values: &[&str]) -> Result<Candidates, Wrong> {
        let show =
            |(at, value): (usize, &&str)| format!(r#"{{"id":{at},"token":"t{at}","logprob":{value}}}"#);
        let tops: Vec<String> = values.iter().enumerate().map(show).collect();
        let text = format!(
            r#"{{"content":"A","completion_probabilities":[{{"id":0,"token":"t0","logprob":{},"top_logprobs":[{}]}}]}}"#,
            values[0],
            tops.join(",")
        );
        read_candidates(&Json::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn probabilities_after_the_bias_are_refused() {
        let lowest = "-3.4028234663852886e38";
        for biased in [
            &["0.0", lowest, lowest, lowest][..],
            &["-0.0", "-1000012.5", "-1000013.0"],
            &["-0.7", "-0.7", lowest, lowest],
            &["0.0", lowest],
            &["0.0", "-23.0"],
            &["0.0", "-23.02585", "-23.02585", "-23.02585"],
        ] {
            let (kind, text) = told(biased).err().unwrap();
            assert!(
                kind == FailureKind::NotRevealed && text.contains("after the bias"),
                "{biased:?}: {text}"
            );
        }
        // The one candidate asked for, and the generated token beside it.
        let own = r#"{"content":"A","completion_probabilities":[{"id":0,"token":"A","logprob":-23.0,"top_logprobs":[{"id":1,"token":"B","logprob":0.0}]}]}"#;
        let told_beside = read_candidates(&Json::parse(own.as_bytes()).unwrap());
        assert_eq!(told_beside.ok().map(|told| told.list.len()), Some(2));
        // A model may be certain by itself.
        for own in [
            &["-1.0", "-2.0", "-3.0"][..],
            &["-1e-9", "-21.0", "-22.5", "-30.0"],
            &["0.0"],
            &["-0.1", "-2.4"],
        ] {
            assert_eq!(told(own).ok().map(|told| told.list.len()), Some(own.len()), "{own:?}");
        }
    }
}
