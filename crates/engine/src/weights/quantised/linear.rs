//! The weight of one quantised linear layer, as a rank needs it.

use std::borrow::Cow;
use std::path::PathBuf;

use glmbench_device::{
    DType, HostTensor, Inputs, Int4Weight, Int8StaticWeight, Int8Weight, InvalidWeight, LinearWeight,
    StaticChannels, StaticInput,
};

use super::names::Suffix;
use super::{LinearId, RawTensor};
use crate::config::{ModelConfig, Quantised, Scheme};
use crate::weights::{Part, StorageType, TensorView, WeightError, WeightSource};

/// The tensors of a quantised linear layer, cut for a rank.
pub(crate) struct StoredLinear<'a> {
    id: LinearId,
    /// The file that holds the weight.
    origin: String,
    rows: usize,
    width: usize,
    /// Empty if the source is hollow.
    integers: Cow<'a, [u8]>,
    numbers: Numbers,
}

/// What belongs to the integers.
enum Numbers {
    /// int8, a scale per output channel.
    Int8 { inputs: Inputs, scales: Vec<f32> },
    /// int4, one a byte or two, a scale per group.
    Int4 { is_packed: bool, group: usize, scales: Vec<f32> },
    /// int8 for inputs with a stored scale.
    Static { input: StaticInput, deq_scale: Vec<f32>, quant_bias: Vec<i32> },
}

impl<'a> StoredLinear<'a> {
    /// Reads the part `part` of a linear layer; `None` if the layer stays in float. `is_first` says whether the rank is the
    /// first: of the ranks that add parts of a sum, it alone has the bias.
    ///
    /// # Errors
    /// A tensor is missing or has another type. A scale is not a positive number, an offset of the inputs is no int8, or an
    /// offset of a weight is not 0. The message has file and tensor.
    pub(crate) fn read(
        source: &'a dyn WeightSource,
        config: &ModelConfig,
        id: LinearId,
        part: &Part,
        is_first: bool,
    ) -> Result<Option<Self>, WeightError> {
        let Some(quantised) = &config.quantised else { return Ok(None) };
        let Some(scheme) = quantised.scheme.filter(|_| !quantised.float.contains(&id)) else {
            return Ok(None);
        };
        Reader { source, id, whole: id.shape(config), part }.read(scheme, quantised, is_first).map(Some)
    }

    /// Returns the weight.
    ///
    /// # Errors
    /// An integer is out of range. The message has file and tensor.
    pub(crate) fn weight(&self) -> Result<LinearWeight<'_>, WeightError> {
        let Self { rows, width, .. } = *self;
        if self.integers.is_empty() {
            return Ok(self.hollow());
        }
        let integers: &[i8] = bytemuck::cast_slice(&self.integers);
        let weight = match &self.numbers {
            Numbers::Int8 { inputs, scales } => {
                Int8Weight::stored(rows, width, integers, scales, *inputs).map(LinearWeight::Int8)
            }
            Numbers::Int4 { is_packed, group, scales } => if *is_packed {
                Int4Weight::stored(rows, width, *group, &self.integers, scales, Inputs::Float)
            } else {
                Int4Weight::unpacked(rows, width, *group, integers, scales, Inputs::Float)
            }
            .map(LinearWeight::Int4),
            Numbers::Static { input, deq_scale, quant_bias } => {
                let channels = StaticChannels { deq_scale, quant_bias };
                Int8StaticWeight::stored(rows, width, integers, *input, channels)
                    .map(LinearWeight::Int8Static)
            }
        };
        weight.map_err(|problem| broken(&self.origin, &Suffix::Weight.of(self.id), &problem))
    }

    /// Returns the weight of a hollow source: form and shape, and the quantisation of its inputs.
    fn hollow(&self) -> LinearWeight<'_> {
        let dense = HostTensor { dtype: DType::Fp32, rows: self.rows, width: self.width, data: &[] };
        match &self.numbers {
            Numbers::Int8 { inputs, .. } => LinearWeight::Int8(Int8Weight::quantised(dense, *inputs)),
            Numbers::Int4 { group, .. } => {
                LinearWeight::Int4(Int4Weight::quantised(dense, (*group).max(1), Inputs::Float))
            }
            Numbers::Static { input, .. } => {
                let symmetric = StaticInput { offset: 0.0, ..*input };
                let mut weight = Int8StaticWeight::quantised(dense, symmetric);
                weight.input = *input;
                LinearWeight::Int8Static(weight)
            }
        }
    }

    /// Returns the integers of a weight-only layer, one a byte, and its scales. Layers with static inputs have none.
    pub(crate) fn unpacked(&self) -> (Vec<i8>, Vec<f32>) {
        let integers: &[i8] = bytemuck::cast_slice(&self.integers);
        match &self.numbers {
            Numbers::Int4 { is_packed: true, scales, .. } => {
                let pairs = integers.iter().flat_map(|&pair| [pair >> 4, (pair << 4) >> 4]);
                (pairs.collect(), scales.clone())
            }
            Numbers::Int4 { scales, .. } | Numbers::Int8 { scales, .. } => {
                (integers.to_vec(), scales.clone())
            }
            Numbers::Static { .. } => (Vec::new(), Vec::new()),
        }
    }

    /// Whether the weight's own integers hold the layer's bias.
    pub(crate) fn has_bias(&self) -> bool {
        matches!(self.numbers, Numbers::Static { .. })
    }

    /// Releases the tensors of the layer.
    pub(crate) fn release(&self, source: &dyn WeightSource) {
        const ALL: [Suffix; 7] = [
            Suffix::Weight,
            Suffix::InputScale,
            Suffix::InputOffset,
            Suffix::QuantBias,
            Suffix::DeqScale,
            Suffix::WeightScale,
            Suffix::WeightOffset,
        ];
        ALL.into_iter().for_each(|suffix| source.release(&suffix.of(self.id)));
    }
}

