//! Laws of every kernel family, over whole layers. A row's numbers depend on neither batch, chunks nor threads. All
//! sets of a family give the same bits. The numbers agree with the reference device.
//!
//! `tests/it/invariance.rs` and `goldens.rs` check the same with whole models, of the families that a build has. The example of
//! a family, which only test builds of this crate have, is checked here.

use glmbench_device::reference::Reference;
use glmbench_device::rotary::{RotaryMode, RotaryScaling, RotarySpec, RotaryTable};
use glmbench_device::{AttentionShape, DType, Device, HostTensor, KvShape, Precision, Role, SequenceView};

use crate::{Cpu, CpuOptions, Family, InstructionSet};

const SHAPE: AttentionShape = AttentionShape { heads: 4, kv_heads: 2, channels: 12 };
/// Widths that fill neither a panel nor a tile.
const HIDDEN: usize = 52;
const INNER: usize = 75;
const VOCAB: usize = 40;
const TOKENS: usize = 70;

/// Numbers of a tensor, as fp32 bytes: of both signs, with mean 0.
fn numbers(count: usize, seed: usize) -> Vec<u8> {
    let number = |i: usize| (((i * 37 + seed * 11) % 101) as f32 - 50.0) / 160.0;
    (0..count).flat_map(|i| number(i).to_le_bytes()).collect()
}

/// A tensor in fp32.
struct Numbers {
    rows: usize,
    width: usize,
    data: Vec<u8>,
}

impl Numbers {
    fn new(rows: usize, width: usize, seed: usize) -> Self {
        Self { rows, width, data: numbers(rows * width, seed) }
    }

    fn host(&self) -> HostTensor<'_> {
        HostTensor { dtype: DType::Fp32, rows: self.rows, width: self.width, data: &self.data }
    }
}

/// A layer of the model with its weights on a device.
struct Layer<D: Device> {
    device: D,
    table: D::Table,
    norm: D::Vector,
    rotary: D::Rotary,
    cache: D::KvCache,
    qkv: D::Linear,
    dense: D::Linear,
    gate_up: D::Linear,
    down: D::Linear,
}

impl<D: Device> Layer<D> {
    fn new(device: D) -> Self {
        let precision = device.info().precision;
        let linear = |role, rows, width, seed| {
            let (weight, bias) = (Numbers::new(rows, width, seed), Numbers::new(1, rows, seed + 1));
            let weight = precision.weights.of_dense(weight.host());
            device.upload_linear(role, weight, Some(bias.host())).unwrap()
        };
        let q_width = SHAPE.heads * SHAPE.channels;
        let spec = RotarySpec {
            channels: SHAPE.channels / 2,
            scaling: RotaryScaling::None,
            mode: RotaryMode::Exact,
            dtype: precision.dtype,
        };
        let blocks = KvShape { layers: 1, kv_heads: SHAPE.kv_heads, channels: SHAPE.channels, blocks: 2 };
        Self {
            table: device.upload_table(Numbers::new(VOCAB, HIDDEN, 1).host()).unwrap(),
            norm: device.upload_vector(Numbers::new(1, HIDDEN, 2).host()).unwrap(),
            rotary: device.upload_rotary(&RotaryTable::new(spec, TOKENS)).unwrap(),
            cache: device.kv_cache(blocks).unwrap(),
            qkv: linear(Role::Qkv, q_width + 2 * SHAPE.kv_heads * SHAPE.channels, HIDDEN, 3),
            dense: linear(Role::Dense, HIDDEN, q_width, 5),
            gate_up: linear(Role::GateUp, 2 * INNER, HIDDEN, 7),
            down: linear(Role::Down, HIDDEN, INNER, 9),
            device,
        }
    }

