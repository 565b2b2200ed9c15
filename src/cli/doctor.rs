//! `glmbench doctor`: what this machine is, what it can do, and what to mend before measuring.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as ClapArgs;
use serde::Serialize;

use crate::device::cpu::{InstructionSet, MachineLimits, available_threads, measure_limits};
use crate::run::machine::Machine;

use super::emit;

/// What this machine is and can do, and what to mend before measuring
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Also measure memory bandwidth and arithmetic peak (a second or two)
    #[arg(long)]
    limits: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
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
    memory_bytes: Option<u64>,
    available_bytes: Option<u64>,
    cann: Option<PathBuf>,
    bandwidth_bytes_per_s: Option<f64>,
    peak_flops_per_s: Option<f64>,
    advice: Vec<String>,
}

/// Does it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let limits = args.limits.then(|| measure_limits(available_threads())).transpose()?;
    let findings = findings(Machine::read(), limits);
    if args.json {
        emit(&serde_json::to_string_pretty(&findings)?)?;
    } else {
        emit(words(&findings).trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn findings(machine: Machine, limits: Option<MachineLimits>) -> Findings {
    let cann = cann();
    Findings {
        advice: advice(&machine, cann.is_some()),
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
        memory_bytes: machine.memory_bytes,
        available_bytes: machine.available_bytes,
        cann,
        bandwidth_bytes_per_s: limits.map(|l| l.bandwidth_bytes_per_s),
        peak_flops_per_s: limits.map(|l| l.peak_flops_per_s),
    }
}

/// The CANN installation that the environment or the usual places name.
fn cann() -> Option<PathBuf> {
    let named = ["ASCEND_TOOLKIT_HOME", "ASCEND_HOME_PATH"]
        .into_iter()
        .filter_map(std::env::var_os)
        .map(PathBuf::from);
    let usual = ["/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/cann"].map(PathBuf::from);
    named.chain(usual).find(|path| path.is_dir())
}

fn advice(machine: &Machine, has_cann: bool) -> Vec<String> {
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
        advice.push("transparent huge pages are off: `madvise` or `always` speeds up reading weights".into());
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
        or_unknown(f.huge_pages.clone()),
        gb(f.memory_bytes),
        gb(f.available_bytes),
        f.cann.as_ref().map_or("not found".into(), |p| p.display().to_string()),
    );
    if let (Some(bandwidth), Some(peak)) = (f.bandwidth_bytes_per_s, f.peak_flops_per_s) {
        text += &format!(
            "bandwidth     {:.1} GB/s read, all threads (measured)\npeak          {:.1} GFLOP/s fp32, {} kernels, all threads (measured)\n",
            bandwidth / 1e9,
            peak / 1e9,
            f.kernels.first().unwrap_or(&"no")
        );
    }
    for line in &f.advice {
        text += &format!("advice        {line}\n");
    }
    text
}
