//! False-positive rate of a comparison of a thing with itself, and power against a planted slowdown.

use super::*;
use crate::stats::fixtures::f64s;
use crate::stats::random::normal;
use crate::stats::{Rng, block_log_ratio, blocks_needed, runs_needed};

/// Returns the verdicts of a comparison; each phase is one shift.
fn verdicts(phases: &[Shift]) -> Vec<Change> {
    let p = adjusted(&phases.iter().collect::<Vec<_>>());
    let phases = phases.iter().zip(p);
    phases.map(|(shift, p)| Change::of(shift.estimate, rules_out(p), within(shift), 0.03)).collect()
}

fn any_call(verdicts: &[Change]) -> bool {
    verdicts.iter().any(|change| matches!(change, Change::Faster | Change::Slower))
}

/// A simulated machine: effects of placement, time of day and neighbours on a time, as shares.
#[derive(Clone, Copy)]
struct Machine {
    /// Spread from the placement of pages and cores of a process, drawn per phase.
    placement: f64,
    /// Half the processes are slower by this as well: two speeds, as with and without huge pages.
    two_speeds: f64,
    /// Step of the machine drift from one block to the next. A random walk.
    drift: f64,
    /// Noise of a repetition.
    repetition: f64,
    /// Probability that a neighbour disturbs a repetition, which then takes up to twice as long.
    hit: f64,
}

const QUIET: Machine =
    Machine { placement: 0.01, two_speeds: 0.0, drift: 0.002, repetition: 0.01, hit: 0.01 };
const UNEVEN: Machine =
    Machine { placement: 0.02, two_speeds: 0.25, drift: 0.01, repetition: 0.02, hit: 0.05 };
const BUSY: Machine = Machine { placement: 0.05, two_speeds: 0.1, drift: 0.05, repetition: 0.1, hit: 0.2 };

impl Machine {
    /// Draws the effect of a placement, as a logarithm.
    fn place(&self, rng: &mut Rng) -> f64 {
        let fast = rng.below(2) == 0;
        self.placement * normal(rng) + if fast { 0.0 } else { self.two_speeds }
    }

    fn repetition(&self, rng: &mut Rng) -> f64 {
        let hit = if rng.unit_f64() < self.hit { (1.0 + rng.unit_f64()).ln() } else { 0.0 };
        self.repetition * normal(rng) + hit
    }

    /// Simulates `blocks` blocks of A B B A A B B A, each in its own process, for each phase. B is slower by
    /// `slower`.
    fn blocks(&self, phases: usize, blocks: usize, slower: f64, rng: &mut Rng) -> Vec<Shift> {
        let one = |rng: &mut Rng| {
            let mut hour = 0.0;
            let mut block = |number: usize| {
                // Each block places both anew. The drift goes on from repetition to repetition.
                let (a, b) = (self.place(rng), self.place(rng) + slower.ln_1p());
                let step = self.drift * normal(rng) / 8.0;
                let mut time = |placed: f64| {
                    hour += step;
                    (placed + hour + self.repetition(rng)).exp()
                };
                let mut pair = |first: bool| {
                    let (before, after) = if first { (a, b) } else { (b, a) };
                    let (before, after) = (time(before), time(after));
                    if first { (before, after) } else { (after, before) }
                };
                let pairs: Vec<_> = (0..4).map(|turn| pair((number + turn).is_multiple_of(2))).collect();
                block_log_ratio(&pairs).unwrap()
            };
            Shift::of_blocks(&(0..blocks).map(&mut block).collect::<Vec<_>>()).unwrap()
        };
        (0..phases).map(|_| one(rng)).collect()
    }

    /// Simulates alternating runs of A and of B. The drift goes on from run to run.
    fn runs(&self, phases: usize, runs: usize, rng: &mut Rng) -> Vec<Shift> {
        let one = |rng: &mut Rng| {
            let mut hour = 0.0;
            let mut run = |_| {
                hour += self.drift * normal(rng);
                hour + self.place(rng) + self.repetition(rng)
            };
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for turn in 0..2 * runs {
                let side = if (turn + turn / 2) % 2 == 0 { &mut a } else { &mut b };
                side.push(run(turn));
            }
            Shift::of_runs(&a, &b).unwrap()
        };
        (0..phases).map(|_| one(rng)).collect()
    }
}

