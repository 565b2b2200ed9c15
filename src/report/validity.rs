//! Validity conditions: whether the figures may be used, what was found, and what to do if a condition does not hold.

mod repetitions;

use self::repetitions::of_repetitions;
use super::answers;
use super::check::{Check, Outcome, Verdict, yes_if};
use super::failures::{Failure, of_task};
use super::format::{bytes, fixed};
use super::machines;
use crate::language::{Text, joined, text};
use crate::record::{
    Clock, HugePages, LoadFacts, RequestRecord, RunRecord, SampleRecord, SampleState, Status, UNTOLD,
};

pub(super) use self::repetitions::{DRIFT_SHARE, FEW_REPETITIONS, WIDE_SHARE};

/// Name of the condition that the whole plan was run.
const PLAN: Text = text!("whole plan run");

/// The condition that the whole plan was run.
pub(super) const WHOLE_PLAN: Text = text!("The whole plan was run");

/// Returns the verdict of a run with these checks.
pub fn verdict(run: &RunRecord, checks: &[Check]) -> Verdict {
    if checks.iter().any(|c| c.required && c.outcome == Outcome::No) {
        Verdict::Invalid
    } else if run.status == Status::Complete {
        Verdict::Valid
    } else {
        Verdict::Incomplete
    }
}

/// Returns all conditions that apply to a run of this plan.
pub fn checks(run: &RunRecord, samples: &[SampleRecord], requests: &[RequestRecord]) -> Vec<Check> {
    let mut checks = vec![completeness(run, samples, requests)];
    checks.push(weights(run));
    if !run.plan.accuracy.is_empty() {
        checks.extend(of_samples(run, samples));
        checks.extend(answers::checks(&answers::of_tasks(run, samples)));
    }
    if !run.plan.performance.is_empty() {
        checks.extend(of_repetitions(run, requests));
        checks.push(governor(run));
        checks.extend(huge_pages(run));
        checks.extend(machines::check(run));
    }
    checks
}

fn completeness(run: &RunRecord, samples: &[SampleRecord], requests: &[RequestRecord]) -> Check {
    // The plan of a merged run that lacks a part has what is there.
    let plan = run.lacking().unwrap_or(&run.plan);
    let planned = plan.accuracy.iter().map(|case| case.items).fold(0, u64::saturating_add);
    let status = match run.status {
        Status::Complete => text!("complete"),
        Status::Running => text!("still running, or killed"),
        Status::Interrupted => text!("interrupted"),
    };
    let items =
        (planned > 0).then(|| text!("{done} of {planned} item{planned:s}", done = samples.len(), planned));
    // For an incomplete run: what else is missing.
    let unfinished = run.status != Status::Complete && !plan.performance.is_empty();
    let cases = unfinished.then(|| {
        let done = run.plan.performance.iter().filter(|case| case.is_finished(requests)).count();
        text!("{done} of {all} timed case{all:s}", done, all = plan.performance.len())
    });
    Check {
        name: PLAN,
        condition: WHOLE_PLAN,
        outcome: yes_if(run.status == Status::Complete && !run.is_part()),
        found: joined(std::iter::once(status).chain(items).chain(cases).chain(run.part_words()), "; "),
        advice: advice(run),
        required: false,
    }
}

/// What to do about a plan that was not run to its end.
fn advice(run: &RunRecord) -> Text {
    let is_one_shard = run.shards.as_ref().is_some_and(|shards| shards.single().is_some());
    match (run.is_part(), run.status) {
        (false, _) => {
            text!("Run the same command with --resume: finished items and repetitions stay.")
        }
        (true, Status::Complete) => {
            text!("Run the other shards and put them together with `glmbench merge`.")
        }
        (true, _) if is_one_shard => text!(
            "Run the same command with --resume: finished items and repetitions stay. Then run the other shards and put \
             them together with `glmbench merge`."
        ),
        (true, _) => text!(
            "Run the shards that are missing or in part with --resume, and put all of them together with `glmbench merge`."
        ),
    }
}

