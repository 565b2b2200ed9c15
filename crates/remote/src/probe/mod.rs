//! What a server is and what it really does, asked with a known prompt.

mod checks;
mod identity;

use crate::{Api, Client, Limits, RemoteError};

/// A prompt of known length, to check a server's counts against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPrompt {
    /// The text.
    pub text: String,
    /// Its ids with the special tokens that the model wants in front, if a tokenizer is at hand.
    pub ids: Option<Vec<u32>>,
}

impl Default for KnownPrompt {
    /// A text that any tokenizer knows, without ids.
    fn default() -> Self {
        Self { text: "The capital of France is".into(), ids: None }
    }
}

/// Whether a server has a capability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Asked, and the answer was right.
    Works,
    /// Asked, and refused or wrong.
    Fails,
    /// The protocol has no way to ask.
    Absent,
    /// Could not be asked, for the reason beside it.
    Unknown,
}

impl Standing {
    /// Returns the word of tables and records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Fails => "fails",
            Self::Absent => "absent",
            Self::Unknown => "unknown",
        }
    }
}

/// One capability.
#[derive(Debug, Clone, PartialEq)]
pub struct Capability {
    /// Whether the server has it.
    pub standing: Standing,
    /// A number that belongs to it: the depth of log-probabilities, events per token.
    pub value: Option<f64>,
    /// How that was established: what was asked and what came.
    pub evidence: String,
}

impl Capability {
    /// Tells whether the capability was shown to work.
    pub fn works(&self) -> bool {
        self.standing == Standing::Works
    }
}

/// What a server can do, each with its evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Capabilities {
    /// Log-probabilities of the prompt tokens, one a token.
    pub prompt_logprobs: Capability,
    /// Log-probabilities of candidates for a generated token. Value: how many at most were revealed when 20 were asked for.
    pub generated_logprobs: Capability,
    /// Candidates carry token ids.
    pub logprob_ids: Capability,
    /// Log-probabilities of exactly the ids that are named.
    pub chosen_logprobs: Capability,
    /// A prompt of token ids, used as it is.
    pub ids_in: Capability,
    /// Generated token ids.
    pub ids_out: Capability,
    /// Generation goes on after the end token.
    pub ignores_end: Capability,
    /// A stream with end marker and reason.
    pub streams: Capability,
    /// Events per token. Value: the ratio.
    pub events_per_token: Capability,
    /// The server's token counts. Value: its count of the known prompt less ours.
    pub usage: Capability,
    /// Times by the server's clock.
    pub server_times: Capability,
    /// `/metrics`. Value: samples.
    pub metrics: Capability,
    /// The same greedy request gives the same text twice.
    pub repeats: Capability,
}

impl Capabilities {
    /// Returns all capabilities with their names in tables and records.
    pub fn all(&self) -> [(&'static str, &Capability); 13] {
        [
            ("prompt_logprobs", &self.prompt_logprobs),
            ("generated_logprobs", &self.generated_logprobs),
            ("logprob_ids", &self.logprob_ids),
            ("chosen_logprobs", &self.chosen_logprobs),
            ("ids_in", &self.ids_in),
            ("ids_out", &self.ids_out),
            ("ignores_end", &self.ignores_end),
            ("streams", &self.streams),
            ("events_per_token", &self.events_per_token),
            ("usage", &self.usage),
            ("server_times", &self.server_times),
            ("metrics", &self.metrics),
            ("repeats", &self.repeats),
        ]
    }
}

/// A server, as it showed itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// The protocol that was spoken.
    pub api: Api,
    /// What the server calls itself, where it does.
    pub server: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Models that it lists.
    pub models: Vec<String>,
    /// Limits that it states.
    pub limits: Limits,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether a connection serves a second request. Where it does not, a kept one may be found closed too late.
    pub keeps_connections: bool,
    /// What a user should know, a sentence each.
    pub notes: Vec<String>,
}

impl Probe {
    /// Returns the capabilities that were shown to fail or that the protocol lacks, with their names.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, &Capability)> {
        let lacks = |standing| matches!(standing, Standing::Fails | Standing::Absent);
        self.capabilities.all().into_iter().filter(move |(_, capability)| lacks(capability.standing))
    }
}

impl Client {
    /// Asks what the server is, and checks each capability with a known prompt. About fifteen short requests.
    ///
    /// # Errors
    /// If the server cannot be reached, or does not generate at all.
    pub fn probe(&self, known: &KnownPrompt) -> Result<Probe, RemoteError> {
        let identity = identity::ask(self);
        let mut notes = identity.notes;
        let (capabilities, keeps_connections) = checks::all(self, known, &mut notes)?;
        Ok(Probe {
            api: self.endpoint.api,
            server: identity.server,
            version: identity.version,
            models: identity.models,
            limits: identity.limits,
            capabilities,
            keeps_connections,
            notes,
        })
    }
}
