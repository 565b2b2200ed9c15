//! Tests of whole reports in Chinese, and the golden files of every table in both languages.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::charts::gallery::{judged, sweep, two_cards, two_runs};
use super::workloads::tests::{planted, planted_pair};
use super::*;
use crate::language::english::english_words;
use crate::language::laws::sources;
use crate::record::{
    Figure, LoadFacts, MeasuredLimits, MeasuredRate, MeasuredUnit, ModelledBy, OperatorRecord, ParityCase,
    ParityRecord, Phase, ProfileFigure, Roofline, ShardCase, ShardPart, Shards, Target,
};
use crate::report::compare::{Comparison, Options};
use crate::report::tests::assert_whole_page;

/// Rows of a long table that a golden file has.
const ROWS: usize = 8;

/// A run with timed operators, and targets on the limits of its machine.
fn profiled() -> fixture::Records {
    let fixture::Records { mut run, samples, mut requests } = fixture::quiet();
    run.run_id += "-profiled";
    let rate = |median: f64| MeasuredRate { median, low: 0.9 * median, high: median };
    run.provenance.roofline = Some(Roofline {
        bandwidth_bytes_per_s: 2e10,
        peak_flops_per_s: 1e11,
        measured: Some(MeasuredLimits {
            threads: 2,
            method: "v1".into(),
            bandwidth: rate(2e10),
            bandwidth_one_thread: rate(1e10),
            units: vec![MeasuredUnit {
                unit: "fp32-avx2".into(),
                all_threads: rate(1e11),
                one_thread: rate(5e10),
            }],
            peak_unit: Some("fp32-avx2".into()),
            peak_products: 1,
            reader: "v1".into(),
        }),
    });
    run.provenance.load = Some(LoadFacts {
        load_ns: 2_000_000_000,
        peak_rss_bytes: Some(5_000_000_000),
        weight_bytes: 3_000_000_000,
        kv_bytes: 1_000_000_000,
        working_bytes: 1,
        made: true,
        pack_cache: None,
        huge_pages: None,
    });
    let case = run.plan.performance[0].case_id.clone();
    let target = |figure, unit: Option<&str>| Target {
        figure,
        case_id: Some(case.clone()),
        over: None,
        unit: unit.map(str::to_owned),
        at_least: Some(0.5),
        at_most: None,
    };
    run.plan.targets = vec![
        target(Figure::DecodeBandwidth, None),
        target(Figure::PrefillPeak, None),
        target(Figure::PrefillPeak, Some("amx-bf16")),
        Target { over: Some(case.clone()), ..target(Figure::PrefillRate, None) },
        target(Figure::AttentionBandwidth, None),
        Target { over: Some(case.clone()), ..target(Figure::DecodeSpeedup, None) },
        Target { case_id: Some("b9-i9-o9".into()), ..target(Figure::DecodeBandwidth, None) },
        Target { case_id: None, at_least: None, at_most: Some(1.5), ..target(Figure::LoadTime, None) },
        Target { case_id: None, at_least: None, at_most: Some(1.5), ..target(Figure::LoadMemory, None) },
    ];
    for request in &mut requests {
        let record = |phase, operator: &str, time_ns| OperatorRecord {
            phase,
            operator: operator.into(),
            calls: 28,
            time_ns,
            bytes: 90,
            flops: 30,
        };
        request.operators = vec![
            record(Phase::Prefill, "qkv", 30),
            record(Phase::Decode, "qkv", 60),
            record(Phase::Decode, "rest", 20),
        ];
    }
    fixture::Records { run, samples, requests }
}

/// A run of the suite that times the published shapes, of a shape that was published.
fn calibration() -> fixture::Records {
    let duo = include_str!("../../crates/ascend-emulator/profiles/300i-duo.toml");
    let (mut run, timed) = sweep("300i-duo", duo, "300i-duo (emulated)", 1.0);
    run.run_id += "-calibration";
    run.provenance.suite = "calibration".into();
    let published = &glmbench_calibrate::published::rows().unwrap()[0];
    run.provenance.model_details.insert("shape".into(), published.config().unwrap().shape());
    run.provenance.device_details.insert("chip".into(), format!("Ascend{}", published.chip));
    let figure = ProfileFigure {
        key: "memory_bytes".into(),
        value: 51_539_607_552.0,
        unit: "bytes".into(),
        mark: "published".into(),
        source: "300I DUO".into(),
        rows: Some(9),
        error: Some(0.12),
    };
    let (title, fits) = ("300I DUO".into(), Vec::new());
    run.provenance.modelled_by = Some(Box::new(ModelledBy { title, figures: vec![figure], fits }));
    fixture::Records { run, samples: Vec::new(), requests: timed }
}

