//! Task files: the built-in ones against an independent computation in Python, users' own, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use glmbench::dataset::{Benchmark, Source};
use glmbench::task::program::Runner;
use glmbench::task::{
    self, Evaluation, Heard, Next, Outcome, Output, Plan, Protocol, Settings, State, TextCodec,
};
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{Completion, FinishReason};
use glmbench_sandbox::{Language, Verdict};
use serde_json::Value;

use crate::dataset::{folder, real};
use crate::support::{answer, skipped};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tasks")
}

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(fixtures().join("expected.json")).unwrap()).unwrap()
}

pub(crate) fn tokenizer() -> Tokenizer {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    glmbench_engine::load::load_tokenizer(&demo, None).unwrap()
}

/// Returns the data folder of a task: made up, or the real set beside the checkout.
fn data(task: &str) -> Option<PathBuf> {
    let made_up = fixtures().join("data").join(task);
    if made_up.is_dir() { Some(made_up) } else { real(task) }
}

fn evaluation<'a>(
    benchmark: &'static Benchmark,
    protocol: &'static dyn Protocol,
    dir: &Path,
    shots: Option<usize>,
    codec: &'a Tokenizer,
) -> Evaluation<'a> {
    let source = Source::open(benchmark, dir).unwrap();
    let settings = Settings { split: benchmark.default_split.into(), shots, ..Settings::default() };
    let plan = Plan::new(protocol, &source, &settings).unwrap();
    Evaluation::new(plan, codec as &dyn TextCodec, usize::MAX).unwrap().with_runner(Arc::new(Hashes))
}

/// The made-up log-likelihood of a text, as in scripts/task_fixtures.py.
fn logprob(text: &str) -> f32 {
    let hash = glmbench::dataset::sha256_hex(text.as_bytes());
    -((u32::from_str_radix(&hash[..8], 16).unwrap() % 5000) as f32 / 64.0)
}

/// Runs nothing, and says the hash of each program.
struct Hashes;

impl Runner for Hashes {
    fn run(&self, _language: Language, program: &str, _timeout: Duration) -> Result<Verdict, String> {
        Ok(Verdict::Failed(glmbench::dataset::sha256_hex(program.as_bytes())))
    }

    fn interpreter(&self) -> String {
        "none".into()
    }
}

/// Drives an item with made-up log-likelihoods and empty texts.
fn drive(evaluation: &Evaluation<'_>, index: usize, letters: &[&str]) -> Outcome {
    drive_with(evaluation, index, letters, None)
}

/// The same with a reply of the model.
fn drive_with(evaluation: &Evaluation<'_>, index: usize, letters: &[&str], reply: Option<&str>) -> Outcome {
    let (mut progress, mut next) = evaluation.start(index);
    loop {
        let request = match next {
            Next::Done(outcome) => return outcome,
            Next::Ask(request) => request,
        };
        let text = evaluation.asked(&progress).to_owned();
        let scored = request.score_from.map_or(0, |from| request.prompt.len() - from);
        let mut prompt_logprobs = vec![0.0; scored];
        if let Some(first) = prompt_logprobs.first_mut() {
            *first = logprob(&text);
        }
        let choices =
            request.choice_ids.iter().zip(letters).map(|(_, letter)| logprob(&format!("{text}{letter}")));
        let completion = Completion {
            id: 0,
            tokens: vec![],
            text: None,
            choice_logprobs: choices.collect(),
            prompt_logprobs,
            finish: FinishReason::Eos,
            start_ns: 0,
            end_ns: 0,
        };
        let heard = Heard { text: reply.map(str::to_owned), fault: None };
        next = evaluation.advance_heard(&mut progress, &completion, heard);
    }
}

