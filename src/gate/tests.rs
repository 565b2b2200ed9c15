//! Tests of the gates: pass, fail and undecided by the interval, and nothing passes by being absent.

use super::*;
use crate::record::{
    AccuracyCase, Clock, Group, Identity, ModelledBy, PerformanceCase, Plan, ProfileFit, Provenance,
    RepetitionKind, RunDir, RunRecord, SampleRecord, SampleState, Status,
};
use crate::report::compare::{Options, compare};
use std::collections::BTreeMap;
use std::path::Path;

/// A run with 400 items, `right` of them correct, and one case with the given `times` in ms.
#[expect(clippy::too_many_lines, reason = "records with every field named")]
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
        largest_batch: None,
        alone_bytes: None,
        repetitions: times.len() as u32,
        seed: None,
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
            modelled_by: None,
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
            work: BTreeMap::new(),
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
                benchmark: "ceval".into(),
                dataset: "d".into(),
                protocol: "p".into(),
                shots: 0,
                tp: 1,
                items: 400,
                items_hash: None,
                available: None,
                version_hash: "v".into(),
                chance: None,
                expected: None,
                published: None,
                max_failed: None,
                generates: None,
                last_rule: None,
                keyless: false,
                task_file: None,
            }],
            performance: vec![case],
            ..Plan::default()
        },
        choice_tokens: BTreeMap::new(),
        first_prompt: None,
        seal: None,
        shards: None,
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
        measures: std::collections::BTreeMap::new(),
        programs: Vec::new(),
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
        roofline_samples: None,
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

/// Repetitions of one modelled time, by a profile with a fit that states this error.
fn modelled(id: &str, ms: u64, error: f64) -> (RunRecord, Vec<SampleRecord>, Vec<RequestRecord>) {
    let (mut record, samples, requests) = run(id, 200, &[ms], Clock::Modelled);
    let fit = |phase: &str| ProfileFit {
        phase: phase.into(),
        chips: 1,
        rows: 9,
        shapes: 9,
        error,
        worst: error,
        batch: 32,
        tokens: 4096,
        parameters: 6e9,
        graphs: false,
    };
    let fits = vec![fit("prefill"), fit("decode")];
    record.provenance.clock_profile = Some("mine sha256:00".into());
    record.provenance.modelled_by =
        Some(Box::new(ModelledBy { title: "mine".into(), figures: Vec::new(), fits }));
    (record, samples, requests)
}

#[test]
fn a_modelled_figure_carries_its_error_and_says_if_the_limit_is_within() {
    let judged = |gate: &str| {
        let text = format!("[[speed]]\nmetric = \"e2e\"\nclock = \"modelled\"\n{gate}");
        let Judgement { outcome, found, .. } = alone(&text, modelled("r", 100, 0.2)).remove(0);
        (outcome, found)
    };
    let within = "; the limit is within this error";
    assert_eq!(judged("max = \"110 ms\""), (Pass, format!("100.000 ms, modelled ± 20 %{within}").into()));
    // Outside the error on either side: 100 / exp(0.2) is 81.9, and 100 * exp(0.2) is 122.1.
    assert_eq!(judged("max = \"123 ms\""), (Pass, "100.000 ms, modelled ± 20 %".into()));
    assert_eq!(judged("max = \"81 ms\""), (Fail, "100.000 ms, modelled ± 20 %".into()));
    assert_eq!(judged("max = \"82 ms\""), (Fail, format!("100.000 ms, modelled ± 20 %{within}").into()));
    assert_eq!(
        judged("min_throughput = \"100 tokens/s\""),
        (Pass, format!("110.0 tokens/s, modelled ± 20 %{within}").into())
    );
    let gates = gates("[[speed]]\nmetric = \"e2e\"\nclock = \"modelled\"\nmax_ratio = 1.02");
    let of_ratio = |error, profile: &str| {
        let mut other = modelled("b", 105, error);
        other.0.provenance.clock_profile = Some(profile.into());
        let Judgement { outcome, found, .. } = against(&gates, modelled("a", 100, error), other).remove(0);
        (outcome, found)
    };
    assert_eq!(of_ratio(0.2, "its sha256:01"), (Fail, format!("1.050, modelled ± 28 %{within}").into()));
    assert_eq!(of_ratio(0.01, "its sha256:01"), (Fail, "1.050, modelled ± 1 %".into()));
    // What two times by one profile have in common says nothing against their ratio.
    let one = of_ratio(0.2, "mine sha256:00");
    assert_eq!(one, (Fail, "1.050, modelled; both times ± 20 %, by one profile".into()));
    let unknown = alone(
        "[[speed]]\nmetric = \"e2e\"\nclock = \"modelled\"\nmax = \"1 s\"",
        run("r", 200, &[100], Clock::Modelled),
    );
    assert_eq!(unknown[0].found, "100.000 ms, modelled, error unknown: the record names no profile");
}

