//! Checkpoints as users have them: re-saved, renamed, sharded, quantised, partly downloaded. Each one is either loaded
//! correctly or rejected, with the fault and its remedy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, answer, shared};

const SUITE: &str = r#"schema = 1
name = "boolq-4"
[[accuracy]]
task = "boolq"
dataset = "SET"
protocol = "modeltest"
limit = 4
"#;

const LINEAR: [&str; 4] =
    ["query_key_value.weight", "attention.dense.weight", "dense_h_to_4h.weight", "dense_4h_to_h.weight"];
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// A copy of the demo model for changes, and a suite that asks it four questions.
struct Model(TempDir);

/// A tensor to write: name, type, shape, data.
type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        fs::create_dir(dir.path().join("model")).unwrap();
        for entry in fs::read_dir(root.join("models/demo")).unwrap().map(|entry| entry.unwrap()) {
            fs::copy(entry.path(), dir.path().join("model").join(entry.file_name())).unwrap();
        }
        let set = root.join("datasets/boolq-sample");
        fs::write(dir.path().join("suite.toml"), SUITE.replace("SET", set.to_str().unwrap())).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("model").join(name)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        fs::write(self.file(name), bytes).unwrap();
        self
    }

    fn without(self, name: &str) -> Self {
        fs::remove_file(self.file(name)).unwrap();
        self
    }

    /// Sets keys of `config.json`. A key with the value `null` stays as `null`.
    fn with(self, keys: &Value) -> Self {
        let mut config: Value = serde_json::from_slice(&fs::read(self.file("config.json")).unwrap()).unwrap();
        for (key, value) in keys.as_object().unwrap() {
            config[key] = value.clone();
        }
        self.write("config.json", config.to_string())
    }

    fn without_name(self) -> Self {
        let mut config: Value = serde_json::from_slice(&fs::read(self.file("config.json")).unwrap()).unwrap();
        config.as_object_mut().unwrap().remove("_name_or_path");
        self.write("config.json", config.to_string())
    }

    fn tensors(&self) -> Vec<Tensor> {
        let bytes = fs::read(self.file(WEIGHTS)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap().tensors();
        let mut tensors: Vec<Tensor> = tensors
            .into_iter()
            .map(|(name, t)| (name, t.dtype(), t.shape().to_vec(), t.data().to_vec()))
            .collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        tensors
    }

    fn with_tensors(self, file: &str, tensors: &[Tensor]) -> Self {
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        self.write(file, bytes)
    }

    /// Stores the weights in two shards instead of one file.
    fn in_shards(self) -> Self {
        let tensors = self.tensors();
        let (first, second) = tensors.split_at(tensors.len() / 2);
        self.without(WEIGHTS).with_tensors(&shard(1), first).with_tensors(&shard(2), second)
    }

    /// Adds the index of [`in_shards`](Self::in_shards).
    fn with_index(self, of: &[Tensor]) -> Self {
        let half = of.len() / 2;
        let map: serde_json::Map<String, Value> = of
            .iter()
            .enumerate()
            .map(|(i, t)| (t.0.clone(), shard(1 + usize::from(i >= half)).into()))
            .collect();
        self.write(INDEX, json!({"metadata": {}, "weight_map": map}).to_string())
    }

    fn dry_run(&self, flags: &[&str]) -> Answer {
        let (suite, model) = (self.path("suite.toml"), self.path("model"));
        let out = self.path("runs");
        answer(&[&["run", &suite, "--model", &model, "--out", &out, "--dry-run"], flags].concat())
    }

    fn chat(&self, flags: &[&str]) -> Answer {
        let model = self.path("model");
        answer(&[&["chat", "--model", &model, "--prompt", "hi", "--max-new-tokens", "1"], flags].concat())
    }

    fn check(&self, flags: &[&str]) -> Answer {
        let (suite, model) = (self.path("suite.toml"), self.path("model"));
        answer(&[&["check", &suite, "--model", &model], flags].concat())
    }

    /// Every command that loads the model ends with code 2 and these words, before any work.
    #[track_caller]
    fn refused(&self, says: &[&str]) {
        self.dry_run(&[]).expect(2, says);
        self.check(&[]).expect(2, says);
        self.chat(&[]).expect(2, says);
    }

    /// The model loads, and `--dry-run` prints these words.
    #[track_caller]
    fn loaded(&self, says: &[&str]) {
        let said = self.dry_run(&[]).expect(0, &[]).out;
        for word in says {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
        let checked = self.check(&[]).expect(0, &[]).out;
        assert!(checked.contains("every prompt and shape fits"), "{checked}");
        self.chat(&[]).expect(0, &[]);
    }
}

fn shard(number: usize) -> String {
    format!("model-0000{number}-of-00002.safetensors")
}

#[test]
fn what_was_read_and_what_decided_is_said_before_a_run() {
    Model::new().loaded(&[
        "shape     4 layers, hidden 96, ffn 192, 4 heads of 32, 2 KV heads, vocabulary 2432\n",
        "weights   model.safetensors\n",
        "rotation  none (config.json has no rope_ratio)\n",
        "([gMASK] sop, the class in tokenizer_config.json)\n",
        "end       2\n",
        "unread    none\n",
        "time      unknown",
    ]);
    let wordy = Model::new().with(&json!({"mystery": [1, "x"], "transformers_version": "5.0"}));
    wordy.loaded(&["unread    mystery = [1,\"x\"]\n"]);
}

#[test]
fn a_rope_ratio_of_which_nothing_says_what_it_does_is_refused_with_the_choices() {
    let ratio = json!({"rope_ratio": 16});
    let choices = ["rope_ratio is 16", "--rope-scaling positions", "--rope-scaling base"];
    let renamed = Model::new().with(&json!({"_name_or_path": "./output/my-32k-sft"})).with(&ratio);
    let nameless = Model::new().without_name().with(&ratio);
    for model in [&renamed, &nameless] {
        model.refused(&choices);
        for (choice, said) in [("positions", "positions/16"), ("base", "base*16")] {
            let flags = ["--rope-scaling", choice];
            let told = model.dry_run(&flags).expect(0, &[]).out;
            assert!(told.contains(&format!("rotation  {said} (by --rope-scaling)\n")), "{told}");
            model.check(&flags).expect(0, &[]);
            model.chat(&flags).expect(0, &[]);
        }
    }
    renamed.dry_run(&["--rope-scaling", "yarn"]).expect(2, &["--rope-scaling", "positions", "base"]);
    Model::new().dry_run(&["--rope-scaling", "base"]).expect(2, &["there is no rope_ratio"]);
    for (name, said) in [("THUDM/chatglm2-6b-32k", "positions/16"), ("THUDM/chatglm3-6b-32k", "base*16")] {
        let named = Model::new().with(&json!({"_name_or_path": name})).with(&ratio);
        named.loaded(&[&format!("rotation  {said} (by _name_or_path)\n")]);
    }
    // A tokenizer has no rotary embedding, so it needs no choice.
    let tokenize = ["tokenize", "--model", &nameless.path("model")];
    assert_eq!(crate::support::answer_to(&tokenize, b"\"a\"\n").expect(0, &[]).out.lines().count(), 1);
}

#[test]
fn the_choices_stand_in_the_record_and_two_of_them_are_not_compared() {
    let model = Model::new().without_name().with(&json!({"rope_ratio": 16, "mystery": 1}));
    let run = |choice: &str| {
        let (suite, folder, out) = (model.path("suite.toml"), model.path("model"), model.path(choice));
        answer(&["run", &suite, "--model", &folder, "--out", &out, "--rope-scaling", choice]).expect(0, &[]);
        let run = fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
        let record: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
        (run, record)
    };
    let ((a, positions), (b, base)) = (run("positions"), run("base"));
    for (record, scaling) in [(&positions, "positions/16"), (&base, "base*16")] {
        let fields = &record["identity"]["fields"];
        assert_eq!((&fields["rotary_scaling"], &fields["end_ids"]), (&json!(scaling), &json!("2")));
        assert_eq!(fields["config_words"], "mystery = 1");
        let details = &record["provenance"]["model_details"];
        assert_eq!(details["rotary_scaling"], format!("{scaling} (by --rope-scaling)"));
        assert_eq!(details["weights"], WEIGHTS);
        assert!(details["prefix_ids"].as_str().unwrap().contains("[gMASK] sop"), "{details}");
    }
    answer(&["compare", a.to_str().unwrap(), b.to_str().unwrap()]).expect(2, &["rotary_scaling"]);
}

#[test]
fn a_word_that_would_change_the_numbers_refuses_the_model() {
    for (key, value) in [
        ("rope_theta", json!(500000.0)),
        ("rope_scaling", json!({"type": "dynamic", "factor": 4.0})),
        ("num_hidden_layers", json!(28)),
        ("rmsnorm", json!(false)),
    ] {
        let model = Model::new().with(&json!({key: value}));
        model.refused(&["config.json", key]);
    }
    Model::new().with(&json!({"rope_theta": 10000.0, "num_hidden_layers": 4})).loaded(&["unread    none\n"]);
}

#[test]
fn a_tokenizer_that_says_no_class_has_the_familys_prefix() {
    let ids = |answer: Answer| {
        let line =
            answer.expect(0, &[]).out.lines().find(|l| l.starts_with("prefix    ")).unwrap().to_owned();
        line.split(" (").next().unwrap().to_owned()
    };
    let usual = ids(Model::new().dry_run(&[]));
    assert_eq!(usual.split_whitespace().count(), 3, "{usual}");
    for config in [
        "{}",
        r#"{"tokenizer_class": null}"#,
        r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#,
        r#"{"auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", null]}}"#,
    ] {
        let model = Model::new().write("tokenizer_config.json", config);
        assert_eq!(ids(model.dry_run(&[])), usual, "{config}");
        model.chat(&[]).expect(0, &[]);
    }
    assert_eq!(ids(Model::new().without("tokenizer_config.json").dry_run(&[])), usual);
    let foreign = Model::new().write("tokenizer_config.json", r#"{"tokenizer_class": "LlamaTokenizer"}"#);
    foreign.refused(&["LlamaTokenizer", "\"prefix_tokens\": [\"[gMASK]\", \"sop\"]"]);
}

#[test]
fn a_list_of_ends_and_nulls_are_read() {
    for (keys, end) in [
        (json!({"eos_token_id": [2]}), "end       2\n"),
        (json!({"eos_token_id": [2, 7]}), "end       2 7\n"),
        (json!({"eos_token_id": null}), "end       2\n"),
        (json!({"prefix_projection": null, "pre_seq_len": null}), "end       2\n"),
    ] {
        Model::new().with(&keys).loaded(&[end]);
    }
    Model::new().with(&json!({"eos_token_id": "2"})).refused(&["expected a token id or a list of token ids"]);
}

#[test]
fn every_listed_id_ends_a_sequence() {
    let model = Model::new();
    let generate = |model: &Model| {
        let path = model.path("model");
        let flags = ["chat", "--model", &path, "--prompt", "hi", "--greedy", "--max-new-tokens", "4"];
        answer(&flags).expect(0, &[]).out
    };
    // Every id ends the sequence, so there is no output.
    let all: Vec<u32> = (0..2432).collect();
    let (usual, silent) = (generate(&model), generate(&Model::new().with(&json!({"eos_token_id": all}))));
    assert!(!usual.trim().is_empty() && silent.trim().is_empty(), "{usual:?} {silent:?}");
}

#[test]
fn names_behind_a_wrappers_prefix_are_shown_with_it() {
    let wrapped = |prefix: &str| {
        let model = Model::new();
        let mut tensors = model.tensors();
        tensors.iter_mut().for_each(|tensor| tensor.0 = format!("{prefix}{}", tensor.0));
        model.with_tensors(WEIGHTS, &tensors)
    };
    wrapped("module.")
        .refused(&["begin with `module.`", "module.transformer.embedding.word_embeddings.weight"]);
    wrapped("base_model.model.").refused(&["begin with `base_model.model.`"]);
    let inner = Model::new();
    let mut tensors = inner.tensors();
    tensors.iter_mut().for_each(|t| t.0 = t.0.strip_prefix("transformer.").unwrap().to_owned());
    inner
        .with_tensors(WEIGHTS, &tensors)
        .refused(&["lack `transformer.`", "embedding.word_embeddings.weight"]);
    // If no prefix repairs the names, some of them are shown next to the missing ones.
    let other = Model::new();
    let mut tensors = other.tensors();
    tensors.iter_mut().enumerate().for_each(|(i, t)| t.0 = format!("model.layers.{i}"));
    other.with_tensors(WEIGHTS, &tensors).refused(&["is missing", "model.layers.0 ", "is not expected"]);
    // A second copy next to the right tensor is superfluous, not misnamed.
    let twice = Model::new();
    let mut tensors = twice.tensors();
    let copy = tensors[0].clone();
    tensors.push((format!("ema.{}", copy.0), copy.1, copy.2, copy.3));
    twice.with_tensors(WEIGHTS, &tensors).refused(&["ema.", "is not expected: no tensor of ChatGLM2"]);
}

#[test]
fn numbered_shards_need_no_index_but_all_of_them() {
    let whole = Model::new();
    let tensors = whole.tensors();
    Model::new()
        .in_shards()
        .loaded(&["weights   model-00001-of-00002.safetensors to number 2, without an index\n"]);
    let indexed = Model::new().in_shards().with_index(&tensors);
    indexed.loaded(&["weights   the shards of model.safetensors.index.json\n"]);
    let half = Model::new().in_shards().without(&shard(2));
    half.refused(&["1 of 2 shards are here", "missing: model-00002-of-00002.safetensors"]);
}

#[test]
fn two_sets_of_weights_are_refused_with_both_named() {
    let stray = fs::read(Model::new().file(WEIGHTS)).unwrap();
    let tensors = Model::new().tensors();
    let indexed = Model::new().in_shards().with_index(&tensors).write(WEIGHTS, &stray);
    indexed.refused(&["two sets of weights", "model.safetensors and model.safetensors.index.json"]);
    let numbered = Model::new().in_shards().write(WEIGHTS, &stray);
    numbered.refused(&["two sets of weights", "model.safetensors and model-00001-of-00002.safetensors"]);
}

/// Returns the demo model with its linear weights as integers of one byte, keeping `columns` of each row.
fn integers(columns: impl Fn(usize) -> usize, dtype: Dtype) -> Vec<Tensor> {
    let linear = |name: &str| LINEAR.iter().any(|part| name.ends_with(part));
    let tensors = Model::new().tensors().into_iter();
    tensors
        .map(|(name, old, mut shape, data)| {
            if !linear(&name) {
                return (name, old, shape, data);
            }
            shape[1] = columns(shape[1]);
            let bytes = vec![1; shape.iter().product()];
            (name, dtype, shape, bytes)
        })
        .collect()
}

#[test]
fn what_claims_to_be_quantised_and_what_is_are_refused_by_name() {
    for (key, value) in [
        ("quantization_bit", json!(4)),
        ("quantize", json!("w8a8")),
        ("quantization_config", json!({"quant_method": "awq"})),
    ] {
        let claims = Model::new().with(&json!({key: value}));
        claims.refused(&[&format!("config.json says {key} = "), "the weights are not quantised", "are F16"]);
        let config = claims.file("config.json");
        let dummy = format!("dummy:{}", config.display());
        let run = ["run", "suites/performance.toml", "--model", &dummy, "--dry-run"];
        answer(&run).expect(2, &[key, "random weights are not quantised"]);
    }
    Model::new().with(&json!({"quantization_bit": 0})).loaded(&["unread    none\n"]);
    let int4 = integers(|k| k / 2, Dtype::I8);
    let said = Model::new().with(&json!({"quantization_bit": 4})).with_tensors(WEIGHTS, &int4);
    said.refused(&["query_key_value.weight_scale is missing", "config.json says quantization_bit = 4"]);
    Model::new().with_tensors(WEIGHTS, &int4).refused(&[
        "an int4 checkpoint",
        "config.json says nothing of it",
        "has type I8 and shape",
        "expected quantization_bit = 4 in config.json",
    ]);
    for dtype in [Dtype::I8, Dtype::U8] {
        let int8 = integers(|k| k, dtype);
        Model::new().with_tensors(WEIGHTS, &int8).refused(&["an int8 checkpoint"]);
    }
    let mut w8a8 = integers(|k| k, Dtype::I8);
    let scales: Vec<Tensor> = w8a8
        .iter()
        .filter(|t| LINEAR.iter().any(|part| t.0.ends_with(part)))
        .map(|t| (t.0.replace(".weight", ".deq_scale"), Dtype::I64, vec![t.2[0]], vec![0; 8 * t.2[0]]))
        .collect();
    w8a8.extend(scales);
    Model::new()
        .with(&json!({"quantize": "w8a8"}))
        .with_tensors(WEIGHTS, &w8a8)
        .refused(&["quant_model_description_w8a8.json is not there"]);
    Model::new().with_tensors(WEIGHTS, &w8a8).refused(&["a w8a8 checkpoint", "expected quantize = \"w8a8\""]);
    let named = Model::new();
    let bytes = fs::read(named.file(WEIGHTS)).unwrap();
    let named = named.without(WEIGHTS).write("quant_model_weight_w8a8.safetensors", bytes);
    named.refused(&["no weights here", "there is quant_model_weight_w8a8.safetensors"]);
}

#[test]
fn a_pointer_of_git_lfs_is_called_that_wherever_it_lies() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1827781090\n";
    for file in [WEIGHTS, "tokenizer.model"] {
        Model::new().write(file, pointer).refused(&[file, "a Git LFS pointer, not the file"]);
    }
    let pickled = Model::new().without(WEIGHTS).write("pytorch_model.bin", pointer);
    let convert = ["convert", &pickled.path("model"), &pickled.path("out")];
    answer(&convert).expect(2, &["pytorch_model.bin", "a Git LFS pointer, not the file"]);
    assert!(!Path::new(&pickled.path("out")).exists());
}

/// Checkpoints made by a script beside the checkout, each with the expected result.
#[test]
fn the_cases_from_the_field_are_loaded_or_refused() {
    let (Some(script), Some(tokenizer)) = (shared("cases/make_cases.py"), shared("tokenizer/chatglm2-6b"))
    else {
        return;
    };
    let made = tempfile::tempdir().unwrap();
    let output = Command::new("python3").arg(&script).arg(made.path()).arg(&tokenizer).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(words.contains("ModuleNotFoundError"), "{words}");
            crate::support::skipped(&format!("python3 lacks what {} imports", script.display()));
            return;
        }
        Err(error) => {
            crate::support::skipped(&format!("python3 cannot be run: {error}"));
            return;
        }
    }
    let positions: &[&str] = &["positions/16 (by _name_or_path)"];
    let prefix: &[&str] = &["prefix    64790 64792 ([gMASK] sop, "];
    let end: &[&str] = &["end       2\n"];
    let choices: &[&str] = &["--rope-scaling positions", "--rope-scaling base"];
    /// Folder, output if it is loaded, and output if it is rejected.
    type Case<'a> = (&'a str, Option<&'a [&'a str]>, &'a [&'a str]);
    let cases: [Case<'_>; 20] = [
        ("good", Some(prefix), &[]),
        ("rope-32k", Some(positions), &[]),
        ("rope-renamed", None, choices),
        ("rope-nameless", None, choices),
        ("tokenizer-config-empty", Some(prefix), &[]),
        ("tokenizer-class-null", Some(prefix), &[]),
        ("tokenizer-class-fast", Some(prefix), &[]),
        ("tokenizer-auto-map-only", Some(prefix), &[]),
        ("tokenizer-config-missing", Some(prefix), &[]),
        ("eos-list", Some(end), &[]),
        ("eos-null", Some(end), &[]),
        ("projection-null", Some(end), &[]),
        ("module-prefix", None, &["`module.`", "module.transformer.embedding"]),
        ("shards-no-index", Some(&["model-00001-of-00002.safetensors to number 2"]), &[]),
        ("stray-single", None, &["model.safetensors and model.safetensors.index.json"]),
        ("claims-int4", None, &["quantization_bit = 4", "not quantised"]),
        ("claims-w8a8", None, &["quantize = \"w8a8\"", "not quantised"]),
        (
            "int4",
            Some(&["weights   model.safetensors (int4: 8 of 9 linear layers, the others in float)\n"]),
            &[],
        ),
        ("lfs-pointer", None, &["a Git LFS pointer, not the file"]),
        ("zero-output", Some(prefix), &[]),
    ];
    let suite = Model::new();
    let out = suite.path("runs");
    for (name, loaded, refused) in cases {
        let model = made.path().join(name);
        let suite = suite.path("suite.toml");
        let run = ["run", &suite, "--model", model.to_str().unwrap(), "--out", &out, "--dry-run"];
        match loaded {
            Some(says) => {
                let said = answer(&run).expect(0, &[]).out;
                says.iter()
                    .for_each(|word| assert!(said.contains(word), "{name}: {word:?} is not in {said}"));
            }
            None => drop(answer(&run).expect(2, refused)),
        }
    }
}
