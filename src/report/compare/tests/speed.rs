//! Verdicts on speed: clocks, blocks, and what is never called.

use super::*;

#[test]
fn measured_and_modelled_times_never_get_a_verdict() {
    let measured = fixture::quiet();
    let mut modelled = fixture::quiet();
    modelled.run.provenance.clock = Clock::Modelled;
    modelled.run.provenance.device = "300i-duo (emulated)".into();
    modelled.requests.iter_mut().for_each(|r| r.clock = Clock::Modelled);
    let root = tempfile::tempdir().unwrap();
    let mixed = compared(measured, modelled.clone(), &Options::default()).unwrap();
    let phases = || mixed.pairs[0].cases.iter().flat_map(|case| &case.phases);
    assert!(phases().all(|p| p.verdict == SpeedVerdict::NotComparable && p.ratio.is_none() && p.p.is_none()));
    write_comparison(&mixed, &[], root.path()).unwrap();
    let html = fs::read_to_string(root.path().join("report.html")).unwrap();
    assert!(html.contains("not comparable: measured vs modelled") && html.contains("B, modelled ms"));
    assert!(!html.contains("class=\"n\">faster") && !html.contains("Geometric mean"));
    assert!(!root.path().join("charts/samples.svg").exists(), "no common scale for two clocks");

    let mut second = modelled.clone();
    second.run.provenance.device = "800i-a2 (emulated)".into();
    second.requests.iter_mut().for_each(|r| slow(r, 0.5));
    let both = compared(modelled, second, &Options::default()).unwrap();
    let phases = || both.pairs[0].cases.iter().flat_map(|case| &case.phases);
    assert!(
        phases().all(|p| p.verdict == SpeedVerdict::ModelledRatio && p.interval.is_none() && p.p.is_none())
    );
    assert!((phases().nth(1).unwrap().ratio.unwrap() - 0.5).abs() < 1e-3);
    let said = headline::sentences(&both).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    assert!(said.contains("2.0 × as fast as") && said.contains("(modelled, error unknown;"), "{said}");
    let summary = write_comparison(&both, &[], root.path()).unwrap();
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
fn chart_and_sentence_hold_the_faster_run_against_the_slower() {
    let of = |device: &str, factor: f64| {
        let mut records = fixture::quiet();
        records.run.provenance.device = device.into();
        records.requests.iter_mut().for_each(|request| slow(request, factor));
        records
    };
    let (quick, tardy) = (("800i-a2", 1.0), ("300i-duo", 2.0));
    for [a, b] in [[quick, tardy], [tardy, quick]] {
        let both = compared(of(a.0, a.1), of(b.0, b.1), &Options::default()).unwrap();
        let said = headline::sentences(&both).remove(0).to_string();
        let (fast, rest) = said.split_once(" is 2.0 × as fast as ").unwrap_or_else(|| panic!("{said}"));
        let slower = rest.split(" in ").next().unwrap();
        assert_ne!(fast, slower);
        let folder = tempfile::tempdir().unwrap();
        write_comparison(&both, &[], folder.path()).unwrap();
        let svg = fs::read_to_string(folder.path().join("charts/speedup.svg")).unwrap();
        assert!(svg.contains(&format!("times as fast as {slower}")), "{slower}");
    }
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
        other.run.provenance.group.iter_mut().for_each(change);
        let apart = compared(a.clone(), other, &Options::default()).unwrap();
        assert_eq!(basis(&apart), Some(Basis::Apart));
        assert!(verdicts(&apart).iter().all(|verdict| *verdict == SpeedVerdict::NotInTurn));
    }
    let named = |a: &str, b: &str| {
        let side = |configuration: &str| {
            let mut records = fixture::quiet();
            records.run.provenance.group = Some(group(configuration, "g"));
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
    slower.requests.iter_mut().for_each(|request| slow(request, 2.0));
    slower.run.provenance.dtype = "bf16".into();
    let comparison = compared(fixture::quiet(), slower, &Options::default()).unwrap();
    let decode = &comparison.pairs[0].cases[0].phases[1];
    assert_eq!(decode.verdict, SpeedVerdict::NotInTurn);
    assert!((decode.ratio.unwrap() - 2.0).abs() < 0.01);
    assert_eq!((decode.interval, decode.p, decode.p_holm), (None, None, None));
    let said =
        headline::sentences(&comparison).iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
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
    slower.requests.iter_mut().for_each(|request| slow(request, 2.0));
    let (a, b) = in_turn(fixture::quiet(), slower, 5);
    let comparison = compared(a, b, &Options::default()).unwrap();
    let advice = comparison.pairs[0].advice.clone().unwrap();
    assert!(
        advice.starts_with("5 blocks cannot decide 36 phases; at least 11 are needed: `glmbench run"),
        "{advice}"
    );
    assert!(advice.to_string().ends_with("--blocks 11`"), "{advice}");
    // Five blocks can still show "same".
    let found = verdicts(&comparison);
    assert_eq!((found[0], found[1]), (SpeedVerdict::Same, SpeedVerdict::CannotTell));
}

#[test]
fn a_phase_that_fails_its_own_conditions_is_never_called() {
    let mut slower = fixture::quiet();
    slower.requests.iter_mut().for_each(|request| slow(request, 2.0));
    let (a, mut b) = in_turn(fixture::quiet(), slower, 12);
    let wide = b.run.plan.performance[0].case_id.clone();
    let mut even = false;
    for request in b.requests.iter_mut().filter(|r| r.case_id == wide) {
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
fn what_cannot_be_used_is_not_judged() {
    let a = fixture::quiet();
    let mut b = fixture::quiet();
    // One repetition of the last case wrote another output. All of the first case wrote another output than A.
    b.requests.last_mut().unwrap().output_hash = "other".into();
    let first = b.run.plan.performance[0].case_id.clone();
    b.requests.iter_mut().filter(|r| r.case_id == first).for_each(|r| r.output_hash = "else".into());
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
        let Records { run, samples, mut requests } = fixture::quiet();
        requests.retain(|r| r.repetition < 3);
        Records { run, samples, requests }
    };
    let floor = Options { noise: NoiseFloors::every(0.001), ..Options::default() };
    let comparison = compared(few(), few(), &floor).unwrap();
    let phase = &comparison.pairs[0].cases[0].phases[0];
    assert_eq!(phase.verdict, SpeedVerdict::Unstable);
    assert!(phase.notes.iter().any(|note| note.contains("fewer than 5")), "{:?}", phase.notes);
}

/// A shard of a merged run was timed on another machine: its cases have no verdict, however clear the times are.
#[test]
fn times_of_unlike_machines_have_no_verdict() {
    use crate::record::{ShardCase, ShardOrigin, ShardPart, Shards};
    let phases = |share: f64| {
        let (a, mut b) = in_turn(fixture::realistic(), fixture::realistic(), 8);
        let from = &b.run.provenance;
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
        let cases = b.run.plan.performance.iter().map(case).collect();
        let part = ShardPart { index: 1, cases, origin: Some(origin), ..ShardPart::default() };
        let shards = Shards { count: 1, plan_hash: String::new(), whole: None, parts: vec![part] };
        b.run.shards = Some(Box::new(shards));
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
