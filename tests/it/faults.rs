//! Faults of the emulated card, as a user sees them: the message, the exit code, and that a run can be resumed.

use std::path::Path;

use crate::library_sets::SETS;
use crate::resume::samples;
use crate::support::{Answer, glmbench};

#[test]
fn the_selftest_of_a_lost_device_ends_there() {
    // The faults come after the rehearsal at start-up.
    for (fault, tp) in [("lost:74", "1"), ("lost:74", "2"), ("timeout:84", "2"), ("hccl-timeout:2", "2")] {
        let words = ["npu-selftest", "--small", "--emulate", "--tp", tp];
        let said = ended(&words, fault).expect(5, &["300i-duo is lost"]);
        assert!(said.out.contains("FAIL"), "{said:?}");
        assert!(!said.words.contains("resume") && !said.out.contains("resume"), "{said:?}");
    }
    ended(&["npu-selftest", "--small", "--emulate"], "wrong:SwiGlu:1").expect(1, &["1 of 20 rows fail"]);
    // A device that never was available is not lost, and nothing can be resumed.
    for fault in ["set-up:aclInit:507008", "set-up:aclrtSetDevice:507033", "set-up:aclrtSetDevice:207006"] {
        let said = ended(&["npu-selftest", "--small", "--emulate"], fault).expect(5, &["/dev/davinciN"]);
        assert!(!said.words.contains("is lost") && !said.words.contains("resume"), "{said:?}");
    }
    // The others, which have joined, do not wait for a first rank that could not.
    let words = ["npu-selftest", "--small", "--emulate", "--tp", "2"];
    ended(&words, "set-up:HcclCommInitRootInfo:15").expect(5, &["HcclCommInitRootInfo failed with 15"]);
    // A plan that cannot be kept is created again.
    for fault in ["", "single-use:RmsNorm", "single-use:Matmul,single-use:Add"] {
        let words = ["npu-selftest", "--small", "--emulate"];
        ended(&words, fault).expect(0, &["all operators that this machine has pass"]);
    }
    // A wrong operator that a load goes around is gone around here, too. One that is wrong once, after the rehearsals, fails.
    let words = ["npu-selftest", "--small", "--emulate", "--device", "800i-a2"];
    let said = ended(&words, "broken:FusedInferAttentionScoreV2").expect(0, &[]);
    let of_cache = said.out.lines().filter(|line| line.contains("cache c8"));
    assert_eq!(of_cache.filter(|line| line.contains("pass")).count(), 2, "{}", said.out);
    ended(&words, "wrong:AscendQuantV3:15").expect(1, &["1 of 20 rows fail"]);
}

/// Runs the program with a fault.
fn ended(words: &[&str], fault: &str) -> Answer {
    Answer::of(glmbench(words).env("GLMBENCH_ASCEND_FAULT", fault).output().unwrap())
}

#[test]
fn a_fault_that_is_none_is_a_mistake_of_usage() {
    let chat = ["chat", "--model", "demo", "--prompt", "a", "--device", "800i-a2", "--emulate"];
    let known = "expected oom:N, lost:N, timeout:N, wrong:OPERATOR:N, hccl-timeout:N, single-use:OPERATOR, broken:OPERATOR, refused:OPERATOR, refused:OPERATOR:FORM with one of TND, BNSD, broadcast, D64, unbanded, int8, strict:doc, set-up:FUNCTION:CODE or missing:SYMBOL";
    for (fault, said) in [
        ("fire:1", known),
        ("lost", known),
        ("oom:0", known),
        ("wrong:Nothing:1", "the emulator has no function aclnnNothing"),
        ("missing:aclnnNothing", "the emulator has no function aclnnNothing"),
        ("refused:Nothing:TND", "the emulator has no function aclnnNothing"),
        ("broken:Nothing", "the emulator has no function aclnnNothing"),
    ] {
        ended(&chat, fault).expect(2, &[fault, said]);
        ended(&["npu-selftest", "--small", "--emulate"], fault).expect(2, &[fault, said]);
    }
    let forced = glmbench(&chat).env("GLMBENCH_ASCEND", "decode=fast").output().unwrap();
    Answer::of(forced)
        .expect(2, &["GLMBENCH_ASCEND=decode=fast", "fused, incre-bnsd, incre, prompt, matmul"]);
}

#[test]
fn a_fault_ends_a_run_with_five_and_it_goes_on() {
    faults_end_a_run("300i-duo", "");
}

#[test]
#[ignore = "minutes: every fault on both cards under each set of libraries"]
fn a_fault_ends_a_run_under_every_set_of_libraries() {
    for device in ["300i-duo", "800i-a2"] {
        for set in SETS {
            eprintln!("{device}, {}", set.name);
            faults_end_a_run(device, set.faults);
        }
    }
}

/// Runs every fault that ends a run, combined with those of a set of libraries, and checks exit code and message. Finished
/// work is kept, so the run can be resumed and equals an undisturbed one.
fn faults_end_a_run(device: &str, set: &str) {
    let folder = tempfile::tempdir().unwrap();
    let suite = folder.path().join("s.toml");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets/boolq-sample");
    let text = format!(
        "schema = 1\nname = \"k\"\n[model]\npath = \"demo\"\n[[accuracy]]\ntask = \"boolq\"\ndataset = {data:?}\n\
         protocol = \"modeltest\"\nlimit = 6\nbatch = 2\n"
    );
    std::fs::write(&suite, text).unwrap();
    let run = |out: &Path, tp: &str, more: &[&str], fault: &str| {
        let words = ["run", suite.to_str().unwrap(), "--out", out.to_str().unwrap(), "--device", device];
        ended(&[&words, &["--emulate", "--tp", tp][..], more].concat(), &format!("{set},{fault}"))
    };
    // `None` if the fault came before there was anything to keep.
    let kept = |out: &Path| -> Option<Vec<serde_json::Value>> {
        let dirs: Vec<_> = std::fs::read_dir(out).unwrap().map(|d| d.unwrap().path()).collect();
        assert!(dirs.len() < 2, "{dirs:?}");
        dirs.first().map(|dir| samples(dir))
    };
    for (tp, faults) in [
        (
            "1",
            &[
                ("lost:200", "is lost"),
                ("timeout:200", "is lost"),
                ("oom:3", "cannot be allocated"),
                ("oom:12", "cannot be allocated"),
            ][..],
        ),
        ("2", &[("lost:400", "is lost"), ("timeout:400", "is lost"), ("hccl-timeout:40", "is lost")]),
    ] {
        let straight = folder.path().join(format!("straight-{tp}"));
        run(&straight, tp, &[], "").expect(0, &[]);
        for (fault, said) in faults {
            let out = folder.path().join(format!("{tp}-{}", fault.replace(':', "-")));
            let said = run(&out, tp, &[], fault).expect(5, &[said]);
            let before = kept(&out).unwrap_or_default();
            assert!(before.is_empty() || said.words.contains("--resume continues"), "{fault}: {said:?}");
            run(&out, tp, &["--resume"], "").expect(0, &[]);
            let after = kept(&out).unwrap();
            assert!(after.starts_with(&before), "{fault}");
            assert_eq!(Some(after), kept(&straight), "{fault}");
        }
    }
    let out = folder.path().join("missing");
    run(&out, "1", &[], "missing:aclnnRmsNorm").expect(5, &["the function aclnnRmsNorm is in none of"]);
}
