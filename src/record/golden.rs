//! One record of each kind, and their files: a change of format shows up as a changed snapshot.

use super::*;
use std::collections::BTreeMap;

fn map<V: From<&'static str>>(pairs: &[(&str, &'static str)]) -> BTreeMap<String, V> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), V::from(*v))).collect()
}

pub(super) fn identity() -> Identity {
    Identity::new(map(&[("dtype", "fp16"), ("suite", "sha256:5e1f"), ("shots", "ceval=5")]))
}

pub(super) fn sample() -> SampleRecord {
    SampleRecord {
        task: "ceval".into(),
        doc_id: "val-7".into(),
        doc_hash: "d0c5".into(),
        prompt_hash: "b10c".into(),
        subject: "high_school_physics".into(),
        category: "STEM".into(),
        hard: true,
        state: SampleState::Scored,
        gold: "B".into(),
        pred: Some("B".into()),
        correct: true,
        choice_logprobs: vec![-1.5, -0.1, -2.25, f32::MIN_POSITIVE],
        margin: Some(1.4),
        input_tokens_n: 96,
        output_tokens: vec![316, 2],
        text: "答案：\"B\"\n".into(),
        measures: std::collections::BTreeMap::new(),
        programs: Vec::new(),
        extract_rule: "choice-logprob".into(),
        t_start_ns: 1_000_000_007,
        t_end_ns: u64::MAX,
        error: None,
    }
}

pub(super) fn prompts() -> PromptRecord {
    let call = |prompt: &str, input_tokens: &[u32]| CallRecord {
        prompt: prompt.into(),
        input_tokens: input_tokens.to_vec(),
    };
    PromptRecord {
        task: "ceval".into(),
        doc_id: "val-7".into(),
        calls: vec![call("以下\n", &[64790, 64792, 30910]), call("以下\n答案：\"B\"", &[64790, 64792])],
    }
}

pub(super) fn request() -> RequestRecord {
    RequestRecord {
        case_id: "b2-i16-o3".into(),
        kind: RepetitionKind::Timed,
        repetition: 0,
        clock: Clock::Measured,
        tp: 1,
        block: None,
        prompts: None,
        batch: 2,
        input_tokens: 16,
        output_tokens: 3,
        start_ns: 10,
        prefill_ns: 100,
        first_token_ns: 112,
        step_ns: vec![20, 22],
        end_ns: 155,
        output_hash: "0ff1ce".into(),
        peak_rss_bytes: Some(1 << 20),
        device_memory_bytes: None,
        operators: Vec::new(),
        roofline_samples: Some(RooflineSamples {
            before: roofline_sample(21_500_000_000),
            after: roofline_sample(19_000_000_000),
        }),
        error: None,
    }
}

fn roofline_sample(bandwidth_bytes_per_s: u64) -> RooflineSample {
    RooflineSample {
        bandwidth_bytes_per_s: Some(bandwidth_bytes_per_s),
        peak_ops_per_s: BTreeMap::from([("fp32-avx2".to_owned(), 100_000_000_000)]),
    }
}

pub(super) fn limit_row() -> LimitRow {
    LimitRow {
        schema: SCHEMA,
        run_id: "r".into(),
        figure: Figure::DecodeBandwidth,
        case_id: Some("b2-i16-o3".into()),
        value: Some(1.9e10),
        limit: Some(2.025e10),
        unit: "byte/s".into(),
        limit_of: Some("bandwidth".into()),
        ratio: Some(0.9375),
        ratio_low: Some(0.875),
        ratio_high: Some(0.96875),
        at_least: Some(0.92),
        at_most: None,
        met: None,
        note: Some("0.875 to 0.969 over 3 repetitions".into()),
    }
}

