//! One test for each behaviour of the scripted faulty server.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use glmbench_remote::testing::{Server, faults};
use glmbench_remote::{
    Api, Choice, Client, Endpoint, Failure, FailureKind, Finish, Generation, Key, KnownPrompt, Phase, Prompt,
    Response, Retry, Route, Standing, Timeouts,
};

/// Limits that no good answer comes near, and that tests of silence can wait for.
const SHORT: Timeouts = Timeouts {
    connect: Duration::from_millis(400),
    first_byte: Duration::from_millis(400),
    between_events: Duration::from_millis(400),
    whole: Duration::from_secs(20),
};

fn endpoint(server: &Server, fault: &str, api: Api) -> Endpoint {
    let mut endpoint = Endpoint::new(server.url_of(fault).parse().unwrap(), api);
    endpoint.model = Some("stub".into());
    endpoint.retry = Retry::NEVER;
    endpoint
}

fn prompt() -> Prompt {
    Prompt::Text("a b c".into())
}

fn generate(endpoint: Endpoint) -> Result<Response, Failure> {
    let client = Client::new(endpoint).unwrap();
    let mut seen = String::new();
    let result = client.generate(&Generation::greedy(prompt(), 16), &mut |event| seen.push_str(event.text));
    if let Ok(response) = &result {
        assert_eq!(seen, response.text, "events and text agree");
        let times = &response.times;
        let order = [
            times.sent,
            times.headers,
            times.first_byte,
            times.first_token,
            times.last_token,
            Some(times.end),
        ];
        assert!(order.windows(2).all(|pair| pair[0].unwrap() <= pair[1].unwrap()), "{times:?}");
        assert!(times.started <= times.connected.unwrap_or(times.started));
    }
    result
}

fn good(fault: &str) -> Response {
    let server = faults::start();
    generate(endpoint(&server, fault, Api::OpenAi)).unwrap()
}

fn bad(fault: &str) -> Failure {
    let server = faults::start();
    generate(endpoint(&server, fault, Api::OpenAi)).unwrap_err()
}

/// The stream of four tokens that most right forms carry.
fn assert_four(response: &Response) {
    assert_eq!(response.text, " 0 1 2 3");
    assert_eq!(response.finish, Finish::Stop);
    assert_eq!(response.events.len(), 4);
}

#[test]
fn every_behaviour_has_its_own_name() {
    let names: BTreeSet<&str> =
        faults::FAULTS.iter().chain(&faults::LOGPROB_FAULTS).map(|(name, _)| *name).collect();
    assert_eq!(names.len(), faults::FAULTS.len() + faults::LOGPROB_FAULTS.len());
    let source = include_str!("faults.rs");
    for name in names {
        assert!(source.contains(&format!("\"{name}\"")), "no test names {name}");
    }
}

#[test]
fn a_normal_stream_is_read_in_every_protocol() {
    let server = faults::start();
    for api in Api::ALL {
        let response = generate(endpoint(&server, "normal", api)).unwrap();
        assert_eq!(response.text, " 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", "{api}");
        assert_eq!(response.finish, Finish::Length, "{api}");
        assert_eq!(response.output_tokens, Some(16), "{api}");
        assert_eq!(response.prompt_tokens, Some(5), "{api}");
        assert_eq!(response.events.len(), 16, "{api}");
    }
}

#[test]
fn a_chat_needs_no_role_event() {
    let server = faults::start();
    let client = Client::new(endpoint(&server, "role_never", Api::OpenAi)).unwrap();
    let chat = Generation::greedy(Prompt::Chat("a".into()), 4);
    let response = client.generate(&chat, &mut |_| {}).unwrap();
    assert_eq!((response.text.as_str(), response.finish, response.events.len()), ("ab", Finish::Stop, 2));
    let client = Client::new(endpoint(&server, "normal", Api::OpenAi)).unwrap();
    let response = client.generate(&chat, &mut |_| {}).unwrap();
    assert_eq!(response.events.len(), 4, "a role event is no token");
}

