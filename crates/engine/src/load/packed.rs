//! Loading with a cache of packed weights: they are mapped if they were kept, and kept if they were not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use glmbench_cpu::{Packs, SharedBytes};

use super::On;
use crate::weights::WeightSource;
use crate::weights::packed::{EXTENSION, Hollow, PackCache, PackFile, PackUse, PackedWeights, Writer};
use crate::{Engine, EngineError};

/// Loads a model with the cache in `folder`.
pub(super) fn load(
    mut on: On<'_>,
    folder: &Path,
    source: &Arc<dyn WeightSource>,
) -> Result<Engine, EngineError> {
    let Made { path, words, ranks } = Made::of(&on, folder);
    let mut notes = Vec::new();
    let file = PackFile::new(path.clone(), &words, ranks, &**source);
    match file.as_ref().map_err(String::clone).and_then(PackFile::open) {
        Ok(Some(kept)) => match mapped(&mut on, source, kept) {
            Ok(mut engine) => {
                notes.push(format!("packed weights: mapped from {}", path.display()));
                engine.set_pack_cache(PackCache { used: PackUse::Mapped, notes });
                return Ok(engine);
            }
            Err(error) => notes.push(format!("packed weights: {}: {error}; packing anew", path.display())),
        },
        Ok(None) => {}
        Err(problem) => notes.push(format!("packed weights: {problem}; packing anew")),
    }
    let writer = file.and_then(PackFile::create).map(Arc::new);
    let packs = writer.as_ref().map_or_else(|_| Vec::new(), |writer| keepers(writer, ranks));
    let mut engine = on.watched(Arc::clone(source), packs)?;
    let faults = engine.weight_faults().unwrap_or_default();
    let written = writer.and_then(|writer| writer.publish(&**source, faults));
    let used = match written {
        Ok(()) => {
            notes.push(format!("packed weights: kept in {}", path.display()));
            PackUse::Written
        }
        Err(problem) => {
            notes.push(format!("packed weights: not kept: {problem}"));
            PackUse::Failed
        }
    };
    engine.set_pack_cache(PackCache { used, notes });
    Ok(engine)
}

/// All that decides on the packed weights besides the weights, and the file that keeps them.
struct Made {
    path: PathBuf,
    words: String,
    ranks: usize,
}

impl Made {
    fn of(on: &On<'_>, folder: &Path) -> Self {
        let (precision, ranks) = (on.options.precision, on.options.tp);
        // Without the kernels, loading ends with the error of the device.
        let (kernels, layout) = on.cpu().pack_layout().unwrap_or_default();
        // With a prefix over a base model, the folder serves both.
        let prefix = if on.config.pre_seq_len.is_some() { "-prefix" } else { "" };
        let name = format!("glmbench-{}{prefix}-tp{ranks}-{kernels}.{EXTENSION}", precision.type_name());
        Self { path: folder.join(name), words: format!("{layout}\0{:?}", on.config), ranks }
    }
}

/// Returns what passes the parts of each rank to the writer.
fn keepers(writer: &Arc<Writer>, ranks: usize) -> Vec<Packs> {
    let of_rank = |rank| {
        let writer = Arc::clone(writer);
        Packs::Keep(Box::new(move |part| writer.keep(rank, part)))
    };
    (0..ranks).map(of_rank).collect()
}

fn mapped(
    on: &mut On<'_>,
    source: &Arc<dyn WeightSource>,
    kept: PackedWeights,
) -> Result<Engine, EngineError> {
    let PackedWeights { map, ranks, faults } = kept;
    let bytes: SharedBytes = map;
    let packs = ranks.into_iter().map(|parts| Packs::Kept(Arc::clone(&bytes), parts.into_iter())).collect();
    let mut engine = on.engine(Arc::new(Hollow(Arc::clone(source))), packs)?;
    engine.set_weight_faults(faults);
    Ok(engine)
}
