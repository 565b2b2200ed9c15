//! The client.

mod generate;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use self::generate::Sent;
use crate::protocol::{self, Protocol, Unary, Wrong};
use crate::response::{Attempt, Times};
use crate::transport::Transport;
use crate::{
    Choice, ChoiceLogprobs, Endpoint, Event, Failure, FailureKind, Generation, Phase, Prompt, PromptLogprobs,
    RemoteError, Response, json::Json, metrics,
};

/// The answer to a request of one object.
struct Asked<T> {
    /// What was read from the object.
    value: T,
    /// Times of the last attempt.
    times: Times,
    /// The attempts before it.
    attempts: Vec<Attempt>,
}

/// A client of one endpoint. Share it by reference: every call blocks its thread.
#[derive(Debug)]
pub struct Client {
    pub(crate) endpoint: Endpoint,
    pub(crate) transport: Transport,
    model: OnceLock<String>,
}

impl Client {
    /// Reads certificates and prepares connections. Nothing is sent.
    ///
    /// # Errors
    /// If a certificate or key cannot be read, or this CPU lacks what encryption needs.
    pub fn new(endpoint: Endpoint) -> Result<Self, RemoteError> {
        let transport = Transport::new(&endpoint)?;
        Ok(Self { endpoint, transport, model: OnceLock::new() })
    }

    /// Returns the endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the model id that requests name, and asks the server for it the first time. `None`: the protocol names none,
    /// and the endpoint chooses none.
    ///
    /// # Errors
    /// If the server lists no model or several, and the endpoint chooses none.
    pub fn model(&self) -> Result<Option<String>, RemoteError> {
        let asked = self.protocol().names_model(self.endpoint.route, None);
        self.model_if(asked).map(|model| model.map(str::to_owned)).map_err(|failure| RemoteError::Request {
            what: "the list of models".into(),
            failure: Box::new(failure),
        })
    }

