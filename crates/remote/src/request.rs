//! What is asked of a server.

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Text. The server tokenizes it and puts its special tokens in front (ChatGLM2: `[gMASK] sop`).
    Text(String),
    /// Token ids, used as they are: special tokens are the caller's.
    Ids(Vec<u32>),
    /// One message of a user. The server applies its chat template.
    Chat(String),
}

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sampling {
    /// 0 chooses the most probable token.
    pub temperature: f64,
    /// Nucleus: 1 or absent keeps all tokens.
    pub top_p: Option<f64>,
    /// The number of most probable tokens kept. Absent keeps all.
    pub top_k: Option<u32>,
    /// Seed of the generator on the server.
    pub seed: Option<u64>,
}

/// A request to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The prompt.
    pub prompt: Prompt,
    /// The most tokens to generate, at least 1.
    pub max_tokens: u32,
    /// Go on after the end token, until `max_tokens`. [`FailureKind::Unsupported`](crate::FailureKind::Unsupported) where
    /// the protocol has no such field.
    pub ignore_end: bool,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end the generation. Protocols limit their number to 4.
    pub stop: Vec<String>,
    /// The number of most probable tokens to return with every generated token. 0: none.
    pub top_logprobs: u32,
}

impl Generation {
    /// Returns a greedy request without stop texts and log-probabilities.
    pub fn greedy(prompt: Prompt, max_tokens: u32) -> Self {
        Self {
            prompt,
            max_tokens,
            ignore_end: false,
            sampling: Sampling::default(),
            stop: Vec::new(),
            top_logprobs: 0,
        }
    }
}

/// One token that may answer a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The token's id, if a tokenizer is at hand. Without it the choice is found by text.
    pub id: Option<u32>,
    /// The token's text as the server decodes it alone.
    pub text: String,
    /// Whether the token begins a word, so that a server may show its text with a space in front.
    pub begins_word: bool,
    /// Whether another token of the vocabulary has the same text but for that space. A server that strips the space shows
    /// both alike.
    pub has_twin: bool,
}
