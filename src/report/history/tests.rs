//! Folders of planted runs, through cache, lines, verdicts, tables and page.

use super::cache::{Known, What};
use super::figures::{RunFigures, Standing};
use super::found::Reads;
use super::*;
use crate::language::Language;
use crate::record::{Clock, SampleRecord, rfc3339_utc};
use crate::report::followed::{Figure, Kind, Marks};
use crate::report::{fixture, render};
use crate::stats::Rng;
use std::collections::HashMap;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

mod scale;

const DAY: u64 = 86_400;
/// 2026-01-01.
const BEGIN: u64 = 1_767_225_600;

fn started(day: u64) -> String {
    rfc3339_utc(UNIX_EPOCH + Duration::from_secs(BEGIN + day * DAY))
}

/// The marks of `items` items. `is_right` says which items are right.
fn marks(items: usize, is_right: impl Fn(usize) -> bool) -> Marks {
    let samples: Vec<SampleRecord> =
        (0..items).map(|item| SampleRecord { correct: is_right(item), ..fixture::sample() }).collect();
    Marks::of(samples.iter())
}

fn figure(kind: Kind, case: &str, value: f64) -> Figure {
    Figure {
        kind,
        case: case.into(),
        basis: "same".into(),
        tp: 1,
        value,
        low: Some(0.98 * value),
        high: Some(1.02 * value),
        n: 10,
        marks: None,
    }
}

fn score(items: usize, is_right: impl Fn(usize) -> bool) -> Figure {
    let right = (0..items).filter(|item| is_right(*item)).count() as u64;
    let ends = crate::stats::wilson(right, items as u64, 0.95).unwrap();
    Figure {
        low: Some(ends.low),
        high: Some(ends.high),
        n: items as u64,
        marks: Some(marks(items, is_right)),
        ..figure(Kind::Accuracy, "ceval, published, 5 shots, 200 items", right as f64 / items as f64)
    }
}

/// A valid run of a day on the CPU.
fn run(day: u64, figures: Vec<Figure>) -> RunFigures {
    RunFigures {
        version: super::figures::VERSION,
        program: super::figures::program(),
        run_json: format!("{day:064x}"),
        journals: BTreeMap::new(),
        run_id: format!("run-{day:04}"),
        standing: Standing::Valid,
        verdict: "valid, every condition that applies holds".into(),
        suite: "nightly".into(),
        model: "chatglm2-6b".into(),
        form: "fp16".into(),
        device: "cpu".into(),
        emulated: false,
        clock: Clock::Measured,
        profile: None,
        processor: Some("Xeon Platinum 8481C, 2 threads".into()),
        started: started(day),
        facts: BTreeMap::from([("program".into(), "glmbench 0.1.0 (139c400)".into())]),
        figures,
    }
}

fn known(runs: Vec<RunFigures>) -> Vec<Known> {
    let known = |of: RunFigures| Known {
        folder: of.run_id.clone(),
        stamp: String::new(),
        what: What::Run(Box::new(of)),
    };
    runs.into_iter().map(known).collect()
}

