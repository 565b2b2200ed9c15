//! The quantised model as a source of weights: what the new files hold, made on request.
//!
//! The files are written from it, and a search compares models with it before any file is written.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use half::{bf16, f16};

use super::calibrate::Calibration;
use super::plan::{Origin, Plan, Planned};
use super::range::round_scale;
use super::weights::{IntegerRows, NewTensor, deq_scales, quant_biases};
use super::{Job, QuantiseError};
use crate::config::{ModelConfig, Quantised, Scheme};
use crate::weights::layout::{self, LinearId};
use crate::weights::quantised::names::Suffix;
use crate::weights::quantised::{RawTensor, StoredLinear};
use crate::weights::{Part, StorageType, StoredTensor, TensorView, WeightError, WeightSource};

/// Makes the tensors of the new checkpoint.
pub(super) struct Maker<'a> {
    pub(super) job: &'a Job,
    pub(super) calibration: &'a Calibration,
}

impl Maker<'_> {
    /// Quantises a linear layer. Returns all its tensors.
    pub(super) fn linear(&self, id: LinearId) -> Result<Vec<NewTensor>, QuantiseError> {
        if self.job.config.quantised.is_some() {
            return self.rewritten(id);
        }
        let (job, number) = (self.job, self.number(id));
        let factors = self.calibration.factors.get(number).and_then(Option::as_deref);
        let float = job.float_rows(id, factors)?;
        let integers = IntegerRows::of(&float, job.settings.scheme, job.group_of(id))?;
        let width = float.width;
        drop(float);
        job.source.release(&id.weight());
        let Some(input) = self.calibration.input(number) else {
            return Ok(weight_only(&integers.integers, &integers.scales));
        };
        let deq = deq_scales(input, &integers);
        let bias = self.bias(id)?;
        let biases = quant_biases(&id.name(), input, &deq, &integers, width, bias.as_deref())?;
        let stored = job.source.dtype();
        let deq_scale = match stored {
            // The bits of an fp32 number as int32, widened to int64: the layout that the card's product takes.
            StorageType::F16 => {
                deq.iter().flat_map(|s| i64::from(s.to_bits().cast_signed()).to_le_bytes()).collect()
            }
            StorageType::Bf16 | StorageType::F32 => deq.iter().flat_map(|s| s.to_le_bytes()).collect(),
        };
        let new = |suffix, data| NewTensor { suffix, data };
        Ok(vec![
            new(Suffix::Weight, bytemuck::cast_slice(&integers.integers).to_vec()),
            new(Suffix::InputScale, number_bytes(input.scale, stored)),
            new(Suffix::InputOffset, number_bytes(input.offset, stored)),
            new(Suffix::QuantBias, biases.iter().flat_map(|b| b.to_le_bytes()).collect()),
            new(Suffix::DeqScale, deq_scale),
        ])
    }

    fn number(&self, id: LinearId) -> usize {
        LinearId::all(&self.job.config).position(|other| other == id).unwrap_or(usize::MAX)
    }

    fn bias(&self, id: LinearId) -> Result<Option<Vec<f32>>, QuantiseError> {
        let name = format!("{}.bias", id.name());
        match layout::expected_shape(&self.job.config, &name) {
            Some(shape) => Ok(Some(self.job.source.tensor(&name, &shape)?.to_f32())),
            None => Ok(None),
        }
    }

    /// Returns the tensors of a layer in a checkpoint of THUDM, in the layout of ModelSlim. Integers and scales are the same,
    /// with one integer a byte.
    fn rewritten(&self, id: LinearId) -> Result<Vec<NewTensor>, QuantiseError> {
        let Job { config, source, .. } = self.job;
        let stored = StoredLinear::read(&**source, config, id, &Part::Whole, true)?;
        let Some((integers, scales)) = stored.map(|stored| stored.unpacked()) else {
            return Err(QuantiseError::Setting(format!(
                "{} is in float, expected it quantised as config.json says",
                id.name()
            )));
        };
        Ok(weight_only(&integers, &scales))
    }

    /// Returns the data of a tensor that belongs to no linear layer's weight.
    pub(super) fn other(&self, planned: &Planned) -> Result<Cow<'_, [u8]>, QuantiseError> {
        let Job { config, source, .. } = self.job;
        let stored = StorageType::from_name(planned.dtype).unwrap_or(StorageType::F16);
        Ok(match planned.origin {
            Origin::Copied | Origin::Linear(..) => source.tensor(&planned.name, &planned.shape)?.data,
            Origin::Zeros => Cow::Owned(vec![0; planned.bytes() as usize]),
            Origin::SmoothedNorm(number) => {
                let norm = LinearId::all(config).nth(number).and_then(LinearId::norm_before);
                let view = source.tensor(&norm.unwrap_or_default(), &planned.shape)?;
                let factors = self.calibration.factors.get(number).and_then(Option::as_deref).unwrap_or(&[]);
                let divided = view.to_f32().into_iter().zip(factors).map(|(w, factor)| w / factor);
                Cow::Owned(divided.flat_map(|w| number_bytes(w, stored)).collect())
            }
            Origin::CacheScale { layer, is_value } => {
                let most = self.calibration.seen.as_ref().and_then(|seen| seen.caches.get(layer));
                let (keys, values) = most.map_or((&[][..], &[][..]), |most| most.split_at(config.kv_width()));
                let most = if is_value { values } else { keys };
                // Symmetric, so that the offset is 0. A channel that is always 0 has scale 1.
                let scale = |most: &f32| if *most > 0.0 { f64::from(*most) / 127.0 } else { 1.0 };
                Cow::Owned(
                    most.iter().flat_map(|x| number_bytes(round_scale(scale(x), stored), stored)).collect(),
                )
            }
        })
    }
}

