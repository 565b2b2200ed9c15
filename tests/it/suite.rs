//! Suite files: their contents, their faults, and the inputs of their hash.

use std::path::Path;

use glmbench::dataset::CEVAL;
use glmbench::record::Figure;
use glmbench::suite::{Lengths, Override, Suite};
use glmbench_device::DType;

const GOOD: &str = r#"schema = 1
name = "tiny"
about = "a test"
[model]
path = "m"
dtype = "bf16"
[[accuracy]]
task = "ceval"
dataset = "sets/ceval"
protocol = "modeltest-5shot"
shots = 3
limit = 1_0
[[accuracy.expected]]
correct = 721
items = 1346
source = "README"
[[accuracy.expected]]
dtype = "fp16"
correct = 719
items = 1346
source = "issue"
[[performance]]
batch = [1, 2]
lengths = [[128, 32], [256, 64]]
"#;

fn parse(text: &str, set: &[(&str, &str)]) -> Result<Suite, String> {
    let set: Vec<_> =
        set.iter().map(|(key, value)| Override { key: (*key).to_owned(), value: value.into() }).collect();
    Suite::parse(Path::new("here/s.toml"), text, &set).map_err(|e| e.to_string())
}

#[test]
fn a_suite_says_what_it_says() {
    let suite = parse(GOOD, &[]).unwrap();
    assert_eq!((suite.name.as_str(), suite.model.compute.dtype), ("tiny", Some(DType::Bf16.into())));
    assert_eq!(suite.model.path.as_deref(), Some("here/m".as_ref()));
    let case = &suite.accuracy[0];
    assert_eq!((case.task, case.protocol, case.split.as_str()), (&CEVAL, "modeltest-5shot", "val"));
    assert_eq!(case.dataset, Path::new("here/sets/ceval"));
    assert_eq!((case.shots, case.limit, case.batch), (Some(3), Some(10), 8));
    assert_eq!(case.expected_for(DType::Fp16.into()).unwrap().correct, 719);
    assert_eq!(case.expected_for(DType::Bf16.into()).unwrap().correct, 721);
    let case = &suite.performance[0];
    let lengths = [Lengths { input: 128, output: 32 }, Lengths { input: 256, output: 64 }];
    assert_eq!((&case.batches[..], &case.lengths[..]), (&[1, 2][..], &lengths[..]));
    assert_eq!((case.repetitions, case.seed, &case.scope.tp_ranks[..]), (5, 1, &[1][..]));
}