/// Passes the tables of runs on.
fn with_tables<R>(known: &[Known], then: impl FnOnce(Tables<'_>) -> R) -> R {
    let (runs, left_out) = lines::sorted(known);
    let lines = lines::lines(&runs);
    let judged = judged::judged(&lines);
    let changes = changes(&lines, &runs);
    let ids: Vec<String> = lines.iter().map(line_id).collect();
    then(Tables {
        runs: &runs,
        left_out: &left_out,
        lines: &lines,
        judged: &judged,
        changes: &changes,
        ids: &ids,
    })
}

/// The words of both verdicts on the only line.
fn verdicts(runs: Vec<RunFigures>) -> (String, String) {
    with_tables(&known(runs), |tables| {
        let [judged] = tables.judged else { panic!("{} lines", tables.judged.len()) };
        let kind = tables.lines[0].key.kind;
        let word = |of: &Option<judged::Against>| {
            of.as_ref().map_or("none".to_owned(), |of| of.verdict.word(kind).to_owned())
        };
        (word(&judged.previous), word(&judged.best))
    })
}

fn decode(value: f64) -> Vec<Figure> {
    vec![figure(Kind::Decode, "batch 8, 512 in, 128 out", value)]
}

/// Draws from a bell of mean 0 and deviation 1.
fn bell(rng: &mut Rng) -> f64 {
    (0..12).map(|_| rng.unit_f64()).sum::<f64>() - 6.0
}

/// Runs with these decode rates, one a day.
fn rates(values: &[f64]) -> Vec<RunFigures> {
    (0..).zip(values).map(|(day, value)| run(day, decode(*value))).collect()
}

#[test]
fn values_of_different_things_are_on_different_lines() {
    type Change = fn(&mut RunFigures);
    let changes: [Change; 9] = [
        |run| run.model = "demo".into(),
        |run| run.form = "w8a8".into(),
        |run| run.device = "300i-duo".into(),
        |run| run.processor = Some("another".into()),
        |run| run.figures[0].tp = 2,
        |run| run.figures[0].case = "batch 1, 512 in, 128 out".into(),
        |run| run.figures[0].basis = "other prompts".into(),
        |run| run.figures[0].kind = Kind::Prefill,
        |run| run.clock = Clock::Modelled,
    ];
    for change in changes {
        let mut other = run(1, decode(10.0));
        change(&mut other);
        with_tables(&known(vec![run(0, decode(10.0)), other]), |tables| assert_eq!(tables.lines.len(), 2));
    }
    // Modelled times of two profiles are two lines. What is no time does not depend on the clock's profile.
    let modelled = |day, profile: &str, figures| RunFigures {
        clock: Clock::Modelled,
        emulated: true,
        device: "300i-duo (emulated)".into(),
        profile: Some(profile.into()),
        processor: None,
        ..run(day, figures)
    };
    let both = || [decode(10.0), vec![score(40, |item| item < 20)]].concat();
    let runs = vec![modelled(0, "a", both()), modelled(1, "b", both()), run(2, both())];
    with_tables(&known(runs), |tables| {
        let of = |kind| {
            let of_kind = tables.lines.iter().filter(move |line| line.key.kind == kind);
            of_kind.map(|line| (line.key.source.word(), line.points.len())).collect::<Vec<_>>()
        };
        assert_eq!(of(Kind::Decode), [("modelled", 1), ("modelled", 1), ("measured", 1)]);
        assert_eq!(of(Kind::Accuracy), [("emulated", 2), ("measured", 1)]);
    });
}

#[test]
fn the_order_of_reading_does_not_matter() {
    let mut rng = Rng::new(2);
    let noisy: Vec<f64> = (0..40).map(|i| if i < 20 { 100.0 } else { 90.0 } + rng.unit_f64()).collect();
    let written = |known: &[Known]| {
        let folder = tempfile::tempdir().unwrap();
        with_tables(known, |tables| {
            tables.write(folder.path()).unwrap();
            let page = page::Page::of(tables, Language::En).fill("reports", "index").unwrap().html;
            let files = ["lines.csv", "points.csv", "changes.csv", "runs.csv"];
            (page, files.map(|name| fs::read_to_string(folder.path().join(name)).unwrap()))
        })
    };
    let mut all = known(rates(&noisy));
    let first = written(&all);
    all.reverse();
    assert!(written(&all) == first);
    all.rotate_left(13);
    assert!(written(&all) == first);
}

#[test]
fn a_step_is_reported_at_its_run_with_what_else_changed() {
    let mut runs = rates(&[100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 90.0, 91.0, 89.0, 90.5, 89.5, 90.2]);
    for run in &mut runs[6..] {
        run.facts.insert("kernels".into(), "avx2".into());
    }
    with_tables(&known(runs), |tables| {
        let [change] = tables.changes else { panic!("{:?}", tables.changes) };
        assert_eq!((change.at, change.runs), (6, (6, 6)));
        assert_eq!(change.differs, "kernels – → avx2");
        assert!((change.levels.1 / change.levels.0 - 0.9).abs() < 0.01);
        let best = tables.judged[0].best.as_ref().unwrap();
        assert_eq!((best.verdict, best.other), (judged::Verdict::Worse, 1));
        let page = page::Page::of(tables, Language::En).fill("reports", "index").unwrap();
        let said = page.headline.join("\n");
        assert!(
            said.contains(
                "1 line is below the best level.\n1 change point; the newest on 2026-01-07: Decode, "
            ),
            "{said}"
        );
    });
}

#[test]
fn a_change_within_the_noise_of_runs_is_no_verdict() {
    let level = [100.0, 102.0, 98.0, 101.0, 99.0, 100.0];
    let with = |last: f64| verdicts(rates(&[level.as_slice(), &[last]].concat()));
    let is = |previous: &str, best: &str| (previous.to_owned(), best.to_owned());
    assert_eq!(with(97.0), is("within noise", "within noise"));
    assert_eq!(with(80.0), is("slower", "slower"));
    assert_eq!(with(130.0), is("faster", "faster"));
    assert_eq!(with(100.0), is("same", "same"));
    assert_eq!(verdicts(rates(&[100.0, 80.0])), is("cannot tell", "cannot tell"));
    assert_eq!(verdicts(rates(&[100.0])), is("none", "none"));
    // A value that is not positive has no spread.
    let zeros = verdicts(rates(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 5.0]));
    assert_eq!(zeros, is("cannot tell", "cannot tell"));
}

