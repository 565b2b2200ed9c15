//! Gives mutated inputs of every kind to every reader. Each must answer within bounded time and memory, and an error
//! must name its place.
//!
//! The readers run in their own process ([`worker`]) with a memory limit. So a stack overflow or an unbounded
//! allocation is recognised, together with the input that caused it.

mod files;
mod mutate;
mod readers;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use glmbench::stats::Rng;
use serde_json::Value;

use self::mutate::mutated;
use self::readers::{Reader, readers};
use crate::support::glmbench;

/// Mutated inputs per reader in the ordinary test.
const FEW: usize = 60;
/// Mutated inputs per reader in the long test: ten thousand over all readers. `GLMBENCH_HOSTILE_COUNT` overrides it.
const MANY: usize = 1000;
/// Address space limit of the worker. Its own threads and maps take some hundred MiB.
const MEMORY_KIB: usize = 6 << 20;
/// Maximum time for one input, on a machine that also runs other tests.
const SLOWEST: Duration = Duration::from_secs(20);
/// Maximum time of the worker, per input.
const LONGEST_EACH: Duration = Duration::from_secs(2);

const FOLDER: &str = "GLMBENCH_HOSTILE_FOLDER";
const COUNT: &str = "GLMBENCH_HOSTILE_COUNT";
const ONLY: &str = "GLMBENCH_HOSTILE_ONLY";
const SEED: &str = "GLMBENCH_HOSTILE_SEED";

/// A small suite with every kind of case.
const SUITE: &str = r#"schema = 1
name = "hostile"
[model]
path = "demo"
[[accuracy]]
task = "ceval"
dataset = "DATASETS/ceval-sample"
protocol = "two-stage"
max_new_tokens = 3
limit = 3
[[accuracy]]
task = "boolq"
dataset = "DATASETS/boolq-sample"
protocol = "modeltest"
limit = 3
[[performance]]
batch = [1, 2]
lengths = [[8, 4]]
repetitions = 2
max_warmups = 1
[[max_batch]]
lengths = [[8, 4]]
batch_range = [1, 2]
limit_tpot_ms = 1000
repetitions = 1
[[load]]
arrival = "fixed"
rates = [200]
requests = 4
lengths = [[8, 4]]
"#;

#[test]
fn every_reader_answers_mutated_inputs() {
    supervise(FEW);
}

/// Run by hand: `cargo test --release --test it hostile -- --ignored --nocapture`.
#[test]
#[ignore = "some minutes; ten thousand inputs and more"]
fn every_reader_answers_ten_thousand_mutated_inputs() {
    let count = std::env::var(COUNT).ok().and_then(|count| count.parse().ok()).unwrap_or(MANY);
    supervise(count);
}

/// Counts of a plan say how much there should be. Nothing may loop or take memory by them.
#[test]
fn a_plan_may_claim_the_largest_counts() {
    let out = start("hostile::largest", 0, SLOWEST + LONGEST_EACH * 200);
    assert!(out.contains(" numbers of run.json"), "{out}");
}

/// Puts the largest numbers in the place of each number of a plan, and does with the run what commands do.
#[test]
#[ignore = "started by the others, in a process of its own"]
fn largest() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let place = folder.join("run");
    copy_tree(&folder.join("base"), &place);
    let text = fs::read_to_string(place.join("run.json")).unwrap();
    let good: Value = serde_json::from_str(&text).unwrap();
    let mut places = Vec::new();
    numbers(&good["plan"], "/plan", &mut places);
    let (mut faults, mut kinds, mut read) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    readers::read_whole_run(&place).unwrap();
    for at in places {
        // One case of a kind stands for the others.
        if !kinds.insert(at.replace(|c: char| c.is_ascii_digit(), "")) {
            continue;
        }
        let mut answered = 0;
        for number in [u64::MAX, u64::from(u32::MAX), u64::from(u32::MAX) - 1] {
            let mut bad = good.clone();
            *bad.pointer_mut(&at).unwrap() = number.into();
            fs::write(place.join("run.json"), bad.to_string()).unwrap();
            fs::write(folder.join("at"), format!("{at} = {number}")).unwrap();
            let begin = Instant::now();
            match catch_unwind(AssertUnwindSafe(|| readers::read_whole_run(&place))) {
                Ok(Ok(())) => {
                    read.insert(at.replace(|c: char| c.is_ascii_digit(), ""));
                    answered += 1;
                }
                Ok(Err(message)) if message.contains("run.json") => {}
                Ok(Err(message)) => faults.push(format!("{at} = {number} does not name run.json: {message}")),
                Err(_) => faults.push(format!("{at} = {number} panics")),
            }
            if begin.elapsed() > SLOWEST {
                faults.push(format!("{at} = {number} takes {:?}", begin.elapsed()));
            }
            // The others are for fields of a smaller type.
            if answered > 0 {
                break;
            }
        }
    }
    println!("{} numbers of run.json", kinds.len());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    // A reader that refused every number would show nothing.
    for kind in ["/plan/accuracy//items", "/plan/performance//repetitions"] {
        assert!(read.contains(kind), "{read:?}");
    }
}

