//! Verbs that use a finished run without its model: report, show, score, export. Also covers runs of older schemas.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Answer, answer};

/// A run directory in its own folder.
struct Run {
    folder: TempDir,
    path: PathBuf,
}

impl Run {
    /// A copy of the committed run with schema 1.
    fn of_schema_1() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("20260101T000000Z-old");
        fs::create_dir(&path).unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/run-schema1");
        for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
            fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
        }
        Self { folder, path }
    }

    /// A new run of the demo model: every protocol with few items, some limited to few new tokens. At least one item is
    /// unscorable.
    fn of_today() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
        let case = |task: &str, protocol: &str, more: &str| {
            let set = sets.join(format!("{task}-sample"));
            format!(
                "[[accuracy]]\ntask = \"{task}\"\ndataset = {set:?}\nprotocol = \"{protocol}\"\nlimit = 6\n{more}\n"
            )
        };
        let mut suite = "schema = 1\nname = \"after\"\n[model]\npath = \"demo\"\n".to_owned();
        suite += &case("ceval", "two-stage", "max_new_tokens = 8");
        suite += &case("ceval", "modeltest-5shot", "");
        suite += &case("ceval", "modeltest-0shot", "max_new_tokens = 1");
        suite += &case("boolq", "modeltest", "");
        suite += &case("boolq", "loglikelihood", "");
        fs::write(folder.path().join("after.toml"), suite).unwrap();
        let runs = folder.path().join("runs");
        let suite = folder.path().join("after.toml");
        answer(&["run", suite.to_str().unwrap(), "--threads", "1", "--out", runs.to_str().unwrap()]);
        let path = the_only(&runs);
        Self { folder, path }
    }

    fn word(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn answer(&self, verb: &str, more: &[&str]) -> Answer {
        answer(&[&[verb, self.word()][..], more].concat())
    }

    fn samples(&self) -> Vec<Value> {
        lines(&self.path.join("samples.jsonl"))
    }

    /// Edits the samples of the run.
    fn change(&self, change: impl Fn(usize, &mut Value)) {
        let mut samples = self.samples();
        samples.iter_mut().enumerate().for_each(|(i, sample)| change(i, sample));
        let text: String = samples.iter().map(|sample| format!("{sample}\n")).collect();
        fs::write(self.path.join("samples.jsonl"), text).unwrap();
    }
}