#[test]
fn repeats_of_one_thing_seldom_get_a_verdict() {
    let mut rng = Rng::new(11);
    let (trials, mut wrong) = (400, 0);
    for _ in 0..trials {
        // Four lines of twelve runs each, all noise.
        let runs = (0..12).map(|day| {
            let figures = (0..4).map(|case| {
                let value = 100.0 * (0.03 * bell(&mut rng)).exp();
                figure(Kind::Decode, &format!("case {case}"), value)
            });
            run(day, figures.collect())
        });
        with_tables(&known(runs.collect()), |tables| {
            let calls = |of: &Option<judged::Against>| {
                matches!(of.as_ref().unwrap().verdict, judged::Verdict::Better | judged::Verdict::Worse)
            };
            wrong += usize::from(
                tables.judged.iter().any(|judged| calls(&judged.previous) || calls(&judged.best)),
            );
        });
    }
    // At most 5 % by spread, and 1 % a line by levels: three standard errors above 9 %.
    assert!(wrong <= 36 + 18, "{wrong} of {trials}");
}

#[test]
fn answers_are_compared_item_by_item() {
    let of = |rights: [&dyn Fn(usize) -> bool; 3]| {
        let runs = (0..).zip(rights).map(|(day, is_right)| run(day, vec![score(200, is_right)]));
        verdicts(runs.collect())
    };
    let is = |previous: &str, best: &str| (previous.to_owned(), best.to_owned());
    assert_eq!(of([&|i| i < 100, &|i| i < 100, &|i| i < 100]), is("same", "same"));
    // 20 lost and none gained, against 10 lost and 12 gained.
    assert_eq!(of([&|i| i < 100, &|i| i < 100, &|i| i < 80]), is("worse", "worse"));
    assert_eq!(
        of([&|i| i < 100, &|i| i < 100, &|i| (10..112).contains(&i)]),
        is("within noise", "within noise")
    );
    assert_eq!(of([&|i| i < 100, &|i| i < 60, &|i| i < 100]), is("better", "same"));
    // Without marks nothing is claimed.
    let bare = |day| run(day, vec![Figure { marks: None, ..score(200, |i| i < 100 - 10 * day as usize) }]);
    assert_eq!(verdicts(vec![bare(0), bare(1)]), is("cannot tell", "cannot tell"));
}

#[test]
fn the_best_of_many_runs_is_not_taken_for_a_level() {
    // Eleven lost items against one run are worse (p = 0.001), against the best of a hundred different ones not (p = 0.1).
    let lucky = |day: usize| move |item: usize| item < 100 && item % 100 != day % 100;
    let last = |item: usize| item < 88;
    let of = |count: usize| {
        let earlier = (0..count).map(|day| run(day as u64, vec![score(200, lucky(day))]));
        verdicts(earlier.chain([run(count as u64, vec![score(200, last)])]).collect()).1
    };
    assert_eq!(of(1), "worse");
    assert_eq!(of(80), "within noise");
}

