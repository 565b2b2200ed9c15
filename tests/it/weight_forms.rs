//! Weights as values: the form belongs to the weight. A device takes the forms that it has kernels for, whatever types it was
//! made for, and refuses the others by name.

use std::sync::Arc;

use glmbench_ascend::{Ascend, AscendGroup, Chip, Emulation, Forced, GroupSettings};
use glmbench_cpu::{Cpu, CpuOptions};
use glmbench_device::operator::Operator;
use glmbench_device::reference::Reference;
use glmbench_device::timed::{OperatorClock, Timed, Timing};
use glmbench_device::{
    AttentionShape, DType, Device, DeviceError, HostTensor, Inputs, Int4Weight, Int8StaticWeight, Int8Weight,
    KvForm, LinearWeight, Precision, Role, StaticChannels, StaticInput, WeightForm,
};

const SHAPE: AttentionShape = AttentionShape { heads: 2, kv_heads: 1, channels: 16 };
const ROWS: usize = 33;
const WIDTH: usize = 70;

fn cpu(precision: impl Into<Precision>) -> Cpu {
    let precision = precision.into();
    let options = CpuOptions { threads: 2, ..CpuOptions::plain(precision, 8, SHAPE) };
    Cpu::new(options).unwrap()
}

/// Numbers of both signs, as fp32 bytes.
fn numbers() -> Vec<u8> {
    (0..ROWS * WIDTH).flat_map(|i| (((i * 37 % 101) as f32 - 50.0) / 64.0).to_le_bytes()).collect()
}

fn dense(bytes: &[u8]) -> HostTensor<'_> {
    HostTensor { dtype: DType::Fp32, rows: ROWS, width: WIDTH, data: bytes }
}

/// Returns the bits of three rows times the weight.
fn product<D: Device>(device: &mut D, weight: LinearWeight<'_>) -> Vec<u32> {
    let linear = device.upload_linear(Role::Down, weight, None).unwrap();
    let (mut x, mut y) = (device.activation(3, WIDTH).unwrap(), device.activation(3, ROWS).unwrap());
    let rows: Vec<f32> = (0..3 * WIDTH).map(|i| (i as f32 * 0.7).sin()).collect();
    device.upload(&rows, &mut x).unwrap();
    device.linear(&x, &linear, &mut y).unwrap();
    let mut out = Vec::new();
    device.download(&y, &mut out).unwrap();
    out.into_iter().map(f32::to_bits).collect()
}

#[test]
fn the_form_is_the_weights_own_and_not_the_devices() {
    let bytes = numbers();
    let at_load = Int8Weight::quantised(dense(&bytes), Inputs::Int8PerToken);
    let (mut integers, mut scales) = (vec![0; ROWS * WIDTH], Vec::new());
    for (row, out) in integers.chunks_exact_mut(WIDTH).enumerate() {
        scales.push(at_load.row(row, &mut vec![0.0; WIDTH], out));
    }
    let stored = Int8Weight::stored(ROWS, WIDTH, &integers, &scales, Inputs::Int8PerToken).unwrap();
    let (mut plain, mut w8a8) = (cpu(DType::Fp16), cpu(Precision::W8A8_DYNAMIC));
    let expected = product(&mut w8a8, LinearWeight::Int8(at_load));
    assert_eq!(product(&mut w8a8, LinearWeight::Int8(stored)), expected);
    assert_eq!(product(&mut plain, LinearWeight::Int8(stored)), expected);
    let dense = LinearWeight::Dense(dense(&bytes));
    assert_eq!(product(&mut w8a8, dense), product(&mut plain, dense));
    assert_ne!(product(&mut plain, dense), expected);
}

#[test]
fn the_timing_device_counts_the_bytes_of_the_weights_own_form() {
    let bytes = numbers();
    let clock = Arc::new(OperatorClock::default());
    let mut timed = Timed::new(cpu(DType::Fp16), Timing::new(Some(Arc::clone(&clock))));
    let int8 = Int8Weight::quantised(dense(&bytes), Inputs::Int8PerToken);
    for (weight, expected) in [
        (LinearWeight::Dense(dense(&bytes)), ROWS * WIDTH * 2),
        (LinearWeight::Int8(int8), ROWS * WIDTH + ROWS * 4),
    ] {
        product(&mut timed, weight);
        let totals = clock.take();
        let [(Operator::Down, down), (Operator::Download, _)] = totals.as_slice() else {
            panic!("{totals:?}")
        };
        assert_eq!((down.bytes, down.flops), (expected as u64, (2 * 3 * ROWS * WIDTH) as u64));
    }
}

