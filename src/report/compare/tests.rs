//! Tests of comparisons.

use super::*;
use crate::record::{Clock, Group, Identity, RunRecord, SampleRecord, SampleState, Status};
use crate::record::{Noise, NoiseFloor, Phase, RepetitionKind, RequestRecord, RunDir};
use crate::report::fixture;
use crate::report::tests::assert_whole_page;
use std::collections::BTreeMap;
use std::fs;

type Records = (RunRecord, Vec<SampleRecord>, Vec<RequestRecord>);

/// Two runs of the same suite: B is a bfloat16 run with some other answers and an 8 % slower decode.
fn two_runs(root: &Path) -> [RunDir; 2] {
    let a = fixture::realistic();
    let mut b = a.clone();
    rename(&mut b, "b");
    flip(&mut b.1, |i| i % 23 == 5, |i| i % 46 == 5);
    for request in &mut b.2 {
        slow(request, 1.08);
    }
    [fixture::write(root, &a), fixture::write(root, &b)]
}

fn rename(records: &mut Records, end: &str) {
    records.0.run_id = format!("{}-{end}", records.0.run_id);
}

/// Changes the answers that `chosen` selects: to wrong if `lost` holds too, else to right.
fn flip(samples: &mut [SampleRecord], chosen: impl Fn(usize) -> bool, lost: impl Fn(usize) -> bool) {
    let scored = samples.iter_mut().enumerate().filter(|(_, s)| s.state == SampleState::Scored);
    for (index, sample) in scored.filter(|(index, _)| chosen(*index)) {
        sample.correct = !lost(index);
        sample.pred = Some(if sample.correct { sample.gold.clone() } else { wrong(sample) });
        sample.margin = Some(0.01 * index as f32);
    }
}

/// An answer that is not the key.
fn wrong(sample: &SampleRecord) -> String {
    if sample.gold == "A" { "B" } else { "A" }.into()
}

fn slow(request: &mut RequestRecord, factor: f64) {
    let times = |ns: u64| (ns as f64 * factor) as u64;
    let decode = times(request.end_ns - request.first_token_ns);
    request.end_ns = request.first_token_ns + decode;
    for step in &mut request.step_ns {
        *step = times(*step);
    }
}

fn paths(dirs: &[RunDir]) -> Vec<PathBuf> {
    dirs.iter().map(|dir| dir.path().to_owned()).collect()
}

/// Writes the records to `root` under another run id.
fn written(root: &Path, mut records: Records, end: &str) -> PathBuf {
    rename(&mut records, end);
    fixture::write(root, &records).path().to_owned()
}

fn compared(a: Records, b: Records, options: &Options) -> Result<Comparison, ReportError> {
    let root = tempfile::tempdir().unwrap();
    let paths = [written(root.path(), a, "a"), written(root.path(), b, "b")];
    compare(&paths, options)
}

/// Two records as one command leaves them that timed both in turn. Each of the `blocks` blocks has two repetitions
/// per side, made from each case's first repetition.
fn in_turn(mut a: Records, mut b: Records, blocks: u32) -> (Records, Records) {
    for (records, configuration) in [(&mut a, "one"), (&mut b, "two")] {
        records.0.provenance.group = Some(Group { blocks: Some(blocks), ..group(configuration, "g") });
        let first = |r: &&RequestRecord| r.kind == RepetitionKind::Timed && r.repetition == 0;
        let again = |r: &RequestRecord| {
            let r = r.clone();
            (0..2 * blocks).map(move |repetition| RequestRecord {
                repetition,
                block: Some(repetition / 2),
                ..r.clone()
            })
        };
        records.2 = records.2.iter().filter(first).flat_map(again).collect();
    }
    (a, b)
}

fn group(configuration: &str, id: &str) -> Group {
    Group {
        id: id.into(),
        suite: "s".into(),
        configuration: configuration.into(),
        configurations: vec!["one".into(), "two".into()],
        blocks: None,
    }
}

fn verdicts(comparison: &Comparison) -> Vec<SpeedVerdict> {
    comparison.pairs[0].cases.iter().flat_map(|case| &case.phases).map(|phase| phase.verdict).collect()
}