#[test]
fn several_tokens_in_an_event_are_counted() {
    let response = good("many_tokens");
    assert_eq!(response.output_tokens, Some(8));
    assert_eq!(response.events.iter().map(|event| event.tokens).collect::<Vec<_>>(), [Some(4), Some(4)]);
    assert_eq!(response.events_per_token(), Some(0.25));
}

#[test]
fn a_stream_that_repeats_itself_is_found_by_the_probe() {
    let server = faults::start();
    let client = Client::new(endpoint(&server, "full_text", Api::OpenAi)).unwrap();
    let streams = client.probe(&KnownPrompt::default()).unwrap().capabilities.streams;
    assert_eq!(streams.standing, Standing::Fails);
    assert!(streams.evidence.contains("fullTextEnabled"), "{}", streams.evidence);
}

#[test]
fn tokens_without_text_are_events_where_ids_say_so() {
    let response = good("empty_tokens");
    assert_eq!(response.events.len(), 3);
    assert_eq!(response.ids, Some(vec![7, 8, 9]));
    assert_eq!(response.text, "a");
}

#[test]
fn text_that_is_held_back_comes_whole() {
    let response = good("held_back");
    assert_eq!(response.text, "中😀");
    assert_eq!(response.events.len(), 2, "an event without text and ids is no token");
    assert_eq!(response.events_per_token(), Some(0.5));
}

#[test]
fn bytes_of_characters_may_come_apart() {
    assert_eq!(good("split_bytes").text, "中😀");
}

#[test]
fn framing_may_vary() {
    for form in ["joined", "crlf", "cr", "no_space", "comments", "finish_empty", "gzip"] {
        assert_four(&good(form));
    }
}

#[test]
fn counts_may_be_anywhere_or_nowhere() {
    let response = good("usage_in_choice");
    assert_four(&response);
    assert_eq!((response.output_tokens, response.events[3].tokens), (Some(4), None));
    for form in ["usage_never", "usage_null"] {
        let response = good(form);
        assert_four(&response);
        assert_eq!(response.output_tokens, None);
    }
}

#[test]
fn a_stream_without_its_marker_has_failed() {
    let failure = bad("no_done");
    assert_eq!(failure.kind, FailureKind::NoEndMarker);
    assert!(failure.text.contains("4 events"), "{failure}");
    assert_eq!(failure.events.len(), 4);
}

#[test]
fn a_marker_without_a_reason_has_failed() {
    assert_eq!(bad("no_finish").kind, FailureKind::NoFinishReason);
}

#[test]
fn a_cut_stream_has_failed() {
    for fault in ["cut", "cut_between"] {
        let failure = bad(fault);
        assert_eq!(failure.kind, FailureKind::Cut, "{fault}: {failure}");
        assert!(failure.events.len() >= 2, "{fault}: what came before is kept");
        assert!(failure.times.first_token.is_some());
    }
}

#[test]
fn errors_in_a_stream_keep_their_text() {
    for fault in ["error_object", "error_string", "error_name"] {
        let failure = bad(fault);
        assert_eq!(failure.kind, FailureKind::ErrorEvent, "{fault}");
        assert!(failure.text.contains("out of memory"), "{fault}: {failure}");
        assert_eq!(failure.events.len(), 2, "{fault}");
    }
}

#[test]
fn raw_text_in_a_stream_is_kept() {
    let failure = bad("raw_text");
    assert_eq!(failure.kind, FailureKind::RawText, "{failure}");
    assert_eq!(failure.text, "Engine callback timeout: server tokenTimeout");
    let failure = bad("raw_json");
    assert_eq!(failure.kind, FailureKind::ErrorEvent, "{failure}");
    assert!(failure.text.contains("switched off"));
    let failure = bad("html_200");
    assert_eq!(failure.kind, FailureKind::RawText);
    assert!(failure.text.contains("Welcome to the proxy"), "{failure}");
}

