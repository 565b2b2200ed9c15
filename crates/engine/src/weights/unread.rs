//! A source with a model's shapes and zeros as weights, which nobody reads.
//!
//! For a device that runs only its virtual clock. The zeros are pages that are never touched, so a model of any size
//! loads at once and takes no memory.

use std::borrow::Cow;

use super::dummy::zeroed;
use super::part::Part;
use super::{StorageType, StoredTensor, TensorView, WeightError, WeightSource, layout};
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