    /// Generates, and reports every event with tokens as it arrives.
    ///
    /// The first call may ask for the model's id, where the protocol names one: call [`Client::model`] before timing.
    ///
    /// # Errors
    /// Everything but a complete answer with end marker and reason is a [`Failure`].
    pub fn generate(
        &self,
        generation: &Generation,
        on_event: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Response, Failure> {
        let route = self.endpoint.route;
        let model = self.model_for(&generation.prompt)?;
        let call =
            self.protocol().generate(route, model, generation).map_err(|text| self.unsupported(&text))?;
        let body = call.body.to_string();
        let (mut response, attempts) = self.with_retries(|attempts| {
            let sent = Sent { body: body.as_bytes(), max_tokens: generation.max_tokens, model };
            generate::attempt(self, &call, sent, attempts, on_event)
        })?;
        response.attempts = attempts;
        Ok(response)
    }

    /// Returns the log-probability of each choice as the token after the prompt.
    ///
    /// # Errors
    /// A [`Failure`] of the request. A choice that the server does not reveal is no failure: its entry is `None`.
    pub fn next_token_logprobs(
        &self,
        prompt: &Prompt,
        choices: &[Choice],
    ) -> Result<ChoiceLogprobs, Failure> {
        let protocol = self.protocol();
        let model = self.model_for(prompt)?;
        let (mut all, mut requests) = (Vec::new(), 0);
        let mut best: Option<ChoiceLogprobs> = None;
        for &depth in protocol.depths(prompt) {
            let unary =
                protocol.candidates(model, prompt, choices, depth).map_err(|text| self.unsupported(&text))?;
            let Asked { value: candidates, times, attempts } = match self.ask(&unary) {
                Ok(answer) => answer,
                // A server that refuses more candidates has answered with fewer before.
                Err(failure) if best.is_some() && matches!(failure.kind, FailureKind::Status(400..=499)) => {
                    requests += 1;
                    break;
                }
                Err(failure) => return Err(failure),
            };
            self.insist_on(model, candidates.model.as_deref(), times)?;
            all.extend(attempts);
            let by_id = candidates.list.iter().all(|candidate| candidate.id.is_some())
                && choices.iter().all(|choice| choice.id.is_some());
            let found: Vec<Found> =
                choices.iter().map(|choice| find(choice, &candidates.list, by_id)).collect();
            let logprobs: Vec<Option<f64>> = found.iter().map(|found| found.logprob()).collect();
            requests += 1;
            let count = u32::try_from(candidates.list.len()).unwrap_or(u32::MAX);
            let complete = logprobs.iter().all(Option::is_some);
            let deeper = best.as_ref().is_none_or(|best| count > best.depth);
            best = Some(ChoiceLogprobs {
                logprobs,
                by_id,
                ambiguous: found.iter().filter(|found| **found == Found::Ambiguous).count() as u32,
                requests,
                depth: count,
                prompt_tokens: candidates.prompt_tokens,
                times,
                attempts: Vec::new(),
            });
            // A server that gave no more than before has no more.
            if complete || !deeper || count < depth {
                break;
            }
        }
        let mut best = best.ok_or_else(|| self.unsupported("the protocol reveals no candidates"))?;
        (best.attempts, best.requests) = (all, requests);
        Ok(best)
    }

    /// Returns the most requests that one [`Client::next_token_logprobs`] sends, retries apart.
    pub fn most_choice_requests(&self) -> u32 {
        self.protocol().depths(&Prompt::Text(String::new())).len() as u32
    }

    /// Tells whether candidates of a generated token carry their ids.
    pub(crate) fn candidates_have_ids(&self, prompt: &Prompt) -> Result<bool, Failure> {
        // Asking by id makes the servers that can show ids show them.
        let choices = [Choice { id: Some(301), text: String::new(), begins_word: false, has_twin: false }];
        let model = self.model_for(prompt)?;
        let unary =
            self.protocol().candidates(model, prompt, &choices, 1).map_err(|text| self.unsupported(&text))?;
        let candidates = self.ask(&unary)?.value;
        Ok(candidates.list.iter().all(|candidate| candidate.id.is_some()))
    }

    /// Returns the log-probabilities of the prompt tokens.
    ///
    /// # Errors
    /// [`FailureKind::Unsupported`] for protocols without them, [`FailureKind::NotRevealed`] if there is not one for every
    /// prompt token.
    pub fn prompt_logprobs(&self, prompt: &Prompt) -> Result<PromptLogprobs, Failure> {
        let model = self.model_for(prompt)?;
        let unary = self.protocol().prompt_logprobs(model, prompt).map_err(|text| self.unsupported(&text))?;
        let Asked { value: tokens, times, attempts } = self.ask(&unary)?;
        self.insist_on(model, tokens.model.as_deref(), times)?;
        let count = tokens.logprobs.len();
        let expected = match prompt {
            Prompt::Ids(ids) => Some(ids.len()),
            _ => tokens.prompt_tokens.map(|count| count as usize),
        };
        let missing = tokens.logprobs.iter().skip(1).filter(|logprob| logprob.is_none()).count();
        if expected.is_some_and(|expected| expected != count) || count == 0 || missing > 0 {
            let expected = expected.map_or("an unknown number of".into(), |expected| expected.to_string());
            let text = format!("{} log-probabilities for {expected} prompt tokens", count - missing);
            return Err(self.transport.failed(FailureKind::NotRevealed, &text, times));
        }
        Ok(PromptLogprobs {
            logprobs: tokens.logprobs,
            ids: tokens.ids,
            texts: tokens.texts,
            times,
            attempts,
        })
    }

    /// Reads `/metrics`: names with their labels as the server writes them, and values.
    ///
    /// # Errors
    /// A [`Failure`] of the request, or [`FailureKind::Shape`] if the text is not in the format.
    pub fn metrics(&self) -> Result<Vec<(String, f64)>, Failure> {
        let mut exchange = self.transport.get(self.endpoint.metrics(), "/metrics")?.expect_ok()?;
        let bytes = exchange.read_all()?;
        let text = self.transport.hide(String::from_utf8_lossy(&bytes).into_owned());
        match metrics::parse(&text) {
            Ok(samples) => Ok(samples.into_iter().map(|sample| (sample.series(), sample.value)).collect()),
            Err(line) => {
                let start: String =
                    text.lines().nth(line - 1).unwrap_or_default().chars().take(200).collect();
                Err(exchange.failed(FailureKind::Shape, &format!("line {line} is no metric: {start}")))
            }
        }
    }

    pub(crate) fn protocol(&self) -> &'static dyn Protocol {
        self.endpoint.api.protocol()
    }

    /// Returns the model that a request names.
    pub(crate) fn model_for(&self, prompt: &Prompt) -> Result<Option<&str>, Failure> {
        self.model_if(self.protocol().names_model(self.endpoint.route, Some(prompt)))
    }

