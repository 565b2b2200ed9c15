//! The law of the clock: what a stub of a known schedule did is what the client says.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use glmbench_remote::testing::stub::{self, Schedule};
use glmbench_remote::testing::{Script, Server, Step};
use glmbench_remote::{Api, Client, Endpoint, FailureKind, Generation, Prompt, Response, Retry};

fn client(url: &str, api: Api) -> Client {
    let mut endpoint = Endpoint::new(url.parse().unwrap(), api);
    endpoint.model = Some(stub::MODEL.into());
    endpoint.retry = Retry::NEVER;
    Client::new(endpoint).unwrap()
}

fn one(client: &Client) -> Response {
    client.generate(&Generation::greedy(Prompt::Text("a b".into()), 16), &mut |_| {}).unwrap()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Returns the difference of two times in milliseconds, in either direction.
fn apart(a: Instant, b: Instant) -> f64 {
    milliseconds(a.max(b) - a.min(b))
}

/// On a quiet machine the differences are tenths of a millisecond. The bounds leave room for a busy one.
#[test]
#[allow(clippy::print_stderr, reason = "the exact figures are the point")]
fn first_and_further_tokens_come_when_the_stub_sends_them() {
    let schedule = Schedule {
        first: Duration::from_millis(60),
        gap: Duration::from_millis(15),
        tokens: 16,
        per_event: 1,
    };
    for api in Api::ALL {
        let server = stub::start(api, schedule);
        let client = client(&server.url(), api);
        // Each stream is compared with what the server really did: a stub that overslept is not the client's error.
        let mut best = [f64::INFINITY; 3];
        for run in 1..=3 {
            let response = one(&client);
            let answered = server.wait_for(run).pop().unwrap();
            // Writes: the head, sixteen events, and what follows.
            let written = &answered.written[1..=16];
            let sent = response.times.sent.unwrap();
            let ttft = milliseconds(response.ttft().unwrap()) - milliseconds(written[0] - answered.received);
            let tpot = milliseconds(response.tpot().unwrap()) - milliseconds((written[15] - written[0]) / 15);
            let worst = response.events.iter().zip(written).map(|(event, &at)| apart(event.at, at));
            let worst = worst.fold(apart(sent, answered.received), f64::max);
            for (best, value) in best.iter_mut().zip([ttft.abs(), tpot.abs(), worst]) {
                *best = best.min(value);
            }
            // Each clock is compared with itself, and both are on one machine: `sent` is read after the bytes are
            // gone.
            assert!(written[0] - answered.received >= schedule.first, "{api}: the stub waits");
            for (event, &at) in response.events.iter().zip(written) {
                assert!(event.at + Duration::from_millis(1) >= at, "{api}: no token is early");
            }
        }
        eprintln!(
            "{api}: TTFT off by {:.3} ms, TPOT by {:.4} ms, an event by at most {:.3} ms",
            best[0], best[1], best[2]
        );
        assert!(best[0] < 20.0 && best[1] < 5.0 && best[2] < 30.0, "{api}: {best:?} ms");
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "the exact figures are the point")]
fn two_hundred_streams_are_timed_as_they_were_sent() {
    let schedule = Schedule {
        first: Duration::from_millis(300),
        gap: Duration::from_millis(40),
        tokens: 12,
        per_event: 1,
    };
    let server = stub::start(Api::OpenAi, schedule);
    let client = client(&server.url(), Api::OpenAi);
    let responses: Vec<(String, Response)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..200)
            .map(|i| {
                let (client, prompt) = (&client, format!("stream {i}"));
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(3 * i));
                    let generation = Generation::greedy(Prompt::Text(prompt.clone()), 16);
                    (prompt, client.generate(&generation, &mut |_| {}).unwrap())
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let answered = server.wait_for(200);
    assert_eq!(answered.len(), 200);
    let (mut first, mut own, mut further, mut late) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (prompt, response) in responses {
        let truth = answered.iter().find(|a| a.request.json()["prompt"] == prompt.as_str()).unwrap();
        let written = &truth.written[1..=12];
        let ttft = milliseconds(response.ttft().unwrap());
        first.push((ttft - milliseconds(written[0] - truth.received)).abs());
        // A request that lies in the stub's socket has arrived: a stub that reads it late is a slow server, not a wrong clock.
        let arrived = response.times.sent.unwrap().min(truth.received);
        own.push((ttft - milliseconds(written[0] - arrived)).abs());
        // What lies between is neither the server's schedule nor its own interruptions: the wire, the system, and the client.
        let handed = response.events.iter().zip(&truth.handed[1..=12]);
        late.extend(handed.map(|(event, &at)| milliseconds(event.at.saturating_duration_since(at))));
        let span = (written[11] - written[0]) / 11;
        further.push((milliseconds(response.tpot().unwrap()) - milliseconds(span)).abs());
    }
    let all = [("TTFT since the stub read", &mut first), ("TTFT", &mut own), ("TPOT", &mut further)];
    for (name, errors) in all {
        errors.sort_by(f64::total_cmp);
        eprintln!(
            "200 streams: {name} off by {:.3} ms in the median, {:.3} ms at most",
            errors[100], errors[199]
        );
    }
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    eprintln!(
        "200 streams: events seen {:.3} ms after they were handed over in the median, {:.3} ms at 99 %, {:.3} ms at most",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    // The first event needs no report of the client: it would show a `sent` that is too early.
    assert!(first[100] < 20.0 && own[100] < 20.0 && further[100] < 5.0, "{first:?} {own:?} {further:?}");
}

/// Some servers close a connection behind an answer without saying so, when the next request is on its way already.
#[test]
fn a_kept_connection_that_was_closed_is_no_answer() {
    let event = format!(
        r#"{{"model":"{}","choices":[{{"index":0,"text":"a","finish_reason":"length"}}]}}"#,
        stub::MODEL
    );
    let server = Server::start(move |request| {
        if request.connection == 0 && request.number > 0 {
            return Script::default().step(Step::Close);
        }
        Script::stream().event(&event).event("[DONE]").chunk("")
    });
    let client = client(&server.url(), Api::OpenAi);
    assert!(one(&client).times.connected.is_some());
    let second = one(&client);
    // It is no retry, which this client has none of, but it was sent twice, and both times are kept.
    let [closed] = second.attempts.as_slice() else { panic!("{:?}", second.attempts) };
    assert_eq!(
        (&closed.kind, closed.waited, closed.times.connected),
        (&FailureKind::Cut, Duration::ZERO, None)
    );
    assert!(closed.times.started < second.times.started && closed.times.sent < second.times.sent);
    let seen: Vec<_> = server.wait_for(3).iter().map(|answer| answer.request.connection).collect();
    assert_eq!(seen, [0, 0, 1]);
}

/// Only a connection that was closed before is no answer: a server that ends it later, or within an answer, may have begun.
#[test]
fn a_request_that_the_server_may_have_begun_is_not_sent_again() {
    for (wait, begin) in [(400, ""), (100, ""), (0, "HTTP/1.1 200 OK\r\nContent-Ty")] {
        let event = format!(
            r#"{{"model":"{}","choices":[{{"index":0,"text":"a","finish_reason":"length"}}]}}"#,
            stub::MODEL
        );
        let server = Server::start(move |request| {
            if request.number == 0 {
                return Script::stream().event(&event).event("[DONE]").chunk("");
            }
            let script = Script::default().until(Duration::from_millis(wait)).write(begin.as_bytes());
            script.step(Step::Close)
        });
        let client = client(&server.url(), Api::OpenAi);
        assert!(one(&client).attempts.is_empty());
        let again = Generation::greedy(Prompt::Text("a b".into()), 16);
        let failure = client.generate(&again, &mut |_| {}).unwrap_err();
        assert!(failure.attempts.is_empty() && failure.times.connected.is_none(), "{failure}");
        assert_eq!((failure.kind, server.received()), (FailureKind::Cut, 2));
    }
}