    /// Returns the outputs `[TOKENS, HIDDEN]` of a sequence that is fed in chunks, beside another one if `beside`.
    fn run(&mut self, chunk: usize, beside: bool) -> Vec<f32> {
        let device = &mut self.device;
        let rows = 2 * TOKENS;
        let mut x = device.activation(rows, HIDDEN).unwrap();
        let mut y = device.activation(rows, HIDDEN).unwrap();
        let mut qkv = device.qkv_activation(rows, SHAPE).unwrap();
        let mut attended = device.activation(rows, SHAPE.heads * SHAPE.channels).unwrap();
        let mut h = device.activation(rows, 2 * INNER).unwrap();
        let mut inner = device.activation(rows, INNER).unwrap();
        let mut outputs = Vec::new();
        for first in (0..TOKENS).step_by(chunk) {
            let chunk = chunk.min(TOKENS - first);
            let id = |token: usize, sequence: usize| ((token * 7 + sequence * 3) % VOCAB) as u32;
            let sequences = 1 + usize::from(beside);
            let of_sequence = |s| (first..first + chunk).map(move |token| (id(token, s), token as u32));
            let (ids, positions): (Vec<u32>, Vec<u32>) = (0..sequences).flat_map(of_sequence).unzip();
            let view = |s: usize| SequenceView {
                rows: s * chunk..(s + 1) * chunk,
                context: first + chunk,
                blocks: [&[0], &[1]][s],
            };
            let views: Vec<SequenceView<'_>> = (0..sequences).map(view).collect();
            device.embed(&self.table, &ids, &mut x).unwrap();
            device.rms_norm(&x, &self.norm, 1e-5, &mut y).unwrap();
            device.linear(&y, &self.qkv, &mut qkv).unwrap();
            device.rotary(&mut qkv, &self.rotary, &positions, SHAPE).unwrap();
            device.write_kv(&qkv, &mut self.cache, 0, &views, SHAPE).unwrap();
            device.attention(&qkv, &self.cache, 0, &views, SHAPE, &mut attended).unwrap();
            device.linear(&attended, &self.dense, &mut y).unwrap();
            device.add(&mut x, &y).unwrap();
            device.rms_norm(&x, &self.norm, 1e-5, &mut y).unwrap();
            device.gate_up(&y, &self.gate_up, &mut h, &mut inner).unwrap();
            device.linear(&inner, &self.down, &mut y).unwrap();
            device.add(&mut x, &y).unwrap();
            let mut all = Vec::new();
            device.download(&x, &mut all).unwrap();
            outputs.extend_from_slice(&all[..chunk * HIDDEN]);
        }
        outputs
    }
}

fn cpu(set: InstructionSet, precision: Precision, threads: usize) -> Layer<Cpu> {
    let options =
        CpuOptions { threads, instruction_set: Some(set), ..CpuOptions::plain(precision, TOKENS, SHAPE) };
    Layer::new(Cpu::new(options).unwrap())
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn batch_chunks_and_threads_do_not_move_a_bit_and_a_familys_sets_agree() {
    for precision in Precision::TYPES {
        for family in Family::ALL {
            let alone = bits(&cpu(family.reference(), precision, 1).run(TOKENS, false));
            for set in family.sets() {
                let what = format!("{} in {precision}", set.name());
                assert_eq!(bits(&cpu(set, precision, 1).run(TOKENS, false)), alone, "{what}");
                assert_eq!(bits(&cpu(set, precision, 3).run(TOKENS, true)), alone, "{what}: threads, batch");
                assert_eq!(bits(&cpu(set, precision, 2).run(13, true)), alone, "{what}: chunks");
                assert_eq!(bits(&cpu(set, precision, 2).run(1, false)), alone, "{what}: token by token");
            }
        }
    }
}

#[test]
fn every_family_computes_what_the_reference_device_does() {
    let expected = Layer::new(Reference::default()).run(TOKENS, false);
    for (dtype, bound) in [(DType::Fp32, 1e-5), (DType::Fp16, 1e-2), (DType::Bf16, 1e-1)] {
        for set in Family::ALL.map(Family::best) {
            let found = cpu(set, dtype.into(), 2).run(TOKENS, false);
            let apart = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < bound, "{} in {dtype}: {apart}", set.name());
        }
    }
}