/// Checks for non-finite weights found while loading the model.
fn weights(run: &RunRecord) -> Check {
    // With only a virtual clock, no weight is read.
    let computes = run.provenance.clock == Clock::Measured || !run.plan.accuracy.is_empty();
    let faults = run.provenance.weight_faults.as_deref();
    let is_served = run.identity.get("weights") == Some(UNTOLD);
    Check {
        name: text!("finite weights"),
        condition: text!("Every weight is a number in the run's type"),
        outcome: match faults {
            Some(faults) => yes_if(faults.is_empty()),
            None if is_served => Outcome::DoesNotApply,
            None if computes => Outcome::Unknown,
            None => Outcome::DoesNotApply,
        },
        found: match faults {
            None if is_served => text!("they are the server's, which shows none"),
            None => text!("they were not looked at"),
            Some([]) => text!("none was found that is not"),
            Some([first]) => first.into(),
            Some([first, rest @ ..]) => {
                text!("{first}; and {more} more: run.json names them", first, more = rest.len())
            }
        },
        advice: text!("Convert the checkpoint again, or run in a type that holds its weights (bf16, fp32)."),
        required: true,
    }
}

fn of_samples(run: &RunRecord, samples: &[SampleRecord]) -> [Check; 2] {
    let unscorable = samples.iter().filter(|s| s.state == SampleState::Unscorable).count();
    let total = samples.len();
    let of_answers = |spoilt: bool| if samples.is_empty() { Outcome::Unknown } else { yes_if(!spoilt) };
    let failures: Vec<Failure> = run.plan.accuracy.iter().filter_map(|case| of_task(case, samples)).collect();
    let spoilt: Vec<&Failure> = failures.iter().filter(|failure| failure.is_spoilt).collect();
    let words = |failures: &[&Failure]| joined(failures.iter().map(|f| f.words()), "; ");
    let found = match (spoilt.as_slice(), failures.as_slice()) {
        ([], []) => text!("0 of {total} item{total:s} failed", total),
        ([], all) => text!(
            "as many as the suite allows: {failures}",
            failures = words(&all.iter().collect::<Vec<_>>())
        ),
        (spoilt, _) => words(spoilt),
    };
    let allowed = run.plan.accuracy.iter().any(|case| case.max_failed.is_some());
    [
        Check {
            name: text!("every item answered"),
            condition: if allowed {
                text!("No more items failed than the suite allows")
            } else {
                text!("Every item had an answer")
            },
            outcome: of_answers(!spoilt.is_empty()),
            found,
            advice: text!(
                "Failed items are outside the accuracy, which is then one of fewer items; their errors are in samples.jsonl. \
                     `max_failed` in the suite allows a share of them."
            ),
            required: true,
        },
        Check {
            name: text!("every answer readable"),
            condition: text!("Every answer could be read"),
            outcome: of_answers(unscorable > 0),
            found: text!("{unscorable} of {total} item{total:s} unscorable", unscorable, total),
            advice: text!("Unscorable answers count as wrong; read their texts in samples.jsonl."),
            required: false,
        },
    ]
}

/// `all 12 cases`, or which cases break the condition, with the first few named.
pub(crate) fn found_in(spoilt: &[&str], cases: usize) -> Text {
    const NAMED: usize = 3;
    match spoilt.len() {
        0 => text!("all {cases} case{cases:s}", cases),
        n => {
            let more = if n > NAMED { text!(" and {more} more", more = n - NAMED) } else { Text::EMPTY };
            text!(
                "not {n} of {cases}: {spoilt}{more}",
                n,
                cases,
                spoilt = joined(&spoilt[..n.min(NAMED)], ", "),
                more
            )
        }
    }
}

