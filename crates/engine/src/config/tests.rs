use proptest::prelude::*;

use super::*;
use crate::linear::LinearId;

const TINY: &str = r#"{"model_type":"chatglm","num_layers":2,"hidden_size":64,"ffn_hidden_size":160,
    "kv_channels":16,"num_attention_heads":4,"multi_query_attention":true,"multi_query_group_num":2,
    "padded_vocab_size":512,"seq_length":2048,"add_qkv_bias":true}"#;

fn parse(text: &str) -> Result<ModelConfig, ConfigError> {
    ModelConfig::from_json(text, Path::new("config.json"))
}

/// Parses the tiny model with extra keys.
fn with(keys: &str) -> Result<ModelConfig, String> {
    parse(&TINY.replacen('{', &format!("{{{keys},"), 1)).map_err(|error| error.to_string())
}

#[test]
fn the_6b_shape_has_its_published_number_of_parameters() {
    assert_eq!(ModelConfig::chatglm2_6b().parameters(), 6_243_584_032 - 32); // the file also holds inv_freq [32]
}

#[test]
fn a_shape_that_cannot_be_names_the_key() {
    for (from, to, key) in [
        ("\"multi_query_group_num\":2", "\"multi_query_group_num\":3", "multi_query_group_num"),
        ("\"kv_channels\":16", "\"kv_channels\":6", "kv_channels"),
        ("\"num_layers\":2", "\"num_layers\":0", "num_layers"),
        ("\"num_layers\":2", "\"num_layers\":null", "invalid type: null, expected usize at line 1"),
        ("\"chatglm\"", "\"llama\"", "model_type"),
        ("\"hidden_size\":64,", "", "hidden_size"),
        ("\"add_qkv_bias\":true", "\"rmsnorm\":false", "rmsnorm"),
        (
            "\"multi_query_attention\":true",
            "\"multi_query_attention\":false",
            "multi_query_attention is false",
        ),
        ("\"multi_query_attention\":true,", "", "multi_query_attention is false"),
    ] {
        let error = parse(&TINY.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    }
    assert!(parse(TINY).is_ok());
}

#[test]
fn a_null_is_as_good_as_no_key() {
    let nulls = [
        "_name_or_path",
        "kv_channels",
        "layernorm_epsilon",
        "rope_ratio",
        "rmsnorm",
        "post_layer_norm",
        "apply_residual_connection_post_layernorm",
        "add_bias_linear",
        "fp32_residual_connection",
        "pre_seq_len",
        "prefix_projection",
        "eos_token_id",
        "rope_theta",
        "rope_scaling",
        "quantization_config",
        "unheard_of",
    ];
    let text = TINY.replace("\"kv_channels\":16,", "");
    for key in nulls {
        assert_eq!(
            parse(&text.replacen('{', &format!("{{\"{key}\":null,"), 1)).unwrap(),
            parse(&text).unwrap(),
            "{key}"
        );
    }
}

#[test]
fn one_id_or_several_end_a_sequence() {
    let ids = |keys: &str| with(keys).map(|config| config.eos_token_ids);
    assert_eq!(parse(TINY).unwrap().eos_token_ids, [0; 0]);
    assert_eq!(ids(r#""eos_token_id":2"#).unwrap(), [2]);
    assert_eq!(ids(r#""eos_token_id":[2, 7]"#).unwrap(), [2, 7]);
    for wrong in ["\"2\"", "-1", "[2, \"x\"]", "2.5", "{}"] {
        let error = ids(&format!("\"eos_token_id\":{wrong}")).unwrap_err();
        assert!(error.contains("expected a token id or a list of token ids"), "{wrong}: {error}");
    }
}

#[test]
fn the_name_decides_what_rope_ratio_does_or_a_person() {
    let named = |name: &str| with(&format!(r#""_name_or_path":"{name}","rope_ratio":16"#));
    assert_eq!(parse(TINY).unwrap().rotary_scaling(), RotaryScaling::None);
    for name in ["THUDM/chatglm2-6b-32k", "/data/ChatGLM2-6B-32K"] {
        assert_eq!(named(name).unwrap().rotary_scaling(), RotaryScaling::Positions(16.0));
    }
    for name in ["THUDM/chatglm3-6b-32k", "THUDM/glm-4-9b"] {
        assert_eq!(named(name).unwrap().rotary_scaling(), RotaryScaling::Base(16.0));
    }
    // Dividing by 1 equals no scaling: ChatGLM2-6B either way.
    let one = with(r#""_name_or_path":"THUDM/chatglm2-6b","rope_ratio":1"#).unwrap();
    assert_eq!(one.rotary_scaling(), RotaryScaling::Positions(1.0));
    let nameless = TINY.replacen('{', r#"{"rope_ratio":16,"#, 1);
    let unnamed = parse(&nameless).unwrap_err().to_string();
    assert!(unnamed.contains("there is no _name_or_path"), "{unnamed}");
    for (name, error) in
        ["./output/my-32k-sft", "THUDM/chatglm2-6b"].map(|name| (name, named(name).unwrap_err()))
    {
        for says in [name, "rope_ratio is 16", "--rope-scaling positions", "--rope-scaling base"] {
            assert!(error.contains(says), "{error}");
        }
    }
    let said = |scaling| {
        let config = ModelConfig::from_json_as(&nameless, Path::new("config.json"), Some(scaling)).unwrap();
        config.rotary_scaling()
    };
    assert_eq!(said(RopeScaling::Positions), RotaryScaling::Positions(16.0));
    assert_eq!(said(RopeScaling::Base), RotaryScaling::Base(16.0));
    let path = Path::new("config.json");
    let nothing = ModelConfig::from_json_as(TINY, path, Some(RopeScaling::Base)).unwrap_err();
    assert!(nothing.to_string().contains("there is no rope_ratio"), "{nothing}");
    for scaling in [RopeScaling::Positions, RopeScaling::Base] {
        assert_eq!(scaling.name().parse(), Ok(scaling));
    }
    assert!("yarn".parse::<RopeScaling>().unwrap_err().contains("positions"));
}

#[test]
fn a_word_that_would_change_the_numbers_is_refused_with_its_value() {
    for (key, wrong, right) in [
        ("rope_theta", "500000.0", "10000.0"),
        ("rotary_emb_base", "1000000", "10000"),
        ("partial_rotary_factor", "1.0", "0.5"),
        ("rope_scaling", r#"{"type":"dynamic","factor":4.0}"#, r#"{"rope_type":"default"}"#),
        (
            "rope_parameters",
            r#"{"rope_theta":50000,"rope_type":"default"}"#,
            r#"{"rope_theta":10000.0,"rope_type":"default","partial_rotary_factor":0.5}"#,
        ),
        ("rope_parameters", r#"{"rope_type":"default","factor":2}"#, "{}"),
        ("hidden_act", "\"gelu\"", "\"silu\""),
        ("attention_bias", "false", "true"),
        ("num_hidden_layers", "28", "2"),
        ("num_key_value_heads", "4", "2"),
        ("intermediate_size", "161", "160"),
        ("head_dim", "32", "16"),
        ("rms_norm_eps", "1e-6", "1e-5"),
    ] {
        let error = with(&format!("\"{key}\":{wrong}")).unwrap_err();
        assert!(error.starts_with(&format!("config.json: {key} is ")), "{error}");
        assert!(error.contains("would change the model's numbers"), "{error}");
        let config = with(&format!("\"{key}\":{right}")).unwrap();
        assert_eq!(config, parse(TINY).unwrap(), "{key}");
    }
}

#[test]
fn words_of_quantisation_are_kept_for_the_weights() {
    for (keys, said) in [
        (r#""quantization_bit":4"#, Some("quantization_bit = 4")),
        (r#""quantization_bit":0"#, None),
        (r#""quantize":"w8a8""#, Some("quantize = \"w8a8\"")),
        (r#""quantize":"float""#, None),
        (r#""quantize":"""#, None),
        (
            r#""quantization_config":{"quant_method":"gptq"}"#,
            Some(r#"quantization_config = {"quant_method":"gptq"}"#),
        ),
        (r#""quantization_config":{}"#, None),
    ] {
        let config = with(keys).unwrap();
        let found = config.quantised.as_ref().map(|quantised| quantised.said.as_str());
        assert_eq!((found, config.unread.len()), (said, 0), "{keys}");
    }
}

#[test]
fn one_known_scheme_is_a_scheme_and_two_are_none() {
    for (keys, scheme, kv_c8, group) in [
        (r#""quantize":"w8a8""#, Some(Scheme::W8a8), false, None),
        (r#""quantize":"w8a8_dynamic""#, Some(Scheme::W8a8Dynamic), false, None),
        (r#""quantize":"w8a8sc""#, None, false, None),
        (r#""quantize":"int8""#, None, false, None),
        (r#""quantize":"w8a8","quantization_bit":8"#, None, false, None),
        (r#""quantization_bit":8"#, Some(Scheme::Int8), false, None),
        (r#""quantization_bit":4"#, Some(Scheme::Int4), false, None),
        (r#""quantization_bit":2"#, None, false, None),
        (
            r#""quantize":"w8a16","quantization_config":{"kv_quant_type":"C8","group_size":64}"#,
            Some(Scheme::W8a16),
            true,
            Some(64),
        ),
        (
            r#""quantize":"w4a16","quantization_config":{"group_size":128}"#,
            Some(Scheme::W4a16),
            false,
            Some(128),
        ),
        (r#""quantize":"w8a8","quantization_config":{"kv_quant_type":"C4"}"#, None, false, None),
        (r#""quantization_config":{"kv_quant_type":"C8"}"#, None, true, None),
    ] {
        let found = with(keys).unwrap().quantised.unwrap();
        assert_eq!((found.scheme, found.kv_c8, found.group), (scheme, kv_c8, group), "{keys}");
    }
}

/// The lists of ModelSlim's scripts for ChatGLM2-6B, counted by hand.
#[test]
fn the_default_lists_are_the_scripts() {
    assert_eq!(default_float(Scheme::W8a8, 28).len(), 13 + 5 + 2 + 1);
    assert_eq!(default_float(Scheme::W8a8s, 28).len(), 12 + 12 + 5 + 2 + 1);
    assert_eq!(default_float(Scheme::W8a8Dynamic, 28), default_float(Scheme::W8a8, 28));
    assert_eq!(default_float(Scheme::W8a16, 28).len(), 1);
    assert_eq!(default_float(Scheme::W8a8, 2).len(), 2 + 2 + 1 + 1);
    let last = LinearId { layer: Some(5), role: glmbench_device::Role::Down };
    assert!(default_float(Scheme::W8a8, 6).contains(&last));
}

#[test]
fn what_is_not_known_is_kept_and_what_has_no_effect_is_not() {
    let quiet = r#""transformers_version":"4.44.0","torch_dtype":"bfloat16","use_cache":false,"original_rope":true,
        "tie_word_embeddings":false,"apply_query_key_layer_scaling":false,"pad_token_id":[0],"architectures":["X"]"#;
    assert_eq!(with(quiet).unwrap(), parse(TINY).unwrap());
    let loud = with(r#""tie_word_embeddings":true,"mystery":[1, "x"]"#).unwrap().unread;
    let loud: Vec<_> = loud.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(loud, [("mystery", r#"[1,"x"]"#), ("tie_word_embeddings", "true")]);
    let long = with(&format!("\"mystery\":\"{}\"", "中".repeat(1000))).unwrap().unread;
    assert_eq!(long["mystery"].chars().count(), 121);
}

#[test]
fn the_list_of_words_without_effect_names_each_once_in_order() {
    assert!(words::WITHOUT_EFFECT.is_sorted_by(|a, b| a < b));
}

proptest! {
    /// Damaged files give an error or a config, never a panic.
    #[test]
    fn no_damage_makes_a_panic(at in 0usize..400, bytes in "[-0-9a-z\\[\\]{}\",:.中]{0,4}", key in 0usize..22, value in "null|-1|1e400|4|\"x\"|\\[\\]|\\[4294967296\\]|\\{\\}|true") {
        const KEYS: [&str; 22] = [
            "_name_or_path", "model_type", "kv_channels", "multi_query_group_num", "seq_length", "layernorm_epsilon",
            "rope_ratio", "rmsnorm", "pre_seq_len", "prefix_projection", "eos_token_id", "rope_theta", "rope_scaling",
            "rope_parameters", "partial_rotary_factor", "hidden_act", "attention_bias", "num_hidden_layers", "head_dim",
            "quantization_bit", "quantize", "unheard_of",
        ];
        let mut text = TINY.replacen('{', &format!("{{\"{}\":{value},", KEYS[key]), 1);
        drop(parse(&text));
        let at = (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.insert_str(at, &bytes);
        drop(parse(&text));
        text.truncate(at);
        drop(parse(&text));
    }
}
