//! Requests of TGI's routes.

use super::fields::{CountOrAll, Plain, Seed, Texts};
use super::wire;

wire!(
    /// `parameters`.
    Parameters {
        do_sample: bool,
        temperature: f32,
        top_k: CountOrAll,
        top_p: f32,
        repetition_penalty: f32,
        seed: Seed,
        max_new_tokens: usize,
        return_full_text: bool,
        stop: Texts,
        details: bool,
        decoder_input_details: bool,
        top_n_tokens: usize,
        ignore_eos: bool,
        ignore_eos_token: bool,
        // Known, and refused unless they ask for nothing.
        best_of: Plain,
        frequency_penalty: Plain,
        typical_p: Plain,
        truncate: Plain,
        watermark: Plain,
        grammar: Plain,
        adapter_id: Plain,
    }
);

wire!(
    /// The body of `/`, `/generate` and `/generate_stream`.
    Body {
        inputs: String,
        parameters: Parameters,
        stream: bool,
    }
);