#[test]
fn at_most_one_comparison_in_twenty_of_a_thing_with_itself_calls_a_change() {
    let mut rng = Rng::new(70);
    for machine in [QUIET, UNEVEN, BUSY] {
        for phases in [3, 24] {
            for blocks in [blocks_needed(phases), 12] {
                let trials = 200;
                let called = (0..trials)
                    .filter(|_| any_call(&verdicts(&machine.blocks(phases, blocks, 0.0, &mut rng))))
                    .count();
                // 10 would be 5 %. At exactly 5 %, 19 or more have a probability below 0.01.
                assert!(called < 19, "{called} of {trials}: {phases} phases, {blocks} blocks");
            }
            let runs = runs_needed(phases);
            let called =
                (0..300).filter(|_| any_call(&verdicts(&machine.runs(phases, runs, &mut rng)))).count();
            // 15 would be 5 %.
            assert!(called < 27, "{called} of 300: {phases} phases, {runs} runs a side");
        }
    }
}

#[test]
fn repetitions_in_one_process_would_call_many() {
    // What the unit guards against: ten pairs in one process, with both engines placed once, counted as ten blocks.
    let mut rng = Rng::new(71);
    let called = (0..100).filter(|_| {
        let phases = (0..24).map(|_| {
            let (a, b) = (UNEVEN.place(&mut rng), UNEVEN.place(&mut rng));
            let pairs: Vec<f64> =
                (0..10).map(|_| b - a + UNEVEN.repetition(&mut rng) - UNEVEN.repetition(&mut rng)).collect();
            Shift::of_blocks(&pairs).unwrap()
        });
        any_call(&verdicts(&phases.collect::<Vec<_>>()))
    });
    assert!(called.count() > 90);
}

#[test]
fn a_planted_slowdown_of_five_percent_is_found() {
    let mut rng = Rng::new(72);
    for phases in [3, 24] {
        let blocks = blocks_needed(phases);
        let (mut found, mut trials) = (0, 0);
        for _ in 0..60 {
            let there = verdicts(&QUIET.blocks(phases, blocks, 0.05, &mut rng));
            found += there.iter().filter(|change| **change == Change::Slower).count();
            trials += there.len();
            assert!(!there.contains(&Change::Faster) && !there.contains(&Change::Same));
        }
        let share = found as f64 / trials as f64;
        assert!(share > 0.85, "{phases} phases, {blocks} blocks: {share}");
    }
    let back = verdicts(&QUIET.blocks(3, 12, 1.0 / 1.05 - 1.0, &mut rng));
    assert_eq!(back, [Change::Faster; 3]);
}

#[test]
fn what_is_the_same_on_a_quiet_machine_is_said_to_be() {
    let mut rng = Rng::new(73);
    let comparisons: Vec<Change> =
        (0..40).flat_map(|_| verdicts(&QUIET.blocks(24, 10, 0.0, &mut rng))).collect();
    let same = comparisons.iter().filter(|change| **change == Change::Same).count();
    assert!(same as f64 > 0.95 * comparisons.len() as f64, "{same} of {}", comparisons.len());
}

/// Null comparisons recorded under one load of the machine.
struct Recording {
    load: String,
    /// For each comparison, the log-ratios of each block, one entry per phase.
    comparisons: Vec<Vec<Vec<f64>>>,
}

fn recordings() -> Vec<Recording> {
    let json: serde_json::Value = serde_json::from_str(include_str!("../recorded_null_pairs.json")).unwrap();
    let of = |recording: &serde_json::Value| {
        let block = |block: &serde_json::Value| f64s(block).into_iter().map(|x| x * 1e-4).collect();
        let comparison = |blocks: &serde_json::Value| blocks.as_array().unwrap().iter().map(block).collect();
        Recording {
            load: recording["load"].as_str().unwrap().to_owned(),
            comparisons: recording["comparisons"].as_array().unwrap().iter().map(comparison).collect(),
        }
    };
    json["recordings"].as_array().unwrap().iter().map(of).collect()
}

/// Returns the verdicts over recorded blocks, with B made slower by `slower`.
fn over(blocks: &[&Vec<f64>], slower: f64) -> Vec<Change> {
    let phase = |phase: usize| {
        let log_ratios: Vec<f64> = blocks.iter().map(|block| block[phase] + slower.ln_1p()).collect();
        Shift::of_blocks(&log_ratios).unwrap()
    };
    verdicts(&(0..blocks[0].len()).map(phase).collect::<Vec<_>>())
}

