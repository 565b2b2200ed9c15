//! What the engine spares itself changes no result: shared prefixes, guessed tokens and steps that both prefill and decode, on
//! every kernel family, device and number of ranks.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::sync::Arc;

use glmbench_ascend::{AscendGroup, Chip, Emulation, Forced, GroupSettings};
use glmbench_cpu::{Family, InstructionSet};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{KvForm, Precision, WeightForm};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::load::{DeviceKind, Emulate, LoadOptions, ModelPath, load, load_tokenizer};
use glmbench_engine::model::{Capacity, attention_shape};
use glmbench_engine::parallel::Ranks;
use glmbench_engine::sampler::{RandomSampling, Sampling};
use glmbench_engine::weights::StorageType;
use glmbench_engine::weights::dummy::Dummy;
use glmbench_engine::{
    Engine, PromptLookup, Report, Request, RequestId, Saved, Savings, Scheduling, Step, StepKind, Stop,
};
use proptest::prelude::*;

/// Guesses also where they cost more than they gain. What is guessed does not depend on time then.
const ALWAYS: Savings = Savings { prompt_lookup: PromptLookup::Always, ..Savings::ALL };

/// A small vocabulary, so that a random model repeats itself.
const VOCAB: usize = 40;

fn config(prefix: Option<usize>) -> ModelConfig {
    let prefix = prefix.map(|length| format!(r#","pre_seq_len":{length}"#)).unwrap_or_default();
    let text = format!(
        r#"{{"model_type":"chatglm","num_layers":2,"hidden_size":64,"ffn_hidden_size":96,"kv_channels":16,
        "num_attention_heads":4,"multi_query_attention":true,"multi_query_group_num":2,
        "padded_vocab_size":{VOCAB},"seq_length":2048,"add_qkv_bias":true{prefix}}}"#
    );
    ModelConfig::from_json(&text, Path::new("config.json")).unwrap()
}

#[derive(Debug, Clone, Copy)]
struct Setup {
    device: DeviceKind,
    precision: Precision,
    instruction_set: Option<InstructionSet>,
    tp: usize,
    threads: usize,
    chunk: usize,
    batch: usize,
    prefix: Option<usize>,
    /// Blocks of the KV cache beyond those of the longest sequence.
    spare_blocks: usize,
    /// Rows of logits of a step, at least one for each sequence.
    logit_rows: usize,
}

impl Setup {
    fn cpu(word: &str) -> Self {
        Self {
            device: DeviceKind::Cpu,
            precision: word.parse().unwrap(),
            instruction_set: None,
            tp: 1,
            threads: 2,
            chunk: 96,
            batch: 3,
            prefix: None,
            spare_blocks: 30,
            logit_rows: 16,
        }
    }

    fn capacity(self, config: &ModelConfig) -> Capacity {
        let one = Capacity::for_batch(config, 1, 1200);
        Capacity {
            max_batch: self.batch,
            max_step_tokens: self.chunk,
            kv_blocks: one.kv_blocks + self.spare_blocks,
            max_logit_rows: self.batch.max(self.logit_rows.min(self.chunk)),
            ..one
        }
    }

    fn engine(self) -> Engine {
        let config = config(self.prefix);
        let options = LoadOptions {
            emulate: self.device.is_card().then_some(Emulate { profile: None, timing_only: false }),
            rotary: RotaryMode::Model,
            threads: Some(self.threads),
            instruction_set: self.instruction_set,
            tp: self.tp,
            ..LoadOptions::plain(self.device, self.precision, self.capacity(&config))
        };
        load(&config, Arc::new(source(&config)), &options, &mut |_, _| {}).unwrap()
    }
}

fn source(config: &ModelConfig) -> Dummy {
    Dummy::new(config.clone(), StorageType::F32, 3)
}

/// Everything that a request's user sees, bits of floats included.
#[derive(Debug, Clone, PartialEq, Default)]
struct Seen {
    tokens: Vec<u32>,
    text: Option<String>,
    /// Of the choices, then of scored tokens of the prompt.
    logprobs: Vec<u32>,
    /// Reports of the prompt and of each token.
    details: Vec<String>,
    finish: String,
}

/// Runs requests to their end. Returns what is seen of each, in the order of their ids, and what was spared.
fn run(engine: &mut Engine, requests: &[Request]) -> (Vec<Seen>, Saved) {
    for request in requests {
        engine.submit(request.clone()).unwrap();
    }
    let mut all = std::collections::BTreeMap::<RequestId, Seen>::new();
    let mut saved = Saved::default();
    while !engine.is_idle() {
        take_step(engine, &mut all, &mut saved);
    }
    (all.into_values().collect(), saved)
}

