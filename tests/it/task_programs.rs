//! Tasks whose answers are programs: run in the sandbox, drawn several times, refused where they cannot be run.

use std::fs;
use std::path::{Path, PathBuf};

use glmbench::dataset::Source;
use glmbench::task::{self, Draws, Evaluation, Next, Plan, Settings, TextCodec};
use glmbench_engine::sampler::Sampling;
use glmbench_engine::{Completion, FinishReason};
use serde_json::Value;

use crate::dataset::folder;
use crate::support::{answer, shared, skipped};
use crate::tasks::tokenizer;

/// A task whose programs the tests write themselves: an item's program is its own, whatever the model says.
const RUN: &str = r#"schema = 1
name = "verdicts"
about = "Programs whose verdicts are known."
origin = "made up"
licence = "none"

[data]
format = "jsonl"
splits = ["test"]
default = "test"
files = "test.jsonl"
question = "program"
fields = { program = "program" }
answer = { kind = "none" }

[[protocol]]
name = "run"
about = "the item's own program, with the answer as a comment"
source = "made up"

[[protocol.stage]]
kind = "generate"
prompt = "def"
max_new_tokens = 2

[[protocol.read]]
rule = "whole"
kind = "whole"
[protocol.run]
language = "python"
program = "{{ program }}\n# {{ completion|length }}"
seconds = 5
pass_at = [1, 2, 4]
"#;

const PROGRAMS: &str = r#"{"program": "assert sum(range(10)) == 45"}
{"program": "assert 1 == 2, 'one is not two'"}
{"program": "raise SystemExit(0)"}
{"program": "import os; os._exit(0)"}
{"program": "import socket; socket.create_connection(('192.0.2.1', 80), 1)"}
"#;

fn run_suite(more: &str) -> (tempfile::TempDir, [String; 2]) {
    let suite = format!(
        "schema = 1\nname = \"s\"\n[[accuracy]]\ntask = \"run.toml\"\ndataset = \".\"\nprotocol = \"run\"\n{more}"
    );
    let dir = folder(&[
        ("run.toml", RUN.as_bytes()),
        ("test.jsonl", PROGRAMS.as_bytes()),
        ("s.toml", suite.as_bytes()),
    ]);
    let of = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let paths = [of("s.toml"), of("out")];
    (dir, paths)
}

/// Returns the samples of the only run in a folder, and its folder; `None` where the kernel refuses the sandbox.
fn samples_of([suite, out]: &[String; 2]) -> Option<(Vec<Value>, PathBuf)> {
    let run = answer(&["run", suite, "--out", out]);
    if run.words.contains("nothing is run; leave the case out") {
        assert_eq!(run.code, Some(2), "{run:?}");
        skipped(&run.words);
        return None;
    }
    run.expect(0, &[]);
    let folder = fs::read_dir(out).unwrap().next().unwrap().unwrap().path();
    let samples = fs::read_to_string(folder.join("samples.jsonl")).unwrap();
    Some((samples.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), folder))
}

/// Generated programs go the whole way: made, run in the sandbox, recorded with their verdicts, reported, and verified.
#[test]
fn programs_are_run_and_their_verdicts_recorded() {
    let (_dir, paths) = run_suite("");
    let Some((samples, folder)) = samples_of(&paths) else { return };
    let verdicts: Vec<&str> =
        samples.iter().map(|sample| sample["programs"][0]["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts[..3], ["passed", "failed: one is not two", "failed: 0"]);
    // Ending the process says nothing, and there is no network.
    assert!(verdicts[3..].iter().all(|verdict| verdict.starts_with("failed: ")), "{verdicts:?}");
    let correct: Vec<bool> = samples.iter().map(|sample| sample["correct"].as_bool().unwrap()).collect();
    assert_eq!(correct, [true, false, false, false, false]);
    let folder = folder.to_str().unwrap();
    let record: Value =
        serde_json::from_str(&fs::read_to_string(format!("{folder}/run.json")).unwrap()).unwrap();
    assert!(record["provenance"]["versions"]["interpreter"].as_str().unwrap().starts_with("Python 3"));
    let scores = fs::read_to_string(format!("{folder}/accuracy.csv")).unwrap();
    assert!(scores.lines().nth(1).unwrap().contains(",0.2,"), "{scores}");
    // A record has no tests, so what was judged stays.
    answer(&["score", folder]).expect(0, &[]);
    let runs = fs::read_dir(&paths[1]).unwrap().map(|entry| entry.unwrap().path());
    let lines = runs.map(|run| fs::read_to_string(run.join("samples.jsonl")).unwrap()).collect::<Vec<_>>();
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|lines| lines.matches("\"correct\":true").count() == 1), "{lines:?}");
    let shown = answer(&["show", folder, "verdicts/verdicts/test/1"]).expect(0, &[]).out;
    assert!(shown.contains("failed: one is not two"), "{shown}");
}

