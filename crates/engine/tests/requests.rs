//! Requests of the engine: what ends them, what is reported of them, and cancelling them.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::sync::Arc;

use glmbench_device::DType;
use glmbench_device::rotary::RotaryMode;
use glmbench_engine::load::{DeviceKind, LoadOptions, ModelPath, load, load_tokenizer};
use glmbench_engine::logprobs::TokenLogprobs;
use glmbench_engine::model::Capacity;
use glmbench_engine::sampler::{RandomSampling, Sampling};
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{
    Completion, Engine, EngineError, FinishReason, Report, Request, Savings, Scheduling, Step, StepKind,
    Stop, TokenDetail,
};

fn demo() -> (Engine, Arc<Tokenizer>) {
    loaded(4, 16, 512)
}

fn loaded(max_batch: usize, max_logit_rows: usize, max_step_tokens: usize) -> (Engine, Arc<Tokenizer>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let path = ModelPath::Folder(folder.clone());
    let config = path.config(None).unwrap();
    let capacity =
        Capacity { max_logit_rows, max_step_tokens, ..Capacity::for_batch(&config, max_batch, 512) };
    let options = LoadOptions {
        rotary: RotaryMode::Model,
        threads: Some(1),
        ..LoadOptions::plain(DeviceKind::Cpu, DType::Fp16.into(), capacity)
    };
    let weights = path.weights(&config, DType::Fp16).unwrap().into();
    let mut engine = load(&config, weights, &options, &mut |_, _| {}).unwrap();
    let tokenizer = Arc::new(load_tokenizer(&folder, None).unwrap());
    engine.set_tokenizer(Arc::clone(&tokenizer));
    (engine, tokenizer)
}

/// A draw hot enough to reach many kinds of tokens.
fn hot(seed: u64) -> Sampling {
    Sampling::Random(RandomSampling { temperature: 3.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed })
}

fn run(engine: &mut Engine) -> (Vec<Step>, Vec<Completion>) {
    let (mut steps, mut finished) = (Vec::new(), Vec::new());
    while !engine.is_idle() {
        let mut step = engine.step().unwrap();
        finished.append(&mut step.finished);
        steps.push(step);
    }
    finished.sort_by_key(|completion| completion.id);
    (steps, finished)
}

fn one(engine: &mut Engine, request: Request) -> (Vec<TokenDetail>, Completion) {
    engine.submit(request).unwrap();
    let (steps, mut finished) = run(engine);
    (steps.into_iter().flat_map(|step| step.details).collect(), finished.remove(0))
}

fn tokens() -> Report {
    Report { tokens: true, ..Report::default() }
}

#[test]
fn the_texts_of_all_tokens_are_the_decoded_output() {
    let (mut engine, tokenizer) = demo();
    let prompt = tokenizer.encode_prompt("你好");
    for seed in 0..12 {
        let request = Request {
            prompt: prompt.clone(),
            max_new_tokens: 60,
            sampling: hot(seed),
            report: tokens(),
            ..Request::probe()
        };
        let (details, completion) = one(&mut engine, request);
        let joined: String = details.iter().map(|detail| detail.text.as_str()).collect();
        assert_eq!(joined, tokenizer.decode(&completion.tokens));
        assert_eq!(Some(joined), completion.text);
        assert_eq!(details.last().unwrap().finish, Some(completion.finish));
        assert!(details.iter().rev().skip(1).all(|detail| detail.finish.is_none()));
        let ended = usize::from(completion.finish == FinishReason::Eos);
        assert_eq!(details.len(), completion.tokens.len() + ended);
    }
}