fn allowing() -> Options {
    Options { allow_mismatch: true, ..Options::default() }
}

/// The smallest margin that the fixture's few items can show.
fn to_three_points() -> Options {
    Options { accuracy_margin: 0.03, ..Options::default() }
}

fn to(folder: &Path) -> Options {
    Options { out: Some(folder.to_owned()), ..Options::default() }
}

#[test]
fn tasks_without_right_answers_have_perplexities_and_no_verdict() {
    let mut a = fixture::realistic();
    let task = a.0.plan.accuracy[0].task.clone();
    a.0.plan.accuracy[0].keyless = true;
    for sample in a.1.iter_mut().filter(|sample| sample.task == task) {
        let sums = [("loglikelihood", -20.0), ("words", 10.0), ("bytes", 40.0), ("tokens", 20.0)];
        sample.measures = sums.map(|(name, value)| (name.to_owned(), value)).into();
    }
    let mut b = a.clone();
    for sample in b.1.iter_mut().filter(|sample| sample.task == task) {
        sample.measures.insert("loglikelihood".into(), -30.0);
    }
    let comparison = compared(a.clone(), b.clone(), &Options::default()).unwrap();
    let pair = &comparison.pairs[0];
    assert!(pair.tasks.iter().all(|compared| compared.task != task));
    let words = format!("{task}: word perplexity 20.086, A 7.389 (");
    assert!(pair.perplexities[0].starts_with(&words), "{:?}", pair.perplexities);
    assert!(answer::sentence(&comparison, pair).contains(&words));
    // Texts that are scored against references have the mean of the score.
    for (run, score) in [(&mut a, 0.25), (&mut b, 0.5)] {
        for sample in run.1.iter_mut().filter(|sample| sample.task == task) {
            sample.measures = [("score".to_owned(), score), ("score 0-4k".to_owned(), 1.0)].into();
        }
    }
    let comparison = compared(a, b, &Options::default()).unwrap();
    let words = format!("{task}: score 0.5000, A 0.2500 (");
    assert!(
        comparison.pairs[0].perplexities[0].starts_with(&words),
        "{:?}",
        comparison.pairs[0].perplexities
    );
}

#[test]
fn a_comparison_is_written_whole() {
    let root = tempfile::tempdir().unwrap();
    let runs = two_runs(&root.path().join("runs"));
    let out = root.path().join("deep/down");
    let comparison = compare(&paths(&runs), &Options::default()).unwrap();
    let judgement = |gate: &str, outcome| Judgement {
        gate: gate.into(),
        run: "B".into(),
        limit: "at most 1 point".into(),
        found: "−0.4 <b>".into(),
        outcome,
        decide: None,
    };
    let judged = [judgement("accuracy drop", GateOutcome::Pass), judgement("tpot", GateOutcome::Undecided)];
    let summary = write(&comparison, &judged, &out).unwrap();
    let text = |name: &str| {
        let text = fs::read_to_string(out.join(name)).unwrap();
        text.replace(root.path().to_str().unwrap(), "ROOT")
    };
    insta::assert_snapshot!("comparison.csv", text("comparison.csv"));
    insta::assert_snapshot!("flips.csv", text("flips.csv"));
    insta::assert_snapshot!("summary.md", text("summary.md"));
    let html = text("report.html");
    assert_whole_page(&html);
    assert!(html.contains("−0.4 &lt;b&gt;"), "escaped");
    assert_eq!(html.matches("<svg").count(), 9);
    assert_eq!(
        summary.tables.iter().map(|t| t.title.split(',').next().unwrap()).collect::<Vec<_>>(),
        ["Runs", "Gates", "Accuracy in percent", "Speed"]
    );
    // serde's own headers must be the same, so no column can be misplaced.
    let mut own = csv::Writer::from_writer(Vec::new());
    own.serialize(&summary.rows[0]).unwrap();
    let own = String::from_utf8(own.into_inner().unwrap()).unwrap();
    assert_eq!(own.lines().next(), text("comparison.csv").lines().next());
    for table in &summary.tables {
        assert!(table.rows.iter().all(|row| row.cells.len() == table.columns.len()), "{}", table.title);
    }
}