#[test]
fn what_is_wrong_is_answered_with_place_found_and_expected() {
    for (from, to, message) in [
        (
            "limit = 1_0",
            "limits = 10",
            "here/s.toml:12:1: found the unknown key `limits`; did you mean `limit`?",
        ),
        (
            "about =",
            "colour =",
            "here/s.toml:3:1: found the unknown key `colour`; expected one of schema, name, about, model, accuracy, performance",
        ),
        (
            "limit = 1_0",
            "limit = \"10\"",
            "here/s.toml:12:9: found a string; expected a whole number from 1 to 4294967296",
        ),
        (
            "limit = 1_0",
            "limit = 0",
            "here/s.toml:12:9: found 0; expected a whole number from 1 to 4294967296",
        ),
        (
            "limit = 1_0",
            "limit = -5",
            "here/s.toml:12:9: found -5; expected a whole number from 1 to 4294967296",
        ),
        (
            "limit = 1_0",
            "limit = 1.5",
            "here/s.toml:12:9: found a float; expected a whole number from 1 to 4294967296",
        ),
        (
            "limit = 1_0",
            "limit = 99999999999999999999",
            "here/s.toml:12:9: found the number 99999999999999999999; expected one that fits 64 bits",
        ),
        (
            "\"ceval\"\n",
            "\"cevall\"\n",
            "here/s.toml:8:8: found \"cevall\"; expected one of ceval, boolq, aime2024, arc-challenge, arc-easy, bbh, cmmlu, gpqa, gsm8k, hellaswag, humaneval, humaneval-x, longbench, mmlu, needlebench, truthfulqa, wikitext-2, wikitext-2-joined; did you mean `ceval`?",
        ),
        (
            "modeltest-5shot",
            "modeltest",
            "here/s.toml:10:12: found \"modeltest\"; expected one of two-stage, modeltest-5shot, modeltest-0shot",
        ),
        (
            "modeltest-5shot",
            "two-stage",
            "here/s.toml:11:9: found 3 shots; expected 0: the protocol two-stage shows no examples",
        ),
        ("\"bf16\"", "\"bf61\"", "here/s.toml:6:9: found \"bf61\"; expected one of fp16, bf16, fp32"),
        (
            "schema = 1",
            "schema = 2",
            "here/s.toml:1:10: found schema 2; expected 1, the one this program reads",
        ),
        ("name = \"tiny\"", "", "here/s.toml:1:1: found no `name`; expected the suite's name"),
        (
            "\"tiny\"",
            "\"a/b\"",
            "here/s.toml:2:8: found the name \"a/b\"; expected letters, digits, `-` and `_`",
        ),
        ("[256, 64]", "[256]", "here/s.toml:24:23: found 1 numbers; expected [input, output]"),
        ("[1, 2]", "1", "here/s.toml:23:9: found an integer; expected an array of batch sizes"),
        ("[1, 2]", "[]", "here/s.toml:23:9: found an empty array; expected an array of batch sizes"),
        ("correct = 721", "correct = 1347", "here/s.toml:14:11: found 1347; expected at most items = 1346"),
        ("[model]", "[model", "here/s.toml:4:7: unclosed table, expected `]`"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let found = parse(&GOOD.replacen(from, to, 1), &[]).unwrap_err();
        assert!(found.starts_with(message), "\n   found {found}\nexpected {message}");
    }
    let empty = parse("schema = 1\nname = \"x\"\n", &[]).unwrap_err();
    assert!(empty.contains("found no case"), "{empty}");
}

#[test]
fn a_value_is_laid_over_the_file_and_its_faults_name_the_flag() {
    let suite =
        parse(GOOD, &[("accuracy.0.limit", "7"), ("model.path", "demo"), ("performance.0.batch", "[4]")])
            .unwrap();
    assert_eq!(suite.accuracy[0].limit, Some(7));
    assert_eq!(suite.model.path.as_deref(), Some("demo".as_ref()));
    assert_eq!(suite.performance[0].batches, [4]);
    let suite = parse(GOOD, &[("ceval", "elsewhere/ceval")]).unwrap();
    assert_eq!(suite.accuracy[0].dataset, Path::new("elsewhere/ceval"));
    for (key, value, message) in [
        ("accuracy.0.limit", "many", "--set accuracy.0.limit=many: found a string; expected a whole number"),
        (
            "accuracy.0.limt",
            "1",
            "--set accuracy.0.limt=1: found the unknown key `limt`; did you mean `limit`?",
        ),
        ("accuracy.1.limit", "1", "--set accuracy.1.limit=1: found the index `1`; expected one below 1"),
        ("name.x", "1", "--set name.x=1: found the key `x` below a string; expected a table above it"),
        ("", "1", "--set =1: found the key \"\""),
        ("boolq", "b", "--set boolq=b: the suite has no accuracy case of the task `boolq`"),
    ] {
        let found = parse(GOOD, &[(key, value)]).unwrap_err();
        assert!(found.starts_with(message), "\n   found {found}\nexpected {message}");
    }
}

#[test]
fn the_hash_moves_with_what_decides_results_and_with_nothing_else() {
    let hash = |set: &[(&str, &str)]| parse(GOOD, set).unwrap().content_hash();
    let same = hash(&[]);
    for set in [
        ("about", "x"),
        ("ceval", "x"),
        ("model.path", "x"),
        ("accuracy.0.batch", "1"),
        ("performance.0.tp", "[2]"),
    ] {
        assert_eq!(hash(&[set]), same, "{set:?}");
    }
    for set in [
        ("name", "x"),
        ("accuracy.0.limit", "1"),
        ("accuracy.0.shots", "1"),
        ("accuracy.0.split", "dev"),
        ("performance.0.batch", "[1]"),
        ("performance.0.seed", "2"),
    ] {
        assert_ne!(hash(&[set]), same, "{set:?}");
    }
    let commented = format!("# a comment\n{GOOD}\n# another");
    assert_eq!(parse(&commented, &[]).unwrap().content_hash(), same);
}

#[test]
fn every_suite_in_the_repository_loads() {
    let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(suites).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue; // gates
        }
        let suite = Suite::load(&path, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(path.file_stem().unwrap().to_str(), Some(suite.name.as_str()));
        assert!(!suite.about.is_empty());
        names.push(suite.name);
    }
    names.sort();
    assert_eq!(
        names,
        [
            "accept",
            "boolq",
            "calibrate-card",
            "calibration",
            "ceval",
            "cpu-limits",
            "duo-vs-a2",
            "duo-vs-a2-w8a8",
            "forms",
            "load",
            "max-batch",
            "modeltest",
            "performance",
            "performance-boolq",
            "performance-ceval",
            "quantisation",
            "quickstart",
            "serving",
            "smoke"
        ]
    );
}

