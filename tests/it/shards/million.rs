//! A million items in 64 shards: times and memory.

use std::fs;
use std::path::Path;

use glmbench::record::{RunDir, Status};
use glmbench::run::shard::Shard;
use glmbench::suite::Suite;

use crate::support::glmbench;

/// Peak resident memory of a piece of work, and its time in seconds.
fn measured<T>(work: impl FnOnce() -> T) -> (T, f64, u64) {
    glmbench::run::machine::reset_peak_rss();
    let begun = std::time::Instant::now();
    let result = work();
    (result, begun.elapsed().as_secs_f64(), glmbench::run::machine::peak_rss_bytes().unwrap_or(0))
}

/// A million items in 64 shards: a shard's plan within 10 s and 1 GB, the merge within 30 s and 500 MB. Prints the figures:
/// `cargo test --release --test it a_million_items -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes and 1.5 GB of disk, and states figures of the machine"]
#[expect(clippy::too_many_lines, reason = "one measurement, told from begin to end")]
fn a_million_items_in_64_shards() {
    use glmbench::backend::Scripted;
    use glmbench::record::{CallRecord, Places, PromptRecord, SampleRecord, SampleState, items_hash};
    use glmbench::run::plan::Plan;
    use glmbench::run::provenance::record;
    use glmbench_engine::config::ModelConfig;
    use sha2::{Digest, Sha256};
    use std::fmt::Write as _;

    const ITEMS: usize = 1_000_000;
    const SHARDS: u32 = 64;
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    fs::create_dir(&data).unwrap();
    let mut rows = String::new();
    for item in 0..ITEMS {
        writeln!(
            rows,
            "{{\"question\":\"{item}?\",\"title\":\"t\",\"answer\":{},\"passage\":\"p\"}}",
            item % 2 == 1
        )
        .unwrap();
    }
    fs::write(data.join("dev.jsonl"), &rows).unwrap();
    drop(rows);
    let text = format!(
        "schema = 1\nname = \"million\"\n[[accuracy]]\ntask = \"boolq\"\ndataset = {data:?}\nprotocol = \"modeltest\"\n"
    );
    let suite = Suite::parse(Path::new("s.toml"), &text, &[]).unwrap();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
    let config = ModelConfig::from_file(&demo.join("config.json")).unwrap();
    let tokenizer = glmbench_engine::load::load_tokenizer(&demo, Some(&config)).unwrap();
    let backend = Scripted::new(glmbench::backend::Script::default());
    let origin = crate::in_process::origin(&suite, &config, &backend);
    let precision = glmbench_device::Precision::from(glmbench_device::DType::Fp16);
    let ((plan, first), plan_s, plan_bytes) = measured(|| {
        let mut plan = Plan::new(&suite, &config, Some(&tokenizer), 512).unwrap();
        plan.keep_shard(Shard::new(1, SHARDS).unwrap(), &suite, &config, precision, false).unwrap();
        let first = record(&origin, &plan, &config);
        (plan, first)
    });
    println!("plan of a shard: {plan_s:.1} s, {:.0} MB at most", plan_bytes as f64 / 1e6);
    let items = &plan.accuracy[0].evaluation.plan().dataset.items;
    let shards = root.path().join("shards");
    for index in 1..=SHARDS {
        let shard = Shard::new(index, SHARDS).unwrap();
        let own: Vec<usize> = (0..ITEMS).filter(|&item| shard.has("boolq", &items[item].doc_id)).collect();
        let mut run = first.clone();
        run.run_id = format!("r-{index}of{SHARDS}");
        let part = &mut run.shards.as_mut().unwrap().parts[0];
        part.index = index;
        part.items.insert("boolq".into(), Places::of(own.iter().copied()));
        run.plan.accuracy[0].items = own.len() as u64;
        let names = own.iter().map(|&item| (items[item].doc_id.as_str(), items[item].doc_hash.as_str()));
        run.plan.accuracy[0].items_hash = Some(items_hash(names));
        let mut dir = RunDir::create(&shards, &run.run_id).unwrap();
        for item in own {
            let prompt = format!("is {item} odd").repeat(6);
            let prompt_hash = Sha256::digest(&prompt).iter().map(|byte| format!("{byte:02x}")).collect();
            let call = CallRecord { prompt, input_tokens: (0..40).collect() };
            let (task, doc_id) = ("boolq".to_owned(), items[item].doc_id.clone());
            dir.append_prompts(&PromptRecord {
                task: task.clone(),
                doc_id: doc_id.clone(),
                calls: vec![call],
            })
            .unwrap();
            dir.append_sample(&SampleRecord {
                task,
                doc_id,
                doc_hash: items[item].doc_hash.clone(),
                prompt_hash,
                subject: String::new(),
                category: String::new(),
                hard: false,
                state: SampleState::Scored,
                gold: "yes".into(),
                pred: Some("yes".into()),
                correct: true,
                choice_logprobs: vec![-0.5, -1.5],
                margin: Some(1.0),
                input_tokens_n: 40,
                output_tokens: Vec::new(),
                text: String::new(),
                measures: std::collections::BTreeMap::new(),
                programs: Vec::new(),
                extract_rule: "choice-logprob".into(),
                t_start_ns: 1_000_000 * item as u64,
                t_end_ns: 1_000_000 * (item as u64 + 1),
                error: None,
            })
            .unwrap();
        }
        run.status = Status::Complete;
        dir.hold().unwrap();
        run.seal = Some(dir.seal().unwrap());
        dir.write_run(&run).unwrap();
    }
    drop(plan);
    let out = root.path().join("merged");
    let begun = std::time::Instant::now();
    // A process of its own: this one does not give its memory back.
    let mut merge = glmbench(&[Path::new("merge"), &out, &shards]).spawn().unwrap();
    let mut merge_bytes = 0;
    while merge.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", merge.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        merge_bytes = merge_bytes.max(1024_u64 * kib);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let merge_s = begun.elapsed().as_secs_f64();
    println!("merge: {merge_s:.1} s, {:.0} MB at most", merge_bytes as f64 / 1e6);
    crate::support::wait(merge).expect(0, &["64 shards merged: 1000000 items"]);
    assert!(plan_s < 10.0 && plan_bytes < 1_000_000_000, "the plan of a shard");
    assert!(merge_s < 30.0 && merge_bytes < 500_000_000, "the merge");
}
