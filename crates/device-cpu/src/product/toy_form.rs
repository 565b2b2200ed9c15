//! The smallest example of a weight form, for tests only: int4 with group scales ([`Form::Int4`]) under inputs that no
//! other kernels take. `docs/ADDING.md` points here.
//!
//! The numbers are dequantised when the weight is packed, and then multiplied in the type of the device.
//!
//! [`Form::Int4`]: glmbench_device::Form::Int4

use glmbench_device::{DType, DeviceError, HostTensor, LinearWeight};

use crate::packs::Packs;
use crate::pool::Pool;
use crate::simd::Vectors;

use super::vector::VectorKernels;
use super::{PackedWeight, WeightKernels};

/// Products with int4 weights.
#[derive(Debug)]
pub(crate) struct ToyInt4 {
    pub(crate) vectors: Vectors,
}

impl ToyInt4 {
    fn dense(&self) -> VectorKernels {
        VectorKernels { vectors: self.vectors }
    }
}

impl WeightKernels for ToyInt4 {
    fn name(&self) -> &'static str {
        "toy-int4"
    }

    fn pack(
        &self,
        weight: LinearWeight<'_>,
        bias: Option<HostTensor<'_>>,
        at: (&mut Packs, &mut Pool),
    ) -> Result<Box<dyn PackedWeight>, DeviceError> {
        let LinearWeight::Int4(int4) = weight else { return Err(weight.refused(crate::NAME, [])) };
        let (mut numbers, mut integers) = (vec![0.0; int4.width], vec![0; int4.width]);
        let mut scales = vec![0.0; int4.groups()];
        let mut data = Vec::new();
        for row in 0..int4.rows {
            int4.row(row, &mut numbers, &mut integers, &mut scales);
            let groups = integers.chunks(int4.group).zip(&scales);
            let numbers = groups.flat_map(|(group, scale)| group.iter().map(move |q| f32::from(*q) * scale));
            data.extend(numbers.flat_map(f32::to_le_bytes));
        }
        let dense = HostTensor { dtype: DType::Fp32, rows: int4.rows, width: int4.width, data: &data };
        self.dense().pack(LinearWeight::Dense(dense), bias, at)
    }

    fn bytes(&self, n: usize, k: usize, group: usize) -> usize {
        self.dense().bytes(n, k, group)
    }

    fn row_bytes(&self, k: usize, group: usize) -> Option<usize> {
        self.dense().row_bytes(k, group)
    }
}

/// The walk of a form: a device takes the value, packs it and multiplies with it.
mod tests {
    use crate::{Cpu, CpuOptions};
    use glmbench_device::{
        AttentionShape, DType, Device, Form, HostTensor, Inputs, Int4Weight, LinearWeight, Precision, Role,
    };

    const SHAPE: AttentionShape = AttentionShape { heads: 2, kv_heads: 1, channels: 16 };

    fn cpu() -> Cpu {
        let precision = Precision::from(DType::Fp32);
        let options = CpuOptions { threads: 2, ..CpuOptions::plain(precision, 8, SHAPE) };
        Cpu::new(options).unwrap()
    }

    fn product(weight: LinearWeight<'_>) -> Vec<u32> {
        let mut cpu = cpu();
        let linear = cpu.upload_linear(Role::Down, weight, None).unwrap();
        let (mut x, mut y) = (cpu.activation(2, 4).unwrap(), cpu.activation(2, 3).unwrap());
        cpu.upload(&[0.5, -1.25, 3.0, 0.1, 7.0, 0.3, -0.2, 1.0], &mut x).unwrap();
        cpu.linear(&x, &linear, &mut y).unwrap();
        let mut out = Vec::new();
        cpu.download(&y, &mut out).unwrap();
        out.into_iter().map(f32::to_bits).collect()
    }

    #[test]
    fn a_layer_in_the_form_is_the_layer_of_its_numbers() {
        // The largest of each pair is 7 times its scale.
        let numbers: [f32; 12] = [3.5, -0.5, -1.75, 0.0, 7.0, 2.0, -14.0, -4.0, 0.875, 0.125, 0.0, -21.0];
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let dense = HostTensor { dtype: DType::Fp32, rows: 3, width: 4, data: &bytes };
        let int4 = Int4Weight::quantised(dense, 2, Inputs::Int8Static);
        assert_eq!(product(LinearWeight::Int4(int4)), product(LinearWeight::Dense(dense)));
    }

    /// Messages about a form without kernels name this one, without a list to keep.
    #[test]
    fn messages_name_the_form() {
        let forms = cpu().kernels.forms();
        assert_eq!(forms.last(), Some(&Form::Int4(Inputs::Int8Static)));
        assert!(Form::one_of(forms).ends_with(" or int4 with inputs quantised by a stored scale"));
    }
}
