//! One attempt to generate: the stream, its end, and its times.

use super::Client;
use crate::protocol::{self, Answer, Call, Ending, Update};
use crate::response::{Attempt, EventTime};
use crate::stream::{Frame, Framing, Nul, Sse};
use crate::transport::Exchange;
use crate::{Event, Failure, FailureKind, Finish, Response, json::Json};

/// The payload that ends a stream of the OpenAI routes.
const DONE: &str = "[DONE]";

/// Tokens that a server may count beyond the limit: the rest of a character of several bytes.
const REST_OF_CHARACTER: u32 = 4;

/// What an attempt sends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sent<'a> {
    /// The body of the request.
    pub(super) body: &'a [u8],
    /// The limit that the body states.
    pub(super) max_tokens: u32,
    /// The model that the body names, if the protocol names one.
    pub(super) model: Option<&'a str>,
}

/// Sends the request and reads the stream to its end marker. `attempts` gets those that met a closed connection.
pub(super) fn attempt(
    client: &Client,
    call: &Call,
    Sent { body, max_tokens, model }: Sent<'_>,
    attempts: &mut Vec<Attempt>,
    on_event: &mut dyn FnMut(&Event<'_>),
) -> Result<Response, Failure> {
    let url = &client.endpoint.url;
    let exchange = client.transport.post(url, call.route, body, true, attempts)?.expect_ok()?;
    let mut stream = Stream {
        client,
        call,
        max_tokens,
        model,
        exchange,
        answer: Answer::default(),
        events: Vec::new(),
        all_ids: true,
        on_event,
    };
    match stream.run() {
        Ok(()) => Ok(stream.response()),
        Err(mut failure) => {
            failure.times.first_token = stream.events.first().map(|event| event.at);
            failure.times.last_token = stream.events.last().map(|event| event.at);
            failure.events = stream.events;
            Err(failure)
        }
    }
}

struct Stream<'a> {
    client: &'a Client,
    call: &'a Call,
    max_tokens: u32,
    model: Option<&'a str>,
    exchange: Exchange<'a>,
    answer: Answer,
    events: Vec<EventTime>,
    /// Every event with tokens had their ids.
    all_ids: bool,
    on_event: &'a mut dyn FnMut(&Event<'_>),
}