#[test]
fn prompts_keys_choices_and_measures_are_those_of_an_independent_computation() {
    let tokenizer = tokenizer();
    for (task, of_task) in expected().as_object().unwrap() {
        let benchmark = Benchmark::from_name(task).unwrap();
        let Some(dir) = data(task) else { continue };
        let source = Source::open(benchmark, &dir).unwrap();
        let dataset = source.read(benchmark.default_split, &[]).unwrap();
        assert_eq!(dataset.items.len() as u64, of_task["items"].as_u64().unwrap(), "{task}");
        for (name, of_protocol) in of_task["protocols"].as_object().unwrap() {
            let protocol = task::find(benchmark, name).unwrap_or_else(|| panic!("{task} has no {name}"));
            let shots = of_protocol.get("shots").and_then(Value::as_u64).map(|shots| shots as usize);
            let evaluation = evaluation(benchmark, protocol, &dir, shots, &tokenizer);
            for (index, item) in of_protocol["items"].as_array().unwrap().iter().enumerate() {
                let index = item.get("index").map_or(index, |place| place.as_u64().unwrap() as usize);
                let reply = item.get("reply").and_then(Value::as_str);
                if let Some(limit) = item.get("limit").and_then(Value::as_u64) {
                    let (_, next) = evaluation.start(index);
                    let Next::Ask(request) = next else { panic!("{next:?}") };
                    assert_eq!(request.max_new_tokens as u64, limit, "{task} {name}");
                }
                let outcome = drive_with(&evaluation, index, &["A", "B", "C", "D"], reply);
                let at = format!("{task} {name} {}", outcome.doc_id);
                assert_eq!(outcome.doc_id, item["doc_id"].as_str().unwrap(), "{at}");
                assert_eq!(
                    outcome.prompt_hash(),
                    item["prompt"].as_str().unwrap(),
                    "{at}: {:?}",
                    outcome.stages.first()
                );
                assert_eq!(outcome.gold.to_string(), item["gold"].as_str().unwrap(), "{at}");
                if let Some(pred) = item.get("pred") {
                    assert_eq!(outcome.pred.as_ref().unwrap().to_string(), pred.as_str().unwrap(), "{at}");
                }
                if let Some(program) = item.get("program").and_then(Value::as_str) {
                    assert_eq!(outcome.programs[0].verdict, format!("failed: {program}"), "{at}");
                }
                for (measure, value) in item.get("measures").and_then(Value::as_object).into_iter().flatten()
                {
                    let found = outcome.measures[measure];
                    assert!(
                        (found - value.as_f64().unwrap()).abs() < 1e-9,
                        "{at} {measure}: {found}, {value}"
                    );
                }
            }
        }
    }
}

#[test]
fn readings_are_those_of_an_independent_computation() {
    for (task, of_task) in expected().as_object().unwrap() {
        let benchmark = Benchmark::from_name(task).unwrap();
        for (name, of_protocol) in of_task["protocols"].as_object().unwrap() {
            let protocol = task::find(benchmark, name).unwrap();
            for reading in of_protocol.get("readings").and_then(Value::as_array).into_iter().flatten() {
                let text = reading[0].as_str().unwrap();
                let found = match protocol.judge(Output { text, choice_logprobs: &[] }) {
                    task::Judgement::Answer { pred, .. } => Some(pred.to_string()),
                    task::Judgement::Unreadable(_) => None,
                    task::Judgement::Impossible(reason) => panic!("{reason}"),
                };
                assert_eq!(found.as_deref(), reading[1].as_str(), "{task} {name}: {text:?}");
            }
        }
    }
}