/// Takes one step. Returns its kind, and its rows: of prompts, and all.
fn take_step(
    engine: &mut Engine,
    all: &mut std::collections::BTreeMap<RequestId, Seen>,
    saved: &mut Saved,
) -> (StepKind, usize, usize) {
    let step = engine.step().unwrap();
    let rows = (step.kind, step.prompt_tokens, step.tokens);
    see(step, all, saved);
    rows
}

fn see(step: Step, all: &mut std::collections::BTreeMap<RequestId, Seen>, saved: &mut Saved) {
    saved.reused += step.saved.reused;
    saved.guessed += step.saved.guessed;
    saved.accepted += step.saved.accepted;
    for detail in step.details {
        all.entry(detail.id)
            .or_default()
            .details
            .push(format!("{detail:?}").replace(&format!("id: {}", detail.id), ""));
    }
    for prompt in step.prompts {
        all.entry(prompt.id).or_default().details.push(format!("{:?}", prompt.logprobs));
    }
    for completion in step.finished {
        let seen = all.entry(completion.id).or_default();
        seen.tokens = completion.tokens;
        seen.text = completion.text;
        let logprobs = completion.choice_logprobs.iter().chain(&completion.prompt_logprobs);
        seen.logprobs = logprobs.map(|logprob| logprob.to_bits()).collect();
        seen.finish = format!("{:?}", completion.finish);
    }
}

/// Prompts that begin alike for `trunk` tokens, and differ in their last `ends`.
fn family(trunk: usize, ends: &[usize]) -> Vec<Vec<u32>> {
    let token = |i: usize| ((i * i + 7 * i + i / 5) % VOCAB) as u32;
    let prompt = |(number, &end): (usize, &usize)| {
        let own = (0..end).map(|i| ((i * (number + 3) + number) % VOCAB) as u32);
        (0..trunk).map(token).chain(own).collect()
    };
    ends.iter().enumerate().map(prompt).collect()
}

fn requests(prompts: &[Vec<u32>], new: usize, savings: Savings) -> Vec<Request> {
    let request = |prompt: &Vec<u32>| Request {
        prompt: prompt.clone(),
        max_new_tokens: new,
        ignore_eos: true,
        choice_ids: (0..VOCAB as u32).collect(),
        report: Report { top: Some(2), tokens: true, ..Report::default() },
        savings,
        ..Request::probe()
    };
    prompts.iter().map(request).collect()
}

/// Checks that nothing changes with savings, in engines made alike. Returns what was spared.
#[track_caller]
fn assert_same(engine: impl Fn() -> Engine, prompts: &[Vec<u32>], what: &str) -> Saved {
    let (expected, nothing) = run(&mut engine(), &requests(prompts, 24, Savings::NONE));
    assert_eq!(nothing, Saved::default(), "{what}");
    let mut sparing = engine();
    let (found, saved) = run(&mut sparing, &requests(prompts, 24, ALWAYS));
    assert_eq!(found, expected, "{what}");
    assert_eq!(sparing.occupancy().kv_blocks_used, 0, "{what}");
    // Again, with all prompts in the cache, and guesses where they gain.
    let (again, more) = run(&mut sparing, &requests(prompts, 24, Savings::ALL));
    assert_eq!(again, expected, "{what}, again");
    assert!(saved.reused > 0 && more.reused >= saved.reused, "{what}: {saved:?} {more:?}");
    for savings in [Savings::NONE, ALWAYS] {
        assert_mixed_same(engine(), &requests(prompts, 24, savings), &expected, what);
    }
    saved
}

/// Prompt tokens beside decoding sequences in tests of mixed steps.
const BESIDE: usize = 50;

/// Checks that nothing changes with mixed steps, and that no sequence ever waits for a prompt, on devices that can mix.
#[track_caller]
fn assert_mixed_same(mut engine: Engine, requests: &[Request], expected: &[Seen], what: &str) {
    let applied = engine.set_scheduling(Scheduling::Mixed(BESIDE));
    for request in requests {
        engine.submit(request.clone()).unwrap();
    }
    let (mut all, mut saved) = (std::collections::BTreeMap::new(), Saved::default());
    let mut mixed = 0;
    while !engine.is_idle() {
        let (kind, prompt_tokens, tokens) = take_step(&mut engine, &mut all, &mut saved);
        if kind == StepKind::Mixed {
            assert!((1..=BESIDE).contains(&prompt_tokens) && tokens > prompt_tokens, "{what}");
            mixed += 1;
        }
    }
    assert_eq!(all.into_values().collect::<Vec<_>>(), expected, "{what}, mixed");
    assert_eq!(engine.occupancy().kv_blocks_used, 0, "{what}");
    match applied {
        Scheduling::Mixed(_) => assert!(mixed > 0, "{what}"),
        alternating => assert_eq!((alternating, mixed), (Scheduling::ALTERNATING, 0), "{what}"),
    }
}

