//! Words for how a model computes, read as the engine's own types.

use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DeviceKind, KvForm, Precision};

use super::SuiteError;
use super::table::{Table, word};

/// Takes the number type under `key`. The form of the KV cache has a key of its own.
pub(super) fn dtype(table: &mut Table, key: &'static str) -> Result<Option<Precision>, SuiteError> {
    one_of(table, key, &Precision::TYPES, Precision::type_name)
}

/// Takes the form of the KV cache.
pub(super) fn kv(table: &mut Table) -> Result<Option<KvForm>, SuiteError> {
    one_of(table, "kv", &KvForm::ALL, KvForm::name)
}

/// Takes the rotary table's mode.
pub(super) fn rope(table: &mut Table) -> Result<Option<RotaryMode>, SuiteError> {
    one_of(table, "rope", &RotaryMode::ALL, RotaryMode::name)
}

/// Takes the device.
pub(super) fn device(table: &mut Table) -> Result<Option<DeviceKind>, SuiteError> {
    one_of(table, "device", &DeviceKind::ALL, DeviceKind::name)
}

fn one_of<T: Copy>(
    table: &mut Table,
    key: &'static str,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<Option<T>, SuiteError> {
    let names: Vec<&str> = all.iter().map(|&value| name(value)).collect();
    let find = |text: &str| all.iter().copied().find(|&value| name(value) == text);
    table.take(key).map(|node| word(&node, &names, find)).transpose()
}
