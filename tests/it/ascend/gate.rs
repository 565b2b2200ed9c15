//! The logits on the emulator against the goldens of the original model code, by every alternative.

use std::path::Path;
use std::sync::Arc;

use glmbench_ascend::{AscendGroup, Chip, GroupSettings};
use glmbench_device::DType;
use glmbench_device::rotary::RotaryMode;
use glmbench_engine::Engine;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::{DeviceKind, LoadOptions, load};
use glmbench_engine::model::attention_shape;
use glmbench_engine::weights::StorageType;
use glmbench_engine::weights::dummy::Dummy;

use super::{CHIPS, assert_gate, capacity, compare, compare_in, config, engine, settings};
use crate::goldens::Seen;
use crate::support::{answer, loud, shared};

#[test]
fn the_goldens_fp16_gate_is_met_on_both_chips() {
    for name in ["tiny-g2", "prefix-g2"] {
        let Some(dir) = shared(&format!("goldens/{name}")) else { return };
        for chip in CHIPS {
            assert_gate(&compare(&dir, chip, "", "", 512), &format!("{name} {}", chip.name()));
        }
    }
}

/// The golden rounds where the CPU device does. That device keeps its largest KL of 1e-3 in bf16, too. The card's
/// operators round at other places, where that limit is too tight. KL grows with the square of the rounding effect, and
/// the unit of bf16 is eight times that of fp16. So the mean may be 64 times that of fp16, which must pass its gate;
/// twice that, since both are samples. This holds if both types round at the same places, so it uses the rotary
/// operator that goes through fp32 in both.
#[test]
fn on_the_a2_bf16_is_off_by_its_rounding_alone() {
    for name in ["tiny-g2", "prefix-g2"] {
        let Some(dir) = shared(&format!("goldens/{name}")) else { return };
        let config = config(&dir);
        let seen = |dtype, forced| {
            let fp16 = settings(Chip::A2800i, attention_shape(&config), "", forced);
            compare_in(&dir, &config, GroupSettings { dtype, ..fp16 }, 512)
        };
        let bf16 = seen(DType::Bf16, "rotary=each");
        let means = [seen(DType::Fp16, "rotary=each").mean_kl(), bf16.mean_kl()];
        eprintln!("{name} 800i-a2: mean KL {:.2e} in fp16, {:.2e} in bf16", means[0], means[1]);
        assert!(means[1] <= 2.0 * 64.0 * means[0], "{name}: {means:?}");
        for bf16 in [bf16, seen(DType::Bf16, "")] {
            assert!(bf16.max_kl() <= 4e-3, "{name}: {}", bf16.max_kl());
        }
    }
}

#[test]
fn a_type_that_the_chip_lacks_is_refused_before_anything_is_read() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().to_str().unwrap();
    for (device, dtype, expected) in
        [("300i-duo", "bf16", "expected fp16, the one type"), ("800i-a2", "fp32", "expected fp16 or bf16")]
    {
        let card = ["--model", "demo", "--device", device, "--dtype", dtype, "--emulate"];
        let said = [&*format!("{device}: dtype {dtype} was asked for"), expected];
        answer(&[&["run", "suites/quickstart.toml", "--out", out][..], &card].concat()).expect(5, &said);
        answer(&[&["chat", "--prompt", "a"][..], &card].concat()).expect(5, &said);
    }
    assert_eq!(std::fs::read_dir(out).unwrap().count(), 0);
}

