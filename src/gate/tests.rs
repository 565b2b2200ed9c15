//! What must hold of gates: pass, fail and undecided by the interval, and nothing passes by not being there.

use super::*;
use crate::record::{
    AccuracyCase, Identity, Plan, Provenance, RepetitionKind, RunDir, RunRecord, SampleRecord, SampleState,
    Status,
};
use crate::report::compare::{Options, compare};
use std::collections::BTreeMap;
use std::path::Path;

/// A run with 400 items, of which `right` are right, and one case of `times` ms.
fn run(
    id: &str,
    right: usize,
    times: &[u64],
    clock: Clock,
) -> (RunRecord, Vec<SampleRecord>, Vec<RequestRecord>) {
    let case = PerformanceCase {
        case_id: "b1-i8-o11".into(),
        tp: 1,
        batch: 1,
        input_tokens: 8,
        output_tokens: 11,
        prompts: None,
        unfit: None,
        repetitions: times.len() as u32,
        prefill_cost: None,
        decode_cost: None,
    };
    let record = RunRecord {
        run_id: id.into(),
        status: Status::Complete,
        identity: Identity::new(BTreeMap::new()),
        provenance: Provenance {
            suite: "s".into(),
            model: "demo".into(),
            engine: "glmbench".into(),
            device: "cpu".into(),
            kernel: String::new(),
            clock,
            clock_profile: None,
            dtype: "fp16".into(),
            tp: 1,
            device_details: BTreeMap::new(),
            model_details: BTreeMap::new(),
            telemetry: BTreeMap::new(),
            threads: 1,
            batch: 1,
            versions: BTreeMap::new(),
            git_commit: None,
            environment: BTreeMap::new(),
            host: "h".into(),
            os: "o".into(),
            cpu_model: "c".into(),
            governor: None,
            roofline: None,
            load: None,
            weight_faults: None,
            command_line: vec![],
            scored_from: None,
            started: "2026-01-01T00:00:00Z".into(),
            finished: None,
            resumed: 0,
            group: None,
        },
        plan: Plan {
            accuracy: vec![AccuracyCase {
                task: "ceval".into(),
                dataset: "d".into(),
                protocol: "p".into(),
                shots: 0,
                items: 400,
                available: None,
                version_hash: "v".into(),
                chance: None,
                expected: None,
                published: None,
                max_failed: None,
                generates: None,
                last_rule: None,
            }],
            performance: vec![case],
            searches: vec![],
            loads: vec![],
            targets: vec![],
        },
        choice_tokens: BTreeMap::new(),
        first_prompt: None,
    };
    let sample = |i: usize| SampleRecord {
        task: "ceval".into(),
        doc_id: i.to_string(),
        doc_hash: i.to_string(),
        prompt_hash: String::new(),
        subject: String::new(),
        category: String::new(),
        hard: false,
        state: if i == 399 { SampleState::Failed } else { SampleState::Scored },
        gold: "A".into(),
        pred: Some(if i < right { "A" } else { "B" }.into()),
        correct: i < right,
        choice_logprobs: vec![],
        margin: None,
        input_tokens_n: 1,
        output_tokens: vec![],
        text: String::new(),
        extract_rule: String::new(),
        t_start_ns: 0,
        t_end_ns: 1,
        error: None,
    };
    let request = |(i, ms): (usize, &u64)| RequestRecord {
        case_id: "b1-i8-o11".into(),
        kind: RepetitionKind::Timed,
        repetition: i as u32,
        clock,
        tp: 1,
        block: None,
        batch: 1,
        input_tokens: 8,
        output_tokens: 11,
        prompts: None,
        start_ns: 0,
        prefill_ns: ms * 500_000,
        first_token_ns: ms * 500_000,
        step_ns: vec![],
        end_ns: ms * 1_000_000 + i as u64,
        output_hash: "h".into(),
        peak_rss_bytes: Some(1 << 30),
        device_memory_bytes: None,
        operators: Vec::new(),
        spots: None,
        error: None,
    };
    (record, (0..400).map(sample).collect(), times.iter().enumerate().map(request).collect())
}

fn gates(text: &str) -> Gates {
    Gates::parse(Path::new("gates.toml"), &format!("schema = 1\n{text}")).unwrap()
}

fn alone(
    text: &str,
    (record, samples, requests): (RunRecord, Vec<SampleRecord>, Vec<RequestRecord>),
) -> Vec<Judgement> {
    let summary = Summary::of(record, &samples, &requests);
    judge_run(&gates(text), &summary, &requests).unwrap()
}

