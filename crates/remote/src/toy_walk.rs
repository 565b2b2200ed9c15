//! The walk of a protocol: by its word, to its stub, and through all that a client asks.

use crate::testing::{Server, faults, stub};
use crate::{Api, Choice, Client, Endpoint, Finish, Generation, KnownPrompt, Prompt, Retry, Standing};

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
    let found = client(&server, "/normal").next_token_logprobs(&Prompt::Text("a".into()), &choices).unwrap();
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