#[test]
fn a_run_is_the_same_as_itself() {
    let (a, b) = in_turn(fixture::quiet(), fixture::quiet(), 11);
    let comparison = compared(a, b, &to_three_points()).unwrap();
    let pair = &comparison.pairs[0];
    assert!(pair.tasks.iter().all(|task| task.verdict == AccuracyVerdict::Same && task.is_identical()));
    assert_eq!(verdicts(&comparison), [SpeedVerdict::Same; 36]);
    assert_eq!(pair.advice, None);
    assert!(pair.differences.identity.is_empty() && pair.notes.is_empty(), "{:?}", pair.notes);
}

#[test]
fn a_planted_slowdown_and_a_planted_loss_are_found() {
    let (run, mut samples, requests) = fixture::quiet();
    let a = (run.clone(), samples.clone(), requests.clone());
    // Thirty answers of ceval lost, none gained.
    let right: Vec<usize> =
        (0..samples.len()).filter(|&i| samples[i].task == "ceval" && samples[i].correct).take(30).collect();
    for &index in &right {
        samples[index].correct = false;
        samples[index].pred = Some(wrong(&samples[index]));
    }
    let mut slower = requests;
    slower.iter_mut().for_each(|request| slow(request, 1.05));
    let (first, second) = in_turn(a.clone(), (run.clone(), samples.clone(), slower.clone()), 11);
    let comparison = compared(first, second, &to_three_points()).unwrap();
    let pair = &comparison.pairs[0];
    assert_eq!(pair.tasks[0].verdict, AccuracyVerdict::Worse);
    assert_eq!(pair.tasks[1].verdict, AccuracyVerdict::Same);
    assert!(pair.tasks[0].p_holm >= pair.tasks[0].p);
    let decode = |pair: &Pair| pair.cases[0].phases[1].verdict;
    assert_eq!(decode(pair), SpeedVerdict::Slower);
    let p_holm = pair.cases[0].phases[1].p_holm.unwrap();
    assert!((p_holm - 12.0 / 1024.0).abs() < 1e-12 || (p_holm - 36.0 / 1024.0).abs() < 1e-12, "{p_holm}");
    let (first, second) = in_turn((run, samples, slower), a, 11);
    let back = compared(first, second, &Options::default()).unwrap();
    assert_eq!(back.pairs[0].tasks[0].verdict, AccuracyVerdict::Better);
    assert_eq!(decode(&back.pairs[0]), SpeedVerdict::Faster);
}

#[test]
fn equal_answers_to_few_items_are_not_the_same() {
    let comparison = compared(fixture::quiet(), fixture::quiet(), &Options::default()).unwrap();
    for task in &comparison.pairs[0].tasks {
        assert!(task.is_identical());
        assert_eq!(task.verdict, AccuracyVerdict::CannotTell { needs: Some(268) });
        for group in &task.groups {
            let (difference, interval) = group.difference;
            let (low, high) = interval.unwrap();
            assert!(difference == 0.0 && low < 0.0 && high > 0.0, "{group:?}");
        }
    }
}

#[test]
fn few_items_cannot_tell_and_say_how_many_would() {
    let (run, samples, _) = fixture::quiet();
    let mut other = samples.clone();
    flip(&mut other, |i| i < 8, |i| i % 2 == 0);
    let comparison =
        compared((run.clone(), samples, vec![]), (run, other, vec![]), &Options::default()).unwrap();
    let task = &comparison.pairs[0].tasks[0];
    let AccuracyVerdict::CannotTell { needs: Some(n) } = task.verdict else { panic!("{:?}", task.verdict) };
    assert!(n > 240, "{n}");
    assert!(tables::task_notes(task)[0].contains("fewer than 6"), "{:?}", tables::task_notes(task));
    // Farthest moved first.
    let moved: Vec<f32> = task.flips.iter().filter_map(Flip::moved).collect();
    assert!(moved.windows(2).all(|w| w[0] >= w[1]) && !moved.is_empty());
}

