//! A calibration on disk, so that a stopped job can go on: a safetensors file beside the output folder.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};

use super::observations::{Observations, Seen};
use super::range::{BINS, Histogram};
use super::{Job, QuantiseError};
use crate::config::ModelConfig;

/// Largest file that is read: samples of the 6B model take 100 MB.
const MOST_BYTES: u64 = 4 << 30;

/// Tells calibrations apart: model, settings and prompts.
pub(super) struct Key(String);

impl Key {
    /// Hashes what a calibration depends on. Weight files count with their names, sizes and times, because hashing them takes
    /// as long as a pass.
    pub(super) fn of(job: &Job) -> Self {
        let Job { config, settings, prompts, source, .. } = job;
        let mut hasher = Sha256::new();
        let (smooth, method, float) = (settings.smooth, settings.method, &settings.float);
        hasher.update(format!(
            "1 {config:?} {smooth:?} {method:?} {float:?} {:?} {prompts:?}",
            settings.scheme
        ));
        let mut files: Vec<String> = source.stored().into_iter().map(|tensor| tensor.origin).collect();
        files.sort_unstable();
        files.dedup();
        for file in files {
            let found = fs::metadata(&file).ok();
            let state = found.and_then(|found| Some((found.len(), found.modified().ok()?)));
            hasher.update(format!("{file} {state:?}"));
        }
        Self(hasher.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
    }
}

/// Returns the file of an output folder: `.OUT.calibration` beside it.
fn path(out: &Path) -> Option<PathBuf> {
    let name = out.file_name()?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".calibration");
    Some(out.with_file_name(hidden))
}

/// Removes the calibration of an output folder.
pub(super) fn remove(out: &Path) {
    if let Some(path) = path(out) {
        // If it stays, the next job of the same model finds and uses it, or replaces it.
        let _ = fs::remove_file(path);
    }
}

/// Writes what was seen so far. The file is replaced by rename.
pub(super) fn write(out: &Path, key: &Key, seen: &Observations) -> Result<(), QuantiseError> {
    let Some(path) = path(out) else { return Ok(()) };
    let failed = |source| QuantiseError::File { path: path.clone(), source };
    let mut tensors: Vec<(String, Dtype, Vec<u8>)> = Vec::new();
    let floats = |numbers: &[f32]| bytemuck::cast_slice(numbers).to_vec();
    for (number, of) in seen.linears.iter().enumerate() {
        let mut add = |what: &str, dtype, data| tensors.push((format!("{number}.{what}"), dtype, data));
        add("low", Dtype::F32, floats(&of.low));
        add("high", Dtype::F32, floats(&of.high));
        add("samples", Dtype::F32, floats(&of.samples));
        let counts = [of.rows, u64::from(of.is_finite)];
        add("rows", Dtype::U64, bytemuck::cast_slice(&counts).to_vec());
        if let Some(histogram) = &of.histogram {
            let range = [histogram.range.low, histogram.range.high];
            add("range", Dtype::F32, floats(&range));
            add("counts", Dtype::U64, bytemuck::cast_slice(&histogram.counts).to_vec());
        }
    }
    for (layer, most) in seen.caches.iter().enumerate() {
        tensors.push((format!("cache.{layer}"), Dtype::F32, floats(most)));
    }
    let views = tensors.iter().map(|(name, dtype, data)| {
        let shape = vec![data.len() * 8 / dtype.bitsize()];
        (name, TensorView::new(*dtype, shape, data).expect("invariant: whole numbers"))
    });
    let said =
        [("key", key.0.clone()), ("pass", seen.pass.to_string()), ("prompts", seen.prompts.to_string())];
    let said: HashMap<String, String> =
        said.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let bytes =
        safetensors::serialize(views, Some(said)).map_err(|error| failed(std::io::Error::other(error)))?;
    let mut own = path.clone().into_os_string();
    own.push(format!("-{}", std::process::id()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(&own, bytes).and_then(|()| fs::rename(&own, &path)).map_err(|source| {
        // On a full disk, half a file would only take more of it.
        let _ = fs::remove_file(&own);
        failed(source)
    })
}

/// Reads what an earlier process saw; `None` if there is nothing, or it belongs to another job or is damaged: the calibration
/// then begins anew.
pub(super) fn read(out: &Path, key: &Key, config: &ModelConfig) -> Option<Observations> {
    let path = path(out)?;
    if fs::metadata(&path).ok()?.len() > MOST_BYTES {
        return None;
    }
    let bytes = fs::read(&path).ok()?;
    let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
    let said = header.metadata().as_ref()?;
    (said.get("key")? == &key.0).then_some(())?;
    let tensors = SafeTensors::deserialize(&bytes).ok()?;
    let floats = |name: &str| -> Option<Vec<f32>> {
        let data = tensors.tensor(name).ok()?.data().to_vec();
        Some(data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    };
    let counts = |name: &str| -> Option<Vec<u64>> {
        let data = tensors.tensor(name).ok()?.data().to_vec();
        Some(data.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect())
    };
    let mut seen = Observations::new(config);
    seen.pass = said.get("pass")?.parse().ok()?;
    seen.prompts = said.get("prompts")?.parse().ok()?;
    for (number, of) in seen.linears.iter_mut().enumerate() {
        let width = of.low.len();
        let name = |what: &str| format!("{number}.{what}");
        let [rows, is_finite] = counts(&name("rows"))?.try_into().ok()?;
        *of = Seen {
            low: floats(&name("low")).filter(|low| low.len() == width)?,
            high: floats(&name("high")).filter(|high| high.len() == width)?,
            samples: floats(&name("samples")).filter(|samples| samples.len().is_multiple_of(width))?,
            histogram: None,
            rows,
            is_finite: is_finite == 1,
        };
        if let Some(counts) = counts(&name("counts")).filter(|counts| counts.len() == BINS) {
            let [low, high] = floats(&name("range"))?.try_into().ok()?;
            let mut histogram = Histogram::new(super::range::Range { low, high });
            histogram.counts = counts;
            of.histogram = Some(histogram);
        }
    }
    for (layer, most) in seen.caches.iter_mut().enumerate() {
        *most = floats(&format!("cache.{layer}")).filter(|found| found.len() == most.len())?;
    }
    let is_sound = match seen.pass {
        1 => true,
        2 => seen.linears.iter().all(|of| of.histogram.is_some()),
        _ => false,
    };
    is_sound.then_some(seen)
}
