//! The routes of a protocol.

use std::str::FromStr;

use crate::RemoteError;

/// Which route generates, where a protocol has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Route {
    /// The protocol's best route: the most capabilities.
    #[default]
    Default,
    /// MindIE's `/infer` and `/infer_token`: prefill and decode times of the server, no `ignore_eos`.
    Infer,
    /// MindIE's `/generate` with `prompt`: the stream is JSON objects separated by NUL bytes. For versions before 2.0.
    Generate,
}

impl Route {
    /// Returns the word of the command line and of records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Infer => "infer",
            Self::Generate => "generate",
        }
    }
}

impl FromStr for Route {
    type Err = RemoteError;

    fn from_str(word: &str) -> Result<Self, RemoteError> {
        [Self::Default, Self::Infer, Self::Generate].into_iter().find(|r| r.word() == word).ok_or_else(|| {
            RemoteError::Option(format!("`{word}` is no route: expected default, infer or generate"))
        })
    }
}