fn governor(run: &RunRecord) -> Check {
    let modelled = run.provenance.clock == Clock::Modelled;
    let found = run.provenance.governor.as_deref().filter(|_| !modelled);
    Check {
        name: text!("fixed frequency"),
        condition: text!("The processor keeps its frequency"),
        outcome: match found {
            _ if modelled => Outcome::DoesNotApply,
            None | Some("" | "unknown") => Outcome::Unknown,
            Some(name) => yes_if(name == "performance"),
        },
        found: match found {
            _ if modelled => text!("the times are of a virtual clock"),
            None => text!("the system does not tell its governor"),
            Some(governor) => text!("governor {governor}", governor),
        },
        advice: text!("cpupower frequency-set -g performance"),
        required: false,
    }
}

/// Share of large weights that has to lie on huge pages. What follows the last whole huge page of each weight cannot.
pub(super) const ON_HUGE_PAGES: f64 = 0.8;

/// Size of all weights, in bytes, from which their share on huge pages is judged. In smaller models, one weight has few
/// huge pages, and the rest of it may be as large: of 3.4 MiB, 2 MiB can lie on one.
const LARGE_BYTES: u64 = 1 << 30;

/// Returns which share of the weights lies on huge pages, and what could. `None` if the record does not tell, or the
/// weights are small.
pub(super) fn on_huge_pages(load: &LoadFacts) -> Option<(f64, HugePages)> {
    let pages = load.huge_pages.filter(|pages| pages.possible_bytes >= LARGE_BYTES)?;
    Some((pages.share()?, pages))
}

/// Formats a share in percent, rounded down: what misses a bound must not read as if it met it.
pub(super) fn percent_below(share: f64) -> String {
    fixed(Some((1000.0 * share).floor() / 10.0), 1)
}

/// Checks that the weights lie on huge pages. `None` if the records do not tell, or the weights are small. The blocks of
/// a run in turns load weights of their own, of which nothing is recorded.
///
/// All ranks on a CPU are one process, so its figure covers them. Of the shards of a merged run, the worst counts.
fn huge_pages(run: &RunRecord) -> Option<Check> {
    if run.is_in_turns() {
        return None;
    }
    let parts = run.shards.iter().flat_map(|shards| &shards.parts).filter(|part| !part.cases.is_empty());
    let of_shards = parts.filter_map(|part| part.origin.as_ref()?.load.as_ref());
    let all = run.provenance.load.iter().chain(of_shards);
    let told = all.filter_map(|load| {
        let (share, pages) = on_huge_pages(load)?;
        Some((share, pages, load.pack_cache.as_deref() == Some("mapped")))
    });
    let (share, pages, is_mapped) = told.min_by(|(a, ..), (b, ..)| a.total_cmp(b))?;
    Some(Check {
        name: text!("huge pages"),
        condition: text!("At least 80 % of the large weights lie on huge pages"),
        outcome: yes_if(share >= ON_HUGE_PAGES),
        found: text!(
            "{share} % of {size}, after loading",
            share = percent_below(share),
            size = bytes(pages.possible_bytes)
        ),
        advice: if is_mapped {
            text!(
                "Run without --pack-cache: its file lies on small pages here, and weights in memory ask for huge ones."
            )
        } else {
            text!(
                "See `glmbench doctor`; if memory is in pieces, run `{command}` as root.",
                command = HugePages::JOIN_PIECES
            )
        },
        required: false,
    })
}

/// The verdict alone, for a table.
pub fn short(run: &RunRecord, checks: &[Check]) -> Text {
    match verdict(run, checks) {
        Verdict::Invalid => text!("INVALID"),
        Verdict::Incomplete => text!("incomplete"),
        Verdict::Valid if checks.iter().any(|check| check.outcome == Outcome::No) => {
            text!("valid with reservations")
        }
        Verdict::Valid => text!("valid"),
    }
}

