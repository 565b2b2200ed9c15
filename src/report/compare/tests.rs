//! Tests of comparisons.

mod accuracy;
mod joining;
mod runs;
mod speed;

use super::*;
use crate::record::{Clock, Group, Identity, SampleRecord, SampleState, Status};
use crate::record::{Noise, NoiseFloor, Phase, RepetitionKind, RequestRecord, RunDir};
use crate::report::charts::gallery;
use crate::report::fixture::{self, Records};
use crate::report::tests::assert_whole_page;
use crate::report::{render_comparison, write_comparison};
use crate::stats::Interval;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Two runs of the same suite: B is a bfloat16 run with some other answers and an 8 % slower decode.
fn two_runs(root: &Path) -> [RunDir; 2] {
    let a = fixture::realistic();
    let mut b = a.clone();
    rename(&mut b, "b");
    flip(&mut b.samples, |i| i % 23 == 5, |i| i % 46 == 5);
    for request in &mut b.requests {
        slow(request, 1.08);
    }
    [fixture::write(root, &a), fixture::write(root, &b)]
}

fn rename(records: &mut Records, end: &str) {
    records.run.run_id = format!("{}-{end}", records.run.run_id);
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
        records.run.provenance.group = Some(Group { blocks: Some(blocks), ..group(configuration, "g") });
        let first = |r: &&RequestRecord| r.kind == RepetitionKind::Timed && r.repetition == 0;
        let again = |r: &RequestRecord| {
            let r = r.clone();
            (0..2 * blocks).map(move |repetition| RequestRecord {
                repetition,
                block: Some(repetition / 2),
                ..r.clone()
            })
        };
        records.requests = records.requests.iter().filter(first).flat_map(again).collect();
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

/// "Which card, how much faster, is it as accurate, what fits": all of it stands above what has to be opened.
#[test]
fn the_first_page_answers_without_a_click() {
    let root = tempfile::tempdir().unwrap();
    let first_page = |comparison: &Comparison, judged: &[Judgement], name: &str| {
        let out = root.path().join(name);
        write_comparison(comparison, judged, &out).unwrap();
        let html = fs::read_to_string(out.join("report.html")).unwrap();
        html.split("<details").next().unwrap().to_owned()
    };
    let says =
        |page: &str, words: &[&str]| words.iter().for_each(|words| assert!(page.contains(words), "{words}"));
    let cards = gallery::two_cards(&root.path().join("cards"), Language::En);
    let page = first_page(&cards, &gallery::judged(), "of-cards");
    says(
        &page,
        &["800I A2 card 32 GB is ", "× as fast as 300I DUO 96 GB in decode", "What fits", "A at 50 ms"],
    );
    says(&page, &["decode time, worst case", "at most 1.03 × of A", "0.26 ×"]);
    let runs = gallery::two_runs(&root.path().join("runs"), Language::En);
    let page = first_page(&runs, &[], "of-runs");
    says(&page, &["× as fast as", "C-Eval", "points", "change in percentage points"]);
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
    let summary = write_comparison(&comparison, &judged, &out).unwrap();
    let text = |name: &str| {
        let text = fs::read_to_string(out.join(name)).unwrap();
        text.replace(root.path().to_str().unwrap(), "ROOT")
    };
    insta::assert_snapshot!("comparison.csv", text("comparison.csv"));
    insta::assert_snapshot!("flips.csv", text("flips.csv"));
    insta::assert_snapshot!("summary.md", text("summary.md"));
    let html = text("report.html");
    assert_whole_page(&html, Language::En);
    assert!(html.contains("−0.4 &lt;b&gt;"), "escaped");
    assert_eq!(html.matches("<svg").count(), 9);
    assert_eq!(
        summary
            .tables
            .iter()
            .map(|t| t.title.to_string().split(',').next().unwrap().to_owned())
            .collect::<Vec<_>>(),
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
    let Records { run, mut samples, requests } = fixture::quiet();
    let a = Records { run: run.clone(), samples: samples.clone(), requests: requests.clone() };
    // Thirty answers of ceval lost, none gained.
    let right: Vec<usize> =
        (0..samples.len()).filter(|&i| samples[i].task == "ceval" && samples[i].correct).take(30).collect();
    for &index in &right {
        samples[index].correct = false;
        samples[index].pred = Some(wrong(&samples[index]));
    }
    let mut slower = requests;
    slower.iter_mut().for_each(|request| slow(request, 1.05));
    let (first, second) = in_turn(
        a.clone(),
        Records { run: run.clone(), samples: samples.clone(), requests: slower.clone() },
        11,
    );
    let comparison = compared(first, second, &to_three_points()).unwrap();
    let pair = &comparison.pairs[0];
    assert_eq!(pair.tasks[0].verdict, AccuracyVerdict::Worse);
    assert_eq!(pair.tasks[1].verdict, AccuracyVerdict::Same);
    assert!(pair.tasks[0].p_holm >= pair.tasks[0].p);
    let decode = |pair: &Pair| pair.cases[0].phases[1].verdict;
    assert_eq!(decode(pair), SpeedVerdict::Slower);
    let p_holm = pair.cases[0].phases[1].p_holm.unwrap();
    assert!((p_holm - 12.0 / 1024.0).abs() < 1e-12 || (p_holm - 36.0 / 1024.0).abs() < 1e-12, "{p_holm}");
    let (first, second) = in_turn(Records { run, samples, requests: slower }, a, 11);
    let back = compared(first, second, &Options::default()).unwrap();
    assert_eq!(back.pairs[0].tasks[0].verdict, AccuracyVerdict::Better);
    assert_eq!(decode(&back.pairs[0]), SpeedVerdict::Faster);
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
        records.run.provenance.device = device.into();
        records.run.provenance.clock = Clock::Modelled;
        let again: Vec<_> = records
            .run
            .plan
            .performance
            .iter()
            .map(|c| crate::record::PerformanceCase {
                tp: 2,
                case_id: format!("{}-tp2", c.case_id),
                ..c.clone()
            })
            .collect();
        let twice = records.requests.iter().map(|r| RequestRecord {
            tp: 2,
            case_id: format!("{}-tp2", r.case_id),
            ..r.clone()
        });
        let mut twice: Vec<_> = twice.collect();
        twice.iter_mut().for_each(|r| slow(r, 0.6));
        records.run.plan.performance.extend(again);
        records.requests.extend(twice);
        records.requests.iter_mut().for_each(|r| {
            r.clock = Clock::Modelled;
            slow(r, factor);
        });
        records
    });
    render_comparison(&paths(&runs), &to(&folder.join("two"))).unwrap();
    let emulated: Vec<PathBuf> = modelled
        .iter()
        .map(|records| fixture::write(&folder.join("runs"), records).path().to_owned())
        .collect();
    render_comparison(&emulated, &to(&folder.join("modelled"))).unwrap();
    let mixed = [paths(&runs)[0].clone(), emulated[0].clone(), emulated[1].clone()];
    render_comparison(&mixed, &to(&folder.join("mixed"))).unwrap();
}
