//! Distribution of the answers in a task. A model that always gives the same answer, or none, scores at chance level.
//! That must be visible at a glance.

use super::check::{Check, Outcome};
use super::format::{NONE, or_none, percent};
use super::table::{Column, Table};

use crate::language::{Text, cells, joined, text, texts};
use crate::record::{AccuracyCase, AnswerRow, RunRecord, SCHEMA, SampleRecord, SampleState};
use crate::stats::binomial_at_least;
use std::collections::BTreeMap;

/// An answer dominates if its share exceeds that of the keys by at least this much…
const FAR_ABOVE: f64 = 0.2;
/// …and a count that high would have a lower probability than this under the keys' share.
const BY_ACCIDENT: f64 = 1e-3;
/// Highest acceptable share of ties, or of empty texts. Half-precision logits are equal now and then.
const MANY: f64 = 0.05;
/// Highest acceptable share of answers read by the last rule of a ladder, which accepts any letter as an answer.
const MANY_GUESSED: f64 = 0.25;

/// Definition at the foot of a report with scores.
pub(super) const DEFINITION: (Text, Text) = (
    text!("Answers"),
    text!(
        "share of each answer among the items that were put to the model, and of each key among the same. Tie: the two most \
     probable choices have equal log-probabilities, and the first is taken. Last rule: the one that reads an answer where no \
     better one finds any. Empty: the generated text is white space or nothing."
    ),
);

/// Counts of one answer of a task.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    given: u64,
    keys: u64,
}

/// The answers of one task.
#[derive(Debug)]
pub(super) struct TaskAnswers<'a> {
    case: &'a AccuracyCase,
    /// Items with an answer, readable or not.
    put: u64,
    /// Answers that could not be read.
    unread: u64,
    /// By answer.
    answers: BTreeMap<&'a str, Counts>,
    /// Answers chosen by probability.
    chosen: u64,
    ties: u64,
    last_rule: Option<u64>,
    empty: Option<u64>,
    /// Whether answers are programs. Their only key is that they pass.
    runs: bool,
}

/// Returns the answers of each task in the plan that has any.
pub(super) fn of_tasks<'a>(run: &'a RunRecord, samples: &'a [SampleRecord]) -> Vec<TaskAnswers<'a>> {
    let keyed = run.plan.accuracy.iter().filter(|case| !case.keyless);
    let tasks = keyed.map(|case| TaskAnswers::of(case, samples));
    tasks.filter(|answers| answers.put > 0).collect()
}

impl<'a> TaskAnswers<'a> {
    fn of(case: &'a AccuracyCase, samples: &'a [SampleRecord]) -> Self {
        let mut of = Self {
            case,
            put: 0,
            unread: 0,
            answers: BTreeMap::new(),
            chosen: 0,
            ties: 0,
            last_rule: case.last_rule.as_ref().map(|_| 0),
            empty: case.generates.filter(|generates| *generates).map(|_| 0),
            runs: false,
        };
        let own = samples.iter().filter(|s| s.task == case.task && s.state != SampleState::Failed);
        own.for_each(|sample| of.add(sample));
        of
    }

    fn add(&mut self, sample: &'a SampleRecord) {
        self.put += 1;
        self.runs |= !sample.programs.is_empty();
        self.answers.entry(&sample.gold).or_default().keys += 1;
        match sample.pred.as_deref().filter(|_| sample.state == SampleState::Scored) {
            Some(given) => self.answers.entry(given).or_default().given += 1,
            None => self.unread += 1,
        }
        if sample.margin.is_some() {
            self.chosen += 1;
            self.ties += u64::from(sample.margin == Some(0.0));
        }
        if let (Some(count), Some(rule)) = (&mut self.last_rule, &self.case.last_rule) {
            *count += u64::from(sample.extract_rule == *rule);
        }
        if let Some(count) = &mut self.empty {
            *count += u64::from(sample.text.trim().is_empty());
        }
    }

    fn share(&self, count: u64) -> f64 {
        count as f64 / self.put as f64
    }

    /// Whether an answer is given far more often than it is right.
    fn dominates(&self, counts: Counts) -> bool {
        let far = self.share(counts.given) - self.share(counts.keys) >= FAR_ABOVE;
        // Add one key of either kind: a few items do not show that an answer is never right.
        let right = (counts.keys + 1) as f64 / (self.put + 2) as f64;
        far && binomial_at_least(counts.given, self.put, right).is_some_and(|p| p < BY_ACCIDENT)
    }

    /// The most frequent answer among those that dominate.
    fn dominant(&self) -> Option<(&'a str, Counts)> {
        if self.runs {
            return None;
        }
        let all = self.answers.iter().map(|(answer, counts)| (*answer, *counts));
        all.filter(|(_, counts)| self.dominates(*counts)).max_by_key(|(_, counts)| counts.given)
    }

    /// `no is 58 of 60 answers and 30 of as many keys`.
    fn dominance(&self) -> Option<Text> {
        let (answer, Counts { given, keys }) = self.dominant()?;
        Some(text!(
            "{answer} is {given} of {put} answers and {keys} of as many keys",
            answer,
            given,
            put = self.put,
            keys
        ))
    }

