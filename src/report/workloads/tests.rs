//! A hand-made run with two searches and a load, through its rows, tables, sentences and page.

use super::*;
use crate::language::joined;
use crate::record::{
    Audit, Clock, LoadCase, LoadLevelRecord, LoadRequest, LoadRow, Objective, Objectives, ProbeOutcome,
    ProbePurpose, ProbeRecord, ProbeRepetition, ProbeRow, SealState, SearchCase,
};
use crate::report::check::{Outcome, Verdict};
use crate::report::compare::{Comparison, Options, compare};
use crate::report::{fixture, render};
use std::fs;
use std::path::Path;

fn search(id: &str) -> SearchCase {
    SearchCase {
        search_id: id.into(),
        tp: 1,
        input_tokens: 256,
        output_tokens: 33,
        low: 1,
        high: 64,
        limit_tpot: Objective::of_ms(50.0),
        limit_ttft: None,
        repetitions: 1,
    }
}

fn probe(id: &str, number: u32, batch: u32, outcome: ProbeOutcome) -> ProbeRecord {
    let tpot_ns = u64::from(batch) * 2_000_000;
    let ran = matches!(outcome, ProbeOutcome::Fits | ProbeOutcome::TooSlow);
    let start_ns = u64::from(number) * 10_000_000_000;
    let repetition = ProbeRepetition {
        start_ns,
        first_token_ns: start_ns + 100_000_000,
        end_ns: start_ns + 100_000_000 + 32 * tpot_ns,
    };
    ProbeRecord {
        search_id: id.into(),
        probe: number,
        purpose: ProbePurpose::Search,
        clock: Clock::Measured,
        batch,
        outcome,
        reason: (outcome != ProbeOutcome::Fits).then(|| format!("as planted, \"{}\"", outcome.words())),
        wanted_bytes: (outcome == ProbeOutcome::OutOfMemory).then_some(3 << 30),
        device_memory_bytes: None,
        ttft_ns: ran.then_some(100_000_000),
        tpot_ns: ran.then_some(tpot_ns),
        repetitions: if ran { vec![repetition] } else { Vec::new() },
        output_hash: ran.then(|| "0ff1ce".into()),
        end_ns: start_ns + 9_000_000_000,
    }
}

/// Requests at interval `gap_ns`. Each takes 300 ms, plus `late_ns` more than the one before.
fn level(number: u32, rate: Option<f64>, late_ns: u64) -> LoadLevelRecord {
    let start_ns = u64::from(number) * 1_000_000_000_000;
    let gap_ns = rate.map_or(0, |rate| (1e9 / rate) as u64);
    let request = |i: u64| {
        let arrival_ns = start_ns + (i + 1) * gap_ns;
        let begin = arrival_ns + i * late_ns;
        LoadRequest {
            arrival_ns,
            start_ns: begin,
            first_token_ns: begin + 100_000_000,
            itl_ns: vec![50_000_000, 150_000_000],
            end_ns: begin + 300_000_000,
            input_tokens: 128,
            output_tokens: 3,
            wire: None,
            error: None,
        }
    };
    let requests: Vec<LoadRequest> = (0..120).map(request).collect();
    LoadLevelRecord {
        load_id: "poisson-i128-o3-b8".into(),
        level: number,
        clock: Clock::Measured,
        rate_per_s: rate,
        concurrency: None,
        scheduling: None,
        start_ns,
        end_ns: requests.last().unwrap().end_ns,
        requests,
    }
}

/// The run with its probes and levels.
pub(in crate::report) fn planted() -> (RunRecord, Vec<ProbeRecord>, Vec<LoadLevelRecord>) {
    use ProbeOutcome::{Fits, OutOfMemory, TooSlow};
    let mut run = fixture::run();
    run.plan.searches = vec![search("max-batch-i256-o33"), search("max-batch-i512-o33")];
    run.plan.loads = vec![LoadCase {
        load_id: "poisson-i128-o3-b8".into(),
        tp: 1,
        arrival: "poisson".into(),
        rates: vec![2.0, 10.0],
        concurrency: Vec::new(),
        max_batch: 8,
        prefill_chunk: None,
        prompts: "random tokens".into(),
        objectives: Objectives {
            ttft: Some(Objective::of_ms(200.0)),
            tpot: None,
            e2e: Some(Objective::of_ms(1_000.0)),
        },
    }];
    let outcomes =
        [(1, Fits), (32, OutOfMemory), (16, Fits), (26, TooSlow), (25, Fits), (25, Fits), (26, TooSlow)];
    let mut probes: Vec<ProbeRecord> = (0..)
        .zip(outcomes)
        .map(|(number, (batch, outcome))| probe("max-batch-i256-o33", number, batch, outcome))
        .collect();
    probes.extend([
        probe("max-batch-i512-o33", 0, 1, Fits),
        probe("max-batch-i512-o33", 1, 2, TooSlow),
        probe("max-batch-i512-o33", 2, 2, Fits),
    ]);
    (run, probes, vec![level(0, Some(2.0), 0), level(1, Some(10.0), 20_000_000), level(2, None, 1_000_000)])
}

