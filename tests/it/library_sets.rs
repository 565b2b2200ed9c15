//! Sets of libraries that users have: older versions of CANN, and one with operators that follow their pages to the
//! letter. With each set, both emulated cards run the self-test and the suites on one and two ranks, and their results
//! pass the gate.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Answer, glmbench};

/// A set of libraries.
pub(crate) struct Set {
    pub name: &'static str,
    /// Value of `GLMBENCH_ASCEND_FAULT`.
    pub faults: &'static str,
    /// A card, a capability, and the choice that this set leaves for it.
    left: [&'static str; 3],
}

/// The emulator's default set comes first.
pub(crate) const SETS: [Set; 7] = [
    Set { name: "all", faults: "", left: ["800i-a2", "decode", "fused"] },
    Set { name: "pages to the letter", faults: "strict:doc", left: ["300i-duo", "decode", "prompt"] },
    Set {
        name: "no ScatterPaKvCache",
        faults: "missing:aclnnScatterPaKvCache,missing:aclnnScatterPaKvCacheGetWorkspaceSize",
        left: ["800i-a2", "kv", "index-copy"],
    },
    Set {
        name: "no TND",
        faults: "refused:FusedInferAttentionScoreV2:TND",
        left: ["800i-a2", "decode", "incre-bnsd"],
    },
    Set {
        name: "no WeightNz",
        faults: "missing:aclnnMatmulWeightNz,missing:aclnnMatmulWeightNzGetWorkspaceSize",
        left: ["300i-duo", "weights", "nz-mm"],
    },
    Set { name: "no InitAll", faults: "missing:HcclCommInitAll", left: ["300i-duo", "decode", "incre"] },
    Set {
        name: "oldest",
        faults: "missing:aclnnScatterPaKvCacheGetWorkspaceSize,missing:aclnnMatmulWeightNzGetWorkspaceSize,\
                 missing:aclnnFusedInferAttentionScoreV2GetWorkspaceSize,missing:aclSetAclOpExecutorRepeatable,\
                 missing:aclrtCreateStreamWithConfig,missing:aclrtCreateEventWithFlag,\
                 missing:aclrtSynchronizeStreamWithTimeout,missing:aclrtSynchronizeEventWithTimeout,\
                 missing:aclnnQuantMatmulV4GetWorkspaceSize,missing:aclnnWeightQuantBatchMatmulV2GetWorkspaceSize,\
                 missing:HcclCommInitAll,refused:InplaceAdd:broadcast,refused:ApplyRotaryPosEmb:D64",
        left: ["300i-duo", "reuse", "anew"],
    },
];

const CARDS: [&str; 2] = ["300i-duo", "800i-a2"];

/// Calls `body` with every set on every card, with one rank and two.
fn everywhere(mut body: impl FnMut(&Set, &str, &str)) {
    for set in &SETS {
        for card in CARDS {
            for tp in ["1", "2"] {
                body(set, card, tp);
            }
        }
    }
}

/// Runs the program on an emulated card with a set of libraries.
fn on(set: &Set, card: &str, tp: &str, words: &[&str]) -> Answer {
    let all = [words, &["--device", card, "--emulate", "--tp", tp]].concat();
    Answer::of(glmbench(&all).env("GLMBENCH_ASCEND_FAULT", set.faults).output().unwrap())
}

#[test]
fn the_selftest_passes_with_every_set_of_libraries() {
    everywhere(|set, card, tp| {
        let said = on(set, card, tp, &["npu-selftest", "--small"]);
        assert_eq!(said.code, Some(0), "{} on {card}, tp {tp}: {said:?}", set.name);
        assert!(
            said.out.contains("all operators that this machine has pass")
                || said.words.contains("all operators that this machine has pass")
        );
    });
}

#[test]
fn logits_keep_the_gate_with_every_set_of_libraries() {
    everywhere(|set, card, tp| {
        // Two ranks add half sums that are already rounded. So more positions differ from one CPU by 1e-4, but none by
        // more than 1e-3.
        let share = if tp == "1" { "0.005" } else { "0.01" };
        let words = ["parity", "--model", "demo", "--against", "cpu:fp16", "--max-share", share];
        let said = on(set, card, tp, &words);
        let kl = said.out.lines().filter(|line| line.starts_with("KL max") || line.starts_with("share"));
        eprintln!("{} on {card}, tp {tp}: {:?}", set.name, kl.collect::<Vec<_>>());
        assert_eq!(said.code, Some(0), "{} on {card}, tp {tp}: {said:?}", set.name);
    });
}

/// A short suite completes with every set, and the record has the choice that the set leaves.
#[test]
fn a_suite_runs_with_every_set_of_libraries() {
    let folder = tempfile::tempdir().unwrap();
    everywhere(|set, card, tp| {
        let out = folder.path().join(format!("{}-{card}-{tp}", set.name));
        let words = ["run", "suites/quickstart.toml", "--limit", "2", "--set", "performance.0.batch=[2]"];
        let lengths = ["--set", "performance.0.lengths=[[160,3]]", "--out", out.to_str().unwrap()];
        let said = on(set, card, tp, &[&words[..], &lengths].concat());
        assert_eq!(said.code, Some(0), "{} on {card}, tp {tp}: {said:?}", set.name);
        let run = only(&out);
        let record: Value = serde_json::from_slice(&std::fs::read(run.join("run.json")).unwrap()).unwrap();
        assert_eq!(record["status"], "complete", "{}", set.name);
        let [of, capability, word] = set.left;
        let details = &record["provenance"]["device_details"];
        assert!(card != of || details[capability] == word, "{}: {capability} {word}: {details}", set.name);
    });
}

fn only(folder: &Path) -> PathBuf {
    std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

/// Every suite, reduced to what a virtual clock does in seconds.
#[test]
#[ignore = "many minutes: every suite on both cards, with one rank and two, under each set of libraries"]
fn every_suite_runs_with_every_set_of_libraries() {
    let folder = tempfile::tempdir().unwrap();
    let suites: [(&str, &str); 8] = [
        ("boolq", "boolq=datasets/boolq-sample accuracy.0.limit=2 accuracy.1.limit=2"),
        ("ceval", "ceval=datasets/ceval-sample accuracy.0.limit=2"),
        (
            "load",
            "load.0.rates=[20] load.0.requests=6 load.0.lengths=[[16,4]] load.1.requests=100 load.1.lengths=[[8,1]] \
             load.2.requests=4 load.2.lengths=[[16,4]]",
        ),
        ("max-batch", "max_batch.0.lengths=[[16,4]] max_batch.0.batch_range=[1,4] max_batch.0.repetitions=1"),
        (
            "performance",
            "performance.0.batch=[1,3] performance.0.lengths=[[130,4],[64,4]] performance.0.repetitions=2",
        ),
        ("performance-boolq", "performance.0.lengths=[[16,4]] performance.1.lengths=[[16,4]]"),
        ("performance-ceval", "performance.0.lengths=[[64,4]] performance.1.lengths=[[64,4]]"),
        ("quickstart", "performance.0.batch=[2] performance.0.lengths=[[160,3]]"),
    ];
    let mut runs = 0;
    everywhere(|set, card, tp| {
        for (suite, changes) in suites {
            let out = folder.path().join(format!("{}-{card}-{tp}-{suite}", set.name));
            let file = format!("suites/{suite}.toml");
            let mut words = vec!["run", file.as_str(), "--limit", "2", "--out", out.to_str().unwrap()];
            // Two suites do not name a model.
            words.extend(
                ["boolq", "ceval"].iter().filter(|name| *name == &suite).flat_map(|_| ["--model", "demo"]),
            );
            words.extend(changes.split_whitespace().flat_map(|change| ["--set", change]));
            let said = on(set, card, tp, &words);
            assert_eq!(said.code, Some(0), "{suite}, {} on {card}, tp {tp}: {said:?}", set.name);
            runs += 1;
        }
    });
    eprintln!("{runs} runs");
}
