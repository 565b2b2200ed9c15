//! A well-behaved server of known delays, in each protocol.
//!
//! The text of token `i` is ` i`. Every answer states its finish reason and its counts.

use std::time::Duration;

use super::{Request, Script, Server};
use crate::Api;

/// When tokens come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// From the request to the first token.
    pub first: Duration,
    /// From one token to the next.
    pub gap: Duration,
    /// Tokens, if the request sets no limit below.
    pub tokens: u32,
    /// Tokens in one event, at least 1.
    pub per_event: u32,
}

impl Default for Schedule {
    /// 16 tokens at once, one an event.
    fn default() -> Self {
        Self { first: Duration::ZERO, gap: Duration::ZERO, tokens: 16, per_event: 1 }
    }
}

/// The model id that the stub names.
pub const MODEL: &str = "stub";

/// Starts a server of one protocol.
pub fn start(api: Api, schedule: Schedule) -> Server {
    Server::start(move |request| answer(api, schedule, request))
}

/// Returns the script of one request: generation by the schedule, everything else in a fixed way.
pub fn answer(api: Api, schedule: Schedule, request: &Request) -> Script {
    let route = route_of(&request.path);
    if let Some(script) = fixed(api, route) {
        return script;
    }
    let body = request.json();
    let limit = ["max_tokens", "n_predict"].iter().find_map(|name| body[*name].as_u64());
    let limit = limit.or_else(|| body["parameters"]["max_new_tokens"].as_u64());
    let tokens = schedule.tokens.min(limit.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(u32::MAX));
    let streams = body["stream"].as_bool().unwrap_or(route == "/generate_stream");
    let prompt_tokens = prompt_tokens(&body);
    let shape = Shape {
        api,
        chat: route.ends_with("/chat/completions"),
        own: route.starts_with("/infer"),
        prompt_tokens,
        tokens,
        is_cut: limit.is_none_or(|limit| limit <= u64::from(schedule.tokens)),
    };
    if !streams {
        return Script::default().until(schedule.first).write(&first_write(&shape.whole()));
    }
    let mut script = Script::stream();
    if shape.chat {
        script = script.event(&shape.role());
    }
    let per_event = schedule.per_event.max(1);
    let mut done = 0;
    while done < tokens {
        let count = per_event.min(tokens - done);
        script = script.until(schedule.first + schedule.gap * done).event(&shape.event(done, count));
        done += count;
    }
    for payload in shape.tail() {
        script = script.event(&payload);
    }
    script.end()
}

fn first_write(body: &str) -> Vec<u8> {
    match Script::json(body).steps.into_iter().next() {
        Some(super::Step::Write(bytes)) => bytes,
        _ => Vec::new(),
    }
}

/// Returns the route at the end of a path with a prefix.
pub(super) fn route_of(path: &str) -> &str {
    const ROUTES: [&str; 13] = [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/generate_stream",
        "/generate",
        "/infer_token",
        "/infer",
        "/completion",
        "/health",
        "/version",
        "/metrics",
        "/info",
        "/props",
    ];
    ROUTES.into_iter().find(|route| path.ends_with(route)).unwrap_or(path)
}

