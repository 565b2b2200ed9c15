//! A P-tuning prefix from one folder on top of a base model from another.

use super::{
    Part, RawTensor, StorageType, StoredTensor, TensorView, WeightError, WeightSource, combine, layout,
};

/// Prefix tensors from `prefix`, all others from `base`, which is how THUDM's training saves P-tuning v2.
pub struct Overlay<P, B> {
    /// Source of `transformer.prefix_encoder.*`.
    pub prefix: P,
    /// Source of all other tensors.
    pub base: B,
}

impl<P: WeightSource, B: WeightSource> Overlay<P, B> {
    fn of(&self, name: &str) -> &dyn WeightSource {
        if name.starts_with(layout::PREFIX) { &self.prefix } else { &self.base }
    }
}

impl<P: WeightSource, B: WeightSource> WeightSource for Overlay<P, B> {
    fn place(&self) -> String {
        format!("{} over {}", self.prefix.place(), self.base.place())
    }

    /// Lists only prefix tensors of the prefix source, so that a full fine-tuned checkpoint there does not count as
    /// extra.
    fn stored(&self) -> Vec<StoredTensor> {
        let is_prefix = |tensor: &StoredTensor| tensor.name.starts_with(layout::PREFIX);
        let mut stored = self.base.stored();
        stored.retain(|tensor| !is_prefix(tensor));
        stored.extend(self.prefix.stored().into_iter().filter(is_prefix));
        stored
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>, WeightError> {
        self.of(name).tensor(name, shape)
    }

    fn part(&self, name: &str, shape: &[usize], part: &Part) -> Result<TensorView<'_>, WeightError> {
        self.of(name).part(name, shape, part)
    }

    fn raw(&self, name: &str) -> Option<RawTensor<'_>> {
        self.of(name).raw(name)
    }

    fn release(&self, name: &str) {
        self.of(name).release(name);
    }

    fn dtype(&self) -> StorageType {
        self.base.dtype()
    }

    fn fingerprint(&self, hashed: &(dyn Fn(u64) + Sync)) -> Result<String, WeightError> {
        Ok(combine([self.prefix.fingerprint(hashed)?, self.base.fingerprint(hashed)?]))
    }
}