/// A run with cases timed in two shards, on unlike machines.
fn merged() -> fixture::Records {
    let fixture::Records { mut run, samples, requests } = fixture::realistic();
    run.run_id += "-merged";
    let part = |index: u32, host: &str, share: f64| {
        let mut origin = run.origin(index == 1);
        origin.host = host.into();
        if let Some(roofline) = &mut origin.roofline {
            roofline.bandwidth_bytes_per_s *= share;
        }
        let own = run.plan.performance.iter().skip(index as usize - 1).step_by(2);
        let cases = own.map(|case| ShardCase { id: case.case_id.clone(), work: 1 }).collect();
        ShardPart { index, cases, origin: Some(origin), ..ShardPart::default() }
    };
    let parts = vec![part(1, "a", 1.0), part(2, "b", 0.5)];
    run.shards = Some(Box::new(Shards { count: 2, plan_hash: String::new(), whole: None, parts }));
    fixture::Records { run, samples, requests }
}

/// The prompts of a parity case, whose distances from the reference are multiples of `scale`.
fn parity_lines(case: &ParityCase, scale: f64) -> Vec<ParityRecord> {
    let line = |prompt: u32| ParityRecord {
        parity_id: case.parity_id.clone(),
        prompt,
        kl: (0..40).map(|position| scale * f64::from((7 * position + prompt) % 11)).collect(),
        top1_equal: if scale > 0.0 { 38 } else { 40 },
        ..crate::record::golden::parity_line()
    };
    (0..case.prompts).map(line).collect()
}

/// Writes a complete run with the lines of parity cases.
fn write_parity(root: &Path, records: fixture::Records, lines: &[ParityRecord]) -> RunDir {
    let mut dir = fixture::write(root, &records);
    lines.iter().try_for_each(|line| dir.append::<ParityCase>(line)).unwrap();
    let seal = Some(dir.seal().unwrap());
    dir.write_run(&RunRecord { seal, ..records.run }).unwrap();
    dir
}

/// A run with two parity cases. One was left out.
fn parities(root: &Path) -> RunDir {
    let case = crate::record::golden::parity();
    let mut run = fixture::realistic().run;
    (run.plan.accuracy, run.plan.performance) = (Vec::new(), Vec::new());
    let left_out = ParityCase {
        parity_id: "parity-i64-reference-fp32".into(),
        unfit: Some("needs 20.1 GiB, 17.2 GiB are free".into()),
        ..case.clone()
    };
    run.plan.parity = vec![case.clone(), left_out];
    write_parity(
        root,
        fixture::Records { run, samples: Vec::new(), requests: Vec::new() },
        &parity_lines(&case, 1.1e-3),
    )
}

/// Writes a run of each kind below `root`.
fn runs(root: &Path) -> Vec<(&'static str, RunDir)> {
    let duo = include_str!("../../crates/ascend-emulator/profiles/300i-duo.toml");
    let (card, timed) = sweep("300i-duo", duo, "300i-duo (emulated)", 1.0);
    let (found, probes, loads) = planted();
    let mut searches = fixture::write(&root.join("searches"), &fixture::Records::empty(found));
    probes.iter().try_for_each(|probe| searches.append_probe(probe)).unwrap();
    loads.iter().try_for_each(|level| searches.append_load(level)).unwrap();
    vec![
        ("measured", fixture::write(&root.join("measured"), &fixture::realistic())),
        (
            "modelled",
            fixture::write(
                &root.join("modelled"),
                &fixture::Records { run: card, samples: Vec::new(), requests: timed },
            ),
        ),
        ("profiled", fixture::write(&root.join("profiled"), &profiled())),
        ("searches", searches),
        ("parity", parities(&root.join("parity"))),
        ("calibration", fixture::write(&root.join("calibration"), &calibration())),
        ("merged", fixture::write(&root.join("merged"), &merged())),
    ]
}

