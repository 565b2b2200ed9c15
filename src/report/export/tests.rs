//! Golden-file tests of every format, on a run with everything difficult: failed and unscorable items, awkward texts,
//! a failed case, times of a virtual clock.

use super::*;
use crate::record::{
    CallRecord, PerformanceCase, ProbeOutcome, ProbePurpose, ProbeRepetition, RepetitionKind, RunDir,
    SearchCase,
};
use std::path::Path;

/// The committed run of schema 1, with an awkward sample and two awkward cases with repetitions added.
fn records() -> Records {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/run-schema1");
    let mut records = Records::read(&RunDir::open(&dir).unwrap()).unwrap();
    let awkward = SampleRecord {
        task: "boolq".into(),
        doc_id: "boolq/dev/4".into(),
        subject: "it's \"quoted\", and\nbroken".into(),
        text: "a\0b|c\r\n'); DROP TABLE samples; --".into(),
        choice_logprobs: vec![f32::NAN, -0.1],
        ..records.samples[9].clone()
    };
    records.samples.push(awkward);
    let case = |case_id: &str, input_tokens, output_tokens| PerformanceCase {
        case_id: case_id.into(),
        input_tokens,
        output_tokens,
        ..records.run.plan.performance[0].clone()
    };
    let cases = [case("b1-i32-o1", 32, 1), case("b1-i64-o4", 64, 4), case("never", 8, 8)];
    let timed = records.requests[1].clone();
    assert_eq!(timed.kind, RepetitionKind::Timed);
    let one_token = RequestRecord {
        case_id: cases[0].case_id.clone(),
        input_tokens: 32,
        output_tokens: 1,
        step_ns: Vec::new(),
        end_ns: timed.first_token_ns,
        ..timed.clone()
    };
    let failed = RequestRecord {
        case_id: cases[1].case_id.clone(),
        error: Some("out of \"memory\", 3 | 4".into()),
        ..timed
    };
    records.run.plan.performance.splice(1..1, cases);
    records.requests.extend([one_token, failed]);
    records
}

/// The same run with prompts.
fn with_prompts() -> Records {
    Records { prompts: prompts(), ..records() }
}

/// The same run with times of a virtual clock.
fn modelled() -> Records {
    let mut records = records();
    records.run.provenance.device = "800i-a2 (emulated)".into();
    records.run.provenance.model = "dummy:chatglm2-6b".into();
    records.run.provenance.clock = Clock::Modelled;
    records.requests.iter_mut().for_each(|request| request.clock = Clock::Modelled);
    records
}

fn prompts() -> Vec<PromptRecord> {
    let record = |task: &str, doc_id: &str, prompt: &str| PromptRecord {
        task: task.into(),
        doc_id: doc_id.into(),
        calls: vec![CallRecord { prompt: prompt.into(), input_tokens: vec![64790, 64792, 30910] }],
    };
    vec![
        record("boolq", "boolq/dev/0", "Title -- \"passage\", and\nQuestion: is it?\nAnswer:"),
        record("ceval-two-stage", "ceval/val/antonym_pairs/0", "[Round 1]\n\n问：…"),
    ]
}

/// The one file of a stream.
fn text(export: &dyn Export, records: &Records) -> String {
    let [file] = files(export, records).unwrap().try_into().unwrap();
    String::from_utf8(file.bytes).unwrap()
}

fn modeltest_files(records: &Records) -> Vec<File> {
    files(&modeltest::ModelTest, records).unwrap()
}

fn all(files: &[File]) -> String {
    files.iter().map(|f| format!("=== {}\n{}", f.path, String::from_utf8_lossy(&f.bytes))).collect()
}

#[test]
fn json_lines_are_as_committed_and_each_can_be_read_alone() {
    let text = text(&jsonl::Jsonl, &records());
    insta::assert_snapshot!("export.jsonl", text);
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["run_id"], records().run.run_id);
        let nested = line.as_object().unwrap().values().any(serde_json::Value::is_object);
        assert!(!nested, "{line}");
    }
}