pub(crate) fn probe() -> ProbeRecord {
    ProbeRecord {
        search_id: "max-batch-i16-o3".into(),
        probe: 2,
        purpose: ProbePurpose::Search,
        clock: Clock::Measured,
        batch: 6,
        outcome: ProbeOutcome::TooSlow,
        reason: Some("TPOT 61 ms, limit 50 ms".into()),
        wanted_bytes: None,
        device_memory_bytes: Some(1 << 34),
        ttft_ns: Some(100_000_000),
        tpot_ns: Some(61_000_000),
        repetitions: vec![ProbeRepetition { start_ns: 10, first_token_ns: 100_000_010, end_ns: 222_000_010 }],
        output_hash: Some("0ff1ce".into()),
        end_ns: 222_000_020,
    }
}

pub(super) fn level() -> LoadLevelRecord {
    LoadLevelRecord {
        load_id: "poisson-i16-o3-b8".into(),
        level: 1,
        clock: Clock::Measured,
        rate_per_s: Some(2.5),
        concurrency: None,
        scheduling: None,
        start_ns: 1_000,
        end_ns: 900_000_000,
        requests: vec![LoadRequest {
            arrival_ns: 400_000_000,
            start_ns: 400_100_000,
            first_token_ns: 600_000_000,
            itl_ns: vec![100_000_000, 200_000_000],
            end_ns: 900_000_000,
            input_tokens: 16,
            output_tokens: 3,
            wire: None,
            error: None,
        }],
    }
}

pub(crate) fn run() -> RunRecord {
    RunRecord {
        run_id: "20260101T000000Z-quickstart-cpu-abcdef".into(),
        status: Status::Complete,
        identity: identity(),
        provenance: Provenance {
            suite: "quickstart".into(),
            model: "demo".into(),
            engine: "glmbench 0.1.0".into(),
            device: "cpu".into(),
            kernel: "avx2".into(),
            clock: Clock::Measured,
            clock_profile: None,
            modelled_by: None,
            dtype: "fp16".into(),
            tp: 1,
            device_details: BTreeMap::new(),
            model_details: BTreeMap::new(),
            telemetry: map(&[("power_w", "absent: not read on this device")]),
            threads: 2,
            batch: 8,
            versions: map(&[("rustc", "1.95.0")]),
            git_commit: None,
            environment: map(&[("GLMBENCH_THREADS", "2")]),
            host: "bench-1".into(),
            os: "Linux 6.1".into(),
            cpu_model: "Some CPU".into(),
            governor: Some("performance".into()),
            roofline: Some(Roofline {
                bandwidth_bytes_per_s: 2.15e10,
                peak_flops_per_s: 1e11,
                measured: None,
            }),
            load: None,
            weight_faults: None,
            work: BTreeMap::new(),
            command_line: vec!["glmbench".into(), "run".into(), "suites/quickstart.toml".into()],
            scored_from: None,
            started: "2026-01-01T00:00:00Z".into(),
            finished: Some("2026-01-01T00:02:00Z".into()),
            resumed: 0,
            group: None,
        },
        plan: Plan {
            accuracy: vec![AccuracyCase {
                task: "ceval".into(),
                benchmark: "ceval".into(),
                dataset: "ceval-sample/val".into(),
                protocol: "modeltest-5shot".into(),
                shots: 5,
                tp: 1,
                items: 1,
                items_hash: Some("9c0d".into()),
                available: Some(1),
                version_hash: "5e1f00".into(),
                chance: Some(0.25),
                expected: None,
                published: None,
                max_failed: None,
                generates: None,
                last_rule: None,
                keyless: false,
                task_file: None,
            }],
            performance: vec![PerformanceCase {
                case_id: "b2-i16-o3".into(),
                tp: 1,
                batch: 2,
                input_tokens: 16,
                output_tokens: 3,
                prompts: None,
                unfit: None,
                largest_batch: None,
                alone_bytes: None,
                repetitions: 5,
                seed: Some(7),
                prefill_cost: Some(Cost { bytes: 1000, flops: 64_000 }),
                decode_cost: None,
            }],
            ..Plan::default()
        },
        choice_tokens: BTreeMap::from([(
            "ceval".to_owned(),
            vec![ChoiceToken { text: "A".into(), id: 316 }, ChoiceToken { text: "B".into(), id: 347 }],
        )]),
        first_prompt: Some(FirstPrompt {
            task: "ceval".into(),
            doc_id: "val-7".into(),
            text: "以下是…\n".into(),
            token_ids: vec![64790, 64792],
        }),
        shards: None,
        seal: Some(BTreeMap::from([(
            "samples.jsonl".to_owned(),
            JournalSeal { lines: 1, sha256: "5ea1".into() },
        )])),
    }
}