const PRECISIONS: [&str; 6] =
    ["fp32", "fp16", "bf16", "w8a8-dynamic", "fp16+kv-int8", "w8a8-dynamic+kv-int8"];

#[test]
fn nothing_changes_on_any_kernel_family() {
    let prompts = family(300, &[20, 50, 1, 90, 3, 200]);
    for family in Family::ALL {
        for word in PRECISIONS {
            let setup = Setup { instruction_set: Some(family.best()), ..Setup::cpu(word) };
            let saved = assert_same(|| setup.engine(), &prompts, &format!("{word} {}", family.best().name()));
            assert!(saved.accepted > 0, "{word}: {saved:?}");
        }
    }
}

#[test]
fn nothing_changes_on_ranks_the_reference_and_with_a_ptuning_prefix() {
    let prompts = family(260, &[20, 50, 2, 90]);
    let cpu = Setup::cpu("fp16");
    let reference = Setup { device: DeviceKind::Reference, precision: "fp32".parse().unwrap(), ..cpu };
    let mut accepted = 0;
    for setup in [
        Setup { tp: 2, ..cpu },
        Setup { prefix: Some(5), ..cpu },
        Setup { prefix: Some(150), chunk: 512, ..cpu },
        reference,
        Setup { tp: 2, prefix: Some(40), ..reference },
    ] {
        accepted += assert_same(|| setup.engine(), &prompts, &format!("{setup:?}")).accepted;
    }
    assert!(accepted > 0);
}

#[test]
fn nothing_changes_on_emulated_cards() {
    let prompts = family(260, &[20, 50, 2, 90]);
    for device in [DeviceKind::Duo300i, DeviceKind::A2800i] {
        for tp in [1, 2] {
            let setup = Setup { device, tp, chunk: 128, ..Setup::cpu("fp16") };
            let saved = assert_same(|| setup.engine(), &prompts, &format!("{setup:?}"));
            assert_eq!(saved.guessed, 0, "cards decode with an operator of its own");
            let applied = setup.engine().set_scheduling(Scheduling::Mixed(BESIDE));
            assert_eq!(applied, Scheduling::ALTERNATING, "a prompt's rows would change the operator");
        }
    }
    // With one operator for both, rows are independent.
    let config = config(None);
    let engine = || {
        let settings = GroupSettings {
            chip: Chip::Duo300i,
            tp: 1,
            dtype: glmbench_device::DType::Fp16,
            weights: WeightForm::Plain,
            kv: KvForm::Auto,
            attention: attention_shape(&config),
            bind: false,
            forced: Forced::parse("prefill=matmul,decode=matmul").unwrap(),
            emulation: Some(Emulation::new(Chip::Duo300i, None, false).unwrap()),
        };
        let capacity = Setup { chunk: 128, ..Setup::cpu("fp16") }.capacity(&config);
        let group = AscendGroup::new(settings).unwrap();
        let weights = Arc::new(source(&config));
        Engine::new(Box::new(
            Ranks::load(group, &config, RotaryMode::Model, capacity, weights, &mut |_, _| {}).unwrap(),
        ))
    };
    let saved = assert_same(engine, &prompts, "matmul");
    assert!(saved.accepted > 0, "{saved:?}");
    let applied = engine().set_scheduling(Scheduling::Mixed(BESIDE));
    assert_eq!(applied, Scheduling::Mixed(BESIDE));
}

/// Guesses and prompts share a step, and the prompts come first.
#[test]
fn guesses_are_verified_beside_prompts() {
    let setup = Setup { batch: 3, chunk: 96, ..Setup::cpu("fp32") };
    let prompts = family(300, &[20, 50, 1, 90, 3, 200]);
    let savings = Savings { shared_prefixes: false, ..ALWAYS };
    let (expected, _) = run(&mut setup.engine(), &requests(&prompts, 60, Savings::NONE));
    for (beside, logit_rows) in [(20, 16), (96, 16), (20, 3)] {
        let mut engine = Setup { logit_rows, ..setup }.engine();
        engine.set_scheduling(Scheduling::Mixed(beside));
        for request in requests(&prompts, 60, savings) {
            engine.submit(request).unwrap();
        }
        let (mut all, mut guessed) = (std::collections::BTreeMap::new(), 0);
        while !engine.is_idle() {
            let mut saved = Saved::default();
            if take_step(&mut engine, &mut all, &mut saved).0 == StepKind::Mixed {
                guessed += saved.guessed;
            }
        }
        assert_eq!(all.into_values().collect::<Vec<_>>(), expected, "{beside} {logit_rows}");
        assert!(guessed > 0 || beside > 20, "{beside} {logit_rows}");
    }
}

