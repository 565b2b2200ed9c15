//! The CPU device's kernels at ChatGLM2-6B's shapes, each compared with the machine's limit measured in the same run.
//!
//! `cargo bench --bench kernels`; `-- gemv` and the like select kernels. Memory-bound kernels run layer after layer, as
//! a decode step does, over more weights or KV cache than fits in any CPU cache. Each line ends with the ratio of the
//! achieved rate to the limit of the machine. The limit is in bytes per second of streamed reads (BW), or in operations
//! per second of the fastest unit for the type (PEAK). `-- gemv` compares all forms of weights.
#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::cell::RefCell;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput};
use glmbench::stats::median;
use glmbench_cpu::{Cpu, CpuOptions, MachineLimits, available_threads, measure_limits};
use glmbench_device::{
    AttentionShape, DType, Device, DeviceError, HostTensor, KV_BLOCK_TOKENS, KvShape, Precision, Role,
    SequenceView,
};

type Activation = <Cpu as Device>::Activation;
type Linear = <Cpu as Device>::Linear;

const HEADS: AttentionShape = AttentionShape { heads: 32, kv_heads: 2, channels: 128 };
const HIDDEN: usize = 4096;
const QKV: usize = 4608;
/// Gate and up projection together.
const GATE_UP: usize = 27392;
const DOWN: usize = GATE_UP / 2;
/// Number of layers whose weights are read in turn, 0.4 GB each.
const WEIGHT_LAYERS: usize = 2;
/// Number of layers whose KV caches are read in turn, 8 MB each at 8,192 tokens.
const CACHE_LAYERS: usize = 28;
const CONTEXT: usize = 8192;
const PREFILL_ROWS: usize = 512;

/// Minimum work of a call. It determines the limit to compare with.
enum Work {
    /// Bytes read from memory.
    Bytes(usize),
    /// Arithmetic operations.
    Flops(usize),
}

fn main() -> Result<(), DeviceError> {
    let limits = measure_limits(available_threads())?;
    println!("BW {:.1} GB/s; {}", limits.bandwidth.all.median / 1e9, limits.method());
    for unit in &limits.units {
        println!("PEAK {} {:.1} x 10^9 operations/s", unit.unit.name(), unit.all.median / 1e9);
    }
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    for precision in Precision::TYPES.into_iter().filter(|of| of.dtype != DType::Fp32) {
        let (limits, cpu) = (&limits, cpu(precision)?);
        let mut bench = Bench { criterion: &mut criterion, limits, precision, cpu };
        bench.products()?;
        if !precision.has_quantised_weights() {
            bench.attention_decode()?;
            bench.attention_prefill()?;
            bench.norm()?;
        }
    }
    criterion.final_summary();
    Ok(())
}

fn cpu(precision: Precision) -> Result<Cpu, DeviceError> {
    let threads = available_threads();
    Cpu::new(CpuOptions { threads, ..CpuOptions::plain(precision, CONTEXT, HEADS) })
}

struct Bench<'a> {
    criterion: &'a mut Criterion,
    limits: &'a MachineLimits,
    precision: Precision,
    cpu: Cpu,
}

