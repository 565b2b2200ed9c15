//! What a merge refuses, and with which reason.

use std::fs;
use std::path::{Path, PathBuf};

use glmbench::record::{RunDir, RunRecord, WRITER};
use glmbench::run::shard_status::PlanStatus;
use regex::Regex;

use super::{PARTS, merged, refusal, request, run, suite};
use crate::in_process::try_run;

/// Rewrites a line of a journal with its sum, as a machine that computes otherwise would write it.
fn with_other_answer(run: &Path, item: usize) -> String {
    use sha2::{Digest, Sha256};
    let path = run.join("samples.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let id = Regex::new("\"doc_id\":\"([^\"]*)\"").unwrap().captures(&lines[item]).unwrap()[1].to_owned();
    let changed = lines[item].replacen("\"input_tokens_n\":", "\"input_tokens_n\":1", 1);
    let body = changed.rsplit_once(",\"sum\"").unwrap().0;
    let sum: String = Sha256::digest(body).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    lines[item] = format!("{body},\"sum\":\"{sum}\"}}");
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    reseal(run);
    id
}

fn reseal(run: &Path) {
    let dir = RunDir::open(run).unwrap();
    let record = dir.read_run().unwrap();
    let seal = Some(dir.seal().unwrap());
    dir.write_run(&RunRecord { seal, ..record }).unwrap();
}

#[test]
fn a_merge_is_refused_with_its_reason() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("merged");
    let text = suite(&PARTS[..2]);
    let at = |name: &str| root.path().join(name);
    let shards: Vec<PathBuf> = (1..=2).map(|index| run(&at("a"), &text, Some((index, 2)))).collect();
    let refused = |shards: &[PathBuf], says: &[&str]| {
        let message = refusal(&out, shards, false);
        for words in says {
            assert!(message.contains(words), "{words:?} is not in: {message}");
        }
    };
    // Runs that are no shards of one plan.
    let whole = run(&at("whole"), &text, None);
    refused(&[whole], &["is not the run of a shard"]);
    refused(&[at("whole")], &["found no run of a shard"]);
    let of_three = run(&at("b"), &text, Some((1, 3)));
    refused(&[of_three, shards[1].clone()], &["their numbers of shards differ: 3 and 2"]);
    let fewer = run(&at("c"), &text.replace("limit = 11", "limit = 7"), Some((1, 2)));
    refused(&[fewer, shards[1].clone()], &["are not of one run: their "]);
    let other_weights = run(&at("d"), &text, Some((1, 2)));
    let dir = RunDir::open(&other_weights).unwrap();
    let mut record = dir.read_run().unwrap();
    let mut fields = record.identity.fields().clone();
    fields.insert("weights".into(), "abc".into());
    record.identity = glmbench::record::Identity::new(fields);
    dir.write_run(&record).unwrap();
    refused(&[other_weights, shards[1].clone()], &["their weights differ: abc and none"]);
    // Shards that are not whole.
    refused(&shards[..1], &["shard 2 of 2 is missing", "--partial", "--resume"]);
    let (end, _) = try_run(&request(&at("e"), &text, Some((2, 2))), 3).unwrap();
    refused(&[shards[0].clone(), end.runs[0].clone()], &["shard 2 of 2 is incomplete"]);
    // Two runs of a shard.
    let again = run(&at("f"), &text, Some((2, 2)));
    let item = with_other_answer(&again, 1);
    refused(
        &[shards[0].clone(), shards[1].clone(), again],
        &["samples.jsonl: item ", &item, "differs in two runs of shard 2"],
    );
    // A journal that was changed after the end.
    let path = shards[1].join("samples.jsonl");
    let good = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        good.replacen("\"correct\":true", "\"correct\":false", 1).replacen(
            "\"correct\":false",
            "\"correct\":true",
            1,
        ) + "\n",
    )
    .unwrap();
    refused(&shards, &["samples.jsonl is not as it was sealed"]);
    fs::write(&path, good.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    refused(&shards, &["shard 2 of 2 in "]);
    fs::write(&path, good).unwrap();
    // The order of items is the plan's.
    let dir = RunDir::open(&shards[0]).unwrap();
    let record = dir.read_run().unwrap();
    let mut damaged = record.clone();
    let part = &mut damaged.shards.as_mut().unwrap().parts[0];
    let other = part.items.values().next().unwrap().clone();
    part.items.values_mut().for_each(|places| *places = other.clone());
    dir.write_run(&damaged).unwrap();
    refused(&shards, &["shard"]);
    dir.write_run(&record).unwrap();
    // The result is new.
    merged(&out, &shards).unwrap();
    let message = merged(&out, &shards).unwrap_err().to_string();
    assert!(message.contains("is there already"), "{message}");
    // A merged run is no shard.
    let message = merged(&at("twice"), &[out]).unwrap_err().to_string();
    assert!(message.contains("is not the run of a shard"), "{message}");
}

