//! Realistic run records made from a seed, for the report's tests and for viewing a report.

use crate::record::*;
use crate::stats::Rng;
use std::collections::BTreeMap;

/// Subject, category, hard, share of correct answers.
const SUBJECTS: [(&str, &str, bool, f64); 12] = [
    ("advanced_mathematics", "STEM", true, 0.28),
    ("college_physics", "STEM", true, 0.31),
    ("computer_network", "STEM", false, 0.62),
    ("high_school_biology", "STEM", false, 0.55),
    ("business_administration", "Social Science", false, 0.52),
    ("middle_school_geography", "Social Science", false, 0.83),
    ("mao_zedong_thought", "Social Science", false, 0.74),
    ("chinese_language_and_literature", "Humanities", false, 0.49),
    ("law", "Humanities", false, 0.37),
    ("high_school_history", "Humanities", false, 0.71),
    ("civil_servant", "Other", false, 0.45),
    ("physician", "Other", false, 0.60),
];

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// One sample; tests override the fields they need.
pub(crate) fn sample() -> SampleRecord {
    SampleRecord {
        task: "ceval".into(),
        doc_id: "0".into(),
        doc_hash: "d0c5".into(),
        prompt_hash: "b10c".into(),
        subject: String::new(),
        category: String::new(),
        hard: false,
        state: SampleState::Scored,
        gold: "A".into(),
        pred: Some("A".into()),
        correct: true,
        choice_logprobs: vec![-0.2, -2.0, -3.0, -4.0],
        margin: Some(1.8),
        input_tokens_n: 210,
        output_tokens: vec![316],
        text: "A".into(),
        measures: std::collections::BTreeMap::new(),
        programs: Vec::new(),
        extract_rule: "choice-logprob".into(),
        t_start_ns: 0,
        t_end_ns: 1,
        error: None,
    }
}

/// One timed repetition; tests override the fields they need.
pub(crate) fn request() -> RequestRecord {
    RequestRecord {
        case_id: String::new(),
        kind: RepetitionKind::Timed,
        repetition: 0,
        clock: Clock::Measured,
        tp: 1,
        block: None,
        prompts: None,
        batch: 1,
        input_tokens: 1,
        output_tokens: 1,
        start_ns: 0,
        prefill_ns: 0,
        first_token_ns: 0,
        step_ns: Vec::new(),
        end_ns: 0,
        output_hash: "0ff1ce".into(),
        peak_rss_bytes: Some(143 << 20),
        device_memory_bytes: None,
        operators: Vec::new(),
        roofline_samples: None,
        error: None,
    }
}

pub(crate) fn case(batch: u32, input_tokens: u32, output_tokens: u32) -> PerformanceCase {
    let (weights, flops) = (11_400_000_u64, 22_800_000_u64);
    let tokens = u64::from(batch) * u64::from(input_tokens);
    let steps = u64::from(output_tokens.saturating_sub(1));
    PerformanceCase {
        case_id: format!("b{batch}-i{input_tokens}-o{output_tokens}"),
        tp: 1,
        batch,
        input_tokens,
        output_tokens,
        prompts: None,
        unfit: None,
        largest_batch: None,
        alone_bytes: None,
        repetitions: 7,
        seed: Some(1),
        prefill_cost: Some(Cost { bytes: weights, flops: flops * tokens }),
        decode_cost: Some(Cost { bytes: weights * steps, flops: flops * u64::from(batch) * steps }),
    }
}

