//! Errors of a user, a disk or a foreign file give a message and an exit code, never a panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{answer, answer_to, glmbench, wait};

const SUITE: &str = r#"schema = 1
name = "bad"
[model]
path = "demo"
[[accuracy]]
task = "boolq"
dataset = "SET"
protocol = "modeltest"
limit = 4
[[performance]]
batch = [1]
lengths = [[8, 4]]
repetitions = 2
max_warmups = 1
"#;

/// A folder for corrupted files.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.0.path().join(name), bytes).unwrap();
        self.path(name)
    }

    /// The suite, with `from` replaced by `to`.
    fn suite(&self, from: &str, to: &str) -> String {
        assert!(SUITE.contains(from), "{from}");
        let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/boolq-sample");
        self.write("bad.toml", SUITE.replace(from, to).replace("SET", set.to_str().unwrap()))
    }

    /// A copy of the demo model with one file changed.
    fn model(&self, file: &str, change: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
        let folder = PathBuf::from(self.path("model"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).unwrap();
        for entry in fs::read_dir(demo()).unwrap().map(|e| e.unwrap()) {
            fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
        }
        let path = folder.join(file);
        fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
        folder.to_str().unwrap().to_owned()
    }

    /// A copy of the demo model with one key of its config changed.
    fn model_with(&self, key: &str, value: &Value) -> String {
        self.model("config.json", |bytes| {
            let mut config: Value = serde_json::from_slice(&bytes).unwrap();
            config[key] = value.clone();
            config.to_string().into_bytes()
        })
    }
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

#[test]
fn suites_that_are_wrong_are_named_with_their_line() {
    let place = Place::new();
    for (from, to, says) in [
        ("limit", "limits", "bad.toml:9:1: found the unknown key `limits`; did you mean `limit`?"),
        ("limit = 4", "limit = \"4\"", "bad.toml:9"),
        ("batch = [1]", "batch = [0]", "bad.toml:11"),
        ("[[8, 4]]", "[[8]]", "bad.toml:12"),
        ("schema = 1", "schema = 2", "bad.toml:1"),
        ("name = ", "name ", "bad.toml:2"),
        (
            "[[8, 4]]",
            "[[2000, 2000]]",
            "case b1-i2000-o2000 has sequences of 4000 tokens, the model's seq_length is 2048",
        ),
        ("[[8, 4]]", "[[4294967296, 4294967296]]", "seq_length"),
        ("\"SET\"", "\"nowhere\"", "nowhere: nothing there"),
        ("protocol = \"modeltest\"", "protocol = \"two-stage\"", "bad.toml:8"),
        (
            "[[accuracy]]",
            "[accuracy]",
            "found one table `accuracy`; expected [[accuracy]] in double brackets",
        ),
        ("[[performance]]", "[performance]", "expected [[performance]] in double brackets"),
    ] {
        answer(&["run", &place.suite(from, to)]).expect(2, &[says]);
    }
    answer(&["run", &place.path("none.toml")]).expect(2, &["none.toml", "expected a suite file"]);
    answer(&["run", &place.path("")]).expect(2, &["expected a suite file"]);
    let path = place.write("bytes.toml", b"schema = 1\nname = \"\xff\"\n");
    answer(&["run", &path]).expect(2, &["bytes.toml:2", "UTF-8"]);
    answer(&["check", &path]).expect(2, &["bytes.toml:2", "UTF-8"]);
}

#[test]
fn flags_that_are_wrong_are_named() {
    let place = Place::new();
    let (suite, runs) = (place.suite("bad", "bad"), place.path("runs"));
    for (flags, code, says) in [
        (&["--threads", "0"][..], 2, "--threads"),
        (&["--device", "gpu"], 2, "expected cpu, reference, 300i-duo or 800i-a2"),
        (&["--device", "300i-duo"], 5, "device 300i-duo: none of libascendcl.so was found; searched"),
        (&["--device", "800i-a2"], 5, "device 800i-a2: "),
        (&["--device", "reference", "--dtype", "fp16"], 5, "fp32 only"),
        (&["--device", "reference", "--dtype", "fp32", "--kv", "int8"], 5, "fp32 only"),
        (
            &["--device", "300i-duo", "--emulate", "--dtype", "w8a8-dynamic"],
            5,
            "dtype w8a8-dynamic was asked for, it has fp16",
        ),
        (
            &["--device", "800i-a2", "--emulate", "--kv", "int8"],
            5,
            "fp16+kv-int8 was asked for, it has fp16, bf16, w8a8 and w8a16",
        ),
        (&["--dtype", "int3"], 2, "--dtype"),
        (&["--kv", "int4"], 2, "expected auto (that of --dtype), int8 or c8"),
        (&["--kernel", "mmx"], 2, "--kernel"),
        (&["--limit", "0"], 2, "--limit"),
        (&["--set", "limit"], 2, "--set"),
        (&["--set", "accuracy.7.limit=1"], 2, "accuracy.7"),
        (&["--model", "nowhere"], 2, "nowhere/config.json"),
        (&["--model", "Demo"], 2, "expected a model folder, `demo`, `dummy:chatglm2-6b` or"),
        (&["--model", "dummy:chatglm3"], 2, "chatglm3 is not there; expected a model folder, `demo`"),
        (&["--model", "dummy:chatglm2-6b"], 2, "random weights have no tokenizer"),
        (&["--set", "accuracy.0.batch=4294967296"], 5, "are available"),
    ] {
        let args = [&["run", &suite, "--out", &runs], flags].concat();
        answer(&args).expect(code, &[says]);
    }
    let left = fs::read_dir(&runs).into_iter().flatten().count();
    assert_eq!(left, 0, "a run directory was left by a run that could not begin");
    // If one of several shapes does not fit in memory, it is left out with the reason.
    let flags = ["run", &suite, "--out", &runs, "--set", "performance.0.batch=[1, 4294967296]"];
    let said = answer(&flags).expect(0, &[]).out;
    assert!(said.contains("Left out: b4294967296-i8-o4 (out of memory by estimate"), "{said}");
}

#[test]
fn a_model_larger_than_the_machine_is_refused_before_it_is_read() {
    let place = Place::new();
    let shape = |layers: u64, width: u64| {
        json!({"num_layers": layers, "hidden_size": width, "ffn_hidden_size": width, "kv_channels": 128,
            "num_attention_heads": 32, "multi_query_attention": true, "multi_query_group_num": 2,
            "padded_vocab_size": width, "seq_length": 16777216u64, "add_qkv_bias": true})
    };
    // The second size also overflows 64 bits.
    for (layers, width, batch) in [(4096, 1 << 20, 1u64), (4096, 1 << 24, 1 << 32)] {
        let config = place.write("config.json", shape(layers, width).to_string());
        let model = format!("dummy:{config}");
        let batch = format!("performance.0.batch=[{batch}]");
        let lengths = "performance.0.lengths=[[8000000,8000000]]";
        answer(&["run", "suites/performance.toml", "--model", &model, "--set", &batch, "--set", lengths])
            .expect(5, &["device cpu: ", "weights ", "GB are available"]);
    }
}

#[test]
fn rows_that_are_wrong_are_named_with_file_and_line() {
    let place = Place::new();
    fs::create_dir(place.path("set")).unwrap();
    let row = r#"{"question": "q", "title": "t", "answer": true, "passage": "p"}"#;
    for (rows, says) in [
        (format!("{row}\n{{\n").into_bytes(), "dev.jsonl:2"),
        (format!("{row}\n{}\n", row.replace("true", "\"yes\"")).into_bytes(), "dev.jsonl:2"),
        ([row.as_bytes(), b"\n\"\xff\"\n"].concat(), "dev.jsonl:2"),
        (Vec::new(), "dev.jsonl"),
    ] {
        place.write("set/dev.jsonl", rows);
        let suite = place.suite("\"SET\"", "\"set\"");
        answer(&["run", &suite]).expect(2, &[says]);
    }
    let ceval = place.path("ceval");
    copy_tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/ceval-sample"), Path::new(&ceval));
    let csv = fs::read_dir(Path::new(&ceval).join("val")).unwrap().next().unwrap().unwrap().path();
    let good = fs::read(&csv).unwrap();
    for (tail, says) in
        [(&b"99,only,three\n"[..], "expected"), (b"99,\xff,b,c,d,e,A\n", "UTF-8"), (b"99,q,a,b,c,d,E\n", "E")]
    {
        fs::write(&csv, [&good[..], tail].concat()).unwrap();
        let line = String::from_utf8_lossy(&good).lines().count() + 1;
        let set = format!("ceval={ceval}");
        let place = format!("{}:{line}", csv.file_name().unwrap().to_str().unwrap());
        answer(&["run", "suites/ceval.toml", "--model", "demo", "--dry-run", "--set", &set])
            .expect(2, &[&place, says]);
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap()) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn models_that_are_wrong_are_named_with_their_file() {
    let place = Place::new();
    let ask = |model: &str, code: i32, says: &[&str]| {
        answer(&["chat", "--model", model, "--prompt", "hi"]).expect(code, says);
    };
    let header = |length: u64, text: &str| [&length.to_le_bytes()[..], text.as_bytes()].concat();
    let weights = "model.safetensors";
    ask(&place.model(weights, |b| b[..b.len() / 2].to_vec()), 2, &["model.safetensors: cut short"]);
    for bytes in [
        Vec::new(),
        b"12345".to_vec(),
        header(u64::MAX >> 1, "{}"),
        header(3, "{{}"),
        header(2, "[]"),
        header(65, r#"{"a":{"dtype":"F16","shape":[18446744073709551615,2],"data_offsets":[0,4]}}"#),
        header(58, r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[9,4]}}    "#),
    ] {
        ask(&place.model(weights, |_| bytes.clone()), 2, &["model.safetensors: "]);
    }
    ask(
        &place.model("tokenizer.model", |_| b"no protobuf".to_vec()),
        2,
        &["tokenizer.model: not a SentencePiece model"],
    );
    ask(&place.model("tokenizer.model", |_| Vec::new()), 2, &["tokenizer.model"]);
    ask(&place.model("tokenizer.model", |b| b[..b.len() - 7].to_vec()), 2, &["tokenizer.model"]);
    ask(&place.model("config.json", |b| b[..b.len() / 2].to_vec()), 2, &["config.json"]);
    ask(&place.model("config.json", |_| b"\xff".to_vec()), 2, &["config.json", "UTF-8"]);
    let small = place.model_with("padded_vocab_size", &json!(100));
    ask(&small, 2, &["the tokenizer has ", "the model only 100 (padded_vocab_size)"]);
    answer(&["run", &place.suite("bad", "bad"), "--model", &small]).expect(2, &["padded_vocab_size"]);
    ask(
        &place.model_with("pre_seq_len", &json!(8)),
        2,
        &["prefix_encoder.embedding.weight is missing", "pre_seq_len"],
    );
    ask(&place.model_with("num_layers", &json!(-1)), 2, &["config.json: ", "`-1`", "at line 1"]);
    ask(&place.model_with("hidden_size", &json!(1u64 << 40)), 2, &["config.json", "hidden_size"]);
    ask(&place.model_with("num_attention_heads", &json!(7)), 2, &["config.json"]);
    ask(&place.model_with("layernorm_epsilon", &json!(-1.0)), 2, &["layernorm_epsilon"]);
    ask(&place.model_with("seq_length", &json!(1)), 2, &["the question has "]);
    ask(&place.path("nowhere"), 2, &["nowhere/config.json"]);
}

#[test]
fn what_is_longer_than_the_model_is_said_so() {
    let long = "word ".repeat(3000);
    answer(&["chat", "--model", "demo", "--prompt", &long]).expect(2, &["the question has ", "at most "]);
    let place = Place::new();
    let prompts = place.write("long.json", json!([vec![5; 3000]]).to_string());
    let out = place.path("out.safetensors");
    let logits = ["logits", "--model", "demo", "--prompts", &prompts, "--out", &out];
    answer(&logits).expect(2, &["prompt 0: ", "exceed the model's seq_length 2048"]);
    // A precision item that does not fit fails alone. The run continues, reports it, and is invalid.
    let model = place.model_with("seq_length", &json!(40));
    let runs = place.path("runs");
    let run = answer(&["run", &place.suite("bad", "bad"), "--model", &model, "--out", &runs]);
    let run = run.expect(4, &[]);
    assert!(run.out.contains("INVALID: the prompt has "), "{run:?}");
    assert!(run.out.contains("(from item ") && run.out.contains("; 2 of 4 items failed"), "{run:?}");
    let samples = fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path().join("samples.jsonl");
    assert!(fs::read_to_string(samples).unwrap().contains("the model's seq_length"));
}

#[test]
fn prompts_and_lines_that_are_wrong_are_named() {
    let place = Place::new();
    let out = place.path("out.safetensors");
    for (text, says) in [
        (&b""[..], "expected a list of lists"),
        (b"[]", "the list is empty"),
        (b"[[]]", "prompt 0 is empty"),
        (b"[[1], [99999]]", "prompt 1: token id 99999 is outside the model's vocabulary"),
        (b"[[-1]]", "-1"),
        (b"{}", "expected a list of lists"),
        (b"\xff", "UTF-8"),
    ] {
        let prompts = place.write("p.json", text);
        answer(&["logits", "--model", "demo", "--prompts", &prompts, "--out", &out])
            .expect(2, &["--prompts", says]);
    }
    let prompts = place.write("p.json", "[[1, 2, 3]]");
    let logits =
        |more: &[&str]| answer(&[&["logits", "--model", "demo", "--prompts", &prompts][..], more].concat());
    logits(&["--out", &place.path("no/where.safetensors")]).expect(2, &["--out", "is not a folder"]);
    logits(&["--out", "/dev/null"]).expect(2, &["--out /dev/null", "not a regular file"]);
    logits(&["--out", &out, "--decode", "18446744073709551615"]).expect(2, &["seq_length"]);
    assert!(!Path::new(&out).exists());
    let reference = place.write("ref.safetensors", "no tensors");
    answer(&["parity", "--model", "demo", "--reference", &reference]).expect(2, &["--reference"]);
    answer_to(&["chat", "--model", "demo", "--max-new-tokens", "2"], b"a\n\xff\n")
        .expect(2, &["line 2: found a byte that is not UTF-8"]);
    let answered =
        answer_to(&["tokenize", "--model", "models/demo"], b"\"a\"\n\xff\n").expect(2, &["line 2"]);
    assert_eq!(answered.out.lines().count(), 1);
    for (flag, value) in
        [("--temperature", "nan"), ("--temperature", "-1"), ("--top-p", "7"), ("--repetition-penalty", "0")]
    {
        answer(&["chat", "--model", "demo", "--prompt", "a", flag, value]).expect(2, &[]);
    }
}

#[test]
fn places_that_cannot_be_written_are_named_and_what_is_there_stays() {
    let place = Place::new();
    let file = place.write("file", "kept");
    let suite = place.suite("bad", "bad");
    answer(&["run", &suite, "--out", &file]).expect(2, &["cannot create --out", &file]);
    answer(&["run", &suite, "--out", &format!("{file}/runs")]).expect(2, &["cannot create"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
}

/// Runs a shell script that mounts a small disk, in its own mount namespace, where the system allows one. The program is `$1`, an empty
/// folder `$2`.
#[cfg(target_os = "linux")]
fn on_a_small_disk(place: &Place, script: &str, words: &[&str]) -> Option<std::process::Output> {
    let small = place.path("small");
    fs::create_dir(&small).unwrap();
    let script = format!("mount -t tmpfs -o size=32k none \"$2\" || exit 99\necho mounted >&2\n{script}");
    let mut command = std::process::Command::new("unshare");
    command.args(["-rm", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_glmbench"), &small]).args(words);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let is_mounted =
        |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).contains("mounted\n");
    let output = output.ok().filter(is_mounted);
    if output.is_none() {
        crate::support::skipped("no small disk can be mounted here");
    }
    output
}

/// Whatever a command writes: who started it has to make space, and then the same command does it.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_has_its_own_exit_code_in_every_command() {
    let place = Place::new();
    let runs = place.path("runs");
    answer(&["run", &place.suite("bad", "bad"), "--out", &runs]).expect(0, &[]);
    answer(&["run", &place.suite("bad", "bad"), "--out", &runs]).expect(0, &[]);
    let mut runs: Vec<String> =
        fs::read_dir(&runs).unwrap().map(|run| run.unwrap().path().to_str().unwrap().to_owned()).collect();
    runs.sort();
    let script = r#""$1" quantize demo "$2/q" --scheme w8a16; echo "quantize $?" >&2
        rm -rf "$2"/* "$2"/.[a-z]*
        "$1" quantize demo "$2/q" --scheme w8a8 --calibration ceval --set datasets/ceval-sample; echo "calibrate $?" >&2
        rm -rf "$2"/* "$2"/.[a-z]*
        "$1" compare "$3" "$4" --out "$2/c"; echo "compare $?" >&2
        find "$2/c" -name '*.svg' | grep -q . ; echo "begun $?" >&2
        for png in $(find "$2/c" -name '*.png'); do tail -c 8 "$png" | grep -q IEND || echo "$png is cut" >&2; done"#;
    let Some(output) = on_a_small_disk(&place, script, &[&runs[0], &runs[1]]) else { return };
    let words = String::from_utf8_lossy(&output.stderr);
    for says in ["No space left on device", "quantize 6", "calibrate 6", "compare 6", "begun 0"] {
        assert!(words.contains(says), "{says}: {words}");
    }
    assert!(!words.contains("is cut"), "{words}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_a_run_to_go_on_with() {
    let place = Place::new();
    let script = r#""$1" run "$3" --threads 1 --out "$2" --set accuracy.0.limit=200; echo "code $?" >&2
        cp "$2"/*/samples.jsonl "$4"
        "$1" run "$3" --threads 1 --out "$2" --set accuracy.0.limit=200 --resume; echo "still $?" >&2
        mount -o remount,size=8m "$2"
        "$1" run "$3" --threads 1 --out "$2" --set accuracy.0.limit=200 --resume; echo "code $?" >&2
        cp "$2"/*/samples.jsonl "$5""#;
    let words = [place.suite("bad", "bad"), place.path("first"), place.path("second")];
    let Some(output) = on_a_small_disk(&place, script, &words.each_ref().map(String::as_str)) else { return };
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!words.contains("panicked"), "{words}");
    // Which journal fills the disk depends on the length of the machine description in run.json.
    let says = [
        "cannot append to",
        ".jsonl: No space left on device",
        "code 6",
        "--resume continues",
        "still 6",
        "code 0",
    ];
    assert!(says.iter().all(|says| words.contains(says)), "{words}");
    let keys = |name: &str| -> Vec<(String, String)> {
        let text = fs::read_to_string(place.path(name)).unwrap();
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("a whole line");
            (line["doc_id"].to_string(), line["choice_logprobs"].to_string())
        };
        text.lines().map(line).collect()
    };
    let (first, second) = (keys("first"), keys("second"));
    assert!(!first.is_empty() && first.len() < 200 && second.len() == 200);
    assert_eq!(first, second[..first.len()]);
}

#[test]
fn run_directories_that_are_wrong_are_named() {
    let place = Place::new();
    let runs = place.path("runs");
    answer(&["run", &place.suite("bad", "bad"), "--out", &runs]).expect(0, &[]);
    let run = fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path();
    let report = |code: i32, says: &[&str]| {
        answer(&["report", run.to_str().unwrap()]).expect(code, says);
    };
    let spoil = |name: &str, change: &dyn Fn(&str) -> String, code: i32, says: &[&str]| {
        let path = run.join(name);
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, change(&good)).unwrap();
        report(code, says);
        fs::write(&path, good).unwrap();
    };
    spoil("run.json", &|_| "garbage".into(), 2, &["run.json:1", "expected"]);
    spoil("run.json", &|text| text[..text.len() / 2].into(), 2, &["run.json:"]);
    spoil("run.json", &|_| String::new(), 2, &["run.json:"]);
    spoil(
        "run.json",
        &|text| text.replacen("\"schema\": 4", "\"schema\": 99", 1),
        2,
        &["schema 99 was found, 1 to 4 was expected"],
    );
    spoil("run.json", &|text| text.replacen("fp16", "fp32", 1), 2, &["identity"]);
    spoil("run.json", &|text| text.replace("\"batch\": 1,", "\"batch\": 4294967295,"), 4, &[]);
    let second = |new: &'static str| {
        move |text: &str| {
            text.lines()
                .enumerate()
                .map(|(i, line)| format!("{}\n", if i == 1 { new } else { line }))
                .collect()
        }
    };
    let unreadable = "samples.jsonl: 1 line cannot be read (line 2: missing field";
    spoil("samples.jsonl", &second("{\"schema\":1}"), 4, &[unreadable]);
    spoil("samples.jsonl", &second("\u{0}"), 4, &["samples.jsonl: 1 line cannot be read (line 2: "]);
    spoil("requests.jsonl", &second("[]"), 4, &["requests.jsonl: 1 line cannot be read (line 2: "]);
    spoil(
        "requests.jsonl",
        &|text| text.replacen("\"schema\":4", "\"schema\":9", 1),
        4,
        &["requests.jsonl: 1 line cannot be read (line 1: schema 9 was found"],
    );
    // Numbers that no machine produces are still valid numbers.
    let extremes = |text: &str| -> String {
        let line = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line["end_ns"] = json!(u64::MAX);
            line["prefill_ns"] = json!(0);
            line["step_ns"] = json!([u64::MAX, 0, u64::MAX]);
            line["peak_rss_bytes"] = json!(u64::MAX);
            format!("{line}\n")
        };
        text.lines().map(line).collect()
    };
    let path = run.join("requests.jsonl");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(&path, extremes(&good)).unwrap();
    let answered = answer(&["report", run.to_str().unwrap()]);
    assert!(matches!(answered.code, Some(0 | 4)), "{answered:?}");
    fs::write(&path, good).unwrap();
    // Foreign text is shown as text in the page, not as markup.
    let markup = |text: &str| text.replace("\"suite\": \"bad\"", "\"suite\": \"<script>x</script>\"");
    fs::write(run.join("run.json"), markup(&fs::read_to_string(run.join("run.json")).unwrap())).unwrap();
    report(4, &["run.json is not as it was written"]);
    assert!(!fs::read_to_string(run.join("report.html")).unwrap().contains("<script>"));
    fs::remove_file(run.join("run.json")).unwrap();
    report(2, &["run.json"]);
    answer(&["report", &place.path("nowhere")]).expect(2, &["nowhere"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new();
    let runs = place.path("runs");
    answer(&["run", &place.suite("bad", "bad"), "--out", &runs]).expect(0, &[]);
    let run = fs::read_dir(&runs).unwrap().next().unwrap().unwrap().path();
    let run = run.to_str().unwrap();
    for args in
        [&["--help"][..], &["list", "protocols"], &["completions", "bash"], &["doctor"], &["report", run]]
    {
        let mut child = glmbench(args).spawn().unwrap();
        drop(child.stdout.take());
        wait(child).expect(0, &[]);
    }
    // The same with standard error closed.
    let mut child = glmbench(&["report", run]).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut child = glmbench(&["report", "nowhere"]).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

#[cfg(target_os = "linux")]
#[test]
fn output_that_cannot_be_written_is_an_error() {
    for args in [&["list", "protocols"][..], &["completions", "bash"], &["doctor"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let child = glmbench(args).stdout(Stdio::from(full)).spawn().unwrap();
        wait(child).expect(6, &["standard output", "No space left"]);
    }
}
