//! The keys of a `config.json` other than the shape's.
//!
//! Keys that do not affect inference results are skipped, whatever their value. Keys that do, and that this engine
//! supports at one value only, are rejected at any other value. Keys that mark the weights as quantised are kept for
//! the code that opens the weights. All other keys are unread: they are kept with their values, so that records can
//! list them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::ModelConfig;
use super::quantised::{Quantised, Said};

/// The result of [`sort`].
#[derive(Debug, Default)]
pub(super) struct Words {
    /// What the keys say that mark the weights as quantised.
    pub(super) quantised: Option<Quantised>,
    /// Keys that this engine does not know, with their values as JSON.
    pub(super) unread: BTreeMap<String, String>,
}

/// Keys without effect: files, training, generation defaults (the suite sets its own), and how other programs compute
/// the same results.
pub(super) const WITHOUT_EFFECT: [&str; 76] = [
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "add_cross_attention",
    "apply_query_key_layer_scaling",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bias_dropout_fusion",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gmask_token_id",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "mask_token_id",
    "max_length",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "transformers_weights",
    "typical_p",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
    "use_flash_attention",
    "use_flash_attn",
    "use_return_dict",
    "world_size",
];

/// Keys without effect at this value. At any other value they are unread.
const USUAL: [(&str, bool); 3] =
    [("attention_softmax_in_fp32", true), ("original_rope", true), ("tie_word_embeddings", false)];

/// Keys that mark the weights as quantised.
const QUANTISED: [&str; 4] = ["quantization_bit", "quantize", "quantization_config", "quant_config"];

/// Sorts the keys that are not part of the shape. `config` holds the shape.
///
/// # Errors
/// A key would change the numbers. The message gives its value and the value that this engine supports.
pub(super) fn sort(others: Map<String, Value>, config: &ModelConfig) -> Result<Words, String> {
    let mut words = Words::default();
    let mut quantised = Said::default();
    for (key, value) in others {
        if value.is_null() || WITHOUT_EFFECT.contains(&key.as_str()) {
            continue;
        }
        if let Some((_, usual)) = USUAL.iter().find(|(usual, _)| *usual == key)
            && value == Value::Bool(*usual)
        {
            continue;
        }
        if QUANTISED.contains(&key.as_str()) {
            if !says_float(&value) {
                quantised.add(&key, &value, &short(&value));
            }
            continue;
        }
        match expected(&key, &value, config) {
            Some(Ok(())) => {}
            Some(Err(expected)) => {
                return Err(format!(
                    "{key} is {}, which would change the model's numbers; this engine has {expected} only",
                    short(&value)
                ));
            }
            None => {
                words.unread.insert(key, short(&value));
            }
        }
    }
    words.quantised = quantised.quantised();
    Ok(words)
}

/// Whether the value of a quantisation key means "not quantised".
fn says_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Bool(word) => !word,
        Value::String(word) => matches!(word.to_ascii_lowercase().as_str(), "" | "none" | "float"),
        Value::Object(keys) => keys.is_empty(),
        _ => false,
    }
}

/// Compares a key's value with the only one that this engine supports. The error is that value; `None` means an unknown
/// key.
fn expected(key: &str, value: &Value, config: &ModelConfig) -> Option<Result<(), String>> {
    let same = |number: f64| value.as_f64().is_some_and(|found| (found / number - 1.0).abs() < 1e-6);
    let number = |number: f64, words: String| Some(if same(number) { Ok(()) } else { Err(words) });
    let of_shape = |key: &str, n: usize| number(n as f64, format!("{n}, which is its {key},"));
    match key {
        "rope_theta" | "rotary_emb_base" => number(10000.0, "the base 10000, times rope_ratio,".into()),
        "partial_rotary_factor" | "rotary_percent" | "rotary_pct" => {
            number(0.5, "0.5 (half of a head's channels rotate)".into())
        }
        "rope_scaling" | "rope_parameters" => Some(rope_words(value, config)),
        "hidden_act" | "hidden_activation" | "activation_func" | "activation_function" => {
            Some(match value.as_str() {
                Some("silu" | "swiglu" | "swish") => Ok(()),
                _ => Err("\"swiglu\"".into()),
            })
        }
        "attention_bias" => Some(match value.as_bool() {
            Some(bias) if bias == config.qkv_bias => Ok(()),
            _ => Err(format!("{}, which is its add_qkv_bias,", config.qkv_bias)),
        }),
        "num_hidden_layers" => of_shape("num_layers", config.num_layers),
        "num_key_value_heads" => of_shape("multi_query_group_num", config.num_kv_heads),
        "intermediate_size" => of_shape("ffn_hidden_size", config.ffn_hidden_size),
        "head_dim" => of_shape("kv_channels", config.kv_channels),
        "rms_norm_eps" => {
            let epsilon = f64::from(config.layernorm_epsilon);
            number(epsilon, format!("{epsilon:e}, which is its layernorm_epsilon,"))
        }
        _ => None,
    }
}

/// Checks the table in which newer libraries write the rotary keys. It may hold default values only.
fn rope_words(value: &Value, config: &ModelConfig) -> Result<(), String> {
    let refused = || Err("no such scaling (rope_ratio)".to_owned());
    let Some(keys) = value.as_object() else { return refused() };
    let fine = |(key, value): (&String, &Value)| match key.as_str() {
        "rope_type" | "type" => matches!(value.as_str(), Some("default")),
        key => matches!(expected(key, value, config), Some(Ok(()))),
    };
    if keys.iter().filter(|(_, value)| !value.is_null()).all(fine) { Ok(()) } else { refused() }
}

/// Returns a value as JSON, cut to the length of a message line.
fn short(value: &Value) -> String {
    const KEPT: usize = 120;
    let text = value.to_string();
    match text.char_indices().nth(KEPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