#[test]
fn measured_and_modelled_times_never_get_a_verdict() {
    let measured = fixture::quiet();
    let mut modelled = fixture::quiet();
    modelled.0.provenance.clock = Clock::Modelled;
    modelled.0.provenance.device = "300i-duo (emulated)".into();
    modelled.2.iter_mut().for_each(|r| r.clock = Clock::Modelled);
    let root = tempfile::tempdir().unwrap();
    let mixed = compared(measured, modelled.clone(), &Options::default()).unwrap();
    let phases = || mixed.pairs[0].cases.iter().flat_map(|case| &case.phases);
    assert!(phases().all(|p| p.verdict == SpeedVerdict::NotComparable && p.ratio.is_none() && p.p.is_none()));
    write(&mixed, &[], root.path()).unwrap();
    let html = fs::read_to_string(root.path().join("report.html")).unwrap();
    assert!(html.contains("not comparable: measured vs modelled") && html.contains("B, modelled ms"));
    assert!(!html.contains("class=\"n\">faster") && !html.contains("Geometric mean"));
    assert!(!root.path().join("charts/samples.svg").exists(), "no common scale for two clocks");

    let mut second = modelled.clone();
    second.0.provenance.device = "800i-a2 (emulated)".into();
    second.2.iter_mut().for_each(|r| slow(r, 0.5));
    let both = compared(modelled, second, &Options::default()).unwrap();
    let phases = || both.pairs[0].cases.iter().flat_map(|case| &case.phases);
    assert!(
        phases().all(|p| p.verdict == SpeedVerdict::ModelledRatio && p.interval.is_none() && p.p.is_none())
    );
    assert!((phases().nth(1).unwrap().ratio.unwrap() - 0.5).abs() < 1e-3);
    let said = headline::sentences(&both).join(" ");
    assert!(said.contains("2.0 × as fast as") && said.contains("(modelled, error unknown;"), "{said}");
    let summary = write(&both, &[], root.path()).unwrap();
    let speed = summary.tables.last().unwrap();
    let is_told = |index: usize| speed.columns[index].name.contains("modelled");
    assert!([2, 3, 5].into_iter().all(is_told), "{:?}", speed.columns);
    let csv = fs::read_to_string(root.path().join("comparison.csv")).unwrap();
    let rows = csv.lines().filter(|l| l.contains(",speed,"));
    assert!(
        rows.clone().count() > 0
            && rows.clone().all(|l| l.contains("modelled,modelled") && l.contains("modelled ratio"))
    );
}

#[test]
fn identity_is_refused_unless_allowed_and_then_stands_on_top() {
    let (mut run, samples, requests) = fixture::quiet();
    let a = (run.clone(), samples.clone(), requests.clone());
    let mut fields: BTreeMap<String, String> = run.identity.fields().clone();
    fields.insert("dtype".into(), "fp32".into());
    fields.remove("rope");
    run.identity = Identity::new(fields);
    let b = (run, samples, requests);
    let message = compared(a.clone(), b.clone(), &Options::default()).unwrap_err().to_string();
    for says in ["--allow-mismatch", "dtype: A fp16, B fp32", "rope: A model, B none"] {
        assert!(message.contains(says), "{message}");
    }
    let comparison = compared(a, b, &allowing()).unwrap();
    assert_eq!(comparison.mismatches().len(), 2);
    let out = tempfile::tempdir().unwrap();
    write(&comparison, &[], out.path()).unwrap();
    let summary = fs::read_to_string(out.path().join("summary.md")).unwrap();
    assert!(summary.find("Identity differs").unwrap() < summary.find("## Runs").unwrap());
}