#[test]
fn runs_that_do_not_count_are_listed_with_their_reason() {
    let mut runs = rates(&[100.0, 100.0, 100.0, 100.0, 100.0]);
    runs[1].standing = Standing::Invalid;
    runs[1].verdict = "INVALID: output differs between repetitions".into();
    runs[2].standing = Standing::Incomplete;
    runs[3].run_json = runs[0].run_json.clone();
    runs[4].started = "yesterday".into();
    let mut known = known(runs);
    known.push(Known {
        folder: "torn".into(),
        stamp: String::new(),
        what: What::Broken("cannot read torn/run.json: <b>no</b>".into()),
    });
    with_tables(&known, |tables| {
        assert_eq!((tables.runs.len(), tables.lines[0].points.len()), (1, 1));
        let listed: Vec<_> = tables.left_out.iter().map(|left| (left.folder, left.standing)).collect();
        assert_eq!(
            listed,
            [
                ("run-0001", "INVALID"),
                ("run-0002", "incomplete"),
                ("run-0003", "copy"),
                ("run-0004", "broken"),
                ("torn", "broken")
            ]
        );
        let page = page::Page::of(tables, Language::En).fill("reports", "index").unwrap();
        assert!(page.html.contains("INVALID: output differs between repetitions"));
        assert!(page.html.contains("&lt;b&gt;no") && !page.html.contains("<b>no"));
        assert_eq!(
            page.headline.last().unwrap(),
            "Without lines: 1 INVALID, 2 broken, 1 copy, 1 incomplete."
        );
        crate::report::tests::assert_whole_page(&page.html, Language::En);
    });
    // A folder without any valid run has a page as well.
    with_tables(&known[1..3], |tables| {
        let page = page::Page::of(tables, Language::En).fill("reports", "index").unwrap();
        assert_eq!(page.headline[0], "No valid run here: nothing to follow.");
    });
}

/// Runs of two devices and two models over 400 days, with a step and a last run that is worse.
fn many() -> Vec<Known> {
    let mut rng = Rng::new(5);
    let mut noise = move |share: f64| 1.0 + share * (rng.unit_f64() - 0.5);
    let mut runs = Vec::new();
    for index in 0..24_u64 {
        let slow = if index < 12 { 1.0 } else { 0.93 };
        let last = if index == 23 { 0.8 } else { 1.0 };
        let figures = vec![
            score(200, move |item| item < 108 && (index < 23 || item >= 18)),
            figure(Kind::Perplexity, "wikitext-2, word perplexity", 12.3),
            figure(Kind::Prefill, "batch 8, 512 in, 128 out", 310.0 * noise(0.02)),
            figure(Kind::Decode, "batch 8, 512 in, 128 out", 41.0 * slow * last * noise(0.02)),
            figure(Kind::Throughput, "poisson at 2 requests/s", 88.0 * noise(0.03)),
            figure(Kind::Goodput, "poisson at 2 requests/s", 1.7 * noise(0.03)),
            figure(Kind::LargestBatch, "512 in, 128 out, TPOT ≤ 50 ms", 24.0),
        ];
        runs.push(run(17 * index, figures));
    }
    for index in 0..6_u64 {
        runs.push(RunFigures {
            run_json: format!("m{index}"),
            run_id: format!("modelled-{index}"),
            model: "dummy:chatglm2-6b".into(),
            form: "w8a8, int8 cache".into(),
            device: "800i-a2 (emulated)".into(),
            emulated: true,
            clock: Clock::Modelled,
            profile: Some("800i-a2 sha256:0c1d".into()),
            processor: None,
            ..run(380 + index, decode(1650.0))
        });
    }
    let mut known = known(runs);
    let mut invalid = run(396, decode(7.0));
    invalid.run_json = "i".into();
    invalid.run_id = "invalid".into();
    invalid.standing = Standing::Invalid;
    invalid.verdict = "INVALID: 3 of 240 items failed".into();
    known.extend(self::known(vec![invalid]));
    known
}

