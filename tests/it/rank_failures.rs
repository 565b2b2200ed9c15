//! A failing rank ends the run with one error. No rank waits forever, and every device is dropped on the thread that
//! made it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::ThreadId;
use std::time::Duration;

use glmbench_device::group::DeviceGroup;
use glmbench_device::hooked::{Hooked, Hooks};
use glmbench_device::reference::{Reference, ReferenceGroup};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DeviceError, DeviceInfo, LinearWeight, Role, SequenceView};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::{Capacity, Forward, StepInput};
use glmbench_engine::parallel::Ranks;
use glmbench_engine::weights::StorageType;
use glmbench_engine::weights::dummy::Dummy;
use glmbench_engine::{Engine, EngineError, Request};

/// The place at which rank 1 fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    Device,
    Cache,
    /// With an error at this addition, counted from 1.
    Error(usize),
    /// With a panic at this addition, counted from 1.
    Panic(usize),
}

/// Ranks of the reference device; rank 1 fails.
struct Faulty {
    ranks: ReferenceGroup,
    fault: Fault,
    alive: Arc<AtomicUsize>,
}

impl DeviceGroup for Faulty {
    type Device = Hooked<Reference, Watch>;

    fn name(&self) -> &'static str {
        "faulty"
    }

    fn tp(&self) -> usize {
        self.ranks.tp()
    }

    fn device(&self, rank: usize) -> Result<Self::Device, DeviceError> {
        let fault = if rank == 1 { self.fault } else { Fault::None };
        if fault == Fault::Device {
            return Err(planted());
        }
        self.alive.fetch_add(1, Ordering::SeqCst);
        let (alive, home) = (Arc::clone(&self.alive), std::thread::current().id());
        let hooks = Watch { rank, fault, additions: 0, alive, home };
        Ok(Hooked::new(self.ranks.device(rank)?, hooks))
    }

    fn abort(&self) {
        self.ranks.abort();
    }
}

fn planted() -> DeviceError {
    DeviceError::OutOfMemory { device: "faulty", what: "a planted fault".into(), wanted_bytes: 1 }
}

/// A planted fault in the device of a rank. It knows its own thread.
struct Watch {
    rank: usize,
    fault: Fault,
    additions: usize,
    alive: Arc<AtomicUsize>,
    home: ThreadId,
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A device dropped on another thread still counts as alive.
        if std::thread::current().id() == self.home {
            self.alive.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Hooks<Reference> for Watch {
    type Mark = ();

    fn mark(&self, _: Role, _: &LinearWeight<'_>) {}

    fn info(&self, of: DeviceInfo) -> DeviceInfo {
        let details = vec![("chip".into(), "c".into()), ("place".into(), format!("seat {}", self.rank))];
        DeviceInfo { details, ..of }
    }

    fn kv_cache(&self) -> Result<(), DeviceError> {
        if self.fault == Fault::Cache { Err(planted()) } else { Ok(()) }
    }

    fn add(&mut self) -> Result<(), DeviceError> {
        self.additions += 1;
        assert!(self.fault != Fault::Panic(self.additions), "a planted panic");
        if self.fault == Fault::Error(self.additions) { Err(planted()) } else { Ok(()) }
    }

    fn modelled_ns(&self, _: &Reference) -> Option<u64> {
        Some((100 * self.additions + self.rank) as u64)
    }
}

/// Two layers, so there are four additions per step.
fn config() -> ModelConfig {
    let text = r#"{"model_type":"chatglm","num_layers":2,"hidden_size":24,"ffn_hidden_size":32,"kv_channels":8,
        "num_attention_heads":4,"multi_query_attention":true,"multi_query_group_num":2,
        "padded_vocab_size":64,"seq_length":512,"add_qkv_bias":true}"#;
    ModelConfig::from_json(text, Path::new("config.json")).unwrap()
}

fn load(tp: usize, fault: Fault, alive: &Arc<AtomicUsize>) -> Result<Ranks, EngineError> {
    let config = config();
    let group = Faulty { ranks: ReferenceGroup::new(tp), fault, alive: Arc::clone(alive) };
    let capacity = Capacity::for_batch(&config, 2, 100);
    let source = Arc::new(Dummy::new(config.clone(), StorageType::F32, 1));
    Ranks::load(group, &config, RotaryMode::Exact, capacity, source, &mut |_, _| {})
}

/// Returns the result of `work`, or fails if it hangs.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    std::thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(Duration::from_secs(20)).expect("an end within 20 seconds")
}

fn step(ranks: &mut Ranks) -> Result<Vec<f32>, EngineError> {
    let view = SequenceView { rows: 0..2, context: 2, blocks: &[0] };
    let input = StepInput { tokens: &[3, 4], positions: &[0, 1], sequences: &[view], logit_rows: &[0, 1] };
    let mut logits = Vec::new();
    ranks.forward(&input, &mut logits).map(|()| logits)
}

#[test]
fn a_rank_that_cannot_load_is_the_loads_error() {
    for tp in [2, 4] {
        for fault in [Fault::Device, Fault::Cache] {
            let alive = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&alive);
            let error = in_time(move || load(tp, fault, &counted).err().unwrap());
            assert!(error.to_string().contains("a planted fault"), "{error}");
            assert_eq!(alive.load(Ordering::SeqCst), 0, "{fault:?}");
        }
    }
}

