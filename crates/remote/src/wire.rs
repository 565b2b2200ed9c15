//! How a well-behaved server answers in each wire format, for tests only.

/// The model id that the stub names.
pub const MODEL: &str = "stub";

/// What a well-behaved server of a protocol answers.
#[derive(Clone, Copy)]
pub(crate) struct Stub {
    /// Routes that generate, with their wire format.
    pub(crate) generates: &'static [(&'static str, &'static dyn Wire)],
    /// Other routes, with the JSON that they answer. `/health` and `/metrics` need no entry.
    pub(crate) states: &'static [(&'static str, &'static str)],
}

impl Stub {
    /// Returns the wire format of a route that generates.
    pub(crate) fn wire(self, route: &str) -> Option<&'static dyn Wire> {
        self.generates.iter().find(|(of, _)| *of == route).map(|(_, wire)| *wire)
    }

    pub(crate) fn routes(self) -> impl Iterator<Item = &'static str> {
        let generates = self.generates.iter().map(|(route, _)| *route);
        generates.chain(self.states.iter().map(|(route, _)| *route))
    }
}

/// The wire format of a route that generates.
pub(crate) trait Wire: Sync {
    /// Where the request has its prompt: a text or ids. A JSON pointer (RFC 6901).
    fn prompt(&self) -> &'static str;

    /// Where the request has the most tokens to generate. A JSON pointer.
    fn limit(&self) -> &'static str;

    /// Whether the answer is a stream if the request does not say it by `stream`.
    fn streams(&self) -> bool {
        false
    }

    /// Returns the event before the first token, if there is one.
    fn head(&self) -> Option<String> {
        None
    }

    /// Returns the event of `count` tokens from `from` on.
    fn event(&self, reply: &Reply, from: u32, count: u32) -> String;

    /// Returns what follows the last token: reason, counts, marker.
    fn tail(&self, reply: &Reply) -> Vec<String>;

    /// Returns an answer in one piece, with the candidates of a first token ([`Reply::candidates`]).
    fn whole(&self, reply: &Reply) -> String;
}

/// What an answer says, in any wire format.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply {
    pub(crate) prompt_tokens: usize,
    pub(crate) tokens: u32,
    /// The request's limit ends the answer, not the stub's own end.
    pub(crate) is_cut: bool,
}

impl Reply {
    /// Returns a protocol's word for why the answer ended: its word for the limit, or for the model's own end.
    pub(crate) fn reason(&self, limit: &'static str, end: &'static str) -> &'static str {
        if self.is_cut { limit } else { end }
    }

    /// Returns the text of some tokens.
    pub(crate) fn text(from: u32, count: u32) -> String {
        (from..from + count).map(|i| format!(" {i}")).collect()
    }

    /// Returns the ids of some tokens.
    pub(crate) fn ids(from: u32, count: u32) -> Vec<u32> {
        (from..from + count).map(|i| 100 + i).collect()
    }

    /// Returns OpenAI's `usage` after `done` tokens.
    pub(crate) fn usage(&self, done: u32) -> String {
        let prompt = self.prompt_tokens;
        let total = prompt + done as usize;
        format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{done},"total_tokens":{total}}}"#)
    }

    /// Returns the candidates of a first token, `A` to `E` at -1, -2, …, each as `show` writes text, id and
    /// log-probability.
    pub(crate) fn candidates(show: impl Fn(&str, u32, f64) -> String) -> String {
        let tops = [("A", 65, -1.0), ("B", 66, -2.0), ("C", 67, -3.0), ("D", 68, -4.0), ("E", 69, -5.0)];
        tops.map(|(token, id, value)| show(token, id, value)).join(",")
    }

    /// Returns the candidates as objects with all the names that protocols use.
    pub(crate) fn candidate_objects() -> String {
        Self::candidates(|token, id, value| {
            format!(r#"{{"token":"{token}","text":"{token}","id":{id},"logprob":{value}}}"#)
        })
    }
}

/// The list of models of OpenAI's servers.
pub(crate) const MODELS: (&str, &str) = (
    "/v1/models",
    r#"{"object":"list","data":[{"id":"stub","object":"model","root":"stub","max_model_len":2048}]}"#,
);
