//! Output before a run: the cases that would be left out, and the expected time.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Answer, answer, glmbench};

const SUITE: &str = r#"schema = 1
name = "timed"
[model]
path = "demo"
[[accuracy]]
task = "boolq"
dataset = "SET"
protocol = "modeltest"
limit = 8
[[performance]]
batch = [1, 2]
lengths = [[32, 8]]
repetitions = 2
max_warmups = 1
"#;

/// A folder with the suite and space for runs.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let set = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/boolq-sample");
        fs::write(dir.path().join("timed.toml"), SUITE.replace("SET", set.to_str().unwrap())).unwrap();
        Self(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn run(&self, flags: &[&str]) -> Answer {
        let (suite, out) = (self.path("timed.toml"), self.path("runs"));
        answer(&[&["run", &suite, "--out", &out], flags].concat())
    }

    /// Returns the time that `--dry-run` prints below the line that starts with `of`, or on that line.
    fn time(&self, of: &str, flags: &[&str]) -> String {
        let said = self.run(&[&["--dry-run"], flags].concat()).expect(0, &[]).out;
        let mut lines = said.lines().skip_while(|line| !line.starts_with(of));
        let (line, below) = (lines.next().unwrap(), lines.next().unwrap_or_default());
        if of == "time" { line.to_owned() } else { below.trim().to_owned() }
    }
}

#[test]
fn check_and_dry_run_name_the_cases_that_run_leaves_out() {
    let place = Place::new();
    // A case that needs at least 60 GB on any test machine, next to a case that fits.
    let big = ["--set", "performance.0.batch=[1,16777216]"];
    let case = "b16777216-i32-o8: out of memory by estimate: ";
    let suite = place.path("timed.toml");
    let checked = answer(&[&["check", &suite][..], &big].concat()).expect(0, &[]).out;
    assert!(checked.contains(&format!("left out     {case}")), "{checked}");
    assert!(checked.contains("every prompt fits, 1 of 2 cases do not"), "{checked}");
    let said = place.run(&[&["--dry-run"], &big[..]].concat()).expect(0, &[]).out;
    assert!(said.contains(&format!("left out  {case}")), "{said}");
    let fits = answer(&["check", &suite]).expect(0, &[]).out;
    assert!(fits.contains("every prompt and shape fits") && !fits.contains("left out"), "{fits}");

    // For a card, the memory size comes from the profile.
    let card = ["--device", "300i-duo", "--emulate=timing"];
    for chip in [&card[..], &["--configuration", "device=300i-duo,emulate=true"]] {
        let flags = [chip, &["--set", "performance.0.batch=[1,1000000]"]].concat();
        let checked = answer(&[&["check", &suite][..], &flags].concat()).expect(0, &[]).out;
        let left_out = checked.lines().find(|line| line.starts_with("left out")).unwrap();
        assert!(left_out.contains("b1000000-i32-o8") && left_out.contains("each chip has"), "{left_out}");
        let said = place.run(&[&["--dry-run"], &flags[..]].concat()).expect(0, &[]).out;
        assert!(said.contains("left out  b1000000-i32-o8: ") && said.contains("; each chip has"), "{said}");
    }
    // If nothing fits, nothing is left out: `run` would end at once.
    let all = ["--set", "performance.0.batch=[16777216]", "--set", "accuracy.0.batch=16777216"];
    answer(&[&["check", &suite][..], &all].concat()).expect(2, &["GB are available"]);
    let said = place.run(&[&["--dry-run"], &all[..]].concat()).expect(5, &["the run would be refused"]).out;
    assert!(said.contains("it does not fit: "), "{said}");
    place.run(&all).expect(5, &["GB are available"]);
}

#[test]
fn what_no_memory_holds_is_not_counted_through() {
    let most = ["--set", "performance.0.batch=[4294967296]", "--set", "performance.0.lengths=[[16,16]]"];
    let said =
        answer(&[&["run", "suites/performance.toml", "--model", "demo", "--dry-run"], &most[..]].concat());
    let said = said.expect(5, &["the run would be refused"]).out;
    assert!(
        said.contains("it does not fit: ") && said.contains("time      unknown: it cannot be run"),
        "{said}"
    );
    answer(&[&["check", "suites/performance.toml", "--model", "demo"], &most[..]].concat())
        .expect(2, &["GB are available"]);
}

#[test]
fn a_search_says_from_which_batch_on_memory_ends_it() {
    let place = Place::new();
    let suite = place.0.path().join("search.toml");
    let text = "schema = 1\nname = \"search\"\n[model]\npath = \"demo\"\n[[max_batch]]\nbatch_range = [1, 16777216]\n\
                lengths = [[64, 64]]\nlimit_tpot_ms = 50.0\n";
    fs::write(&suite, text).unwrap();
    let checked = answer(&["check", suite.to_str().unwrap()]).expect(0, &[]).out;
    assert!(
        checked.contains(": no batch above ") && checked.contains("out of memory by estimate"),
        "{checked}"
    );
}