/// One line for a terminal: the verdict, the reasons if it is invalid, and every condition that does not hold or is
/// unknown.
pub fn sentence(run: &RunRecord, checks: &[Check]) -> Text {
    let verdict = verdict(run, checks);
    let broken = |c: &&Check| c.required && c.outcome == Outcome::No;
    // Conditions named at the start of the sentence are not repeated.
    let said = |c: &&Check| match verdict {
        Verdict::Invalid => broken(c),
        Verdict::Incomplete => c.name == PLAN,
        Verdict::Valid => false,
    };
    let named = |outcome| -> Vec<&Text> {
        checks.iter().filter(|c| c.outcome == outcome && !said(c)).map(|c| &c.name).collect()
    };
    let (unmet, unknown) = (named(Outcome::No), named(Outcome::Unknown));
    let mut words = match verdict {
        Verdict::Invalid => {
            let reasons = joined(checks.iter().filter(broken).map(|c| &c.found), "; ");
            text!("INVALID: {reasons}", reasons)
        }
        Verdict::Incomplete => {
            let plan = checks.iter().find(|c| c.name == PLAN);
            text!("incomplete: {found}", found = plan.map(|plan| plan.found.clone()).unwrap_or_default())
        }
        Verdict::Valid if unmet.is_empty() && unknown.is_empty() => {
            return text!("valid, every condition that applies holds");
        }
        Verdict::Valid if unmet.is_empty() => text!("valid, every required condition holds"),
        Verdict::Valid => text!("valid with reservations"),
    };
    if !unmet.is_empty() {
        words = words + text!("; not met: {unmet}", unmet = joined(unmet, ", "));
    }
    if !unknown.is_empty() {
        words = words + text!("; unknown: {unknown}", unknown = joined(unknown, ", "));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{ShardCase, ShardPart, Shards};
    use crate::report::fixture;

    fn outcome_of(checks: &[Check], starts: &str) -> Outcome {
        checks.iter().find(|c| c.condition.starts_with(starts)).unwrap().outcome
    }

    #[test]
    fn a_quiet_finished_run_is_valid() {
        let fixture::Records { run, samples, requests } = fixture::quiet();
        let checks = checks(&run, &samples, &requests);
        let spoilt: Vec<_> = checks.iter().filter(|c| c.outcome == Outcome::No).collect();
        assert!(spoilt.is_empty(), "{spoilt:?}");
        assert_eq!(verdict(&run, &checks), Verdict::Valid);
    }

    #[test]
    fn each_spoiling_is_found_and_named_and_only_failures_invalidate() {
        let fixture::Records { mut run, mut samples, mut requests } = fixture::quiet();
        samples[1].state = SampleState::Unscorable;
        run.provenance.governor = Some("powersave".into());
        for (index, request) in requests.iter_mut().enumerate() {
            request.end_ns += 10_000_000 * index as u64;
        }
        let found = checks(&run, &samples, &requests);
        for starts in ["Every answer could", "No case grew", "The processor"] {
            assert_eq!(outcome_of(&found, starts), Outcome::No, "{starts}");
        }
        assert_eq!(verdict(&run, &found), Verdict::Valid);
        let said = sentence(&run, &found);
        assert!(
            said.starts_with("valid with reservations; not met: every answer readable, ")
                && said.to_string().ends_with("no drift, fixed frequency"),
            "{said}"
        );
        run.provenance.governor = None;
        assert!(
            sentence(&run, &checks(&run, &samples, &requests))
                .to_string()
                .ends_with("; unknown: fixed frequency")
        );
        run.status = Status::Interrupted;
        let found = checks(&run, &samples, &requests);
        assert_eq!(verdict(&run, &found), Verdict::Incomplete);
        assert!(
            sentence(&run, &found)
                .starts_with("incomplete: interrupted; 360 of 360 items; 12 of 12 timed cases; not met: ")
        );
        requests.last_mut().unwrap().output_hash = "other".into();
        let found = checks(&run, &samples, &requests);
        assert_eq!(verdict(&run, &found), Verdict::Invalid);
        let said = sentence(&run, &found);
        assert!(said.starts_with("INVALID: output differs between repetitions: "), "{said}");
    }

    #[test]
    fn weights_on_small_pages_are_a_reservation_with_what_to_do() {
        let fixture::Records { mut run, samples, requests } = fixture::quiet();
        let pages = |possible_bytes, huge_bytes| Some(HugePages { possible_bytes, huge_bytes });
        let load = |huge_pages, pack_cache: Option<&str>| LoadFacts {
            load_ns: 1,
            peak_rss_bytes: None,
            weight_bytes: 1,
            kv_bytes: 1,
            working_bytes: 1,
            made: false,
            pack_cache: pack_cache.map(str::to_owned),
            huge_pages,
        };
        let check_of = |run: &RunRecord| {
            checks(run, &samples, &requests).into_iter().find(|check| check.name == "huge pages")
        };
        let mut with = |facts| {
            run.provenance.load = facts;
            check_of(&run)
        };
        // No figure, and too little for it to matter.
        for facts in [None, Some(load(None, None)), Some(load(pages((1 << 30) - 1, 0), None))] {
            assert_eq!(with(facts), None);
        }
        let outcome = |check: Option<Check>| check.unwrap().outcome;
        assert_eq!(outcome(with(Some(load(pages(10_000_000_000, 8_000_000_000), None)))), Outcome::Yes);
        let low = with(Some(load(pages(10_000_000_000, 7_900_000_000), None))).unwrap();
        assert_eq!((low.outcome, low.required), (Outcome::No, false));
        assert_eq!(low.found, "79.0 % of 9.31 GiB, after loading");
        let nearly = with(Some(load(pages(10_000_000_000, 7_999_999_999), None))).unwrap();
        assert_eq!(
            (nearly.outcome, nearly.found.to_string()),
            (Outcome::No, "79.9 % of 9.31 GiB, after loading".into())
        );
        assert!(low.advice.to_string().contains("compact_memory"), "{}", low.advice);
        let mapped = with(Some(load(pages(10_000_000_000, 0), Some("mapped")))).unwrap();
        assert_eq!(mapped.outcome, Outcome::No);
        assert!(mapped.advice.starts_with("Run without --pack-cache"), "{}", mapped.advice);
        let said = sentence(&run, &checks(&run, &samples, &requests));
        assert_eq!(said, "valid with reservations; not met: huge pages");

        // Of shards, the worst counts.
        let part = |(index, huge_bytes)| {
            run.provenance.load = Some(load(pages(1 << 30, huge_bytes), None));
            let origin = Some(run.origin(true));
            let cases = vec![ShardCase { id: "b1-i8-o8".into(), work: 1 }];
            ShardPart { index, cases, origin, ..ShardPart::default() }
        };
        let parts: Vec<ShardPart> = [(1, 1 << 30), (2, 1 << 29)].map(part).into();
        run.provenance.load = None;
        let plan_hash = String::new();
        run.shards = Some(Box::new(Shards { count: 2, plan_hash, whole: None, parts }));
        assert_eq!(check_of(&run).unwrap().found, "50.0 % of 1.00 GiB, after loading");
    }

    #[test]
    fn failed_items_invalidate_beyond_what_the_suite_allows() {
        let fixture::Records { mut run, mut samples, requests } = fixture::quiet();
        samples[3].state = SampleState::Failed;
        samples[3].error = Some("logits not finite: position 7, token id 0 is NaN".into());
        let found = checks(&run, &samples, &requests);
        assert_eq!(verdict(&run, &found), Verdict::Invalid);
        assert_eq!(
            sentence(&run, &found),
            "INVALID: logits not finite: position 7, token id 0 is NaN (from item val-advanced_mathematics-3 of ceval); \
             1 of 240 items failed"
        );
        // One of 240 is 0.42 %. One task's allowance does not apply to the other.
        for (task, max_failed, outcome) in
            [(0, 0.004, Outcome::No), (0, 0.005, Outcome::Yes), (1, 0.5, Outcome::No)]
        {
            run.plan.accuracy.iter_mut().for_each(|case| case.max_failed = None);
            run.plan.accuracy[task].max_failed = Some(max_failed);
            let found = checks(&run, &samples, &requests);
            assert_eq!(outcome_of(&found, "No more items failed"), outcome, "{task} {max_failed}");
        }
    }

    #[test]
    fn a_failed_repetition_invalidates_and_is_told_with_its_reason() {
        let fixture::Records { run, samples, mut requests } = fixture::quiet();
        let failed = requests.iter().position(|r| r.case_id == "b2-i32-o32").unwrap();
        requests[failed].error = Some("sequence 1 of the batch: logits not finite".into());
        requests.retain(|r| r.case_id != "b2-i32-o32" || r.error.is_some());
        let found = checks(&run, &samples, &requests);
        assert_eq!(verdict(&run, &found), Verdict::Invalid);
        let said = sentence(&run, &found);
        let wanted = "INVALID: warm-up: sequence 1 of the batch: logits not finite; not 1 of 12: b2-i32-o32";
        assert_eq!(said, wanted);
        // It is not unknown before the end of the run either.
        let running = RunRecord { status: Status::Running, ..run };
        assert_eq!(verdict(&running, &checks(&running, &samples, &requests)), Verdict::Invalid);
    }

    #[test]
    fn a_weight_that_is_no_number_invalidates() {
        let fixture::Records { mut run, samples, requests } = fixture::quiet();
        run.provenance.weight_faults = Some(vec!["tensor w [0, 7] is NaN (1 of 8 numbers)".into()]);
        let found = checks(&run, &samples, &requests);
        assert_eq!(sentence(&run, &found), "INVALID: tensor w [0, 7] is NaN (1 of 8 numbers)");
        run.provenance.weight_faults = None;
        let found = checks(&run, &samples, &requests);
        assert_eq!(sentence(&run, &found), "valid, every required condition holds; unknown: finite weights");
        // A server's weights cannot be looked at, and nobody could do anything about it.
        run.identity = run.identity.without(&["weights"]);
        let found = checks(&run, &samples, &requests);
        assert_eq!(sentence(&run, &found), "valid, every condition that applies holds");
    }

    #[test]
    fn conditions_that_do_not_apply_never_say_yes() {
        let fixture::Records { mut run, samples, mut requests } = fixture::quiet();
        let noise = [
            "Every case has at least 5",
            "Every end-to-end median",
            "No case grew",
            "No repetition stands",
            "The processor keeps",
        ];
        run.provenance.clock = Clock::Modelled;
        let found = checks(&run, &samples, &requests);
        for starts in noise {
            assert_eq!(outcome_of(&found, starts), Outcome::DoesNotApply, "{starts}");
        }
        assert_eq!(sentence(&run, &found), "valid, every condition that applies holds");
        // With one repetition, only the repetition count can be judged.
        run.provenance.clock = Clock::Measured;
        requests.retain(|r| r.kind == crate::record::RepetitionKind::Timed && r.repetition == 0);
        let found = checks(&run, &samples, &requests);
        let outcomes = noise.map(|starts| outcome_of(&found, starts));
        use Outcome::{No, Unknown, Yes};
        assert_eq!(outcomes, [No, Unknown, Unknown, Unknown, Yes]);
        // No condition holds for missing data either.
        let found = checks(&run, &[], &[]);
        for starts in ["Every item had", "Every answer could"] {
            assert_eq!(outcome_of(&found, starts), Outcome::Unknown, "{starts}");
        }
        for starts in ["Every end-to-end median", "Choices differ", "No answer is given", "Few texts"] {
            assert_eq!(outcome_of(&found, starts), Outcome::DoesNotApply, "{starts}");
        }
    }

    #[test]
    fn few_cases_are_named_and_many_are_counted() {
        assert_eq!(found_in(&[], 1), "all 1 case");
        assert_eq!(found_in(&["a"], 4), "not 1 of 4: a");
        assert_eq!(found_in(&["a", "b", "c", "d", "e"], 9), "not 5 of 9: a, b, c and 2 more");
    }
}