/// Answers what is no generation. `None`: a generation.
pub(super) fn fixed(api: Api, route: &str) -> Option<Script> {
    let openai = matches!(api, Api::OpenAi | Api::Vllm | Api::Mindie);
    Some(match route {
        "/v1/models" if openai => Script::json(format!(
            r#"{{"object":"list","data":[{{"id":"{MODEL}","object":"model","root":"{MODEL}","max_model_len":2048}}]}}"#
        )),
        "/health" if api == Api::LlamaCpp => Script::json(r#"{"status":"ok"}"#),
        "/health" => Script::json(""),
        "/version" if api == Api::Vllm => Script::json(r#"{"version":"0.33.0"}"#),
        "/props" if api == Api::LlamaCpp => Script::json(
            r#"{"total_slots":4,"build_info":"b1-stub","default_generation_settings":{"n_ctx":4096},"model_path":"stub.gguf"}"#,
        ),
        "/info" if api == Api::Tgi => Script::json(
            r#"{"model_id":"stub","version":"3.3.4","max_input_tokens":1000,"max_total_tokens":2048,"max_concurrent_requests":128}"#,
        ),
        "/info" if api == Api::Mindie => Script::json(
            r#"{"version":"2.2.RC1","max_input_length":2048,"max_batch_total_tokens":8192,"max_concurrent_requests":200,"models":[{"model_id":"stub","max_total_tokens":2560}]}"#,
        ),
        "/metrics" => {
            Script::answer("200 OK", "text/plain", "# TYPE running gauge\nrunning{model_name=\"stub\"} 0\n")
        }
        "/v1/chat/completions"
        | "/v1/completions"
        | "/generate_stream"
        | "/generate"
        | "/infer"
        | "/infer_token"
        | "/completion" => return None,
        _ => Script::answer("404 Not Found", "application/json", r#"{"error":"no such route"}"#),
    })
}

/// Counts words, and two special tokens in front of text: as ChatGLM2's tokenizer would.
fn prompt_tokens(body: &serde_json::Value) -> usize {
    let prompt =
        ["prompt", "inputs", "input_id"].iter().map(|name| &body[*name]).find(|value| !value.is_null());
    let text = match prompt {
        Some(serde_json::Value::Array(ids)) => return ids.len(),
        Some(value) => value.as_str().unwrap_or_default(),
        None => body["messages"][0]["content"].as_str().unwrap_or_default(),
    };
    text.split_whitespace().count() + 2
}

/// The wire format of one answer.
struct Shape {
    api: Api,
    chat: bool,
    own: bool,
    prompt_tokens: usize,
    tokens: u32,
    /// The request's limit ends the answer, not the stub's own end.
    is_cut: bool,
}

impl Shape {
    fn text(from: u32, count: u32) -> String {
        (from..from + count).map(|i| format!(" {i}")).collect()
    }

    fn usage(&self, done: u32) -> String {
        let prompt = self.prompt_tokens;
        let total = prompt + done as usize;
        format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{done},"total_tokens":{total}}}"#)
    }

    fn role(&self) -> String {
        let _ = self;
        format!(
            r#"{{"model":"{MODEL}","choices":[{{"index":0,"delta":{{"role":"assistant","content":""}},"finish_reason":null}}]}}"#
        )
    }

    fn is_tgi(&self) -> bool {
        !self.chat && (self.api == Api::Tgi || self.own)
    }

    fn event(&self, from: u32, count: u32) -> String {
        let text = Self::text(from, count);
        let ids: Vec<u32> = (from..from + count).map(|i| 100 + i).collect();
        let last = from + count == self.tokens;
        if self.chat {
            return format!(
                r#"{{"model":"{MODEL}","choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]}}"#
            );
        }
        if self.is_tgi() {
            let id = if self.own { format!("{ids:?}") } else { ids[0].to_string() };
            let end = if last && !self.own {
                self.tgi_end()
            } else {
                r#""generated_text":null,"details":null"#.into()
            };
            let times = match (self.own, from) {
                (false, _) => "",
                (true, 0) => r#""prefill_time":12.5,"decode_time":null,"#,
                (true, _) => r#""prefill_time":null,"decode_time":3.5,"#,
            };
            return format!(
                r#"{{{times}"token":{{"id":{id},"text":"{text}","logprob":-0.5,"special":false}},{end}}}"#
            );
        }
        match self.api {
            Api::LlamaCpp => format!(r#"{{"content":"{text}","tokens":{ids:?},"stop":false}}"#),
            Api::Vllm => format!(
                r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":"{text}","token_ids":{ids:?},"finish_reason":null}}],"usage":{}}}"#,
                self.usage(from + count)
            ),
            _ => format!(
                r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":"{text}","finish_reason":null}}]}}"#
            ),
        }
    }

    fn tgi_end(&self) -> String {
        format!(
            r#""generated_text":"{}","details":{{"finish_reason":"{}","generated_tokens":{},"input_length":{}}}"#,
            Self::text(0, self.tokens),
            if self.is_cut { "length" } else { "eos_token" },
            self.tokens,
            self.prompt_tokens
        )
    }

    /// Returns what follows the last token: reason, counts, marker.
    fn tail(&self) -> Vec<String> {
        if self.is_tgi() {
            return if self.own {
                vec![format!(
                    r#"{{"prefill_time":null,"decode_time":null,"token":{{"id":[2],"text":null}},{}}}"#,
                    self.tgi_end()
                )]
            } else {
                Vec::new()
            };
        }
        let finish = if self.chat { r#""delta":{}"# } else { r#""text":"""# };
        let word = if self.is_cut { "length" } else { "stop" };
        let reason =
            format!(r#"{{"model":"{MODEL}","choices":[{{"index":0,{finish},"finish_reason":"{word}"}}]}}"#);
        let usage = format!(r#"{{"model":"{MODEL}","choices":[],"usage":{}}}"#, self.usage(self.tokens));
        if self.api == Api::LlamaCpp && !self.chat {
            return vec![self.llama_end("")];
        }
        vec![reason, usage, "[DONE]".into()]
    }

    fn llama_end(&self, text: &str) -> String {
        format!(
            r#"{{"content":"{text}","tokens":[],"stop":true,"stop_type":"{}","model":"stub.gguf","tokens_evaluated":{},"tokens_predicted":{},"timings":{{"prompt_n":{},"prompt_ms":12.5,"predicted_ms":50.0}}}}"#,
            if self.is_cut { "limit" } else { "eos" },
            self.prompt_tokens,
            self.tokens,
            self.prompt_tokens
        )
    }

    /// Returns an answer in one piece, with the candidates of a first token: `A` to `E` at -1, -2, …
    fn whole(&self) -> String {
        let text = Self::text(0, self.tokens);
        let tops = [("A", 65, -1.0), ("B", 66, -2.0), ("C", 67, -3.0), ("D", 68, -4.0), ("E", 69, -5.0)];
        let list = |show: &dyn Fn(&str, u32, f64) -> String| {
            tops.iter().map(|(token, id, value)| show(token, *id, *value)).collect::<Vec<_>>().join(",")
        };
        let objects = list(&|token, id, value| {
            format!(r#"{{"token":"{token}","text":"{token}","id":{id},"logprob":{value}}}"#)
        });
        if self.chat {
            return format!(
                r#"{{"model":"{MODEL}","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"logprobs":{{"content":[{{"token":"A","logprob":-1.0,"top_logprobs":[{objects}]}}]}},"finish_reason":"length"}}],"usage":{}}}"#,
                self.usage(self.tokens)
            );
        }
        if self.is_tgi() {
            return format!(
                r#"{{"generated_text":"{text}","details":{{"finish_reason":"length","generated_tokens":{},"prefill":[],"tokens":[{{"id":65,"text":"A","logprob":-1.0,"special":false}}],"top_tokens":[[{objects}]]}}}}"#,
                self.tokens
            );
        }
        if self.api == Api::LlamaCpp {
            let end = self.llama_end(&text);
            let open = end.strip_suffix('}').unwrap_or(&end);
            return format!(
                r#"{open},"completion_probabilities":[{{"id":65,"token":"A","logprob":-1.0,"top_logprobs":[{objects}]}}]}}"#
            );
        }
        let map = list(&|token, _, value| format!(r#""{token}":{value}"#));
        format!(
            r#"{{"model":"{MODEL}","choices":[{{"index":0,"text":"{text}","finish_reason":"length","logprobs":{{"tokens":["A"],"token_logprobs":[-1.0],"top_logprobs":[{{{map}}}],"text_offset":[0]}}}}],"usage":{}}}"#,
            self.usage(self.tokens)
        )
    }
}