#[test]
fn times_are_unknown_until_a_run_of_the_same_shape_was_recorded_here() {
    let place = Place::new();
    assert_eq!(place.time("precision", &[]), "time unknown");
    assert_eq!(
        place.time("time", &[]),
        "time      unknown: --out has no run of this shape, type and device on this machine"
    );
    let done = place.run(&[]);
    assert!(matches!(done.code, Some(0 | 4)), "{done:?}");
    let run = fs::read_dir(place.path("runs")).unwrap().next().unwrap().unwrap();
    let name = run.file_name().into_string().unwrap();
    let precision = place.time("precision", &[]);
    assert!(
        !precision.contains("unknown") && precision.contains(&format!("by boolq of {name}")),
        "{precision}"
    );
    let timing = place.time("timing    b2-i32-o8", &[]);
    assert!(timing.contains(&format!("by b2-i32-o8 of {name}")), "{timing}");
    let whole = place.time("time", &[]);
    let known = ["time      about ", "time      less than 0.1 s "];
    assert!(known.iter().any(|known| whole.starts_with(known)), "{whole}");
    // Another shape is estimated from the nearest recorded case.
    let other = place.time("timing    b1-i64-o16", &["--set", "performance.0.lengths=[[64,16]]"]);
    assert!(other.starts_with("about ") && other.contains(" of "), "{other}");
    // Another type, thread count or host: unknown again.
    assert_eq!(place.time("timing", &["--dtype", "fp32"]), "time unknown");
    assert_eq!(place.time("timing", &["--threads", "1023"]), "time unknown");
    let record = run.path().join("run.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    json["provenance"]["host"] = "elsewhere".into();
    fs::write(&record, json.to_string()).unwrap();
    assert_eq!(place.time("timing", &[]), "time unknown");
}

#[test]
fn from_an_hour_on_a_person_is_warned() {
    let place = Place::new();
    let done = place.run(&[]);
    assert!(matches!(done.code, Some(0 | 4)), "{done:?}");
    let short = place.run(&["--dry-run"]).expect(0, &[]);
    assert!(!short.words.contains("this takes"), "{}", short.words);
    let long = place.run(&["--dry-run", "--set", "performance.0.repetitions=1000000000"]).expect(0, &[]);
    assert!(
        long.words.contains("glmbench: this takes about ") && long.words.contains(" on this machine"),
        "{}",
        long.words
    );
}

#[test]
fn a_card_that_is_emulated_is_told_by_its_profile() {
    let place = Place::new();
    let flags = ["--model", "dummy:chatglm2-6b", "--device", "300i-duo", "--emulate"];
    let suite =
        "schema = 1\nname = \"card\"\n[[performance]]\nbatch = [1]\nlengths = [[512, 65]]\nrepetitions = 1\n";
    fs::write(place.0.path().join("timed.toml"), suite).unwrap();
    let time = place.time("timing", &flags);
    // 64 steps of 12 GB at 204 GB/s, and prefill of 512 tokens at 70 Tflop/s: 3.9 s.
    assert!(time.starts_with("at least 3.") && time.ends_with("s, by profile 300i-duo"), "{time}");
    let total = place.time("time", &flags);
    assert!(total.starts_with("time      at least 3.") && total.ends_with(" s modelled"), "{total}");
}

/// `check` and `--dry-run` refuse what `run` refuses, with the same words. A dry run ends with the code of the run.
#[test]
fn what_run_refuses_is_refused_before() {
    let place = Place::new();
    let suite = place.path("timed.toml");
    let card = ["--device", "300i-duo", "--emulate"];
    let refused = |flags: &[&str], forced: &str, code: i32, says: &str| {
        let out = place.path("runs");
        for (verb, more, code) in [
            ("run", &["--out", &out][..], code),
            ("run", &["--out", &out, "--dry-run"], code),
            // A problem of any kind.
            ("check", &[], 2),
        ] {
            let mut command = glmbench(&[&[verb, &suite][..], more, flags].concat());
            Answer::of(command.env("GLMBENCH_ASCEND", forced).output().unwrap()).expect(code, &[says]);
        }
    };
    refused(&card, "decode=fast", 2, "GLMBENCH_ASCEND=decode=fast");
    refused(&[&card[..2], &["--dtype", "w8a8-dynamic"]].concat(), "", 5, "it has fp16");
    refused(&["--emulate"], "", 2, "device cpu has no emulator; expected 300i-duo or 800i-a2");
    refused(&["--profile", "300i-duo"], "", 2, "give --emulate, too");
    refused(&["--tp", "7"], "", 2, "7");
}

#[test]
fn check_says_the_memory_and_the_repetitions_that_run() {
    let place = Place::new();
    let suite = place.path("timed.toml");
    let checked = |flags: &[&str]| answer(&[&["check", &suite][..], flags].concat()).expect(0, &[]).out;
    let measured = checked(&[]);
    assert!(measured.contains("performance  2 shapes, 2 repetitions each\n"), "{measured}");
    let line =
        |text: &str, start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    let memory = line(&measured, "memory");
    assert!(memory.contains(" GB = weights ") && memory.contains(" GB are available"), "{memory}");
    let modelled = checked(&["--device", "300i-duo", "--emulate"]);
    assert!(modelled.contains("2 shapes, 1 repetition each, because modelled times"), "{modelled}");
    let memory = line(&modelled, "memory");
    assert!(memory.contains("each chip has"), "{memory}");
    let said = place.run(&["--dry-run", "--device", "300i-duo", "--emulate"]).expect(0, &[]).out;
    assert_eq!(line(&said, "memory").replacen("memory ", "memory    ", 1), memory);
}