#[test]
fn page_and_tables_are_as_committed() {
    let folder = tempfile::tempdir().unwrap();
    with_tables(&many(), |tables| {
        tables.write(folder.path()).unwrap();
        for language in Language::ALL {
            let html = page::Page::of(tables, language).fill("reports", "index").unwrap().html;
            crate::report::tests::assert_whole_page(&html, language);
            // The style is that of all reports, and in its own file.
            let (begin, end) = (html.find("<style>").unwrap(), html.find("</style>").unwrap());
            let own = html[begin..end].find("body:has(").map(|at| begin + at).unwrap();
            let name = language.name();
            insta::assert_snapshot!(
                format!("index.{name}.html"),
                format!("{}<style>\n{}", &html[..begin], &html[own..])
            );
            let table = words::terminal(tables);
            insta::assert_snapshot!(
                format!("terminal.{name}"),
                crate::report::languages::shown(&[table], language)
            );
            // For a look: GLMBENCH_REPORT_SAMPLE=FOLDER keeps the page.
            if let Some(sample) = std::env::var_os("GLMBENCH_REPORT_SAMPLE") {
                let sample = PathBuf::from(sample).join("history");
                fs::create_dir_all(&sample).unwrap();
                fs::write(sample.join(format!("index.{name}.html")), &html).unwrap();
            }
        }
    });
    for name in ["lines.csv", "changes.csv", "runs.csv"] {
        insta::assert_snapshot!(name, fs::read_to_string(folder.path().join(name)).unwrap());
    }
    let points = fs::read_to_string(folder.path().join("points.csv")).unwrap();
    assert_eq!(points.lines().count(), 1 + 24 * 7 + 6);
}

/// A folder with two real runs and a report each.
fn two_runs(root: &Path) -> Vec<PathBuf> {
    let of = |day: u64, mut records: fixture::Records| {
        records.run.provenance.started = started(day);
        records.run.run_id = format!("2026-{day}");
        fixture::write(root, &records).path().to_owned()
    };
    let paths = vec![of(0, fixture::quiet()), of(1, fixture::realistic())];
    paths.iter().for_each(|path| drop(render(path, Language::En).unwrap()));
    paths
}

#[test]
fn a_report_keeps_what_the_records_say() {
    let root = tempfile::tempdir().unwrap();
    let paths = two_runs(root.path());
    let (kept, reads) = found::read(root.path(), HashMap::default()).unwrap();
    assert_eq!(reads, Reads { figures: 2, ..Reads::default() });
    // Without the files, the records give the same.
    paths.iter().for_each(|path| fs::remove_file(path.join("history.json")).unwrap());
    let (read, reads) = found::read(root.path(), HashMap::default()).unwrap();
    assert_eq!(reads, Reads { records: 2, ..Reads::default() });
    let what = |known: &[Known]| known.iter().map(|known| known.what.clone()).collect::<Vec<_>>();
    assert!(what(&kept) == what(&read));
    let What::Run(of) = &read[0].what else { panic!("{read:?}") };
    assert_eq!((of.standing, of.figures.len()), (Standing::Valid, 2 + 2 * 12));
    let ends = of.figures.iter().filter(|figure| figure.kind != Kind::Accuracy).all(|figure| {
        figure.low.is_some_and(|low| low <= figure.value)
            && figure.high.is_some_and(|high| figure.value <= high)
    });
    assert!(ends, "{:?}", of.figures);
}