/// HumanEval itself, on a model that cannot write programs: each one is made, run and refused, and the run can be verified.
#[test]
fn humaneval_is_run_and_verified() {
    let Some(set) = shared("datasets/humaneval") else { return };
    let suite = "schema = 1\nname = \"h\"\n[[accuracy]]\ntask = \"humaneval\"\nprotocol = \"modeltest\"\nlimit = 2\n\
                 max_new_tokens = 8\n";
    let dir = folder(&[("s.toml", suite.as_bytes())]);
    let of = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let set = format!("humaneval={}", set.display());
    let run = answer(&["run", &of("s.toml"), "--set", &set, "--out", &of("out")]);
    if run.words.contains("nothing is run; leave the case out") {
        return skipped(&run.words);
    }
    run.expect(0, &[]);
    let folder = fs::read_dir(of("out")).unwrap().next().unwrap().unwrap().path();
    let samples = fs::read_to_string(folder.join("samples.jsonl")).unwrap();
    assert!(samples.lines().all(|line| line.contains("\"verdict\":\"failed: ")), "{samples}");
    answer(&["verify", folder.to_str().unwrap(), "--set", &set]).expect(0, &[]);
}

/// The real HumanEval-X's own solutions that do not solve their items. docs/SANDBOX.md has the reasons.
const FAULTY: [&str; 4] = ["go/95", "js/112", "js/155", "js/162"];

/// The solutions of HumanEval-X in every language that can be run here pass in the sandbox, and empty bodies do not. The set is
/// made up, or the real one that `GLMBENCH_HUMANEVAL_X` names.
#[test]
fn the_solutions_of_humaneval_x_pass_in_every_language() {
    let made_up = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tasks/data/humaneval-x");
    let set = std::env::var_os("GLMBENCH_HUMANEVAL_X").map_or(made_up, PathBuf::from);
    let built_in = fs::read_to_string("datasets/tasks/humaneval-x.toml").unwrap();
    // The item's own solution in the place of what the model says.
    let solved = built_in
        .replace("name = \"humaneval-x\"", "name = \"solved-x\"")
        .replace("test = \"test\"\n", "test = \"test\"\nsolution = \"canonical_solution\"\n")
        .replace("in completion", "in solution")
        .replace("{{ completion }}", "{{ solution }}")
        .replace("max_new_tokens = 1024", "max_new_tokens = 1");
    for subject in ["cpp", "go", "java", "js", "python"] {
        let suite = format!(
            "schema = 1\nname = \"s\"\n[[accuracy]]\ntask = \"solved.toml\"\ndataset = {:?}\nprotocol = \"codegeex\"\n\
             subjects = [{subject:?}]\nbatch = 16\n\
             [[accuracy]]\ntask = \"humaneval-x\"\ndataset = {:?}\nprotocol = \"codegeex\"\nmax_new_tokens = 1\n\
             subjects = [{subject:?}]\nlimit = 2\n",
            set.display(),
            set.display()
        );
        let dir = folder(&[("solved.toml", solved.as_bytes()), ("s.toml", suite.as_bytes())]);
        let of = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let Some((samples, _)) = samples_of(&[of("s.toml"), of("out")]) else { continue };
        let verdict = |sample: &Value| sample["programs"][0]["verdict"].as_str().unwrap().to_owned();
        let (solved, unsolved): (Vec<&Value>, Vec<&Value>) =
            samples.iter().partition(|sample| sample["task"].as_str().unwrap().starts_with("solved"));
        // Two solutions of the real set in C++ need Boost, and one OpenSSL.
        let (without, solved): (Vec<&Value>, Vec<&Value>) =
            solved.into_iter().partition(|sample| verdict(sample).ends_with("No such file or directory"));
        if !without.is_empty() {
            skipped(&format!("{} solutions in {subject} need headers that are not here", without.len()));
        }
        assert!(without.len() <= 3 && !solved.is_empty(), "{without:?}");
        let is_faulty =
            |sample: &&Value| FAULTY.iter().any(|id| sample["doc_id"] == format!("solved-x/test/{id}"));
        let (faulty, solved): (Vec<&Value>, Vec<&Value>) = solved.into_iter().partition(is_faulty);
        for sample in faulty {
            skipped(&format!("the set's own solution of {}: {}", sample["doc_id"], verdict(sample)));
        }
        let wrong: Vec<_> = solved.iter().filter(|sample| verdict(sample) != "passed").collect();
        let named: Vec<String> =
            wrong.iter().map(|sample| format!("{}: {}", sample["doc_id"], verdict(sample))).collect();
        assert!(wrong.is_empty(), "{} of {} failed: {named:#?}", wrong.len(), solved.len());
        eprintln!("humaneval-x {subject}: all {} solutions pass", solved.len());
        assert!(unsolved.len() == 2 && unsolved.iter().all(|sample| verdict(sample).starts_with("failed: ")));
    }
}