#[test]
fn recorded_null_comparisons_call_no_change_but_seldom() {
    let recordings = recordings();
    assert!(recordings.iter().any(|r| r.load.starts_with("quiet")) && recordings.len() >= 7, "several loads");
    let mut rng = Rng::new(74);
    for Recording { load, comparisons } in &recordings {
        let as_recorded =
            comparisons.iter().filter(|blocks| any_call(&over(&blocks.iter().collect::<Vec<_>>(), 0.0)));
        // At a true rate of one in twenty, four or more of twenty have a probability of 0.02.
        assert!(as_recorded.count() * 20 <= 3 * comparisons.len(), "{load}");
        // Recombine the same blocks into other comparisons.
        let mut pool: Vec<&Vec<f64>> = comparisons.iter().flatten().collect();
        let needed = blocks_needed(pool[0].len());
        let mut called = 0;
        for _ in 0..400 {
            for place in 0..needed {
                let other = place + rng.below((pool.len() - place) as u64) as usize;
                pool.swap(place, other);
            }
            called += usize::from(any_call(&over(&pool[..needed], 0.0)));
        }
        assert!(called <= 20, "{load}: {called} of 400");
    }
}

#[test]
fn a_planted_slowdown_is_found_in_recorded_blocks() {
    let calm =
        |recording: &Recording| ["quiet", "one core"].iter().any(|load| recording.load.starts_with(load));
    for Recording { load, comparisons } in recordings().into_iter().filter(calm) {
        // Each comparison has as many blocks as its phases need, and no more.
        let verdicts = comparisons.iter().map(|blocks| over(&blocks.iter().collect::<Vec<_>>(), 0.05));
        let verdicts: Vec<Vec<Change>> = verdicts.collect();
        assert!(verdicts.iter().all(|comparison| any_call(comparison)), "{load}");
        let all: Vec<Change> = verdicts.concat();
        let slower = all.iter().filter(|change| **change == Change::Slower).count();
        assert!(2 * slower >= all.len(), "{load}: {slower} of {}", all.len());
        assert!(!all.contains(&Change::Faster), "{load}");
    }
}

/// Repetitions of one engine, recorded on a busy machine, as blocks of A B B A A B B A.
fn recorded_noise() -> Vec<f64> {
    let json: serde_json::Value = serde_json::from_str(include_str!("../recorded_noise.json")).unwrap();
    let block = |times: &[f64]| {
        let pairs = [(times[0], times[1]), (times[3], times[2]), (times[4], times[5]), (times[7], times[6])];
        block_log_ratio(&pairs).unwrap()
    };
    f64s(&json["e2e_ns"]).chunks_exact(8).map(block).collect()
}

#[test]
fn recorded_noise_is_no_change_and_hides_none() {
    let blocks = recorded_noise();
    let of = |few: &[f64], slower: f64| {
        let moved: Vec<f64> = few.iter().map(|x| x + slower.ln_1p()).collect();
        verdicts(&[Shift::of_blocks(&moved).unwrap()])[0]
    };
    let all: Vec<Change> = blocks.chunks_exact(10).map(|few| of(few, 0.0)).collect();
    assert_eq!(all.len(), 50);
    assert!(!any_call(&all), "{all:?}");
    assert!(all.iter().filter(|change| **change == Change::Same).count() >= 30, "{all:?}");
    assert_eq!(
        [0.05, 1.0 / 1.05 - 1.0, 0.01].map(|slower| of(&blocks, slower)),
        [Change::Slower, Change::Faster, Change::Same]
    );
}

#[test]
fn a_verdict_needs_both_sureness_and_size() {
    let between = |low, high| Some(Interval { low, high });
    let change = |log_ratio: f64, differs, within| Change::of(log_ratio, differs, within, 0.03);
    assert_eq!(change(0.05, true, between(0.03, 0.07)), Change::Slower);
    assert_eq!(change(-0.05, true, between(-0.07, -0.03)), Change::Faster);
    assert_eq!(change(0.05, false, between(-0.01, 0.11)), Change::CannotTell);
    assert_eq!(change(0.02, true, between(0.01, 0.03)), Change::CannotTell);
    assert_eq!(change(0.02, true, between(0.01, 0.029)), Change::Same);
    assert_eq!(change(0.0, false, None), Change::CannotTell);
}