#[test]
fn items_are_joined_by_content_and_what_cannot_be_is_told() {
    let (run, samples, _) = fixture::quiet();
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
    let comparison =
        compared((run.clone(), samples, vec![]), (run, other, vec![]), &Options::default()).unwrap();
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
    let notes = pair.notes.join(" ");
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
        let (mut run, samples, mut requests) = fixture::quiet();
        for case in &mut run.plan.performance {
            case.tp = tp;
        }
        requests.iter_mut().for_each(|r| r.tp = tp);
        (run, samples, requests)
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
fn blocks_are_paired_only_within_one_command_that_placed_them_anew() {
    let basis = |comparison: &Comparison| comparison.pairs[0].cases[0].phases[0].basis;
    let (a, b) = in_turn(fixture::realistic(), fixture::realistic(), 12);
    let together = compared(a.clone(), b.clone(), &Options::default()).unwrap();
    assert_eq!(basis(&together), Some(Basis::Blocks(12)));
    assert!(together.sides[1].label().contains("two"));
    // Another command, and one with all blocks in one process.
    for change in [|g: &mut Group| g.id = "h".into(), |g: &mut Group| g.blocks = None] {
        let mut other = b.clone();
        other.0.provenance.group.iter_mut().for_each(change);
        let apart = compared(a.clone(), other, &Options::default()).unwrap();
        assert_eq!(basis(&apart), Some(Basis::Apart));
        assert!(verdicts(&apart).iter().all(|verdict| *verdict == SpeedVerdict::NotInTurn));
    }
    let named = |a: &str, b: &str| {
        let side = |configuration: &str| {
            let mut records = fixture::quiet();
            records.0.provenance.group = Some(group(configuration, "g"));
            records
        };
        let comparison = compared(side(a), side(b), &Options::default()).unwrap();
        comparison.sides.iter().map(|side| side.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(named("device=cpu,dtype=fp16", "device=cpu,dtype=bf16"), ["fp16", "bf16"]);
    assert_eq!(named("device=cpu,threads=1", "device=cpu,threads=2"), ["1 thread", "2 threads"]);
    assert_eq!(named("device=cpu", "device=300i-duo,tp=2"), ["cpu", "300i-duo tp 2"]);
    assert_eq!(named("one", "one")[0], "cpu 2026-11-23T02:15:00Z", "nothing in the names tells them apart");
}

#[test]
fn two_runs_that_were_not_timed_in_turn_have_a_ratio_and_the_command_that_decides() {
    let mut slower = fixture::quiet();
    slower.2.iter_mut().for_each(|request| slow(request, 2.0));
    slower.0.provenance.dtype = "bf16".into();
    let comparison = compared(fixture::quiet(), slower, &Options::default()).unwrap();
    let decode = &comparison.pairs[0].cases[0].phases[1];
    assert_eq!(decode.verdict, SpeedVerdict::NotInTurn);
    assert!((decode.ratio.unwrap() - 2.0).abs() < 0.01);
    assert_eq!((decode.interval, decode.p, decode.p_holm), (None, None, None));
    let said = headline::sentences(&comparison).join("\n");
    assert!(said.contains("36 timed phases not timed in turn"), "{said}");
    let command = "`glmbench run suites/quickstart.toml --interleave --configuration device=cpu,dtype=fp16,threads=2 \
         --configuration device=cpu,dtype=bf16,threads=2`";
    assert!(said.contains(command), "{said}");
    // No recorded difference: no single command can run both programs.
    let alike = compared(fixture::quiet(), fixture::quiet(), &Options::default()).unwrap();
    let advice = alike.pairs[0].advice.clone().unwrap();
    assert!(
        advice.contains("`glmbench run suites/quickstart.toml` with either program in turn, 7 times each"),
        "{advice}"
    );
    assert!(advice.contains("`glmbench compare A1 … A7 -- B1 … B7`"), "{advice}");
}

#[test]
fn too_few_blocks_say_how_many_would_do() {
    let mut slower = fixture::quiet();
    slower.2.iter_mut().for_each(|request| slow(request, 2.0));
    let (a, b) = in_turn(fixture::quiet(), slower, 5);
    let comparison = compared(a, b, &Options::default()).unwrap();
    let advice = comparison.pairs[0].advice.clone().unwrap();
    assert!(
        advice.starts_with("5 blocks cannot decide 36 phases; at least 11 are needed: `glmbench run"),
        "{advice}"
    );
    assert!(advice.ends_with("--blocks 11`"), "{advice}");
    // Five blocks can still show "same".
    let found = verdicts(&comparison);
    assert_eq!((found[0], found[1]), (SpeedVerdict::Same, SpeedVerdict::CannotTell));
}

#[test]
fn a_phase_that_fails_its_own_conditions_is_never_called() {
    let mut slower = fixture::quiet();
    slower.2.iter_mut().for_each(|request| slow(request, 2.0));
    let (a, mut b) = in_turn(fixture::quiet(), slower, 12);
    let wide = b.0.plan.performance[0].case_id.clone();
    let mut even = false;
    for request in b.2.iter_mut().filter(|r| r.case_id == wide) {
        even = !even;
        slow(request, if even { 1.0 } else { 1.6 });
    }
    let comparison = compared(a, b, &Options::default()).unwrap();
    let cases = &comparison.pairs[0].cases;
    assert_eq!(cases[0].phases[1].verdict, SpeedVerdict::Unstable);
    assert!(
        cases[0].phases[1].notes.iter().any(|note| note.contains("not to ± 5 %")),
        "{:?}",
        cases[0].phases[1].notes
    );
    assert_eq!(cases[1].phases[1].verdict, SpeedVerdict::Slower);
}

#[test]
fn several_runs_a_side_are_held_against_what_differs_between_runs() {
    let root = tempfile::tempdir().unwrap();
    let run = |factor: f64, minute: u32, end: &str| {
        let mut records = fixture::quiet();
        records.2.iter_mut().for_each(|request| slow(request, factor));
        records.0.provenance.started = format!("2026-11-23T02:{minute:02}:00Z");
        written(root.path(), records, end)
    };
    let compare_runs = |slower: f64, runs: usize, in_turn: bool| {
        let mut sides = [Vec::new(), Vec::new()];
        for turn in 0..2 * runs {
            let side = if in_turn { (turn + turn / 2) % 2 } else { turn / runs };
            let uneven = 1.0 + 0.002 * (turn * 7 % 5) as f64;
            let factor = if side == 1 { slower } else { 1.0 };
            sides[side].push(run(uneven * factor, turn as u32, &format!("{slower}-{runs}-{in_turn}-{turn}")));
        }
        let [a, b] = sides.map(|runs| (runs[0].clone(), runs[1..].to_vec()));
        compare(&[a.0, b.0], &Options { further_runs: vec![a.1, b.1], ..Options::default() }).unwrap()
    };
    let slower = compare_runs(1.05, 8, true);
    let decode = &slower.pairs[0].cases[0].phases[1];
    assert_eq!((decode.verdict, decode.basis), (SpeedVerdict::Slower, Some(Basis::Runs(8, 8))));
    assert_eq!((decode.a.reps, decode.a.ci95_lo_ns), (8, None), "what is shown is of the runs");
    assert_eq!(compare_runs(1.0, 8, true).pairs[0].cases[0].phases[1].verdict, SpeedVerdict::Same);
    let few = compare_runs(2.0, 3, true);
    assert_eq!(few.pairs[0].cases[0].phases[1].verdict, SpeedVerdict::CannotTell);
    let advice = few.pairs[0].advice.clone().unwrap();
    assert!(advice.starts_with("3 runs a side cannot decide 36 phases; at least 7 are needed"), "{advice}");
    // All runs of one side first: the time of day is part of the difference.
    let hour = compare_runs(2.0, 8, false);
    assert_eq!(hour.pairs[0].cases[0].phases[1].verdict, SpeedVerdict::NotInTurn);
    assert!(hour.pairs[0].cases[0].phases[1].notes[0].contains("do not alternate in time"));
}

#[test]
fn a_further_run_of_another_thing_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let mut other = fixture::quiet();
    let mut fields = other.0.identity.fields().clone();
    fields.insert("dtype".into(), "fp32".into());
    other.0.identity = Identity::new(fields);
    let [a, b, more] = [(fixture::quiet(), "a"), (fixture::quiet(), "b"), (other, "more")]
        .map(|(records, end)| written(root.path(), records, end));
    let again = |paths: Vec<PathBuf>| Options { further_runs: vec![paths], ..Options::default() };
    let message = compare(&[a.clone(), b.clone()], &again(vec![more.clone()])).unwrap_err().to_string();
    assert!(message.contains("further run") && message.contains("differ in dtype"), "{message}");
    let twice = compare(&[a.clone(), b.clone()], &again(vec![b])).unwrap_err().to_string();
    assert!(twice.contains("is given twice"), "{twice}");
}

#[test]
fn two_runs_get_a_verdict_against_a_floor_between_runs() {
    let noise = |spread: f64, host: &str| {
        let run = fixture::run().provenance;
        let floor = |phase| NoiseFloor {
            case_id: "b1-i8-o8".into(),
            phase,
            runs: 10,
            spread: Some(spread),
            median_ns: Some(1),
            floor: 0.0,
        };
        let noise = Noise {
            engine: run.engine,
            host: host.into(),
            cpu_model: run.cpu_model,
            device: run.device,
            kernel: run.kernel,
            dtype: run.dtype,
            threads: run.threads,
            model: run.model,
            made: String::new(),
            floors: vec![floor(Phase::Decode)],
        };
        Options { noise: NoiseFloors::of_machine(noise).unwrap(), ..Options::default() }
    };
    let first = |factor: f64, options: &Options| {
        let mut slower = fixture::quiet();
        slower.2.iter_mut().for_each(|request| slow(request, factor));
        let comparison = compared(fixture::quiet(), slower, options).unwrap();
        comparison.pairs[0].cases[0].phases[1].clone()
    };
    // Ten runs with a spread of 1 %: in one comparison of twenty, one of 36 phases differs by 6.6 % or more.
    assert_eq!(first(1.10, &noise(0.01, "bench-1")).verdict, SpeedVerdict::Slower);
    assert_eq!(first(1.05, &noise(0.01, "bench-1")).verdict, SpeedVerdict::CannotTell);
    assert_eq!(first(1.0, &noise(0.002, "bench-1")).verdict, SpeedVerdict::Same);
    let foreign = first(1.10, &noise(0.01, "bench-2"));
    assert_eq!(foreign.verdict, SpeedVerdict::NotInTurn);
    assert!(foreign.notes[0].contains("the noise floor is of host bench-2"), "{:?}", foreign.notes);
    let share = Options { noise: NoiseFloors::every(0.05), ..Options::default() };
    assert_eq!(first(1.10, &share).verdict, SpeedVerdict::Slower);
    assert_eq!(first(1.04, &share).verdict, SpeedVerdict::CannotTell);
}

#[test]
fn what_cannot_be_used_is_not_judged() {
    let a = fixture::quiet();
    let mut b = fixture::quiet();
    // One repetition of the last case wrote another output. All of the first case wrote another output than A.
    b.2.last_mut().unwrap().output_hash = "other".into();
    let first = b.0.plan.performance[0].case_id.clone();
    b.2.iter_mut().filter(|r| r.case_id == first).for_each(|r| r.output_hash = "else".into());
    let comparison = compared(a, b, &Options::default()).unwrap();
    let cases = &comparison.pairs[0].cases;
    assert_eq!(cases[0].same_output, Some(false));
    assert_eq!(cases[0].phases[0].verdict, SpeedVerdict::NotInTurn);
    assert!(cases.last().unwrap().phases.iter().all(|p| p.verdict == SpeedVerdict::Invalid));
    assert_eq!(comparison.verdict(), Verdict::Invalid);
}

#[test]
fn too_few_repetitions_have_no_verdict() {
    let few = || {
        let (run, samples, mut requests) = fixture::quiet();
        requests.retain(|r| r.repetition < 3);
        (run, samples, requests)
    };
    let floor = Options { noise: NoiseFloors::every(0.001), ..Options::default() };
    let comparison = compared(few(), few(), &floor).unwrap();
    let phase = &comparison.pairs[0].cases[0].phases[0];
    assert_eq!(phase.verdict, SpeedVerdict::Unstable);
    assert!(phase.notes.iter().any(|note| note.contains("fewer than 5")), "{:?}", phase.notes);
}

#[test]
fn three_runs_are_held_against_the_first() {
    let root = tempfile::tempdir().unwrap();
    let third = written(root.path(), fixture::realistic(), "third");
    let mut paths = paths(&two_runs(root.path()));
    paths.push(third);
    let summary = render(&paths, &to(&root.path().join("out"))).unwrap();
    // The answer on each pair, then a piece of advice for each.
    assert_eq!((summary.headline.len(), summary.folder), (4, root.path().join("out")));
    assert!(summary.headline[1].starts_with("C "), "{:?}", summary.headline);
    assert_whole_page(&fs::read_to_string(root.path().join("out/report.html")).unwrap());
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
    empty.0.status = Status::Running;
    let empty = written(root.path(), (empty.0, vec![], vec![]), "empty");
    says(&[good.clone(), empty], "no finished item, timed case, max-batch search, load or toy in common");
    let mut other = fixture::quiet();
    other.0.plan.accuracy.clear();
    other.0.plan.performance.clear();
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

/// Not a check: writes a sample comparison to the folder that the variable names.
#[test]
fn leave_one_to_look_at() {
    let Some(folder) = std::env::var_os("GLMBENCH_REPORT_SAMPLE") else { return };
    let folder = PathBuf::from(folder);
    let runs = two_runs(&folder.join("runs"));
    let modelled = [("300i-duo (emulated)", 30.0), ("800i-a2 (emulated)", 4.0)].map(|(device, factor)| {
        let mut records = fixture::quiet();
        rename(&mut records, &device[..4]);
        records.0.provenance.device = device.into();
        records.0.provenance.clock = Clock::Modelled;
        let again: Vec<_> = records
            .0
            .plan
            .performance
            .iter()
            .map(|c| crate::record::PerformanceCase {
                tp: 2,
                case_id: format!("{}-tp2", c.case_id),
                ..c.clone()
            })
            .collect();
        let twice = records.2.iter().map(|r| RequestRecord {
            tp: 2,
            case_id: format!("{}-tp2", r.case_id),
            ..r.clone()
        });
        let mut twice: Vec<_> = twice.collect();
        twice.iter_mut().for_each(|r| slow(r, 0.6));
        records.0.plan.performance.extend(again);
        records.2.extend(twice);
        records.2.iter_mut().for_each(|r| {
            r.clock = Clock::Modelled;
            slow(r, factor);
        });
        records
    });
    render(&paths(&runs), &to(&folder.join("two"))).unwrap();
    let emulated: Vec<PathBuf> = modelled
        .iter()
        .map(|records| fixture::write(&folder.join("runs"), records).path().to_owned())
        .collect();
    render(&emulated, &to(&folder.join("modelled"))).unwrap();
    let mixed = [paths(&runs)[0].clone(), emulated[0].clone(), emulated[1].clone()];
    render(&mixed, &to(&folder.join("mixed"))).unwrap();
}

/// A shard of a merged run was timed on another machine: its cases have no verdict, however clear the times are.
#[test]
fn times_of_unlike_machines_have_no_verdict() {
    use crate::record::{ShardCase, ShardOrigin, ShardPart, Shards};
    let phases = |share: f64| {
        let (a, mut b) = in_turn(fixture::realistic(), fixture::realistic(), 8);
        let from = &b.0.provenance;
        let mut roofline = from.roofline.clone().unwrap();
        roofline.bandwidth_bytes_per_s *= share;
        let origin = ShardOrigin {
            run_id: "r".into(),
            complete: true,
            host: "other".into(),
            cpu_model: from.cpu_model.clone(),
            kernel: from.kernel.clone(),
            threads: from.threads,
            governor: None,
            roofline: Some(roofline),
            load: None,
            started: from.started.clone(),
            finished: None,
            resumed: 0,
        };
        let case = |case: &crate::record::PerformanceCase| ShardCase { id: case.case_id.clone(), work: 1 };
        let cases = b.0.plan.performance.iter().map(case).collect();
        let part = ShardPart { index: 1, cases, origin: Some(origin), ..ShardPart::default() };
        let shards = Shards { count: 1, plan_hash: String::new(), whole: None, parts: vec![part] };
        b.0.shards = Some(Box::new(shards));
        let comparison = compared(a, b, &Options::default()).unwrap();
        let phases = comparison.pairs.into_iter().flat_map(|pair| pair.cases).flat_map(|case| case.phases);
        phases.collect::<Vec<_>>()
    };
    let is_unlike = |phase: &PhaseComparison| phase.notes.iter().any(|note| note.contains("unlike machines"));
    let unlike = phases(0.8);
    assert!(!unlike.is_empty());
    assert!(unlike.iter().all(|phase| is_unlike(phase) && phase.verdict == SpeedVerdict::CannotTell));
    // Limits vary by a few percent from one measurement to the next.
    assert!(!phases(0.95).iter().any(is_unlike));
}
