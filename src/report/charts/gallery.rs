//! A page with every chart, made from fixtures, so that one look shows all of them.
//!
//! `GLMBENCH_REPORT_SAMPLE=DIR` keeps the page in `DIR/gallery`; `scripts/screenshots.sh` photographs it.

use super::*;
use crate::dataset::sha256_hex;
use crate::language::{Language, columns};
use crate::record::{
    AccuracyRow, Audit, Clock, Contents, RepetitionKind, RequestRecord, RunRecord, SealState,
};
use crate::report::accuracy::{ALL, accuracy_rows};
use crate::report::compare::{Comparison, GateOutcome, Judgement, Options, charts, compare};
use crate::report::performance::perf_rows;
use crate::report::tests::assert_whole_page;
use crate::report::workloads::{Workloads, tests::planted};
use crate::report::{fixture, page, write_comparison};
use std::fmt::Write as _;

/// Batches, lengths and ranks of a sweep on a card.
const BATCHES: [u32; 7] = [1, 2, 4, 8, 16, 32, 64];
const LENGTHS: [(u32, u32); 4] = [(128, 64), (512, 64), (2048, 64), (8192, 64)];

/// A modelled sweep on a card with a chip `speed` times as fast as the slowest. Its memory holds fewer than 64 sequences of the
/// longest prompts.
pub(in crate::report) fn sweep(
    profile: &str,
    text: &str,
    device: &str,
    speed: f64,
) -> (RunRecord, Vec<RequestRecord>) {
    let mut run = fixture::run();
    run.run_id = format!("20261128T100000Z-duo-vs-a2-{profile}");
    run.provenance.model = "dummy:chatglm2-6b".into();
    run.provenance.suite = "duo-vs-a2".into();
    run.provenance.device = device.into();
    run.provenance.clock = Clock::Modelled;
    run.provenance.clock_profile = Some(format!("{profile} sha256:{}", sha256_hex(text.as_bytes())));
    run.provenance.roofline = Some(crate::record::Roofline {
        bandwidth_bytes_per_s: 2e11 * speed,
        peak_flops_per_s: 7e13 * speed,
        measured: None,
    });
    run.plan.accuracy.clear();
    run.plan.performance.clear();
    let mut requests = Vec::new();
    for tp in [1, 2] {
        for batch in BATCHES {
            let lengths = LENGTHS.into_iter().chain((batch == 1).then_some((8192, 1024)));
            for (input, output) in lengths {
                let mut case = fixture::case(batch, input, output);
                let (tokens, weights) = (u64::from(batch * input), 12_000_000_000_u64);
                case.case_id = format!("b{batch}-i{input}-o{output}-tp{tp}");
                case.tp = tp;
                case.repetitions = 1;
                case.largest_batch = Some(if input == 8192 { 40 } else { 300 });
                let steps = u64::from(output - 1);
                case.prefill_cost =
                    Some(crate::record::Cost { bytes: weights, flops: 12_000_000_000 * tokens });
                case.decode_cost = Some(crate::record::Cost {
                    bytes: weights * steps,
                    flops: 12_000_000_000 * u64::from(batch) * steps,
                });
                if batch == 64 && input == 8192 {
                    case.unfit = Some("needs 20.1 GiB, 17.2 GiB are free".into());
                } else {
                    requests.push(timed(&case, speed * f64::from(tp).powf(0.7)));
                }
                run.plan.performance.push(case);
            }
        }
    }
    (run, requests)
}

fn timed(case: &crate::record::PerformanceCase, speed: f64) -> RequestRecord {
    let tokens = f64::from(case.batch * case.input_tokens);
    // The faster chip gains more from large work.
    let gain = speed.powf(1.0 + tokens.log2() / 60.0);
    let prefill_ns = ((20.0 + 0.35 * tokens) * 1e6 / gain) as u64;
    let step = ((60.0 + 0.8 * f64::from(case.batch) + tokens / 4000.0) * 1e6 / gain) as u64;
    RequestRecord {
        case_id: case.case_id.clone(),
        kind: RepetitionKind::Timed,
        clock: Clock::Modelled,
        tp: case.tp,
        batch: case.batch,
        input_tokens: case.input_tokens,
        output_tokens: case.output_tokens,
        prefill_ns,
        first_token_ns: prefill_ns,
        step_ns: vec![step; case.output_tokens as usize - 1],
        end_ns: prefill_ns + step * u64::from(case.output_tokens - 1),
        peak_rss_bytes: None,
        device_memory_bytes: Some((13 << 30) + u64::from(case.batch) * (200 << 20)),
        ..fixture::request()
    }
}