#[test]
fn a_joined_text_is_scored_as_by_llama_perplexity() {
    let tokenizer = tokenizer();
    let text: String =
        (0..200).map(|line| format!(" Line {line} of an article . \n = Heading = \n")).collect();
    let dir = folder(&[("wiki.test.tokens", text.as_bytes())]);
    let benchmark = Benchmark::from_name("wikitext-2-joined").unwrap();
    let protocol = task::find(benchmark, "llama-cpp").unwrap();
    let evaluation = evaluation(benchmark, protocol, dir.path(), None, &tokenizer);
    let ids = tokenizer.encode_prompt(&text);
    let prefix = tokenizer.encode_prompt("").len();
    let (mut progress, mut next) = evaluation.start(0);
    for window in ids.chunks_exact(512) {
        let Next::Ask(request) = next else { panic!("{next:?}") };
        assert_eq!(request.prompt, [&ids[..prefix], &window[prefix..]].concat());
        assert_eq!(request.score_from, Some(257));
        let completion = Completion {
            id: 0,
            tokens: vec![],
            text: None,
            choice_logprobs: vec![],
            prompt_logprobs: vec![-2.0; 255],
            finish: FinishReason::Eos,
            start_ns: 0,
            end_ns: 0,
        };
        next = evaluation.advance_heard(&mut progress, &completion, Heard { text: None, fault: None });
    }
    let Next::Done(outcome) = next else { panic!("{next:?}") };
    let tokens = 255.0 * (ids.len() / 512) as f64;
    assert!(tokens > 1000.0, "{tokens}");
    let measures = [("loglikelihood".to_owned(), -2.0 * tokens), ("tokens".to_owned(), tokens)];
    assert_eq!(outcome.measures, measures.into());
}

#[test]
fn the_real_sets_have_their_published_counts() {
    for (task, split, items, subjects) in [
        ("gsm8k", "test", 1319, 1),
        ("gsm8k", "train", 7473, 1),
        ("hellaswag", "val", 1000, 1),
        ("humaneval", "test", 164, 1),
        ("mmlu", "dev", 285, 57),
        ("mmlu", "test", 14042, 57),
        ("truthfulqa", "validation", 817, 1),
        ("wikitext-2", "test", 62, 1),
        ("wikitext-2-joined", "test", 1, 1),
    ] {
        let Some(dir) = real(task.trim_end_matches("-joined")) else { continue };
        let benchmark = Benchmark::from_name(task).unwrap();
        let dataset = Source::open(benchmark, &dir).unwrap().read(split, &[]).unwrap();
        assert_eq!((dataset.items.len(), dataset.subjects.len()), (items, subjects), "{task} {split}");
        let without = dataset.subjects.values().filter(|subject| subject.category.is_none()).count();
        assert_eq!(without, if benchmark.categories.is_empty() { subjects } else { 0 }, "{task}");
    }
}

#[test]
fn sets_that_are_not_there_have_a_made_up_one_in_their_layout() {
    for (task, items) in [
        ("aime2024", 50),
        ("arc-challenge", 50),
        ("arc-easy", 50),
        ("bbh", 50),
        ("cmmlu", 50),
        ("gpqa", 50),
        ("humaneval-x", 50),
        ("longbench", 42),
        ("needlebench", 1600),
    ] {
        if real_exists(task) {
            continue;
        }
        skipped(&format!("no real {task} beside the checkout; its made-up set is read instead"));
        let benchmark = Benchmark::from_name(task).unwrap();
        let dir = data(task).unwrap();
        assert_eq!(
            Source::open(benchmark, &dir).unwrap().read(benchmark.default_split, &[]).unwrap().items.len(),
            items
        );
    }
}

fn real_exists(task: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/datasets").join(task).is_dir()
}

/// A small task file of a user, with its data.
const OWN: &str = r#"schema = 1
name = "capitals"
about = "Capitals."
origin = "made up"
licence = "none"

[data]
format = "jsonl"
splits = ["shots", "test"]
default = "test"
demonstrations = "shots"
files = "{split}.jsonl"
question = "country"
fields = { country = "country", options = "cities" }
answer = { kind = "choice", value = "right" }

[[protocol]]
name = "letters"
about = "the letter as text"
source = "made up"
shots = 1
demonstration = "{{ country }}: {{ answer }}\n"

[[protocol.stage]]
kind = "generate"
prompt = "{{ country }}: {% for city in options %}{{ letter(loop.index0) }} {{ city }} {% endfor %}"
max_new_tokens = 4
stop = ["\n"]

[[protocol.read]]
rule = "first"
kind = "first-character"

[[protocol]]
name = "cities"
about = "the likeliest city"
source = "made up"

