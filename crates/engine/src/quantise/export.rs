//! The files of the new checkpoint.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::calibrate::Calibration;
use super::plan::{Origin, Plan, Planned};
use super::source::Maker;
use super::{Control, Job, QuantiseError};
use crate::config::Scheme;
use crate::weights::convert::companions;
use crate::weights::layout::LinearId;
use crate::weights::output::Staging;
use crate::weights::quantised::description::{C8, KV_TYPE, MODEL_TYPE};
use crate::weights::quantised::names;

const CONFIG: &str = "config.json";
/// Largest `config.json` that is rewritten, in bytes.
const CONFIG_LIMIT: u64 = 16 << 20;

/// Writes the folder `out`. Returns the names of its files and the size of the weights in bytes.
pub(super) fn write(
    job: &Job,
    plan: &Plan,
    calibration: &Calibration,
    out: &Path,
    control: &mut Control<'_>,
) -> Result<(Vec<String>, u64), QuantiseError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
            QuantiseError::Exists { out: out.to_path_buf() }
        }
        _ => QuantiseError::File { path: out.to_path_buf(), source },
    };
    let staging = Staging::new(out).map_err(failed)?;
    let scheme = job.settings.scheme;
    let weights = format!("{}.safetensors", names::weight_stem(scheme));
    let in_file = |name: &str| {
        let path = out.join(name);
        move |source| QuantiseError::File { path: path.clone(), source }
    };
    control.stage("quantising", "bytes", plan.bytes());
    let file = staging.create(&weights).map_err(in_file(&weights))?;
    let writer = Writer { file, failed: &in_file(&weights) };
    writer.write(&Maker { job, calibration }, plan, control)?;
    let mut files = vec![weights];
    let mut texts = vec![
        (names::description(scheme), format!("{:#}\n", description(job, plan))),
        (CONFIG.to_owned(), format!("{:#}\n", config(job)?)),
    ];
    for (name, text) in &mut texts {
        staging.write(name, |out| out.write_all(text.as_bytes())).map_err(in_file(name))?;
        files.push(name.clone());
    }
    let beside = companions(&job.dir).map_err(|error| QuantiseError::Setting(error.to_string()))?;
    for name in beside.into_iter().filter(|name| name != CONFIG && !name.starts_with("quant_model_")) {
        let from = job.dir.join(&name);
        let mut source = File::open(&from).map_err(|source| QuantiseError::File { path: from, source })?;
        staging.write(&name, |out| io::copy(&mut source, out).map(drop)).map_err(in_file(&name))?;
        files.push(name);
    }
    control.check()?;
    staging.publish().map_err(failed)?;
    Ok((files, plan.bytes()))
}

/// Writes the weight file, one linear layer at a time, each tensor at its place.
struct Writer<'a> {
    file: File,
    failed: &'a dyn Fn(io::Error) -> QuantiseError,
}

impl Writer<'_> {
    fn write(
        mut self,
        maker: &Maker<'_>,
        plan: &Plan,
        control: &mut Control<'_>,
    ) -> Result<(), QuantiseError> {
        let header = header(plan);
        self.put(0, &header)?;
        let places: HashMap<&str, u64> = plan
            .in_file()
            .into_iter()
            .map(|(planned, at)| (planned.name.as_str(), at + header.len() as u64))
            .collect();
        for planned in &plan.tensors {
            control.check()?;
            match planned.origin {
                // The weight comes first among the tensors of a layer, and stands for all.
                Origin::Linear(id, names::Suffix::Weight) => {
                    self.put_linear(maker, id, &places)?;
                }
                Origin::Linear(..) => {}
                _ => {
                    let data = maker.other(planned)?;
                    self.put(places[planned.name.as_str()], &data)?;
                    drop(data);
                    maker.job.source.release(&planned.name);
                }
            }
            control.done(planned.bytes());
        }
        self.file.sync_all().map_err(self.failed)
    }

    fn put_linear(
        &mut self,
        maker: &Maker<'_>,
        id: LinearId,
        places: &HashMap<&str, u64>,
    ) -> Result<(), QuantiseError> {
        for tensor in maker.linear(id)? {
            if let Some(&at) = places.get(tensor.suffix.of(id).as_str()) {
                self.put(at, &tensor.data)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, at: u64, data: &[u8]) -> Result<(), QuantiseError> {
        let put = self.file.seek(SeekFrom::Start(at)).and_then(|_| self.file.write_all(data));
        put.map_err(self.failed)
    }
}

/// Returns the length field and header of the file.
fn header(plan: &Plan) -> Vec<u8> {
    let of = |(planned, at): (&Planned, u64)| {
        let Planned { dtype, shape, .. } = planned;
        let info = json!({"dtype": dtype, "shape": shape, "data_offsets": [at, at + planned.bytes()]});
        (planned.name.clone(), info)
    };
    let mut header: Map<String, Value> = plan.in_file().into_iter().map(of).collect();
    header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    crate::weights::safetensors::framed(&Value::Object(header))
}

/// Returns the description: the words of the model, then those of the tensors.
fn description(job: &Job, plan: &Plan) -> Value {
    let mut words = Map::new();
    words.insert(MODEL_TYPE.to_owned(), job.settings.scheme.description_word().into());
    if job.settings.kv_c8 {
        words.insert(KV_TYPE.to_owned(), C8.into());
    }
    words.extend(plan.tensors.iter().map(|planned| (planned.name.clone(), planned.word.into())));
    Value::Object(words)
}

/// Returns the float model's `config.json` with the keys of the quantisation.
fn config(job: &Job) -> Result<Value, QuantiseError> {
    let path = job.dir.join(CONFIG);
    let failed = |source| QuantiseError::File { path: path.clone(), source };
    if std::fs::metadata(&path).map_err(failed)?.len() > CONFIG_LIMIT {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let mut config: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| failed(io::Error::other(error)))?;
    let settings = &job.settings;
    config.remove("quantization_bit");
    config.insert("quantize".to_owned(), settings.scheme.word().into());
    let mut more = Map::new();
    if settings.kv_c8 {
        more.insert("kv_quant_type".to_owned(), C8.into());
    }
    if settings.scheme == Scheme::W4a16 {
        more.insert("group_size".to_owned(), settings.group.into());
    }
    if !more.is_empty() {
        config.insert("quantization_config".to_owned(), Value::Object(more));
    }
    Ok(Value::Object(config))
}