#[test]
fn sql_is_as_committed() {
    insta::assert_snapshot!("export.sql", text(&sql::Sql, &records()));
}

#[test]
fn csv_is_as_committed_and_reads_back() {
    let records = records();
    let files = files(&tidy::Csv, &records).unwrap();
    insta::assert_snapshot!("export.csv", all(&files));
    let mut reader = csv::Reader::from_reader(files[0].bytes.as_slice());
    let column = reader.headers().unwrap().iter().position(|name| name == "text").unwrap();
    let texts: Vec<String> = reader.records().map(|row| row.unwrap()[column].to_owned()).collect();
    assert_eq!(texts, records.samples.iter().map(|s| s.text.clone()).collect::<Vec<_>>());
}

#[test]
fn modeltests_files_are_as_committed() {
    insta::assert_snapshot!("modeltest", all(&modeltest_files(&with_prompts())[1..]));
}

#[test]
fn the_readme_says_what_is_particular_to_the_run() {
    let readme = all(&modeltest_files(&with_prompts())[..1]);
    insta::assert_snapshot!("modeltest.README.md", readme);
}

#[test]
fn lm_evaluation_harness_files_are_as_committed_and_add_up() {
    let records = with_prompts();
    let files = files(&lm_eval::LmEval, &records).unwrap();
    insta::assert_snapshot!("lm_eval", all(&files));
    let json = |text: &str| -> serde_json::Value { serde_json::from_str(text).unwrap() };
    let results = json(std::str::from_utf8(&files[0].bytes).unwrap());
    assert_eq!(files.len(), 1 + results["results"].as_object().unwrap().len());
    for file in &files[1..] {
        let lines: Vec<_> = std::str::from_utf8(&file.bytes).unwrap().lines().map(json).collect();
        let metric = lines[0]["metrics"][0].as_str().unwrap();
        let sum: f64 = lines.iter().map(|line| line[metric].as_f64().unwrap()).sum();
        let task = results["results"]
            .as_object()
            .unwrap()
            .keys()
            .find(|task| file.path.contains(&format!("_{task}_")));
        let score = results["results"][task.unwrap()][format!("{metric},none")].as_f64().unwrap();
        assert!((score - sum / lines.len() as f64).abs() < 1e-12, "{}", file.path);
    }
}

#[test]
fn lm_eval_tells_continuations_and_scored_texts_from_generated_answers() {
    let text = "ceval-modeltest-0shot";
    let mut records = records();
    records.run.choice_tokens.remove("boolq");
    for case in &mut records.run.plan.accuracy {
        case.keyless = case.task == text;
    }
    for sample in &mut records.samples {
        let measures: &[(&str, f64)] = match sample.task.as_str() {
            "boolq" => &[("acc-characters", 1.0)],
            task if task == text => &[("loglikelihood", -20.0), ("words", 10.0), ("bytes", 40.0)],
            _ => &[],
        };
        sample.measures = measures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    }
    let files = files(&lm_eval::LmEval, &records).unwrap();
    let results: serde_json::Value = serde_json::from_slice(&files[0].bytes).unwrap();
    let of = |task: &str, metric: &str| results["results"][task][format!("{metric},none")].as_f64();
    assert_eq!(results["configs"]["boolq"]["output_type"], "multiple_choice");
    assert_eq!((of("boolq", "acc_norm"), of("boolq", "exact_match")), (Some(1.0), None));
    assert_eq!(results["configs"][text]["output_type"], "loglikelihood_rolling");
    assert_eq!((of(text, "word_perplexity"), of(text, "exact_match")), (Some(2.0_f64.exp()), None));
    assert_eq!(results["higher_is_better"][text]["word_perplexity"], false);
    assert_eq!(of(text, "token_perplexity"), None);

    // Not every token is scored: the sums say nothing of words and bytes.
    for sample in records.samples.iter_mut().filter(|sample| sample.task == text) {
        sample.measures =
            [("loglikelihood", -20.0), ("tokens", 5.0)].map(|(name, value)| (name.into(), value)).into();
    }
    let files = super::files(&lm_eval::LmEval, &records).unwrap();
    let results: serde_json::Value = serde_json::from_slice(&files[0].bytes).unwrap();
    let metrics: Vec<&String> = results["higher_is_better"][text].as_object().unwrap().keys().collect();
    assert_eq!(metrics, ["token_perplexity"]);
    assert_eq!(results["results"][text]["token_perplexity,none"].as_f64(), Some(4.0_f64.exp()));
    let aggregation = &results["configs"][text]["metric_list"][0]["aggregation"];
    assert_eq!(aggregation, "weighted_perplexity");
}