[[protocol.stage]]
kind = "continuations"
prompt = "{{ country }}:"
continuation = " {{ option }}"
normalise = "unconditional"
unconditional = "City:"
"#;

const SHOTS: &str = "{\"country\": \"France\", \"cities\": [\"Paris\", \"Lyon\"], \"right\": 0}\n";
const TEST: &str = "{\"country\": \"Spain\", \"cities\": [\"Sevilla\", \"Madrid\"], \"right\": 1}\n";

fn own() -> tempfile::TempDir {
    folder(&[
        ("own.toml", OWN.as_bytes()),
        ("shots.jsonl", SHOTS.as_bytes()),
        ("test.jsonl", TEST.as_bytes()),
    ])
}

#[test]
fn a_users_task_file_is_a_benchmark_like_any_other() {
    let dir = own();
    let benchmark = task::file::load(&dir.path().join("own.toml")).unwrap();
    assert!(std::ptr::eq(benchmark, task::file::load(&dir.path().join("own.toml")).unwrap()));
    assert_eq!((benchmark.name, benchmark.layouts[0].name()), ("capitals", "capitals-jsonl"));
    let tokenizer = tokenizer();
    let letters =
        evaluation(benchmark, task::find(benchmark, "letters").unwrap(), dir.path(), None, &tokenizer);
    let (mut progress, next) = letters.start(0);
    let Next::Ask(request) = next else { panic!("{next:?}") };
    assert_eq!(letters.asked(&progress), "France: A\nSpain: A Sevilla B Madrid ");
    assert_eq!((request.max_new_tokens, request.stop.texts), (4, vec!["\n".to_owned()]));
    let completion = Completion {
        id: 0,
        tokens: tokenizer.encode(" B\nItaly"),
        text: None,
        choice_logprobs: vec![],
        prompt_logprobs: vec![],
        finish: FinishReason::Length,
        start_ns: 0,
        end_ns: 0,
    };
    let Next::Done(outcome) = letters.advance(&mut progress, &completion) else { panic!() };
    assert!(outcome.is_correct() && outcome.rule == "first" && outcome.state == State::Scored, "{outcome:?}");

    let cities =
        evaluation(benchmark, task::find(benchmark, "cities").unwrap(), dir.path(), None, &tokenizer);
    let outcome = drive(&cities, 0, &[]);
    let prompts: Vec<&str> = outcome.stages.iter().map(|stage| stage.prompt.as_str()).collect();
    assert_eq!(prompts, ["Spain: Sevilla", "Spain: Madrid", "City: Sevilla", "City: Madrid"]);
    let values = [
        logprob("Spain: Sevilla") - logprob("City: Sevilla"),
        logprob("Spain: Madrid") - logprob("City: Madrid"),
    ];
    assert_eq!(outcome.choice_logprobs, values);
}

/// Replaces the first `from` in the user's file, and returns the error of reading it.
fn refused(from: &str, to: &str) -> String {
    refused_of(OWN, from, to)
}

/// The same of another file.
fn refused_of(file: &str, from: &str, to: &str) -> String {
    assert!(file.contains(from), "{from}");
    let text = file.replacen(from, to, 1);
    let parsed = task::file::parse(Path::new("own.toml"), &text);
    parsed.err().unwrap_or_else(|| panic!("{from:?} -> {to:?} was accepted")).to_string()
}