impl Stream<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        let limit = self.client.endpoint.max_body;
        let mut framing = match self.call.ending {
            Ending::Body => Framing::Nul(Nul::new(limit)),
            Ending::Marker | Ending::Event => Framing::Sse(Sse::new(limit)),
        };
        let mut buffer = [0; 16 << 10];
        let mut frames = Vec::new();
        while !self.answer.complete {
            let count = match self.exchange.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                // The last bytes before a cut may say why.
                Err(failure) => return Err(self.last_words(framing, failure)),
            };
            let too_long = framing.push(&buffer[..count], &mut frames).err();
            let mut arrived = frames.drain(..);
            while let Some(frame) = arrived.next() {
                if let Frame::Raw(line) = frame {
                    return Err(self.raw(line, arrived.chain(framing.finish())));
                }
                self.take(frame)?;
                if self.answer.complete {
                    break;
                }
            }
            drop(arrived);
            if let Some(error) = too_long {
                return Err(self.exchange.failed(FailureKind::TooLarge, &error.to_string()));
            }
        }
        if !self.answer.complete {
            self.end_of_body(framing)?;
        }
        self.check_end()
    }

    /// Takes what no empty line closed. Only a whole event counts: half of one is a cut.
    fn end_of_body(&mut self, framing: Framing) -> Result<(), Failure> {
        let rest = framing.finish();
        match rest {
            Some(Frame::Data { text, event }) => {
                let whole = text == DONE || Json::parse(text.as_bytes()).is_ok();
                if !whole && self.call.ending != Ending::Body {
                    return Err(self.exchange.failed(FailureKind::Cut, &format!("within an event: {text}")));
                }
                self.take(Frame::Data { event, text })?;
            }
            Some(raw) => self.take(raw)?,
            None => {}
        }
        if self.call.ending == Ending::Body && self.answer.finish.is_some() {
            self.answer.complete = true;
        }
        if self.answer.complete {
            return Ok(());
        }
        let text = match (self.events.len(), &self.answer.finish) {
            (0, _) => "no event at all".to_owned(),
            (count, None) => format!("{count} events, no finish reason"),
            (count, Some(finish)) => format!("{count} events, finish reason `{}`", finish.word()),
        };
        Err(self.exchange.failed(FailureKind::NoEndMarker, &text))
    }

    /// Returns the failure of a broken stream, or the server's own text in its unfinished last line.
    fn last_words(&mut self, framing: Framing, failure: Failure) -> Failure {
        match framing.finish() {
            Some(raw @ Frame::Raw(_)) if failure.kind == FailureKind::Cut => {
                let Err(said) = self.take(raw) else { return failure };
                said
            }
            _ => failure,
        }
    }

    fn take(&mut self, frame: Frame) -> Result<(), Failure> {
        let (event, text) = match frame {
            Frame::Raw(line) => return Err(self.raw(line, None)),
            Frame::Data { event, text } => (event, text),
        };
        self.exchange.event_seen();
        self.exchange.times.end = Exchange::arrived();
        if self.call.ending == Ending::Marker && text.trim() == DONE {
            self.answer.complete = true;
            return Ok(());
        }
        let json = match self.client.transport.json(text.as_bytes()) {
            Ok(json) => json,
            // The old /generate writes its errors in place of an object.
            Err(_) if self.call.ending == Ending::Body => return Err(self.raw(text, None)),
            Err(e) => return Err(self.exchange.failed(FailureKind::NotJson, &format!("{e}: {text}"))),
        };
        if event.as_deref() == Some("error") {
            let text = json.error_text().unwrap_or(text);
            return Err(self.exchange.failed(FailureKind::ErrorEvent, &text));
        }
        let update = protocol::check(&json)
            .and_then(|()| (self.call.read)(&json, &mut self.answer))
            .map_err(|(kind, text)| self.exchange.failed(kind, &text))?;
        self.client.insist_on(self.model, self.answer.model.as_deref(), self.exchange.times)?;
        self.add(&update);
        Ok(())
    }

    fn add(&mut self, update: &Update) {
        self.answer.text.push_str(&update.text);
        if !update.is_token {
            return;
        }
        let time = EventTime {
            at: Exchange::arrived(),
            tokens: update.tokens,
            bytes: u32::try_from(update.text.len()).unwrap_or(u32::MAX),
        };
        self.all_ids &= !update.ids.is_empty();
        self.answer.ids.extend_from_slice(&update.ids);
        self.events.push(time);
        (self.on_event)(&Event { time, text: &update.text, ids: &update.ids });
    }

    /// Returns the failure for text that is no event: an error of the server if it is JSON that says so.
    fn raw(&mut self, line: String, more: impl IntoIterator<Item = Frame>) -> Failure {
        let mut text = line.into_bytes();
        for Frame::Data { text: line, .. } | Frame::Raw(line) in more {
            text.push(b'\n');
            text.extend_from_slice(line.as_bytes());
        }
        // The last line may have been cut by the wire. A break in it is harmless in a message.
        text.push(b'\n');
        self.exchange.append_rest(&mut text);
        let error = self.client.transport.json(&text).ok().and_then(|json| json.error_text());
        match error {
            Some(error) => self.exchange.failed(FailureKind::ErrorEvent, &error),
            None => self.exchange.failed(FailureKind::RawText, &String::from_utf8_lossy(&text)),
        }
    }

    fn check_end(&mut self) -> Result<(), Failure> {
        match &self.answer.finish {
            None => Err(self.exchange.failed(FailureKind::NoFinishReason, "")),
            Some(Finish::StopText) if self.call.no_stop_texts => Err(self.exchange.failed(
                FailureKind::ErrorEvent,
                "the finish reason is a stop text, but none was sent: MindIE reports internal errors so",
            )),
            Some(_) => match self.contradiction() {
                Some(text) => Err(self.exchange.failed(FailureKind::Contradiction, &text)),
                None => Ok(()),
            },
        }
    }

    /// Holds the server's count of generated tokens against its finish reason, its stream and the limit of the request.
    fn contradiction(&self) -> Option<String> {
        let (counted, most) = (self.answer.output_tokens?, self.max_tokens);
        let events = self.events.len();
        let known: u64 = self.events.iter().map(|event| u64::from(event.tokens.unwrap_or(0))).sum();
        // The end of the text may come in an event of its own, without a token.
        let received = known.max(events.saturating_sub(1) as u64);
        if received > u64::from(counted) || (counted == 0 && events > 0) {
            return Some(format!(
                "the server counts {counted} tokens, and {events} events brought {received} at least"
            ));
        }
        if counted > most.saturating_add(REST_OF_CHARACTER) {
            return Some(format!("the server counts {counted} tokens, and {most} were asked for at most"));
        }
        (self.answer.finish == Some(Finish::Length) && counted < most).then(|| {
            format!(
                "the finish reason is the token limit, and the server counts {counted} tokens of {most} asked for. It has a lower \
                 limit of its own, such as MindIE's maxIterTimes, or it counts wrong"
            )
        })
    }

    fn response(self) -> Response {
        let (mut times, answer) = (self.exchange.times, self.answer);
        times.first_token = self.events.first().map(|event| event.at);
        times.last_token = self.events.last().map(|event| event.at);
        self.exchange.finish();
        let count = u32::try_from(answer.ids.len()).ok();
        let counted = answer.output_tokens.is_none_or(|tokens| Some(tokens) == count);
        let said = answer.whole.unwrap_or(answer.text);
        let text = self.client.transport.hide(said.clone());
        // Ids would spell the key that the text hides.
        let whole = self.all_ids && counted && text == said;
        Response {
            text,
            ids: (whole && !answer.ids.is_empty()).then_some(answer.ids),
            finish: answer.finish.unwrap_or(Finish::Other("unstated".into())),
            prompt_tokens: answer.prompt_tokens,
            output_tokens: answer.output_tokens,
            times,
            events: self.events,
            top_logprobs: answer.top,
            server_times: answer.server,
            model: answer.model,
            attempts: Vec::new(),
        }
    }
}
