//! `glmbench doctor`: what this machine is, what it can do, and what to fix before measuring.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};

use glmbench_ascend::Installation;
use glmbench_cpu::{InstructionSet, available_threads, measure_limits};
use glmbench_device::{DType, DeviceName, Precision};

use glmbench_engine::config::RopeScaling;
use glmbench_engine::model::Capacity;

use crate::bench::Shape;
use crate::compute::{Compute, ComputeSpec};
use crate::record::{HugePages, MeasuredLimits, MeasuredRate, Noise, Word, rfc3339_utc};
use crate::run::environment::{Reader, VARIABLES, environment, variable};
use crate::run::found::FoundModel;
use crate::run::huge_pages::{self, FreeMemory};
use crate::run::machine::Machine;
use crate::run::noise::{PhaseTime, between, times};
use crate::run::plan::ordinary_tokens;
use crate::run::roofline::limits_record;

use super::bars::Bars;
use super::engine::ROPE_SCALING;
use super::{emit, emit_json};

/// Report what this machine can do, and what to fix before measuring
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Also measure memory bandwidth and the peak of each arithmetic unit. Takes two or three seconds, and 128 MiB per core
    #[arg(long)]
    limits: bool,
    /// Also time a model in several processes, one after the other, and report how much equal runs differ on this machine
    #[arg(long)]
    noise: bool,
    /// With --limits: number of threads [default: all cores]
    #[arg(long, value_name = "N", requires = "limits", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// With --noise: number of processes
    #[arg(long, value_name = "N", default_value = "10", requires = "noise", value_parser = clap::value_parser!(u16).range(3..=1000))]
    runs: u16,
    /// With --noise: minimum number of seconds between the starts of two processes
    #[arg(long, value_name = "SECONDS", default_value = "20", requires = "noise", value_parser = clap::value_parser!(u32).range(0..=86_400))]
    every: u32,
    /// With --noise: this process is one of those that are timed
    #[arg(long, hide = true, requires = "noise")]
    one_of_them: bool,
    /// With --noise: model folder, `demo`, `dummy:chatglm2-6b` or `dummy:PATH/config.json`
    #[arg(long, value_name = "DIR|demo|dummy:…", default_value = "demo", requires = "noise")]
    model: OsString,
    #[arg(long, value_name = "WHAT", requires = "noise", help = format!("With --noise: {ROPE_SCALING}"))]
    rope_scaling: Option<RopeScaling>,
    /// With --noise: shapes as BATCHxINPUTxOUTPUT
    #[arg(long, value_name = "BxIxO", default_values = ["1x64x32", "8x256x32"], requires = "noise", value_parser = shape)]
    shape: Vec<Shape>,
    /// With --noise: write the noise floors to this file, for `glmbench compare --noise-floor`
    #[arg(long, value_name = "FILE", requires = "noise")]
    out: Option<PathBuf>,
    /// List all known environment variables and their readers, instead of only those that are set
    #[arg(long)]
    environment: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Parses `8x256x32`: batch, input and output tokens.
fn shape(word: &str) -> Result<Shape, String> {
    let numbers: Vec<usize> = word.split('x').filter_map(|n| n.parse().ok().filter(|&n| n > 0)).collect();
    match numbers.as_slice() {
        &[batch, input_tokens, output_tokens] if word.split('x').count() == 3 => {
            Ok(Shape { batch, input_tokens, output_tokens })
        }
        _ => Err(format!("found \"{word}\"; expected BATCHxINPUTxOUTPUT, such as 8x256x32")),
    }
}

#[derive(Serialize)]
struct Findings {
    os: String,
    cpu: Option<String>,
    cores: usize,
    numa_nodes: Option<usize>,
    kernels: Vec<&'static str>,
    governor: Option<String>,
    huge_pages: Option<String>,
    free_bytes: Option<u64>,
    huge_free_bytes: Option<u64>,
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
    cann: Option<String>,
    ascend: Installation,
    limits: Option<MeasuredLimits>,
    advice: Vec<String>,
    environment: Vec<VariableFinding>,
    noise: Option<Noise>,
}

