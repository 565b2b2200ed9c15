//! The probe against stubs that can and cannot.

#![allow(clippy::unwrap_used, reason = "tests")]

use glmbench_remote::testing::{Script, Server, stub};
use glmbench_remote::{Api, Client, Endpoint, KnownPrompt, Probe, RemoteError, Retry, Standing};

fn probe_of(server: &Server, api: Api) -> Result<Probe, RemoteError> {
    let mut endpoint = Endpoint::new(server.url().parse().unwrap(), api);
    endpoint.retry = Retry::NEVER;
    // The stub counts two special tokens before five words.
    let known = KnownPrompt { ids: Some(vec![11, 12, 13, 14, 15]), ..KnownPrompt::default() };
    Client::new(endpoint).unwrap().probe(&known)
}

fn standings(probe: &Probe) -> Vec<(&'static str, Standing)> {
    probe.capabilities.all().into_iter().map(|(name, capability)| (name, capability.standing)).collect()
}

#[test]
fn each_protocol_shows_what_it_can() {
    let long = stub::Schedule { tokens: 64, ..stub::Schedule::default() };
    use Standing::{Absent, Fails, Works};
    // In the order of `Capabilities::all`.
    let expected = [
        (
            Api::Mindie,
            [Absent, Works, Fails, Absent, Works, Fails, Works, Works, Works, Works, Fails, Works, Works],
        ),
        (
            Api::Tgi,
            [Fails, Works, Works, Absent, Absent, Works, Absent, Works, Works, Works, Fails, Works, Works],
        ),
        (
            Api::OpenAi,
            [Fails, Works, Fails, Absent, Works, Fails, Works, Works, Works, Works, Fails, Works, Works],
        ),
        (
            Api::Vllm,
            [Fails, Works, Fails, Fails, Works, Works, Works, Works, Works, Works, Fails, Works, Works],
        ),
        (
            Api::LlamaCpp,
            [Absent, Works, Works, Absent, Works, Works, Works, Works, Works, Works, Works, Works, Works],
        ),
    ];
    for (api, standing) in expected {
        let server = stub::start(api, long);
        let probe = probe_of(&server, api).unwrap();
        let found: Vec<Standing> = standings(&probe).into_iter().map(|(_, standing)| standing).collect();
        assert_eq!(found, standing, "{api}: {:#?}", probe.capabilities);
        assert_eq!(probe.capabilities.usage.value, Some(2.0), "{api}");
        assert!(probe.notes.iter().any(|note| note.contains("n+2")), "{api}: {:?}", probe.notes);
        assert!(probe.limits.max_total.is_some(), "{api}");
        assert_eq!(probe.models.len(), 1, "{api}");
    }
}

#[test]
fn events_of_many_tokens_are_named() {
    let server =
        stub::start(Api::OpenAi, stub::Schedule { tokens: 64, per_event: 4, ..stub::Schedule::default() });
    let probe = probe_of(&server, Api::OpenAi).unwrap();
    assert_eq!(probe.capabilities.events_per_token.value, Some(0.25));
    assert_eq!(probe.capabilities.events_per_token.standing, Standing::Fails);
    assert!(probe.notes.iter().any(|note| note.contains("4.00 tokens")), "{:?}", probe.notes);
}

#[test]
fn an_end_that_is_not_ignored_is_found() {
    let server = stub::start(Api::OpenAi, stub::Schedule { tokens: 20, ..stub::Schedule::default() });
    let probe = probe_of(&server, Api::OpenAi).unwrap();
    assert_eq!(probe.capabilities.ignores_end.standing, Standing::Fails);
    assert!(probe.capabilities.ignores_end.evidence.starts_with("20 tokens of 64"));
}

#[test]
fn a_server_that_generates_nothing_is_an_error() {
    let server = Server::start(|_| Script::answer("502 Bad Gateway", "text/html", "<h1>proxy</h1>"));
    let error = probe_of(&server, Api::Tgi).unwrap_err().to_string();
    assert!(error.contains("502") && error.contains("proxy"), "{error}");
}
