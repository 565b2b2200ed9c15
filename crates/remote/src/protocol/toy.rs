//! The smallest example of a protocol: a made-up wire format, for tests only. `docs/ADDING.md` points here. `toy_walk.rs` takes
//! it through the client.

use serde_json::json;

use super::{
    About, Answer, Base, Call, Candidates, Chats, Ending, PromptTokens, Protocol, Unary, Unsupported, Update,
    Wrong, lacks,
};
use crate::identity::{count, text};
use crate::json::Json;
use crate::response::TokenLogprob;
use crate::{Finish, Generation, Prompt, Route};

/// The most candidates that the server reveals.
const DEPTH: u32 = 5;

pub(super) struct Toy;

impl Protocol for Toy {
    fn word(&self) -> &'static str {
        "toy"
    }

    fn about(&self) -> &'static [About] {
        const ABOUT: About = About {
            base: Base::Inference,
            route: "/toy",
            what: "information about the toy",
            read: |json, identity| {
                identity.version = text(json, "edition");
                identity.models = text(json, "model").into_iter().collect();
                identity.limits.max_total = count(json, &["longest"]);
            },
        };
        &[ABOUT]
    }

    fn stub(&self) -> crate::wire::Stub {
        crate::wire::Stub {
            generates: &[
                ("/toy/say", &stub::Say { streams: true }),
                ("/toy/guess", &stub::Say { streams: false }),
            ],
            states: &[("/toy", r#"{"edition":"first","model":"stub","longest":99}"#)],
        }
    }

    fn names_model(&self, _: Route, _: Option<&Prompt>) -> bool {
        false
    }

    fn allow(&self, route: Route, generation: &Generation) -> Result<(), Unsupported> {
        super::only_default(route)?;
        if generation.ignore_end {
            return Err("toy cannot ignore the end token: use another protocol".into());
        }
        Ok(())
    }

    fn chats(&self) -> Result<Chats, Unsupported> {
        Err("toy has no chats: use a text".into())
    }

    fn stream(&self, _: Route, _: Option<&str>, generation: &Generation) -> Result<Call, Unsupported> {
        let body = json!({ "after": super::prompt_json(&generation.prompt), "words": generation.max_tokens });
        Ok(Call { route: "/toy/say", body, ending: Ending::Event, read, no_stop_texts: true })
    }

    fn next_token(&self, _: Option<&str>, prompt: &Prompt, _: u32) -> Result<Unary<Candidates>, Unsupported> {
        let body = json!({ "after": super::prompt_json(prompt), "words": 1 });
        Ok(Unary { route: "/toy/guess", body, read: read_candidates })
    }

    fn own_depths(&self) -> &'static [u32] {
        &[DEPTH]
    }

    fn own_prompt_logprobs(&self, _: Option<&str>, _: &Prompt) -> Result<Unary<PromptTokens>, Unsupported> {
        Err("toy has no log-probabilities of the prompt: score choices by the next token instead".into())
    }
}

/// Reads `{"word": " a", "id": 1}`, or the end `{"over": "length", "heard": 5, "said": 16}`.
fn read(json: &Json, answer: &mut Answer) -> Result<Update, Wrong> {
    if let Some(reason) = json.get("over").text() {
        answer.complete = true;
        answer.finish = Some(Finish::from_word(reason));
        answer.prompt_tokens = json.get("heard").count();
        answer.output_tokens = json.get("said").count();
        return Ok(Update::default());
    }
    let Some(word) = json.get("word").text() else { return Err(lacks("word", json)) };
    Ok(Update { text: word.to_owned(), ids: json.get("id").ids(), tokens: Some(1), is_token: true })
}

fn read_candidates(json: &Json) -> Result<Candidates, Wrong> {
    let of = |guess: &Json| {
        let (logprob, text) = (guess.get("chance").number()?, guess.get("word").text()?.to_owned());
        Some(TokenLogprob { id: None, text, logprob })
    };
    let list: Vec<TokenLogprob> = json.get("guesses").list().iter().filter_map(of).collect();
    if list.is_empty() {
        return Err(lacks("guesses", json));
    }
    Ok(Candidates { list, prompt_tokens: json.get("heard").count(), model: None })
}

/// The server's side.
mod stub {
    use crate::wire::{Reply, Wire};

    /// `/toy/say` and `/toy/guess`.
    pub(super) struct Say {
        pub(super) streams: bool,
    }

    impl Wire for Say {
        fn prompt(&self) -> &'static str {
            "/after"
        }

        fn limit(&self) -> &'static str {
            "/words"
        }

        fn streams(&self) -> bool {
            self.streams
        }

        fn event(&self, _: &Reply, from: u32, count: u32) -> String {
            format!(r#"{{"word":"{}","id":{:?}}}"#, Reply::text(from, count), Reply::ids(from, count))
        }

        fn tail(&self, reply: &Reply) -> Vec<String> {
            let Reply { prompt_tokens, tokens, .. } = reply;
            let reason = reply.reason("length", "stop");
            vec![format!(r#"{{"over":"{reason}","heard":{prompt_tokens},"said":{tokens}}}"#)]
        }

        fn whole(&self, reply: &Reply) -> String {
            let guesses =
                Reply::candidates(|word, _, chance| format!(r#"{{"word":"{word}","chance":{chance}}}"#));
            format!(r#"{{"heard":{},"guesses":[{guesses}]}}"#, reply.prompt_tokens)
        }
    }
}
