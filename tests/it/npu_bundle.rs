//! Bundles of the self-test: made on emulated cards, run again, compared. And what they do not have.

use std::fs;
use std::path::Path;

use serde_json::Value;

use glmbench::bundle::{Bundle, RowStatus};

use crate::support::{Answer, glmbench};

/// Runs the small self-test with a fault, and writes a bundle.
fn made(path: &Path, words: &[&str], fault: &str) -> Answer {
    let all = [&["npu-selftest", "--small", "--emulate", "--bundle", path.to_str().unwrap()], words].concat();
    Answer::of(glmbench(&all).env("GLMBENCH_ASCEND_FAULT", fault).output().unwrap())
}

/// Runs a bundle again. Returns the exit code and the differences: kind, which, card, emulator.
fn replayed(path: &Path) -> (i32, Value) {
    let answer = Answer::of(
        glmbench(&["npu-selftest", "--replay", path.to_str().unwrap(), "--emulate", "--json"])
            .output()
            .unwrap(),
    );
    (answer.code.unwrap(), serde_json::from_str(&answer.out).unwrap_or_else(|_| panic!("{answer:?}")))
}

#[test]
fn a_bundle_of_an_emulated_card_is_replayed_without_difference() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.zip");
    for (card, tp) in [("300i-duo", "2"), ("800i-a2", "1")] {
        made(&path, &["--device", card, "--tp", tp], "")
            .expect(0, &["wrote ", "look into it before you send it"]);
        let bundle = Bundle::read(&path).unwrap();
        assert_eq!((&*bundle.summary.card, bundle.summary.tp.to_string().as_str()), (card, tp));
        assert!(bundle.summary.failed == 0 && bundle.summary.first_failure.is_none());
        assert!(
            bundle.operators.rows.iter().any(|row| row.status == RowStatus::Pass && row.time_ns.is_some())
        );
        assert!(bundle.machine.memory.iter().all(|chip| chip.total_bytes > Some(1 << 34)));
        // What `calibrate` needs.
        let names = |name: &str| bundle.timings.operators.iter().filter(|t| t.operator == name).count();
        assert!(
            ["linear qkv", "linear down", "rms_norm", "swiglu", "attention, decode", "attention, prefill"]
                .iter()
                .all(|name| names(name) >= 5)
        );
        assert!(
            bundle
                .timings
                .operators
                .iter()
                .all(|t| t.time_ns.len() == 5 && t.time_ns.iter().all(|ns| *ns > 0))
        );
        assert_eq!(bundle.timings.collectives.len(), if tp == "1" { 0 } else { 6 });
        assert!(bundle.timings.copies.len() == 9 && bundle.timings.host_launch_ns > Some(0));
        assert!(bundle.calls.calls.len() > 30, "{}", bundle.calls.calls.len());
        assert!(bundle.calls.calls.iter().all(|call| !call.arguments.is_empty()));
        let (code, found) = replayed(&path);
        assert_eq!((code, &found["differences"]), (0, &Value::Array(Vec::new())), "{card}: {found}");
        for side in ["only_card", "only_emulator"] {
            assert_eq!(found[side], Value::Array(Vec::new()), "{card}");
        }
        assert!(found["calls"].as_u64() > Some(30));
        let times = found["times"].as_array().unwrap();
        assert!(times.len() > 60 && times.iter().all(|time| time["ratio"] == 1.0), "{found}");
    }
}