#[test]
fn submissions_to_ceval_are_as_committed() {
    let files = files(&submission::CevalSubmission, &records()).unwrap();
    insta::assert_snapshot!("ceval_submission", all(&files));
}

#[test]
fn searches_have_modeltests_rounds_and_final_rows() {
    let mut records = records();
    let search = |input_tokens: u32| SearchCase {
        search_id: format!("max-batch-i{input_tokens}-o3"),
        tp: 1,
        input_tokens,
        output_tokens: 3,
        low: 1,
        high: 8,
        limit_tpot: crate::record::Objective::of_ms(20.0),
        limit_ttft: None,
        repetitions: 1,
    };
    let probe = |search: &SearchCase, number: u32, batch: u32, outcome: ProbeOutcome| ProbeRecord {
        search_id: search.search_id.clone(),
        probe: number,
        purpose: ProbePurpose::Search,
        clock: Clock::Measured,
        batch,
        outcome,
        reason: (outcome != ProbeOutcome::Fits).then(|| "as planted".into()),
        wanted_bytes: None,
        device_memory_bytes: None,
        ttft_ns: None,
        tpot_ns: None,
        repetitions: match outcome {
            ProbeOutcome::OutOfMemory => vec![],
            _ => vec![ProbeRepetition { start_ns: 0, first_token_ns: 100_000_000, end_ns: 130_000_000 }],
        },
        output_hash: None,
        end_ns: 0,
    };
    let (first, second) = (search(16), search(32));
    records.probes = vec![
        probe(&first, 0, 4, ProbeOutcome::Fits),
        probe(&first, 1, 8, ProbeOutcome::OutOfMemory),
        probe(&first, 2, 6, ProbeOutcome::TooSlow),
        probe(&second, 0, 2, ProbeOutcome::Fits),
    ];
    records.run.plan.searches = vec![first, second, search(64)];
    let files = modeltest_files(&records);
    let of_searches: Vec<File> = files.iter().filter(|file| file.path.contains("maxbs")).cloned().collect();
    insta::assert_snapshot!("modeltest.max_batch", all(&of_searches));
    assert!(all(&files[..1]).contains("search max-batch-i64-o3 has no probe"));
}

#[test]
fn modelled_times_never_look_measured() {
    let files = modeltest_files(&modelled());
    let performance: Vec<&File> = files.iter().filter(|f| f.path.contains("performance_test")).collect();
    assert_eq!(performance.len(), 4);
    for file in performance {
        let text = String::from_utf8_lossy(&file.bytes);
        assert!(file.path.contains("_modelled_") && file.path.contains("/NPU_emulated/"), "{}", file.path);
        assert!(text.lines().skip(1).all(|row| row.starts_with("dummy:chatglm2-6b (modelled)")), "{text}");
    }
    let measured = modeltest_files(&records());
    assert!(measured.iter().all(|f| !f.path.contains("modelled")));
    assert!(modelled().has_modelled_times() && !records().has_modelled_times());
}

#[test]
fn no_name_in_a_record_leads_out_of_the_folder() {
    let mut records = records();
    records.run.run_id = "../../etc/passwd".into();
    records.run.provenance.model = "..".into();
    records.run.provenance.dtype = "a/../b".into();
    records.run.plan.accuracy[0].task = "ceval-/../../x".into();
    records.samples.iter_mut().take(5).for_each(|s| s.task = "ceval-/../../x".into());
    assert_eq!(records.file_stem(), "..-..-etc-passwd");
    for file in EXPORTS.into_iter().flat_map(|export| files(export, &records).unwrap()) {
        assert!(
            file.path.split('/').all(|part| !part.is_empty() && !part.trim_matches('.').is_empty()),
            "{}",
            file.path
        );
    }
}

