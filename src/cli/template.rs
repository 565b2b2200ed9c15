//! What `chat` puts around a question.

use clap::ValueEnum;

use glmbench_engine::tokenizer::Tokenizer;

/// What is put around a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Template {
    /// ChatGLM2's numbered rounds.
    Rounds,
    /// Nothing: the text is continued.
    Plain,
}

impl Template {
    /// Returns the default for the model's tokenizer.
    pub(super) fn by_files(tokenizer: &Tokenizer) -> Self {
        if tokenizer.prefix_ids().is_empty() { Self::Plain } else { Self::Rounds }
    }
}