/// A run with two tasks and twelve shapes on the CPU.
pub(crate) fn run() -> RunRecord {
    let identity = Identity::new(map(&[
        ("dataset.boolq-sample", "sha256:77c0a9d2"),
        ("dataset.ceval-sample", "sha256:1f9be04c"),
        ("dtype", "fp16"),
        ("limit", "none"),
        ("protocol.boolq", "loglikelihood"),
        ("protocol.ceval", "modeltest-5shot"),
        ("quantisation", "none"),
        ("rope", "model"),
        ("suite", "sha256:5e1f22b8"),
        ("tokenizer", "sha256:0d41c7aa"),
        ("weights", "sha256:c9a0d513"),
    ]));
    let task = |task: &str, protocol: &str, shots, items, chance| AccuracyCase {
        task: task.into(),
        benchmark: task.into(),
        dataset: format!("{task}-sample/val"),
        protocol: protocol.into(),
        shots,
        tp: 1,
        items,
        items_hash: None,
        available: Some(items),
        version_hash: "5e1f22".into(),
        chance: Some(chance),
        expected: None,
        published: None,
        max_failed: None,
        generates: None,
        last_rule: None,
        keyless: false,
        task_file: None,
    };
    let shapes = [(32, 32), (128, 32), (512, 64)];
    RunRecord {
        run_id: format!("20261123T021500Z-quickstart-cpu-{}", &identity.hash()[..6]),
        status: Status::Complete,
        identity,
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
            telemetry: BTreeMap::new(),
            threads: 2,
            batch: 8,
            versions: map(&[("rustc", "1.95.0")]),
            git_commit: Some("139c400".into()),
            environment: BTreeMap::new(),
            host: "bench-1".into(),
            os: "Linux 6.1.0".into(),
            cpu_model: "Xeon Platinum 8481C".into(),
            governor: Some("performance".into()),
            roofline: Some(Roofline { bandwidth_bytes_per_s: 2.15e10, peak_flops_per_s: 1.4e11, measured: None }),
            load: None,
            weight_faults: Some(Vec::new()),
            work: BTreeMap::new(),
            command_line: ["glmbench", "run", "suites/quickstart.toml"].map(str::to_owned).to_vec(),
            scored_from: None,
            started: "2026-11-23T02:15:00Z".into(),
            finished: Some("2026-11-23T02:16:41Z".into()),
            resumed: 0,
            group: None,
        },
        plan: Plan {
            accuracy: vec![task("ceval", "modeltest-5shot", 5, 12 * 20, 0.25), task("boolq", "loglikelihood", 0, 120, 0.5)],
            performance: shapes
                .iter()
                .flat_map(|&(input, output)| [1, 2, 4, 8].map(|batch| case(batch, input, output)))
                .collect(),
            ..Plan::default()
        },
        choice_tokens: BTreeMap::from([
            ("ceval".to_owned(), choices(&[("A", 316), ("B", 347), ("C", 319), ("D", 367)])),
            ("boolq".to_owned(), choices(&[("yes", 9068), ("no", 1456)])),
        ]),
        first_prompt: Some(FirstPrompt {
            task: "ceval".into(),
            doc_id: "val-advanced_mathematics-0".into(),
            text: "以下是中国关于高等数学考试的单项选择题，请选出其中的正确答案。\n\n下列 x < y & y > 0 中，正确的是____。\nA. 1\nB. 2\nC. 3\nD. 4\n答案：".into(),
            token_ids: vec![64790, 64792, 790, 30951, 517, 30910],
        }),
        seal: None,
        shards: None,
    }
}

fn choices(pairs: &[(&str, u32)]) -> Vec<ChoiceToken> {
    pairs.iter().map(|&(text, id)| ChoiceToken { text: text.to_owned(), id }).collect()
}

/// Samples of every subject and of the set without subjects. Each subject's share gives the probability of a correct
/// answer.
fn samples(rng: &mut Rng) -> Vec<SampleRecord> {
    let ceval = SUBJECTS.iter().flat_map(|subject| (0..20).map(move |i| ("ceval", *subject, i)));
    let boolq = (0..120).map(|i| ("boolq", ("", "", false, 0.66), i));
    let items: Vec<_> = ceval.chain(boolq).collect();
    let mut clock = 0;
    items
        .into_iter()
        .map(|(task, (subject, category, hard, share), index)| {
            let correct = rng.unit_f64() < share;
            let start = clock;
            clock += 60_000_000 + rng.below(20_000_000);
            let choices: &[&str] = if task == "boolq" { &["no", "yes"] } else { &["A", "B", "C", "D"] };
            let gold = index % choices.len();
            let pred = if correct { gold } else { (gold + 1) % choices.len() };
            SampleRecord {
                task: task.into(),
                doc_id: format!("val-{subject}-{index}"),
                subject: subject.into(),
                category: category.into(),
                hard,
                gold: choices[gold].into(),
                pred: Some(choices[pred].into()),
                correct,
                t_start_ns: start,
                t_end_ns: clock,
                ..sample()
            }
        })
        .collect()
}