/// Three runs in different forms, with a perplexity and a parity case.
fn three_forms(root: &Path, language: Language) -> Comparison {
    let form = |index: u64, dtype: &str| {
        let fixture::Records { mut run, mut samples, mut requests } = fixture::realistic();
        run.run_id = format!("{}-{dtype}", run.run_id);
        run.provenance.dtype = dtype.into();
        run.provenance.load = Some(LoadFacts {
            load_ns: 8_000_000_000 / (index + 1),
            peak_rss_bytes: None,
            weight_bytes: 12_000_000_000 / (index + 1),
            kv_bytes: 1,
            working_bytes: 1,
            made: false,
            pack_cache: None,
            huge_pages: None,
        });
        let text = run.plan.accuracy[0].task.clone();
        run.plan.accuracy[0].keyless = true;
        for (at, sample) in samples.iter_mut().enumerate() {
            if sample.task == text {
                let sums = [("loglikelihood", -20.0 - index as f64), ("tokens", 10.0)];
                sample.measures = sums.map(|(name, value)| (name.to_owned(), value)).into();
            } else if at as u64 % 29 < index {
                sample.correct = !sample.correct;
            }
        }
        for request in &mut requests {
            request.step_ns.iter_mut().for_each(|ns| *ns /= index + 1);
            request.end_ns = request.first_token_ns + request.step_ns.iter().sum::<u64>();
        }
        let case = crate::record::golden::parity();
        run.plan.parity = vec![case.clone()];
        let lines = parity_lines(&case, 1.1e-3 * index as f64);
        write_parity(root, fixture::Records { run, samples, requests }, &lines).path().to_owned()
    };
    let paths = [form(0, "fp16"), form(1, "w8a8"), form(2, "w4a16")];
    compare::compare(&paths, &Options { allow_mismatch: true, language, ..Options::default() }).unwrap()
}

fn comparisons(root: &Path, language: Language) -> Vec<(&'static str, Comparison)> {
    vec![
        ("cards", two_cards(&root.join("cards"), language)),
        ("runs", two_runs(&root.join("runs"), language)),
        ("forms", three_forms(&root.join("forms"), language)),
        ("workloads", planted_pair(&root.join("workloads"), language)),
    ]
}

/// Every table on the page of a run.
fn tables_of(dir: &RunDir) -> Vec<Table> {
    let Reading { summary, samples, requests, workloads } = Reading::of(dir).unwrap();
    let material =
        Material { summary: &summary, samples: &samples, requests: &requests, language: Language::En };
    let mut details = sections::details(material);
    details.extend(workloads.details(&summary.run));
    [summary.tables.clone(), details].concat()
}

/// The tables in a language: title, columns and rows.
pub(super) fn shown(tables: &[Table], language: Language) -> String {
    let mut all = String::new();
    for table in tables {
        let line = |cells: &mut dyn Iterator<Item = &Text>| {
            cells.map(|cell| cell.in_language(language)).collect::<Vec<_>>().join(" | ")
        };
        writeln!(all, "## {}", table.title.in_language(language)).unwrap();
        writeln!(all, "{}", line(&mut table.columns.iter().map(|column| &column.name))).unwrap();
        for row in table.rows.iter().take(ROWS) {
            writeln!(all, "{}", line(&mut row.cells.iter())).unwrap();
        }
        if table.rows.len() > ROWS {
            writeln!(all, "({} more)", table.rows.len() - ROWS).unwrap();
        }
        all.push('\n');
    }
    all
}

/// The text of a page: without style, tags, and what is quoted as code.
fn text_of(html: &str) -> String {
    let mut text = html.to_owned();
    for element in ["style", "code", "pre", "title"] {
        let (open, close) = (format!("<{element}"), format!("</{element}>"));
        while let Some(start) = text.find(&open) {
            let end = start + text[start..].find(&close).unwrap() + close.len();
            text.replace_range(start..end, " ");
        }
    }
    let outside = text.split('<').map(|part| part.split_once('>').map_or(part, |(_, outside)| outside));
    outside.collect::<Vec<_>>().join("\n").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
}

/// What the fixtures record in English: reasons and names, which a page quotes.
const RECORDED: &[&str] = &[
    "prompt of 2311 tokens, context of 2048",
    "needs 20.1 GiB, 17.2 GiB are free",
    "as planted, \"too slow\"",
    "as planted, \"out of memory\"",
    "300i-duo (emulated)",
    "800i-a2 (emulated)",
    "Xeon Platinum 8481C",
    "random tokens",
    "800I A2 card 32 GB",
    "shape = 32 layers, hidden 4096, ffn 11008, 32 heads of 128, 32 KV heads, vocabulary 151936",
    "chip = Ascend310P3",
];
/// Names of models, devices, tasks, subjects, operators, and of fields of the record.
const NAMES: &[&str] = &[
    "demo",
    "DUO",
    "show",
    "dummy",
    "cpu",
    "quickstart",
    "rustc",
    "Linux",
    "ceval",
    "boolq",
    "BoolQ",
    "C-Eval",
    "loglikelihood",
    "val",
    "physician",
    "law",
    "qkv",
    "rest",
    "yes",
    "no",
    "weights",
    "tokenizer",
    "suite",
    "rope",
    "model",
    "quantisation",
    "calibration",
    "bytes",
    "none",
    "limit",
    "dtype",
];
/// An audit's faults are errors, and errors are English.
const FAULTS: &str = "与计划不符：";