    fn has_many_ties(&self) -> bool {
        self.ties as f64 > MANY * self.chosen as f64
    }

    /// `12 of 60 answers are ties`, `every margin is 0`.
    fn tie_words(&self) -> Text {
        match self.ties {
            ties if ties == self.chosen => text!("every margin is 0"),
            ties => text!("{ties} of {chosen} answers are ties", ties, chosen = self.chosen),
        }
    }

    fn is_guessed(&self) -> bool {
        self.last_rule.is_some_and(|count| self.share(count) > MANY_GUESSED)
    }

    fn is_empty(&self) -> bool {
        self.empty.is_some_and(|count| self.share(count) > MANY)
    }

    fn note(&self) -> Text {
        let ties = (self.chosen > 0 && self.has_many_ties()).then(|| self.tie_words());
        let guessed = self.is_guessed().then(|| text!("much read by the last rule"));
        let empty = self.is_empty().then(|| text!("empty texts"));
        joined([self.dominance(), ties, guessed, empty].into_iter().flatten(), "; ")
    }
}

/// Returns a row for each answer of each task.
pub(super) fn rows(run: &RunRecord, tasks: &[TaskAnswers<'_>]) -> Vec<AnswerRow> {
    let of_task = |task: &TaskAnswers<'_>| {
        let row = |answer: &str, given: u64, keys: Option<u64>, dominates: bool| AnswerRow {
            schema: SCHEMA,
            run_id: run.run_id.clone(),
            model: run.provenance.model.clone(),
            task: task.case.task.clone(),
            protocol: task.case.protocol.clone(),
            answer: answer.to_owned(),
            items: task.put,
            given,
            given_share: task.share(given),
            keys,
            key_share: keys.map(|keys| task.share(keys)),
            dominates,
            task_ties: (task.chosen > 0).then_some(task.ties),
            task_last_rule: task.last_rule,
            task_empty: task.empty,
        };
        let answer = |(answer, counts): (&&str, &Counts)| {
            row(answer, counts.given, Some(counts.keys), task.dominates(*counts))
        };
        let unread = (task.unread > 0).then(|| row("", task.unread, None, false));
        task.answers.iter().map(answer).chain(unread).collect::<Vec<_>>()
    };
    tasks.iter().flat_map(of_task).collect()
}