#[test]
fn prompts_that_begin_alike_are_computed_once() {
    let setup = Setup { batch: 8, chunk: 512, spare_blocks: 60, ..Setup::cpu("fp16") };
    let prompts = family(640, &[30; 12]);
    let mut engine = setup.engine();
    let savings = Savings { prompt_lookup: PromptLookup::Never, ..Savings::ALL };
    let (_, saved) = run(&mut engine, &requests(&prompts, 4, savings));
    // All but the first share the trunk, although eight of them come at the same time.
    assert_eq!(saved, Saved { reused: 11 * 640, ..Saved::default() });
    // Timed work finds nothing of it, and leaves nothing.
    for savings in [Savings::NONE, Savings::ALL] {
        let (_, saved) = run(&mut engine, &requests(&prompts[..1], 4, savings));
        assert_eq!(saved.reused, 0);
    }
    engine.clear();
    assert_eq!(run(&mut engine, &requests(&prompts[..1], 4, savings)).1.reused, 0);
}

#[test]
fn a_full_cache_lets_go_of_what_was_used_least_recently() {
    let (long, other) = (family(640, &[30, 31, 32]), family(7, &[700, 701, 702]));
    for spare_blocks in [0, 1, 2, 5] {
        let setup = Setup { batch: 2, spare_blocks, ..Setup::cpu("fp16") };
        let mut engine = setup.engine();
        let prompts = [&long[..1], &other[..1], &long[1..2], &other[1..], &long[2..]].concat();
        let (expected, _) = run(&mut setup.engine(), &requests(&prompts, 9, Savings::NONE));
        for _ in 0..2 {
            assert_eq!(run(&mut engine, &requests(&prompts, 9, ALWAYS)).0, expected, "{spare_blocks}");
        }
        assert_eq!(engine.occupancy().kv_blocks_used, 0);
    }
}

/// The demo model, whose tokenizer stop texts need.
fn demo() -> (Engine, Vec<u32>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
    let path = ModelPath::Folder(folder.clone());
    let config = path.config(None).unwrap();
    let capacity = Capacity { max_logit_rows: 16, ..Capacity::for_batch(&config, 4, 512) };
    let precision: Precision = "fp16".parse().unwrap();
    let options = LoadOptions {
        rotary: RotaryMode::Model,
        threads: Some(1),
        ..LoadOptions::plain(DeviceKind::Cpu, precision, capacity)
    };
    let weights = path.weights(&config, precision.dtype).unwrap().into();
    let mut engine = load(&config, weights, &options, &mut |_, _| {}).unwrap();
    let tokenizer = Arc::new(load_tokenizer(&folder, None).unwrap());
    engine.set_tokenizer(Arc::clone(&tokenizer));
    let question = "北京是中国的首都。北京是中国的首都。上海是中国的城市。北京是".repeat(3);
    (engine, tokenizer.encode_prompt(&question))
}

#[test]
fn whatever_ends_an_output_ends_it_at_the_same_place() {
    let (mut plain, prompt) = demo();
    let (mut sparing, _) = demo();
    let request = |new| Request {
        prompt: prompt.clone(),
        max_new_tokens: new,
        report: Report { tokens: true, top: Some(3), ..Report::default() },
        ..Request::probe()
    };
    let (whole, _) = run(&mut plain, &[Request { ignore_eos: true, ..request(80) }]);
    let text: Vec<char> = whole[0].text.as_ref().unwrap().chars().collect();
    let ids = &whole[0].tokens;
    let mut all = Vec::new();
    for new in [1, 2, 3, 7, 80] {
        all.extend([request(new), Request { ignore_eos: true, ..request(new) }]);
    }
    for (index, middle) in text.windows(2).enumerate().step_by(5) {
        let stop = Stop { texts: vec![middle.iter().collect()], keep: index % 2 == 0, ..Stop::default() };
        all.push(Request { stop, ignore_eos: true, ..request(80) });
    }
    for (index, id) in ids.iter().enumerate().step_by(9) {
        let stop = Stop { ids: [*id].into(), min_new_tokens: index / 2, ..Stop::default() };
        all.push(Request { stop, ..request(80) });
    }
    let hot = RandomSampling { temperature: 0.7, top_k: 0, top_p: 0.9, repetition_penalty: 1.1, seed: 5 };
    all.push(Request { sampling: Sampling::Random(hot), ..request(60) });
    all.push(Request { report: Report { prompt: Some(2), ..request(9).report }, ..request(9) });
    let (expected, _) = run(&mut plain, &all);
    let sparing_all: Vec<Request> =
        all.iter().map(|request| Request { savings: ALWAYS, ..request.clone() }).collect();
    let (found, saved) = run(&mut sparing, &sparing_all);
    assert_eq!(found, expected);
    assert!(saved.accepted > 0 && saved.reused > 0, "{saved:?}");
}