#[test]
fn an_overloaded_server_is_asked_again_and_both_times_kept() {
    let server = faults::start();
    let mut endpoint = endpoint(&server, "overloaded_once", Api::OpenAi);
    endpoint.retry = Retry::default();
    let response = generate(endpoint).unwrap();
    assert_four(&response);
    let [first] = response.attempts.as_slice() else { panic!("{:?}", response.attempts) };
    assert_eq!(first.kind, FailureKind::Status(429));
    assert!(first.times.end <= response.times.started);
    assert_eq!(server.received(), 2);
}

#[test]
fn an_overloaded_server_is_not_asked_for_ever() {
    let server = faults::start();
    let mut patient = endpoint(&server, "overloaded", Api::OpenAi);
    patient.retry = Retry { times: 2, longest_wait: Duration::from_secs(1) };
    let failure = generate(patient.clone()).unwrap_err();
    assert_eq!((failure.kind.clone(), failure.attempts.len()), (FailureKind::Status(429), 2));
    assert!(failure.text.contains("overloaded"), "{failure}");
    patient.url = server.url_of("overloaded_long").parse().unwrap();
    let failure = generate(patient).unwrap_err();
    assert_eq!((failure.retry_after, failure.attempts.len()), (Some(Duration::from_hours(1)), 0));
    assert_eq!(server.received(), 4);
}

#[test]
fn what_was_answered_is_never_asked_again() {
    let server = faults::start();
    for fault in ["cut", "no_done", "error_object", "unavailable", "invalid", "html_502"] {
        let before = server.received();
        let mut endpoint = endpoint(&server, fault, Api::OpenAi);
        endpoint.retry = Retry::default();
        generate(endpoint).unwrap_err();
        assert_eq!(server.received(), before + 1, "{fault}");
    }
}

#[test]
fn statuses_keep_their_text() {
    let cases = [
        ("unavailable", 503, ""),
        ("invalid", 422, "Input validation error: max_new_tokens"),
        ("unauthorized", 401, ""),
        ("html_502", 502, "502 Bad Gateway"),
    ];
    for (fault, code, text) in cases {
        let failure = bad(fault);
        assert_eq!(failure.kind, FailureKind::Status(code), "{fault}");
        assert!(failure.text.contains(text), "{fault}: {failure}");
    }
}

#[test]
fn a_key_is_sent_and_never_shown() {
    let server = faults::start();
    let mut endpoint = endpoint(&server, "echo_key", Api::OpenAi);
    endpoint.key = Some(Key::new("sk-very-secret\n").unwrap());
    assert!(!format!("{endpoint:?}").contains("secret"));
    let client = Client::new(endpoint).unwrap();
    assert!(!format!("{client:?}").contains("secret"));
    let failure = client.generate(&Generation::greedy(prompt(), 1), &mut |_| {}).unwrap_err();
    assert!(failure.text.contains("Bearer [key]"), "{failure}");
    assert!(!format!("{failure} {failure:?}").contains("secret"));
    let sent = server.wait_for(1);
    assert_eq!(sent[0].request.header("authorization"), Some("Bearer sk-very-secret"));
}

