//! Timed operators: what they count, that timing changes no result, and where a run records them.

use std::path::Path;
use std::sync::Arc;

use glmbench::bench::{CaseCost, OrdinaryTokens, Repetition, Shape, case_cost, prompts, repeat};
use glmbench_device::DType;
use glmbench_device::rotary::RotaryMode;
use glmbench_engine::StepKind;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::{DeviceKind, LoadOptions, load};
use glmbench_engine::model::Capacity;
use glmbench_engine::profile::{OperatorTime, REST};
use glmbench_engine::weights::StorageType;
use glmbench_engine::weights::dummy::Dummy;
use serde_json::Value;

use crate::support::answer;

const CONFIG: &str = r#"{"model_type":"chatglm","num_layers":3,"hidden_size":48,"ffn_hidden_size":64,"kv_channels":16,
    "num_attention_heads":4,"multi_query_attention":true,"multi_query_group_num":2,"padded_vocab_size":96,
    "seq_length":4096,"add_qkv_bias":true}"#;

fn config() -> ModelConfig {
    ModelConfig::from_json(CONFIG, Path::new("config.json")).unwrap()
}

/// Runs a repetition on `tp` ranks. Returns it with its operators' counts.
fn repetition(shape: Shape, tp: usize, profile_operators: bool) -> (Repetition, Vec<OperatorTime>) {
    let config = config();
    let options = LoadOptions {
        rotary: RotaryMode::Model,
        threads: Some(2),
        tp,
        profile_operators,
        ..LoadOptions::plain(
            DeviceKind::Cpu,
            DType::Fp16.into(),
            Capacity::for_batch(&config, shape.batch, shape.sequence_tokens()),
        )
    };
    let source = Dummy::new(config.clone(), StorageType::F16, 5);
    let mut engine = load(&config, Arc::new(source), &options, &mut |_, _| {}).unwrap();
    let prompts = prompts(shape, &OrdinaryTokens::of_vocabulary(config.padded_vocab_size), 1);
    let repetition = repeat(&mut engine, shape, &prompts).unwrap();
    let times = engine.take_profile();
    assert!(engine.take_profile().is_empty(), "what was taken is gone");
    (repetition, times)
}

/// The operators' counts sum to what the roofline counts for the whole phase.
#[test]
fn operators_add_up_to_the_work_of_their_phase() {
    for shape in [
        Shape { batch: 1, input_tokens: 17, output_tokens: 5 },
        Shape { batch: 3, input_tokens: 150, output_tokens: 4 },
    ] {
        let (_, times) = repetition(shape, 1, true);
        let sums = |kind: StepKind| {
            let of = times.iter().filter(|time| time.kind == kind && time.operator != "embed");
            of.fold((0, 0), |(bytes, flops), t| (bytes + t.totals.bytes, flops + t.totals.flops))
        };
        let CaseCost { prefill, decode } = case_cost(&config(), DType::Fp16.into(), 512, shape);
        assert_eq!(sums(StepKind::Prefill), (prefill.bytes, prefill.flops), "{shape:?}");
        assert_eq!(sums(StepKind::Decode), (decode.bytes, decode.flops), "{shape:?}");
        let calls = |kind, operator| {
            let mut of = times.iter().filter(|time| time.kind == kind && time.operator == operator);
            of.next().map(|time| time.totals.calls)
        };
        let steps = shape.output_tokens as u64 - 1;
        for operator in ["qkv", "rotary", "write_kv", "attention", "o_proj", "gate_up", "down"] {
            assert_eq!(calls(StepKind::Prefill, operator), Some(3), "{operator}");
            assert_eq!(calls(StepKind::Decode, operator), Some(3 * steps), "{operator}");
        }
        for operator in ["embed", "lm_head", "download", REST] {
            assert_eq!(calls(StepKind::Decode, operator), Some(steps), "{operator}");
        }
        // Rows with logits, of the residual stream and of the queries. In a decode step, all rows have logits.
        assert_eq!(calls(StepKind::Prefill, "gather"), Some(2));
        assert_eq!(calls(StepKind::Decode, "gather"), None);
    }
}

#[test]
fn timing_changes_no_answer_and_its_absence_leaves_nothing() {
    let shape = Shape { batch: 2, input_tokens: 20, output_tokens: 6 };
    for tp in [1, 2] {
        let (plain, nothing) = repetition(shape, tp, false);
        let (timed, times) = repetition(shape, tp, true);
        assert_eq!(plain.output_hash, timed.output_hash);
        assert!(nothing.is_empty());
        let inside: u64 = times.iter().map(|time| time.totals.time_ns).sum();
        assert!(inside > 0 && inside <= timed.end_ns - timed.start_ns, "{inside} {timed:?}");
    }
}

const SUITE: &str = r#"schema = 1
name = "limits"
[model]
path = "MODEL"
[[performance]]
batch = [1, 2]
lengths = [[8, 4]]
repetitions = 2
max_warmups = 1
[[performance]]
batch = [2]
lengths = [[4000, 90]]
repetitions = 1000
budget_s = 1
[[target]]
figure = "decode-bandwidth"
case = "b1-i8-o4"
at_least = 0.5
[[target]]
figure = "decode-speedup"
case = "b2-i8-o4"
over = "b1-i8-o4"
at_least = 0.001
[[target]]
figure = "attention-bandwidth"
case = "b2-i4000-o90"
at_least = 0.85
[[target]]
figure = "prefill-peak"
case = "b2-i8-o4"
unit = "amx-fp4"
at_least = 0.5
[[target]]
figure = "prefill-peak"
case = "b2-i8-o4"
dtype = "bf16"
at_least = 0.5
[[target]]
figure = "load-memory"
at_most = 1.5
"#;