#[derive(Debug, Clone)]
enum Act {
    Submit { trunk: usize, end: usize, new: usize, spares: bool, scored: bool },
    Schedule(Scheduling),
    Step,
    Cancel(usize),
    Clear,
}

fn act() -> impl Strategy<Value = Act> {
    let trunk = prop::sample::select(vec![0, 40, 130, 260, 400]);
    prop_oneof![
        4 => (trunk, 1..80usize, 0..20usize, prop::bool::weighted(0.9), prop::bool::weighted(0.2))
            .prop_map(|(trunk, end, new, spares, scored)| Act::Submit { trunk, end, new, spares, scored }),
        1 => scheduling().prop_map(Act::Schedule),
        8 => Just(Act::Step),
        1 => any::<usize>().prop_map(Act::Cancel),
        1 => prop::bool::weighted(0.1).prop_map(|clear| if clear { Act::Clear } else { Act::Step }),
    ]
}

fn scheduling() -> impl Strategy<Value = Scheduling> {
    prop_oneof![
        1 => Just(Scheduling::PrefillFirst),
        1 => (0..4usize).prop_map(Scheduling::Alternating),
        4 => (0..160usize).prop_map(Scheduling::Mixed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Requests that come and go at any time, under any order of the steps: those that end have the results of a lone engine,
    /// and no block is lost.
    #[test]
    fn requests_that_come_and_go_lose_no_block(
        acts in prop::collection::vec(act(), 1..60),
        batch in 1..5usize,
        chunk in 1..140usize,
        spare_blocks in 0..12usize,
        prefix in prop::option::of(1..140usize),
        logit_rows in 1..24usize,
        at_first in scheduling(),
    ) {
        let setup = Setup { batch, chunk, spare_blocks, prefix, logit_rows, threads: 1, ..Setup::cpu("fp32") };
        let (mut engine, mut lone) = (setup.engine(), Setup { batch: 1, ..setup }.engine());
        engine.set_scheduling(at_first);
        let (mut submitted, mut all, mut saved) = (Vec::new(), std::collections::BTreeMap::new(), Saved::default());
        for act in acts {
            match act {
                Act::Submit { trunk, end, new, spares, scored } => {
                    let prompt = family(trunk, &vec![end; 1 + end % 3]).pop().unwrap();
                    let score_from = Some(prompt.len() / 2).filter(|from| scored && *from > 0);
                    let savings = if spares { ALWAYS } else { Savings::NONE };
                    let request = Request { score_from, ..requests(&[prompt], new, savings).remove(0) };
                    submitted.push((engine.submit(request.clone()).unwrap(), request));
                }
                Act::Schedule(scheduling) => {
                    engine.set_scheduling(scheduling);
                }
                Act::Step => {
                    take_step(&mut engine, &mut all, &mut saved);
                }
                Act::Cancel(number) if !submitted.is_empty() => {
                    let (id, _) = submitted[number % submitted.len()];
                    if engine.cancel(id) {
                        submitted.retain(|(other, _)| *other != id);
                        all.remove(&id);
                    }
                }
                Act::Cancel(_) => {}
                Act::Clear => {
                    engine.clear();
                    let done = |id: &RequestId| all.get(id).is_some_and(|seen: &Seen| !seen.finish.is_empty());
                    submitted.retain(|(id, _)| done(id));
                    all.retain(|id, _| submitted.iter().any(|(other, _)| other == id));
                }
            }
        }
        while !engine.is_idle() {
            take_step(&mut engine, &mut all, &mut saved);
        }
        prop_assert_eq!(engine.occupancy().kv_blocks_used, 0);
        for (id, request) in submitted {
            let (expected, _) = run(&mut lone, &[Request { savings: Savings::NONE, ..request }]);
            prop_assert_eq!(&all[&id], &expected[0], "{}", id);
        }
        // All blocks are there for one sequence that needs them.
        let longest = requests(&family(1100, &[20]), 4, Savings::NONE);
        engine.submit(longest[0].clone()).unwrap();
        prop_assert_eq!(engine.step().unwrap().kind, StepKind::Prefill);
    }
}