pub(super) fn accuracy_row() -> AccuracyRow {
    AccuracyRow {
        schema: SCHEMA,
        run_id: "r".into(),
        task: "ceval".into(),
        subject: "all".into(),
        category: "STEM".into(),
        protocol: "two-stage".into(),
        shots: 0,
        n: 4,
        scored: 2,
        unscorable: 1,
        failed: 1,
        correct: 2,
        acc: Some(2.0 / 3.0),
        ci95_lo: Some(0.2),
        ci95_hi: Some(0.94),
        stderr: Some(0.27),
        macro_acc: None,
        duration_s: 1.5,
        tokens_in: 400,
        tokens_out: 8,
        version_hash: "5e1f00".into(),
    }
}

pub(super) fn perf_row() -> PerfRow {
    PerfRow {
        schema: SCHEMA,
        run_id: "r".into(),
        case_id: "b2-i16-o3".into(),
        engine: "glmbench 0.1.0".into(),
        device: "cpu".into(),
        clock: Clock::Measured,
        dtype: "fp16".into(),
        tp: 1,
        threads: 2,
        batch: 2,
        input_tokens: 16,
        output_tokens: 3,
        phase: Phase::E2e,
        reps: 5,
        warmups: 2,
        median_ns: Some(145),
        mad_ns: Some(1),
        mean_ns: Some(146),
        stddev_ns: Some(2),
        ci95_lo_ns: Some(144),
        ci95_hi_ns: Some(148),
        min_ns: Some(144),
        max_ns: Some(149),
        p50_ns: Some(145),
        p90_ns: Some(148),
        p99_ns: None,
        tokens: 6,
        tokens_per_s: Some(6.0 / 146e-9),
        tokens_per_s_median: Some(6.0 / 145e-9),
        bytes_touched: None,
        achieved_gb_s: None,
        roofline_pct: None,
        peak_rss_bytes: Some(1 << 20),
        device_memory_bytes: None,
        energy_j: None,
        j_per_token: None,
        output_hash: Some("0ff1ce".into()),
        valid: Some(true),
        invalid_reason: None,
        host: "bench-1".into(),
    }
}

#[test]
fn the_json_formats_are_as_committed() {
    let root = tempfile::tempdir().unwrap();
    let mut dir = RunDir::create(root.path(), "r").unwrap();
    dir.append_sample(&sample()).unwrap();
    let failed = SampleRecord {
        doc_id: "val-8".into(),
        state: SampleState::Failed,
        pred: None,
        correct: false,
        choice_logprobs: vec![f32::NEG_INFINITY],
        margin: None,
        error: Some("prompt of 9000 tokens, context of 8192".into()),
        ..sample()
    };
    dir.append_sample(&failed).unwrap();
    dir.append_prompts(&prompts()).unwrap();
    dir.append_prompts(&prompts()).unwrap(); // already there the second time
    dir.append_request(&request()).unwrap();
    dir.write_run(&run()).unwrap();
    let text = |name| std::fs::read_to_string(dir.file(name)).unwrap();
    insta::assert_snapshot!("samples.jsonl", text("samples.jsonl"));
    insta::assert_snapshot!("prompts.jsonl", text("prompts.jsonl"));
    assert_eq!(dir.read_prompts(|_| true).unwrap(), [prompts()]);
    assert_eq!(dir.read_prompts(|record| record.doc_id == "val-8").unwrap(), []);
    insta::assert_snapshot!("requests.jsonl", text("requests.jsonl"));
    insta::assert_snapshot!("run.json", text("run.json"));
    assert!(dir.read_samples().unwrap()[1].choice_logprobs[0].is_nan());
}