fn outcomes(judgements: &[Judgement]) -> Vec<GateOutcome> {
    judgements.iter().map(|j| j.outcome).collect()
}

use GateOutcome::{Fail, Pass, Undecided};

#[test]
fn accuracy_is_judged_by_its_interval() {
    // 200 of 399: 50 % [45, 55].
    let judged = |min: &str| {
        outcomes(&alone(&format!("[[accuracy]]\nmin = \"{min}\""), run("r", 200, &[], Clock::Measured)))
    };
    assert_eq!(judged("45%"), [Pass]);
    assert_eq!(judged("50%"), [Undecided]);
    assert_eq!(judged("56%"), [Fail]);
    let failed = |most: &str| {
        outcomes(&alone(
            &format!("[[accuracy]]\nmax_failed = \"{most}\""),
            run("r", 200, &[], Clock::Measured),
        ))
    };
    assert_eq!((failed("1%"), failed("0.1%")), (vec![Pass], vec![Fail]));
}

#[test]
fn times_and_rates_are_judged_by_their_interval() {
    let times = [98, 99, 100, 100, 101, 102, 103];
    let judged = |gate: &str| {
        let text = format!("[[speed]]\nmetric = \"e2e\"\n{gate}");
        outcomes(&alone(&text, run("r", 200, &times, Clock::Measured)))
    };
    assert_eq!(judged("max = \"110 ms\""), [Pass]);
    assert_eq!(judged("max = \"100.5 ms\""), [Undecided]);
    assert_eq!(judged("max = \"0.09 s\""), [Fail]);
    // 11 tokens in 100 ms.
    assert_eq!(judged("min_throughput = \"100 tokens/s\""), [Pass]);
    assert_eq!(judged("min_throughput = \"120 tokens/s\""), [Fail]);
    assert_eq!(judged("max = \"110 ms\"\nclock = \"modelled\""), [Fail], "no modelled case is there");
    assert_eq!(judged("max = \"110 ms\"\ncase = \"b1-*-o11\""), [Pass]);
    assert_eq!(judged("max = \"110 ms\"\ncase = \"b2*\""), [Fail], "a gate that nothing matches");
    let few = |clock| {
        let text = "[[speed]]\nmetric = \"tpot\"\nmax = \"1 s\"\nclock = \"modelled\"\n[[speed]]\nmetric = \"ttft\"\nmax = \"1 s\"";
        outcomes(&alone(text, run("r", 200, &[100, 100], clock)))
    };
    assert_eq!(few(Clock::Measured), [Fail, Undecided]);
    assert_eq!(few(Clock::Modelled), [Pass, Fail]);
}

#[test]
fn what_is_not_there_fails_and_says_what_is() {
    let found = |text: &str, clock| alone(text, run("r", 200, &[5; 5], clock))[0].found.clone();
    let speed = "[[speed]]\nmetric = \"e2e\"\nmax = \"1 s\"\n";
    assert!(found(speed, Clock::Modelled).contains("times are modelled, this limit is for measured ones"));
    let other_case = format!("{speed}case = \"b2*\"");
    assert!(found(&other_case, Clock::Measured).contains("matches b2*; there are 1, such as b1-i8-o11"));
    assert!(
        found("[[accuracy]]\nmin = \"1%\"\ntask = \"mmlu\"", Clock::Measured)
            .contains("no task mmlu, but ceval")
    );
    let (mut record, _, requests) = run("r", 200, &[5; 5], Clock::Measured);
    record.plan.accuracy.clear();
    let judged = alone("[[accuracy]]\nmax_failed = \"0%\"", (record, vec![], requests));
    assert!(judged[0].outcome == Fail && judged[0].found.contains("no accuracy task"));
}

#[test]
fn memory_is_a_fact() {
    let text = "[[memory]]\nmax = \"1 GiB\"\n[[memory]]\nmax = \"900 MiB\"";
    assert_eq!(outcomes(&alone(text, run("r", 1, &[5, 5, 5], Clock::Measured))), [Pass, Fail]);
}

/// What the process holds while a card computes says nothing of the card, whose own memory does.
#[test]
fn a_cards_memory_is_its_own() {
    let text = "[[memory]]\nmax = \"14 GiB\"\n[[memory]]\nmax = \"13 GiB\"";
    let of_card = |bytes| {
        let (record, samples, mut requests) = run("r", 1, &[5, 5, 5], Clock::Modelled);
        requests.iter_mut().for_each(|r| r.device_memory_bytes = bytes);
        outcomes(&alone(text, (record, samples, requests)))
    };
    assert_eq!(of_card(Some((13 << 30) + 1)), [Pass, Fail]);
    assert_eq!(of_card(None), [Undecided, Undecided]);
}