#[test]
fn what_is_not_there_fails_and_says_what_is() {
    let found = |text: &str, clock| alone(text, run("r", 200, &[5; 5], clock))[0].found.clone();
    let speed = "[[speed]]\nmetric = \"e2e\"\nmax = \"1 s\"\n";
    assert!(
        found(speed, Clock::Modelled).contains("times are modelled, but this limit is for measured times")
    );
    let other_case = format!("{speed}case = \"b2*\"");
    assert!(found(&other_case, Clock::Measured).contains("matches b2*; it has 1, such as b1-i8-o11"));
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

/// The process's memory does not tell a card's memory, so only the card's own peak decides.
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
    let decided = |first_line: &str| {
        decision(&gates(&format!("{first_line}\n[[accuracy]]\nmin = \"50%\"")), &judgements)
    };
    assert_eq!(
        [decided(""), decided("undecided = \"pass\""), decided("undecided = \"fail\"")],
        [Undecided, Pass, Fail]
    );
    assert_eq!(
        judgements[0].decide.as_ref().map(ToString::to_string).as_deref(),
        Some("every item was asked; these items cannot decide a limit this close")
    );
    let (mut record, samples, requests) = run("r", 200, &[], Clock::Measured);
    record.plan.accuracy[0].available = Some(1346);
    record.provenance.command_line =
        ["x", "run", "s.toml", "--limit", "400", "--resume"].map(str::to_owned).to_vec();
    let judgements = alone("[[accuracy]]\nmin = \"50%\"", (record, samples, requests));
    assert_eq!(
        judgements[0].decide.as_ref().map(ToString::to_string).as_deref(),
        Some("all 1346 items: `glmbench run s.toml --limit 1346`")
    );
}

type Records = (RunRecord, Vec<SampleRecord>, Vec<RequestRecord>);

/// Judges run `b` against run `a`.
fn against(gates: &Gates, a: Records, b: Records) -> Vec<Judgement> {
    let root = tempfile::tempdir().unwrap();
    let paths = [a, b].map(|(record, samples, requests)| {
        let folder = tempfile::tempdir_in(root.path()).unwrap().keep();
        let mut dir = RunDir::create(&folder, &record.run_id).unwrap();
        samples.iter().for_each(|s| dir.append_sample(s).unwrap());
        requests.iter().for_each(|r| dir.append_request(r).unwrap());
        dir.write_run(&record).unwrap();
        dir.path().to_owned()
    });
    judge(gates, &compare(&paths, &Options::default()).unwrap()).unwrap()
}

/// Marks both as timed in turn by one command, with two repetitions per block.
fn in_turn([mut a, mut b]: [Records; 2]) -> [Records; 2] {
    for (records, configuration) in [(&mut a, "one"), (&mut b, "two")] {
        records.0.provenance.group = Some(Group {
            id: "g".into(),
            suite: "s".into(),
            configuration: configuration.into(),
            configurations: vec!["one".into(), "two".into()],
            blocks: Some(records.2.len() as u32 / 2),
        });
        records.2.iter_mut().for_each(|r| r.block = Some(r.repetition / 2));
    }
    [a, b]
}

/// Sixteen repetitions of about 100 ms, multiplied by `factor`.
fn sixteen(factor: f64) -> Vec<u64> {
    (0..16_u64).map(|i| (factor * (100.0 + (i * 5 % 3) as f64)) as u64).collect()
}

#[test]
fn limits_against_the_base_need_one() {
    let text = "[[accuracy]]\nmax_drop = \"2%\"\n[[speed]]\nmetric = \"decode\"\nmax_ratio = 1.05\n\
        [[speed]]\nmetric = \"decode\"\nmax_throughput_drop = \"20%\"\n[[memory]]\nmax_ratio = 1.01";
    let gates = gates(text);
    assert_eq!(relative_limits(&gates), 4);
    let judged = |right: usize, times: &[u64]| {
        let pair = [run("a", 300, &sixteen(1.0), Clock::Measured), run("b", right, times, Clock::Measured)];
        let [a, b] = in_turn(pair);
        against(&gates, a, b)
    };
    assert_eq!(outcomes(&judged(300, &sixteen(1.0))), [Pass, Pass, Pass, Undecided]);
    assert_eq!(outcomes(&judged(280, &sixteen(1.2))), [Fail, Fail, Pass, Undecided]);
    // Blocks on either side of the limit.
    let uneven: Vec<u64> =
        sixteen(1.0).iter().zip(0..).map(|(ms, i)| ms + if i / 2 % 2 == 0 { 2 } else { 8 }).collect();
    let open = judged(293, &uneven);
    assert_eq!(outcomes(&open), [Undecided, Undecided, Pass, Undecided]);
    assert!(open[1].found.starts_with("1.0") && open[1].found.contains("["), "{}", open[1].found);
    assert_eq!(
        open[1].decide.as_ref().map(ToString::to_string).as_deref().map(|words| words.starts_with('`')),
        Some(true)
    );
    // A measured limit does not apply to modelled times.
    let modelled = against(
        &gates,
        run("a", 300, &sixteen(1.0), Clock::Measured),
        run("b", 300, &[100; 5], Clock::Modelled),
    );
    assert_eq!(outcomes(&modelled), [Pass, Fail, Fail, Undecided]);
}

