//! The smallest example of a protocol: a made-up wire format, for tests only. `docs/ADDING.md` points here.

use serde_json::json;

use super::{
    About, Answer, Base, Call, Candidates, Chats, Ending, PromptTokens, Protocol, Unary, Unsupported, Update,
    Wrong, lacks,
};
use crate::json::Json;
use crate::probe::{count, text};
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

    fn stub(&self) -> crate::testing::stub::Stub {
        crate::testing::stub::Stub {
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
    use crate::testing::stub::{Reply, Wire};

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

/// The walk of a protocol: by its word, to its stub, and through all that a client asks.
mod tests {
    use super::super::Api;
    use crate::testing::{Server, faults, stub};
    use crate::{Choice, Client, Endpoint, Finish, Generation, KnownPrompt, Prompt, Retry, Standing};

    fn client(server: &Server, path: &str) -> Client {
        let api: Api = "toy".parse().unwrap();
        let url = format!("{}{path}", server.url()).parse().unwrap();
        Client::new(Endpoint { retry: Retry::NEVER, ..Endpoint::new(url, api) }).unwrap()
    }

    #[test]
    fn its_word_is_in_the_list() {
        assert_eq!(Api::Toy.to_string(), "toy");
        assert!(Api::words().ends_with(" or toy"));
        assert!("toys".parse::<Api>().unwrap_err().to_string().ends_with(&Api::words()));
    }

    #[test]
    fn its_stream_is_read_with_the_times_of_the_schedule() {
        let first = std::time::Duration::from_millis(40);
        let server = stub::start(Api::Toy, stub::Schedule { first, ..stub::Schedule::default() });
        let generation = Generation::greedy(Prompt::Text("a b c".into()), 4);
        let response = client(&server, "").generate(&generation, &mut |_| {}).unwrap();
        assert_eq!((response.text.as_str(), response.finish.clone()), (" 0 1 2 3", Finish::Length));
        assert_eq!((response.prompt_tokens, response.output_tokens), (Some(5), Some(4)));
        assert_eq!(response.ids, Some(vec![100, 101, 102, 103]));
        assert!(response.ttft().unwrap() >= first);
    }

    /// The server of all faults finds the protocol by its route.
    #[test]
    fn its_choices_are_found() {
        let server = faults::start();
        let choices = ["A", "D", "F"].map(|text| Choice {
            id: None,
            text: text.into(),
            begins_word: false,
            has_twin: false,
        });
        let found =
            client(&server, "/normal").next_token_logprobs(&Prompt::Text("a".into()), &choices).unwrap();
        assert_eq!(found.logprobs, [Some(-1.0), Some(-4.0), None]);
        assert_eq!(found.prompt_tokens, Some(3));
    }

    #[test]
    fn the_probe_finds_what_it_is_and_can() {
        let server = stub::start(Api::Toy, stub::Schedule { tokens: 64, ..stub::Schedule::default() });
        let known = KnownPrompt { ids: Some(vec![11, 12, 13, 14, 15]), ..KnownPrompt::default() };
        let probe = client(&server, "").probe(&known).unwrap();
        assert_eq!((probe.version.as_deref(), probe.models), (Some("first"), vec!["stub".to_owned()]));
        assert_eq!(probe.limits.max_total, Some(99));
        let can = probe.capabilities;
        let works = can.all().into_iter().filter(|(_, can)| can.works()).map(|(name, _)| name);
        assert_eq!(
            works.collect::<Vec<_>>(),
            [
                "generated_logprobs",
                "ids_in",
                "ids_out",
                "streams",
                "events_per_token",
                "usage",
                "metrics",
                "repeats"
            ]
        );
        let absent = [&can.prompt_logprobs, &can.chosen_logprobs, &can.ignores_end];
        assert!(absent.iter().all(|can| can.standing == Standing::Absent), "{absent:?}");
    }
}