#[test]
fn a_wrong_task_file_is_refused_with_its_place() {
    for (from, to, says) in [
        ("schema = 1", "schema = 9", "own.toml:1:10: found schema 9; expected 1"),
        ("default = \"test\"", "defualt = \"test\"", "found no `default`"),
        ("licence", "license", "own.toml:1:1: found no `licence`"),
        ("shots = 1\n", "shots = 1\nshuffle = true\n", "found the unknown key `shuffle`"),
        ("name = \"capitals\"", "name = \"gsm8k\"", "which a built-in task has"),
        ("name = \"capitals\"", "name = \"Capitals\"", "own.toml:2:8: found the name \"Capitals\""),
        (
            "{{ country }}:\"\ncontinuation",
            "{{ contry }}:\"\ncontinuation",
            "uses the undefined name `contry`; did you mean `country`?",
        ),
        ("{{ option }}", "{{ option }", "syntax error"),
        ("kind = \"first-character\"", "kind = \"first-charactr\"", "did you mean `first-character`?"),
        ("kind = \"first-character\"", "kind = \"regex\"\npattern = \"(a{9999}){9999}\"", "needs more than"),
        (
            "kind = \"first-character\"",
            "kind = \"regex\"\npattern = \"(a)\"\ngroup = 2",
            "found group 2; expected at most 1",
        ),
        (
            "normalise = \"unconditional\"\nunconditional = \"City:\"",
            "normalise = \"unconditional\"",
            "found no `unconditional`",
        ),
        (
            "demonstration = \"{{ country }}: {{ answer }}\\n\"\n",
            "",
            "the template `demonstration` beside them",
        ),
        (
            "kind = \"choice\", value = \"right\"",
            "kind = \"number\", value = \"right\"",
            "data whose answers are of the kind choice",
        ),
        ("files = \"{split}.jsonl\"", "files = \"../{split}.jsonl\"", "a path below the data set's folder"),
        (
            "splits = [\"shots\", \"test\"]",
            "splits = [\"shots\", \"test\", \"../up\"]",
            "a path below the data set's folder",
        ),
        (
            "splits = [\"shots\", \"test\"]",
            "splits = [\"shots\", \"test\", \"test\"]",
            "found the split \"test\" twice",
        ),
        ("question = \"country\"", "question = \"contry\"", "did you mean `country`?"),
        (
            "[[protocol.read]]\nrule = \"first\"\nkind = \"first-character\"\n",
            "",
            "found no [[protocol.read]]",
        ),
    ] {
        let message = refused(from, to);
        assert!(message.starts_with("own.toml:") && message.contains(says), "{from:?} -> {to:?}: {message}");
    }
    let joined = fs::read_to_string("datasets/tasks/wikitext-2-joined.toml").unwrap();
    for (from, to, says) in [
        ("\"second-half\"", "\"second half\"", "did you mean `second-half`?"),
        ("window = 512", "window = 3", "found 3; expected a whole number from 4"),
        ("set = \"wikitext-2\"", "set = \"../wikitext-2\"", "found the name \"../wikitext-2\""),
    ] {
        let message = refused_of(&joined, from, to);
        assert!(message.starts_with("own.toml:") && message.contains(says), "{from:?} -> {to:?}: {message}");
    }
}

#[test]
fn wrong_data_is_refused_with_file_and_line() {
    for (row, says) in [
        (
            "{\"country\": \"Spain\", \"right\": 1}\n",
            "test.jsonl:1: found no column `cities`; the row has country, right",
        ),
        (
            "{\"country\": \"Spain\", \"cities\": [\"a\"], \"right\": 1}\n",
            "test.jsonl:1: found the answer \"1\"; the item has 1 options",
        ),
        (
            "{\"country\": \"Spain\", \"cities\": [\"a\"], \"right\": \"x\"}\n",
            "expected the number of an option, from 0",
        ),
        ("{\"country\": \"Spain\", \"cities\": [[\"a\"]], \"right\": 0}\n", "for `options`; expected a text"),
        ("{\"country\": \"Spain\"\n", "test.jsonl:1: column"),
        ("", "test.jsonl:1: found an empty file"),
    ] {
        let dir = own();
        fs::write(dir.path().join("test.jsonl"), row).unwrap();
        let benchmark = task::file::load(&dir.path().join("own.toml")).unwrap();
        let message = Source::open(benchmark, dir.path()).unwrap().read("test", &[]).unwrap_err().to_string();
        assert!(message.contains(says), "{row:?}: {message}");
    }
}