/// A card that refuses one form of one operator differs in the alternative that needs it and in that call, and nowhere else.
#[test]
fn a_rule_that_differs_is_shown_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.zip");
    made(&path, &[], "refused:PromptFlashAttentionV3:unbanded").expect(0, &[]);
    let (code, found) = replayed(&path);
    let told: Vec<[&str; 3]> = found["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| ["kind", "card", "emulator"].map(|field| d[field].as_str().unwrap()))
        .collect();
    // The alternative over a cache of numbers, and over one of integers.
    let alternative = ["alternative", "refused", "accepted"];
    assert_eq!(told, [alternative, alternative, ["call", "561003", "accepted"]], "{found}");
    let what = |i: usize| found["differences"][i]["what"].as_str().unwrap();
    assert_eq!([what(0), what(1)], ["c8 prefill=prompt", "prefill=prompt"]);
    let call = what(2);
    assert!(call.starts_with("survey: aclnnPromptFlashAttentionV3(fp16 [1, 128, 128]"), "{call}");
    assert_eq!(
        (code, &found["only_card"], &found["only_emulator"]),
        (1, &serde_json::json!([]), &serde_json::json!([]))
    );
    // Without JSON, a table and a sentence.
    let shown = ["npu-selftest", "--replay", path.to_str().unwrap(), "--emulate"];
    let answer = Answer::of(glmbench(&shown).output().unwrap()).expect(1, &["the emulator's rules differ"]);
    assert!(answer.out.contains("| alternative | prefill=prompt"), "{}", answer.out);
}

#[test]
fn the_first_failing_call_is_there_with_its_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.zip");
    made(&path, &[], "refused:SwiGlu").expect(1, &["rows fail"]);
    let failure = Bundle::read(&path).unwrap().summary.first_failure.unwrap();
    let call = failure.call.unwrap();
    assert_eq!((failure.operator.as_str(), call.operator.as_str()), ("gate_up and swiglu", "aclnnSwiGlu"));
    assert_eq!((call.code, call.arguments.len()), (Some(561_003), 3));
    assert_eq!(call.arguments[1], "-1");
    let (code, found) = replayed(&path);
    assert_eq!(code, 1);
    assert!(found["differences"].as_array().unwrap().iter().any(|d| d["kind"] == "row"), "{found}");
    // A card that is lost leaves what was known until then.
    fs::remove_file(&path).unwrap();
    made(&path, &[], "lost:90").expect(5, &["is lost"]);
    let bundle = Bundle::read(&path).unwrap();
    assert!(bundle.summary.lost.is_some() && bundle.summary.failed == 1, "{:?}", bundle.summary);
}

/// A card that does not start leaves a bundle with the failing call, and the exit code and message of the failure stay.
#[test]
fn a_card_that_does_not_start_leaves_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.zip");
    for (words, fault, says, call, arguments, code) in [
        (
            &[][..],
            "set-up:aclInit:507008",
            "aclInit failed with 507008",
            "aclInit",
            &["null"][..],
            Some(507_008),
        ),
        (&[], "set-up:aclrtSetDevice:507033", "cannot be set up", "aclrtSetDevice", &["0"], Some(507_033)),
        (
            &["--tp", "2"],
            "set-up:HcclCommInitRootInfo:4",
            "HcclCommInitRootInfo",
            "HcclCommInitRootInfo",
            &[],
            Some(4),
        ),
        (&[], "missing:aclrtMalloc", "aclrtMalloc is in none of", "aclrtMalloc", &[], None),
        (&["--device", "800i-a2"], "refused:RmsNorm", "RmsNorm", "aclnnRmsNorm", &[], Some(561_003)),
    ] {
        let answer = made(&path, words, fault);
        if fault == "refused:RmsNorm" && answer.code == Some(1) {
            // The operator is not needed to start: the row fails.
            fs::remove_file(&path).unwrap();
            continue;
        }
        let found = answer.code.unwrap();
        assert!(found > 1, "{fault}: {answer:?}");
        answer.expect(found, &[says, "wrote "]);
        let bundle = Bundle::read(&path).unwrap();
        let failure = bundle.start_failure().unwrap();
        let found = failure.call.as_ref().unwrap();
        assert_eq!((found.operator.as_str(), found.code), (call, code), "{fault}");
        if !arguments.is_empty() {
            assert_eq!(found.arguments, arguments, "{fault}");
        }
        assert!(failure.note.contains(says) && bundle.summary.lost.is_some(), "{failure:?}");
        assert!(bundle.machine.memory.iter().all(|chip| chip.problem.is_some()));
        assert_eq!(bundle.machine.environment.get("GLMBENCH_ASCEND_FAULT").map(String::as_str), Some(fault));
        // The emulator starts, and says so.
        let (code, replay) = replayed(&path);
        assert_eq!(code, 1, "{fault}");
        let start = replay["differences"].as_array().unwrap().iter().find(|d| d["kind"] == "start").unwrap();
        assert_eq!((&start["what"], &start["emulator"]), (&call.into(), &"starts".into()), "{fault}");
        let shown = ["npu-selftest", "--replay", path.to_str().unwrap(), "--emulate"];
        Answer::of(glmbench(&shown).output().unwrap())
            .expect(1, &["did not start", "no operators, alternatives and times"]);
        // Nor has `calibrate` anything to fit.
        let calibrate =
            ["calibrate", "--profile", "300i-duo", "--rehearsal", "--measured", path.to_str().unwrap()];
        Answer::of(glmbench(&calibrate).output().unwrap()).expect(2, &["has no times"]);
        fs::remove_file(&path).unwrap();
    }
    // A mistake in the settings is no state of the card.
    made(&path, &[], "nonsense").expect(2, &["fault \"nonsense\" is unknown"]);
    assert!(!path.exists());
}

