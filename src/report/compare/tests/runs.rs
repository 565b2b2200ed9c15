//! Several runs a side, floors between runs, and more than two sides.

use super::*;

#[test]
fn several_runs_a_side_are_held_against_what_differs_between_runs() {
    let root = tempfile::tempdir().unwrap();
    let run = |factor: f64, minute: u32, end: &str| {
        let mut records = fixture::quiet();
        records.requests.iter_mut().for_each(|request| slow(request, factor));
        records.run.provenance.started = format!("2026-11-23T02:{minute:02}:00Z");
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
    let mut fields = other.run.identity.fields().clone();
    fields.insert("dtype".into(), "fp32".into());
    other.run.identity = Identity::new(fields);
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
        slower.requests.iter_mut().for_each(|request| slow(request, factor));
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
fn three_runs_are_held_against_the_first() {
    let root = tempfile::tempdir().unwrap();
    let third = written(root.path(), fixture::realistic(), "third");
    let mut paths = paths(&two_runs(root.path()));
    paths.push(third);
    let summary = render_comparison(&paths, &to(&root.path().join("out"))).unwrap();
    // The answer on each pair, then a piece of advice for each.
    assert_eq!((summary.headline.len(), summary.folder), (4, root.path().join("out")));
    assert!(summary.headline[1].starts_with("C "), "{:?}", summary.headline);
    assert_whole_page(&fs::read_to_string(root.path().join("out/report.html")).unwrap(), Language::En);
}