/// Filters are looked up when an expression runs, so an unknown one is a fault of every row.
#[test]
fn an_unknown_filter_is_named_with_the_row() {
    let dir = own();
    let text = OWN
        .replace("name = \"capitals\"", "name = \"nope\"")
        .replace("options = \"cities\"", "options = \"cities|nope\"");
    let benchmark = task::file::parse(Path::new("own.toml"), &text).unwrap();
    let message = Source::open(benchmark, dir.path()).unwrap().read("test", &[]).unwrap_err().to_string();
    assert!(message.contains("test.jsonl:1: ") && message.contains("unknown filter"), "{message}");
}

#[test]
fn tokens_that_are_not_single_are_refused_before_anything_runs() {
    let text = OWN.replace("name = \"capitals\"", "name = \"words\"").replace(
        "kind = \"continuations\"\nprompt = \"{{ country }}:\"\ncontinuation = \" {{ option }}\"\nnormalise = \"unconditional\"\nunconditional = \"City:\"",
        "kind = \"tokens\"\nprompt = \"{{ country }}:\"\ntokens = [\" Sevilla la bella\", \" B\"]\nafter = \":\"",
    );
    let benchmark = task::file::parse(Path::new("own.toml"), &text).unwrap();
    let message = task::find(benchmark, "cities").unwrap().choices(&tokenizer()).unwrap_err().to_string();
    assert!(
        message.contains("the tokenizer splits \": Sevilla la bella\"") && message.contains("continuations"),
        "{message}"
    );
}

#[test]
fn the_verbs_show_and_check_a_task() {
    let dir = own();
    let (file, data) = (dir.path().join("own.toml"), dir.path().to_str().unwrap().to_owned());
    let file = file.to_str().unwrap();
    let shown = answer(&["show", "task", file, "--dataset", &data]).expect(0, &[]).out;
    assert!(shown.contains(OWN.trim_end()), "{shown}");
    assert!(shown.contains("# letters: the first prompt of capitals/test/0, "), "{shown}");
    assert!(shown.contains("France: A\nSpain: A Sevilla B Madrid"), "{shown}");
    let built_in = answer(&["show", "task", "hellaswag"]).expect(0, &[]).out;
    assert!(
        built_in.contains("name = \"lm-eval-norm\"") && built_in.contains("no data in datasets/hellaswag"),
        "{built_in}"
    );
    answer(&["show", "task", "nothing"])
        .expect(2, &["found the task \"nothing\"; expected one of ceval, boolq"]);

    let checked = answer(&["check", file, &data]).expect(0, &[]).out;
    for says in [
        "split        test: 1 items, 1 subjects, 1 files",
        "protocol     letters: 1 items, 1 shots, 1 calls of the model",
        "  answers    B 1 (100.0 %)",
        "  duplicates none",
        "protocol     cities: 1 items, 0 shots, 4 calls of the model",
    ] {
        assert!(checked.contains(says), "{says:?} is not in: {checked}");
    }
    // The demonstration is the question itself, and a question comes twice.
    fs::write(dir.path().join("shots.jsonl"), TEST).unwrap();
    fs::write(dir.path().join("test.jsonl"), TEST.repeat(2)).unwrap();
    let leaks = answer(&["check", file, &data])
        .expect(2, &["capitals/test/0 is shown its own question, as the demonstration capitals/shots/0"]);
    assert!(
        leaks.out.contains("duplicates 1: capitals/test/1 has the content of capitals/test/0"),
        "{}",
        leaks.out
    );
    // A prompt over the model's length.
    let long = TEST.replace("Spain", &"Spain ".repeat(9000));
    fs::write(dir.path().join("test.jsonl"), long).unwrap();
    answer(&["check", file, &data]).expect(2, &["the model's seq_length"]);
}

