//! What may be compared, and how items and cases are joined.

use super::*;

#[test]
fn identity_is_refused_unless_allowed_and_then_stands_on_top() {
    let Records { mut run, samples, requests } = fixture::quiet();
    let a = Records { run: run.clone(), samples: samples.clone(), requests: requests.clone() };
    let mut fields: BTreeMap<String, String> = run.identity.fields().clone();
    fields.insert("dtype".into(), "fp32".into());
    fields.remove("rope");
    run.identity = Identity::new(fields);
    let b = Records { run, samples, requests };
    let message = compared(a.clone(), b.clone(), &Options::default()).unwrap_err().to_string();
    for says in ["--allow-mismatch", "dtype: A fp16, B fp32", "rope: A model, B none"] {
        assert!(message.contains(says), "{message}");
    }
    let comparison = compared(a, b, &allowing()).unwrap();
    assert_eq!(comparison.mismatches().len(), 2);
    let out = tempfile::tempdir().unwrap();
    write_comparison(&comparison, &[], out.path()).unwrap();
    let summary = fs::read_to_string(out.path().join("summary.md")).unwrap();
    assert!(summary.find("Identity differs").unwrap() < summary.find("## Runs").unwrap());
}

#[test]
fn a_baseline_may_be_another_form_of_the_model_but_no_other_question() {
    let base = fixture::quiet();
    let with = |changes: &[(&str, Option<&str>)]| {
        let Records { mut run, samples, requests } = fixture::quiet();
        let mut fields: BTreeMap<String, String> = run.identity.fields().clone();
        for (name, value) in changes {
            match value {
                Some(value) => fields.insert((*name).into(), (*value).into()),
                None => fields.remove(*name),
            };
        }
        run.identity = Identity::new(fields);
        compared(
            base.clone(),
            Records { run, samples, requests },
            &Options { allow_model: true, ..Options::default() },
        )
    };
    let quantised =
        with(&[("weights", Some("sha256:1")), ("quantisation", Some("w8a8")), ("suite", Some("sha256:2"))])
            .unwrap();
    assert_eq!(quantised.mismatches().len(), 3);
    assert_eq!(quantised.pairs[0].tasks.len(), 2);
    assert!(with(&[("protocol.boolq", None), ("rope", None)]).is_ok(), "a task of one run alone");
    for (field, value) in
        [("protocol.boolq", "generate"), ("dataset.ceval-sample", "sha256:3"), ("tokenizer", "sha256:4")]
    {
        let message = with(&[(field, Some(value)), ("dtype", Some("bf16"))]).unwrap_err().to_string();
        assert!(message.contains(field) && message.contains("dtype: A fp16, B bf16"), "{message}");
    }
}

#[test]
fn items_are_joined_by_content_and_what_cannot_be_is_told() {
    let Records { run, samples, .. } = fixture::quiet();
    let samples: Vec<SampleRecord> = samples
        .into_iter()
        .enumerate()
        .map(|(i, s)| SampleRecord { doc_hash: format!("hash-{i}"), ..s })
        .collect();
    let mut other = samples.clone();
    other[0].doc_id = "renamed".into();
    other[1].doc_hash = "changed".into();
    other[2].state = SampleState::Failed;
    other[3].prompt_hash = "another".into();
    other.remove(4);
    let comparison = compared(
        Records { run: run.clone(), samples, requests: vec![] },
        Records { run, samples: other, requests: vec![] },
        &Options::default(),
    )
    .unwrap();
    let pair = &comparison.pairs[0];
    let join = &pair.tasks[0].join;
    let wanted = JoinReport {
        paired: 237,
        failed: 1,
        only_a: 1,
        only_b: 0,
        changed: 1,
        changed_example: Some("val-advanced_mathematics-1".into()),
        prompts_differ: 1,
        answers_differ: 0,
    };
    assert_eq!(*join, wanted);
    let notes = pair.notes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    for says in
        ["only in A", "other content (such as val-advanced_mathematics-1)", "failed", "different prompts"]
    {
        assert!(notes.contains(says), "{notes}");
    }
}

#[test]
fn cases_are_joined_by_shape_and_ranks_or_by_shape_alone() {
    let a = fixture::quiet();
    let with_ranks = |tp: u32| {
        let Records { mut run, samples, mut requests } = fixture::quiet();
        for case in &mut run.plan.performance {
            case.tp = tp;
        }
        requests.iter_mut().for_each(|r| r.tp = tp);
        Records { run, samples, requests }
    };
    let comparison = compared(a.clone(), with_ranks(2), &Options::default()).unwrap();
    let pair = &comparison.pairs[0];
    assert_eq!(pair.cases.len(), 12);
    assert_eq!(pair.cases[0].name(), "b1-i32-o32 tp 1 / 2");
    assert!(
        pair.notes.iter().any(|note| note.contains("No tensor-parallel size is common")),
        "{:?}",
        pair.notes
    );
    let same = compared(with_ranks(2), with_ranks(2), &Options::default()).unwrap();
    assert_eq!(same.pairs[0].cases[0].name(), "b1-i32-o32-tp2");
}

#[test]
fn hostile_folders_are_answered_with_what_is_wrong() {
    let root = tempfile::tempdir().unwrap();
    let good = written(root.path(), fixture::quiet(), "good");
    let says = |paths: &[PathBuf], says: &str| {
        let message = compare(paths, &allowing()).unwrap_err().to_string();
        assert!(message.contains(says), "{says}: {message}");
    };
    says(std::slice::from_ref(&good), "needs two runs");
    says(&[good.clone(), good.clone()], "is given twice");
    let roundabout = good.join("..").join(good.file_name().unwrap());
    says(&[good.clone(), root.path().join("nothing"), roundabout], "is given twice");
    says(&[good.clone(), root.path().join("nothing")], "nothing/run.json");
    let mut empty = fixture::quiet();
    empty.run.status = Status::Running;
    let empty = written(root.path(), Records::empty(empty.run), "empty");
    says(
        &[good.clone(), empty],
        "no finished item, timed case, max-batch search, load, parity case or toy in common",
    );
    let mut other = fixture::quiet();
    other.run.plan.accuracy.clear();
    other.run.plan.performance.clear();
    let other = written(root.path(), other, "other");
    says(&[good.clone(), other.clone()], "B has no task and 0 timed cases");
    // An unreadable line makes a run invalid, but a comparison is still possible.
    let bad = written(root.path(), fixture::quiet(), "bad");
    fs::write(bad.join("samples.jsonl"), "{\"schema\":1}\n").unwrap();
    let comparison = compare(&[good.clone(), bad], &allowing()).unwrap();
    assert_eq!(comparison.verdict(), Verdict::Invalid);
    let faults = comparison.sides[1].summary.record_faults().unwrap();
    assert!(faults.contains("samples.jsonl: 1 line cannot be read (line 1: missing field"), "{faults}");
    fs::write(other.join("run.json"), "[]").unwrap();
    says(&[good, other], "run.json:1");
}

#[test]
fn schemas_of_different_age_compare() {
    let root = tempfile::tempdir().unwrap();
    let new = written(root.path(), fixture::quiet(), "new");
    let old = written(root.path(), fixture::quiet(), "old");
    let requests = old.join("requests.jsonl");
    let text = fs::read_to_string(&requests).unwrap();
    fs::write(requests, text.replace("\"schema\":2", "\"schema\":1").replace("\"tp\":1,\"block\":null,", ""))
        .unwrap();
    let comparison = compare(&[old, new], &Options::default()).unwrap();
    assert_eq!(comparison.pairs[0].cases.len(), 12);
}
