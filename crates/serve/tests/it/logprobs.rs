//! Log-probabilities against the engine's own logits, to the last bit.

use glmbench_engine::Request;
use glmbench_engine::sampler::log_sum_exp;
use serde_json::{Value, json};

use crate::server::{Server, engine, tokenizer};

/// Returns the logits of every position of a prompt.
fn logits(ids: &[u32]) -> Vec<Vec<f32>> {
    let mut rows = Vec::new();
    engine(1).teacher_force(ids, &mut |_, logits| rows.push(logits.to_vec())).unwrap();
    rows
}

fn logprob(logits: &[f32], id: u32) -> f64 {
    f64::from(logits[id as usize]) - log_sum_exp(logits)
}

/// What lm_eval reads: prompt and one token, the very numbers of the logits, and the maximum among the likeliest.
#[test]
fn an_echo_has_the_log_probabilities_of_the_prompt() {
    let server = Server::start();
    let tokenizer = tokenizer();
    for text in ["北京是中国的首都", "a b c 😀", "x"] {
        // Two prompts in one request, one of them long enough for several steps.
        let ids = tokenizer.encode(text);
        let long: Vec<u32> = ids.iter().copied().cycle().take(700).collect();
        let body = json!({"prompt": [ids, long], "temperature": 0, "max_tokens": 1, "logprobs": 1, "seed": 1234, "echo": true});
        let reply = server.ok("/v1/completions", &body).json();
        for (choice, ids) in reply["choices"].as_array().unwrap().iter().zip([&ids, &long]) {
            let rows = logits(ids);
            let of = &choice["logprobs"];
            let list = |name: &str| of[name].as_array().unwrap().clone();
            let (chosen, top) = (list("token_logprobs"), list("top_logprobs"));
            assert_eq!(
                (chosen.len(), top.len(), list("tokens").len()),
                (ids.len() + 1, ids.len() + 1, ids.len() + 1)
            );
            assert_eq!((&chosen[0], &top[0]), (&Value::Null, &Value::Null));
            for place in 1..ids.len() {
                let row = &rows[place - 1];
                assert_eq!(chosen[place].as_f64().unwrap(), logprob(row, ids[place]));
                let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let most = top[place]
                    .as_object()
                    .unwrap()
                    .values()
                    .map(|v| v.as_f64().unwrap())
                    .fold(f64::MIN, f64::max);
                assert_eq!(most, f64::from(best) - log_sum_exp(row));
                assert_eq!(chosen[place].as_f64().unwrap() == most, row[ids[place] as usize] == best);
            }
        }
    }
}

/// Choice scoring: the named ids' log-probabilities are the embedded engine's.
#[test]
fn named_ids_have_the_choices_log_probabilities() {
    let server = Server::start();
    let ids = tokenizer().encode_prompt("[Round 1]\n\n问：1+1=?\n\n答：");
    let choices = [40u32, 41, 1929, 1930, 2];
    let mut engine = engine(1);
    engine.submit(Request { prompt: ids.clone(), choice_ids: choices.to_vec(), ..Request::probe() }).unwrap();
    let ours = engine.step().unwrap().finished.remove(0).choice_logprobs;
    for (logprobs, count) in [(Value::Null, 0), (json!(3), 3)] {
        let body = json!({"prompt": ids, "temperature": 0, "max_tokens": 1, "logprobs": logprobs, "logprob_token_ids": choices,
            "return_tokens_as_token_ids": true});
        let reply = server.ok("/v1/completions", &body).json();
        let top = reply["choices"][0]["logprobs"]["top_logprobs"][0].as_object().unwrap();
        assert!(top.len() >= choices.len().max(count));
        for (id, ours) in choices.iter().zip(&ours) {
            assert_eq!(top[&format!("token_id:{id}")].as_f64().unwrap() as f32, *ours);
        }
    }
}

#[test]
fn keys_of_the_likeliest_never_collide() {
    let server = Server::start();
    let body = json!({"prompt": "a", "temperature": 0, "max_tokens": 20, "logprobs": 20, "ignore_eos": true});
    let reply = server.ok("/v1/completions", &body).json();
    for top in reply["choices"][0]["logprobs"]["top_logprobs"].as_array().unwrap() {
        assert_eq!(top.as_object().unwrap().len(), 20);
    }
    // Every id of the vocabulary has a name of its own.
    let names = |range: std::ops::Range<u32>| {
        let bytes: Vec<u32> = range.collect();
        let body = json!({"prompt": "a", "max_tokens": 1, "temperature": 0, "logprobs": 0, "logprob_token_ids": bytes});
        let reply = server.ok("/v1/completions", &body).json();
        reply["choices"][0]["logprobs"]["top_logprobs"][0].as_object().unwrap().len()
    };
    for start in (0..2432).step_by(20).take(121) {
        assert!(names(start..start + 20) >= 20, "{start}");
    }
}

#[test]
fn score_only_generates_nothing() {
    let server = Server::start();
    let body = json!({"prompt": "北京", "temperature": 0, "max_tokens": 0, "logprobs": 1, "echo": true});
    let reply = server.ok("/v1/completions", &body).json();
    assert_eq!(
        (&reply["choices"][0]["text"], &reply["usage"]["completion_tokens"]),
        (&json!("北京"), &json!(0))
    );
    let tokens = reply["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    assert_eq!(reply["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().len(), tokens);
}