    fn model_if(&self, asked: bool) -> Result<Option<&str>, Failure> {
        if let Some(model) = &self.endpoint.model {
            return Ok(Some(model));
        }
        if !asked {
            return Ok(None);
        }
        if let Some(model) = self.model.get() {
            return Ok(Some(model));
        }
        let models = self.models()?;
        let [model] = models.as_slice() else {
            let text = match models.len() {
                0 => "the server lists no model: name one".to_owned(),
                _ => format!("the server lists {}: name one", models.join(", ")),
            };
            return Err(self.transport.failed(FailureKind::WrongModel, &text, Times::new(Instant::now())));
        };
        Ok(Some(self.model.get_or_init(|| model.clone())))
    }

    /// Returns the ids of `/v1/models`.
    pub(crate) fn models(&self) -> Result<Vec<String>, Failure> {
        let json = self.get_json(&self.endpoint.url, "/v1/models")?;
        let list = json.get("data").list();
        Ok(list.iter().filter_map(|model| model.get("id").text()).map(str::to_owned).collect())
    }

    pub(crate) fn get_json(&self, url: &crate::Url, route: &str) -> Result<Json, Failure> {
        let mut exchange = self.transport.get(url, route)?.expect_ok()?;
        let bytes = exchange.read_all()?;
        self.transport.json(&bytes).map_err(|e| not_json(&exchange, &bytes, &e))
    }

    /// Sends a request whose answer is one object, with retries.
    fn ask<T>(&self, unary: &Unary<T>) -> Result<Asked<T>, Failure> {
        let body = unary.body.to_string();
        let ((value, times), attempts) = self.with_retries(|attempts| {
            let (url, body) = (&self.endpoint.url, body.as_bytes());
            let exchange = self.transport.post(url, unary.route, body, false, attempts)?;
            let mut exchange = exchange.expect_ok()?;
            let bytes = exchange.read_all()?;
            let json = self.transport.json(&bytes).map_err(|e| not_json(&exchange, &bytes, &e))?;
            let read = protocol::check(&json).and_then(|()| (unary.read)(&json));
            let value = read.map_err(|(kind, text): Wrong| exchange.failed(kind, &text))?;
            Ok((value, exchange.times))
        })?;
        Ok(Asked { value, times, attempts })
    }

    /// Repeats what sent no byte of an answer, and keeps the times of every attempt. An attempt adds those that met a closed
    /// connection itself: they are no retries.
    fn with_retries<T>(
        &self,
        mut attempt: impl FnMut(&mut Vec<Attempt>) -> Result<T, Failure>,
    ) -> Result<(T, Vec<Attempt>), Failure> {
        let (mut attempts, mut number) = (Vec::new(), 0);
        loop {
            let mut failure = match attempt(&mut attempts) {
                Ok(value) => return Ok((value, attempts)),
                Err(failure) => failure,
            };
            let wait = wait_before_retry(&failure, number);
            let retry = self.endpoint.retry;
            let Some(wait) = wait.filter(|&wait| number < retry.times && wait <= retry.longest_wait) else {
                failure.attempts = attempts;
                return Err(failure);
            };
            attempts.push(Attempt { times: *failure.times, kind: failure.kind, waited: wait });
            number += 1;
            std::thread::sleep(wait);
        }
    }

