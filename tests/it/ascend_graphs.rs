//! Graph capture on the emulated cards: the same numbers as without, and fewer launches.

use std::sync::Arc;

use glmbench_ascend::{AscendGroup, Chip, GroupSettings};
use glmbench_device::rotary::RotaryMode;
use glmbench_engine::Engine;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::model::attention_shape;
use glmbench_engine::parallel::{Cut, Ranks};
use glmbench_engine::weights::StorageType;

use crate::ascend::{CHIPS, answers, capacity, engine, greedy, left, prompts, random, settings};

/// Returns the record's text about graphs, or an empty string if there are none.
fn graphs(engine: &Engine) -> String {
    let details = engine.device_info().details;
    details.into_iter().find(|(name, _)| name == "graphs").map(|(_, words)| words).unwrap_or_default()
}

/// Decode and prompts with graphs: the results are equal, with one rank and two. Graphs are used, and nothing is left
/// alive.
#[test]
fn graphs_change_no_number() {
    let (config, source) = random();
    for chip in CHIPS {
        for choices in ["", "decode=matmul,prefill=matmul,kv=memory", "rotary=host"] {
            let answered = |graph: &str| {
                let forced = format!("{choices},graph={graph}");
                let group = AscendGroup::new(settings(chip, attention_shape(&config), "", &forced)).unwrap();
                let mut engine = engine(&group, &config, &source, 64).unwrap();
                let first = answers(&mut engine, &prompts(), 320);
                let used = left(&group).iter().find(|(name, _)| *name == "graphs").map_or(0, |(_, n)| *n);
                engine.start_afresh().unwrap();
                let second = answers(&mut engine, &prompts(), 320);
                drop(engine);
                assert_eq!(left(&group), [], "{} {forced}", chip.name());
                assert_eq!(first, second, "{} {forced}", chip.name());
                (first, used)
            };
            let ((plain, none), (by_graphs, used)) = (answered("off"), answered("segments"));
            assert_eq!(plain, by_graphs, "{} {choices}", chip.name());
            assert!(none == 0 && used > 0, "{} {choices}: {used} graphs", chip.name());
        }
        let of_two = |graph: &str| {
            let rank = Cut::new(&config, 0, 2).unwrap().config(&config);
            let forced = format!("graph={graph}");
            let settings = GroupSettings { tp: 2, ..settings(chip, attention_shape(&rank), "", &forced) };
            let (group, source) = (AscendGroup::new(settings).unwrap(), Arc::new(random().1));
            let capacity = capacity(&config, 64);
            let ranks = Ranks::load(group, &config, RotaryMode::Model, capacity, source, &mut |_, _| {});
            answers(&mut Engine::new(Box::new(ranks.unwrap())), &prompts(), 320)
        };
        assert_eq!(of_two("off"), of_two("segments"), "{}", chip.name());
        // Segments that cannot be captured while a model runs are launched one by one.
        let of_full = |lines: &str| {
            let settings = settings(chip, attention_shape(&config), lines, "graph=segments");
            let group = AscendGroup::new(settings).unwrap();
            let mut engine = engine(&group, &config, &source, 64).unwrap();
            (answers(&mut engine, &prompts(), 320), graphs(&engine))
        };
        let (by_few, refused) = of_full("graphs = 2");
        assert_eq!(by_few, of_full("").0, "{}", chip.name());
        assert!(refused.contains("2 held") && refused.contains("207008"), "{}: {refused}", chip.name());
        for (lines, forced, reason) in [
            ("fault = refused:aclmdlRICaptureBegin", "graph=segments", "segments: "),
            ("fault = missing:aclmdlRIExecuteAsync", "graph=segments", "aclmdlRIExecuteAsync is in none of"),
            ("", "graph=segments,reuse=anew", "plans are not kept"),
        ] {
            let group = AscendGroup::new(settings(chip, attention_shape(&config), lines, forced)).unwrap();
            let error = group.rank(0).err().expect("a choice that is refused").to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}

/// Prompts of many lengths have more segments than the limit of graphs. The oldest are dropped, and results do not change.
#[test]
fn graphs_that_are_not_launched_make_room() {
    let ((config, source), chip) = (random(), Chip::A2800i);
    let many: Vec<Vec<u32>> = (1..250).map(|n| (0..n).map(|i| (i * 31 + n) % 300).collect()).collect();
    let of_many = |graph: &str| {
        let forced = format!("graph={graph}");
        let group = AscendGroup::new(settings(chip, attention_shape(&config), "", &forced)).unwrap();
        let mut engine = engine(&group, &config, &source, 256).unwrap();
        // One after another, so that each length has its own segments, and twice, so that they recur.
        let mut one_by_one = || -> Vec<_> {
            many.iter().map(|prompt| answers(&mut engine, std::slice::from_ref(prompt), 320)).collect()
        };
        let answered = [one_by_one(), one_by_one()];
        (answered, graphs(&engine))
    };
    let ((plain, none), (by_graphs, used)) = (of_many("off"), of_many("segments"));
    assert!(plain == by_graphs && none.is_empty(), "{} {none}", chip.name());
    assert!(used.contains(" held, ") && !used.contains(" 0 dropped"), "{}: {used}", chip.name());
}

/// With a slow host, a decode step takes less time with graphs; the operators' own time stays.
#[test]
fn graphs_save_the_host_launches() {
    let config = ModelConfig::chatglm2_6b();
    let source = glmbench_engine::weights::unread::Unread { config: config.clone(), dtype: StorageType::F16 };
    let step_ns = |forced: &str| {
        let lines = "mode = timing\nhost_launch_ns = 500000";
        let settings = settings(Chip::A2800i, attention_shape(&config), lines, forced);
        let group = AscendGroup::new(settings).unwrap();
        let mut engine = engine(&group, &config, &source, 64).unwrap();
        engine.submit(greedy(&[1; 64], 8)).unwrap();
        let mut times = vec![engine.now_ns()];
        while !engine.is_idle() {
            engine.step().unwrap();
            times.push(engine.now_ns());
        }
        times[times.len() - 1] - times[times.len() - 2]
    };
    let (single, graphs) = (step_ns("graph=off"), step_ns("graph=segments"));
    eprintln!("a step of the 6B shape on an A2 with 0.5 ms a launch: {single} ns, with graphs {graphs} ns");
    // 310 launches of 0.5 ms against 58, plus the operators' time.
    assert!(single > 150_000_000 && graphs < 50_000_000, "{single} {graphs}");
}