#[test]
fn undecided_counts_as_the_file_says() {
    let judgements = alone("[[accuracy]]\nmin = \"50%\"", run("r", 200, &[], Clock::Measured));
    assert!(passes(&gates("[[accuracy]]\nmin = \"50%\""), &judgements));
    assert!(!passes(&gates("undecided = \"fail\"\n[[accuracy]]\nmin = \"50%\""), &judgements));
}

#[test]
fn limits_against_the_base_need_one() {
    let text = "[[accuracy]]\nmax_drop = \"2%\"\n[[speed]]\nmetric = \"decode\"\nmax_ratio = 1.05\n\
        [[speed]]\nmetric = \"decode\"\nmax_throughput_drop = \"20%\"\n[[memory]]\nmax_ratio = 1.01";
    let gates = gates(text);
    assert_eq!(relative_limits(&gates), 4);
    let root = tempfile::tempdir().unwrap();
    let judged = |right: usize, times: &[u64], clock| {
        let mut paths = Vec::new();
        for (id, (record, samples, requests)) in [
            ("a", run("a", 300, &[98, 99, 100, 100, 101, 102, 103], Clock::Measured)),
            ("b", run("b", right, times, clock)),
        ] {
            let folder = tempfile::tempdir_in(root.path()).unwrap().keep();
            let mut dir = RunDir::create(&folder, id).unwrap();
            samples.iter().for_each(|s| dir.append_sample(s).unwrap());
            requests.iter().for_each(|r| dir.append_request(r).unwrap());
            dir.write_run(&record).unwrap();
            paths.push(dir.path().to_owned());
        }
        outcomes(&judge(&gates, &compare(&paths, &Options::default()).unwrap()).unwrap())
    };
    assert_eq!(judged(300, &[98, 99, 100, 100, 101, 102, 103], Clock::Measured), [Pass, Pass, Pass, Pass]);
    assert_eq!(judged(280, &[118, 119, 120, 120, 121, 122, 123], Clock::Measured), [Fail, Fail, Pass, Pass]);
    assert_eq!(
        judged(293, &[90, 95, 100, 105, 110, 115, 120], Clock::Measured),
        [Undecided, Undecided, Pass, Pass]
    );
    // A measured limit is not for modelled times.
    assert_eq!(judged(300, &[100; 5], Clock::Modelled), [Pass, Fail, Fail, Undecided]);
}

#[test]
fn parity_is_read_from_what_parity_prints() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gates.toml");
    std::fs::write(&path, "schema = 1\n[[parity]]\nfile = \"p.json\"\n").unwrap();
    let gates = Gates::load(&path).unwrap();
    let judged = |json: &str| {
        std::fs::write(folder.path().join("p.json"), json).unwrap();
        parity::judge(&gates)
    };
    let json = |kl: &str, share: &str, threshold: &str| {
        format!(
            "{{\"engine\":\"cpu fp16\",\"reference\":\"reference fp32\",\"positions\":90,\"kl_max\":{kl},\
             \"kl_threshold\":{threshold},\"share_above_threshold\":{share}}}"
        )
    };
    assert_eq!(outcomes(&judged(&json("9e-4", "0.004", "1e-4")).unwrap()), [Pass, Pass]);
    assert_eq!(outcomes(&judged(&json("2e-3", "0.006", "1e-4")).unwrap()), [Fail, Fail]);
    assert_eq!(outcomes(&judged(&json("null", "0", "1e-4")).unwrap()), [Fail, Pass]);
    let message = judged(&json("1e-9", "0", "1e-3")).unwrap_err().to_string();
    assert!(message.contains("counted from a KL of 1e-3"), "{message}");
    assert!(judged("[]").unwrap_err().to_string().contains("p.json"));
}

#[test]
fn patterns_match_as_people_mean_them() {
    for (pattern, name, fits) in [
        ("b1-i8-o8", "b1-i8-o8", true),
        ("b1-i8", "b1-i8-o8", false),
        ("b1-*", "b1-i8-o8", true),
        ("*-o8", "b1-i8-o8", true),
        ("b*-o8", "b16-i8-o8", true),
        ("*", "", true),
        ("b1*1", "b1", false),
        ("*i8*o9", "b1-i8-o8", false),
    ] {
        assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
    }
}
