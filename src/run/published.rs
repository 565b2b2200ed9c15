//! Whether a run's score is comparable with a published one.

use glmbench_device::{KvForm, Precision};

use glmbench_engine::config::ModelConfig;

use crate::record::PublishedScore;
use crate::suite;
use crate::task;

/// Returns the published result of a case for a run in this precision, with the first reason why the two are not
/// comparable.
/// Returns `None` if there is no published result for the type.
pub(super) fn published(
    case: &suite::AccuracyCase,
    plan: &task::Plan,
    items: usize,
    config: &ModelConfig,
    precision: Precision,
) -> Option<PublishedScore> {
    let expected = case.expected_for(precision)?;
    let of = [expected.model.as_deref(), expected.dtype.map(Precision::type_name)];
    let of: Vec<&str> = of.into_iter().flatten().collect();
    let definition = plan.protocol.definition();
    let other_model = || {
        let named = expected.model.as_deref()?;
        (!has_shape(config, named)).then(|| format!("this model has not the shape of {named}"))
    };
    let other_cache = || {
        let plain = expected.dtype.is_none() || precision.kv == KvForm::Auto;
        (!plain).then(|| format!("this run is in {precision}"))
    };
    let other_items = || {
        let there = plan.dataset.items.len();
        let limited = if items < there { format!(" of {there}") } else { String::new() };
        (items != expected.items)
            .then(|| format!("items of this run: {items}{limited}, not {}", expected.items))
    };
    let other_limits = || {
        let same = plan.shots == definition.shots && plan.max_new_tokens == definition.max_new_tokens;
        (!same).then(|| {
            format!("this run has {} shots and up to {} new tokens", plan.shots, plan.max_new_tokens)
        })
    };
    Some(PublishedScore {
        of: of.join(" in "),
        correct: expected.correct as u64,
        items: expected.items as u64,
        source: expected.source.clone(),
        unlike: other_model().or_else(other_cache).or_else(other_items).or_else(other_limits),
    })
}

/// Whether a model has the shape and positions of a published one. Weights carry no names, so a tuned model of the same
/// shape is compared with the published score as well.
fn has_shape(config: &ModelConfig, model: &str) -> bool {
    let of = |c: &ModelConfig| {
        (
            (c.num_layers, c.hidden_size, c.ffn_hidden_size, c.padded_vocab_size),
            (c.num_attention_heads, c.num_kv_heads, c.kv_channels, c.pre_seq_len),
        )
    };
    let stretched = config.rope_ratio.is_some_and(|ratio| ratio != 1.0);
    model == "chatglm2-6b" && !stretched && of(config) == of(&ModelConfig::chatglm2_6b())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;
    use glmbench_device::DType;
    use std::fs;
    use std::path::Path;

    /// One item under the published protocol; the published scores are 719 of `items` in fp16 and 721 in bf16.
    fn case(items: usize) -> (tempfile::TempDir, suite::AccuracyCase, task::Plan) {
        let folder = tempfile::tempdir().unwrap();
        let val = folder.path().join("val");
        fs::create_dir(&val).unwrap();
        fs::write(val.join("law_val.csv"), "id,question,A,B,C,D,answer\n0,q,a,b,c,d,A\n").unwrap();
        let mapping = r#"{"law": ["Law", "法学", "Humanities"]}"#;
        fs::write(folder.path().join("subject_mapping.json"), mapping).unwrap();
        let text = format!(
            "schema = 1\nname = \"p\"\n[[accuracy]]\ntask = \"ceval\"\nprotocol = \"two-stage\"\ndataset = {:?}\n\
             [[accuracy.expected]]\nmodel = \"chatglm2-6b\"\ndtype = \"fp16\"\ncorrect = 1\nitems = {items}\nsource = \"s\"\n\
             [[accuracy.expected]]\ndtype = \"bf16\"\ncorrect = 0\nitems = {items}\nsource = \"s\"\n",
            folder.path()
        );
        let suite = Suite::parse(Path::new("p.toml"), &text, &[]).unwrap();
        let case = suite.accuracy[0].clone();
        let source = crate::dataset::Source::open(case.task, &case.dataset).unwrap();
        let protocol = task::find(case.task, case.protocol).unwrap();
        let plan = task::Plan::new(protocol, &source, &case.settings()).unwrap();
        (folder, case, plan)
    }

    #[test]
    fn a_score_is_held_against_that_of_its_model_and_type_alone() {
        let (_folder, case, plan) = case(1);
        let whole = ModelConfig::chatglm2_6b();
        let of = |config: &ModelConfig, precision: Precision| published(&case, &plan, 1, config, precision);
        let found = of(&whole, DType::Fp16.into()).unwrap();
        assert_eq!((found.of.as_str(), found.correct, found.unlike), ("chatglm2-6b in fp16", 1, None));
        let found = of(&whole, DType::Bf16.into()).unwrap();
        assert_eq!((found.of.as_str(), found.correct, found.unlike), ("bf16", 0, None));
        assert_eq!(of(&whole, DType::Fp32.into()), None);
        assert_eq!(of(&whole, Precision::W8A8_DYNAMIC), None);
        let unlike = |config: &ModelConfig, precision| of(config, precision).unwrap().unlike.unwrap();
        let small = ModelConfig { num_layers: 2, ..whole.clone() };
        assert_eq!(unlike(&small, DType::Fp16.into()), "this model has not the shape of chatglm2-6b");
        let int8 = Precision { kv: KvForm::Int8, ..DType::Fp16.into() };
        assert_eq!(unlike(&whole, int8), "this run is in fp16+kv-int8");
    }

    #[test]
    fn a_score_over_other_items_or_limits_is_not_of_the_same_thing() {
        let (_folder, mut case, plan) = case(2);
        let whole = ModelConfig::chatglm2_6b();
        let unlike = |case: &suite::AccuracyCase, plan: &task::Plan, items| {
            published(case, plan, items, &whole, DType::Fp16.into()).unwrap().unlike
        };
        assert_eq!(unlike(&case, &plan, 1).unwrap(), "items of this run: 1, not 2");
        assert_eq!(unlike(&case, &plan, 2), None);
        case.max_new_tokens = Some(7);
        let source = crate::dataset::Source::open(case.task, &case.dataset).unwrap();
        let plan = task::Plan::new(plan.protocol, &source, &case.settings()).unwrap();
        assert_eq!(unlike(&case, &plan, 2).unwrap(), "this run has 0 shots and up to 7 new tokens");
    }
}
