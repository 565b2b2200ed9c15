//! The checks behind each capability.

use std::time::Duration;

use super::{Capabilities, Capability, KnownPrompt, Standing};
use crate::{Api, Choice, Client, Failure, FailureKind, Finish, Generation, Prompt, RemoteError, Response};

/// Tokens of a short generation.
const SHORT: u32 = 8;
/// Tokens of the generation that must not end early.
const LONG: u32 = 64;
/// Below this, gaps between events are not gaps between tokens.
const EVENTS_PER_TOKEN: f64 = 0.95;
/// Ids that every vocabulary of a language model has.
const SOME_IDS: [u32; 5] = [301, 302, 303, 304, 305];

/// How long a server has to close a connection behind an answer: more than a round trip.
const CLOSES_WITHIN: Duration = Duration::from_millis(100);

/// Runs all checks. The second value is [`super::Probe::keeps_connections`].
pub(super) fn all(
    client: &Client,
    known: &KnownPrompt,
    notes: &mut Vec<String>,
) -> Result<(Capabilities, bool), RemoteError> {
    let prompt = Prompt::Text(known.text.clone());
    let generate = |prompt: &Prompt, tokens: u32, ignore_end: bool| {
        let mut generation = Generation::greedy(prompt.clone(), tokens);
        generation.ignore_end = ignore_end;
        client.generate(&generation, &mut |_| {})
    };
    let mut texts = Vec::new();
    let first = client
        .generate(&Generation::greedy(prompt.clone(), SHORT), &mut |event| texts.push(event.text.to_owned()))
        .map_err(|failure| RemoteError::Request {
            what: "a short greedy generation".into(),
            failure: Box::new(failure),
        })?;
    // A server that closes the connection without saying so does it now, and not while the next request is on its way.
    std::thread::sleep(CLOSES_WITHIN);
    let second = generate(&prompt, SHORT, false);
    let reconnected = second.as_ref().is_ok_and(|second| second.times.connected.is_some());
    let closes = client.endpoint().keep_alive && reconnected;
    if closes {
        notes.push(
            "The server closes every connection: connecting is part of each request, and is reported apart."
                .into(),
        );
    }
    let ids = known.ids.clone().unwrap_or_else(|| SOME_IDS.to_vec());
    let by_ids = generate(&Prompt::Ids(ids.clone()), SHORT, false);
    let plain = generate(&prompt, LONG, false);
    let ignoring = generate(&prompt, LONG, true);
    let (generated_logprobs, logprob_ids) = depth(client, &prompt);
    let capabilities = Capabilities {
        prompt_logprobs: prompt_logprobs(client, &prompt, known),
        generated_logprobs,
        logprob_ids,
        chosen_logprobs: chosen(client, &prompt),
        ids_in: ids_in(&by_ids, ids.len()),
        ids_out: ids_out(&first),
        ignores_end: ignores_end(&plain, &ignoring),
        streams: streams(&texts),
        events_per_token: events_per_token(longest(&first, [&plain, &ignoring]), notes),
        usage: usage(&first, known, notes),
        server_times: server_times(&first),
        metrics: metrics(client),
        repeats: repeats(&first, &second),
    };
    Ok((capabilities, !closes))
}

