//! A server of the demo model in this process.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use glmbench_cpu::InstructionSet;
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DType, DeviceKind};
use glmbench_engine::load::{LoadOptions, ModelPath, load, load_tokenizer};
use glmbench_engine::model::Capacity;
use glmbench_engine::tokenizer::Tokenizer;
use glmbench_engine::{Engine, Scheduling};
use glmbench_serve::{Described, ServeError, ServeLimits, Settings, bind, serve};
use serde_json::Value;

use crate::http::{Reply, ask};

/// Folder of the demo model.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

/// Loads the demo model.
pub(crate) fn engine(max_batch: usize) -> Engine {
    engine_on(max_batch, None)
}

/// Loads the demo model for an instruction set, by default the best one.
fn engine_on(max_batch: usize, instruction_set: Option<InstructionSet>) -> Engine {
    let path = ModelPath::Folder(folder());
    let config = path.config(None).unwrap();
    let mut capacity = Capacity::for_batch(&config, max_batch, config.seq_length);
    capacity.max_logit_rows = capacity.max_logit_rows.max(16);
    let options = LoadOptions {
        rotary: RotaryMode::Model,
        threads: Some(1),
        instruction_set,
        ..LoadOptions::plain(DeviceKind::Cpu, DType::Fp16.into(), capacity)
    };
    load(&config, path.weights(&config, DType::Fp16).unwrap().into(), &options, &mut |_, _| {}).unwrap()
}

pub(crate) fn tokenizer() -> Tokenizer {
    load_tokenizer(&folder(), None).unwrap()
}

pub(crate) fn settings() -> Settings {
    Settings {
        model: "demo".into(),
        any_model: false,
        prefix_cache: false,
        prefill_chunk: Some(Scheduling::DEFAULT_CHUNK),
        prefix_ids: false,
        key: None,
        drain_delay: Duration::ZERO,
        drain: Duration::from_secs(10),
        described: Described { dtype: DType::Fp16.into(), device: DeviceKind::Cpu, version: "0".into() },
        limits: ServeLimits::default(),
    }
}

/// The log, readable while the server writes it.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A running server. It ends when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) log: Lines,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), ServeError>>>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(8, |_| {})
    }

    pub(crate) fn with(max_batch: usize, change: impl FnOnce(&mut Settings)) -> Self {
        Self::on(max_batch, None, change)
    }

    /// Starts a server whose numbers have the same bits on every machine.
    pub(crate) fn portable() -> Self {
        Self::on(8, Some(InstructionSet::Portable), |_| {})
    }

    fn on(max_batch: usize, set: Option<InstructionSet>, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings();
        change(&mut settings);
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, log) = (Arc::new(AtomicBool::new(false)), Lines::default());
        let (flag, lines) = (Arc::clone(&stop), log.clone());
        let thread = std::thread::spawn(move || {
            let stop = || flag.load(Ordering::SeqCst);
            serve(
                engine_on(max_batch, set),
                Arc::new(tokenizer()),
                listener,
                settings,
                Box::new(lines),
                &stop,
            )
        });
        Self { address, log, stop, thread: Some(thread) }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        ask(self.address, "GET", path, "")
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Reply {
        ask(self.address, "POST", path, body)
    }

    /// Sends a body that must be answered with 200.
    #[track_caller]
    pub(crate) fn ok(&self, path: &str, body: &Value) -> Reply {
        let reply = self.post(path, &body.to_string());
        assert_eq!(reply.status, 200, "{body}: {}", reply.text());
        reply
    }

    /// Returns a series of `/metrics` without further labels.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics");
        let line =
            page.text().lines().find(|line| line.starts_with(&format!("{name}{{model_name=\"demo\"}}")));
        line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits until a series has a value.
    #[track_caller]
    pub(crate) fn wait_for(&self, name: &str, value: f64) {
        let begin = Instant::now();
        while self.metric(name) != value {
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "{name} is {}, not {value}",
                self.metric(name)
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks the server to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Waits for the server's end and returns its log.
    pub(crate) fn end(mut self) -> Vec<Value> {
        self.stop();
        self.thread.take().unwrap().join().unwrap().unwrap();
        let log = self.log.clone();
        drop(self);
        // The log's thread ends behind the server.
        let begin = Instant::now();
        loop {
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            if lines.last().is_some_and(|line| line["event"] == "ended")
                || begin.elapsed() > Duration::from_secs(5)
            {
                return lines;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