/// The lines of a text with English words, each with the words.
fn english_lines(text: &str) -> Vec<String> {
    let said = |line: &str| {
        let line =
            line.split(FAULTS).next().unwrap_or_default().replace("&quot;", "\"").replace("&#x2f;", "/");
        RECORDED.iter().fold(line, |line, quoted| line.replace(quoted, " "))
    };
    let words = |line: &str| {
        english_words(&said(line))
            .into_iter()
            .filter(|word| !NAMES.contains(&word.as_str()))
            .collect::<Vec<_>>()
    };
    let lines = text.lines().map(|line| (line.trim(), words(line)));
    lines.filter(|(_, words)| !words.is_empty()).map(|(line, words)| format!("{words:?} in {line}")).collect()
}

/// The places in the sources of pages that make a table: file and line.
fn makers() -> BTreeSet<(String, usize)> {
    let mut places = BTreeSet::new();
    for (path, text) in sources() {
        let path = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        // A table of TOML has the same name.
        let is_of_pages = path.starts_with("src/report") || path.starts_with("src/workload");
        if is_of_pages && !text.contains("crate::document") {
            let makes = |line: &str| line.contains("Table::new(") || line.contains("Table::of_columns(");
            let lines = (1..).zip(text.lines()).filter(|(_, line)| makes(line));
            places.extend(lines.map(|(line, _)| (path.to_str().unwrap().to_owned(), line)));
        }
    }
    assert!(places.len() > 25, "{places:?}");
    places
}

#[test]
fn the_tables_are_as_committed_in_both_languages() {
    let root = tempfile::tempdir().unwrap();
    for language in Language::ALL {
        let root = root.path().join(language.name());
        for (name, dir) in runs(&root) {
            let tables = shown(&tables_of(&dir), language);
            insta::assert_snapshot!(format!("tables.{name}.{}", language.name()), tables);
        }
        for (name, comparison) in comparisons(&root, language) {
            let tables = shown(&compare::page::tables(&comparison, &judged()), language);
            let tables = tables.replace(root.to_str().unwrap(), "ROOT");
            insta::assert_snapshot!(format!("tables.compared-{name}.{}", language.name()), tables);
        }
    }
    // The history's tables have golden files of their own.
    let made = table::made::places();
    let missing: Vec<_> = makers()
        .into_iter()
        .filter(|place| !made.contains(place) && !place.0.contains("/history/"))
        .collect();
    assert!(missing.is_empty(), "no golden file has the tables made at {missing:#?}");
}

#[test]
fn a_chinese_page_and_its_charts_have_no_english_words_but_proper_terms() {
    let root = tempfile::tempdir().unwrap();
    let mut left = Vec::new();
    let mut look = |name: &str, folder: &Path| {
        let html = fs::read_to_string(folder.join("report.html")).unwrap();
        assert_whole_page(&html, Language::Zh);
        let markdown = fs::read_to_string(folder.join("summary.md")).unwrap();
        for line in [english_lines(&text_of(&html)), english_lines(&markdown)].concat() {
            left.push(format!("{name}: {line}"));
        }
    };
    for (name, dir) in runs(root.path()) {
        render(dir.path(), Language::Zh).unwrap();
        look(name, dir.path());
    }
    for (name, comparison) in comparisons(root.path(), Language::Zh) {
        let out = root.path().join("out").join(name);
        write_comparison(&comparison, &[], &out).unwrap();
        look(name, &out);
    }
    left.dedup();
    assert!(left.is_empty(), "{}", left.join("\n"));
}

/// CSV files and records are formats: their words are the same in every language.
#[test]
fn files_of_rows_are_the_same_in_every_language() {
    let root = tempfile::tempdir().unwrap();
    let files = |language: Language| {
        let mut all = Vec::new();
        for (_, dir) in runs(&root.path().join(language.name())) {
            render(dir.path(), language).unwrap();
            for folder in [dir.path().to_owned(), dir.path().join("tables")] {
                let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
                let rows = files.filter(|path| path.extension().is_some_and(|end| end == "csv"));
                all.extend(rows.map(|path| (path.file_name().unwrap().to_owned(), fs::read(&path).unwrap())));
            }
        }
        all.sort();
        all
    };
    let english = files(Language::En);
    assert!(english.len() > 20);
    assert!(english == files(Language::Zh));
}
