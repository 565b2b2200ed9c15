//! What a run reports if the model's numbers or its answers are worthless.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use glmbench::backend::{Script, ScriptedAnswer};
use glmbench::bench::{Shape, prompts};
use glmbench::language::Language;
use glmbench::record::RunDir;
use glmbench::report::{Summary, Verdict, render};
use glmbench::run::plan::ordinary_tokens;
use glmbench::run::setup::Answering;
use glmbench::run::{RunError, RunRequest};
use glmbench::suite::{Override, Suite};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::load_tokenizer;
use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::in_process::try_run;
use crate::support::{Answer, answer, answer_to};

const SCORED: &str = r#"schema = 1
name = "v"
[model]
path = "demo"
[[accuracy]]
task = "boolq"
dataset = "DATASETS/boolq-sample"
protocol = "modeltest"
limit = 12
"#;

const TIMED: &str = r"[[performance]]
batch = [2, 1]
lengths = [[8, 4]]
repetitions = 2
max_warmups = 1
";

const EMBEDDING: &str = "transformer.embedding.word_embeddings.weight";
const UP: &str = "transformer.encoder.layers.0.mlp.dense_h_to_4h.weight";

/// A folder with a suite, a changed model, and one folder per run, since runs are named by the second.
struct Place(TempDir, Cell<usize>);

impl Place {
    fn new(suite: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap(), Cell::new(0));
        let sets = root().join("datasets");
        fs::write(place.path("v.toml"), suite.replace("DATASETS", sets.to_str().unwrap())).unwrap();
        place
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// The demo model with weights changed by tensor and index, stored as fp16 or bf16.
    fn model(&self, as_bf16: bool, change: &dyn Fn(&str, usize, f32) -> f32) -> String {
        let folder = self.path("model");
        copy_demo(Path::new(&folder));
        let file = Path::new(&folder).join("model.safetensors");
        let bytes = fs::read(&file).unwrap();
        let changed: BTreeMap<String, (Vec<usize>, Vec<u8>)> = SafeTensors::deserialize(&bytes)
            .unwrap()
            .tensors()
            .into_iter()
            .map(|(name, tensor)| {
                let numbers = tensor.data().as_chunks::<2>().0.iter().enumerate();
                let data = numbers.flat_map(|(i, bytes)| {
                    let number = change(&name, i, f16::from_le_bytes(*bytes).to_f32());
                    if as_bf16 {
                        bf16::from_f32(number).to_le_bytes()
                    } else {
                        f16::from_f32(number).to_le_bytes()
                    }
                });
                (name.clone(), (tensor.shape().to_vec(), data.collect()))
            })
            .collect();
        let dtype = if as_bf16 { Dtype::BF16 } else { Dtype::F16 };
        let views = changed.iter().map(|(name, (shape, data))| {
            (name.clone(), TensorView::new(dtype, shape.clone(), data).unwrap())
        });
        safetensors::serialize_to_file(views, None, &file).unwrap();
        folder
    }

    /// The demo model with a `seq_length` of this many tokens.
    fn short_model(&self, seq_length: u64) -> String {
        let folder = self.path(&format!("short-{seq_length}"));
        copy_demo(Path::new(&folder));
        let file = Path::new(&folder).join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config["seq_length"] = json!(seq_length);
        fs::write(&file, config.to_string()).unwrap();
        folder
    }

    fn run(&self, more: &[&str]) -> Answer {
        self.1.set(self.1.get() + 1);
        self.run_there(more)
    }

    /// Runs the suite into the folder of the last run.
    fn run_there(&self, more: &[&str]) -> Answer {
        let (suite, runs) = (self.path("v.toml"), self.runs());
        answer(&[&["run", &suite, "--out", &runs, "--threads", "1"], more].concat())
    }

    fn runs(&self) -> String {
        self.path(&format!("runs-{}", self.1.get()))
    }