/// Chunks of 24 tokens, so that every prefill alternative meets earlier context.
#[test]
fn every_alternative_meets_the_gate() {
    let Some(dir) = shared("goldens/prefix-g2") else { return };
    let both = [
        "decode=prompt,prefill=prompt,kv=index-copy",
        "decode=matmul,prefill=matmul,kv=copy",
        "decode=matmul,prefill=prompt,kv=memory",
        "decode=incre,prefill=matmul,kv=memory",
        "decode=incre,kv=copy,rotary=host",
        "prefill=prompt-square",
        "add=add-rms-norm,weights=nz",
        "add=add-repeated,weights=nz-mm,decode=matmul,prefill=matmul",
        "bias=added",
        "bias=folded,weights=plain",
        "weights=nz-operator,decode=incre,prefill=prompt",
        "weights=plain,reuse=anew",
    ];
    let a2 = [
        "decode=incre,prefill=fused,kv=scatter",
        "decode=incre-bnsd,prefill=prompt,kv=index-copy",
        "rotary=each,kv=index-copy",
        "decode=fused,prefill=matmul",
    ];
    let ways = CHIPS.iter().flat_map(|chip| both.iter().map(move |forced| (*chip, *forced)));
    for (chip, forced) in ways.chain(a2.map(|forced| (Chip::A2800i, forced))) {
        assert_gate(&compare(&dir, chip, "", forced, 24), &format!("{} {forced}", chip.name()));
    }
}

/// 4 KV groups of 16 channels, and weights large enough for attention to discriminate. The bias of queries, keys and
/// values is the rounding that costs most (`crates/device-ascend/NUMBERS.md`).
#[test]
fn a_bias_within_the_sums_keeps_the_gate_and_an_added_one_is_farther_off() {
    let text = r#"{"model_type":"chatglm","num_layers":3,"hidden_size":128,"ffn_hidden_size":344,"kv_channels":16,
        "num_attention_heads":8,"multi_query_attention":true,"multi_query_group_num":4,"padded_vocab_size":512,
        "seq_length":1024,"add_qkv_bias":true}"#;
    let config = ModelConfig::from_json(text, Path::new("config.json")).unwrap();
    let source = || loud(Dummy::new(config.clone(), StorageType::F32, 5), 7.5);
    let prompts: Vec<Vec<u32>> = [60usize, 200, 350]
        .iter()
        .map(|n| (0..*n as u32).map(|i| (i * 193 + *n as u32) % 509).collect())
        .collect();
    let logits = |engine: &mut Engine| {
        let mut rows = Vec::new();
        for prompt in &prompts {
            engine.teacher_force(prompt, &mut |_, logits| rows.push(logits.to_vec())).unwrap();
        }
        rows
    };
    let options = LoadOptions {
        rotary: RotaryMode::Model,
        threads: Some(2),
        ..LoadOptions::plain(DeviceKind::Cpu, DType::Fp16.into(), capacity(&config, 512))
    };
    let cpu = logits(&mut load(&config, Arc::new(source()), &options, &mut |_, _| {}).unwrap());
    let of_card = |forced: &str| {
        let group = AscendGroup::new(settings(Chip::Duo300i, attention_shape(&config), "", forced)).unwrap();
        logits(&mut engine(&group, &config, &source(), 512).unwrap())
    };
    let seen = |card: &[Vec<f32>]| {
        let mut seen = Seen::default();
        cpu.iter().zip(card).for_each(|(a, b)| seen.add(a, b));
        seen
    };
    let folded = of_card("");
    let (within, added) = (seen(&folded), seen(&of_card("bias=added")));
    assert_gate(&within, "a bias within the sums");
    eprintln!(
        "mean KL {:.2e} with the bias within the sums, {:.2e} added",
        within.mean_kl(),
        added.mean_kl()
    );
    assert!(within.mean_kl() < 0.75 * added.mean_kl());
    // A bias folded into the weight's column gives the same result as the operator with a bias.
    assert!(folded == of_card("weights=plain,bias=addmm"));
}

/// By the letter of the documentation, a 310P has no addition, no indexed copy and no grouped decode attention.
#[test]
fn the_letter_of_the_documentation_is_enough() {
    let Some(dir) = shared("goldens/tiny-g2") else { return };
    for chip in CHIPS {
        assert_gate(&compare(&dir, chip, "strict = doc", "", 100), &format!("{} by the book", chip.name()));
    }
}