#[test]
fn stop_texts_and_stop_tokens_end_an_output() {
    let (mut engine, tokenizer) = demo();
    let prompt = tokenizer.encode_prompt("你好");
    let request = |stop: Stop| Request {
        prompt: prompt.clone(),
        max_new_tokens: 40,
        sampling: hot(3),
        ignore_eos: true,
        stop,
        report: tokens(),
        ..Request::probe()
    };
    let (_, whole) = one(&mut engine, request(Stop::default()));
    let text = whole.text.unwrap();
    // Two characters from the middle, over any border of tokens.
    let middle: String = text.chars().skip(text.chars().count() / 2).take(2).collect();
    let at = text.find(&middle).unwrap();
    let never = "\u{1f40d} never";
    for keep in [false, true] {
        let stop = Stop { texts: vec![never.into(), middle.clone()], keep, ..Stop::default() };
        let (_, stopped) = one(&mut engine, request(stop));
        assert_eq!(stopped.finish, FinishReason::StopText(1));
        assert_eq!(stopped.text.unwrap(), text[..at + if keep { middle.len() } else { 0 }]);
        assert!(whole.tokens.starts_with(&stopped.tokens));
    }
    let token = whole.tokens[10];
    let first = whole.tokens.iter().position(|&t| t == token).unwrap();
    let (details, stopped) = one(&mut engine, request(Stop { ids: [token].into(), ..Stop::default() }));
    assert_eq!((stopped.finish, stopped.tokens.len()), (FinishReason::StopToken(token), first));
    assert_eq!(details.len(), first + 1);
    // Nothing stops it before its time.
    let stop = Stop { ids: [token].into(), texts: vec![middle], min_new_tokens: 40, ..Stop::default() };
    let (_, late) = one(&mut engine, request(stop));
    assert_eq!((late.finish, late.tokens.len()), (FinishReason::Length, 40));
    assert!(!late.tokens.contains(&token));
}

#[test]
fn the_end_of_sequence_waits_for_the_least_number_of_tokens() {
    let (mut engine, tokenizer) = demo();
    let prompt = tokenizer.encode_prompt(&glmbench_engine::chat::build_prompt(&[], "你好"));
    let request = |min_new_tokens| Request {
        prompt: prompt.clone(),
        max_new_tokens: 60,
        stop: Stop { min_new_tokens, ..Stop::default() },
        ..Request::probe()
    };
    let (_, short) = one(&mut engine, request(0));
    assert_eq!(short.finish, FinishReason::Eos);
    let (_, long) = one(&mut engine, request(short.tokens.len() + 5));
    assert!(long.tokens.len() >= short.tokens.len() + 5 && long.tokens.starts_with(&short.tokens));
    assert!(!long.tokens.contains(&2));
}

#[test]
fn log_probabilities_are_those_of_the_logits_however_the_prompt_is_cut() {
    let (mut plain, tokenizer) = demo();
    let prompt: Vec<u32> =
        tokenizer.encode_prompt("北京是中国的首都。").into_iter().cycle().take(90).collect();
    let mut rows = Vec::new();
    plain.teacher_force(&prompt, &mut |_, logits| rows.push(logits.to_vec())).unwrap();
    let ids = vec![5, 2000];
    let expected: Vec<_> =
        (1..prompt.len()).map(|i| Some(TokenLogprobs::of(&rows[i - 1], prompt[i], 3, &ids))).collect();
    let request = Request {
        prompt: prompt.clone(),
        max_new_tokens: 4,
        ignore_eos: true,
        report: Report { tokens: true, top: Some(2), prompt: Some(3), ids },
        ..Request::probe()
    };
    // Few rows of logits, small steps, and company that wants logits as well.
    let sizes = [(4, 16, 512), (4, 4, 512), (4, 5, 7), (1, 1, 1), (3, 64, 40)];
    let orders = [Scheduling::PrefillFirst, Scheduling::Mixed(7), Scheduling::Mixed(512)];
    for (order, (batch, logit_rows, step_tokens)) in
        orders.into_iter().flat_map(|order| sizes.map(|sizes| (order, sizes)))
    {
        let (mut engine, _) = loaded(batch, logit_rows, step_tokens);
        engine.set_scheduling(order);
        for _ in 1..batch {
            let other = Request {
                prompt: prompt[..60].to_vec(),
                max_new_tokens: 9,
                ignore_eos: true,
                ..Request::probe()
            };
            engine.submit(other).unwrap();
        }
        let id = engine.submit(request.clone()).unwrap();
        let (steps, finished) = run(&mut engine);
        let prompts: Vec<_> = steps.iter().flat_map(|step| &step.prompts).collect();
        assert_eq!(prompts.len(), 1);
        assert_eq!((prompts[0].id, &prompts[0].logprobs[0]), (id, &None));
        assert_eq!(prompts[0].logprobs[1..], expected, "{order} {batch} {logit_rows} {step_tokens}");
        let details: Vec<_> = steps.iter().flat_map(|step| &step.details).collect();
        let completion = finished.iter().find(|completion| completion.id == id).unwrap();
        let mut whole = prompt.clone();
        whole.extend(&completion.tokens);
        let mut rows = Vec::new();
        plain.teacher_force(&whole, &mut |_, logits| rows.push(logits.to_vec())).unwrap();
        for (i, detail) in details.iter().enumerate() {
            let row = &rows[prompt.len() - 1 + i];
            let expected = TokenLogprobs::of(row, completion.tokens[i], 2, &[5, 2000]);
            assert_eq!(detail.logprobs.as_ref(), Some(&expected));
            assert_eq!(detail.logprobs.as_ref().unwrap().top[0].0, completion.tokens[i], "greedy");
        }
    }
}