    /// Returns the newest run directory of the last run, ignoring comparisons.
    fn the_run(&self) -> PathBuf {
        let entries = fs::read_dir(self.runs()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.join("run.json").exists()).max().unwrap()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn copy_demo(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for entry in fs::read_dir(root().join("models/demo")).unwrap().map(|e| e.unwrap()) {
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

/// Makes one weight of the first feed-forward layer NaN, so every logit is NaN.
fn nan_weight(name: &str, index: usize, value: f32) -> f32 {
    if name == UP && index == 7 { f32::NAN } else { value }
}

#[test]
fn a_run_whose_items_and_cases_all_fail_is_invalid_and_says_why() {
    let place = Place::new(&format!("{SCORED}{TIMED}"));
    let model = place.model(false, &nan_weight);
    let run = place.run(&["--model", &model]).expect(
        4,
        &["warning: tensor transformer.encoder.layers.0.mlp.dense_h_to_4h.weight [0, 7] is NaN (1 of 36864 numbers)"],
    );
    assert_says(
        &run.out,
        &[
            "model on cpu in fp16, measured (suite v, run ",
            "boolq (modeltest): no score; logits not finite: position ",
            ", token id 0 is NaN (from item ",
            "; 12 of 12 items failed.",
            "Failed: b2-i8-o4, b1-i8-o4 (warm-up: sequence 0 of the batch: logits not finite: position 7, token id 0 is NaN).",
            "INVALID: tensor transformer.encoder.layers.0.mlp.dense_h_to_4h.weight [0, 7] is NaN (1 of 36864 numbers); logits not finite",
            "12 of 12 items failed; warm-up: sequence 0 of the batch: logits not finite: position 7, token id 0 is NaN; not 2 of 2: ",
        ],
    );
    assert_eq!(run.out.lines().next().unwrap().split(' ').next(), Some("model"));
    for never in ["Nothing has finished", "--resume"] {
        assert!(!run.out.contains(never) && !run.words.contains(never), "{never}: {run:?}");
    }
    let dir = place.the_run();
    let record: Value = serde_json::from_slice(&fs::read(dir.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["status"], "complete");
    assert_eq!(record["provenance"]["weight_faults"].as_array().unwrap().len(), 1);
    let requests = lines(&dir.join("requests.jsonl"));
    assert_eq!(requests.len(), 2, "one line a case: {requests:?}");
    assert!(requests.iter().all(|r| r["error"].as_str().unwrap().contains("logits not finite")));
    let html = fs::read_to_string(dir.join("report.html")).unwrap();
    let summary = fs::read_to_string(dir.join("summary.md")).unwrap();
    for page in [&html, &summary] {
        assert_says(page, &["INVALID: tensor", "12 of 12 items failed", "model on cpu in fp16"]);
    }
    answer(&["report", dir.to_str().unwrap()]).expect(4, &[]);
    // Nothing is left that resuming could repair.
    std::thread::sleep(Duration::from_millis(1100));
    place.run_there(&["--model", &model, "--resume"]).expect(4, &["has no unfinished run"]);
}

#[test]
fn a_case_that_breaks_down_leaves_the_others_and_the_accuracy_as_they_are() {
    let place = Place::new(&format!("{SCORED}{TIMED}"));
    let good = place.run(&[]).expect(0, &[]);
    let demo = root().join("models/demo");
    let config = ModelConfig::from_file(&demo.join("config.json")).unwrap();
    let tokenizer = load_tokenizer(&demo, Some(&config)).unwrap();
    let tokens = ordinary_tokens(&config, Some(&tokenizer));
    let both = prompts(Shape { batch: 2, input_tokens: 8, output_tokens: 4 }, &tokens, 1);
    // Finds a token that occurs only in the second sequence.
    let asked: Vec<u64> = lines(&place.the_run().join("prompts.jsonl"))
        .iter()
        .flat_map(|line| line["calls"][0]["input_tokens"].as_array().unwrap().clone())
        .map(|id| id.as_u64().unwrap())
        .collect();
    let own = |id: &&u32| !both[0].contains(id) && !asked.contains(&u64::from(**id));
    let token = *both[1].iter().find(own).expect("a token of the second sequence alone") as usize;
    let width = config.hidden_size;
    let model = place.model(false, &|name, index, value| {
        if name == EMBEDDING && index / width == token { f32::NAN } else { value }
    });
    let run = place.run(&["--model", &model]).expect(4, &[&format!("[{token}, 0] is NaN")]);
    let score = good.out.lines().find(|line| line.starts_with("boolq (modeltest): ")).unwrap();
    assert_says(
        &run.out,
        &[score, "Failed: b2-i8-o4 (warm-up: sequence 1 of the batch: logits not finite: position "],
    );
    let rows = fs::read_to_string(place.the_run().join("perf.csv")).unwrap();
    let valid = |case: &str| rows.lines().filter(|r| r.contains(case) && r.contains(",true,")).count();
    assert_eq!((valid(",b1-i8-o4,"), valid(",b2-i8-o4,")), (3, 0), "{rows}");
    let stopped = lines(&place.the_run().join("requests.jsonl"));
    assert_eq!(stopped.iter().filter(|r| r["case_id"] == "b2-i8-o4").count(), 1);
}

#[test]
fn searches_loads_and_turns_on_broken_numbers_are_failed_and_not_usage_errors() {
    let place = Place::new(
        "schema = 1\nname = \"v\"\n[[max_batch]]\nlengths = [[8, 4]]\nbatch_range = [1, 4]\nlimit_tpot_ms = 1000\n\
         [[load]]\narrival = \"fixed\"\nrates = [500]\nrequests = 5\nlengths = [[8, 4]]\nmax_batch = 2\n\
         [[load]]\narrival = \"poisson\"\nsaturation = true\nrequests = 100\nlengths = [[8, 4]]\nmax_batch = 2\n",
    );
    let model = place.model(false, &nan_weight);
    let run = place.run(&["--model", &model]).expect(4, &[]);
    assert_says(
        &run.out,
        &[
            "the search failed, batch 1: sequence 0 of the batch: logits not finite: position 7, token id 0 is NaN",
            "5 of 5 requests failed (logits not finite: position 7, token id 0 is NaN)",
            "100 of 100 requests failed (logits not finite",
            "INVALID: ",
            "; batch 1: sequence 0 of the batch: logits not finite: position 7, token id 0 is NaN; not 1 of 1: max-batch-i8-o4",
            "; 105 of 105 requests failed; not 2 of 2: fixed-",
        ],
    );
    assert!(!run.words.contains("--resume"), "{run:?}");
    let place = Place::new(&format!("schema = 1\nname = \"v\"\n{TIMED}"));
    let model = place.model(false, &nan_weight);
    let two = ["--configuration", "dtype=fp16", "--configuration", "dtype=fp32", "--interleave"];
    let run = place.run(&[&["--model", &model][..], &two].concat()).expect(4, &[]);
    assert_says(
        &run.out,
        &["Failed: b2-i8-o4, b1-i8-o4 (warm-up: sequence 0 of the batch: logits not finite"],
    );
}

#[test]
fn logits_chat_and_parity_end_with_the_place_where_numbers_break_down() {
    let place = Place::new(SCORED);
    let model = place.model(false, &nan_weight);
    let (prompts, out) = (place.path("p.json"), place.path("out.safetensors"));
    fs::write(&prompts, "[[1, 2, 3], [4]]").unwrap();
    let says = [
        "prompt 0: logits not finite: position 0, token id 0 is NaN",
        "prompt 1: logits not finite: position 0, token id 0 is NaN",
        "warning: tensor transformer.encoder.layers.0.mlp.dense_h_to_4h.weight [0, 7] is NaN",
    ];
    for decode in ["0", "3"] {
        let _ = fs::remove_file(&out);
        let words = ["logits", "--model", &model, "--prompts", &prompts, "--out", &out, "--decode", decode];
        answer(&words).expect(4, &says);
        assert!(Path::new(&out).exists(), "what there is can be looked at");
    }
    let chat = ["chat", "--model", &model, "--greedy"];
    let broken = "token id 0 is NaN; the prompt has ";
    answer(&[&chat[..], &["--prompt", "hi"]].concat()).expect(4, &["logits not finite: position ", broken]);
    answer_to(&chat, b"hi\nho\n").expect(4, &[broken]);
    answer(&[&chat[..], &["--texts", "['a', 'b']"]].concat())
        .expect(4, &["text 0: logits not finite", "text 1: logits not finite"]);
    for decode in ["0", "4"] {
        let words = ["parity", "--model", &model, "--against", "reference", "--decode", decode];
        answer(&words).expect(4, &["logits not finite"]);
    }
    answer(&["parity", "--model", "demo", "--reference", &out]).expect(4, &["out.safetensors", "prompt 0"]);
}

#[test]
fn a_weight_too_large_for_the_type_of_the_run_is_named_there_and_only_there() {
    let place = Place::new(SCORED);
    let model = place.model(true, &|name, index, value| if name == UP && index == 7 { 1e5 } else { value });
    let fault = "dense_h_to_4h.weight [0, 7] is 99840 in BF16, infinite in fp16 (1 of 36864 numbers)";
    let run = place.run(&["--model", &model]).expect(4, &[fault]);
    assert_says(&run.out, &["INVALID: tensor ", fault]);
    for dtype in ["bf16", "fp32"] {
        let run = place.run(&["--model", &model, "--dtype", dtype]).expect(0, &[]);
        assert!(!run.words.contains("warning") && !run.out.contains("INVALID"), "{run:?}");
    }
    let ranks = place.run(&["--model", &model, "--tp", "2"]).expect(4, &[fault]);
    assert!(ranks.words.matches("warning: tensor").count() == 1, "{ranks:?}");
}

/// Runs a suite on a script into a new folder. Of a model, its configuration and tokenizer are read. Returns the run's directory.
fn scripted(suite: Suite, model: Option<&str>, script: Script) -> Result<(TempDir, PathBuf), RunError> {
    let folder = tempfile::tempdir().unwrap();
    let mut request = RunRequest::new(suite, folder.path());
    request.choice.model = model.map(Into::into);
    request.choice.answering = Answering::Scripted(Box::new(script));
    let (end, _) = try_run(&request, usize::MAX)?;
    Ok((folder, end.runs.into_iter().next().unwrap()))
}

/// Reads a suite with `--set` flags.
fn suite(text: &str, set: &[(&str, &str)]) -> Result<Suite, String> {
    let text = text.replace("DATASETS", root().join("datasets").to_str().unwrap());
    let set: Vec<Override> =
        set.iter().map(|(key, value)| Override { key: (*key).into(), value: (*value).into() }).collect();
    Suite::parse(Path::new("v.toml"), &text, &set).map_err(|error| error.to_string())
}

/// Returns what the terminal shows of a run: findings, tables, verdict.
fn shown(summary: &Summary) -> String {
    let tables = summary.tables.iter().flat_map(|table| {
        let cells = table.rows.iter().flat_map(|row| &row.cells);
        std::iter::once(&table.title).chain(cells).map(ToString::to_string)
    });
    let verdict = summary.verdict_sentence().to_string();
    let all: Vec<String> =
        summary.headline.iter().map(ToString::to_string).chain(tables).chain([verdict]).collect();
    all.join("\n")
}

#[test]
fn a_model_that_always_says_the_same_is_seen_at_a_glance() {
    let suite = || suite(&SCORED.replace("limit = 12", "limit = 100"), &[]).unwrap();
    let (_folder, dir) = scripted(suite(), None, Script::default()).unwrap();
    // The same prompts again, with choices that are all as likely.
    let asked = RunDir::open(&dir).unwrap().read_prompts(|_| true).unwrap();
    let equal = ScriptedAnswer { choice_logprobs: vec![-1.0; 2], ..ScriptedAnswer::default() };
    let answers = asked.into_iter().flat_map(|of| of.calls).map(|call| (call.input_tokens, equal.clone()));
    let script = Script { answers: answers.collect(), ..Script::default() };
    let (_folder, dir) = scripted(suite(), None, script).unwrap();
    assert_says(
        &shown(&render(&dir, Language::En).unwrap()),
        &[
            "Answers: share given (share of the keys), %",
            "no 100.0 (",
            "every margin is 0",
            "no is 100 of 100 answers and ",
            "valid with reservations; not met: varied answers, no ties",
        ],
    );
    let csv = fs::read_to_string(dir.join("answers.csv")).unwrap();
    let no = csv.lines().find(|line| line.contains(",no,100,100,1.0,")).unwrap();
    assert!(no.contains(",demo,boolq,modeltest,") && no.ends_with(",true,100,,"), "{csv}");
    for page in ["report.html", "summary.md"] {
        assert_says(&fs::read_to_string(dir.join(page)).unwrap(), &["every margin is 0"]);
    }
}

#[test]
fn a_suite_may_allow_a_share_of_failed_items() {
    let (_folder, dir) = scripted(suite(SCORED, &[]).unwrap(), None, Script::default()).unwrap();
    let good = RunDir::open(&dir).unwrap().read_samples().unwrap();
    let mut lengths: Vec<u64> = good.iter().map(|sample| sample.input_tokens_n).collect();
    lengths.sort_unstable();
    // Too short for the two longest prompts.
    assert!(lengths[9] < lengths[10], "{lengths:?}");
    let place = Place::new(SCORED);
    let model = place.short_model(lengths[9]);
    let run = |set: &[(&str, &str)]| {
        let suite = suite(SCORED, set).unwrap();
        let (folder, dir) = scripted(suite, Some(&model), Script::default()).unwrap();
        let summary = render(&dir, Language::En).unwrap();
        (summary.verdict(), shown(&summary), folder, dir)
    };
    let allowed = |share: &str| run(&[("accuracy.0.max_failed", share)]);
    let reason = "the prompt has ";
    let (verdict, said, ..) = run(&[]);
    assert_eq!(verdict, Verdict::Invalid);
    assert_says(&said, &["INVALID: the prompt has ", "; 2 of 12 items failed"]);
    let (verdict, said, ..) = allowed("0.16");
    assert_eq!(verdict, Verdict::Invalid);
    assert_says(&said, &["INVALID: ", "2 of 12 items failed"]);
    let (verdict, said, _folder, dir) = allowed("0.17");
    assert_eq!(verdict, Verdict::Valid);
    assert_says(
        &said,
        &["% of 10 items right", " Apart from these: ", reason, "; 2 of 12 items failed.", "valid"],
    );
    let record = fs::read_to_string(dir.join("run.json")).unwrap();
    assert!(record.contains("\"max_failed\": 0.17"), "{record}");
    for (share, says) in
        [("1", "found 1; expected a share of at least 0"), ("-0.1", "-0.1"), ("\"x\"", "a string")]
    {
        let error = suite(SCORED, &[("accuracy.0.max_failed", share)]).unwrap_err();
        assert_says(&error, &["accuracy.0.max_failed", says]);
    }
}

#[test]
fn a_suite_for_a_real_checkpoint_refuses_to_run_without_one() {
    for suite in ["ceval", "boolq", "cpu-limits"] {
        let path = format!("suites/{suite}.toml");
        for more in [&[][..], &["--dry-run"]] {
            let words = [&["run", &path, "--out", "target/no"], more].concat();
            answer(&words).expect(2, &[&path, "for a model that it does not name", "--model DIR"]);
        }
    }
    let place = Place::new(&SCORED.replace("path = \"demo\"", "path = \"demo\"\nrequired = true"));
    place.run(&[]).expect(2, &["v.toml:5", "`required = true` beside `path`"]);
    let required = SCORED.replace("path = \"demo\"", "required = true");
    Place::new(&required).run(&[]).expect(2, &["--model DIR"]);
    let named = format!("{required}[[configuration]]\nname = \"a\"\nmodel = \"demo\"\n");
    for (text, model) in [(&required, Some("demo")), (&named, None)] {
        let (_folder, dir) = scripted(suite(text, &[]).unwrap(), model, Script::default()).unwrap();
        assert_eq!(RunDir::open(&dir).unwrap().read_run().unwrap().provenance.model, "demo");
    }
}