/// A server may send the key back in any text, in pieces, and in its metrics.
#[test]
fn a_key_that_comes_back_is_hidden() {
    let server = Server::start(|request| {
        let key = request.header("authorization").unwrap_or_default().replace("Bearer ", "");
        match request.path.as_str() {
            "/metrics" => {
                let text = format!("running{{key=\"{key}\"}} 1\n");
                glmbench_remote::testing::Script::answer("200 OK", "text/plain", text)
            }
            "/v1/models" => {
                glmbench_remote::testing::Script::json(format!(r#"{{"data":[{{"id":"{key}"}}]}}"#))
            }
            _ => faults::behave("echo_key_text", request, 1),
        }
    });
    let mut endpoint = Endpoint::new(server.url().parse().unwrap(), Api::OpenAi);
    endpoint.key = Some(Key::new("sk-very-secret").unwrap());
    let client = Client::new(endpoint).unwrap();
    assert_eq!(client.model().unwrap().as_deref(), Some("[key]"));
    let failure = client.generate(&Generation::greedy(prompt(), 16), &mut |_| {}).unwrap_err();
    assert_eq!(failure.kind, FailureKind::WrongModel);
    let mut named = Endpoint::new(server.url().parse().unwrap(), Api::OpenAi);
    (named.key, named.model) = (Some(Key::new("sk-very-secret").unwrap()), Some("stub".into()));
    let client = Client::new(named).unwrap();
    let response = client.generate(&Generation::greedy(prompt(), 16), &mut |_| {}).unwrap();
    assert_eq!((response.text.as_str(), response.finish.word()), ("[key]", "[key]"));
    let metrics = client.metrics().unwrap();
    assert_eq!(metrics[0].0, "running{key=\"[key]\"}");
    // Cut off within the key, a text still shows none of it.
    let server = Server::start(|_| {
        let cut = format!("{}sk-very-se", "x".repeat(2_000));
        glmbench_remote::testing::Script::answer("500 Internal Server Error", "text/plain", cut)
    });
    let mut endpoint = Endpoint::new(server.url().parse().unwrap(), Api::LlamaCpp);
    endpoint.key = Some(Key::new("sk-very-secret").unwrap());
    let failure = generate(endpoint).unwrap_err();
    assert!(failure.text.ends_with("x[key]"), "{failure}");
}

/// The key belongs to the server of the endpoint. Another port is another server.
#[test]
fn a_key_goes_to_its_own_server_only() {
    let (server, other) = (faults::start(), faults::start());
    let mut endpoint = endpoint(&server, "normal", Api::OpenAi);
    endpoint.key = Some(Key::new("sk-very-secret").unwrap());
    endpoint.metrics = Some(other.url().parse().unwrap());
    Client::new(endpoint.clone()).unwrap().metrics().unwrap();
    assert_eq!(other.wait_for(1)[0].request.header("authorization"), None);
    endpoint.key_elsewhere = true;
    Client::new(endpoint.clone()).unwrap().metrics().unwrap();
    assert_eq!(other.wait_for(2)[1].request.header("authorization"), Some("Bearer sk-very-secret"));
    // The same server under another path is the same server.
    endpoint.key_elsewhere = false;
    endpoint.metrics = Some(server.url_of("metrics-of").parse().unwrap());
    Client::new(endpoint).unwrap().metrics().unwrap();
    assert_eq!(server.wait_for(1)[0].request.header("authorization"), Some("Bearer sk-very-secret"));
}

/// A count that contradicts the reason or the stream makes a failure, so that nobody believes either.
#[test]
fn counts_that_contradict_are_failures() {
    for (fault, says) in [
        ("length_early", "counts 4 tokens of 16 asked for"),
        ("counts_fewer", "counts 2 tokens, and 4 events brought 3 at least"),
        ("counts_none", "counts 0 tokens"),
        ("counts_more", "counts 400 tokens, and 16 were asked for at most"),
    ] {
        let failure = bad(fault);
        assert_eq!(failure.kind, FailureKind::Contradiction, "{fault}: {failure}");
        assert!(failure.text.contains(says), "{fault}: {failure}");
        assert_eq!(failure.events.len(), 4, "{fault}");
    }
}

#[test]
fn lengths_are_held_against_bodies() {
    assert_eq!(bad("short_length").kind, FailureKind::Cut);
    assert_eq!(bad("long_length").kind, FailureKind::Cut);
}

#[test]
fn another_model_is_a_failure() {
    let failure = bad("wrong_model");
    assert_eq!(failure.kind, FailureKind::WrongModel);
    assert_eq!(failure.text, "asked for `stub`, answered by `another`");
}

#[test]
fn connections_serve_again_unless_the_server_closes_them() {
    let connections = |fault: &str, keep_alive: bool| {
        let server = faults::start();
        let mut endpoint = endpoint(&server, fault, Api::OpenAi);
        endpoint.keep_alive = keep_alive;
        let client = Client::new(endpoint).unwrap();
        let times: Vec<bool> = (0..3)
            .map(|_| client.generate(&Generation::greedy(prompt(), 4), &mut |_| {}).unwrap())
            .map(|response| response.times.connected.is_some())
            .collect();
        (server.wait_for(3).iter().map(|a| a.request.connection).collect::<BTreeSet<_>>().len(), times)
    };
    assert_eq!(connections("normal", true), (1, vec![true, false, false]));
    assert_eq!(connections("normal", false), (3, vec![true, true, true]));
    assert_eq!(connections("close_each", true), (3, vec![true, true, true]));
}

#[test]
fn each_limit_of_waiting_has_its_name() {
    let server = faults::start();
    let cases = [
        ("silent", Phase::FirstByte),
        ("silent_body", Phase::FirstByte),
        ("keep_alive_comments", Phase::FirstByte),
        ("silent_between", Phase::BetweenEvents),
        ("drip", Phase::BetweenEvents),
    ];
    for (fault, phase) in cases {
        let mut endpoint = endpoint(&server, fault, Api::OpenAi);
        endpoint.timeouts = SHORT;
        let begin = Instant::now();
        let failure = generate(endpoint).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Timeout(phase), "{fault}: {failure}");
        assert!(begin.elapsed() >= Duration::from_millis(390), "{fault}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{fault}");
    }
    for fault in ["silent", "drip", "keep_alive_comments"] {
        let mut endpoint = endpoint(&server, fault, Api::OpenAi);
        endpoint.timeouts.whole = Duration::from_millis(300);
        let failure = generate(endpoint).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Timeout(Phase::Whole), "{fault}: {failure}");
    }
}

