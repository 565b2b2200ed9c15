//! The files of the newer MindIE ModelTest: its names, folders, headings, column widths and definitions.

mod max_batch;
mod performance;
mod precision;

use super::{Export, ExportError, File, Output, Records};
use crate::record::{Clock, PromptRecord};
use crate::text::markdown;
use glmbench_device::DeviceKind;
use std::collections::HashMap;

/// The format `modeltest`.
#[derive(Debug)]
pub(super) struct ModelTest;

impl Export for ModelTest {
    fn name(&self) -> &'static str {
        "modeltest"
    }

    fn about(&self) -> &'static str {
        "Files of the newer MindIE ModelTest: result CSV, its formatted copy, debug CSV"
    }

    fn details(&self) -> String {
        ABOUT.to_owned()
    }

    fn output(&self) -> Output {
        Output::Files(files)
    }

    fn prompt_fields(&self) -> Option<&'static str> {
        Some("queries and input_token_ids")
    }
}

/// The prompts by task and item.
type Prompts<'a> = HashMap<(&'a str, &'a str), &'a PromptRecord>;

/// Describes these files, and where their definitions differ from the run's own tables.
const ABOUT: &str = "\
These files have the names, folders, headings and widths of the newer MindIE ModelTest, and its
definitions. Programs that read its results can read them. They differ from the run's accuracy.csv
and perf.csv as follows.

Performance
- ModelTest measures a case once. Here `Total time(s)`, `Prefill all time(ms)` and
  `Non-first token time(ms)` are each the median over the timed repetitions. The other columns are
  computed from these three.
- `Prefill all time(ms)` is the sum of the prefill steps. `Prefill average time(ms)` is this sum
  divided by the batch size.
- `Non-first token time(ms)` is the sum of the decode steps over (output length - 1), and 0 for one
  output token.
- Both throughputs are batch size over time. `Throughput(Tokens/s)` is batch size * output length /
  total time.
- `Total time(s)` is the time in the engine. ModelTest's also includes building the requests and
  detokenization.
- The two averages in the last row are arithmetic means of rates over cases of different shapes.
  They are not the rate of any workload. An aggregate rate is all tokens over all time.
- As in ModelTest, a failed case has its error instead of figures and is outside the averages. The
  cases after it are exported. ModelTest skips them.
- ModelTest's prompts are random over the whole vocabulary, with special tokens. These are random
  ordinary tokens.

Max-batch searches (performance_maxbs)
- As in ModelTest, `_round_result.csv` has a row for every probe of a pair of lengths, each with
  averages over itself. A batch that did not run has the reason instead of figures.
  `_final_result.csv` has the best row of each pair, with the averages in the last.
- In ModelTest, each round loads the model again and bisects. Here one model stays loaded, and the
  boundary is measured twice.
- `Prefill all time(ms)` is here the time to the first token of the whole batch.

Precision
- `value` is correct / sum, and sum counts every item. As in ModelTest, a failed item, which the
  model did not answer, counts as a wrong answer. accuracy.csv excludes failed items from the
  accuracy and counts them separately.
- `_formatted_result.csv` is the same table with `|`. ModelTest creates that file but leaves it
  empty.
- In the debug file, `key` is SUBJECT_ID for C-Eval, with the item's id in its file. For BoolQ it is
  the item's line, counted from 0. `queries` and `input_token_ids` are those of the item's first
  model call. BoolQ is judged here without generating a token, so its `output_token_ids` is empty.
- If a run has several cases of one data set (with other protocols), each has a folder named after
  its task.

Folders: the hardware is NPU, NPU_emulated or CPU. The model is named as on the command line. `pa`
is ModelTest's word for paged attention.
Times of a virtual clock are in files with `_modelled_` in the name, and in rows that say
`(modelled)`: nothing was measured. Lines end in a line feed alone.
";

/// Returns the files of a run, beginning with a `README.md`. The prompts fill the debug files of precision cases.
fn files(records: &Records) -> Result<Vec<File>, ExportError> {
    let prompts = &records.prompts;
    let prompts: Prompts<'_> = prompts.iter().map(|p| ((p.task.as_str(), p.doc_id.as_str()), p)).collect();
    let mut notes = Vec::new();
    let mut files = performance::files(records, &mut notes)?;
    files.extend(max_batch::files(records, &mut notes)?);
    files.extend(precision::files(records, &prompts, &mut notes)?);
    let readme = File { path: "README.md".into(), bytes: readme(records, &notes).into_bytes() };
    files.insert(0, readme);
    Ok(files)
}

fn readme(records: &Records, notes: &[String]) -> String {
    let run = &records.run;
    let mut text = format!(
        "# Run {} in ModelTest's form\n\nMade by {} on {}, {}.\n",
        markdown(&run.run_id),
        markdown(&run.provenance.engine),
        markdown(&run.provenance.device),
        markdown(&run.provenance.dtype)
    );
    if let Some(from) = &run.provenance.scored_from {
        text += &format!("The answers are those of run {}, scored again.\n", markdown(from));
    }
    if !notes.is_empty() {
        text += "\nOf this run:\n";
        text.extend(notes.iter().map(|note| format!("- {}\n", markdown(note))));
    }
    text + "\n" + ABOUT
}

/// `<top>/<hardware>/<test>_test/<mode>/<dtype>/<model>`.
fn folder(records: &Records, top: &str, test: &str, mode: &str) -> String {
    let p = &records.run.provenance;
    // What is no device of this program, such as a server, ran on some host.
    let device = p.device.known().unwrap_or(DeviceKind::Cpu.into());
    let hardware =
        format!("{}{}", device.kind.modeltest_hardware(), if device.emulated { "_emulated" } else { "" });
    format!("{top}/{hardware}/{test}_test/{mode}/{}/{}", plain(&p.dtype), plain(&p.model))
}

/// Makes a name safe as one path component.
pub(super) fn plain(name: &str) -> String {
    let keep = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let plain: String = name.chars().map(|c| if keep(c) { c } else { '-' }).collect();
    if plain.trim_matches('.').is_empty() { "model".to_owned() } else { plain }
}

/// Mark in the name of a file with times of a virtual clock.
fn mark(clock: Clock) -> &'static str {
    match clock {
        Clock::Measured => "",
        Clock::Modelled => "_modelled",
    }
}

/// Writes rows as CSV with that delimiter. Rows may differ in length.
fn table(delimiter: u8, rows: &[Vec<String>]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::WriterBuilder::new().delimiter(delimiter).flexible(true).from_writer(Vec::new());
    rows.iter().try_for_each(|row| writer.write_record(row))?;
    writer.into_inner().map_err(|e| e.into_error().into())
}
