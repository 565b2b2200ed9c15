//! Which alternatives the device chooses, refuses and records.

use glmbench_ascend::{AscendGroup, Chip};
use glmbench_device::{AttentionShape, Device};
use glmbench_engine::model::attention_shape;

use super::{answers, assert_gate, compare, engine, prompts, random, settings};
use crate::support::shared;

/// A wrong kernel with an accepting first stage is found at start, named, and avoided.
#[test]
fn a_wrong_kernel_is_gone_around() {
    let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 32 };
    for (chip, operator, capability, word) in [
        (Chip::Duo300i, "InplaceIndexCopy", "kv", "index-copy"),
        (Chip::Duo300i, "IncreFlashAttentionV4", "decode", "incre"),
        (Chip::Duo300i, "PromptFlashAttentionV3", "prefill", "prompt"),
        (Chip::A2800i, "ScatterPaKvCache", "kv", "scatter"),
        (Chip::A2800i, "FusedInferAttentionScoreV2", "prefill", "fused"),
    ] {
        let lines = format!("fault = broken:{operator}");
        let group = AscendGroup::new(settings(chip, heads, &lines, "")).unwrap();
        let details = group.rank(0).unwrap().info().details;
        let of = |name: &str| {
            details.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>()
        };
        assert_ne!(of(capability), [word], "{operator}");
        let refused = of(&format!("{capability} refused"));
        assert!(
            refused.iter().any(|why| why.contains(word) && why.contains("at start")),
            "{operator}: {details:?}"
        );
        // If there is no alternative, it is an error.
        let forced = format!("{capability}={word}");
        let forced = AscendGroup::new(settings(chip, heads, &lines, &forced)).unwrap().rank(0);
        let told = forced.err().unwrap().to_string();
        assert!(told.contains(&format!("no way to do {capability} is accepted: {word}: ")), "{told}");
    }
    let Some(dir) = shared("goldens/tiny-g2") else { return };
    for (chip, operator) in
        [(Chip::Duo300i, "IncreFlashAttentionV4"), (Chip::A2800i, "FusedInferAttentionScoreV2")]
    {
        let lines = format!("fault = broken:{operator}");
        assert_gate(&compare(&dir, chip, &lines, "", 100), &format!("{} without {operator}", chip.name()));
    }
}

#[test]
fn what_was_chosen_stands_in_the_record() {
    let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 32 };
    let told = |chip, lines: &str, forced: &str| {
        let group = AscendGroup::new(settings(chip, heads, lines, forced)).unwrap();
        let info = group.rank(0).unwrap().info();
        assert_eq!(info.name, format!("{} (emulated)", chip.name()));
        assert_eq!(info.modelled_by.unwrap().name, chip.name());
        info.details
    };
    let value = |details: &[(String, String)], name: &str| {
        details.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default()
    };
    let duo = told(Chip::Duo300i, "", "");
    assert_eq!(value(&duo, "chip"), "Ascend310P3");
    assert_eq!((value(&duo, "decode"), value(&duo, "prefill")), ("incre".into(), "prompt".into()));
    assert_eq!((value(&duo, "weights"), value(&duo, "bias")), ("nz-operator".into(), "folded".into()));
    assert_eq!(value(&duo, "bias refused"), "addmm: the weights are in fractals");
    assert!(value(&duo, "decode refused").contains("fused: "), "{duo:?}");
    assert!(value(&duo, "heads").contains("filled to 64"));
    let book = told(Chip::Duo300i, "strict = doc", "");
    assert_eq!((value(&book, "decode"), value(&book, "add")), ("prompt".into(), "add-rms-norm".into()));
    let a2 = told(Chip::A2800i, "", "");
    assert_eq!((value(&a2, "decode"), value(&a2, "kv")), ("fused".into(), "scatter".into()));
    assert_eq!((value(&a2, "weights"), value(&a2, "bias")), ("plain".into(), "addmm".into()));
    // What is refused, and what is used instead.
    for (chip, fault, name, word, reason) in [
        (Chip::Duo300i, "missing:aclnnMatmulWeightNzGetWorkspaceSize", "weights", "nz-mm", "nz-operator: "),
        (Chip::Duo300i, "refused:Mm", "weights", "nz-operator", ""),
        (Chip::A2800i, "refused:FusedInferAttentionScoreV2:TND", "decode", "incre-bnsd", "fused: "),
        (
            Chip::A2800i,
            "refused:FusedInferAttentionScoreV2:TND",
            "kv",
            "index-copy",
            "scatter: the cache's order",
        ),
        (Chip::A2800i, "refused:InplaceAdd:broadcast", "add", "add-repeated", "add: "),
        (Chip::Duo300i, "refused:PromptFlashAttentionV3:unbanded", "prefill", "prompt-square", "fused: "),
        (Chip::Duo300i, "refused:ApplyRotaryPosEmb:D64", "rotary", "apply", ""),
        (
            Chip::Duo300i,
            "refused:ApplyRotaryPosEmb:D64",
            "heads",
            "8 of 32 channels filled to 128",
            "64 channels: ",
        ),
    ] {
        let details = told(chip, &format!("fault = {fault}"), "");
        assert_eq!(value(&details, name), word, "{fault}: {details:?}");
        let refused = value(&details, &format!("{name} refused"));
        assert!(refused.contains(reason) && refused.is_empty() == reason.is_empty(), "{fault}: {details:?}");
    }
    let forced = told(Chip::A2800i, "", "decode=matmul,kv=memory");
    assert_eq!((value(&forced, "decode"), value(&forced, "kv")), ("matmul".into(), "memory".into()));
}

#[test]
fn a_forced_choice_that_the_chip_refuses_is_an_error() {
    let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 32 };
    let group = AscendGroup::new(settings(Chip::Duo300i, heads, "", "decode=fused")).unwrap();
    let told = group.rank(0).err().unwrap().to_string();
    assert!(told.contains("no way to do decode is accepted: fused: "), "{told}");
}

/// A missing symbol that only one alternative needs is not an error: another alternative is used.
#[test]
fn a_missing_operator_is_gone_around() {
    let (config, source) = random();
    for (chip, symbol) in [
        (Chip::A2800i, "aclnnFusedInferAttentionScoreV2GetWorkspaceSize"),
        (Chip::A2800i, "aclnnScatterPaKvCacheGetWorkspaceSize"),
        (Chip::A2800i, "aclrtCreateEventWithFlag"),
        (Chip::Duo300i, "aclnnIncreFlashAttentionV4GetWorkspaceSize"),
        (Chip::Duo300i, "aclnnApplyRotaryPosEmbGetWorkspaceSize"),
        (Chip::Duo300i, "aclnnMatmulWeightNzGetWorkspaceSize"),
        (Chip::Duo300i, "aclSetAclOpExecutorRepeatable"),
    ] {
        let of_lines = |lines: &str| {
            let group = AscendGroup::new(settings(chip, attention_shape(&config), lines, "")).unwrap();
            let mut engine = engine(&group, &config, &source, 64).unwrap();
            answers(&mut engine, &prompts(), 320)
        };
        let (whole, without) = (of_lines(""), of_lines(&format!("fault = missing:{symbol}")));
        for ((a, _), (b, _)) in whole.iter().zip(&without) {
            let kl: f64 = a.iter().zip(b).map(|(p, q)| f64::from(*p).exp() * f64::from(p - q)).sum();
            assert!(kl.abs() <= 1e-4, "without {symbol}: {kl}");
        }
    }
}
