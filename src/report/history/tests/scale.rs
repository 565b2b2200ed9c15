//! Hundreds of runs. `tests/it/index.rs` has ten thousand, with the time that they take.

use super::*;

/// Configurations among which the runs are distributed: models, forms, devices.
const CONFIGURATIONS: usize = 20;

/// Writes `count` small runs, with their `history.json`: two tasks of items, four shapes, prefill and decode of each. The file is made
/// as a report makes it, without the report's pictures.
fn write(root: &Path, count: usize) {
    let mut rng = Rng::new(1);
    let fixture::Records { run: base, samples, requests } = fixture::quiet();
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
        let dir = fixture::write(root, &fixture::Records { run, samples: kept_samples, requests: kept });
        let run_json = fs::read(dir.file("run.json")).unwrap();
        let kept = found::of_records(dir.path(), &run_json).unwrap();
        fs::write(dir.file("history.json"), serde_json::to_vec(&kept).unwrap()).unwrap();
    }
}

#[test]
fn hundreds_of_runs_are_a_page_that_is_the_same_with_the_cache() {
    const COUNT: usize = 300;
    let root = tempfile::tempdir().unwrap();
    write(root.path(), COUNT);
    let page = |wanted: Reads| {
        let history = index(root.path(), Language::En).unwrap();
        assert_eq!(history.reads, wanted);
        fs::read(history.page).unwrap()
    };
    let cold = page(Reads { figures: COUNT, ..Reads::default() });
    assert!(page(Reads { cached: COUNT, ..Reads::default() }) == cold);
    // Five megabytes are for ten thousand runs. These have as many lines as a page can have charts, but fewer points.
    assert!(cold.len() < 1_000_000, "{} bytes", cold.len());
    let points = fs::read_to_string(root.path().join("index/points.csv")).unwrap();
    assert_eq!(points.lines().count() - 1, COUNT * 10);
    // Half-way all times are a tenth longer.
    let changes = fs::read_to_string(root.path().join("index/changes.csv")).unwrap();
    assert_eq!(changes.lines().count() - 1, CONFIGURATIONS * 4);
}
