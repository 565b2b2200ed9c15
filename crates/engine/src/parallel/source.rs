//! A weight source shared by several ranks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::weights::{Part, RawTensor, StorageType, StoredTensor, TensorView, WeightError, WeightSource};

/// A weight source that releases a tensor only once every rank has released it.
pub(super) struct Together {
    source: Arc<dyn WeightSource>,
    tp: usize,
    released: Mutex<HashMap<String, usize>>,
}

impl Together {
    /// Shares `source` between `tp` ranks.
    pub(super) fn new(source: Arc<dyn WeightSource>, tp: usize) -> Self {
        Self { source, tp, released: Mutex::default() }
    }
}

impl WeightSource for Together {
    fn place(&self) -> String {
        self.source.place()
    }

    fn stored(&self) -> Vec<StoredTensor> {
        self.source.stored()
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        self.source.tensor(name, shape)
    }

    fn part(&self, name: &str, shape: &[usize], part: &Part) -> Result<TensorView<'_>, WeightError> {
        self.source.part(name, shape, part)
    }

    fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        self.source.raw(name)
    }

    fn release(&self, name: &str) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        let count = released.entry(name.to_owned()).or_default();
        *count += 1;
        if *count == self.tp {
            released.remove(name);
            self.source.release(name);
        }
    }

    fn dtype(&self) -> StorageType {
        self.source.dtype()
    }

    fn fingerprint(&self, hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        self.source.fingerprint(hashed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelConfig;
    use crate::weights::dummy::Dummy;
    use crate::weights::layout::FINAL_NORM;

    /// A source that records releases.
    struct Counting(Dummy, Mutex<Vec<String>>);

    impl WeightSource for Counting {
        fn place(&self) -> String {
            self.0.place()
        }
        fn stored(&self) -> Vec<StoredTensor> {
            self.0.stored()
        }
        fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
            self.0.tensor(name, shape)
        }
        fn release(&self, name: &str) {
            self.1.lock().unwrap().push(name.to_owned());
        }
        fn dtype(&self) -> StorageType {
            self.0.dtype()
        }
        fn fingerprint(&self, hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
            self.0.fingerprint(hashed)
        }
    }

    #[test]
    fn a_tensor_is_released_when_every_rank_had_it_and_can_be_had_again() {
        let dummy = Dummy::new(ModelConfig::chatglm2_6b(), StorageType::F16, 1);
        let source = Arc::new(Counting(dummy, Mutex::default()));
        let together = Together::new(Arc::clone(&source) as Arc<dyn WeightSource>, 3);
        for round in 0..2 {
            for rank in 0..3 {
                assert_eq!(source.1.lock().unwrap().len(), round, "round {round} rank {rank}");
                assert!(together.tensor(FINAL_NORM, &[4096]).is_ok());
                together.release(FINAL_NORM);
            }
        }
        assert_eq!(*source.1.lock().unwrap(), [FINAL_NORM, FINAL_NORM]);
    }
}
