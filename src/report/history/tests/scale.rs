//! Thousands of runs: time of the command with and without its cache, and size of the page.

use super::*;
use std::time::Instant;

/// Configurations among which the runs are distributed: models, forms, devices.
const CONFIGURATIONS: usize = 20;

/// Writes `count` small runs, with their `history.json`: two tasks of items, four shapes, prefill and decode of each. The file is made
/// as a report makes it, without the report's pictures.
fn write(root: &Path, count: usize) {
    let mut rng = Rng::new(1);
    let (base, samples, requests) = fixture::quiet();
    for index in 0..count {
        let configuration = index % CONFIGURATIONS;
        let mut run = base.clone();
        run.plan.accuracy.iter_mut().for_each(|case| case.items = 40);
        run.plan.performance.truncate(4);
        run.provenance.started = rfc3339_utc(UNIX_EPOCH + Duration::from_secs(BEGIN + index as u64 * 3600));
        run.run_id = format!("r{index:05}");
        run.provenance.model = format!("model-{}", configuration / 4);
        run.provenance.dtype = ["fp16", "w8a8"][configuration % 2].into();
        run.provenance.host = format!("host-{}", configuration / 2 % 2);
        let speed = if index > count / 2 { 0.9 } else { 1.0 };
        let noise = 1.0 + 0.02 * (rng.unit_f64() - 0.5);
        let time = |ns: u64| (ns as f64 * noise / speed) as u64;
        let kept: Vec<crate::record::RequestRecord> = requests
            .iter()
            .filter(|request| run.plan.performance.iter().any(|case| case.case_id == request.case_id))
            .map(|request| {
                let mut request = request.clone();
                request.first_token_ns = request.start_ns + time(request.first_token_ns - request.start_ns);
                request.prefill_ns = time(request.prefill_ns);
                request.step_ns.iter_mut().for_each(|step| *step = time(*step));
                request.end_ns = request.first_token_ns + request.step_ns.iter().sum::<u64>();
                request
            })
            .collect();
        let of_task = |task: &str| {
            samples.iter().filter(|sample| sample.task == task).take(40).cloned().collect::<Vec<_>>()
        };
        let kept_samples = [of_task("ceval"), of_task("boolq")].concat();
        let dir = fixture::write(root, &(run, kept_samples, kept));
        let run_json = fs::read(dir.file("run.json")).unwrap();
        let kept = found::of_records(dir.path(), &run_json).unwrap();
        fs::write(dir.file("history.json"), serde_json::to_vec(&kept).unwrap()).unwrap();
    }
}

/// Returns the seconds of the command and the bytes of the page.
fn timed(root: &Path) -> (f64, u64, Reads) {
    let begin = Instant::now();
    let history = index(root, Language::En).unwrap();
    (begin.elapsed().as_secs_f64(), history.page.metadata().unwrap().len(), history.reads)
}

fn check(count: usize, cold_s: f64, warm_s: f64) {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), count);
    let (cold, bytes, reads) = timed(root.path());
    assert_eq!(reads.figures, count);
    let (warm, again, reads) = timed(root.path());
    assert_eq!((reads.cached, again), (count, bytes));
    let one = fs::metadata(root.path().join("index/cache.jsonl")).unwrap().len() / count as u64;
    eprintln!(
        "{count} runs: cold {cold:.2} s, warm {warm:.2} s, page {:.2} MB, cache {one} bytes a run",
        bytes as f64 / 1e6
    );
    if let Some(sample) = std::env::var_os("GLMBENCH_REPORT_SAMPLE") {
        fs::create_dir_all(&sample).unwrap();
        fs::copy(root.path().join("index.html"), PathBuf::from(sample).join("history-scale.html")).unwrap();
    }
    assert!(bytes <= 5_000_000, "{bytes} bytes");
    assert!(cold <= cold_s && warm <= warm_s, "cold {cold:.2} s, warm {warm:.2} s");
    let points = fs::read_to_string(root.path().join("index/points.csv")).unwrap();
    assert_eq!(points.lines().count() - 1, count * 10);
}

#[test]
fn three_hundred_runs_are_a_page() {
    // Wide bounds: other tests run beside this one.
    check(300, 10.0, 10.0);
}

/// `cargo test --release --lib -- --ignored --nocapture ten_thousand_runs`
#[test]
#[ignore = "writes ten thousand runs"]
fn ten_thousand_runs_are_a_page_in_seconds() {
    check(10_000, 10.0, 2.0);
}

/// How long the page takes without any `history.json`, as for runs of older programs.
#[test]
#[ignore = "a figure, not a law"]
fn runs_of_older_programs_are_read_from_their_records() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), 1000);
    for index in 0..1000 {
        fs::remove_file(root.path().join(format!("r{index:05}/history.json"))).unwrap();
    }
    let (cold, _, reads) = timed(root.path());
    eprintln!("1000 runs from their records: {cold:.2} s");
    assert_eq!(reads.records, 1000);
}