/// Two warm-ups, the first one slow, and seven timed repetitions per case, with times off by up to `noise`.
fn requests(run: &RunRecord, rng: &mut Rng, noise: f64) -> Vec<RequestRecord> {
    let mut clock = 0;
    let mut all = Vec::new();
    for case in &run.plan.performance {
        for index in 0..9_u32 {
            let slow = if index == 0 { 1.4 } else { 1.0 };
            let mut shake = || slow * (1.0 + noise * (rng.unit_f64() + rng.unit_f64() - 1.0));
            let tokens = f64::from(case.batch * case.input_tokens);
            let prefill = ((1.1e6 + 1.9e5 * tokens) * shake()) as u64;
            let step = 1.25e6 + 2.2e5 * f64::from(case.batch) + 140.0 * tokens;
            let step_ns: Vec<u64> = (1..case.output_tokens).map(|_| (step * shake()) as u64).collect();
            let first_token_ns = clock + prefill + 9_000;
            let end_ns = first_token_ns + step_ns.iter().sum::<u64>() + 800 * step_ns.len() as u64;
            all.push(RequestRecord {
                case_id: case.case_id.clone(),
                kind: if index < 2 { RepetitionKind::Warmup } else { RepetitionKind::Timed },
                repetition: if index < 2 { index } else { index - 2 },
                batch: case.batch,
                input_tokens: case.input_tokens,
                output_tokens: case.output_tokens,
                start_ns: clock,
                prefill_ns: prefill,
                first_token_ns,
                step_ns,
                end_ns,
                output_hash: format!("{:08x}", 0x9e37_79b9_u32.wrapping_mul(case.batch + case.input_tokens)),
                peak_rss_bytes: Some((120 << 20) + u64::from(case.batch * case.input_tokens) * 6_000),
                ..request()
            });
            clock = end_ns + 50_000;
        }
    }
    all
}

/// A run with its lines.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    pub(crate) run: RunRecord,
    pub(crate) samples: Vec<SampleRecord>,
    pub(crate) requests: Vec<RequestRecord>,
}

impl Records {
    /// A run without lines.
    pub(crate) fn empty(run: RunRecord) -> Self {
        Self { run, samples: Vec::new(), requests: Vec::new() }
    }
}

/// A finished run without problems: all repetitions are equal.
pub(crate) fn quiet() -> Records {
    let run = run();
    let samples = samples(&mut Rng::new(1));
    let requests = requests(&run, &mut Rng::new(2), 0.0);
    Records { run, samples, requests }
}

/// A finished run with noise in the times, two unscorable answers, and one failed item.
pub(crate) fn realistic() -> Records {
    let mut run = run();
    run.plan.accuracy[0].max_failed = Some(0.01);
    let mut samples = samples(&mut Rng::new(3));
    for index in [17, 203] {
        samples[index].state = SampleState::Unscorable;
        samples[index].pred = None;
        samples[index].correct = false;
    }
    samples[77].state = SampleState::Failed;
    samples[77].pred = None;
    samples[77].correct = false;
    samples[77].error = Some("prompt of 2311 tokens, context of 2048".into());
    let requests = requests(&run, &mut Rng::new(4), 0.06);
    Records { run, samples, requests }
}

/// Writes a run to `root` in the state before its report is made.
pub(crate) fn write(root: &std::path::Path, Records { run, samples, requests }: &Records) -> RunDir {
    let mut dir = RunDir::create(root, &run.run_id).unwrap();
    for sample in samples {
        if sample.was_asked() {
            let (task, doc_id) = (sample.task.clone(), sample.doc_id.clone());
            dir.append_prompts(&PromptRecord { task, doc_id, calls: Vec::new() }).unwrap();
        }
        dir.append_sample(sample).unwrap();
    }
    for request in requests {
        dir.append_request(request).unwrap();
    }
    // The seal also covers the prompts, which are empty here.
    let seal = (run.status == Status::Complete).then(|| dir.seal().unwrap());
    dir.write_run(&RunRecord { seal, ..run.clone() }).unwrap();
    dir
}