pub(crate) fn parity() -> ParityCase {
    ParityCase {
        parity_id: "parity-boolq-sample-i256-cpu-fp16".into(),
        tp: 1,
        reference: ReferenceCase { model: "demo".into(), device: "cpu".into(), dtype: "fp16".into() },
        prompts: 3,
        source: "224 questions of boolq-sample, 3 of them, evenly spaced".into(),
        continuation: 32,
        seed: None,
        unfit: None,
    }
}

pub(crate) fn parity_line() -> ParityRecord {
    ParityRecord {
        parity_id: parity().parity_id,
        prompt: 0,
        clock: Clock::Measured,
        reference: "sha256:3ef".into(),
        kl: vec![0.0, 2.5e-3, 1.0 / 3.0],
        top1_equal: 2,
        error: None,
        end_ns: 1_000_000_009,
    }
}

#[test]
fn the_journal_of_parity_cases_is_as_committed() {
    let root = tempfile::tempdir().unwrap();
    let mut dir = RunDir::create(root.path(), "r").unwrap();
    let failed = ParityRecord {
        prompt: 1,
        kl: Vec::new(),
        top1_equal: 0,
        error: Some("prompt 1: logits not finite: position 3, token id 9 is NaN".into()),
        ..parity_line()
    };
    dir.append::<ParityCase>(&parity_line()).unwrap();
    dir.append::<ParityCase>(&failed).unwrap();
    insta::assert_snapshot!("parity.jsonl", std::fs::read_to_string(dir.file("parity.jsonl")).unwrap());
    assert_eq!(dir.read::<ParityCase>().unwrap(), [parity_line(), failed]);
    let twice = dir.append::<ParityCase>(&parity_line()).unwrap_err().to_string();
    assert!(twice.contains("prompt 0 of parity-boolq-sample-i256-cpu-fp16 is recorded already"), "{twice}");
    insta::assert_snapshot!("parity_case.json", serde_json::to_string_pretty(&parity()).unwrap());
}

#[test]
fn the_journals_of_searches_and_loads_are_as_committed() {
    let root = tempfile::tempdir().unwrap();
    let mut dir = RunDir::create(root.path(), "r").unwrap();
    dir.append_probe(&probe()).unwrap();
    let unrun = ProbeRecord {
        probe: 3,
        outcome: ProbeOutcome::OutOfMemory,
        reason: Some("9 KV blocks were wanted, memory was taken for 8".into()),
        wanted_bytes: Some(1 << 30),
        ttft_ns: None,
        tpot_ns: None,
        repetitions: Vec::new(),
        output_hash: None,
        ..probe()
    };
    dir.append_probe(&unrun).unwrap();
    dir.append_load(&LoadLevelRecord { level: 0, rate_per_s: None, ..level() }).unwrap();
    dir.append_load(&level()).unwrap();
    let text = |name| std::fs::read_to_string(dir.file(name)).unwrap();
    insta::assert_snapshot!("probes.jsonl", text("probes.jsonl"));
    insta::assert_snapshot!("load.jsonl", text("load.jsonl"));
    assert_eq!(dir.read_probes().unwrap(), [probe(), unrun]);
    assert_eq!(dir.read_loads().unwrap()[1], level());
    let twice = [dir.append_probe(&probe()), dir.append_load(&level())].map(|r| r.unwrap_err().to_string());
    assert!(twice[0].contains("probe 2 of search max-batch-i16-o3 is recorded already"), "{}", twice[0]);
    assert!(twice[1].contains("level 1 of load poisson-i16-o3-b8 is recorded already"), "{}", twice[1]);
}