#[test]
fn a_run_holds_itself_against_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // Wide enough that a thousand repetitions exceed the budget on any machine.
    let wide = CONFIG.replace("\"ffn_hidden_size\":64", "\"ffn_hidden_size\":65536");
    std::fs::write(path("config.json"), wide).unwrap();
    let model = format!("dummy:{}", path("config.json"));
    std::fs::write(path("s.toml"), SUITE.replace("MODEL", &model)).unwrap();
    let run =
        answer(&["run", &path("s.toml"), "--out", &path("runs"), "--profile-operators", "--threads", "1"]);
    let run = run.expect(0, &[]);
    assert!(run.out.contains("Against the machine's limits, measured"), "{}", run.out);
    assert!(run.out.contains("Operators, measured"), "{}", run.out);
    let dir = std::fs::read_dir(path("runs")).unwrap().next().unwrap().unwrap().path();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let record: Value = serde_json::from_str(&read("run.json")).unwrap();
    let limits = &record["provenance"]["roofline"]["limits"];
    assert!(limits["bandwidth"]["median"].as_f64().unwrap() > 0.0 && limits["threads"] == 1, "{limits}");
    assert!(limits["method"].as_str().unwrap().contains("median of"), "{limits}");
    assert!(record["provenance"]["load"]["load_ns"].as_u64().unwrap() > 0);
    assert_eq!(record["plan"]["targets"].as_array().unwrap().len(), 5, "one is of another type");
    let mut reader = csv::Reader::from_reader(read("limits.csv").leak().as_bytes());
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let (value, limit, met, note) = (4, 5, 13, 14);
    let ratios = decode_ratios(&read("requests.jsonl"), &record["plan"]["performance"][0]);
    let ratio = |at: usize| rows[0][at].parse::<f64>().unwrap();
    let near = |a: f64, b: f64| (a - b).abs() < 1e-9 * b;
    let [[first, beside_first @ ..], [second, beside_second @ ..]] = ratios;
    assert!(near(ratio(8), f64::midpoint(first, second)), "{rows:?} {ratios:?}");
    let mut beside = [beside_first, beside_second].concat();
    beside.sort_by(f64::total_cmp);
    assert!(near(ratio(9), beside[0]) && near(ratio(10), beside[3]), "{rows:?} {ratios:?}");
    let expected = match beside.iter().filter(|ratio| **ratio >= 0.5).count() {
        4 => "true",
        0 => "false",
        _ => "",
    };
    assert!(&rows[0][met] == expected && rows[1][met] == *"true", "{rows:?}");
    assert!(rows[1][9].is_empty() && !rows[1][limit].is_empty(), "{rows:?}");
    assert!(rows[2][note].starts_with("over budget: ") && rows[2][met].is_empty(), "{rows:?}");
    assert_eq!(&rows[3][note], "not applicable: this machine has no amx-fp4");
    assert!(!rows[4][value].is_empty(), "{rows:?}");
    let operators = read("operators.csv");
    assert!(
        operators.lines().any(|line| line.contains(",b2-i8-o4,measured,decode,gate_up,2,9,")),
        "{operators}"
    );
    assert!(read("report.html").contains("Operators, measured"));
}

/// Returns the bytes per second over the bandwidth, for the two repetitions of the first case. The bandwidth is the mean
/// of the measurements before and after, then the first, then the second.
fn decode_ratios(requests: &str, case: &Value) -> [[f64; 3]; 2] {
    let lines: Vec<Value> = requests.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let number = |of: &Value| of.as_f64().unwrap();
    let timed: Vec<&Value> = lines.iter().filter(|l| l["kind"] == "timed").collect();
    for line in &lines {
        assert_eq!(line["spots"].is_object(), line["kind"] == "timed", "{line}");
    }
    let [first, second] = [timed[0], timed[1]];
    assert_eq!([&first["case_id"], &second["case_id"]], [&case["case_id"]; 2]);
    assert_eq!(first["spots"]["after"], second["spots"]["before"], "measured once between two repetitions");
    assert_ne!(timed[2]["spots"]["before"], second["spots"]["after"], "another case has its own");
    let ratio = |line: &Value| {
        let spots = ["before", "after"].map(|side| number(&line["spots"][side]["bandwidth_bytes_per_s"]));
        let peaks = line["spots"]["after"]["peak_ops_per_s"].as_object().unwrap();
        assert!(peaks.len() == 1 && peaks.values().all(|peak| number(peak) > 0.0), "{line}");
        let seconds = (number(&line["end_ns"]) - number(&line["first_token_ns"])) / 1e9;
        let rate = number(&case["decode_cost"]["bytes"]) / seconds;
        [f64::midpoint(spots[0], spots[1]), spots[0], spots[1]].map(|limit| rate / limit)
    };
    [ratio(first), ratio(second)]
}

#[test]
fn a_card_does_not_let_its_operators_be_timed() {
    let args =
        ["run", "suites/duo-vs-a2.toml", "--only", "300i-duo", "--profile-operators", "--out", "target/no"];
    answer(&args).expect(2, &["--profile-operators", "runs its operators asynchronously"]);
}
