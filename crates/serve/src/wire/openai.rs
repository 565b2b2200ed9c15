//! Requests of OpenAI's routes.

use super::fields::{Content, CountOrAll, Logprobs, Plain, Prompts, Seed, Texts};
use super::wire;

wire!(
    /// `stream_options`.
    StreamOptions {
        include_usage: bool,
        continuous_usage_stats: bool,
    }
);

wire!(
    /// A message of a chat.
    Message {
        role: String,
        content: Content,
        name: String,
        tool_calls: Plain,
    }
);

wire!(
    /// The body of `/v1/completions` and `/v1/chat/completions`. Each route refuses the fields of the other.
    Body {
        model: String,
        prompt: Prompts,
        messages: Vec<Message>,
        max_tokens: usize,
        max_completion_tokens: usize,
        min_tokens: usize,
        temperature: f32,
        top_p: f32,
        top_k: CountOrAll,
        repetition_penalty: f32,
        seed: Seed,
        stop: Texts,
        stop_token_ids: Vec<u32>,
        include_stop_str_in_output: bool,
        ignore_eos: bool,
        stream: bool,
        stream_options: StreamOptions,
        echo: bool,
        logprobs: Logprobs,
        top_logprobs: usize,
        prompt_logprobs: usize,
        logprob_token_ids: Vec<u32>,
        return_token_ids: bool,
        return_tokens_as_token_ids: bool,
        add_special_tokens: bool,
        // Known, and of no effect here.
        user: Plain,
        metadata: Plain,
        store: Plain,
        service_tier: Plain,
        request_id: Plain,
        priority: Plain,
        spaces_between_special_tokens: Plain,
        // Known, and refused unless they ask for nothing.
        n: Plain,
        best_of: Plain,
        suffix: Plain,
        presence_penalty: Plain,
        frequency_penalty: Plain,
        logit_bias: Plain,
        response_format: Plain,
        tools: Plain,
        tool_choice: Plain,
        parallel_tool_calls: Plain,
        functions: Plain,
        function_call: Plain,
        audio: Plain,
        modalities: Plain,
        prediction: Plain,
        reasoning_effort: Plain,
        min_p: Plain,
        typical_p: Plain,
        use_beam_search: Plain,
        length_penalty: Plain,
        skip_special_tokens: Plain,
        truncate_prompt_tokens: Plain,
        allowed_token_ids: Plain,
        bad_words: Plain,
        guided_json: Plain,
        guided_regex: Plain,
        guided_choice: Plain,
        guided_grammar: Plain,
        structured_outputs: Plain,
        chat_template: Plain,
        chat_template_kwargs: Plain,
        add_generation_prompt: Plain,
        continue_final_message: Plain,
        prompt_embeds: Plain,
    }
);
