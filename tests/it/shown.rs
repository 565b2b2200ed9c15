//! Content of foreign data sets, suites and records is shown as plain text. It has no effect on a terminal, a page or a
//! spreadsheet.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, answer};

/// Clears the screen, sets a title, returns to the line start, C1's CSI, DEL, and reverses the reading order.
const ACTS: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\r\u{9b}31m\u{7f}\u{202e}\u{2066}";
const MARKUP: &str = "<script>x()</script><img src=x onerror=y>|`a`**b**[c](http://d)";

/// Checks that a text contains no active characters.
#[track_caller]
fn inert(text: &str) {
    let acts = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if let Some(at) = text.find(acts) {
        let from = text[..at].char_indices().rev().nth(60).map_or(0, |(i, _)| i);
        panic!("{:?}", text[from..].chars().take(100).collect::<String>());
    }
}

#[track_caller]
fn shown<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Answer {
    let answer = answer(args);
    inert(&answer.out);
    inert(&answer.words);
    answer
}

/// A data set and a suite full of active characters, and a run of them.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let set = folder.path().join("set");
        fs::create_dir(&set).unwrap();
        let row = |answer: bool| {
            json!({"question": format!("is it {ACTS}"), "title": format!("t{ACTS}"), "answer": answer,
                "passage": format!("{MARKUP}\n{ACTS} = text")})
        };
        fs::write(set.join("dev.jsonl"), format!("{}\n{}\n", row(true), row(false))).unwrap();
        let suite = json!(format!("{MARKUP} {ACTS}")).to_string().replace('\u{7f}', "\\u007f");
        let suite = format!(
            "schema = 1\nname = \"shown\"\nabout = {suite}\n[model]\npath = \"demo\"\n[[accuracy]]\ntask = \"boolq\"\n\
             dataset = \"set\"\nprotocol = \"modeltest\"\n[[performance]]\nbatch = [1]\nlengths = [[8, 4]]\nrepetitions = 2\n\
             max_warmups = 1\n"
        );
        fs::write(folder.path().join("s.toml"), suite).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn run(&self) -> PathBuf {
        let answer = shown(&["run", &self.path("s.toml"), "--threads", "1", "--out", &self.path("runs")]);
        assert!(matches!(answer.code, Some(0 | 4)), "{answer:?}");
        fs::read_dir(self.path("runs")).unwrap().next().unwrap().unwrap().path()
    }
}

/// Replaces every text of a record, except where readers require a specific one.
fn spoil(run: &Path) {
    let text = format!("=1+1{ACTS}{MARKUP}\n# x");
    let path = run.join("run.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for field in ["model", "engine", "kernel", "dtype", "host", "os", "cpu_model", "started"] {
        record["provenance"][field] = json!(text);
    }
    record["run_id"] = json!(text);
    record["provenance"]["command_line"] = json!(["glmbench", text]);
    record["first_prompt"]["text"] = json!(format!("```\n{text}"));
    // As from an older program: without checksums and seal, which would reveal the changes.
    record["schema"] = json!(2);
    let fields = record.as_object_mut().unwrap();
    fields.remove("sum");
    fields.remove("seal");
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    let path = run.join("samples.jsonl");
    let lines = fs::read_to_string(&path).unwrap();
    let spoiled = lines.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for field in ["subject", "category", "pred", "text", "extract_rule"] {
            line[field] = json!(text);
        }
        line["correct"] = json!(false);
        line["schema"] = json!(2);
        line.as_object_mut().unwrap().remove("sum");
        format!("{line}\n")
    });
    fs::write(&path, spoiled.collect::<String>()).unwrap();
}

