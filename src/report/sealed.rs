//! Checks a run's records against its plan, checksums and seal. Every verdict rests on this check.

use super::Summary;
use super::check::{Check, Outcome, yes_if};
use crate::language::{Text, text};
use crate::record::{Audit, SealState, Status};

/// The condition of [`super::validity`] that relies on the run's own status alone.
const WHOLE_PLAN: Text = super::validity::WHOLE_PLAN;

/// The condition on the records.
const RECORDS: Text = text!("The records are what the plan says");

/// Inserts the findings behind the condition on the plan.
pub(super) fn add_to(summary: &mut Summary, audit: &Audit) {
    let sound = audit.is_sound();
    let complete = summary.run.status == Status::Complete;
    let whole = summary.checks.iter().position(|check| check.condition == WHOLE_PLAN);
    if let Some(check) = whole.and_then(|at| summary.checks.get_mut(at)).filter(|_| complete && !sound) {
        // The run's own status does not outweigh its lines.
        check.outcome = Outcome::No;
    }
    let at = whole.map_or(0, |at| at + 1);
    summary.checks.splice(at..at, [records(audit, complete), seal(audit)]);
}

impl Summary {
    /// Says in one line what is wrong with the run's records. `None` if they match the plan.
    pub fn record_faults(&self) -> Option<&Text> {
        let of_records = |check: &&Check| check.condition == RECORDS && check.outcome == Outcome::No;
        self.checks.iter().find(of_records).map(|check| &check.found)
    }
}

fn records(audit: &Audit, complete: bool) -> Check {
    Check {
        name: text!("records as planned"),
        condition: RECORDS,
        outcome: yes_if(audit.is_sound()),
        found: match audit.words() {
            Some(faults) => text!("not what the plan says: {faults}", faults),
            None if complete => text!("every line of the plan is there, once and as it was written"),
            None => {
                text!("what is there is the beginning of the plan, each line once and as it was written")
            }
        },
        advice: text!(
            "Lines were lost, changed or added. The same command with --resume keeps what is good and does the rest again."
        ),
        required: true,
    }
}

fn seal(audit: &Audit) -> Check {
    let (outcome, found) = match audit.seal {
        SealState::Sealed => {
            (yes_if(audit.is_sound()), text!("run.json has the lines and hash of each journal"))
        }
        SealState::NotSealed if !audit.is_sound() => (Outcome::No, text!("there is no seal")),
        SealState::NotSealed => {
            (Outcome::Unknown, text!("not sealed: a program from before records were sealed made it"))
        }
        SealState::Open => (Outcome::DoesNotApply, text!("not sealed yet: the run is not complete")),
    };
    Check {
        name: text!("record sealed"),
        condition: text!("The record is sealed"),
        outcome,
        found,
        advice: text!("`glmbench verify` puts some of its items to the engine again."),
        required: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Language;
    use crate::report::{Verdict, fixture, render};
    use std::fs;

    fn found(summary: &Summary, condition: &str) -> (Outcome, Text) {
        let check = summary.checks.iter().find(|c| c.condition.starts_with(condition)).unwrap();
        (check.outcome, check.found.clone())
    }

    #[test]
    fn a_run_is_what_its_lines_say_and_not_what_it_says() {
        let root = tempfile::tempdir().unwrap();
        let dir = fixture::write(root.path(), &fixture::quiet());
        let summary = render(dir.path(), Language::En).unwrap();
        assert_eq!(summary.verdict(), Verdict::Valid);
        assert_eq!(found(&summary, "The record is sealed").0, Outcome::Yes);
        let path = dir.file("samples.jsonl");
        let text = fs::read_to_string(&path).unwrap();
        let half: String = text.lines().take(300).map(|line| format!("{line}\n")).collect();
        fs::write(&path, half).unwrap();
        let summary = render(dir.path(), Language::En).unwrap();
        assert_eq!(summary.verdict(), Verdict::Invalid);
        let (outcome, words) = found(&summary, "The records are");
        assert_eq!(outcome, Outcome::No);
        assert!(words.contains("samples.jsonl: task boolq has 60 of 120 items"), "{words}");
        assert_eq!(found(&summary, "The whole plan").0, Outcome::No);
        assert_eq!(found(&summary, "The record is sealed").0, Outcome::No);
    }

    #[test]
    fn a_record_without_a_seal_says_so_and_is_no_worse() {
        let root = tempfile::tempdir().unwrap();
        let mut records = fixture::quiet();
        // Unasked items have no recorded prompts.
        records.samples.iter_mut().for_each(|sample| sample.prompt_hash.clear());
        let dir = fixture::write(root.path(), &records);
        // A current program always writes a seal, so a missing one is an error.
        dir.write_run(&records.run).unwrap();
        let summary = render(dir.path(), Language::En).unwrap();
        assert_eq!(summary.verdict(), Verdict::Invalid);
        assert!(summary.record_faults().is_some_and(|faults| faults.contains("has no seal")));
        // A record of the previous schema.
        let text = fs::read_to_string(dir.file("run.json")).unwrap();
        let (text, _sum) = text.rsplit_once(",\n  \"sum\": ").unwrap();
        let text = format!("{}\n}}\n", text.replacen("\"schema\": 4", "\"schema\": 2", 1));
        fs::write(dir.file("run.json"), text).unwrap();
        let summary = render(dir.path(), Language::En).unwrap();
        assert_eq!(summary.verdict(), Verdict::Valid);
        let (outcome, words) = found(&summary, "The record is sealed");
        assert!(outcome == Outcome::Unknown && words.starts_with("not sealed:"), "{words}");
    }
}