/// Collects the places of all counts.
fn numbers(value: &Value, at: &str, places: &mut Vec<String>) {
    match value {
        Value::Number(number) if number.is_u64() => places.push(at.to_owned()),
        Value::Array(all) => (0..).zip(all).for_each(|(i, one)| numbers(one, &format!("{at}/{i}"), places)),
        Value::Object(all) => all.iter().for_each(|(key, one)| numbers(one, &format!("{at}/{key}"), places)),
        _ => {}
    }
}

/// Gives mutated inputs to all readers.
fn supervise(each: usize) {
    let all = readers().len() * each;
    let out = start("hostile::worker", each, SLOWEST + LONGEST_EACH * u32::try_from(all).unwrap());
    println!("{}", out.lines().filter(|line| line.contains("inputs")).collect::<Vec<_>>().join("\n"));
    assert!(out.contains(&format!("{all} inputs in all")), "{out}");
}

/// Starts a test on a fresh run, with a memory limit, and checks that it finishes in time. Returns its output.
fn start(test: &str, each: usize, longest: Duration) -> String {
    let folder = tempfile::tempdir().unwrap();
    make_run(folder.path());
    let limited = format!("ulimit -v {MEMORY_KIB} 2>/dev/null; exec \"$@\"");
    let mut worker = Command::new("sh")
        .args(["-c", &limited, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder.path())
        .env(COUNT, each.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let at = || fs::read_to_string(folder.path().join("at")).unwrap_or_default();
    let begin = Instant::now();
    while worker.try_wait().unwrap().is_none() {
        if begin.elapsed() > longest {
            worker.kill().unwrap();
            panic!("the worker is at {} after {longest:?}", at());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut out = String::new();
    worker.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let status = worker.wait().unwrap();
    assert!(status.success(), "{status} at {}\n{out}", at());
    out
}

/// Makes a finished run of [`SUITE`] in `base`.
fn make_run(folder: &Path) {
    let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("datasets");
    let suite = folder.join("hostile.toml");
    fs::write(&suite, SUITE.replace("DATASETS", sets.to_str().unwrap())).unwrap();
    let mut run = glmbench(&["run", "--threads", "1"]);
    let done = run.arg(&suite).arg("--out").arg(folder.join("runs")).output().unwrap();
    // Few repetitions are not a valid measurement, which does not matter here.
    assert!(matches!(done.status.code(), Some(0 | 4)), "{done:?}");
    let made = fs::read_dir(folder.join("runs")).unwrap().next().unwrap().unwrap().path();
    copy_tree(&made, &folder.join("base"));
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Gives mutated inputs to the readers. The two tests start it; `GLMBENCH_HOSTILE_ONLY=READER:NUMBER` repeats one
/// input.
#[test]
#[ignore = "started by the others, in a process of its own"]
fn worker() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|word| word.parse::<u64>().ok());
    let (each, seed) = (number(COUNT).unwrap_or(1) as usize, number(SEED).unwrap_or(0));
    let only = std::env::var(ONLY).ok();
    let (mut total, mut faults) = (0, Vec::new());
    for reader in readers() {
        let place = folder.join(reader.name);
        fs::create_dir_all(&place).unwrap();
        let seeds = (reader.lay)(&place, &folder);
        let (mut refused, mut slowest) = (0, Duration::ZERO);
        for number in 0..each {
            let name = format!("{}:{number}", reader.name);
            if only.as_ref().is_some_and(|only| *only != name) {
                continue;
            }
            fs::write(folder.join("at"), &name).unwrap();
            let mut rng = Rng::new(seed ^ ((number as u64) << 16) ^ hash(reader.name));
            // The first input is not mutated and must be accepted.
            let input = if number == 0 { seeds[0].clone() } else { mutated(&seeds, &mut rng) };
            let begin = Instant::now();
            match put(&reader, &place, &input) {
                Ok(Ok(())) => {}
                Ok(Err(message)) if number == 0 => faults.push(format!("{name} is refused: {message}")),
                Ok(Err(message)) => {
                    refused += 1;
                    if !message.contains(reader.names) {
                        faults.push(format!("{name} does not name {}: {message}", reader.names));
                    }
                }
                Err(()) => faults.push(format!("{name} panics")),
            }
            let took = begin.elapsed();
            slowest = slowest.max(took);
            if took > SLOWEST {
                faults.push(format!("{name} takes {took:?}"));
            }
            total += 1;
        }
        println!("{}: {each} inputs, {refused} refused, slowest {slowest:?}", reader.name);
    }
    println!("{total} inputs in all");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Writes the input and reads it. `Err` means a panic.
fn put(reader: &Reader, place: &Path, input: &[u8]) -> Result<Result<(), String>, ()> {
    let file = place.join(reader.file);
    let input = (reader.pack)(input);
    fs::write(&file, &input).unwrap();
    catch_unwind(AssertUnwindSafe(|| (reader.read)(place))).map_err(drop)
}

/// Hashes the reader's name, so that readers get different random streams.
fn hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