/// The two cards of `suites/duo-vs-a2.toml`, in the folder `root`.
pub(in crate::report) fn two_cards(root: &Path, language: Language) -> Comparison {
    let duo = include_str!("../../../crates/ascend-emulator/profiles/300i-duo.toml");
    let a2 = include_str!("../../../crates/ascend-emulator/profiles/800i-a2.toml");
    let sweeps =
        [sweep("300i-duo", duo, "300i-duo (emulated)", 1.0), sweep("800i-a2", a2, "800i-a2 (emulated)", 4.4)];
    let paths = sweeps.map(|(run, requests)| {
        fixture::write(root, &fixture::Records { run, samples: Vec::new(), requests }).path().to_owned()
    });
    compare(&paths, &Options { language, ..Options::default() }).unwrap()
}

/// Two measured runs, the second with a slower decode and some other answers.
pub(in crate::report) fn two_runs(root: &Path, language: Language) -> Comparison {
    let a = fixture::realistic();
    let mut b = a.clone();
    b.run.run_id += "-b";
    b.run.provenance.dtype = "bf16".into();
    for (index, sample) in b.samples.iter_mut().enumerate().filter(|(index, _)| index % 17 == 3) {
        sample.correct = index % 2 == 0;
        sample.pred = Some(if sample.correct { sample.gold.clone() } else { "E".into() });
    }
    for request in &mut b.requests {
        request.step_ns.iter_mut().for_each(|ns| *ns = *ns * 113 / 100);
        request.end_ns = request.first_token_ns + request.step_ns.iter().sum::<u64>();
    }
    let paths = [a, b].map(|records| fixture::write(root, &records).path().to_owned());
    compare(&paths, &Options { allow_mismatch: true, language, ..Options::default() }).unwrap()
}

/// The rows of a task with as many subjects as C-Eval.
fn many_subjects(rows: &[AccuracyRow]) -> Vec<AccuracyRow> {
    let own: Vec<&AccuracyRow> = rows.iter().filter(|row| row.task == "ceval").collect();
    let (groups, subjects): (Vec<&AccuracyRow>, Vec<&AccuracyRow>) =
        own.into_iter().partition(|row| row.subject == ALL);
    let more = (0..52).map(|index| {
        let row = subjects[index % subjects.len()];
        AccuracyRow { subject: format!("{}_{}", row.subject, index / subjects.len()), ..row.clone() }
    });
    groups.into_iter().cloned().chain(more).collect()
}

/// Every chart: those of a measured and of a modelled run, of searches and loads, and of two comparisons.
fn all(folder: &Path, language: Language) -> Vec<(&'static str, Vec<Picture>)> {
    let drawn = |name: &str, charts: &[(String, Chart)]| draw(&folder.join(name), charts).unwrap();
    let fixture::Records { run, samples, requests } = fixture::realistic();
    let scores = accuracy_rows(&run, &samples);
    let mut measured = of_scores(&run, &scores, language);
    measured.extend(of_scores(&run, &many_subjects(&scores), language).pop());
    measured.extend(of_times(&run, &perf_rows(&run, &requests), language));
    let duo = include_str!("../../../crates/ascend-emulator/profiles/300i-duo.toml");
    let (card, timed) = sweep("300i-duo", duo, "300i-duo (emulated)", 1.0);
    let (found, probes, loads) = planted();
    let contents = Contents {
        run: found.clone(),
        samples: Vec::new(),
        requests: Vec::new(),
        probes,
        loads,
        parities: Vec::new(),
        tosses: Vec::new(),
        audit: Audit { faults: Vec::new(), contradiction: None, seal: SealState::Open },
    };
    let others = Workloads::of(&contents).draw(&found, &folder.join("others"), language).unwrap();
    vec![
        ("A measured run", drawn("measured", &measured)),
        ("A modelled run", drawn("modelled", &of_times(&card, &perf_rows(&card, &timed), language))),
        ("Searches and loads", others),
        ("Two cards", drawn("cards", &charts::described(&two_cards(&folder.join("a"), language)))),
        ("Two measured runs", drawn("runs", &charts::described(&two_runs(&folder.join("b"), language)))),
    ]
}