impl Bench<'_> {
    /// Times `call` and prints its rate relative to the limit.
    fn time(
        &mut self,
        name: &str,
        work: &Work,
        mut call: impl FnMut(&mut Cpu) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let times = RefCell::new(Vec::new());
        let mut failure = Ok(());
        let name = format!("{name}/{}", self.precision);
        let mut group = self.criterion.benchmark_group("kernels");
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(match *work {
            Work::Bytes(bytes) => Throughput::Bytes(bytes as u64),
            Work::Flops(flops) => Throughput::Elements(flops as u64),
        });
        group.bench_function(&name, |bencher| {
            bencher.iter_custom(|calls| {
                let start = Instant::now();
                for _ in 0..calls {
                    if let Err(error) = call(&mut self.cpu) {
                        failure = Err(error);
                    }
                }
                let took = start.elapsed();
                times.borrow_mut().push(took.as_secs_f64() / calls as f64);
                took
            });
        });
        group.finish();
        failure?;
        // Empty if the command line selected other kernels.
        if let Some(seconds) = median(&times.borrow()) {
            println!("{:40} {:.3} ms, {}", name, 1e3 * seconds, self.against(work, seconds));
        }
        Ok(())
    }

    fn against(&self, work: &Work, seconds: f64) -> String {
        match *work {
            Work::Bytes(bytes) => {
                let (rate, limit) = (bytes as f64 / seconds, self.limits.bandwidth.all.median);
                format!("{:.1} GB/s = {:.2} of BW {:.1}", rate / 1e9, rate / limit, limit / 1e9)
            }
            Work::Flops(flops) => {
                let rate = flops as f64 / seconds;
                match self.limits.peak(self.precision) {
                    Some(peak) => {
                        let limit = peak.rate();
                        let (share, unit) = (rate / limit, peak.of.unit.name());
                        format!("{:.1} GFLOP/s = {share:.2} of PEAK {:.1} ({unit})", rate / 1e9, limit / 1e9)
                    }
                    None => format!("{:.1} GFLOP/s", rate / 1e9),
                }
            }
        }
    }

    /// The four linear layers: one by one with a prompt's rows, and all those of several layers in turn with few rows.
    fn products(&mut self) -> Result<(), DeviceError> {
        let shapes = [
            ("qkv", QKV, HIDDEN),
            ("o_proj", HIDDEN, HIDDEN),
            ("gate_up", GATE_UP, HIDDEN),
            ("down", HIDDEN, DOWN),
        ];
        let mut layers: Vec<Vec<Linear>> = Vec::new();
        for _ in 0..WEIGHT_LAYERS {
            layers.push(shapes.iter().map(|&(_, n, k)| self.weight(n, k)).collect::<Result<_, _>>()?);
        }
        let widths = [(HIDDEN, QKV), (HIDDEN, HIDDEN), (HIDDEN, GATE_UP), (DOWN, HIDDEN)];
        let pair = |&(k, n): &(usize, usize)| {
            Ok((self.rows(PREFILL_ROWS, k)?, self.cpu.activation(PREFILL_ROWS, n)?))
        };
        let mut pairs = widths.iter().map(pair).collect::<Result<Vec<_>, DeviceError>>()?;
        for (i, (name, n, k)) in shapes.into_iter().enumerate() {
            let (x, out) = &mut pairs[i];
            let weight = &layers[0][i];
            let work = Work::Flops(2 * PREFILL_ROWS * n * k);
            self.time(&format!("gemm/{name}/{PREFILL_ROWS} rows"), &work, |cpu| cpu.linear(x, weight, out))?;
        }
        let storage = self.precision.storage();
        let bytes: u64 = shapes.iter().map(|(_, n, k)| storage.bytes(*n as u64, *k as u64)).sum();
        for rows in [1, 8] {
            let pair = |&(k, n): &(usize, usize)| Ok((self.rows(rows, k)?, self.cpu.activation(rows, n)?));
            let mut pairs = widths.iter().map(pair).collect::<Result<Vec<_>, DeviceError>>()?;
            let work = Work::Bytes(WEIGHT_LAYERS * bytes as usize);
            self.time(&format!("gemv/a layer's four/{rows} rows"), &work, |cpu| {
                for layer in &layers {
                    for (weight, (x, out)) in layer.iter().zip(&mut pairs) {
                        cpu.linear(x, weight, out)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// One row attending to a long context, layer after layer.
    fn attention_decode(&mut self) -> Result<(), DeviceError> {
        let blocks: Vec<u32> = (0..(CONTEXT / KV_BLOCK_TOKENS) as u32).collect();
        let shape = KvShape {
            layers: CACHE_LAYERS,
            kv_heads: HEADS.kv_heads,
            channels: HEADS.channels,
            blocks: blocks.len(),
        };
        let mut cache = self.cpu.kv_cache(shape)?;
        // Writes every page, because all unwritten pages map to the same page of zeros.
        let qkv = self.rows(PREFILL_ROWS, QKV)?;
        for layer in 0..CACHE_LAYERS {
            for context in (PREFILL_ROWS..=CONTEXT).step_by(PREFILL_ROWS) {
                let view = SequenceView { rows: 0..PREFILL_ROWS, context, blocks: &blocks };
                self.cpu.write_kv(&qkv, &mut cache, layer, &[view], HEADS)?;
            }
        }
        let qkv = self.rows(1, QKV)?;
        let mut out = self.cpu.activation(1, HIDDEN)?;
        let view = [SequenceView { rows: 0..1, context: CONTEXT, blocks: &blocks }];
        let bytes =
            CACHE_LAYERS * CONTEXT * 2 * HEADS.kv_heads * HEADS.channels * self.precision.dtype.bytes();
        self.time(&format!("attention/decode at {CONTEXT}"), &Work::Bytes(bytes), |cpu| {
            (0..CACHE_LAYERS).try_for_each(|layer| cpu.attention(&qkv, &cache, layer, &view, HEADS, &mut out))
        })
    }

    /// A whole prompt attending to itself.
    fn attention_prefill(&mut self) -> Result<(), DeviceError> {
        let blocks: Vec<u32> = (0..(PREFILL_ROWS / KV_BLOCK_TOKENS) as u32).collect();
        let (kv_heads, channels) = (HEADS.kv_heads, HEADS.channels);
        let mut cache = self.cpu.kv_cache(KvShape { layers: 1, kv_heads, channels, blocks: blocks.len() })?;
        let qkv = self.rows(PREFILL_ROWS, QKV)?;
        let mut out = self.cpu.activation(PREFILL_ROWS, HIDDEN)?;
        let view = [SequenceView { rows: 0..PREFILL_ROWS, context: PREFILL_ROWS, blocks: &blocks }];
        self.cpu.write_kv(&qkv, &mut cache, 0, &view, HEADS)?;
        let seen = PREFILL_ROWS * (PREFILL_ROWS + 1) / 2;
        let work = Work::Flops(4 * HEADS.heads * HEADS.channels * seen);
        self.time(&format!("attention/prefill {PREFILL_ROWS}"), &work, |cpu| {
            cpu.attention(&qkv, &cache, 0, &view, HEADS, &mut out)
        })
    }

    /// Activations in fp32, read and written. They may be in cache, so the rate can exceed BW.
    fn norm(&mut self) -> Result<(), DeviceError> {
        let data = bytes_of(DType::Fp32, HIDDEN);
        let weight = HostTensor { dtype: DType::Fp32, rows: 1, width: HIDDEN, data: &data };
        let weight = self.cpu.upload_vector(weight)?;
        for rows in [1, PREFILL_ROWS] {
            let x = self.rows(rows, HIDDEN)?;
            let mut out = self.cpu.activation(rows, HIDDEN)?;
            let work = Work::Bytes(2 * 4 * rows * HIDDEN);
            self.time(&format!("norm/{rows} rows"), &work, |cpu| cpu.rms_norm(&x, &weight, 1e-5, &mut out))?;
        }
        Ok(())
    }

    fn weight(&self, n: usize, k: usize) -> Result<Linear, DeviceError> {
        let dtype = self.precision.dtype;
        let data = bytes_of(dtype, n * k);
        let dense = HostTensor { dtype, rows: n, width: k, data: &data };
        self.cpu.upload_linear(Role::Down, self.precision.weights.of_dense(dense), None)
    }

    fn rows(&mut self, rows: usize, width: usize) -> Result<Activation, DeviceError> {
        let mut x = self.cpu.activation(rows, width)?;
        let data: Vec<f32> = (0..rows * width).map(|i| number(i) as f32 / 4096.0).collect();
        self.cpu.upload(&data, &mut x)?;
        Ok(x)
    }
}

/// Returns a number from -2048 to 2047, without a pattern that a cache or a predictor could use.
fn number(i: usize) -> i32 {
    ((i as u32).wrapping_mul(0x9E37_79B9) >> 20) as i32 - 2048
}

/// Returns small numbers of both signs, little-endian.
fn bytes_of(dtype: DType, numbers: usize) -> Vec<u8> {
    let value = |i: usize| number(i) as f32 / 65536.0;
    match dtype {
        DType::Fp32 => (0..numbers).flat_map(|i| value(i).to_le_bytes()).collect(),
        DType::Fp16 => (0..numbers).flat_map(|i| half::f16::from_f32(value(i)).to_le_bytes()).collect(),
        DType::Bf16 => (0..numbers).flat_map(|i| half::bf16::from_f32(value(i)).to_le_bytes()).collect(),
    }
}
