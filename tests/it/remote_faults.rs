//! Faults of a server, end to end: what `samples.jsonl` says of each, and that the server's text is in it.

use std::fs;
use std::path::{Path, PathBuf};

use glmbench_remote::Api;
use glmbench_remote::testing::stub::{self, Schedule};
use glmbench_remote::testing::{Request, Script, Server, faults};
use serde_json::Value;

use crate::resume::samples;
use crate::support::{Answer, glmbench};

const SUITE: &str = r#"schema = 1
name = "f"
[model]
path = "demo"
[[accuracy]]
task = "ceval"
dataset = "DATASETS/ceval-sample"
protocol = "modeltest-0shot"
max_new_tokens = 4
limit = 2
batch = 1
"#;

/// Starts a server that answers the probe's short prompts well, and questions with a fault.
fn start(fault: &'static str) -> Server {
    Server::start(move |request: &Request| {
        let body = request.json();
        let question = match &body["prompt"] {
            Value::Array(ids) => ids.len() > 20,
            Value::String(text) => text.len() > 60,
            _ => false,
        };
        if question && body["stream"] == true {
            return faults::behave(fault, request, request.number);
        }
        stub::answer(Api::OpenAi, Schedule { tokens: 64, ..Schedule::default() }, request)
    })
}

/// Runs the suite on the server and returns the run directory.
fn run(server: &Server, folder: &Path, more: &[&str]) -> (Answer, PathBuf) {
    let root = env!("CARGO_MANIFEST_DIR");
    let suite = folder.join("f.toml");
    fs::write(&suite, SUITE.replace("DATASETS", &format!("{root}/datasets"))).unwrap();
    let out = folder.join("out");
    let mut args: Vec<String> =
        ["run", suite.to_str().unwrap(), "--endpoint", &server.url(), "--api", "openai"]
            .map(str::to_owned)
            .to_vec();
    args.extend(["--tokenizer".into(), format!("{root}/models/demo"), "--out".into()]);
    args.push(out.to_str().unwrap().to_owned());
    args.extend(more.iter().map(|&word| word.to_owned()));
    let answer = Answer::of(glmbench(&args).output().unwrap());
    let runs: Vec<PathBuf> = fs::read_dir(&out)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("samples.jsonl").exists())
        .collect();
    assert_eq!(runs.len(), 1, "{answer:?}");
    let run = runs.into_iter().next().unwrap();
    (answer, run)
}

#[test]
fn a_faulty_answer_is_a_failed_item_with_the_servers_text() {
    let cases = [
        ("cut", "cut off"),
        ("no_done", "end marker"),
        ("no_finish", "finish reason"),
        ("error_string", "out of memory"),
        ("raw_text", "Engine callback timeout: server tokenTimeout"),
        ("html_502", "502 Bad Gateway"),
        ("unavailable", "503"),
        ("wrong_model", "answered by `another`"),
        ("redirect", "/normal/v1/completions"),
        ("not_http", "not HTTP"),
    ];
    for (fault, text) in cases {
        let (server, folder) = (start(fault), tempfile::tempdir().unwrap());
        let (answer, run) = run(&server, folder.path(), &[]);
        let samples = samples(&run);
        assert_eq!(samples.len(), 2, "{fault}: {answer:?}");
        for sample in samples {
            assert_eq!(sample["state"], "failed", "{fault}: {sample}");
            assert!(sample["error"].as_str().unwrap().contains(text), "{fault}: {sample}");
            assert_eq!(sample["correct"], false, "{fault}");
        }
    }
}

#[test]
fn silence_fails_an_item_at_its_limit() {
    let (server, folder) = (start("silent_between"), tempfile::tempdir().unwrap());
    let (answer, run) = run(&server, folder.path(), &["--timeouts", "5,5,0.3,60"]);
    for sample in samples(&run) {
        assert_eq!(sample["state"], "failed", "{answer:?}");
        assert!(sample["error"].as_str().unwrap().contains("no further event within the limit"), "{sample}");
    }
}

#[test]
fn unusual_streams_are_answers() {
    for form in ["crlf", "comments", "split_bytes", "gzip", "close_each", "usage_never"] {
        let (server, folder) = (start(form), tempfile::tempdir().unwrap());
        let (answer, run) = run(&server, folder.path(), &[]);
        for sample in samples(&run) {
            // The stub knows no answers. What counts is that its text was taken as one.
            assert_ne!(sample["state"], "failed", "{form}: {sample} {answer:?}");
            assert!(!sample["text"].as_str().unwrap().is_empty(), "{form}: {sample}");
        }
    }
}

/// Starts a server that sends the key back: in its answers as `fault` says, as its version, and in its metrics.
fn start_echo(fault: &'static str) -> Server {
    Server::start(move |request: &Request| {
        let key = request.header("authorization").unwrap_or_default().replace("Bearer ", "");
        if request.path == "/metrics" {
            return Script::answer("200 OK", "text/plain", format!("running{{key=\"{key}\"}} 1\n"));
        }
        if request.path == "/v1/models" {
            let model = stub::MODEL;
            return Script::json(format!(r#"{{"data":[{{"id":"{model}","owned_by":"{key}"}}]}}"#));
        }
        let prompt = &request.json()["prompt"];
        let question = prompt.as_array().is_some_and(|ids| ids.len() > 20);
        if question && request.json()["stream"] == true {
            return faults::behave(fault, request, request.number);
        }
        stub::answer(Api::OpenAi, Schedule { tokens: 64, ..Schedule::default() }, request)
    })
}

#[test]
fn a_key_is_sent_and_recorded_nowhere() {
    for fault in ["echo_key", "echo_key_text"] {
        let (server, folder) = (start_echo(fault), tempfile::tempdir().unwrap());
        let key = folder.path().join("key");
        fs::write(&key, "sk-very-secret\n").unwrap();
        let (answer, run) = run(&server, folder.path(), &["--key-file", key.to_str().unwrap()]);
        let sent = server.answered();
        assert!(sent.iter().all(|a| a.request.header("authorization") == Some("Bearer sk-very-secret")));
        assert!(!format!("{answer:?}").contains("secret"), "{answer:?}");
        for entry in fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path()) {
            let bytes = fs::read(&entry).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains("sk-very-secret"), "{}", entry.display());
        }
        let record = fs::read_to_string(run.join("run.json")).unwrap();
        assert!(record.contains("\"server\": \"[key]\""), "the server's name is the key: {record}");
        let sample = &samples(&run)[0];
        // As an error of the server, and as the reason that ends its answer.
        assert!(sample["error"].as_str().unwrap().contains("[key]"), "{fault}: {sample}");
    }
}