/// Summarises a run that has nothing but probes and levels.
fn summary(run: RunRecord, probes: Vec<ProbeRecord>, loads: Vec<LoadLevelRecord>) -> Summary {
    let audit = Audit { faults: Vec::new(), contradiction: None, seal: SealState::Open };
    let (samples, requests, tosses) = (Vec::new(), Vec::new(), Vec::new());
    let contents = Contents { run, samples, requests, probes, loads, parities: Vec::new(), tosses, audit };
    let workloads = Workloads::of(&contents);
    let mut summary = Summary::of(contents.run, &[], &[]);
    workloads.add_to(&mut summary);
    summary
}

#[test]
fn the_csv_files_are_as_committed_and_the_page_is_whole() {
    let root = tempfile::tempdir().unwrap();
    let (run, probes, levels) = planted();
    let mut dir = fixture::write(root.path(), &fixture::Records::empty(run));
    probes.iter().try_for_each(|probe| dir.append_probe(probe)).unwrap();
    levels.iter().try_for_each(|level| dir.append_load(level)).unwrap();
    let summary = render(dir.path(), Language::En).unwrap();
    let text = |name: &str| fs::read_to_string(dir.file(name)).unwrap();
    insta::assert_snapshot!("max_batch.csv", text("max_batch.csv"));
    insta::assert_snapshot!("load.csv", text("load.csv"));
    let shown: Vec<String> = summary
        .tables
        .iter()
        .filter(|table| !table.title.starts_with("Performance"))
        .map(|table| {
            let columns = joined(table.columns.iter().map(|column| &column.name), " | ");
            let rows: Vec<String> =
                table.rows.iter().map(|row| joined(&row.cells, " | ").to_string()).collect();
            let rows = rows.join("\n");
            format!("{}\n{columns}\n{rows}\n", table.title)
        })
        .collect();
    insta::assert_snapshot!("tables", shown.join("\n"));
    let html = text("report.html");
    for part in [
        "Probes of max-batch-i256-o33",
        "Quantiles of poisson-i128-o3-b8",
        "<dt>Goodput</dt>",
        "<dt>Largest batch</dt>",
    ] {
        assert!(html.contains(part), "{part}");
    }
    for chart in ["max-batch-i256-o33", "load-poisson-i128-o3-b8"] {
        assert!(dir.file("charts").join(format!("{chart}.png")).is_file(), "{chart}");
    }
    // serde's own header must be the same, so no column can be misplaced.
    let own = |row: &dyn Fn(&mut csv::Writer<Vec<u8>>)| {
        let mut writer = csv::Writer::from_writer(Vec::new());
        row(&mut writer);
        String::from_utf8(writer.into_inner().unwrap()).unwrap().lines().next().unwrap().to_owned()
    };
    let run = dir.read_run().unwrap();
    let (probe_rows, load_rows) =
        (crate::report::probe_rows(&run, &probes), crate::report::load_rows(&run, &levels));
    assert_eq!(own(&|w| w.serialize(&probe_rows[0]).unwrap()), ProbeRow::HEADER);
    assert_eq!(own(&|w| w.serialize(&load_rows[0]).unwrap()), LoadRow::HEADER);
}

/// Writes two runs in the folder `root`. The second run fits half the batch in its first
/// search, and its second search has other limits. It has one rate more and one less.
fn planted_runs(root: &Path) -> [RunDir; 2] {
    let written =
        |id: &str, (mut run, probes, levels): (RunRecord, Vec<ProbeRecord>, Vec<LoadLevelRecord>)| {
            run.run_id = id.into();
            run.plan.performance.clear();
            run.plan.accuracy.clear();
            let mut dir = fixture::write(root, &fixture::Records::empty(run));
            probes.iter().try_for_each(|probe| dir.append_probe(probe)).unwrap();
            levels.iter().try_for_each(|level| dir.append_load(level)).unwrap();
            dir
        };
    let base = written("a", planted());
    let (mut run, mut probes, mut levels) = planted();
    probes.retain(|p| p.search_id != "max-batch-i256-o33" || p.batch <= 16);
    probes.push(probe("max-batch-i256-o33", 9, 17, ProbeOutcome::TooSlow));
    run.plan.searches[1].limit_tpot = Objective::of_ns(1);
    levels.remove(1);
    levels.push(level(3, Some(4.0), 0));
    [base, written("b", (run, probes, levels))]
}