fn the_only(folder: &Path) -> PathBuf {
    let entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries[0].clone()
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// Records older than schema 4 name no benchmark. The task's name began with it.
#[test]
fn the_benchmark_of_an_old_record_is_the_beginning_of_the_tasks_name() {
    let run = glmbench::record::RunDir::open(&Run::of_schema_1().path).unwrap().read_run().unwrap();
    let of = |case: &glmbench::record::AccuracyCase| (case.task.clone(), case.benchmark.clone());
    let found: Vec<(String, String)> = run.plan.accuracy.iter().map(of).collect();
    let expected = [("ceval-two-stage", "ceval"), ("ceval-modeltest-0shot", "ceval"), ("boolq", "boolq")];
    assert_eq!(found, expected.map(|(task, benchmark)| (task.to_owned(), benchmark.to_owned())));
}

#[test]
fn a_run_of_the_first_schema_is_read_by_every_verb() {
    let run = Run::of_schema_1();
    // One of its items failed.
    let report = run.answer("report", &[]).expect(4, &["report.html"]);
    assert!(
        report.out.contains("ceval-two-stage") && report.out.contains("1 of 5 items failed"),
        "{}",
        report.out
    );
    for format in ["jsonl", "sql"] {
        let export = run.answer("export", &["--format", format]).expect(0, &[]);
        assert!(export.out.contains("20261123T080328Z-small-cpu-a4f49e"), "{format}");
    }
    for format in ["csv", "modeltest"] {
        run.answer("export", &["--format", format]).expect(0, &["written: "]);
        assert!(run.path.join("export").join(format).is_dir());
    }
    let show = run.answer("show", &["boolq/dev/0", "b1-i16-o4"]).expect(0, &[]);
    assert!(
        show.out.contains("batch 1, 16 tokens in, 4 out") && show.out.contains("times measured"),
        "{}",
        show.out
    );
    let score = run.answer("score", &[]).expect(4, &["written: ", "INVALID"]);
    assert_eq!(score.out.matches("no item changed").count(), 3, "{}", score.out);
}

#[test]
fn scoring_a_run_again_gives_the_scores_it_has() {
    let run = Run::of_today();
    let states: Vec<String> = run.samples().iter().map(|s| s["state"].to_string()).collect();
    assert!(states.contains(&"\"unscorable\"".to_owned()), "{states:?}");
    let score = run.answer("score", &["--json"]).expect(0, &[]);
    let data = json(&score);
    assert_eq!(data["tasks"].as_array().unwrap().len(), 5);
    for task in data["tasks"].as_array().unwrap() {
        assert_eq!(task["old"], task["new"]);
        assert_eq!(task["changed"], Value::Array(Vec::new()));
    }
    let new = PathBuf::from(data["written"].as_str().unwrap());
    assert_eq!(lines(&new.join("samples.jsonl")), run.samples());
    assert_eq!(lines(&new.join("prompts.jsonl")), lines(&run.path.join("prompts.jsonl")));
    let record = |path: &Path| -> Value {
        serde_json::from_str(&fs::read_to_string(path.join("run.json")).unwrap()).unwrap()
    };
    let (old_run, new_run) = (record(&run.path), record(&new));
    assert_eq!(old_run["identity"], new_run["identity"]);
    assert_ne!(old_run["run_id"], new_run["run_id"]);
    assert_eq!(new_run["provenance"]["scored_from"], old_run["run_id"]);
    assert!(fs::read_to_string(new.join("report.html")).unwrap().contains("Answers scored again from"));
    assert!(!new.join("requests.jsonl").exists());
}

#[test]
fn a_changed_extraction_shows_in_old_and_new() {
    let run = Run::of_schema_1();
    // An answer that the older program read wrongly: its record says B, its text C.
    run.change(|i, sample| {
        if i == 5 {
            sample["text"] = "答案是C。".into();
        }
    });
    let out = run.place("scored");
    let score = run.answer("score", &["--out", out.to_str().unwrap()]);
    // One item had failed, as `report` also says.
    let score = score.expect(4, &["accuracy.csv", "INVALID"]);
    assert!(
        score.out.contains("1 item changed") && score.out.contains("(gold D)  right D → wrong C"),
        "{}",
        score.out
    );
    let rows = fs::read_to_string(out.join("accuracy.csv")).unwrap();
    assert!(rows.contains("ceval-modeltest-0shot,all,all,modeltest-0shot,0,4,3,1,0,2,0.5"), "{rows}");
    assert!(fs::read_dir(run.folder.path()).unwrap().count() == 2, "no run directory is made with --out");
}

#[test]
fn another_protocol_reads_the_same_text_and_never_what_was_not_stored() {
    let run = Run::of_schema_1();
    run.change(|i, sample| {
        if i == 0 {
            sample["text"] = "没有".into();
        }
    });
    let score = run.answer("score", &["--protocol", "modeltest-0shot", "--json"]);
    let score =
        score.expect(4, &["not comparable with a score of either protocol", "cut off after 24 tokens"]);
    let data = json(&score);
    let task = &data["tasks"][0];
    assert_eq!(task["new"]["protocol"], "two-stage/modeltest-0shot");
    assert_eq!((&task["old"]["correct"], &task["new"]["correct"]), (&4.into(), &3.into()));
    assert_eq!(task["changed"][0]["new"]["outcome"], "unscorable");
    assert_eq!(data["tasks"][2]["new"], data["tasks"][2]["old"], "BoolQ has no such protocol and stays");
    let new = PathBuf::from(data["written"].as_str().unwrap());
    let identity = |path: &Path| {
        let run: Value = serde_json::from_str(&fs::read_to_string(path.join("run.json")).unwrap()).unwrap();
        run["identity"]["hash"].clone()
    };
    assert_ne!(identity(&new), identity(&run.path));
    // The log-probabilities are gone, together with the protocol that asked for them.
    let again = answer(&["score", new.to_str().unwrap(), "--json"]).expect(4, &["1 of 5 items failed"]);
    assert_eq!(json(&again)["tasks"][0]["changed"], Value::Array(Vec::new()));
    for (protocol, says) in [
        ("two-stage", "after two-stage's prompt were never computed"),
        ("loglikelihood", "after loglikelihood's prompt were never computed"),
        ("two_stage", "expected one of two-stage"),
    ] {
        run.answer("score", &["--protocol", protocol]).expect(2, &["--protocol", says]);
    }
}

#[test]
fn items_are_opened_with_what_the_model_saw() {
    let run = Run::of_today();
    let samples = run.samples();
    let name = samples[0]["doc_id"].as_str().unwrap();
    let show = run.answer("show", &[&format!("ceval-two-stage/{name}")]).expect(0, &[]);
    for part in ["[Round 1]", "综上所述", "prompt 2 of 2", "ln p(A, id ", "margin", "two-stage"] {
        assert!(show.out.contains(part), "{part}: {}", show.out);
    }
    let data = json(&run.answer("show", &[name, "--json"]).expect(0, &[]));
    assert_eq!(data["items"].as_array().unwrap().len(), 3, "one for each task that has it");
    let (item, calls) =
        (&data["items"][0]["runs"][0], data["items"][0]["runs"][0]["calls"].as_array().unwrap());
    let tokens: usize = calls.iter().map(|call| call["input_tokens"].as_array().unwrap().len()).sum();
    assert_eq!(item["sample"]["input_tokens_n"], tokens);
    assert_eq!(item["sample"]["choice_logprobs"], samples[0]["choice_logprobs"]);
    let unscorable = samples.iter().find(|s| s["state"] == "unscorable").unwrap();
    let word = format!("{}/{}", unscorable["task"].as_str().unwrap(), unscorable["doc_id"].as_str().unwrap());
    let show = run.answer("show", &[&word]).expect(0, &[]);
    assert!(show.out.contains("unscorable"), "{}", show.out);
    assert!(show.out.contains(unscorable["error"].as_str().unwrap()), "{}", show.out);
}

#[test]
fn without_kept_prompts_they_are_made_again_or_it_is_said_how() {
    let run = Run::of_schema_1();
    let item = "ceval-two-stage/ceval/val/antonym_pairs/0";
    let show = run.answer("show", &[item]).expect(0, &[]);
    assert!(
        show.out.contains("[Round 1]") && show.out.contains("its hash is the recorded one"),
        "{}",
        show.out
    );
    // A failed item that was never put to the model.
    let show = run.answer("show", &["ceval-two-stage/ceval/val/daily_routine/0"]).expect(0, &[]);
    for part in ["failed", "the prompt has 2311 tokens", "the model was not asked"] {
        assert!(show.out.contains(part), "{part}: {}", show.out);
    }
    // If the data set now has another question in the item's place, `show` does not present it as the item's.
    let set = run.place("set");
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/ceval-sample"), &set);
    let file = set.join("val/antonym_pairs_val.csv");
    let text = fs::read_to_string(&file).unwrap();
    let row = text.lines().nth(1).unwrap();
    fs::write(&file, text.replace(row, &row.replacen("。", "！", 1).replacen('是', "为", 1))).unwrap();
    let given = format!("ceval={}", set.display());
    let show = run.answer("show", &[item, "--set", &given]).expect(0, &[]);
    assert!(!show.out.contains("[Round 1]"), "{}", show.out);
    assert!(
        show.out.contains("is not the question of the run") && show.out.contains("--model DIR"),
        "{}",
        show.out
    );
    let show = run.answer("show", &[item, "--dataset", "nowhere"]).expect(0, &[]);
    assert!(show.out.contains("nowhere"), "{}", show.out);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn two_runs_of_an_item_stand_side_by_side() {
    let (a, b) = (Run::of_schema_1(), Run::of_schema_1());
    b.change(|i, sample| {
        if i == 0 {
            sample["pred"] = "A".into();
            sample["correct"] = false.into();
        }
    });
    let more = ["ceval-two-stage/ceval/val/antonym_pairs/0", "--with", b.word()];
    let show = a.answer("show", &more).expect(0, &[]);
    assert!(show.out.contains("flip: right → wrong"), "{}", show.out);
    assert_eq!(show.out.matches("[Round 1]").count(), 1, "equal prompts once: {}", show.out);
    b.change(|i, sample| {
        if i == 0 {
            sample["doc_hash"] = "other".into();
        }
    });
    let show = a.answer("show", &more).expect(0, &[]);
    assert!(show.out.contains("NOT THE SAME QUESTION"), "{}", show.out);
    let show = a.answer("show", &["b1-i16-o4", "--with", b.word()]).expect(0, &[]);
    assert_eq!(show.out.matches("b1-i16-o4: batch 1").count(), 2, "{}", show.out);
}

#[test]
fn what_is_meant_is_found_or_what_there_is_is_said() {
    let run = Run::of_schema_1();
    for (word, says) in [
        ("nix", "it has items such as ceval/val/"),
        ("ceval", "ceval matches "),
        ("b", "items, cases and loads: boolq/dev/0"),
        ("", "has no item, case or load"),
        ("../run.json", "has no item, case or load"),
    ] {
        run.answer("show", &[word]).expect(2, &[says]);
    }
    run.answer("show", &["market"]).expect(0, &[]);
    run.answer("show", &["market_prices/0"]).expect(0, &[]);
    let empty = run.place("empty");
    fs::create_dir(&empty).unwrap();
    for verb in [&["report"][..], &["score"], &["show"], &["export", "--format", "sql"]] {
        let mut args = verb.to_vec();
        args.insert(1, empty.to_str().unwrap());
        if verb == ["show"] {
            args.push("x");
        }
        answer(&args).expect(2, &["is no run: it has no run.json", "expected a run directory"]);
    }
    run.answer("export", &["--format", "modeltest", "--out", "-"]).expect(2, &["several files"]);
    run.answer("export", &["--format", "xml"]).expect(2, &["modeltest", "jsonl"]);
    fs::write(run.path.join("samples.jsonl"), "{\"schema\":9}\n").unwrap();
    let unreadable = "samples.jsonl: 1 line cannot be read (line 1: schema 9 was found";
    run.answer("export", &["--format", "sql"]).expect(4, &[unreadable]);
    fs::write(run.path.join("samples.jsonl"), "").unwrap();
    run.answer("score", &[]).expect(4, &["task boolq has 0 of 4 items", "nothing is scored"]);
}

#[test]
fn answers_that_no_protocol_leaves_are_failures_not_panics() {
    let run = Run::of_schema_1();
    run.change(|i, sample| match i {
        0 => sample["choice_logprobs"] = serde_json::json!([]),
        1 => sample["choice_logprobs"] = serde_json::json!([null, -1, -2, -3]),
        2 => sample["gold"] = "".into(),
        3 => sample["choice_logprobs"] = serde_json::json!(vec![-1; 99]),
        _ => {}
    });
    let data = json(&run.answer("score", &["--json"]).expect(4, &["INVALID"]));
    let changed = data["tasks"][0]["changed"].as_array().unwrap();
    assert_eq!(changed.len(), 3);
    assert!(changed.iter().all(|item| item["new"]["outcome"] == "failed"), "{changed:?}");
    run.change(|i, sample| {
        if i == 0 {
            sample["task"] = "no such task".into();
        }
    });
    run.answer("score", &[]).expect(4, &["1 line is of no task of the plan"]);
}

#[test]
fn sqlite_takes_what_the_sql_export_says() {
    let python = Command::new("python3").args(["-c", "import sqlite3"]).stderr(Stdio::null()).status();
    if !python.is_ok_and(|status| status.success()) {
        crate::support::skipped("there is no python3 with sqlite3");
        return;
    }
    let run = Run::of_schema_1();
    let awkward = "it's\0 \"so\"\n'); DROP TABLE runs; --";
    run.change(|i, sample| {
        if i == 0 {
            sample["text"] = awkward.into();
        }
    });
    let out = run.place("sql");
    run.answer("export", &["--format", "sql", "--out", out.to_str().unwrap()]).expect(0, &[".sql"]);
    let script = "import json, sqlite3, sys\n\
        db = sqlite3.connect(':memory:')\n\
        text = open(sys.argv[1], encoding='utf-8').read()\n\
        db.executescript(text); db.executescript(text)\n\
        db.row_factory = sqlite3.Row\n\
        all = lambda table: [dict(row) for row in db.execute(f'SELECT * FROM {table}')]\n\
        print(json.dumps([all('runs'), all('samples'), all('requests')]))";
    let python = Command::new("python3").arg("-c").arg(script).arg(the_only(&out)).output().unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let tables: Value = serde_json::from_slice(&python.stdout).unwrap();
    let (runs, samples, requests) =
        (&tables[0], tables[1].as_array().unwrap(), tables[2].as_array().unwrap());
    assert_eq!(runs.as_array().unwrap().len(), 1, "taken in twice, there once");
    let stored = run.samples();
    assert_eq!(samples.len(), stored.len());
    for (row, sample) in samples.iter().zip(&stored) {
        for (name, value) in sample.as_object().unwrap() {
            let expected = match value {
                Value::Bool(yes) => u8::from(*yes).into(),
                Value::Array(list) => Value::String(Value::Array(list.clone()).to_string()),
                other => other.clone(),
            };
            if name != "schema" {
                assert_eq!(row[name], expected, "{name}");
            }
        }
    }
    assert_eq!(samples[0]["text"], awkward);
    assert_eq!(requests.len(), lines(&run.path.join("requests.jsonl")).len());
    assert!(requests.iter().all(|row| row["tp"] == 1));
}