/// Every published row that the engine can express on an emulated chip has its shapes in the suite `calibration`.
#[test]
fn the_calibration_suite_times_every_published_row() {
    use glmbench_calibrate::cases::batches_of;
    use glmbench_calibrate::counted::Batch;
    use glmbench_calibrate::published::{Phase, rows};
    use glmbench_engine::load::ModelPath;
    let suite =
        Suite::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/calibration.toml"), &[]).unwrap();
    let mut timed = 0;
    for row in rows().unwrap() {
        let (Ok(config), Some(profile)) = (row.config(), row.profile()) else { continue };
        let is_own = |of: &&glmbench::suite::Configuration| {
            let model = of.model.as_ref().or(suite.model.path.as_ref()).unwrap();
            let named = of.compute.profile.as_ref().map_or_else(
                || of.compute.device.unwrap().to_string(),
                |profile| profile.display().to_string(),
            );
            let dtype = of.compute.dtype.or(suite.model.compute.dtype).map(|precision| precision.to_string());
            named == profile
                && dtype.as_deref() == Some(&*row.dtype)
                && ModelPath::parse(model).config(None).unwrap().shape() == config.shape()
        };
        let own: Vec<&str> = suite.configurations.iter().filter(is_own).map(|of| of.name.as_str()).collect();
        assert!(!own.is_empty(), "no configuration for {} on {}", row.model, row.chip);
        for (Batch { sequences, tokens }, _) in batches_of(&row) {
            let has = suite.performance.iter().any(|case| {
                let place = |lengths: &Lengths| match row.phase {
                    Phase::Prefill => lengths.input,
                    Phase::Decode => lengths.input + lengths.output / 2,
                };
                case.scope.configurations.iter().any(|name| own.contains(&name.as_str()))
                    && case.batches.contains(&sequences)
                    && case.scope.tp_ranks.contains(&row.chips)
                    && case.lengths.iter().any(|lengths| place(lengths) == tokens)
            });
            assert!(has, "{} on {}, {:?}: {sequences} x {tokens}", row.model, row.chip, row.phase);
        }
        timed += 1;
    }
    assert!(timed > 180, "{timed}");
}

#[test]
fn no_file_makes_it_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.toml");
    for bytes in [
        &b""[..],
        b"\xff",
        b"a = \"\xc3",
        b"[[[[",
        b"schema = [1",
        b"x = 1\nx = 2",
        b"a.b.c = {d = [{}]}",
        "名 = 1".as_bytes(),
    ] {
        std::fs::write(&path, bytes).unwrap();
        assert!(Suite::load(&path, &[]).is_err());
    }
    let missing = Suite::load(&dir.path().join("none.toml"), &[]).unwrap_err().to_string();
    assert!(missing.contains("none.toml") && missing.contains("expected a suite file"), "{missing}");
}