/// A gate of each outcome.
pub(in crate::report) fn judged() -> Vec<Judgement> {
    let judgement = |gate: &str, limit: &str, found: &str, outcome| Judgement {
        gate: gate.into(),
        run: "B".into(),
        limit: limit.into(),
        found: found.into(),
        outcome,
        decide: None,
    };
    vec![
        judgement("decode time, worst case", "at most 1.03 × of A", "0.26 ×", GateOutcome::Pass),
        judgement("peak memory", "at most 12 GiB", "13.2 GiB", GateOutcome::Fail),
        judgement(
            "accuracy drop of ceval",
            "at most 1 point",
            "0 [−1.6, +1.6] points",
            GateOutcome::Undecided,
        ),
    ]
}

fn page_of(groups: &[(&str, Vec<Picture>)]) -> String {
    let style = include_str!("../templates/style.css");
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Charts</title>\
         <style>{style}</style></head><body><main>"
    );
    for (title, pictures) in groups {
        write!(html, "<section><h2>{title}</h2><div class=\"charts\">").unwrap();
        for picture in pictures {
            let wide = if picture.wide { " class=\"wide-figure\"" } else { "" };
            write!(html, "<figure{wide}>{}</figure>", page::inline(&picture.svg)).unwrap();
        }
        html += "</div></section>";
    }
    html + "</main></body></html>\n"
}

/// The x, the anchor, the size and the letters of every text of an SVG.
fn texts(svg: &str) -> Vec<(f64, &str, f64, &str)> {
    let attribute = |tag: &'_ str, name: &str| -> Option<String> {
        Some(tag.split(&format!("{name}=\"")).nth(1)?.split('"').next()?.to_owned())
    };
    svg.split("<text ")
        .skip(1)
        .map(|part| {
            let (tag, rest) = part.split_once('>').unwrap();
            let number = |name| attribute(tag, name).and_then(|x| x.parse::<f64>().ok()).unwrap();
            let anchor = match attribute(tag, "text-anchor").as_deref() {
                Some("end") => "end",
                Some("middle") => "middle",
                _ => "start",
            };
            (number("x"), anchor, number("font-size"), rest.split("</text>").next().unwrap().trim())
        })
        .collect()
}

/// How wide a text is at least, drawn in the narrower fonts that show an SVG.
fn least_width(text: &str, size: f64) -> f64 {
    let wide = columns(text) - text.chars().count();
    size * (0.36 * (text.chars().count() - wide) as f64 + 0.98 * wide as f64)
}

fn assert_letters_inside(picture: &Picture) {
    let size = picture.svg.split("width=\"").nth(1).unwrap().split('"').next().unwrap();
    let width: f64 = size.parse().unwrap();
    for (x, anchor, size, text) in texts(&picture.svg) {
        let long = least_width(text, size);
        let (left, right) = match anchor {
            "end" => (x - long, x),
            "middle" => (x - long / 2.0, x + long / 2.0),
            _ => (x, x + long),
        };
        let name = &picture.name;
        assert!(left >= -1.0 && right <= width + 1.0, "{name}: {text} at {left} to {right}");
    }
}

/// Makes the gallery and two comparisons in a folder, and returns the charts' alternative texts.
fn alternatives(folder: &Path, language: Language) -> String {
    fs::create_dir_all(folder).unwrap();
    let groups = all(folder, language);
    fs::write(folder.join("gallery.html"), page_of(&groups)).unwrap();
    for (name, comparison) in [
        ("page-cards", two_cards(&folder.join("c"), language)),
        ("page-runs", two_runs(&folder.join("d"), language)),
    ] {
        write_comparison(&comparison, &judged(), &folder.join(name)).unwrap();
        assert_whole_page(&fs::read_to_string(folder.join(name).join("report.html")).unwrap(), language);
    }
    let mut alternatives = String::new();
    for (title, pictures) in &groups {
        writeln!(alternatives, "{title}").unwrap();
        for picture in pictures {
            writeln!(alternatives, "  {}: {}", picture.name, picture.alt).unwrap();
            assert_letters_inside(picture);
        }
    }
    alternatives
}

#[test]
fn every_chart_says_its_answer_and_keeps_its_letters_inside() {
    let temporary = tempfile::tempdir().unwrap();
    let root = std::env::var_os("GLMBENCH_REPORT_SAMPLE").map_or(temporary.path().to_owned(), Into::into);
    insta::assert_snapshot!("alternatives", alternatives(&root.join("gallery"), Language::En));
    insta::assert_snapshot!("alternatives.zh", alternatives(&root.join("gallery-zh"), Language::Zh));
}