#[test]
fn a_file_that_is_not_of_these_records_is_not_believed() {
    let root = tempfile::tempdir().unwrap();
    let paths = two_runs(root.path());
    let reads = || found::read(root.path(), HashMap::default()).unwrap().1;
    // A journal that lost lines, another run.json, a torn file, another version.
    let samples = paths[0].join("samples.jsonl");
    let text = fs::read_to_string(&samples).unwrap();
    fs::write(&samples, &text[..text.len() / 2]).unwrap();
    assert_eq!(reads(), Reads { figures: 1, records: 1, ..Reads::default() });
    let path = paths[1].join("history.json");
    let text = fs::read_to_string(&path).unwrap();
    for other in [&text[..100], &text.replace("\"version\":1", "\"version\":0"), ""] {
        fs::write(&path, other).unwrap();
        assert_eq!(reads(), Reads { records: 2, ..Reads::default() });
    }
    let (known, _) = found::read(root.path(), HashMap::default()).unwrap();
    let What::Run(of) = &known[0].what else { panic!("{known:?}") };
    assert_eq!((of.standing, of.figures.len()), (Standing::Invalid, 0));
}

#[test]
fn a_cache_gives_what_reading_gives_and_a_bad_one_is_none() {
    let root = tempfile::tempdir().unwrap();
    let paths = two_runs(root.path());
    let page = |wanted: Reads| {
        let history = index(root.path(), Language::En).unwrap();
        assert_eq!(history.reads, wanted);
        fs::read_to_string(root.path().join("index.html")).unwrap()
    };
    let cold = page(Reads { figures: 2, ..Reads::default() });
    assert!(page(Reads { cached: 2, ..Reads::default() }) == cold);
    let path = root.path().join("index/cache.jsonl");
    let good = fs::read_to_string(&path).unwrap();
    let bad = [
        String::new(),
        good[..good.len() / 2].to_owned(),
        good.replacen("\"version\":1", "\"version\":9", 1),
        good.replacen("glmbench", "other", 1),
        good.replacen("\"correct\"", "", 1).replacen("0.", "1.", 1),
        "\n\n\u{0}{}".to_owned(),
    ];
    for text in bad {
        fs::write(&path, text).unwrap();
        assert!(page(Reads { figures: 2, ..Reads::default() }) == cold);
        assert_eq!(fs::read_to_string(&path).unwrap(), good);
    }
    // A run that changed is read again, one that went is forgotten, and a broken one is listed.
    fs::write(paths[0].join("run.json"), "{").unwrap();
    let broken = page(Reads { cached: 1, broken: 1, ..Reads::default() });
    assert!(broken.contains("<td>broken</td>") && broken.contains("run.json"));
    fs::remove_dir_all(&paths[0]).unwrap();
    page(Reads { cached: 1, ..Reads::default() });
    assert!(!fs::read_to_string(&path).unwrap().contains("\"2026-0\""));
}

#[test]
fn what_is_no_run_is_passed_over_and_what_was_one_is_listed() {
    let root = tempfile::tempdir().unwrap();
    two_runs(root.path());
    for folder in ["compare-1", "lost", "odd"] {
        fs::create_dir(root.path().join(folder)).unwrap();
    }
    fs::write(root.path().join("README.md"), "").unwrap();
    fs::write(root.path().join("compare-1/report.html"), "").unwrap();
    fs::write(root.path().join("lost/samples.jsonl"), "").unwrap();
    fs::create_dir(root.path().join("odd/run.json")).unwrap();
    let history = index(root.path(), Language::En).unwrap();
    assert_eq!(history.reads, Reads { figures: 2, broken: 2, ..Reads::default() });
    let named: Vec<&str> = history.broken.iter().map(|(folder, _)| folder.as_str()).collect();
    assert_eq!(named, ["lost", "odd"]);
    assert!(history.broken.iter().all(|(_, why)| why.contains("run.json")), "{:?}", history.broken);
}

#[test]
fn a_page_of_someone_else_is_not_replaced() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("index.html"), "<!DOCTYPE html>\n<p>mine").unwrap();
    let error = index(root.path(), Language::En).unwrap_err().to_string();
    assert!(error.contains("index.html") && error.contains("is not of `glmbench index`"), "{error}");
    assert_eq!(fs::read_to_string(root.path().join("index.html")).unwrap(), "<!DOCTYPE html>\n<p>mine");
    let missing = index(&root.path().join("none"), Language::En).unwrap_err().to_string();
    assert!(missing.contains("none"), "{missing}");
}