/// Returns the one with the most tokens: there, an end token without an event of its own weighs least.
fn longest<'a>(first: &'a Response, others: [&'a Result<Response, Failure>; 2]) -> &'a Response {
    let tokens = |response: &&Response| response.output_tokens;
    others.into_iter().flatten().chain([first]).max_by_key(tokens).unwrap_or(first)
}

fn works(evidence: String) -> Capability {
    Capability { standing: Standing::Works, value: None, evidence }
}

fn fails(evidence: String) -> Capability {
    Capability { standing: Standing::Fails, value: None, evidence }
}

fn unknown(evidence: String) -> Capability {
    Capability { standing: Standing::Unknown, value: None, evidence }
}

/// Returns the capability behind a failed request.
fn failed(failure: &Failure) -> Capability {
    let standing = match failure.kind {
        FailureKind::Unsupported => Standing::Absent,
        FailureKind::Connect
        | FailureKind::Timeout(_)
        | FailureKind::Status(429 | 503)
        | FailureKind::Cut => Standing::Unknown,
        _ => Standing::Fails,
    };
    let evidence = if standing == Standing::Absent {
        failure.text.clone()
    } else {
        format!("the request failed: {failure}")
    };
    Capability { standing, value: None, evidence }
}

/// Looks for MindIE's `fullTextEnabled`: each event repeats the text before it.
fn streams(texts: &[String]) -> Capability {
    let count = texts.len();
    let repeats =
        count >= 4 && texts.windows(2).all(|pair| !pair[0].is_empty() && pair[1].starts_with(&pair[0]));
    let grows = texts.first().map(String::len) < texts.last().map(String::len);
    if repeats && grows {
        return fails(format!(
            "each of {count} events repeats the text before it: switch off `fullTextEnabled`"
        ));
    }
    works(format!("a stream of {count} events ended as it should"))
}

fn prompt_logprobs(client: &Client, prompt: &Prompt, known: &KnownPrompt) -> Capability {
    match client.prompt_logprobs(prompt) {
        Ok(found) => {
            let count = found.logprobs.len();
            let ours = known
                .ids
                .as_ref()
                .map_or(String::new(), |ids| format!(" (the tokenizer counts {})", ids.len()));
            works(format!("{count} log-probabilities for {count} prompt tokens{ours}"))
        }
        Err(failure) => failed(&failure),
    }
}

/// Asks for the candidates of one token, as deep as the protocol goes.
fn depth(client: &Client, prompt: &Prompt) -> (Capability, Capability) {
    // No token has this text: the client asks as deep as it can.
    let nothing =
        [Choice { id: None, text: "\u{1F9FF}\u{1F9FF}".into(), begins_word: false, has_twin: false }];
    match client.next_token_logprobs(prompt, &nothing) {
        Ok(found) => {
            let depth = found.depth;
            let mut generated = works(format!("{depth} candidates of one generated token"));
            generated.value = Some(f64::from(depth));
            let ids = match client.candidates_have_ids(prompt) {
                Ok(true) => works("each candidate has a token id".into()),
                Ok(false) => {
                    fails("candidates have texts only: tokens that decode alike cannot be told apart".into())
                }
                Err(failure) => failed(&failure),
            };
            (generated, ids)
        }
        Err(failure) => (failed(&failure), failed(&failure)),
    }
}

/// Asks for ids that are improbable as the next token: they come back only if the server takes them by name.
fn chosen(client: &Client, prompt: &Prompt) -> Capability {
    if !client.protocol().names_logprob_ids() {
        let able = Api::ALL.into_iter().filter(|api| api.protocol().names_logprob_ids()).map(Api::word);
        let able = able.collect::<Vec<_>>().join(" or ");
        return Capability {
            standing: Standing::Absent,
            value: None,
            evidence: format!("only {able} takes the ids of log-probabilities"),
        };
    }
    let choice =
        |&id: &u32| Choice { id: Some(id), text: String::new(), begins_word: false, has_twin: false };
    let choices: Vec<Choice> = SOME_IDS.iter().map(choice).collect();
    match client.next_token_logprobs(prompt, &choices) {
        Ok(found) if found.by_id => {
            let revealed = found.logprobs.iter().flatten().count();
            let evidence = format!("{revealed} of {} ids that were named came back", choices.len());
            if revealed == choices.len() { works(evidence) } else { fails(evidence) }
        }
        Ok(_) => fails("candidates came without ids, although they were asked for by id".into()),
        Err(failure) => failed(&failure),
    }
}

fn ids_in(answer: &Result<Response, Failure>, sent: usize) -> Capability {
    match answer {
        Ok(response) => match response.prompt_tokens {
            Some(count) if count as usize == sent => {
                works(format!("{sent} ids sent, {count} prompt tokens counted"))
            }
            Some(count) => {
                fails(format!("{sent} ids sent, {count} prompt tokens counted: not used as they are"))
            }
            None => unknown(format!("{sent} ids accepted, but the server does not count prompt tokens")),
        },
        Err(failure) => failed(failure),
    }
}

fn ids_out(response: &Response) -> Capability {
    match (&response.ids, response.output_tokens) {
        (Some(ids), _) => works(format!("{} ids for {} events", ids.len(), response.events.len())),
        (None, Some(count)) => fails(format!("not all of {count} tokens came with their ids")),
        (None, None) => fails("tokens came without ids".into()),
    }
}

fn ignores_end(plain: &Result<Response, Failure>, ignoring: &Result<Response, Failure>) -> Capability {
    let ignoring = match ignoring {
        Ok(response) => response,
        Err(failure) => return failed(failure),
    };
    let Some(count) = ignoring.output_tokens else {
        return unknown("the server does not count its tokens".into());
    };
    if count != LONG || ignoring.finish != Finish::Length {
        return fails(format!("{count} tokens of {LONG}, ended by `{}`", ignoring.finish.word()));
    }
    let without = match plain {
        Ok(response) if response.finish != Finish::Length => {
            format!("the same request ended after {} without it", response.output_tokens.unwrap_or_default())
        }
        // A model that goes on anyway shows nothing, but an unknown field is an error or harmless.
        _ => "the same request reached that length without it, too".into(),
    };
    works(format!("{count} tokens of {LONG}; {without}"))
}

fn events_per_token(response: &Response, notes: &mut Vec<String>) -> Capability {
    let Some(ratio) = response.events_per_token() else {
        return unknown("the server does not count its tokens".into());
    };
    let evidence =
        format!("{} events for {} tokens", response.events.len(), response.output_tokens.unwrap_or_default());
    let mut capability = if ratio >= EVENTS_PER_TOKEN { works(evidence) } else { fails(evidence) };
    capability.value = Some((ratio * 100.0).round() / 100.0);
    if ratio < EVENTS_PER_TOKEN {
        notes.push(format!(
            "An event holds {:.2} tokens: times between tokens cannot be measured.",
            1.0 / ratio
        ));
    }
    if let ([first, .., last], true) = (response.events.as_slice(), response.events.len() >= 4)
        && first.at == last.at
    {
        notes.push("All events came in one burst: the first token's time is that of the last.".into());
    }
    capability
}

fn usage(response: &Response, known: &KnownPrompt, notes: &mut Vec<String>) -> Capability {
    let (Some(prompt), Some(output)) = (response.prompt_tokens, response.output_tokens) else {
        let there = |count: Option<u32>| if count.is_some() { "counted" } else { "not counted" };
        let (prompt, output) = (there(response.prompt_tokens), there(response.output_tokens));
        return fails(format!("prompt tokens {prompt}, generated tokens {output}"));
    };
    let mut capability = works(format!("{prompt} prompt tokens and {output} generated tokens counted"));
    if let Some(ids) = &known.ids {
        let difference = i64::from(prompt) - ids.len() as i64;
        capability.value = Some(difference as f64);
        if difference != 0 {
            notes.push(format!(
                "The server counts n{difference:+} prompt tokens: {prompt} where the tokenizer counts {}.",
                ids.len()
            ));
        }
    }
    capability
}

fn server_times(response: &Response) -> Capability {
    match &response.server_times {
        Some(times) => works(format!("prefill and {} decode times", times.decode_ms.len())),
        None => fails("no times of the server in the answer".into()),
    }
}

fn metrics(client: &Client) -> Capability {
    match client.metrics() {
        Ok(samples) => {
            let mut capability = works(format!("{} samples", samples.len()));
            capability.value = Some(samples.len() as f64);
            capability
        }
        Err(failure) => failed(&failure),
    }
}

fn repeats(first: &Response, second: &Result<Response, Failure>) -> Capability {
    match second {
        Ok(second) if second.text == first.text => works("the same greedy request gave the same text".into()),
        Ok(_) => fails("the same greedy request gave two texts".into()),
        Err(failure) => failed(failure),
    }
}
