//! Verdicts on accuracy.

use super::*;

#[test]
fn tasks_without_right_answers_have_perplexities_and_no_verdict() {
    let mut a = fixture::realistic();
    let task = a.run.plan.accuracy[0].task.clone();
    a.run.plan.accuracy[0].keyless = true;
    for sample in a.samples.iter_mut().filter(|sample| sample.task == task) {
        let sums = [("loglikelihood", -20.0), ("words", 10.0), ("bytes", 40.0), ("tokens", 20.0)];
        sample.measures = sums.map(|(name, value)| (name.to_owned(), value)).into();
    }
    let mut b = a.clone();
    for sample in b.samples.iter_mut().filter(|sample| sample.task == task) {
        sample.measures.insert("loglikelihood".into(), -30.0);
    }
    let comparison = compared(a.clone(), b.clone(), &Options::default()).unwrap();
    let pair = &comparison.pairs[0];
    assert!(pair.tasks.iter().all(|compared| compared.task != task));
    let words = format!("{task}: word perplexity 20.086, A 7.389 (");
    assert_eq!((&pair.text_figures[0].task, pair.text_figures.len()), (&task, 1));
    assert!(answer::sentence(&comparison, pair).contains(&words));
    // Texts that are scored against references have the mean of the score.
    for (run, score) in [(&mut a, 0.25), (&mut b, 0.5)] {
        for sample in run.samples.iter_mut().filter(|sample| sample.task == task) {
            sample.measures = [("score".to_owned(), score), ("score 0-4k".to_owned(), 1.0)].into();
        }
    }
    let comparison = compared(a, b, &Options::default()).unwrap();
    let words = format!("{task}: score 0.5000, A 0.2500 (");
    let found = answer::sentence(&comparison, &comparison.pairs[0]);
    assert!(found.contains(&words), "{found:?}");
}

#[test]
fn equal_answers_to_few_items_are_not_the_same() {
    let comparison = compared(fixture::quiet(), fixture::quiet(), &Options::default()).unwrap();
    for task in &comparison.pairs[0].tasks {
        assert!(task.is_identical());
        assert_eq!(task.verdict, AccuracyVerdict::CannotTell { needs: Some(268) });
        for group in &task.groups {
            let Interval { low, high } = group.difference.interval.unwrap();
            assert!(group.difference.value == 0.0 && low < 0.0 && high > 0.0, "{group:?}");
        }
    }
}

#[test]
fn few_items_cannot_tell_and_say_how_many_would() {
    let Records { run, samples, .. } = fixture::quiet();
    let mut other = samples.clone();
    flip(&mut other, |i| i < 8, |i| i % 2 == 0);
    let comparison = compared(
        Records { run: run.clone(), samples, requests: vec![] },
        Records { run, samples: other, requests: vec![] },
        &Options::default(),
    )
    .unwrap();
    let task = &comparison.pairs[0].tasks[0];
    let AccuracyVerdict::CannotTell { needs: Some(n) } = task.verdict else { panic!("{:?}", task.verdict) };
    assert!(n > 240, "{n}");
    assert!(tables::task_notes(task)[0].contains("fewer than 6"), "{:?}", tables::task_notes(task));
    // Farthest moved first.
    let moved: Vec<f32> = task.flips.iter().filter_map(Flip::moved).collect();
    assert!(moved.windows(2).all(|w| w[0] >= w[1]) && !moved.is_empty());
}