/// Returns the tensors of a weight-only scheme. Offsets are 0, because the weights are symmetric.
fn weight_only(integers: &[i8], scales: &[f32]) -> Vec<NewTensor> {
    let new = |suffix, data| NewTensor { suffix, data };
    vec![
        new(Suffix::Weight, bytemuck::cast_slice(integers).to_vec()),
        new(Suffix::WeightScale, scales.iter().flat_map(|s| s.to_le_bytes()).collect()),
        new(Suffix::WeightOffset, vec![0; size_of_val(scales)]),
    ]
}

/// Returns the bytes of a number in a type.
fn number_bytes(x: f32, stored: StorageType) -> Vec<u8> {
    match stored {
        StorageType::F32 => x.to_le_bytes().to_vec(),
        StorageType::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        StorageType::Bf16 => bf16::from_f32(x).to_le_bytes().to_vec(),
    }
}

/// Returns the config of the new checkpoint.
pub(super) fn quantised_config(job: &Job) -> ModelConfig {
    let settings = &job.settings;
    let quantised = Quantised {
        said: settings.scheme.said(),
        scheme: Some(settings.scheme),
        kv_c8: settings.kv_c8,
        group: (settings.scheme == Scheme::W4a16).then_some(settings.group),
        is_described: true,
        float: settings.float.clone(),
    };
    ModelConfig { quantised: Some(quantised), ..job.config.clone() }
}

/// A job's new checkpoint in memory. The layer that was asked for last is kept, because its tensors are asked for one by one.
pub(super) struct InMemory<'a> {
    maker: Maker<'a>,
    plan: Plan,
    last: Mutex<Option<(LinearId, Arc<Vec<NewTensor>>)>>,
}

impl<'a> InMemory<'a> {
    pub(super) fn new(job: &'a Job, calibration: &'a Calibration) -> Self {
        let plan = Plan::new(&job.config, &job.settings, &*job.source);
        Self { maker: Maker { job, calibration }, plan, last: Mutex::default() }
    }

    fn planned(&self, name: &str) -> Option<&Planned> {
        self.plan.tensors.iter().find(|planned| planned.name == name)
    }

