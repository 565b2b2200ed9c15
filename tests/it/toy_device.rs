//! The smallest example of a device: the reference under a name of its own, with a count of its products. `docs/ADDING.md`
//! points here. The forward pass, the scheduler, a run, its record and its report take it as they take any other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use glmbench::backend::Backend;
use glmbench::record::{RepetitionKind, RunDir, RunRecord};
use glmbench::report::{Verdict, render};
use glmbench::run::plan::Plan;
use glmbench::run::provenance::record;
use glmbench::run::{Ending, Observer, RunError, execute, open_dir};
use glmbench::suite::Suite;
use glmbench_device::reference::Reference;
use glmbench_device::rotary::{RotaryMode, RotaryTable};
use glmbench_device::{
    AttentionShape, DType, Device, DeviceError, DeviceInfo, HostTensor, KvChannels, KvShape, LinearWeight,
    Role, SequenceView,
};
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::{Capacity, Model};
use glmbench_engine::weights::open_checkpoint;
use glmbench_engine::{Engine, EngineError};

use crate::in_process::{StopAfter, origin};

/// The device.
#[derive(Debug, Default)]
struct Toy {
    reference: Reference,
    products: Arc<AtomicU64>,
}

type Of<T> = Result<T, DeviceError>;
type Activation = <Reference as Device>::Activation;
type Linear = <Reference as Device>::Linear;
type Table = <Reference as Device>::Table;
type KvCache = <Reference as Device>::KvCache;

impl Device for Toy {
    type Activation = Activation;
    type Linear = Linear;
    type Vector = Vec<f32>;
    type Table = Table;
    type Rotary = RotaryTable;
    type KvCache = KvCache;

    fn info(&self) -> DeviceInfo {
        let products = self.products.load(Ordering::Relaxed);
        let details = vec![("products so far".to_owned(), products.to_string())];
        DeviceInfo { details, ..DeviceInfo::plain("toy", "counted", 1, DType::Fp32) }
    }

    fn activation(&self, max_rows: usize, width: usize) -> Of<Activation> {
        self.reference.activation(max_rows, width)
    }

    fn upload_linear(
        &self,
        role: Role,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
    ) -> Of<Linear> {
        self.reference.upload_linear(role, weight, bias)
    }

    fn upload_vector(&self, values: HostTensor<'_>) -> Of<Vec<f32>> {
        self.reference.upload_vector(values)
    }

    fn upload_table(&self, table: HostTensor<'_>) -> Of<Table> {
        self.reference.upload_table(table)
    }

    fn upload_rotary(&self, table: &RotaryTable) -> Of<RotaryTable> {
        self.reference.upload_rotary(table)
    }

    fn kv_cache(&self, shape: KvShape) -> Of<KvCache> {
        self.reference.kv_cache(shape)
    }

    fn kv_cache_of_channels(&self, shape: KvShape, channels: &KvChannels) -> Of<KvCache> {
        self.reference.kv_cache_of_channels(shape, channels)
    }

    fn embed(&mut self, table: &Table, ids: &[u32], out: &mut Activation) -> Of<()> {
        self.reference.embed(table, ids, out)
    }

    fn rms_norm(&mut self, x: &Activation, weight: &Vec<f32>, epsilon: f32, out: &mut Activation) -> Of<()> {
        self.reference.rms_norm(x, weight, epsilon, out)
    }

    fn linear(&mut self, x: &Activation, weight: &Linear, out: &mut Activation) -> Of<()> {
        self.products.fetch_add(1, Ordering::Relaxed);
        self.reference.linear(x, weight, out)
    }

    fn rotary(
        &mut self,
        qkv: &mut Activation,
        table: &RotaryTable,
        positions: &[u32],
        shape: AttentionShape,
    ) -> Of<()> {
        self.reference.rotary(qkv, table, positions, shape)
    }

    fn write_kv(
        &mut self,
        qkv: &Activation,
        cache: &mut KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
    ) -> Of<()> {
        self.reference.write_kv(qkv, cache, layer, sequences, shape)
    }