#[test]
fn several_answers_are_drawn_by_seed_and_give_pass_at_k() {
    let (_dir, paths) = run_suite("samples = 4\ntemperature = 0.9\ntop_p = 0.95\nseed = 7\nbatch = 3\n");
    let Some((samples, folder)) = samples_of(&paths) else { return };
    let first = &samples[0];
    assert_eq!(first["programs"].as_array().unwrap().len(), 4);
    assert_eq!(first["measures"], serde_json::json!({"pass@1": 1.0, "pass@2": 1.0, "pass@4": 1.0}));
    assert_eq!(samples[1]["measures"]["pass@4"], 0.0);
    let report = fs::read_to_string(folder.join("summary.md")).unwrap();
    assert!(report.contains("pass@2"), "{report}");
    // The same seed draws the same, whatever the batch.
    let (_other, again) = run_suite("samples = 4\ntemperature = 0.9\ntop_p = 0.95\nseed = 7\nbatch = 1\n");
    let (again, _) = samples_of(&again).unwrap();
    let tokens =
        |samples: &[Value]| samples.iter().map(|one| one["output_tokens"].clone()).collect::<Vec<_>>();
    assert_eq!(tokens(&samples), tokens(&again));
    let (_third, other) = run_suite("samples = 4\ntemperature = 0.9\ntop_p = 0.95\nseed = 8\n");
    assert_ne!(tokens(&samples), tokens(&samples_of(&other).unwrap().0));
}

#[test]
fn wrong_draws_are_refused_with_their_place() {
    for (more, says) in [
        ("samples = 4\n", "s.toml:7:11: found `samples` without `temperature`; expected both"),
        ("temperature = 0.5\n", "found it without `samples`"),
        ("samples = 4\ntemperature = 0.5\ntop_p = 1.5\n", "found 1.5; expected above 0, at most 1"),
        ("samples = 0\ntemperature = 0.5\n", "found 0; expected a whole number from 1"),
        ("samples = 1001\ntemperature = 0.5\n", "found 1001; expected 1000 at most"),
    ] {
        let (_dir, [suite, out]) = run_suite(more);
        answer(&["run", &suite, "--out", &out]).expect(2, &[says]);
    }
    let text =
        "schema = 1\nname = \"s\"\n[[accuracy]]\ntask = \"gsm8k\"\nprotocol = \"modeltest\"\nsamples = 2\n";
    let dir = folder(&[("s.toml", text.as_bytes())]);
    let suite = dir.path().join("s.toml");
    answer(&["run", suite.to_str().unwrap()]).expect(2, &["none: modeltest reads one answer, the likeliest"]);
}

