//! Requests to the tokenizer routes.

use super::fields::Plain;
use super::openai::Message;
use super::wire;

wire!(
    /// The body of `/tokenize`: vLLM's `prompt` or `messages`, or TGI's `inputs`.
    Tokenize {
        model: String,
        prompt: String,
        messages: Vec<Message>,
        inputs: String,
        add_special_tokens: bool,
        return_token_strs: bool,
        add_generation_prompt: Plain,
        parameters: Plain,
    }
);

wire!(
    /// The body of `/detokenize`.
    Detokenize {
        model: String,
        tokens: Vec<u32>,
    }
);