    /// Fails if another model answered than the request named.
    pub(crate) fn insist_on(
        &self,
        asked: Option<&str>,
        answered: Option<&str>,
        times: Times,
    ) -> Result<(), Failure> {
        let named = self.protocol().names_model(self.endpoint.route, None);
        match (asked, answered) {
            (Some(asked), Some(answered)) if named && asked != answered => {
                let text = format!("asked for `{asked}`, answered by `{answered}`");
                Err(self.transport.failed(FailureKind::WrongModel, &text, times))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn unsupported(&self, text: &str) -> Failure {
        self.transport.failed(FailureKind::Unsupported, text, Times::new(Instant::now()))
    }
}

/// Returns the failure for a body that is not JSON, with its beginning.
fn not_json(exchange: &crate::transport::Exchange<'_>, bytes: &[u8], error: &serde_json::Error) -> Failure {
    let start: String = String::from_utf8_lossy(bytes).chars().take(1_000).collect();
    exchange.failed(FailureKind::NotJson, &format!("{error}: {start}"))
}

/// Returns how long to wait before a failed request may be sent again. `None`: never, because the server may have begun.
fn wait_before_retry(failure: &Failure, number: u32) -> Option<Duration> {
    match failure.kind {
        FailureKind::Connect | FailureKind::Timeout(Phase::Connect) => {
            Some(Duration::from_millis(500) * 2u32.saturating_pow(number.min(8)))
        }
        FailureKind::Status(429 | 503) => failure.retry_after,
        // A connection that was kept alive and that the server closed while it was idle.
        FailureKind::Cut if failure.times.connected.is_none() && failure.times.headers.is_none() => {
            Some(Duration::ZERO)
        }
        _ => None,
    }
}

/// What candidates say of a choice.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Found {
    /// Its log-probability.
    Logprob(f64),
    /// It is not among them.
    Absent,
    /// A candidate may be this choice or another token.
    Ambiguous,
}

impl Found {
    fn logprob(self) -> Option<f64> {
        if let Self::Logprob(logprob) = self { Some(logprob) } else { None }
    }
}

/// Looks for a choice. By text, it must be the only candidate of that text, and the text must be of one token only.
fn find(choice: &Choice, list: &[crate::TokenLogprob], by_id: bool) -> Found {
    let is_this = |candidate: &crate::TokenLogprob| candidate.id.is_some() && candidate.id == choice.id;
    if by_id || list.iter().any(is_this) {
        let mut same = list.iter().filter(|candidate| candidate.id.is_some() && candidate.id == choice.id);
        let Some(first) = same.next() else { return Found::Absent };
        // A server that contradicts itself reveals nothing.
        let agrees = same.all(|other| other.logprob == first.logprob);
        return if agrees { Found::Logprob(first.logprob) } else { Found::Ambiguous };
    }
    // Parts of characters all decode to this one.
    if choice.text.is_empty() || choice.text.contains('\u{FFFD}') {
        return Found::Ambiguous;
    }
    let only = |text: &str| {
        let mut same = list.iter().filter(|candidate| candidate.text == text);
        match (same.next(), same.next()) {
            (None, _) => Found::Absent,
            (Some(one), None) => Found::Logprob(one.logprob),
            (Some(_), Some(_)) => Found::Ambiguous,
        }
    };
    // A server that keeps the space before a word has it in front of the first piece.
    let keeps_spaces =
        list.iter().any(|candidate| candidate.text.starts_with(' ') && !candidate.text.trim().is_empty());
    if choice.begins_word && keeps_spaces {
        let spaced = only(&format!(" {}", choice.text));
        if choice.has_twin || spaced != Found::Absent {
            return spaced;
        }
    }
    match only(&choice.text) {
        // Without any space, nothing tells whether the server strips them.
        Found::Logprob(_) if choice.has_twin && !keeps_spaces => Found::Ambiguous,
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(choice: (&str, bool, bool), list: &[(&str, f64)]) -> Found {
        let (text, begins_word, has_twin) = choice;
        let choice = Choice { id: None, text: text.into(), begins_word, has_twin };
        let list: Vec<_> = list
            .iter()
            .map(|(text, logprob)| crate::TokenLogprob { id: None, text: (*text).into(), logprob: *logprob })
            .collect();
        find(&choice, &list, false)
    }

    /// `▁A` and `A` are two tokens. Where a server strips spaces, one `A` may be either.
    #[test]
    fn a_stripped_space_is_no_guess() {
        let (word, inner) = (("A", true, true), ("A", false, true));
        let stripped = [("A", -1.0), ("B", -2.0)];
        assert_eq!(found(word, &stripped), Found::Ambiguous);
        assert_eq!(found(inner, &stripped), Found::Ambiguous);
        assert_eq!(found(("A", true, false), &stripped), Found::Logprob(-1.0), "no other token has the text");
        assert_eq!(found(word, &[("A", -1.0), ("A", -3.0)]), Found::Ambiguous);
        // A space anywhere shows that the server keeps them.
        let kept = [(" A", -1.0), ("A", -3.0), ("B", -2.0)];
        assert_eq!((found(word, &kept), found(inner, &kept)), (Found::Logprob(-1.0), Found::Logprob(-3.0)));
        assert_eq!(found(word, &[("A", -3.0), (" the", -0.5)]), Found::Absent, "the other `A` is no answer");
        assert_eq!(found(inner, &[("A", -3.0), (" the", -0.5)]), Found::Logprob(-3.0));
        assert_eq!(found(word, &[("B", -1.0)]), Found::Absent);
    }
}