/// Results that are too large for the caches are those of their rows alone.
#[test]
fn large_results_are_those_of_their_rows() {
    let (rows, width, inner) = (516, 40, 2048);
    assert!(crate::buffer::is_streamed(rows * inner), "the results are streamed");
    for precision in Precision::TYPES {
        for set in Family::ALL.into_iter().flat_map(Family::sets) {
            let mut device = cpu(set, precision, 2).device;
            let (down, gate_up) = (Numbers::new(inner, width, 3), Numbers::new(2 * inner, width, 4));
            let bias = Numbers::new(1, inner, 5);
            let down = precision.weights.of_dense(down.host());
            let down = device.upload_linear(Role::Down, down, Some(bias.host())).unwrap();
            let gate_up = precision.weights.of_dense(gate_up.host());
            let gate_up = device.upload_linear(Role::GateUp, gate_up, None).unwrap();
            let x: Vec<f32> = (0..rows * width).map(|i| ((i * 37) % 101) as f32 / 64.0 - 0.75).collect();
            let mut of = |first: usize, rows: usize| {
                let activation = |width| device.activation(rows, width).unwrap();
                let (mut from, mut out) = (activation(width), activation(inner));
                let (mut h, mut joined) = (activation(2 * inner), activation(inner));
                device.upload(&x[first * width..][..rows * width], &mut from).unwrap();
                device.linear(&from, &down, &mut out).unwrap();
                device.gate_up(&from, &gate_up, &mut h, &mut joined).unwrap();
                [out, joined].map(|of| {
                    let mut numbers = Vec::new();
                    device.download(&of, &mut numbers).unwrap();
                    bits(&numbers)
                })
            };
            let all = of(0, rows);
            for first in [0, 257, rows - 3] {
                let alone = of(first, 3);
                for (all, alone) in all.iter().zip(&alone) {
                    assert!(all[first * inner..][..3 * inner] == alone[..], "{} in {precision}", set.name());
                }
            }
        }
    }
}

/// A family that gave the bits of another one would not need to be one.
#[test]
fn the_families_differ_in_their_sums() {
    // Ones and numbers beside which a one is lost, so that every order loses others. All are exact in bf16.
    let number = |i: usize| [1.0, 16777216.0, -16777216.0, 1.0][((i * 40503) >> 5) % 4];
    let weight: Vec<u8> = (0..VOCAB * HIDDEN).flat_map(|i| f32::to_le_bytes(number(i))).collect();
    let host = HostTensor { dtype: DType::Fp32, rows: VOCAB, width: HIDDEN, data: &weight };
    let all = Family::ALL.map(|family| {
        let mut device = cpu(family.best(), DType::Bf16.into(), 2).device;
        let weight = device.upload_linear(Role::Dense, host.into(), None).unwrap();
        let (mut x, mut out) = (device.activation(1, HIDDEN).unwrap(), device.activation(1, VOCAB).unwrap());
        device.upload(&[1.0; HIDDEN], &mut x).unwrap();
        device.linear(&x, &weight, &mut out).unwrap();
        let mut sums = Vec::new();
        device.download(&out, &mut sums).unwrap();
        bits(&sums)
    });
    for (i, one) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|other| other != one), "{:?}", Family::ALL[i]);
    }
}

/// A set is found by its name, records say it, and messages and help texts list it.
#[test]
fn the_example_is_found_by_its_name() {
    let set: InstructionSet = "toy".parse().unwrap();
    assert_eq!(cpu(set, DType::Fp16.into(), 1).device.info().kernel, "toy");
    assert_eq!(InstructionSet::Toy.family().reference().name(), "toy-portable");
    assert!("toys".parse::<InstructionSet>().unwrap_err().ends_with("amx-portable, toy or toy-portable"));
    assert!(Family::words().ends_with("; amx, amx-portable; toy, toy-portable"), "{}", Family::words());
    assert_ne!(InstructionSet::best_for(DType::Fp16), set, "an example is nobody's choice");
}