    fn data(&self, planned: &Planned) -> Result<Vec<u8>, QuantiseError> {
        let Origin::Linear(id, suffix) = planned.origin else {
            return self.maker.other(planned).map(Cow::into_owned);
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = last.as_ref().filter(|(of, _)| *of == id).map(|(_, tensors)| Arc::clone(tensors));
        let tensors = if let Some(tensors) = kept {
            tensors
        } else {
            let tensors = Arc::new(self.maker.linear(id)?);
            *last = Some((id, Arc::clone(&tensors)));
            tensors
        };
        drop(last);
        let found = tensors.iter().find(|tensor| tensor.suffix == suffix);
        Ok(found.map(|tensor| tensor.data.clone()).unwrap_or_default())
    }
}

impl WeightSource for InMemory<'_> {
    fn place(&self) -> String {
        format!("{}, quantised", self.maker.job.source.place())
    }

    fn stored(&self) -> Vec<StoredTensor> {
        let describe = |planned: &Planned| StoredTensor {
            name: planned.name.clone(),
            dtype: planned.dtype.to_owned(),
            shape: planned.shape.clone(),
            bytes: planned.bytes(),
            origin: self.place(),
        };
        self.plan.tensors.iter().map(describe).collect()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        let missing = || WeightError::MissingTensor {
            place: self.place(),
            name: name.to_owned(),
            expected: shape.to_vec(),
        };
        let planned = self.planned(name).filter(|planned| planned.shape == shape).ok_or_else(missing)?;
        let dtype = StorageType::from_name(planned.dtype).ok_or_else(missing)?;
        let data =
            Cow::Owned(self.data(planned).map_err(|error| WeightError::Quantised {
                place: self.place(),
                problem: error.to_string(),
            })?);
        Ok(TensorView { name: name.to_owned(), dtype, shape: shape.to_vec(), data })
    }

    fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        let planned = self.planned(name)?;
        Some(RawTensor {
            dtype: planned.dtype.to_owned(),
            shape: planned.shape.clone(),
            data: Cow::Owned(self.data(planned).ok()?),
            origin: self.place(),
        })
    }

    fn release(&self, name: &str) {
        self.maker.job.source.release(name);
    }

    fn dtype(&self) -> StorageType {
        self.maker.job.source.dtype()
    }

    fn fingerprint(&self, hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        self.maker.job.source.fingerprint(hashed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};
    use std::path::Path;

    use glmbench_device::{DType, Role};

    use super::super::range::Range;
    use super::super::{ActMethod, Settings};
    use super::*;
    use crate::load::ModelPath;

    /// With the ranges that NumPy saw, every tensor of every layer has NumPy's bytes.
    #[test]
    fn the_tensors_are_those_of_the_numpy_implementation() {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/quantised");
        let text = std::fs::read_to_string(fixture.join("ranges.json")).unwrap();
        let ranges: HashMap<String, [f32; 2]> = serde_json::from_str(&text).unwrap();
        let path = ModelPath::Folder(fixture.join("float"));
        let config = path.config(None).unwrap();
        let source = path.weights(&config, DType::Fp16).unwrap().into();
        let layer = |layer, role| LinearId { layer: Some(layer), role };
        let settings = Settings {
            scheme: Scheme::W8a8,
            kv_c8: false,
            float: BTreeSet::from([layer(1, Role::Qkv), layer(0, Role::Down), LinearId::OUTPUT]),
            method: ActMethod::MinMax,
            group: 0,
            smooth: None,
            search: None,
        };
        let dir = fixture.join("float");
        let job = Job { dir, config, source, settings, prompts: Vec::new() };
        let inputs = LinearId::all(&job.config).map(|id| {
            let [low, high] = ranges[&id.name()];
            Range::new(low, high).input(StorageType::F16)
        });
        let calibration =
            Calibration { inputs: inputs.collect(), factors: Vec::new(), seen: None, logits: None };
        let made = InMemory::new(&job, &calibration);
        let quantised = ModelPath::Folder(fixture.join("w8a8"));
        let expected = quantised.weights(&quantised.config(None).unwrap(), DType::Fp16).unwrap();
        assert_eq!(expected.stored().len(), made.stored().len());
        for tensor in expected.stored() {
            let (found, expected) = (made.raw(&tensor.name).unwrap(), expected.raw(&tensor.name).unwrap());
            assert_eq!((&found.dtype, &found.shape), (&expected.dtype, &expected.shape), "{}", tensor.name);
            assert_eq!(found.data, expected.data, "{}", tensor.name);
        }
    }
}