#[test]
fn no_connection_is_tried_again_and_fails() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut endpoint = Endpoint::new(format!("http://127.0.0.1:{port}").parse().unwrap(), Api::LlamaCpp);
    endpoint.retry = Retry { times: 1, longest_wait: Duration::from_secs(1) };
    let failure = generate(endpoint).unwrap_err();
    assert_eq!((failure.kind.clone(), failure.attempts.len()), (FailureKind::Connect, 1), "{failure}");
    let mut endpoint = Endpoint::new("http://no-such-host.invalid".parse().unwrap(), Api::LlamaCpp);
    endpoint.retry = Retry::NEVER;
    assert_eq!(generate(endpoint).unwrap_err().kind, FailureKind::Connect);
}

#[test]
fn redirects_are_refused_and_named() {
    let failure = bad("redirect");
    assert_eq!(failure.kind, FailureKind::Redirect);
    assert_eq!(failure.text, "status 307 to /normal/v1/completions");
}

#[test]
fn answers_are_bounded() {
    let server = faults::start();
    let mut endpoint = endpoint(&server, "long_line", Api::OpenAi);
    endpoint.max_body = 1 << 20;
    let failure = generate(endpoint).unwrap_err();
    assert_eq!(failure.kind, FailureKind::TooLarge);
    assert!(failure.text.len() < 200);
    assert_eq!(bad("huge_head").kind, FailureKind::TooLarge);
}

#[test]
fn what_is_not_http_is_named() {
    assert_eq!(bad("not_http").kind, FailureKind::NotHttp);
}

#[test]
fn the_nul_stream_of_mindie_is_read() {
    let server = faults::start();
    let mut endpoint = endpoint(&server, "nul_stream", Api::Mindie);
    endpoint.route = Route::Generate;
    let response = generate(endpoint).unwrap();
    assert_eq!((response.text.as_str(), response.finish.word()), (" 0 1 2 3", "unstated"));
}