/// Rewrites the records of runs, with their sums.
fn with_records(runs: &[PathBuf], change: fn(&mut RunRecord)) {
    for run in runs {
        let dir = RunDir::open(run).unwrap();
        let mut record = dir.read_run().unwrap();
        change(&mut record);
        dir.write_run(&record).unwrap();
    }
}

/// The whole plan changed, with its hash.
fn with_whole(record: &mut RunRecord, change: fn(&mut glmbench::record::Plan)) {
    let shards = record.shards.as_mut().unwrap();
    let whole = shards.whole.as_mut().unwrap();
    change(whole);
    shards.plan_hash = whole.hash();
}

/// A change of a record.
type Edit = fn(&mut RunRecord);

#[test]
fn a_damaged_record_of_a_shard_is_refused_also_in_part() {
    let root = tempfile::tempdir().unwrap();
    let text = suite(&PARTS[..2]);
    let (folder, out) = (root.path().join("s"), root.path().join("merged"));
    let shards: Vec<PathBuf> = (1..=2).map(|index| run(&folder, &text, Some((index, 2)))).collect();
    let good: Vec<String> =
        shards.iter().map(|shard| fs::read_to_string(shard.join("run.json")).unwrap()).collect();
    let refused = |says: &str| {
        for (given, partial) in [(&shards[..], false), (&shards[..], true)]
            .into_iter()
            .chain([false, true].map(|partial| (std::slice::from_ref(&folder), partial)))
        {
            let message = refusal(&out, given, partial);
            assert!(message.contains(says), "{says:?} is not in: {message}");
        }
        for (shard, good) in shards.iter().zip(&good) {
            fs::write(shard.join("run.json"), good).unwrap();
        }
    };
    // Edited, and the sum is as it was.
    let edited = good[0].replacen("\"repetitions\": 2", "\"repetitions\": 1", 1);
    assert_ne!(edited, good[0]);
    fs::write(shards[0].join("run.json"), edited).unwrap();
    let message = PlanStatus::read(&folder).unwrap_err().to_string();
    assert!(message.contains("its sum is not that of its bytes"), "{message}");
    refused("its sum is not that of its bytes");
    // Cut before it says that it is a shard's: the directory's name does.
    fs::write(shards[0].join("run.json"), good[0].split("\"shards\"").next().unwrap()).unwrap();
    let message = PlanStatus::read(&folder).unwrap_err().to_string();
    assert!(message.contains("run.json:1: ") && message.contains("1of2"), "{message}");
    refused("run.json:1: ");
    // The whole plan edited, in one shard or in all.
    let expects: fn(&mut RunRecord) =
        |run| run.shards.as_mut().unwrap().whole.as_mut().unwrap().accuracy[0].expected = Some(1.0);
    for changed in [&shards[..1], &shards[..]] {
        with_records(changed, expects);
        refused("plan_hash is not that of its whole plan");
    }
    with_records(&shards[..1], expects);
    assert!(refusal(&out, &shards[..1], true).contains("plan_hash is not that of its whole plan"));
    refused("plan_hash is not that of its whole plan");
    // A plan without a task. The task's items are there.
    with_records(&shards, |run| with_whole(run, |whole| drop(whole.accuracy.pop())));
    refused("found an item that no task of the plan asks for");
    // A shard without its timed cases.
    with_records(&shards[..1], |run| {
        run.plan.performance.clear();
        run.shards.as_mut().unwrap().parts[0].cases.clear();
    });
    refused("a run.json is damaged");
    // Numbers for which there is neither memory nor time.
    let numbers: [(Edit, &str); 6] = [
        (|run| with_whole(run, |whole| whole.accuracy[0].items = 1 << 63), "a run.json is damaged"),
        (|run| with_whole(run, |whole| whole.accuracy[0].items = 1 << 40), "a run.json is damaged"),
        (|run| run.shards.as_mut().unwrap().count = 0, "found 0 shards; expected 1 to 65535"),
        (|run| run.shards.as_mut().unwrap().count = u32::MAX, "found 4294967295 shards"),
        (|run| run.shards.as_mut().unwrap().parts[0].index = 0, "found shard 0 of 2"),
        (|run| run.shards.as_mut().unwrap().parts[0].index = 9, "found shard 9 of 2"),
    ];
    for (change, says) in numbers {
        with_records(&shards, change);
        refused(says);
    }
    // A result within a shard.
    let message = refusal(&shards[1].join("new/merged"), &shards, false);
    assert!(message.contains("is inside"), "{message}");
    // A pipe. Nobody opens its other end.
    #[cfg(unix)]
    {
        let (samples, aside) = (shards[0].join("samples.jsonl"), root.path().join("aside"));
        fs::rename(&samples, &aside).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&samples).status().unwrap().success());
        refused("expected a regular file");
        assert!(PlanStatus::read(&folder).is_err());
        fs::remove_file(&samples).unwrap();
        fs::rename(&aside, &samples).unwrap();
    }
    // Who left his file in a shard that is complete and sealed does not matter.
    fs::write(shards[0].join(WRITER), "{}").unwrap();
    assert_eq!(merged(&out, &shards).unwrap().items, 20);
}