/// Returns what a device says about a weight that it has no kernel for.
fn refusal<D: Device>(device: &D, weight: LinearWeight<'_>) -> String {
    let Err(error) = device.upload_linear(Role::Qkv, weight, None) else { panic!("accepted") };
    assert!(matches!(error, DeviceError::Unsupported { .. }), "{error}");
    error.to_string()
}

/// The reference device takes every form too, and gives the same numbers before they are rounded to a type.
#[test]
fn every_form_has_kernels_on_the_cpu_and_on_the_reference_device() {
    let bytes = numbers();
    for precision in Precision::TYPES {
        let weight = precision.weights.of_dense(dense(&bytes));
        let expected = product(&mut Reference::default(), weight);
        let found = product(&mut cpu(DType::Fp32), weight);
        if precision.has_quantised_weights() {
            assert_eq!(found, expected, "{precision}");
        } else {
            let apart = |(a, b): (&u32, &u32)| (f32::from_bits(*a) - f32::from_bits(*b)).abs();
            assert!(found.iter().zip(&expected).map(apart).all(|apart| apart < 1e-4), "{precision}");
        }
    }
}

fn card(chip: Chip, dtype: DType) -> Ascend {
    let settings = GroupSettings {
        chip,
        tp: 1,
        dtype,
        weights: WeightForm::Plain,
        kv: KvForm::Auto,
        attention: SHAPE,
        bind: false,
        forced: Forced::default(),
        emulation: Some(Emulation::new(chip, None, false).unwrap()),
    };
    AscendGroup::new(settings).unwrap().rank(0).unwrap()
}

/// A static layer is the same as in the reference, but for the 19 bits of its scales and the rounding of the card. A layer
/// with int8 weights alone is, but for the rounding of the weights.
#[test]
fn cards_multiply_int8_weights_as_the_reference_does() {
    let integers: Vec<i8> = (0..ROWS * WIDTH).map(|i| ((i * 37 % 255) as i16 - 127) as i8).collect();
    let deq_scale: Vec<f32> = (0..ROWS).map(|i| 1e-4 + i as f32 * 1e-5).collect();
    let quant_bias: Vec<i32> = (0..ROWS as i32).map(|i| i * 500 - 8000).collect();
    let channels = StaticChannels { deq_scale: &deq_scale, quant_bias: &quant_bias };
    let input = StaticInput::new(1.0 / 64.0, -5.0).unwrap();
    let by_scale = Int8StaticWeight::stored(ROWS, WIDTH, &integers, input, channels).unwrap();
    let float = Int8Weight::stored(ROWS, WIDTH, &integers, &deq_scale, Inputs::Float).unwrap();
    let numbers = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect::<Vec<_>>();
    for weight in [LinearWeight::Int8Static(by_scale), LinearWeight::Int8(float)] {
        let expected = numbers(product(&mut Reference::default(), weight));
        let largest = expected.iter().fold(0.0f32, |most, y| most.max(y.abs()));
        for (chip, dtype, share) in [
            (Chip::Duo300i, DType::Fp16, 128.0),
            (Chip::A2800i, DType::Fp16, 128.0),
            (Chip::A2800i, DType::Bf16, 32.0),
        ] {
            // A number of the type at a tie of the quantisation may go to the other side.
            let found = numbers(product(&mut card(chip, dtype), weight));
            let apart = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart <= largest / share, "{chip:?} {dtype}: {apart} of {largest}");
        }
    }
}

#[test]
fn a_form_without_a_kernel_is_refused_by_name() {
    let int4 = Int4Weight::stored(ROWS, WIDTH, 35, &[0; ROWS * WIDTH / 2], &[1.0; 2 * ROWS], Inputs::Float);
    let int4 = LinearWeight::Int4(int4.unwrap());
    let card = card(Chip::Duo300i, DType::Fp16);
    let said = "device 300i-duo: the weight of a linear layer is int4 in groups of 35 with floating-point inputs, expected ";
    let found = refusal(&card, int4);
    assert!(found.starts_with(said), "{found}");
}