/// One row per task.
pub(super) fn table(tasks: &[TaskAnswers<'_>]) -> Table {
    let mut table = Table::new(
        text!("Answers: share given (share of the keys), %"),
        &texts!["Task", "Answers"],
        &texts!["Items", "Ties", "Last rule", "Empty"],
    );
    table.columns.push(Column { name: text!("Note"), numeric: false });
    for task in tasks {
        let share = |(answer, counts): (&&str, &Counts)| {
            let (given, keys) = (task.share(counts.given), task.share(counts.keys));
            Text::from(format!("{answer} {} ({})", percent(given), percent(keys)))
        };
        let unread =
            (task.unread > 0).then(|| text!("unread {share}", share = percent(task.share(task.unread))));
        let answers = joined(task.answers.iter().map(share).chain(unread), ", ");
        let count = |count: Option<u64>| or_none(count, |count| count.to_string());
        table.push(
            false,
            cells![
                task.case.task,
                answers,
                task.put,
                if task.chosen > 0 { task.ties.to_string() } else { NONE.to_owned() },
                count(task.last_rule),
                count(task.empty),
                task.note(),
            ],
        );
    }
    table
}

/// Conditions on the distribution of answers.
pub(super) fn checks(tasks: &[TaskAnswers<'_>]) -> [Check; 3] {
    let told = |words: Vec<Text>| joined(words, "; ");
    let of = |spoilt: &[Text], applies: bool| match (spoilt, applies) {
        ([_, ..], _) => Outcome::No,
        ([], true) => Outcome::Yes,
        ([], false) => Outcome::DoesNotApply,
    };
    let named = |task: &TaskAnswers<'_>, words: Text| text!("{task}: {words}", task = task.case.task, words);
    let dominant: Vec<Text> = tasks.iter().filter_map(|task| Some(named(task, task.dominance()?))).collect();
    let chosen = || tasks.iter().filter(|task| task.chosen > 0);
    let tied: Vec<Text> =
        chosen().filter(|task| task.has_many_ties()).map(|task| named(task, task.tie_words())).collect();
    let ties: u64 = chosen().map(|task| task.ties).sum();
    let of_chosen: u64 = chosen().map(|task| task.chosen).sum();
    let read = || tasks.iter().filter(|task| task.last_rule.is_some() || task.empty.is_some());
    let counts = |task: &TaskAnswers<'_>| {
        let guessed = task.last_rule.map(|count| text!("{count} read by the last rule", count));
        let empty = task.empty.map(|count| text!("{count} empty", count));
        let words = joined(guessed.into_iter().chain(empty), ", ");
        named(task, text!("{words} of {put} answers", words, put = task.put))
    };
    let poor: Vec<Text> = read().filter(|task| task.is_guessed() || task.is_empty()).map(counts).collect();
    [
        Check {
            name: text!("varied answers"),
            condition: text!("No answer is given far more often than it is right"),
            outcome: of(&dominant, !tasks.is_empty()),
            found: if dominant.is_empty() {
                text!("within 20 points of the keys' shares, or too few items")
            } else {
                told(dominant)
            },
            advice: text!(
                "Compare with the score of that one answer to everything; read some texts in samples.jsonl."
            ),
            required: false,
        },
        Check {
            name: text!("no ties"),
            condition: text!("Choices differ in probability"),
            outcome: of(&tied, of_chosen > 0),
            found: match (tied.is_empty(), of_chosen) {
                (false, _) => told(tied),
                (true, 0) => text!("no answer was chosen by probability"),
                (true, _) => text!("{ties} of {of_chosen} answers are ties", ties, of_chosen),
            },
            advice: text!(
                "A tie goes to the first choice and says nothing; equal logits everywhere are a broken output layer."
            ),
            required: false,
        },
        Check {
            name: text!("telling texts"),
            condition: text!("Few texts are empty, few answers read by the last rule"),
            outcome: of(&poor, read().next().is_some()),
            found: match poor.is_empty() {
                false => told(poor),
                true if read().next().is_none() => text!("no text was generated"),
                true => told(read().map(counts).collect()),
            },
            advice: text!("Read the texts in samples.jsonl: the model may not answer at all."),
            required: false,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    fn sample(pred: &str, gold: &str) -> SampleRecord {
        SampleRecord {
            task: "boolq".into(),
            pred: Some(pred.into()),
            gold: gold.into(),
            correct: pred == gold,
            ..fixture::sample()
        }
    }

    /// Sixty items, half of them with each key. The first `no` of them are answered no.
    fn samples(no: usize) -> Vec<SampleRecord> {
        (0..60)
            .map(|i| sample(if i < no { "no" } else { "yes" }, if i % 2 == 0 { "no" } else { "yes" }))
            .collect()
    }

    #[test]
    fn a_model_that_says_no_58_of_60_times_is_seen() {
        let run = fixture::run();
        let samples = samples(58);
        let tasks = of_tasks(&run, &samples);
        let table = table(&tasks);
        assert_eq!(table.rows[0].cells[1], "no 96.7 (50.0), yes 3.3 (50.0)");
        assert_eq!(table.rows[0].cells[6], "no is 58 of 60 answers and 30 of as many keys");
        assert_eq!(checks(&tasks).map(|c| c.outcome)[0], Outcome::No);
        let rows = rows(&run, &tasks);
        let found: Vec<_> = rows.iter().map(|r| (r.answer.as_str(), r.given, r.keys, r.dominates)).collect();
        assert_eq!(found, [("no", 58, Some(30), true), ("yes", 2, Some(30), false)]);
    }

    #[test]
    fn answers_near_their_keys_and_few_items_are_not_flagged() {
        let run = fixture::run();
        let fair = samples(36);
        assert_eq!(checks(&of_tasks(&run, &fair))[0].outcome, Outcome::Yes);
        let few: Vec<_> = samples(58).into_iter().take(4).collect();
        assert_eq!(checks(&of_tasks(&run, &few))[0].outcome, Outcome::Yes);
        assert_eq!(checks(&[]).map(|c| c.outcome), [Outcome::DoesNotApply; 3]);
    }

    #[test]
    fn ties_last_rules_and_empty_texts_are_counted() {
        let mut run = fixture::run();
        run.plan.accuracy[1].generates = Some(true);
        run.plan.accuracy[1].last_rule = Some("rule 43: [ABCD]".into());
        let mut samples = samples(30);
        for sample in &mut samples {
            sample.margin = Some(0.0);
        }
        for sample in &mut samples[..20] {
            sample.extract_rule = "rule 43: [ABCD]".into();
            sample.text = " \n".into();
        }
        let tasks = of_tasks(&run, &samples);
        let table = table(&tasks);
        let cells = &table.rows[0].cells;
        assert_eq!(cells[3..6], ["60", "20", "20"]);
        assert!(cells[6].starts_with("every margin is 0; "), "{cells:?}");
        let found = checks(&tasks);
        assert_eq!(found.each_ref().map(|c| c.outcome), [Outcome::Yes, Outcome::No, Outcome::No]);
        assert_eq!(found[1].found, "boolq: every margin is 0");
        samples[0].state = SampleState::Unscorable;
        samples[0].pred = None;
        samples[1].state = SampleState::Failed;
        let tasks = of_tasks(&run, &samples);
        assert_eq!((tasks[0].put, tasks[0].unread), (59, 1));
    }

    #[test]
    fn an_equal_pair_now_and_then_is_no_flag() {
        let run = fixture::run();
        let mut samples = samples(30);
        samples[3].margin = Some(0.0);
        let check = &checks(&of_tasks(&run, &samples))[1];
        assert_eq!(
            (check.outcome, check.found.to_string().as_str()),
            (Outcome::Yes, "1 of 60 answers are ties")
        );
    }
}