#[test]
fn mindie_reports_its_own_times() {
    let server = faults::start();
    let mut endpoint = endpoint(&server, "normal", Api::Mindie);
    endpoint.route = Route::Infer;
    let response = generate(endpoint).unwrap();
    let times = response.server_times.unwrap();
    assert_eq!((times.prefill_ms, times.decode_ms.len()), (Some(12.5), 15));
    assert_eq!(response.ids.map(|ids| ids.len()), Some(16));
}

fn choices(texts: &[&str]) -> Vec<Choice> {
    let choice =
        |text: &&str| Choice { id: None, text: (*text).to_owned(), begins_word: false, has_twin: false };
    texts.iter().map(choice).collect()
}

fn choose(fault: &str, api: Api) -> Result<Vec<Option<f64>>, Failure> {
    let server = faults::start();
    let client = Client::new(endpoint(&server, fault, api)).unwrap();
    client.next_token_logprobs(&prompt(), &choices(&["A", "B", "C", "D"])).map(|found| found.logprobs)
}

fn prompt_logprobs(fault: &str, api: Api) -> Result<Vec<Option<f64>>, Failure> {
    let server = faults::start();
    let client = Client::new(endpoint(&server, fault, api)).unwrap();
    client.prompt_logprobs(&prompt()).map(|found| found.logprobs)
}

#[test]
fn choices_are_found_or_said_to_be_hidden() {
    for api in Api::ALL {
        let all = [Some(-1.0), Some(-2.0), Some(-3.0), Some(-4.0)];
        assert_eq!(choose("normal", api).unwrap(), all, "{api}");
    }
    assert_eq!(choose("duplicate_keys", Api::OpenAi).unwrap(), [Some(-1.5), None, Some(-4.0), None]);
    let infinite = Some(f64::NEG_INFINITY);
    assert_eq!(choose("python_numbers", Api::OpenAi).unwrap(), [Some(-1.5), infinite, None, None]);
    assert_eq!(choose("list_reply", Api::Tgi).unwrap(), [Some(-1.0), Some(-2.0), None, None]);
    assert_eq!(choose("logprobs_null", Api::OpenAi).unwrap_err().kind, FailureKind::NotRevealed);
}

#[test]
fn the_prompt_has_one_logprob_a_token_or_none_counts() {
    let found = prompt_logprobs("echo", Api::OpenAi).unwrap();
    assert_eq!(found, [None, Some(-1.0), Some(-2.0), Some(-3.0)]);
    assert_eq!(prompt_logprobs("list_reply", Api::Tgi).unwrap(), [None, Some(-2.5)]);
    for (fault, api) in [
        ("echo_ignored", Api::OpenAi),
        ("logprobs_null", Api::OpenAi),
        ("echo", Api::Vllm),
        ("prefill_empty", Api::Tgi),
    ] {
        let failure = prompt_logprobs(fault, api).unwrap_err();
        assert_eq!(failure.kind, FailureKind::NotRevealed, "{fault}: {failure}");
    }
    for api in [Api::Mindie, Api::LlamaCpp] {
        assert_eq!(prompt_logprobs("normal", api).unwrap_err().kind, FailureKind::Unsupported);
    }
}

#[test]
fn a_servers_count_of_the_prompt_is_passed_on() {
    let server = faults::start();
    let client = Client::new(endpoint(&server, "count_plus_two", Api::OpenAi)).unwrap();
    let found = client.next_token_logprobs(&prompt(), &choices(&["A"])).unwrap();
    assert_eq!(found.prompt_tokens, Some(6));
}

#[test]
fn what_a_protocol_lacks_is_refused_before_anything_is_sent() {
    let server = faults::start();
    let mut fixed = Generation::greedy(prompt(), 4);
    fixed.ignore_end = true;
    let ids = Generation::greedy(Prompt::Ids(vec![1, 2]), 4);
    for (api, generation) in [(Api::Tgi, &fixed), (Api::Tgi, &ids)] {
        let client = Client::new(endpoint(&server, "normal", api)).unwrap();
        let failure = client.generate(generation, &mut |_| {}).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unsupported, "{failure}");
    }
    assert_eq!(server.received(), 0);
}