#[test]
fn runs_that_were_not_timed_in_turn_decide_nothing_unless_the_gate_asks_for_the_ratio() {
    let pair =
        || [run("a", 300, &sixteen(1.0), Clock::Measured), run("b", 300, &sixteen(1.2), Clock::Measured)];
    let judged = |limit: &str| {
        let [a, b] = pair();
        against(&gates(&format!("[[speed]]\nmetric = \"e2e\"\n{limit}")), a, b).remove(0)
    };
    let open = judged("max_ratio = 1.05");
    assert_eq!((open.outcome, open.found.to_string().as_str()), (Undecided, "1.198, not timed in turn"));
    assert!(open.decide.unwrap().contains("glmbench compare A1"));
    let by_ratio = judged("max_ratio = 1.05\nuntimed = \"ratio\"");
    assert_eq!((by_ratio.outcome, by_ratio.decide), (Fail, None));
    assert_eq!(by_ratio.found, "1.198, not timed in turn, by the ratio alone");
    assert_eq!(judged("max_ratio = 1.25\nuntimed = \"ratio\"").outcome, Pass);
}

/// A shard of a merged run was timed on another processor. The ratio alone decides nothing either.
#[test]
fn times_of_unlike_machines_decide_nothing() {
    use crate::record::{ShardCase, ShardOrigin, ShardPart, Shards};
    let a = run("a", 300, &sixteen(1.0), Clock::Measured);
    let mut b = run("b", 300, &sixteen(1.0), Clock::Measured);
    let from = &b.0.provenance;
    let origin = ShardOrigin {
        run_id: "r".into(),
        complete: true,
        host: "far".into(),
        cpu_model: "another".into(),
        kernel: from.kernel.clone(),
        threads: from.threads,
        governor: None,
        roofline: None,
        load: None,
        started: from.started.clone(),
        finished: None,
        resumed: 0,
    };
    let cases = vec![ShardCase { id: "b1-i8-o11".into(), work: 1 }];
    let part = ShardPart { index: 1, cases, origin: Some(origin), ..ShardPart::default() };
    let shards = Shards { count: 1, plan_hash: String::new(), whole: None, parts: vec![part] };
    b.0.shards = Some(Box::new(shards));
    let text = "[[speed]]\nmetric = \"e2e\"\nmax_ratio = 1.25\nuntimed = \"ratio\"";
    let judged = against(&gates(text), a, b).remove(0);
    assert_eq!(judged.outcome, Undecided);
    assert!(judged.found.contains("timed on unlike machines, h and far"), "{}", judged.found);
}

#[test]
fn a_gate_shows_what_it_is_about_in_its_own_unit() {
    // Five times as fast: a ratio of 0.2, and no loss of rate.
    let pair = || {
        let fast: Vec<u64> = sixteen(0.2);
        in_turn([run("a", 300, &sixteen(1.0), Clock::Measured), run("b", 290, &fast, Clock::Measured)])
    };
    let judged = |gate: &str| {
        let [a, b] = pair();
        against(&gates(gate), a, b).remove(0)
    };
    let ratio = judged("[[speed]]\nmetric = \"e2e\"\nmax_ratio = 1.05");
    assert!(ratio.outcome == Pass && ratio.found.starts_with("0.19"), "{}", ratio.found);
    let drop = judged("[[speed]]\nmetric = \"e2e\"\nmax_throughput_drop = \"10%\"");
    assert!(
        drop.outcome == Pass && drop.found.starts_with("-40") && drop.found.contains(" %"),
        "{}",
        drop.found
    );
    assert_eq!(
        (drop.gate.to_string().as_str(), drop.limit.to_string().as_str()),
        ("e2e throughput drop of b1-i8-o11", "at most 10.00 %")
    );
    // Ten of 399 items lost are 2.5 points lost, not −2.5.
    let accuracy = judged("[[accuracy]]\nmax_drop = \"2%\"");
    assert!(accuracy.found.starts_with("+2.51 points lost [+1."), "{}", accuracy.found);
}

