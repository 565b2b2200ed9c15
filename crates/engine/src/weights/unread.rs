//! A source with a model's shapes and zeros as weights, which nobody reads.
//!
//! For a device that runs only its virtual clock. The zeros are pages that are never touched, so a model of any size
//! loads at once and takes no memory.

use std::borrow::Cow;

use super::dummy::zeroed;
use super::part::Part;
use super::shapes::ExpectedTensor;
use super::{RawTensor, StorageType, StoredTensor, TensorView, WeightError, WeightSource, layout, quantised};
use crate::config::ModelConfig;

/// The shapes of a model with this config.
#[derive(Debug, Clone)]
pub struct Unread {
    /// The model's configuration.
    pub config: ModelConfig,
    /// The type that the numbers would have.
    pub dtype: StorageType,
}

impl WeightSource for Unread {
    fn place(&self) -> String {
        "weights that nobody reads".into()
    }

    fn stored(&self) -> Vec<StoredTensor> {
        Vec::new()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        self.part(name, shape, &Part::Whole)
    }

    fn part(&self, name: &str, shape: &[usize], part: &Part) -> Result<TensorView<'_>, WeightError> {
        let name = name.to_owned();
        if let Some(raw) =
            self.raw(&name).filter(|raw| raw.dtype == StorageType::F32.name() && raw.shape == shape)
        {
            let data = Cow::Owned(raw.data.into_owned());
            return Ok(part.of(TensorView { name, dtype: StorageType::F32, shape: raw.shape, data }));
        }
        if layout::expected_shape(&self.config, &name).is_none_or(|found| found != shape) {
            let (place, expected) = (self.place(), shape.to_vec());
            return Err(WeightError::MissingTensor { place, name, expected });
        }
        let shape = part.shape(shape);
        let bytes = shape.iter().try_fold(self.dtype.bytes(), |bytes, &n| bytes.checked_mul(n));
        match bytes.and_then(zeroed) {
            Some(data) => Ok(TensorView { name, dtype: self.dtype, shape, data: Cow::Owned(data) }),
            None => Err(WeightError::TooLarge { name, shape }),
        }
    }

    /// Returns the tensors that a quantised checkpoint has and a plain one has not: zeros, and scales of 1.
    fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        self.config.quantised.as_ref()?;
        let expected = quantised::expected_tensors(&self.config)
            .find(|expected| expected.name == name && !expected.is_optional)?;
        if layout::expected_shape(&self.config, name).is_some() && expected.types == ExpectedTensor::FLOAT {
            return None;
        }
        let (dtype, shape) = (*expected.types.last()?, expected.shapes.into_iter().next()?);
        let count: usize = shape.iter().product();
        let data = match dtype {
            "F32" if name.ends_with("scale") => 1f32.to_le_bytes().repeat(count),
            "I8" => zeroed(count)?,
            _ => zeroed(count.checked_mul(4)?)?,
        };
        let (dtype, origin) = (dtype.to_owned(), self.place());
        Some(RawTensor { dtype, shape, data: Cow::Owned(data), origin })
    }

    fn release(&self, _name: &str) {}

    fn dtype(&self) -> StorageType {
        self.dtype
    }

    /// Constant, because there are no numbers to distinguish.
    fn fingerprint(&self, _hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        Ok(super::combine(std::iter::once("unread".to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Quantised, Scheme};

    #[test]
    fn a_quantised_layer_has_zeros_and_scales_of_one() {
        let quantised = Quantised {
            said: "quantize = \"w8a8\"".into(),
            scheme: Some(Scheme::W8a8),
            kv_c8: true,
            group: None,
            is_described: true,
            float: std::collections::BTreeSet::new(),
        };
        let config = ModelConfig { quantised: Some(quantised), ..ModelConfig::chatglm2_6b() };
        let source = Unread { config: config.clone(), dtype: StorageType::F16 };
        let id = layout::LinearId { layer: Some(27), role: glmbench_device::Role::Down };
        let part = Part::Columns(0..6848);
        let stored = quantised::StoredLinear::read(&source, &config, id, &part, false).unwrap().unwrap();
        assert_eq!((stored.weight().unwrap().rows(), stored.weight().unwrap().width()), (4096, 6848));
        assert!(quantised::kv_channels(&source, &config, 0..1).is_ok());
        assert!(source.raw(layout::EMBEDDING).is_none());
    }

    #[test]
    fn shapes_are_those_of_the_part() {
        let config = ModelConfig::chatglm2_6b();
        let source = Unread { config: config.clone(), dtype: StorageType::F16 };
        let whole = layout::expected_shape(&config, layout::EMBEDDING).unwrap();
        let view = source.part(layout::EMBEDDING, &whole, &Part::Columns(0..10)).unwrap();
        assert_eq!((view.shape, view.data.len()), (vec![65024, 10], 65024 * 10 * 2));
        assert!(source.tensor(layout::EMBEDDING, &[1, 2]).is_err());
    }
}
