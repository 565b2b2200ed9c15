//! The client.

use crate::{
    Choice, ChoiceLogprobs, Endpoint, Event, Failure, FailureKind, Generation, Prompt, PromptLogprobs,
    RemoteError, Response,
};

/// A client of one endpoint. Share it by reference: every call blocks its thread.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
}

impl Client {
    /// Reads certificates and prepares connections. Nothing is sent.
    ///
    /// # Errors
    /// If a certificate or key cannot be read, or this CPU lacks what encryption needs.
    pub fn new(endpoint: Endpoint) -> Result<Self, RemoteError> {
        Ok(Self { endpoint })
    }

    /// Returns the endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the model id that requests name, and asks the server for it the first time. `None`: the protocol names none.
    ///
    /// # Errors
    /// If the server lists no model or several, and the endpoint chooses none.
    pub fn model(&self) -> Result<Option<String>, RemoteError> {
        Ok(self.endpoint.model.clone())
    }

    /// Generates, and reports every event with tokens as it arrives.
    ///
    /// # Errors
    /// Everything but a complete answer with end marker and reason is a [`Failure`].
    pub fn generate(
        &self,
        generation: &Generation,
        on_event: &mut dyn FnMut(&Event<'_>),
    ) -> Result<Response, Failure> {
        let _ = (generation, on_event);
        Err(self.absent())
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
        let _ = (prompt, choices);
        Err(self.absent())
    }

    /// Returns the log-probabilities of the prompt's own tokens.
    ///
    /// # Errors
    /// [`FailureKind::Unsupported`] for protocols without them, [`FailureKind::NotRevealed`] if there is not one for every
    /// prompt token.
    pub fn prompt_logprobs(&self, prompt: &Prompt) -> Result<PromptLogprobs, Failure> {
        let _ = prompt;
        Err(self.absent())
    }

    /// Reads `/metrics`: names with their labels as the server writes them, and values.
    pub fn metrics(&self) -> Result<Vec<(String, f64)>, Failure> {
        Err(self.absent())
    }

    #[allow(clippy::unused_self, reason = "removed with the next commit")]
    fn absent(&self) -> Failure {
        let now = std::time::Instant::now();
        Failure {
            kind: FailureKind::Unsupported,
            text: "not there yet".into(),
            times: crate::response::Times::new(now),
            events: Vec::new(),
            retry_after: None,
            attempts: Vec::new(),
        }
    }
}