#[test]
fn a_gate_about_every_task_or_case_fails_where_a_side_lacks_one() {
    let with_more = |mut records: Records| {
        let mut task = records.0.plan.accuracy[0].clone();
        task.task = "boolq".into();
        let more: Vec<SampleRecord> =
            records.1.iter().take(9).map(|s| SampleRecord { task: "boolq".into(), ..s.clone() }).collect();
        records.0.plan.accuracy.push(task);
        records.1.extend(more);
        let case = PerformanceCase {
            case_id: "b9-i8-o11".into(),
            batch: 9,
            ..records.0.plan.performance[0].clone()
        };
        records.0.plan.performance.push(case);
        records
    };
    let plain = || run("r", 300, &[100; 7], Clock::Measured);
    let text = "[[accuracy]]\nmax_drop = \"90%\"\nmin = \"1%\"\nmax_failed = \"9%\"\n[[speed]]\nmetric = \"e2e\"\nmax = \"1 s\"\n\
        [[memory]]\nmax = \"9 GiB\"";
    let failed = |a: Records, b: Records| -> Vec<String> {
        let judgements = against(&gates(text), a, b);
        judgements
            .into_iter()
            .filter(|j| j.outcome == Fail)
            .map(|j| format!("{}: {}", j.gate, j.found))
            .collect()
    };
    assert_eq!(failed(plain(), plain()), [""; 0]);
    let lacks = failed(with_more(plain()), plain());
    let of = [
        "accuracy of boolq",
        "failed items of boolq",
        "accuracy drop of boolq",
        "e2e time of b9-i8-o11",
        "peak memory of b9-i8-o11",
    ];
    let wanted: Vec<String> = of
        .iter()
        .map(|gate| {
            format!("{gate}: run B has no such {}", if gate.contains("boolq") { "task" } else { "case" })
        })
        .collect();
    assert_eq!(lacks, wanted);
    let more = failed(plain(), with_more(plain()));
    assert!(more.contains(&"accuracy drop of boolq: run A has no such task".to_owned()), "{more:?}");
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
    let counted = |beyond: u32| {
        let counts = format!(",\"continuations\":4,\"divergences_beyond_ties\":{beyond}}}");
        json("9e-4", "0.004", "1e-4").replace('}', &counts)
    };
    assert_eq!(outcomes(&judged(&counted(0)).unwrap()), [Pass, Pass, Pass]);
    assert_eq!(outcomes(&judged(&counted(1)).unwrap()), [Pass, Pass, Fail]);
    let message = judged(&json("1e-9", "0", "1e-3")).unwrap_err().to_string();
    assert!(message.contains("counted above a KL of 1e-3"), "{message}");
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

/// The names of tasks and the values of gate keys are all the English words that are left.
#[test]
fn judgements_are_said_in_chinese_and_are_as_committed_in_both_languages() {
    use crate::language::{Language, english::english_words};
    let times = [98, 99, 100, 100, 101, 102, 103];
    let mut judged = alone(
        "[[accuracy]]\nmin = \"50%\"\n[[accuracy]]\nmax_failed = \"0.1%\"\n[[accuracy]]\ntask = \"mmlu\"\nmin = \"1%\"\n\
         [[speed]]\nmetric = \"e2e\"\nmax = \"100.5 ms\"\n[[speed]]\nmetric = \"e2e\"\nmin_throughput = \"120 tokens/s\"\n\
         [[speed]]\nmetric = \"e2e\"\nmax = \"1 s\"\nclock = \"modelled\"\n[[memory]]\nmax = \"900 MiB\"",
        run("r", 200, &times, Clock::Measured),
    );
    let text = "[[speed]]\nmetric = \"e2e\"\nclock = \"modelled\"\nmax = \"110 ms\"";
    judged.extend(alone(text, modelled("r", 100, 0.2)));
    let relative = "[[accuracy]]\nmax_drop = \"1%\"\n[[speed]]\nmetric = \"tpot\"\nmax_ratio = 1.02\n[[speed]]\nmetric = \"e2e\"\n\
                    clock = \"modelled\"\nmax_ratio = 1.02";
    judged.extend(against(&gates(relative), modelled("a", 100, 0.2), modelled("b", 105, 0.2)));
    let table = crate::report::compare::gate_table(&judged);
    let shown = Language::ALL.map(|language| {
        let rows = table.rows.iter().zip(&judged).map(|(row, judgement)| {
            let cells = row.cells.iter().chain(&judgement.decide);
            cells.map(|cell| cell.in_language(language)).collect::<Vec<_>>().join(" | ")
        });
        rows.collect::<Vec<_>>().join("\n")
    });
    let names = ["ceval", "mmlu", "tpot", "measured", "modelled"];
    let left: Vec<String> =
        english_words(&shown[1]).into_iter().filter(|word| !names.contains(&word.as_str())).collect();
    assert!(left.is_empty(), "{left:?} in\n{}", shown[1]);
    insta::assert_snapshot!("judgements", shown.join("\n\n"));
}