#[test]
fn an_empty_run_exports_nothing_but_itself() {
    let mut records = records();
    records.samples.clear();
    records.requests.clear();
    assert_eq!(text(&jsonl::Jsonl, &records), "");
    assert_eq!(files(&tidy::Csv, &records).unwrap(), []);
    assert_eq!(files(&lm_eval::LmEval, &records).unwrap(), []);
    assert_eq!(files(&submission::CevalSubmission, &records).unwrap(), []);
    assert_eq!(text(&sql::Sql, &records).matches("INSERT").count(), 1);
    let files = modeltest_files(&records);
    assert_eq!(files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["README.md"]);
}

/// ModelTest's definitions on hand-checked numbers: batch 2, prefill 100 ms, steps 10 + 20 ms, 3 tokens, 140 ms.
#[test]
fn the_figures_are_by_modeltests_definitions() {
    let mut records = records();
    let case = PerformanceCase {
        case_id: "hand".into(),
        batch: 2,
        input_tokens: 16,
        output_tokens: 3,
        ..records.run.plan.performance[0].clone()
    };
    let request = RequestRecord {
        case_id: "hand".into(),
        kind: RepetitionKind::Timed,
        batch: 2,
        input_tokens: 16,
        output_tokens: 3,
        start_ns: 1_000_000_000,
        prefill_ns: 100_000_000,
        first_token_ns: 1_101_000_000,
        step_ns: vec![10_000_000, 20_000_000],
        end_ns: 1_140_000_000,
        ..records.requests[0].clone()
    };
    records.run.plan.performance = vec![case];
    records.requests = vec![request];
    let files = modeltest_files(&records);
    let plain = files.iter().find(|f| f.path.ends_with("performance_pa_batch2_tp1_result.csv")).unwrap();
    let text = String::from_utf8_lossy(&plain.bytes);
    let cells: Vec<&str> = text.lines().nth(1).unwrap().split(',').map(str::trim_end).collect();
    let wanted = ["demo", "2", "16", "3", "0.14", "100.0", "50.0", "15.0"];
    assert_eq!(cells[..8], wanted);
    // 2 / 0.015 s and 2 · 3 / 0.14 s, and their means over one case.
    assert_eq!(cells[8..], ["133.3333333333", "42.8571428571", "133.3333333333", "42.8571428571"]);
}

/// The smallest export: what a new format has to write.
#[derive(Debug)]
struct Toy;

impl Export for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn about(&self) -> &'static str {
        "One line for each task: correct answers and items"
    }

    fn output(&self) -> Output {
        Output::Stream(|records, to| {
            for case in &records.run.plan.accuracy {
                let of_task = records.samples.iter().filter(|sample| sample.task == case.task);
                let correct = of_task.clone().filter(|sample| sample.correct).count();
                writeln!(to, "{} {correct} {}", case.task, of_task.count())?;
            }
            Ok(())
        })
    }
}

#[test]
fn a_new_format_is_one_type() {
    let records = records();
    let [file] = files(&Toy, &records).unwrap().try_into().unwrap();
    assert_eq!(file.path, format!("{}.toy", records.run.run_id));
    assert_eq!(
        String::from_utf8(file.bytes).unwrap(),
        "ceval-two-stage 4 5\nceval-modeltest-0shot 3 4\nboolq 4 5\n"
    );
}

#[test]
fn every_format_is_found_by_its_name_and_describes_itself() {
    let safe = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    for (index, export) in EXPORTS.into_iter().enumerate() {
        assert!(safe(export.name()) && !export.about().is_empty(), "{export:?}");
        let same_name = |other: &&dyn Export| other.name() == export.name();
        assert_eq!(EXPORTS.iter().position(same_name), Some(index));
        assert_eq!(find(export.name()).unwrap().about(), export.about());
    }
    assert!(find("toy").is_none());
}