#[test]
fn texts_of_a_data_set_and_a_suite_do_nothing() {
    let bench = Bench::new();
    let suite = bench.path("s.toml");
    let dry = shown(&["run", &suite, "--dry-run"]).expect(0, &[]).out;
    assert!(dry.contains(r"\u{1b}[2J") && dry.contains(r"\u{202e}"), "{dry}");
    shown(&["check", &suite]).expect(0, &[]);
    let listed = shown(&["list", "suites", &bench.path("")]).expect(0, &[]).out;
    assert!(listed.contains(r"\u{1b}]0;x\u{7}\r\u{9b}31m\u{7f}\u{202e}\u{2066}"), "{listed}");
    let data = shown(&["list", "suites", &bench.path(""), "--json"]).expect(0, &[]).out;
    let data: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(data[0]["about"], format!("{MARKUP} {ACTS}"), "JSON holds the same text");
    let run = bench.run();
    let run = run.to_str().unwrap();
    let item = shown(&["show", run, "boolq/dev/0"]).expect(0, &[]).out;
    assert!(item.contains(r"is it \u{1b}[2J"), "{item}");
    let data = shown(&["show", run, "boolq/dev/0", "--json"]).expect(0, &[]).out;
    let data: Value = serde_json::from_str(&data).unwrap();
    assert!(data["items"][0]["runs"][0]["calls"][0]["prompt"].as_str().unwrap().contains(ACTS));
    let texts = bench.path("texts");
    fs::write(&texts, format!("a {ACTS} b\n")).unwrap();
    let chat = ["chat", "--model", "demo", "--greedy", "--max-new-tokens", "2", "--texts", &texts];
    assert!(shown(&chat).expect(0, &[]).out.contains(r"Question[0]: a \u{1b}[2J"));
    let missing = format!("no{ACTS}where");
    shown(&["show", run, &missing]).expect(2, &[r"no\u{1b}[2J"]);
    shown(&["run", &missing]).expect(2, &[r"no\u{1b}[2J"]);
    // clap removes what it takes for colour codes.
    shown(&[&missing]).expect(2, &[r"\r\u{9b}31m\u{202e}\u{2066}where"]);
}

#[test]
fn texts_of_a_record_do_nothing() {
    let bench = Bench::new();
    let run = bench.run();
    let other = Path::new(&bench.path("other")).to_path_buf();
    fs::create_dir(&other).unwrap();
    for file in ["run.json", "samples.jsonl", "requests.jsonl", "prompts.jsonl"] {
        fs::copy(run.join(file), other.join(file)).unwrap();
    }
    spoil(&other);
    let (run, other) = (run.to_str().unwrap(), other.to_str().unwrap());
    shown(&["report", other]);
    shown(&["show", other, "boolq/dev/0", "--with", run]).expect(0, &[]);
    shown(&["show", other, "b1-i8-o4"]).expect(0, &[]);
    shown(&["score", other, "--out", &bench.path("scored")]).expect(0, &[]);
    shown(&["compare", run, other, "--allow-mismatch", "--out", &bench.path("compared")]);
    shown(&["export", other, "--format", "csv", "--out", &bench.path("csv")]).expect(0, &[]);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    for folder in [other, &bench.path("compared")] {
        let markdown = read(&format!("{folder}/summary.md"));
        inert(&markdown);
        let outside_code =
            markdown.lines().filter(|line| !line.starts_with("Made by: ") && !line.contains("made by: "));
        for line in outside_code.map(|line| line.replace("\\]", "")) {
            assert!(
                !line.contains("<script") && !line.contains("](http") && !line.contains(" **b**"),
                "{line}"
            );
        }
        let page = read(&format!("{folder}/report.html"));
        inert(&page);
        assert!(!page.contains("<script") && !page.contains("<img"));
        for chart in fs::read_dir(format!("{folder}/charts")).unwrap().map(|chart| chart.unwrap().path()) {
            if chart.extension().is_some_and(|e| e == "svg") {
                let svg = fs::read_to_string(&chart).unwrap();
                inert(&svg);
                assert!(!svg.contains("<script"));
            }
        }
    }
    let mut cells = 0;
    for path in [
        format!("{other}/accuracy.csv"),
        bench.path("csv/samples.csv"),
        bench.path("compared/comparison.csv"),
    ] {
        for record in csv::Reader::from_path(&path).unwrap().records() {
            for cell in &record.unwrap() {
                let formula =
                    cell.starts_with(['=', '+', '-', '@', '\t', '\r']) && cell.parse::<f64>().is_err();
                assert!(!formula, "{path}: {cell:?}");
                cells += usize::from(cell.starts_with("'=1+1"));
            }
        }
    }
    assert!(cells > 3, "{cells}");
}