/// Returns the error of a tensor with unusable values.
fn broken(origin: &str, tensor: &str, problem: &dyn std::fmt::Display) -> WeightError {
    let problem = format!("tensor {tensor}: {problem}");
    WeightError::Format { path: PathBuf::from(origin), problem }
}

/// Reads the tensors of one layer.
struct Reader<'a, 'p> {
    source: &'a dyn WeightSource,
    id: LinearId,
    /// Shape `[out, in]` of the whole weight.
    whole: [usize; 2],
    part: &'p Part,
}

impl<'a> Reader<'a, '_> {
    fn read(
        &self,
        scheme: Scheme,
        quantised: &Quantised,
        is_first: bool,
    ) -> Result<StoredLinear<'a>, WeightError> {
        let (rows, width) = match *self.part.shape(&self.whole) {
            [rows, width] => (rows, width),
            _ => (0, 0),
        };
        let is_packed = scheme == Scheme::Int4;
        let raw = self.raw(Suffix::Weight, &["I8"])?;
        let origin = raw.origin.clone();
        let part = if is_packed { self.packed_part()? } else { self.part.clone() };
        let integers = if raw.data.is_empty() { raw.data } else { raw.part(&part, 1) };
        let numbers = match scheme {
            Scheme::W8a8 | Scheme::W8a8s => self.static_numbers(is_first)?,
            Scheme::W8a8Dynamic | Scheme::W8a16 | Scheme::Int8 => {
                self.check_symmetric(1)?;
                let inputs = if scheme.has_integer_inputs() { Inputs::Int8PerToken } else { Inputs::Float };
                Numbers::Int8 { inputs, scales: self.scales(Suffix::WeightScale, 1)? }
            }
            Scheme::Int4 => {
                Numbers::Int4 { is_packed, group: width, scales: self.scales(Suffix::WeightScale, 1)? }
            }
            Scheme::W4a16 => self.groups(quantised)?,
        };
        Ok(StoredLinear { id: self.id, origin, rows, width, integers, numbers })
    }

    /// Returns the tensor, which must have one of these types.
    fn raw(&self, suffix: Suffix, types: &[&str]) -> Result<RawTensor<'a>, WeightError> {
        let name = suffix.of(self.id);
        let Some(raw) = self.source.raw(&name) else {
            let (place, expected) = (self.source.place(), self.whole.to_vec());
            return Err(WeightError::MissingTensor { place, name, expected });
        };
        if types.contains(&raw.dtype.as_str()) {
            return Ok(raw);
        }
        let problem = format!("type {}, expected {}", raw.dtype, types.join(" or "));
        Err(broken(&raw.origin, &name, &problem))
    }

    /// Returns the part of a packed weight: two inputs share a byte.
    fn packed_part(&self) -> Result<Part, WeightError> {
        let Part::Columns(range) = self.part else { return Ok(self.part.clone()) };
        if range.start.is_multiple_of(2) && range.end.is_multiple_of(2) {
            return Ok(Part::Columns(range.start / 2..range.end / 2));
        }
        let problem = format!(
            "inputs {range:?} of a rank share a byte with another's, expected an even number of inputs"
        );
        Err(broken(&self.source.place(), &Suffix::Weight.of(self.id), &problem))
    }

    /// Returns the part of a tensor with values per output channel.
    fn channels(&self) -> Part {
        match self.part {
            Part::Columns(_) => Part::Whole,
            part => part.clone(),
        }
    }

    /// Returns floating-point numbers, `each` per output channel, for the output channels of this rank.
    fn floats(&self, suffix: Suffix, each: usize) -> Result<(Vec<f32>, String), WeightError> {
        let raw = self.raw(suffix, &["F16", "BF16", "F32"])?;
        let origin = raw.origin.clone();
        let Some(dtype) = StorageType::from_name(&raw.dtype) else { return Ok((Vec::new(), origin)) };
        let whole = RawTensor { shape: vec![raw.data.len() / dtype.bytes() / each.max(1), each], ..raw };
        let data = whole.part(&self.channels(), dtype.bytes());
        let view = TensorView { name: String::new(), dtype, shape: vec![data.len() / dtype.bytes()], data };
        Ok((view.to_f32(), origin))
    }

    /// Returns scales, all of them positive numbers.
    fn scales(&self, suffix: Suffix, each: usize) -> Result<Vec<f32>, WeightError> {
        let (scales, origin) = self.floats(suffix, each)?;
        self.check_scales(suffix, &scales, each, &origin)?;
        Ok(scales)
    }

    fn check_scales(
        &self,
        suffix: Suffix,
        scales: &[f32],
        each: usize,
        origin: &str,
    ) -> Result<(), WeightError> {
        let Some(at) = scales.iter().position(|scale| !(scale.is_finite() && *scale > 0.0)) else {
            return Ok(());
        };
        let problem = InvalidWeight::Scale { row: at / each.max(1), value: scales[at] };
        Err(broken(origin, &suffix.of(self.id), &problem))
    }

    /// Checks that the offsets of the weight are 0, if there are any.
    fn check_symmetric(&self, each: usize) -> Result<(), WeightError> {
        let name = Suffix::WeightOffset.of(self.id);
        if self.source.raw(&name).is_none() {
            return Ok(());
        }
        let (offsets, origin) = self.floats(Suffix::WeightOffset, each)?;
        match offsets.iter().position(|offset| *offset != 0.0) {
            None => Ok(()),
            Some(at) => {
                let (row, found) = (at / each.max(1), offsets[at]);
                let problem = format!(
                    "offset {found} of output channel {row}, expected 0: this engine computes symmetric weights only"
                );
                Err(broken(&origin, &name, &problem))
            }
        }
    }

    /// Returns the int4 scales of the inputs on this rank. If a rank's inputs begin or end within a group, its groups are
    /// smaller and repeat the group's scale.
    fn groups(&self, quantised: &Quantised) -> Result<Numbers, WeightError> {
        let width = self.whole[1];
        let group =
            quantised.group.filter(|&group| group > 0 && width.is_multiple_of(group)).unwrap_or(width);
        let each = width / group.max(1);
        self.check_symmetric(each)?;
        let scales = self.scales(Suffix::WeightScale, each)?;
        let Part::Columns(range) = self.part else {
            return Ok(Numbers::Int4 { is_packed: false, group, scales });
        };
        let smaller = gcd(gcd(group, range.start), range.len());
        let of_row = |row: &[f32]| range.clone().step_by(smaller).map(|input| row[input / group]).collect();
        let scales = scales.chunks_exact(each.max(1)).flat_map(|row| -> Vec<f32> { of_row(row) }).collect();
        Ok(Numbers::Int4 { is_packed: false, group: smaller, scales })
    }

    fn static_numbers(&self, is_first: bool) -> Result<Numbers, WeightError> {
        // One number for the whole layer, whatever part of it a rank has.
        let whole = Reader { part: &Part::Whole, ..*self };
        let one = |suffix: Suffix| {
            let (all, origin) = whole.floats(suffix, 1)?;
            let missing = || broken(&origin, &suffix.of(self.id), &"no number, expected one");
            Ok::<_, WeightError>((all.first().copied().ok_or_else(missing)?, origin.clone()))
        };
        let (scale, origin) = one(Suffix::InputScale)?;
        let (offset, _) = one(Suffix::InputOffset)?;
        let input = StaticInput::new(scale, offset).map_err(|problem| {
            let suffix = match problem {
                InvalidWeight::InputOffset { .. } => Suffix::InputOffset,
                _ => Suffix::InputScale,
            };
            broken(&origin, &suffix.of(self.id), &problem)
        })?;
        Ok(Numbers::Static { input, deq_scale: self.deq_scale()?, quant_bias: self.quant_bias(is_first)? })
    }

    /// Returns the combined scales. int64 numbers hold the bits of an fp32 number in their lower half.
    fn deq_scale(&self) -> Result<Vec<f32>, WeightError> {
        let (suffix, name) = (Suffix::DeqScale, Suffix::DeqScale.of(self.id));
        let raw = self.raw(suffix, super::DEQ_SCALE)?;
        let origin = raw.origin.clone();
        let scales: Vec<f32> = if raw.dtype == "F32" {
            raw.part(&self.channels(), 4)
                .as_chunks()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect()
        } else {
            let data = raw.part(&self.channels(), 8);
            let numbers = data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes));
            let of = |(row, number): (usize, i64)| {
                // Widened from int32, so that the upper half repeats the sign. A scale's sign is positive.
                i32::try_from(number).map(|bits| f32::from_bits(bits.cast_unsigned())).map_err(|_| {
                    let problem = format!(
                        "{number} of output channel {row}, expected the 32 bits of an fp32 number, widened to int64"
                    );
                    broken(&origin, &name, &problem)
                })
            };
            numbers.enumerate().map(of).collect::<Result<_, _>>()?
        };
        self.check_scales(suffix, &scales, 1, &origin)?;
        Ok(scales)
    }

    /// Returns the integer biases: of ranks that add parts of a sum, only the first has them.
    fn quant_bias(&self, is_first: bool) -> Result<Vec<i32>, WeightError> {
        let data = self.raw(Suffix::QuantBias, super::INT32)?.part(&self.channels(), 4);
        let mut biases: Vec<i32> =
            data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect();
        if matches!(self.part, Part::Columns(_)) && !is_first {
            biases.fill(0);
        }
        Ok(biases)
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