#[test]
fn a_rank_that_fails_in_a_step_ends_all_with_its_own_error() {
    // Additions 1 and 2 are in the first step, 4 is its last, and 7 is in the second step. The other ranks are then in
    // a sum or at its end.
    for (tp, at) in [(2, 1), (2, 4), (4, 2), (4, 7)] {
        let alive = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&alive);
        let (first, second) = in_time(move || {
            let mut ranks = load(tp, Fault::Error(at), &counted).unwrap();
            let first = (0..2).find_map(|_| step(&mut ranks).err()).unwrap();
            (first, step(&mut ranks).unwrap_err())
        });
        assert!(matches!(first, EngineError::Device(DeviceError::OutOfMemory { .. })), "{first}");
        assert!(first.to_string().contains("a planted fault"), "{first}");
        let second = second.to_string();
        assert!(second.contains(&format!("rank 1 of {tp} had failed")), "{second}");
        assert_eq!(alive.load(Ordering::SeqCst), 0, "tp {tp}");
    }
}

#[test]
fn a_rank_that_panics_is_a_lost_device() {
    let alive = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&alive);
    let error = in_time(move || {
        let mut ranks = load(2, Fault::Panic(3), &counted).unwrap();
        step(&mut ranks).unwrap_err()
    });
    assert!(matches!(error, EngineError::Device(DeviceError::Lost { device: "faulty", .. })), "{error}");
    assert!(error.to_string().contains("rank 1 of 2 panicked: a planted panic"), "{error}");
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

#[test]
fn a_drop_ends_every_rank_on_its_own_thread() {
    for tp in [1, 2, 4] {
        let alive = Arc::new(AtomicUsize::new(0));
        let ranks = load(tp, Fault::None, &alive).unwrap();
        assert_eq!(alive.load(Ordering::SeqCst), tp);
        in_time(move || drop(ranks));
        assert_eq!(alive.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn the_clock_is_the_furthest_rank_s_and_details_name_the_rank() {
    let alive = Arc::new(AtomicUsize::new(0));
    let mut ranks = load(2, Fault::None, &alive).unwrap();
    assert_eq!(ranks.modelled_ns(), Some(1));
    assert_eq!(step(&mut ranks).unwrap().len(), 2 * 64);
    assert_eq!(ranks.modelled_ns(), Some(401));
    let info = ranks.device_info();
    assert_eq!(info.tp, 2);
    let details: Vec<(&str, &str)> = info.details.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(details, [("chip", "c"), ("place", "seat 0"), ("place (rank 1)", "seat 1")]);
}

#[test]
fn one_rank_is_the_model_and_an_engine_drives_any_number() {
    let tokens = |tp: usize| {
        let alive = Arc::new(AtomicUsize::new(0));
        let mut engine = Engine::new(Box::new(load(tp, Fault::None, &alive).unwrap()));
        engine.submit(Request { prompt: vec![1, 2, 3], max_new_tokens: 8, ..Request::probe() }).unwrap();
        let mut tokens = Vec::new();
        while !engine.is_idle() {
            tokens.extend(engine.step().unwrap().emitted.into_iter().map(|(_, token)| token));
        }
        tokens
    };
    assert_eq!(tokens(1), tokens(2));
    assert_eq!(tokens(1), tokens(4));
}