#[test]
fn cancelling_frees_blocks_and_changes_nothing_for_others() {
    let (mut engine, tokenizer) = loaded(2, 2, 512);
    let prompt = tokenizer.encode_prompt("你好");
    let request = |seed| Request {
        prompt: prompt.clone(),
        max_new_tokens: 30,
        ignore_eos: true,
        sampling: hot(seed),
        ..Request::probe()
    };
    let (_, alone) = one(&mut engine, request(1));
    let ids: Vec<_> = (0..4).map(|seed| engine.submit(request(seed)).unwrap()).collect();
    engine.step().unwrap();
    engine.step().unwrap();
    let before = engine.occupancy();
    assert_eq!((before.running, before.waiting), (2, 2));
    // One that runs, one that waits, and neither twice.
    assert!(
        engine.cancel(ids[0]) && engine.cancel(ids[3]) && !engine.cancel(ids[0]) && !engine.cancel(ids[3])
    );
    let after = engine.occupancy();
    assert_eq!((after.running, after.waiting), (1, 1));
    assert!(after.kv_blocks_used < before.kv_blocks_used);
    let (_, finished) = run(&mut engine);
    assert_eq!(finished.iter().map(|completion| completion.id).collect::<Vec<_>>(), [ids[1], ids[2]]);
    assert_eq!(finished[0].tokens, alone.tokens);
    assert_eq!(engine.occupancy().kv_blocks_used, 0);
}

#[test]
fn requests_that_cannot_run_are_refused() {
    let (mut engine, tokenizer) = demo();
    let prompt = tokenizer.encode_prompt("a");
    let far = engine.config().padded_vocab_size as u32;
    for request in [
        Request { stop: Stop { ids: [far].into(), ..Stop::default() }, ..Request::probe() },
        Request { report: Report { ids: vec![far], ..Report::default() }, ..Request::probe() },
    ] {
        let request = Request { prompt: prompt.clone(), max_new_tokens: 1, ..request };
        assert!(matches!(engine.submit(request), Err(EngineError::Request(_))));
    }
    assert!(engine.is_idle());
}

