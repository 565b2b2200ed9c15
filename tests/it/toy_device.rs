//! The smallest example of a device: the reference under a name of its own, with a count of its products. `docs/ADDING.md`
//! points to it. The forward pass, the scheduler, a run, its record and its report take it as they take any other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use glmbench::language::Language;
use glmbench::record::{RepetitionKind, RunDir};
use glmbench::report::{Verdict, render};
use glmbench::run::Ending;
use glmbench::run::plan::Plan;
use glmbench::suite::Suite;
use glmbench_device::hooked::{Hooked, Hooks};
use glmbench_device::reference::Reference;
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, Device, DeviceError, DeviceInfo, LinearWeight, Role};
use glmbench_engine::Engine;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::{Capacity, Model};
use glmbench_engine::weights::open_checkpoint;

use crate::in_process::execute_in;

/// Counts the products of the device.
#[derive(Debug, Default)]
struct Count {
    products: Arc<AtomicU64>,
}

impl Hooks<Reference> for Count {
    type Mark = ();

    fn mark(&self, _: Role, _: &LinearWeight<'_>) {}

    fn info(&self, _: DeviceInfo) -> DeviceInfo {
        let products = self.products.load(Ordering::Relaxed);
        let details = vec![("products so far".to_owned(), products.to_string())];
        DeviceInfo { details, ..DeviceInfo::plain("toy", "counted", 1, DType::Fp32) }
    }

    fn linear(
        &mut self,
        _: &mut Reference,
        _: &<Reference as Device>::Activation,
        (): &(),
    ) -> Result<(), DeviceError> {
        self.products.fetch_add(1, Ordering::Relaxed);
        Ok(())
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
    let ending = execute_in(root.path(), &suite, &config, &plan, Box::new(engine), usize::MAX).unwrap();
    assert_eq!(ending, Ending::Complete);
    let lines = RunDir::open(&root.path().join("r")).unwrap().read_requests().unwrap();
    let timed = lines.into_iter().filter(|line| line.kind == RepetitionKind::Timed);
    let hashes = timed.map(|line| line.output_hash).collect();
    (root, hashes)
}

#[test]
fn the_device_runs_a_suite_and_the_record_has_its_word() {
    let count = Count::default();
    let products = Arc::clone(&count.products);
    let (root, hashes) = run(Hooked::new(Reference::default(), count));
    assert_eq!(hashes, run(Reference::default()).1, "the numbers are those of the device inside");
    assert!(products.load(Ordering::Relaxed) > 100);
    let dir = root.path().join("r");
    let record = RunDir::open(&dir).unwrap().read_run().unwrap();
    assert_eq!(record.provenance.device.to_string(), "toy");
    assert_eq!(record.provenance.kernel, "counted");
    assert!(record.provenance.device_details.contains_key("products so far"));
    let summary = render(&dir, Language::En).unwrap();
    assert_ne!(summary.verdict(), Verdict::Incomplete);
    assert!(summary.title().contains("toy"), "{}", summary.title());
}