/// The comparison of two such runs.
pub(in crate::report) fn planted_pair(root: &Path, language: Language) -> Comparison {
    let paths = planted_runs(root).map(|dir| dir.path().to_owned());
    compare(&paths, &Options { language, ..Options::default() }).unwrap()
}

#[test]
fn two_runs_are_compared_side_by_side_and_exported() {
    let root = tempfile::tempdir().unwrap();
    let [base, other] = planted_runs(root.path());
    let paths = [base.path().to_owned(), other.path().to_owned()];
    let comparison = compare(&paths, &Options::default()).unwrap();
    let out = root.path().join("out");
    let summary = crate::report::write_comparison(&comparison, &[], &out).unwrap();
    let csv = fs::read_to_string(out.join("comparison.csv")).unwrap();
    insta::assert_snapshot!("compared.csv", csv);
    let markdown = fs::read_to_string(out.join("summary.md")).unwrap();
    let tables = markdown.split("## ").filter(|part| part.starts_with("La") || part.starts_with("Load"));
    insta::assert_snapshot!("compared", tables.collect::<Vec<_>>().join("## "));
    // There are neither tasks nor timed cases: the searches are the answer, and said once.
    let found = |said: &&Text| said.contains("max-batch-i256-o33: 16 against 25");
    assert!(found(&&summary.headline[0]), "{:?}", summary.headline);
    assert_eq!(summary.headline.iter().filter(found).count(), 1);
    assert!(comparison.pairs[0].notes.iter().any(|n| n.contains("max-batch-i512-o33 is asked otherwise")));
    let html = fs::read_to_string(out.join("report.html")).unwrap();
    crate::report::tests::assert_whole_page(&html, Language::En);
    let csv = crate::report::export::find("csv").unwrap();
    let records = crate::report::export::Records::read(&base).unwrap();
    let exported = crate::report::export::files(csv, &records).unwrap();
    render(base.path(), Language::En).unwrap();
    for name in ["max_batch.csv", "load.csv"] {
        let file = exported.iter().find(|file| file.path == name).unwrap();
        assert_eq!(file.bytes, fs::read(base.file(name)).unwrap(), "{name}");
    }
}

#[test]
fn what_was_found_is_said_and_what_contradicts_is_not_hidden() {
    let (run, probes, levels) = planted();
    let mut summary = summary(run, probes, levels);
    let said = summary.headline.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for sentence in [
        "256 in, 33 out: 25 is the largest batch of 1 to 64 within the limits (TPOT 50.0 ms, 26 is too slow), measured on cpu in fp16.",
        "the largest batch of 1 to 64 within the limits is not known, 1 to 2: its probes contradict one another, batch 2 is too slow (probe 1), batch 2 fits (probe 2)",
        "poisson-i128-o3-b8: sustains 2 requests/s, and not 10 (there TTFT 100 ms and E2E 300 ms in the median, 100.0 % of requests served well)",
    ] {
        assert!(said.contains(sentence), "{sentence:?} is not in:\n{said}");
    }
    let outcome =
        |starts: &str| summary.checks.iter().find(|c| c.condition.starts_with(starts)).unwrap().outcome;
    assert_eq!(outcome("Every max-batch search"), Outcome::Yes);
    assert_eq!(outcome("No max-batch search contradicts"), Outcome::No);
    assert_eq!(outcome("Every request under load"), Outcome::Yes);
    // A run whose probes contradict one another is not plainly valid.
    summary.checks.retain(|check| check.name.starts_with("searches"));
    assert_eq!(
        summary.verdict_sentence(),
        "valid with reservations; not met: searches agree with themselves"
    );
}

