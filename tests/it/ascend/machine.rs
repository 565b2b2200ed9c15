//! The self-test, telemetry, and the emulated card's clock and memory.

use std::time::{Duration, Instant};

use glmbench_ascend::{
    Ascend, AscendGroup, AscendMemory, Chip, GroupSettings, Scope, Selftest, Status, Widths, selftest,
};
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{AttentionShape, DType};
use glmbench_engine::Engine;
use glmbench_engine::config::ModelConfig;
use glmbench_engine::memory::{MemoryEstimate, MemoryOf};
use glmbench_engine::model::{Capacity, Model, attention_shape};
use glmbench_engine::weights::StorageType;

use super::{CHIPS, engine, greedy, settings};

#[test]
fn telemetry_is_what_the_libraries_tell_or_the_reason() {
    let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 32 };
    for chip in CHIPS {
        let read = |lines: &str| {
            let group = AscendGroup::new(settings(chip, heads, lines, "")).unwrap();
            let address = group.telemetry().pci_address(1);
            (group.telemetry().chip(0), address)
        };
        let (fake, address) = read("telemetry = fake");
        let second = if chip == Chip::Duo300i { "0000:c1:00.1" } else { "0000:c0:00.0" };
        assert_eq!(address.unwrap(), second);
        assert!(fake.power_w.is_ok() && fake.temp_c.is_ok() && fake.utilisation.is_ok(), "{fake:?}");
        let (none, address) = read("telemetry = none");
        assert!(address.unwrap_err().contains("dcmi_init failed"));
        assert!(none.power_w.is_err() && none.temp_c.is_err() && none.utilisation.is_err(), "{none:?}");
        assert!(none.memory.unwrap().total_bytes > 20 << 30);
    }
}

/// How long the emulated HCCL of [`slow_table`] waits for a missing rank.
const HCCL_TIMEOUT: Duration = Duration::from_millis(300);

fn slow_table(chip: Chip) -> AscendGroup {
    let heads = AttentionShape { heads: 8, kv_heads: 2, channels: 64 };
    let lines = format!("hccl_timeout_ms = {}", HCCL_TIMEOUT.as_millis());
    AscendGroup::new(GroupSettings { tp: 2, ..settings(chip, heads, &lines, "") }).unwrap()
}

#[test]
fn the_selftest_passes_on_both_chips_and_sees_a_wrong_result() {
    let widths = Widths {
        hidden: 256,
        ffn: 328,
        heads: AttentionShape { heads: 8, kv_heads: 2, channels: 64 },
        vocab: 128,
    };
    let tested = |chip, tp, lines: &str| {
        let settings = GroupSettings { tp, ..settings(chip, widths.heads, lines, "") };
        selftest(&AscendGroup::new(settings).unwrap(), widths, Scope::Table).unwrap()
    };
    let failed = |tested: Selftest| -> Vec<String> {
        tested.rows.into_iter().filter(|r| r.status == Status::Fail).map(|r| r.operator).collect()
    };
    for chip in CHIPS {
        for tp in [1, 2] {
            let tested = tested(chip, tp, "");
            assert!(tested.rows.len() > 12 && tested.lost.is_none());
            let mut names: Vec<&str> = tested.rows.iter().map(|r| r.operator.as_str()).collect();
            names.sort_unstable();
            assert!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
            let untimed = tested.rows.iter().filter(|r| r.time_ns.is_none());
            assert!(untimed.clone().all(|r| !r.note.is_empty()), "{:?}", untimed.collect::<Vec<_>>());
            assert_eq!(failed(tested), Vec::<String>::new());
        }
        // The first rank's table takes longer than HCCL waits for a rank. The others must not enter the collective before
        // it does.
        let begin = Instant::now();
        let tested_late =
            selftest(&slow_table(chip), Widths { hidden: 4096, ffn: 13_696, ..widths }, Scope::Table)
                .unwrap();
        assert!(begin.elapsed() > 3 * HCCL_TIMEOUT, "the table was done before HCCL would have given up");
        assert_eq!(failed(tested_late), Vec::<String>::new());
        // The first result creates an operator's plan, the second reuses it. Both are checked.
        for n in [1, 2] {
            assert_eq!(failed(tested(chip, 1, &format!("fault = wrong:RmsNorm:{n}"))), ["rms_norm"]);
        }
    }
}

/// The whole 6B shape runs in a moment: nothing is computed and no weight is read.
#[test]
fn with_the_clock_alone_the_6b_shape_runs_and_time_passes() {
    let config = ModelConfig::chatglm2_6b();
    let source = glmbench_engine::weights::unread::Unread { config: config.clone(), dtype: StorageType::F16 };
    for chip in CHIPS {
        let group = AscendGroup::new(settings(chip, attention_shape(&config), "mode = timing", "")).unwrap();
        let mut engine = engine(&group, &config, &source, 64).unwrap();
        engine.submit(greedy(&[1; 64], 4)).unwrap();
        let mut last = engine.now_ns();
        while !engine.is_idle() {
            engine.step().unwrap();
            let now = engine.now_ns();
            // 12 GB of weights through 204 GB/s, or 1.6 TB/s.
            assert!(now - last > 5_000_000, "{}: a step of {} ns", chip.name(), now - last);
            last = now;
        }
    }
}

/// What the emulator's allocator counts after a long prompt and a batch is what the estimate says, and never more.
#[test]
fn the_memory_of_a_card_is_what_was_estimated() {
    let config = ModelConfig::chatglm2_6b();
    let source = glmbench_engine::weights::unread::Unread { config: config.clone(), dtype: StorageType::F16 };
    for (chip, batch, tokens) in [
        (Chip::Duo300i, 1, 8192),
        (Chip::Duo300i, 1, 600),
        (Chip::Duo300i, 12, 2048),
        (Chip::A2800i, 1, 8192),
        (Chip::A2800i, 16, 1024),
    ] {
        let group = AscendGroup::new(settings(chip, attention_shape(&config), "mode = timing", "")).unwrap();
        let capacity = Capacity { max_step_tokens: 4096, ..Capacity::for_batch(&config, batch, tokens) };
        let device: Ascend = group.rank(0).unwrap();
        let model =
            Model::load(device, &config, RotaryMode::Model, capacity, &source, &mut |_, _| {}).unwrap();
        let mut engine = Engine::new(Box::new(model));
        for _ in 0..batch {
            engine.submit(greedy(&vec![1; tokens - 4], 4)).unwrap();
        }
        while !engine.is_idle() {
            engine.step().unwrap();
        }
        let memory = group.telemetry().chip(0).memory.unwrap();
        let used = memory.total_bytes - memory.free_bytes;
        let on = MemoryOf::Ascend(AscendMemory::new(chip, DType::Fp16.into()));
        let estimate = MemoryEstimate::new(&config, on, capacity).total_bytes();
        eprintln!("{} {batch} x {tokens}: {used} bytes, estimated {estimate}", chip.name());
        assert!(used <= estimate, "{}: {used} of {estimate}", chip.name());
        assert!(estimate as f64 <= 1.05 * used as f64, "{}: {used} of {estimate}", chip.name());
    }
}