/// Seeds depend on the item and the number of the answer alone.
#[test]
fn each_answer_has_its_own_seed() {
    let dir = folder(&[("run.toml", RUN.as_bytes()), ("test.jsonl", PROGRAMS.as_bytes())]);
    let benchmark = task::file::load(&dir.path().join("run.toml")).unwrap();
    let draws = Draws { samples: 3, temperature: 0.5, top_p: 0.9, seed: 1 };
    let settings = Settings { split: "test".into(), draws: Some(draws), ..Settings::default() };
    let source = Source::open(benchmark, dir.path()).unwrap();
    let plan = Plan::new(task::find(benchmark, "run").unwrap(), &source, &settings).unwrap();
    let tokenizer = tokenizer();
    let evaluation = Evaluation::new(plan, &tokenizer as &dyn TextCodec, 4096).unwrap();
    let mut seeds = Vec::new();
    for index in 0..2 {
        let (mut progress, mut next) = evaluation.start(index);
        let mut asked = 0;
        let outcome = loop {
            let request = match next {
                Next::Ask(request) => request,
                Next::Done(outcome) => break outcome,
            };
            let Sampling::Random(of) = request.sampling else { panic!("{:?}", request.sampling) };
            assert_eq!((of.temperature, of.top_p, of.top_k), (0.5, 0.9, 0));
            seeds.push(of.seed);
            asked += 1;
            let completion = Completion {
                id: 0,
                tokens: vec![],
                text: None,
                choice_logprobs: vec![],
                prompt_logprobs: vec![],
                finish: FinishReason::Eos,
                start_ns: 0,
                end_ns: 0,
            };
            next = evaluation.advance(&mut progress, &completion);
        };
        assert_eq!(asked, 3);
        // Without a sandbox, nothing is run.
        assert!(outcome.reason().unwrap().contains("expected a sandbox"), "{outcome:?}");
    }
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 6);
}

#[test]
fn a_wrong_run_or_score_is_refused_with_its_place() {
    let refused = |from: &str, to: &str| {
        assert!(RUN.contains(from), "{from}");
        let parsed = task::file::parse(Path::new("run.toml"), &RUN.replacen(from, to, 1));
        parsed.err().unwrap_or_else(|| panic!("{from:?} -> {to:?} was accepted")).to_string()
    };
    let score = "[protocol.score]\nmetric = \"f1\"\n[protocol.run]";
    for (from, to, says) in [
        ("seconds = 5", "seconds = 601", "found 601 s; expected at most 600"),
        ("seconds = 5", "seconds = 0", "found 0; expected a number above 0"),
        (
            "language = \"python\"",
            "language = \"cobol\"",
            "expected one of cpp, go, java, javascript, python",
        ),
        (
            "language = \"python\"",
            "language = {}",
            "found an empty table; expected the language of each subject",
        ),
        ("language = \"python\"", "language = { a = \"pyton\" }", "did you mean `python`?"),
        ("kind = \"whole\"", "kind = \"whole\"\nsubjects = []", "found an empty array"),
        ("{{ completion|", "{{ complet|", "uses the undefined name `complet`"),
        ("pass_at = [1, 2, 4]", "pass_at = [0]", "found 0"),
        ("pass_at = [1, 2, 4]", "pass_at = [2000]", "found pass@2000; expected 1000 at most"),
        ("[protocol.run]", score, "found `run` beside `score`; expected one of the two"),
        (
            "kind = \"generate\"\nprompt = \"def\"\nmax_new_tokens = 2",
            "kind = \"likelihood\"\nprompt = \"def\"\nwindow = 9",
            "`score` and `run` take a text",
        ),
        ("max_new_tokens = 2", "max_new_tokens = { field = \"limit\", most = 5 }", "expected one of program"),
        ("max_new_tokens = 2", "max_new_tokens = { field = \"program\" }", "found no `most`"),
        ("max_new_tokens = 2", "max_new_tokens = 2\nbefore_prompt = \"x\"", "it beside `keep_ends` only"),
    ] {
        let message = refused(from, to);
        assert!(message.starts_with("run.toml:") && message.contains(says), "{from:?} -> {to:?}: {message}");
    }
    let scored = RUN.replace("[protocol.run]\nlanguage = \"python\"\n", "[protocol.score]\n");
    let table = scored.find("[protocol.score]\n").unwrap();
    for (table_text, says) in [
        (
            "metric = \"f1\"\n",
            "found the metric \"f1\"; expected a field `references` in [data.fields] for it",
        ),
        ("metric = \"f3\"\n", "did you mean `f1`?"),
        ("", "found no `metric`"),
        ("metric_field = \"program\"\n", "a field `references`"),
    ] {
        let text = format!("{}[protocol.score]\n{table_text}", &scored[..table]);
        let message = task::file::parse(Path::new("run.toml"), &text).err().unwrap().to_string();
        assert!(message.starts_with("run.toml:") && message.contains(says), "{table_text:?}: {message}");
    }
}