/// Describes the Ascend installation; empty if there is none.
fn ascend_words(found: &Installation) -> String {
    if !found.is_there() {
        return String::new();
    }
    let or = |word: &Option<String>, without: &str| word.clone().unwrap_or_else(|| without.to_owned());
    let chips = match (found.devices, &found.soc) {
        (Some(devices), Some(soc)) => format!("{devices} {soc}"),
        _ => "none available".to_owned(),
    };
    let nodes = if found.nodes.is_empty() { "none".to_owned() } else { found.nodes.join(" ") };
    let mut text = format!(
        "chips         {chips}\ndriver        {}\ndevice nodes  {nodes}\noperators     ASCEND_OPP_PATH {}\n",
        or(&found.driver, "not found"),
        or(&found.opp_path, "not set")
    );
    for (family, path) in &found.libraries {
        text += &format!("library       {path} ({family})\n");
    }
    for left_out in &found.left_out {
        text += &format!("left out      {left_out}\n");
    }
    if let Some(problem) = &found.problem {
        text += &format!("problem       {problem}\n");
    }
    text
}

/// An environment variable: its reader and its value.
#[derive(Serialize)]
struct VariableFinding {
    name: String,
    value: Option<String>,
    reader: Reader,
    effect: &'static str,
}

/// Returns the variables that are set; with `all`, all known ones.
fn variables(all: bool) -> Vec<VariableFinding> {
    let set = environment();
    let of = |name: &str, value: Option<&String>| {
        let known = variable(name)?;
        Some(VariableFinding {
            name: name.to_owned(),
            value: value.cloned(),
            reader: known.reader,
            effect: known.effect,
        })
    };
    let unset =
        VARIABLES.iter().filter(|v| all && !set.contains_key(v.name)).filter_map(|v| of(v.name, None));
    set.iter().filter_map(|(name, value)| of(name, Some(value))).chain(unset).collect()
}

