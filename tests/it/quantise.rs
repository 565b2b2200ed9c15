//! `glmbench quantize` and what runs its folders: every verb that takes a model, and the dialogue scripts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Answer, answer, skipped};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn word(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Quantises the demo model with these flags into a folder of `dir`.
fn quantised(dir: &Path, flags: &[&str]) -> PathBuf {
    let out = dir.join("quantised");
    quantise(&word(&out), flags).expect(0, &["files written"]);
    out
}

fn quantise(out: &str, flags: &[&str]) -> Answer {
    let sample = word(&root().join("datasets/ceval-sample"));
    let set: &[&str] = if flags.contains(&"ceval") { &["--set", &sample] } else { &[] };
    answer(&[&["quantize", "demo", out], set, flags].concat())
}

#[test]
fn a_quantised_folder_runs_wherever_a_model_does() {
    let dir = tempfile::tempdir().unwrap();
    let flags = ["--scheme", "w8a8", "--calibration", "ceval", "--leave-float", "output_layer,dense_4h_to_h"];
    let out = quantised(dir.path(), &flags);
    let model = word(&out);
    for file in ["tokenizer.model", "tokenizer_config.json", "quant_model_description_w8a8.json"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    let chat = ["chat", "--model", &model, "--prompt", "hi", "--greedy", "--max-new-tokens", "4"];
    assert!(!answer(&chat).expect(0, &[]).out.trim().is_empty());
    let suite = word(&root().join("suites/boolq.toml"));
    let set = format!("boolq={}", word(&root().join("datasets/boolq-sample")));
    let runs = word(&dir.path().join("runs"));
    let asked = ["run", &suite, "--model", &model, "--set", &set, "--limit", "4", "--out", &runs];
    let described = answer(&[&asked[..], &["--dry-run"]].concat()).expect(0, &[]).out;
    for said in ["parameters, w8a8, rotary", "(w8a8: 12 of 17 linear layers, the others in float)"] {
        assert!(described.contains(said), "{said:?} is not in {described}");
    }
    answer(&asked).expect(0, &[]);
    let run = fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path();
    let record: serde_json::Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(record["identity"]["fields"]["quantisation"], "w8a8");
    answer(&["chat", "--model", &model, "--prompt", "hi", "--dtype", "w8a8-dynamic"])
        .expect(2, &["w8a8-dynamic was asked for, and the checkpoint is w8a8"]);
    // NumPy finds the same integers, combined scales and biases.
    let script = word(&root().join("scripts/quantise_reference.py"));
    let demo = word(&root().join("models/demo"));
    match Command::new("python3").args([&script, "check", &demo, &model]).output() {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("12 quantised linear layers are equal value by value"), "{said}");
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(said.contains("ModuleNotFoundError"), "{said}");
            skipped("python3 has no NumPy");
        }
        Err(error) => skipped(&format!("python3 cannot be run: {error}")),
    }
}

#[test]
fn what_cannot_be_quantised_is_refused_with_what_would_do() {
    let dir = tempfile::tempdir().unwrap();
    let out = word(&dir.path().join("out"));
    let refused = |flags: &[&str], says: &[&str]| {
        quantise(&out, flags).expect(2, says);
        assert!(!Path::new(&out).exists());
    };
    refused(&["--scheme", "w4a4"], &["w4a4", "expected w8a8, w8a8s, w8a8_dynamic, w8a16 or w4a16"]);
    refused(&["--scheme", "w8a8"], &["--calibration FILE.jsonl", "--calibration ceval"]);
    refused(&["--scheme", "w4a16"], &["groups of 128 do not divide the 96 inputs", "--group 0"]);
    let unknown = ["--scheme", "w8a16", "--leave-float", "dense_4_to_h"];
    refused(&unknown, &["--leave-float dense_4_to_h", "mlp.dense_4h_to_h"]);
    let smooth = ["--scheme", "w8a8_dynamic", "--smooth", "0.5"];
    refused(&smooth, &["scheme w8a8_dynamic with --smooth needs prompts"]);
    let scaled = ["--scheme", "w8a16", "--rope-scaling", "base"];
    refused(&scaled, &["there is no rope_ratio", "--rope-scaling"]);
    refused(&["--scheme", "w8a16", "--group", "64"], &["--group is for w4a16", "w8a16"]);
    refused(&["--scheme", "w8a16", "--calibration", "ceval"], &["--calibration is for", "w8a16"]);
    refused(&["--scheme", "w4a16", "--group", "0", "--act-method", "2"], &["--act-method is for"]);
    let of_cache = ["--scheme", "w8a16", "--kv", "c8", "--calibration", "ceval", "--act-method", "2"];
    refused(&of_cache, &["--act-method is for"]);
    refused(&["--scheme", "w8a8", "--set", "datasets"], &["--calibration"]);
    let rows = word(&dir.path().join("rows.jsonl"));
    fs::write(&rows, "{\"prompt\": \"a\"}\n{\"question\": \"b\"}\n").unwrap();
    let bad = ["--scheme", "w8a8", "--calibration", &rows];
    refused(&bad, &["rows.jsonl:2: ", "`inputs_pretokenized`, `prompt`, `text` or `ids`"]);
    quantise(&out, &["--scheme", "w8a16", "--dry-run"]).expect(0, &["of weights to write", "of memory"]);
    let demo = word(&root().join("models/demo"));
    answer(&["quantize", &demo, &demo, "--scheme", "w8a16"]).expect(2, &["the float model's folder"]);
    answer(&["quantize", "dummy:chatglm2-6b", &out, "--scheme", "w8a16"]).expect(2, &["random weights"]);
    fs::create_dir(&out).unwrap();
    fs::write(Path::new(&out).join("mine"), "kept").unwrap();
    quantise(&out, &["--scheme", "w8a16"]).expect(2, &["something is there already"]);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);
}

/// `IS_QUANT=1` expects a quantised folder, and any other word than 0 and 1 is a mistake.
#[cfg(unix)]
#[test]
fn the_dialogue_scripts_know_quantised_folders() {
    let dir = tempfile::tempdir().unwrap();
    let out = word(&quantised(dir.path(), &["--scheme", "w8a8", "--calibration", "ceval"]));
    let demo = word(&root().join("models/demo"));
    for script in ["run_300i_duo.sh", "run_800i_a2_pa.sh"] {
        let run = |is_quant: &str, model: &str| {
            let output = Command::new("sh")
                .arg(root().join("scripts").join(script))
                .args([model, "--emulate"])
                .env("IS_QUANT", is_quant)
                .env("TP_WORLD_SIZE", "1")
                .env("BIND_CPU", "0")
                .env("GLMBENCH", env!("CARGO_BIN_EXE_glmbench"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned(), said)
        };
        let (code, text, said) = run("1", &out);
        assert!(code == Some(0) && !text.trim().is_empty(), "{script}: {code:?} {said}");
        let (code, _, said) = run("1", &demo);
        assert!(code == Some(2) && said.contains("glmbench quantize"), "{script}: {said}");
        let (code, _, said) = run("2", &demo);
        assert!(code == Some(2) && said.contains("0 or 1 was expected"), "{script}: {said}");
    }
}