/// Prompts that keep coming do not stop the others' tokens, and the order of the steps changes no result.
#[test]
fn decoding_goes_on_during_prefill_and_changes_no_result() {
    let run_with = |scheduling| {
        let (mut engine, tokenizer) = loaded(4, 16, 8);
        assert_eq!(engine.set_scheduling(scheduling), scheduling);
        let request = |length: usize, seed| Request {
            prompt: tokenizer.encode_prompt("你好").into_iter().cycle().take(length).collect(),
            max_new_tokens: 12,
            sampling: hot(seed),
            ignore_eos: true,
            report: Report { tokens: true, top: Some(3), ..Report::default() },
            ..Request::probe()
        };
        engine.submit(request(6, 0)).unwrap();
        let first = engine.step().unwrap();
        for seed in 1..4 {
            engine.submit(request(90, seed)).unwrap();
        }
        let (mut steps, finished) = run(&mut engine);
        steps.insert(0, first);
        let kinds: Vec<StepKind> = steps.iter().map(|step| step.kind).collect();
        let rows: Vec<_> = steps.iter().map(|step| (step.prompt_tokens, step.tokens)).collect();
        let mut details: Vec<TokenDetail> = steps.into_iter().flat_map(|step| step.details).collect();
        details.sort_by_key(|detail| detail.id);
        let details: Vec<String> = details.iter().map(|detail| format!("{detail:?}")).collect();
        let outputs: Vec<_> = finished.into_iter().map(|completion| completion.tokens).collect();
        (kinds, details, outputs, rows)
    };
    let longest = |kinds: &[StepKind]| {
        let runs = kinds.chunk_by(|a, b| a == b).filter(|run| run[0] == StepKind::Prefill);
        runs.map(<[StepKind]>::len).max().unwrap()
    };
    let (plain, shared) = (run_with(Scheduling::PrefillFirst), run_with(Scheduling::Alternating(2)));
    assert!(longest(&plain.0) > 20, "{:?}", plain.0);
    // The first sequence takes a token after every two steps, for as long as it runs.
    let begin = &shared.0[1..=3 * 10];
    assert!(longest(begin) <= 2 && begin.contains(&StepKind::Decode), "{begin:?}");
    assert_eq!((&plain.1, &plain.2), (&shared.1, &shared.2));
    let mixed = run_with(Scheduling::Mixed(3));
    // The first sequence has a token in every step, with three tokens of the prompts beside it.
    assert_eq!(mixed.0[1..12], [StepKind::Mixed; 11], "{:?}", mixed.0);
    assert_eq!(mixed.3[1..12], [(3, 4); 11], "{:?}", mixed.3);
    // Once it is gone, no token waits, and prompts fill the step.
    assert_eq!((mixed.0[12], mixed.3[12]), (StepKind::Prefill, (8, 8)));
    assert_eq!((plain.1, plain.2), (mixed.1, mixed.2));
}

/// The log-probabilities of the tokens of a prompt are those of teacher forcing to the last bit. Neither shared prefixes nor
/// the number of rows of logits that fit a step matter.
#[test]
fn scored_tokens_of_a_prompt_have_the_bits_of_teacher_forcing() {
    let context = "北京是中国的首都。上海在东部。".repeat(30);
    let expected: Vec<Vec<u32>> = {
        let (mut engine, tokenizer) = loaded(1, 64, 512);
        let mut forced = |text: &str| {
            let prompt = tokenizer.encode_prompt(&format!("{context}{text}"));
            let mut bits = Vec::new();
            engine
                .teacher_force(&prompt, &mut |position, logits| {
                    if let Some(&next) = prompt.get(position + 1) {
                        bits.push((TokenLogprobs::of(logits, next, 0, &[]).token as f32).to_bits());
                    }
                })
                .unwrap();
            bits
        };
        ["广州在南方。", "月亮是圆的，太阳也是。"].map(&mut forced).to_vec()
    };
    for (batch, rows, savings) in
        [(1, 1, Savings::NONE), (4, 5, Savings::NONE), (4, 64, Savings::ALL), (1, 3, Savings::ALL)]
    {
        let (mut engine, tokenizer) = loaded(batch, rows, 64);
        let before = tokenizer.encode_prompt(&context).len();
        let texts = ["广州在南方。", "月亮是圆的，太阳也是。"];
        let mut reused = 0;
        for (index, text) in texts.iter().chain(&texts).enumerate() {
            let prompt = tokenizer.encode_prompt(&format!("{context}{text}"));
            let score_from = Some(before);
            engine
                .submit(Request { prompt: prompt.clone(), score_from, savings, ..Request::probe() })
                .unwrap();
            if batch == 1 || index % 2 == 1 {
                let (steps, finished) = run(&mut engine);
                reused += steps.iter().map(|step| step.saved.reused).sum::<usize>();
                for (place, completion) in finished.iter().enumerate() {
                    let of = &expected[(index + 1 - finished.len() + place) % 2];
                    let found: Vec<u32> = completion.prompt_logprobs.iter().map(|l| l.to_bits()).collect();
                    assert_eq!(found, of[before - 1..], "{batch} {rows} {savings:?}");
                }
            }
        }
        assert_eq!(reused > 0, savings.shared_prefixes, "{batch} {rows}");
    }
    let (mut engine, _) = demo();
    let wrong = |from| Request { prompt: vec![1, 2, 3], score_from: Some(from), ..Request::probe() };
    for from in [0, 3] {
        let error = engine.submit(wrong(from)).unwrap_err().to_string();
        assert!(error.contains("expected one that has a token before it"), "{error}");
    }
}