/// A user's task goes the whole way: run on the demo model, recorded with its file, scored again without it.
#[test]
fn a_users_task_is_run_recorded_and_scored_again_without_its_file() {
    let dir = own();
    let suite = dir.path().join("s.toml");
    let case = |protocol: &str| {
        format!("[[accuracy]]\ntask = \"own.toml\"\ndataset = \".\"\nprotocol = \"{protocol}\"\n")
    };
    fs::write(&suite, format!("schema = 1\nname = \"s\"\n{}{}", case("letters"), case("cities"))).unwrap();
    let out = dir.path().join("out");
    let of = |path: &Path| path.to_str().unwrap().to_owned();
    let run = answer(&["run", &of(&suite), "--out", &of(&out)]).expect(0, &[]);
    assert!(run.out.contains("capitals-letters") && run.out.contains("capitals-cities"), "{}", run.out);
    let folder = fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    let record: Value = serde_json::from_str(&fs::read_to_string(folder.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["plan"]["accuracy"][0]["task_file"]["text"], OWN);
    let hash = &record["plan"]["accuracy"][0]["task_file"]["sha256"];
    assert_eq!(&record["identity"]["fields"]["capitals-letters.task_file"], hash, "{}", record["identity"]);
    let samples = fs::read_to_string(folder.join("samples.jsonl")).unwrap();
    let cities: Value = serde_json::from_str(samples.lines().last().unwrap()).unwrap();
    assert_eq!(
        (cities["state"].as_str(), cities["choice_logprobs"].as_array().unwrap().len()),
        (Some("scored"), 2)
    );
    fs::remove_file(dir.path().join("own.toml")).unwrap();
    answer(&["score", &of(&folder)]).expect(0, &[]);
    answer(&["report", &of(&folder)]).expect(0, &[]);
    let shown = answer(&["show", &of(&folder), "capitals-cities/capitals/test/0"]).expect(0, &[]).out;
    assert!(shown.contains("Spain: Sevilla"), "{shown}");
}

/// A prompt that is too long keeps its two ends, and what stands around it is not cut.
#[test]
fn a_long_prompt_keeps_its_ends() {
    let text = OWN
        .replace("name = \"capitals\"", "name = \"ends\"")
        .replace("shots = 1\ndemonstration = \"{{ country }}: {{ answer }}\\n\"\n", "")
        .replace(
            "max_new_tokens = 4",
            "max_new_tokens = { field = \"limit\", most = 9 }\nkeep_ends = 8\nbefore_prompt = \"<{{ subject }}>\"\nafter_prompt = \"<end>\"",
        )
        .replace("fields = { country", "fields = { limit = \"limit\", country");
    let benchmark = task::file::parse(Path::new("ends.toml"), &text).unwrap();
    let country = "one two three four five six seven eight nine ten";
    let row = |limit: &str| {
        format!("{{\"country\": \"{country}\", \"cities\": [\"a\"], \"right\": 0, \"limit\": {limit}}}\n")
    };
    let dir = folder(&[("test.jsonl", (row("7") + &row("99") + &row("\"x\"")).as_bytes())]);
    let tokenizer = tokenizer();
    let letters =
        evaluation(benchmark, task::find(benchmark, "letters").unwrap(), dir.path(), None, &tokenizer);
    let (progress, next) = letters.start(0);
    let Next::Ask(request) = next else { panic!("{next:?}") };
    let whole = tokenizer.encode_prompt(&format!("{country}: A a "));
    let ends = tokenizer.decode(&whole[..4]) + &tokenizer.decode(&whole[whole.len() - 4..]);
    assert_eq!(letters.asked(&progress), format!("<ends>{ends}<end>"));
    assert_eq!(request.max_new_tokens, 7);
    // The protocol's largest limit bounds an item's own.
    let (_, next) = letters.start(1);
    let Next::Ask(request) = next else { panic!("{next:?}") };
    assert_eq!(request.max_new_tokens, 9);
    let (_, next) = letters.start(2);
    let Next::Done(outcome) = next else { panic!("{next:?}") };
    assert!(outcome.reason().unwrap().contains("found \"x\" for `limit`"), "{outcome:?}");
}

/// What is scored is neither right nor wrong, and is recorded with its measures.
#[test]
fn a_scored_text_has_measures_and_is_not_right() {
    let benchmark = Benchmark::from_name("bbh").unwrap();
    assert!(task::find(benchmark, "lm-eval-cot").unwrap().has_key());
    let benchmark = Benchmark::from_name("longbench").unwrap();
    let protocol = task::find(benchmark, "official").unwrap();
    assert!(!protocol.has_key() && !protocol.runs_programs());
    let dir = fixtures().join("data/longbench");
    let tokenizer = tokenizer();
    let outcome = drive_with(&evaluation(benchmark, protocol, &dir, None, &tokenizer), 0, &[], Some(""));
    assert_eq!(
        (outcome.pred.clone(), outcome.is_correct(), outcome.state.clone()),
        (None, false, State::Scored)
    );
    assert_eq!(outcome.measures["score"], 0.0);
    // LongBench-E: the same folder, the files with `_e`.
    let source = Source::open(benchmark, &dir).unwrap();
    let e = source.read("e", &[]).unwrap();
    assert_eq!(
        (e.items.len(), e.subjects.len(), source.read("test", &[]).unwrap().subjects.len()),
        (26, 13, 21)
    );
}

#[test]
fn wrong_needles_and_files_beside_are_named() {
    let needles = Benchmark::from_name("needlebench").unwrap();
    let essays = "{\"text\": \"a b c\"}\n";
    let needle = |question: &str, language: &str| {
        format!(
            "{{\"needle\": \"n\", \"retrieval_question\": \"{question}\", \"arg2\": \"k\", \"language\": \"{language}\"}}\n"
        )
    };
    let good = needle("q? Please answer in the format x", "English") + &needle("q？请按照x", "Chinese");
    for (rows, files, says) in [
        (
            needle("q? Please answer in the format x", "English"),
            2,
            "needles.jsonl:1: found no needle of the language \"Chinese\"",
        ),
        (
            needle("q?", "English") + &needle("q？请按照x", "Chinese"),
            2,
            "needles.jsonl:1: found the question \"q?\"; expected \"Please answer in the format\" in it",
        ),
        ("{\"needle\": 1}\n".to_owned(), 2, "needles.jsonl:1: found no text `needle`"),
        (good.clone(), 1, "zh_finance.jsonl:1: found no such file; expected the essays"),
    ] {
        let all = [
            ("needles.jsonl", rows.as_bytes()),
            ("PaulGrahamEssays.jsonl", essays.as_bytes()),
            ("zh_finance.jsonl", essays.as_bytes()),
        ];
        let dir = folder(&all[..=files]);
        let message = Source::open(needles, dir.path()).unwrap().read("4k", &[]).unwrap_err().to_string();
        assert!(message.contains(says), "{says:?} is not in: {message}");
    }
    let bbh = Benchmark::from_name("bbh").unwrap();
    for (json, beside, says) in [
        ("{\"examples\": []}", "x", "snarks.json:1: found an empty file"),
        ("{\"rows\": []}", "x", "snarks.json:1: found no `examples`; expected an object with the array"),
        ("[]", "x", "expected an object with the array `examples`"),
        ("{\"examples\": [{\"input\": \"q\", \"target\": \"t\"}]}", "x", "found no \"-----\\n\" in the text"),
    ] {
        let dir =
            folder(&[("bbh/snarks.json", json.as_bytes()), ("cot-prompts/snarks.txt", beside.as_bytes())]);
        let message = Source::open(bbh, dir.path()).unwrap().read("test", &[]).unwrap_err().to_string();
        assert!(message.contains(says), "{says:?} is not in: {message}");
    }
    let dir =
        folder(&[("bbh/snarks.json", b"{\"examples\": [{\"input\": \"q\", \"target\": \"t\"}]}".as_slice())]);
    let message = Source::open(bbh, dir.path()).unwrap().read("test", &[]).unwrap_err().to_string();
    assert!(
        message.contains("cot-prompts/snarks.txt:1: found no such file; expected the text `cot` of snarks"),
        "{message}"
    );
}