/// Runs the verb.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.one_of_them {
        emit(&serde_json::to_string(&one_of_them(args)?)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut findings = findings(Machine::read());
    if args.limits {
        let threads = args.threads.map_or_else(available_threads, usize::from);
        // The recorded peak is for the product's main type.
        findings.limits = Some(limits_record(&measure_limits(threads)?, DType::Fp16.into()));
    }
    // After the measurement, because CANN starts threads of its own.
    findings.ascend = Installation::look();
    if findings.ascend.soc.as_ref().is_some_and(|soc| soc.starts_with("Ascend910B")) {
        findings.advice.push(HCCL_ON_A2.to_owned());
    }
    findings.environment = variables(args.environment);
    if args.noise {
        let noise = between_processes(args)?;
        if let Some(path) = &args.out {
            noise.write(path)?;
        }
        findings.noise = Some(noise);
    }
    if args.json {
        emit_json(&findings)?;
    } else {
        emit(words(&findings).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What CANN's documentation says about several chips of this kind.
const HCCL_ON_A2: &str = "CANN's documentation up to 8.3 calls collectives unsupported on an 800I A2 (8.5 and 9.0 list training machines, \
     9.1 lists inference). Frameworks use them there. Try `glmbench npu-selftest --device 800i-a2 --tp 2`";

/// Repetitions of each shape in a process.
const REPETITIONS: usize = 10;

/// The result of one process.
#[derive(Serialize, Deserialize)]
struct OneOfThem {
    device: Word<DeviceName>,
    kernel: String,
    dtype: Word<Precision>,
    threads: u32,
    times: Vec<PhaseTime>,
}

/// Loads the model and times it.
fn one_of_them(args: &Args) -> anyhow::Result<OneOfThem> {
    let model = FoundModel::find(&args.model, None, args.rope_scaling)?;
    let compute = Compute::of_flags(&ComputeSpec::default())?;
    let most = |of: fn(&Shape) -> usize| args.shape.iter().map(of).max().unwrap_or(1);
    let capacity = Capacity::for_batch(&model.config, most(|s| s.batch), most(Shape::sequence_tokens));
    let mut engine = model.load(&compute, capacity, &mut Bars::default())?;
    let tokens = ordinary_tokens(&model.config, model.tokenizer()?.as_ref());
    let times = times(&mut engine, &tokens, &args.shape, REPETITIONS)?;
    let device = engine.device_info();
    Ok(OneOfThem {
        device: device.name.into(),
        kernel: device.kernel,
        dtype: Word::of(device.precision),
        threads: device.threads as u32,
        times,
    })
}

/// Starts this program again for each of the processes.
fn between_processes(args: &Args) -> anyhow::Result<Noise> {
    let program = std::env::current_exe().context("cannot find the program's own file")?;
    let mut last: Option<OneOfThem> = None;
    let mut due = Instant::now();
    let floors =
        between(usize::from(args.runs), &mut Bars::default(), |_| -> anyhow::Result<Vec<PhaseTime>> {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due = Instant::now() + Duration::from_secs(u64::from(args.every));
            let mut command = Command::new(&program);
            command.args(["doctor", "--noise", "--one-of-them", "--model"]).arg(&args.model);
            if let Some(scaling) = args.rope_scaling {
                command.args(["--rope-scaling", scaling.name()]);
            }
            for shape in &args.shape {
                let Shape { batch, input_tokens, output_tokens } = shape;
                command.arg("--shape").arg(format!("{batch}x{input_tokens}x{output_tokens}"));
            }
            let answer = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
            let answer = answer.context("cannot start a process of --noise")?;
            if !answer.status.success() {
                bail!("a process of --noise ended: {}", answer.status);
            }
            let told: OneOfThem =
                serde_json::from_slice(&answer.stdout).context("a process of --noise printed no result")?;
            let times = told.times.clone();
            last = Some(told);
            Ok(times)
        })?;
    let told = last.context("--noise needs a process")?;
    let machine = Machine::read();
    let unknown = || "not told by the system".to_owned();
    Ok(Noise {
        engine: format!("glmbench {}", env!("CARGO_PKG_VERSION")),
        host: machine.host.unwrap_or_else(unknown),
        cpu_model: machine.cpu_model.unwrap_or_else(unknown),
        device: told.device,
        kernel: told.kernel,
        dtype: told.dtype,
        threads: told.threads,
        model: args.model.to_string_lossy().into_owned(),
        made: rfc3339_utc(SystemTime::now()),
        floors,
    })
}

fn findings(machine: Machine) -> Findings {
    let cann = cann();
    let free = huge_pages::free_memory();
    Findings {
        advice: advice(&machine, free, cann.is_some()),
        os: machine.os,
        cpu: machine.cpu_model,
        cores: machine.cores,
        numa_nodes: machine.numa_nodes,
        kernels: InstructionSet::ALL
            .into_iter()
            .rev()
            .filter(|s| s.available())
            .map(InstructionSet::name)
            .collect(),
        governor: machine.governor,
        huge_pages: machine.huge_pages,
        free_bytes: free.map(|free| free.bytes),
        huge_free_bytes: free.map(|free| free.huge_bytes),
        memory_bytes: machine.memory_bytes,
        available_bytes: machine.available_bytes,
        cann: cann.map(|path| path.display().to_string()),
        ascend: Installation::default(),
        limits: None,
        environment: Vec::new(),
        noise: None,
    }
}

/// Finds the CANN installation, in the environment's paths or in the usual ones.
fn cann() -> Option<PathBuf> {
    let named = ["ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"]
        .into_iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from);
    let usual = ["/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann"].map(PathBuf::from);
    named.chain(usual).find(|path| path.is_dir())
}

/// Below this share of free memory in huge pieces, [`advice`] says how to join pieces.
const MOSTLY_HUGE: f64 = 0.5;

fn advice(machine: &Machine, free: Option<FreeMemory>, has_cann: bool) -> Vec<String> {
    let mut advice = Vec::new();
    match machine.governor.as_deref() {
        Some("performance") => {}
        Some(other) => advice.push(format!(
            "the frequency governor is {other}: for steady times run `cpupower frequency-set -g performance`"
        )),
        None => advice.push(
            "the frequency governor is not visible (usual in a virtual machine): expect times to drift; on the host, \
             `cpupower frequency-set -g performance`"
                .into(),
        ),
    }
    if machine.huge_pages.as_deref() == Some("never") {
        advice.push(
            "transparent huge pages are off, for the system or for this process (PR_SET_THP_DISABLE): `madvise` or \
             `always` speeds up reading weights"
                .into(),
        );
    } else if let Some(free) = free
        && (free.huge_bytes as f64) < MOSTLY_HUGE * free.bytes as f64
    {
        advice.push(format!(
            "free memory is in pieces, and {:.1} of {:.1} GB can become huge pages: as root, `{}`",
            free.huge_bytes as f64 / 1e9,
            free.bytes as f64 / 1e9,
            HugePages::JOIN_PIECES
        ));
    }
    let six_b = 14_500_000_000;
    if let Some(available) = machine.available_bytes.filter(|a| *a < six_b) {
        advice.push(format!(
            "{:.1} GB of memory are available: ChatGLM2-6B in fp16 needs {:.1} GB",
            available as f64 / 1e9,
            six_b as f64 / 1e9
        ));
    }
    if !has_cann {
        advice.push("no CANN was found: Ascend devices are not available on this machine".into());
    }
    advice
}

fn words(f: &Findings) -> String {
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "not told by the system".into());
    let gb = |bytes: Option<u64>| or_unknown(bytes.map(|b| format!("{:.1} GB", b as f64 / 1e9)));
    let mut text = format!(
        "system        {}\nCPU           {}\ncores         {}\nNUMA nodes    {}\nkernels       {}\ngovernor      {}\n\
         huge pages    {}\nmemory        {}, {} available\nCANN          {}\n",
        f.os,
        or_unknown(f.cpu.clone()),
        f.cores,
        or_unknown(f.numa_nodes.map(|n| n.to_string())),
        f.kernels.join(", "),
        or_unknown(f.governor.clone()),
        huge_words(f),
        gb(f.memory_bytes),
        gb(f.available_bytes),
        f.cann.clone().unwrap_or_else(|| "not found".into()),
    );
    text += &ascend_words(&f.ascend);
    text += &f.limits.as_ref().map_or_else(String::new, limits_words);
    for floor in f.noise.iter().flat_map(|n| &n.floors) {
        text += &format!(
            "noise         {} {}: {} equal runs spread by {:.2} %; one in twenty comparisons of two exceeds {:.2} %\n",
            floor.case_id,
            floor.phase,
            floor.runs,
            100.0 * floor.spread.unwrap_or(0.0),
            100.0 * floor.floor
        );
    }
    for v in &f.environment {
        let value = v.value.as_ref().map_or(String::new(), |value| format!("={value}"));
        text += &format!("environment   {}{value} ({}): {}\n", v.name, v.reader.name(), v.effect);
    }
    for line in &f.advice {
        text += &format!("advice        {line}\n");
    }
    text
}

/// Formats the mode of huge pages, and how much free memory could become such pages.
fn huge_words(f: &Findings) -> String {
    let Some(mode) = &f.huge_pages else { return "not told by the system".into() };
    match f.free_bytes.zip(f.huge_free_bytes) {
        Some((free, huge)) if mode != "never" => {
            format!(
                "{mode}; {:.1} of {:.1} GB of free memory can become such pages at once",
                huge as f64 / 1e9,
                free as f64 / 1e9
            )
        }
        _ => mode.clone(),
    }
}

/// Formats the measured limits as a table with one line per rate.
fn limits_words(limits: &MeasuredLimits) -> String {
    let threads = limits.threads;
    let mut text = format!(
        "limits        measured; {threads} threads, one thread; medians, in brackets the slowest and the fastest round\n"
    );
    let mut line = |name: &str, unit: &str, size: f64, all: &MeasuredRate, one: &MeasuredRate| {
        let rate = |r: &MeasuredRate| {
            let [median, low, high] = [r.median, r.low, r.high].map(|x| x / size);
            format!("{median:8.1} [{low:.1}, {high:.1}]")
        };
        text += &format!("  {name:18} {:26} {:26} {unit}\n", rate(all), rate(one));
    };
    line("memory, read", "GB/s", 1e9, &limits.bandwidth, &limits.bandwidth_one_thread);
    for unit in &limits.units {
        let operations = if unit.unit.contains("int8") { "GOP/s" } else { "GFLOP/s" };
        line(&unit.unit, operations, 1e9, &unit.all_threads, &unit.one_thread);
    }
    text + &format!("  {}\n", limits.method)
}
