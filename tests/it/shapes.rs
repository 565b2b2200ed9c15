//! The CPU engine matches the reference device for any shape of the model family, not only ChatGLM2-6B's.

use std::path::Path;
use std::sync::Arc;

use glmbench::stats::parity::kl_divergence;
use glmbench_device::DType;
use glmbench_device::rotary::RotaryMode;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::{DeviceKind, LoadOptions, load};
use glmbench_engine::model::Capacity;
use glmbench_engine::weights::StorageType;
use glmbench_engine::weights::dummy::Dummy;

use crate::support::loud;

/// Keys of `config.json` that differ from [`config`].
struct Shape {
    name: &'static str,
    keys: &'static [(&'static str, &'static str)],
    prompt: usize,
}

const SHAPES: [Shape; 11] = [
    Shape { name: "one KV head", keys: &[("multi_query_group_num", "1")], prompt: 150 },
    Shape { name: "a KV head each", keys: &[("multi_query_group_num", "4")], prompt: 150 },
    Shape { name: "20 channels", keys: &[("kv_channels", "20")], prompt: 150 },
    Shape { name: "128 channels", keys: &[("kv_channels", "128")], prompt: 40 },
    Shape {
        name: "odd widths",
        keys: &[("hidden_size", "33"), ("ffn_hidden_size", "47"), ("padded_vocab_size", "101")],
        prompt: 150,
    },
    Shape { name: "no bias", keys: &[("add_qkv_bias", "false")], prompt: 150 },
    Shape {
        name: "scaled base",
        keys: &[("rope_ratio", "50"), ("_name_or_path", "\"chatglm3-6b-32k\"")],
        prompt: 150,
    },
    Shape {
        name: "scaled positions",
        keys: &[("rope_ratio", "16"), ("_name_or_path", "\"chatglm2-6b-32k\"")],
        prompt: 150,
    },
    Shape { name: "prefix of more than a block", keys: &[("pre_seq_len", "200")], prompt: 150 },
    Shape {
        name: "projected prefix",
        keys: &[("pre_seq_len", "13"), ("prefix_projection", "true")],
        prompt: 150,
    },
    Shape {
        name: "4096 positions",
        keys: &[("num_layers", "1"), ("num_attention_heads", "2"), ("kv_channels", "8")],
        prompt: 4096,
    },
];

fn config(shape: &Shape) -> ModelConfig {
    let mut keys: serde_json::Value = serde_json::from_str(
        r#"{"model_type":"chatglm","num_layers":2,"hidden_size":48,"ffn_hidden_size":64,"kv_channels":16,
        "num_attention_heads":4,"multi_query_attention":true,"multi_query_group_num":2,
        "padded_vocab_size":96,"seq_length":4096,"add_qkv_bias":true}"#,
    )
    .unwrap();
    for (key, value) in shape.keys {
        keys[*key] = serde_json::from_str(value).unwrap();
    }
    ModelConfig::from_json(&keys.to_string(), Path::new("config.json")).unwrap()
}

/// Returns the logits at every position of a prompt with the length of the shape.
fn logits(shape: &Shape, device: DeviceKind, dtype: DType) -> Vec<Vec<f32>> {
    let config = config(shape);
    let capacity = Capacity { max_logit_rows: 256, ..Capacity::for_batch(&config, 1, shape.prompt) };
    // The exact table: the fp32 reference would not share the rounding of the other types.
    let options = LoadOptions {
        rotary: RotaryMode::Exact,
        threads: Some(2),
        ..LoadOptions::plain(device, dtype.into(), capacity)
    };
    let source = loud(Dummy::new(config.clone(), StorageType::F32, 5), 10.0);
    let mut engine = load(&config, Arc::new(source), &options, &mut |_, _| {}).unwrap();
    let vocab = config.padded_vocab_size as u32;
    let prompt: Vec<u32> = (0..shape.prompt as u32).map(|i| (i * i + 7 * i + 3) % vocab).collect();
    let mut rows = Vec::with_capacity(shape.prompt);
    engine.teacher_force(&prompt, &mut |_, row| rows.push(row.to_vec())).unwrap();
    rows
}

#[test]
fn every_shape_agrees_with_the_oracle() {
    for shape in &SHAPES {
        let oracle = logits(shape, DeviceKind::Reference, DType::Fp32);
        for (dtype, max_abs, max_kl) in
            [(DType::Fp32, 1e-4, 1e-9), (DType::Fp16, 0.05, 5e-4), (DType::Bf16, 0.4, 2e-2)]
        {
            let ours = logits(shape, DeviceKind::Cpu, dtype);
            assert_eq!(ours.len(), shape.prompt, "{}", shape.name);
            let (mut abs, mut kl) = (0.0f32, 0.0f64);
            for (a, b) in oracle.iter().zip(&ours) {
                abs = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(abs, f32::max);
                kl = kl.max(kl_divergence(a, b));
            }
            println!("{}, {dtype}: max |d| {abs:.2e}, max KL {kl:.2e}", shape.name);
            assert!(abs <= max_abs && kl <= max_kl, "{}, {dtype}: {abs:.2e} {kl:.2e}", shape.name);
        }
    }
}