#[test]
fn targets_say_what_is_expected_of_which_case() {
    let with = |table: &str| parse(&format!("{GOOD}budget_s = 60\n[[target]]\n{table}"), &[]);
    let suite = with("figure = \"decode-speedup\"\ncase = \"b2-i8-o4\"\nover = \"b1-i8-o4\"\nat_least = 7\n")
        .unwrap();
    assert_eq!((suite.performance[0].budget_s, suite.model.compute.profile_operators), (Some(60), None));
    let target = &suite.targets[0].expected;
    assert_eq!((target.figure, target.at_least, target.at_most), (Figure::DecodeSpeedup, Some(7.0), None));
    assert_eq!((target.case_id.as_deref(), target.over.as_deref()), (Some("b2-i8-o4"), Some("b1-i8-o4")));
    // Neither affects the measurement, so runs stay comparable.
    assert_eq!(suite.content_hash(), parse(GOOD, &[]).unwrap().content_hash());
    for (table, message) in [
        ("figure = \"decode-bandwith\"", "did you mean `decode-bandwidth`?"),
        ("figure = \"decode-bandwidth\"\nat_least = 1", "found no `case`"),
        ("figure = \"decode-speedup\"\ncase = \"a\"\nat_least = 1", "found no `over`"),
        (
            "figure = \"decode-bandwidth\"\ncase = \"a\"\nover = \"b\"\nat_least = 1",
            "expected none for decode-bandwidth",
        ),
        (
            "figure = \"decode-bandwidth\"\ncase = \"a\"\nunit = \"u\"\nat_least = 1",
            "only prefill-peak has an arithmetic unit",
        ),
        ("figure = \"prefill-peak\"\ncase = \"a\"", "found no `at_least`"),
        ("figure = \"load-time\"\nat_least = 1", "expected `at_most` for load-time"),
        ("figure = \"load-time\"\ncase = \"a\"\nat_most = 1", "expected none for load-time"),
        ("figure = \"load-time\"\nat_most = -1", "a number above 0"),
    ] {
        let error = with(table).unwrap_err();
        assert!(error.contains(message) && error.contains("here/s.toml:"), "{table}: {error}");
    }
}

/// 60,000 keys, or 200,000 values in one line, are rejected in bounded time.
#[test]
fn a_suite_of_many_keys_is_answered_in_time() {
    let begin = std::time::Instant::now();
    let keys: String = (0..60_000).map(|n| format!("k{n} = 1\n")).collect();
    let message = parse(&format!("schema = 1\nname = \"n\"\n{keys}"), &[]).unwrap_err();
    assert!(message.starts_with("here/s.toml:3:1: found the unknown key `k0`"), "{message}");
    let values = format!("subjects = [{}1]\n", "1,".repeat(200_000));
    let message = parse(&GOOD.replace("shots = 3\n", &values), &[]).unwrap_err();
    assert!(message.contains("here/s.toml:11:13: found an integer; expected a string"), "{message}");
    assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[test]
fn what_is_too_much_is_said_so() {
    let deep = "a.".repeat(60_000) + "b";
    let message = parse(GOOD, &[(&deep, "1")]).unwrap_err();
    assert!(message.contains("found a key of 60001 names; expected 16 at most"), "{message}");
    assert!(message.len() < 300, "{}", message.len());
    let many = format!("batch = [{}1]", "1, ".repeat(5_000));
    let message = parse(&GOOD.replace("batch = [1, 2]", &many), &[]).unwrap_err();
    assert!(message.contains("found 10003 cases; expected 10000 at most"), "{message}");
    let long = GOOD.replace("\"tiny\"", &format!("\"{}\"", "n".repeat(101)));
    assert!(
        parse(&long, &[])
            .unwrap_err()
            .contains("s.toml:2:8: found a name of 101 letters; expected 100 at most")
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.toml");
    std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    let message = Suite::load(&path, &[]).unwrap_err().to_string();
    assert!(
        message.contains("large.toml: found more than 1048576 bytes; expected 1048576 at most"),
        "{message}"
    );
}
