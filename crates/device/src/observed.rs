//! Observation of a forward pass: a device that shows the inputs of linear layers, and keys and values, to an [`Observer`].
//!
//! [`Observed`] is a [`Hooked`] device, and so transparent to the forward pass. Quantisation is calibrated with it, so that there
//! is no second forward pass.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::hooked::{Hooked, Hooks};
use super::{AttentionShape, Device, DeviceError, LinearWeight, Role};

/// Receives what a forward pass computes.
pub trait Observer: Send {
    /// Receives the inputs of a linear layer: rows of `width` numbers. `number` counts the linear layers in the order of their
    /// upload, from 0, those of the P-tuning prefix left out.
    fn inputs(&mut self, number: usize, rows: &[f32], width: usize);

    /// Receives rows `[keys | values]` of layer `layer` as they are written to the cache.
    fn keys_and_values(&mut self, layer: usize, rows: &[f32], width: usize);
}

/// The hooks that show what is computed.
pub struct Observation {
    observer: Arc<Mutex<dyn Observer>>,
    uploaded: AtomicUsize,
    numbers: Vec<f32>,
}

/// A device whose linear layers and cache are observed.
pub type Observed<D> = Hooked<D, Observation>;

/// What tells a linear layer to the observer.
#[derive(Debug, Clone, Copy)]
pub struct Observable {
    number: usize,
    width: usize,
}

impl Observation {
    /// Shows what the device computes to `observer`.
    pub fn new(observer: Arc<Mutex<dyn Observer>>) -> Self {
        Self { observer, uploaded: AtomicUsize::new(0), numbers: Vec::new() }
    }

    fn observer(&self) -> MutexGuard<'_, dyn Observer + 'static> {
        self.observer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Device> Hooks<D> for Observation {
    /// `None` for layers that run at load only.
    type Mark = Option<Observable>;

    fn mark(&self, role: Role, weight: &LinearWeight<'_>) -> Option<Observable> {
        (role != Role::Prefix).then(|| Observable {
            number: self.uploaded.fetch_add(1, Ordering::Relaxed),
            width: weight.width(),
        })
    }

    fn linear(
        &mut self,
        device: &mut D,
        x: &D::Activation,
        mark: &Option<Observable>,
    ) -> Result<(), DeviceError> {
        let Some(Observable { number, width }) = *mark else { return Ok(()) };
        device.download(x, &mut self.numbers)?;
        self.observer().inputs(number, &self.numbers, width);
        Ok(())
    }

    fn write_kv(
        &mut self,
        device: &mut D,
        qkv: &D::Activation,
        layer: usize,
        shape: AttentionShape,
    ) -> Result<(), DeviceError> {
        device.download(qkv, &mut self.numbers)?;
        let (queries, all) =
            (shape.heads * shape.channels, (shape.heads + 2 * shape.kv_heads) * shape.channels);
        let rows: Vec<f32> =
            self.numbers.chunks_exact(all).flat_map(|row| &row[queries..]).copied().collect();
        self.observer().keys_and_values(layer, &rows, all - queries);
        Ok(())
    }
}