#[test]
fn a_failed_search_or_request_makes_the_run_invalid() {
    let invalid = |change: &dyn Fn(&mut Vec<ProbeRecord>, &mut Vec<LoadLevelRecord>)| {
        let (mut run, mut probes, mut levels) = planted();
        run.plan.performance.clear();
        run.plan.accuracy.clear();
        change(&mut probes, &mut levels);
        summary(run, probes, levels).verdict()
    };
    assert_eq!(invalid(&|_, _| {}), Verdict::Valid);
    assert_eq!(invalid(&|probes, _| probes[3].outcome = ProbeOutcome::Failed), Verdict::Invalid);
    assert_eq!(invalid(&|probes, _| probes.truncate(7)), Verdict::Invalid, "a search without any probe");
    assert_eq!(invalid(&|_, levels| levels[0].requests[5].error = Some("short".into())), Verdict::Invalid);
}

#[test]
fn a_history_follows_the_top_rate_and_the_searches_that_were_decided() {
    use crate::report::followed::Kind;
    let followed = |searched: bool| {
        let (mut run, probes, loads) = planted();
        if searched {
            run.plan.loads[0].rates.clear();
        }
        let audit = Audit { faults: Vec::new(), contradiction: None, seal: SealState::Open };
        let (samples, requests, tosses) = (Vec::new(), Vec::new(), Vec::new());
        let contents =
            Contents { run, samples, requests, probes, loads, parities: Vec::new(), tosses, audit };
        Workloads::of(&contents).history(&contents.run)
    };
    // The second search contradicts itself.
    let found = followed(false);
    let of = |kind| found.iter().filter(|figure| figure.kind == kind).collect::<Vec<_>>();
    let largest = of(Kind::LargestBatch);
    assert_eq!(largest.iter().map(|figure| figure.value).collect::<Vec<_>>(), [25.0]);
    assert_eq!(largest[0].case, "256 in, 33 out, TPOT ≤ 50 ms");
    let goodput = of(Kind::Goodput)[0];
    assert_eq!(goodput.case, "poisson-i128-o3-b8 at 10 requests/s");
    let (low, high) = (goodput.low.unwrap(), goodput.high.unwrap());
    assert!(low < goodput.value && goodput.value < high, "{goodput:?}");
    assert_eq!(of(Kind::Throughput).len(), 1);
    // A rate that was searched for is not the same in every run.
    let searched = followed(true);
    let highest = searched.iter().find(|figure| figure.kind == Kind::Goodput).unwrap();
    assert_eq!(highest.case, "poisson-i128-o3-b8 at the highest rate sustained");
    assert_ne!(highest.value, goodput.value);
}

#[test]
fn a_load_that_fails_throughout_says_why() {
    let (run, _, mut levels) = planted();
    for request in levels.iter_mut().flat_map(|level| &mut level.requests) {
        request.error = Some("logits not finite".into());
    }
    let summary = summary(run, Vec::new(), levels);
    let said = summary.headline.last().unwrap();
    assert_eq!(said, "poisson-i128-o3-b8: 360 of 360 requests failed (logits not finite).");
    let check = summary.checks.last().unwrap();
    assert_eq!(
        (check.outcome, check.found.to_string().as_str()),
        (Outcome::No, "logits not finite; 360 of 360 requests failed; not 1 of 1: poisson-i128-o3-b8")
    );
}

#[test]
fn goodput_counts_failed_requests_as_not_served_well_and_p99_needs_a_hundred() {
    let (run, _, mut levels) = planted();
    levels[0].requests[0].error = Some("short".into());
    let rows = crate::report::load_rows(&run, &levels);
    assert_eq!((rows[0].failed, rows[0].goodput_share), (1, Some(119.0 / 120.0)));
    assert_eq!(rows[0].ttft_p99_ns, Some(100_000_000));
    assert_eq!((rows[0].itl_p50_ns, rows[0].itl_max_ns), (Some(100_000_000), Some(150_000_000)));
    assert_eq!((rows[0].tpot_p50_ns, rows[0].e2e_p50_ns), (Some(100_000_000), Some(300_000_000)));
    levels[0].requests.truncate(60);
    let rows = crate::report::load_rows(&run, &levels);
    assert_eq!((rows[0].ttft_p99_ns, rows[0].ttft_max_ns), (None, Some(100_000_000)));
    assert!(rows[0].itl_p99_ns.is_some(), "118 gaps are enough");
    assert_eq!(rows[2].saturated, None, "all at once");
    levels.truncate(1);
    levels[0].requests.truncate(9);
    let said =
        crate::workload::load::sentences::sentences(&run, &crate::report::load_rows(&run, &levels), &[]);
    assert!(
        said[0]
            .contains("too few requests to say what is sustained (100 at a rate would do) (at 2 TTFT 100 ms"),
        "{said:?}"
    );
}