    fn copy_kv_block(&mut self, cache: &mut KvCache, from: u32, to: u32, tokens: usize) -> Of<()> {
        self.reference.copy_kv_block(cache, from, to, tokens)
    }

    fn attention(
        &mut self,
        qkv: &Activation,
        cache: &KvCache,
        layer: usize,
        sequences: &[SequenceView<'_>],
        shape: AttentionShape,
        out: &mut Activation,
    ) -> Of<()> {
        self.reference.attention(qkv, cache, layer, sequences, shape, out)
    }

    fn add(&mut self, x: &mut Activation, y: &Activation) -> Of<()> {
        self.reference.add(x, y)
    }

    fn swiglu(&mut self, h: &Activation, out: &mut Activation) -> Of<()> {
        self.reference.swiglu(h, out)
    }

    fn gather(&mut self, x: &Activation, rows: &[usize], out: &mut Activation) -> Of<()> {
        self.reference.gather(x, rows, out)
    }

    fn download(&mut self, x: &Activation, out: &mut Vec<f32>) -> Of<()> {
        self.reference.download(x, out)
    }

    fn upload(&mut self, rows: &[f32], out: &mut Activation) -> Of<()> {
        self.reference.upload(rows, out)
    }
}

/// Runs two shapes with the demo model on a device, and returns the directory and the hashes of the outputs.
fn run(device: impl Device + 'static) -> (tempfile::TempDir, Vec<String>) {
    let root = tempfile::tempdir().unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let config = ModelConfig::from_file(&demo.join("config.json")).unwrap();
    let text = "schema = 1\nname = \"s\"\n[[performance]]\nbatch = [1, 2]\nlengths = [[12, 3]]\nrepetitions = 2\nmax_warmups = 1\n";
    let suite = Suite::parse(Path::new("s.toml"), text, &[]).unwrap();
    let plan = Plan::new(&suite, &config, None, 512).unwrap();
    let capacity = Capacity::for_batch(&config, 2, 32);
    let weights = open_checkpoint(&demo).unwrap();
    let model = Model::load(device, &config, RotaryMode::Model, capacity, &*weights, &mut |_, _| {}).unwrap();
    let engine = Engine::new(Box::new(model));
    let first = RunRecord {
        run_id: "r".into(),
        ..record(&origin(&suite, &config, &engine as &dyn Backend), &plan, &config)
    };
    let (mut dir, mut run) = open_dir(root.path(), None, first).unwrap();
    let stop = AtomicBool::new(false);
    let mut observer = StopAfter(AtomicUsize::new(usize::MAX), &stop);
    let mut reload =
        |_, _: &mut dyn Observer| Err(RunError::Engine(EngineError::Option("one world only".into())));
    let ending =
        execute(&plan, Box::new(engine), &mut reload, &mut dir, &mut run, &mut observer, &stop).unwrap();
    assert_eq!(ending, Ending::Complete);
    let lines = RunDir::open(&root.path().join("r")).unwrap().read_requests().unwrap();
    let timed = lines.into_iter().filter(|line| line.kind == RepetitionKind::Timed);
    let hashes = timed.map(|line| line.output_hash).collect();
    (root, hashes)
}

#[test]
fn the_device_runs_a_suite_and_the_record_has_its_word() {
    let toy = Toy::default();
    let products = Arc::clone(&toy.products);
    let (root, hashes) = run(toy);
    assert_eq!(hashes, run(Reference::default()).1, "the numbers are those of the device inside");
    assert!(products.load(Ordering::Relaxed) > 100);
    let dir = root.path().join("r");
    let record = RunDir::open(&dir).unwrap().read_run().unwrap();
    assert_eq!(record.provenance.device.to_string(), "toy");
    assert_eq!(record.provenance.kernel, "counted");
    assert!(record.provenance.device_details.contains_key("products so far"));
    let summary = render(&dir).unwrap();
    assert_ne!(summary.verdict(), Verdict::Incomplete);
    assert!(summary.title().contains("toy"), "{}", summary.title());
}