/// Without CANN, there is a bundle that says what was searched.
#[test]
fn a_machine_without_cann_leaves_a_bundle() {
    if std::env::var_os("ASCEND_HOME_PATH").is_some() {
        crate::support::skipped("CANN is here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.zip");
    let words = ["npu-selftest", "--small", "--bundle", path.to_str().unwrap()];
    Answer::of(glmbench(&words).output().unwrap()).expect(5, &["libascendcl.so", "wrote "]);
    let bundle = Bundle::read(&path).unwrap();
    let call = bundle.start_failure().unwrap().call.as_ref().unwrap();
    assert!(call.operator == "dlopen" && call.message.contains("libascendcl.so"), "{call:?}");
    assert_eq!(bundle.summary.clock, glmbench::record::Clock::Measured);
}

#[test]
fn nothing_private_is_in_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.zip");
    let words = ["npu-selftest", "--small", "--emulate", "--bundle", path.to_str().unwrap()];
    let answer = glmbench(&words)
        .envs([
            ("HOME", "/home/wilhelmina"),
            ("USER", "wilhelmina"),
            ("HOSTNAME", "goldfinch.example"),
            ("HCCL_IF_IP", "192.168.77.3"),
            ("HCCL_SOCKET_IFNAME", "wilhelmina0"),
            ("ASCEND_PROCESS_LOG_PATH", "/home/wilhelmina/log"),
            ("GLMBENCH_SERVE_KEY", "wilhelmina-secret"),
            ("HCCL_BUFFSIZE", "110"),
        ])
        .output()
        .unwrap();
    Answer::of(answer).expect(0, &[]);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut zip = zip::ZipArchive::new(fs::File::open(&path).unwrap()).unwrap();
    for index in 0..zip.len() {
        let text = std::io::read_to_string(zip.by_index(index).unwrap()).unwrap();
        for word in ["wilhelmina", "goldfinch", "192.168", "/home/", "secret"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
        assert!(host.trim().len() < 3 || !text.contains(host.trim()));
    }
    let environment = Bundle::read(&path).unwrap().machine.environment;
    assert_eq!(environment.into_iter().collect::<Vec<_>>(), [("HCCL_BUFFSIZE".to_owned(), "110".to_owned())]);
}

#[test]
fn a_replay_wants_an_emulator_and_a_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b.zip");
    fs::write(&path, "x").unwrap();
    let path = path.to_str().unwrap();
    let run = |words: &[&str]| Answer::of(glmbench(words).output().unwrap());
    run(&["npu-selftest", "--replay", path]).expect(2, &["b.zip: found no zip"]);
    run(&["npu-selftest", "--replay", path, "--emulate=off"]).expect(2, &["invalid value 'off'"]);
    run(&["npu-selftest", "--replay", path, "--device", "800i-a2"])
        .expect(2, &["the bundle of --replay says"]);
    run(&["npu-selftest", "--replay", path, "--emulate"]).expect(2, &["b.zip: found no zip"]);
    run(&["npu-selftest", "--replay", path, "--emulate", "--small"]).expect(2, &["cannot be used with"]);
    run(&["npu-selftest", "--small", "--emulate", "--bundle", "/proc/none/b.zip"])
        .expect(2, &["/proc/none/b.zip"]);
}
