//! The device's faults, and what is left after them.

use glmbench_ascend::{AscendGroup, Chip};
use glmbench_device::group::DeviceGroup;
use glmbench_device::rotary::RotaryMode;
use glmbench_device::{DeviceError, SequenceView};
use glmbench_engine::EngineError;
use glmbench_engine::model::{Forward, Model, StepInput, attention_shape};

use super::{CHIPS, answers, capacity, engine, greedy, left, prompts, random, settings};
use crate::support::answer;

#[test]
fn nothing_is_left_at_the_end() {
    let (config, source) = random();
    for (chip, forced) in [
        (Chip::Duo300i, ""),
        (Chip::A2800i, ""),
        (Chip::Duo300i, "decode=matmul,add=add-rms-norm"),
        (Chip::A2800i, "reuse=anew,rotary=each"),
    ] {
        let group = AscendGroup::new(settings(chip, attention_shape(&config), "", forced)).unwrap();
        let mut engine = engine(&group, &config, &source, 64).unwrap();
        answers(&mut engine, &prompts(), 320);
        assert!(group.live().unwrap().iter().any(|(_, n)| *n > 0));
        drop(engine);
        assert_eq!(left(&group), [], "{} {forced}", chip.name());
    }
}

/// Streams are lazy: when the group is aborted, queued work has not run, and every later call is refused.
#[test]
fn nothing_is_left_when_queued_work_is_called_off() {
    let (config, source) = random();
    for chip in CHIPS {
        let group = AscendGroup::new(settings(chip, attention_shape(&config), "", "")).unwrap();
        let device = group.rank(0).unwrap();
        let capacity = capacity(&config, 64);
        let mut model =
            Model::load(device, &config, RotaryMode::Model, capacity, &source, &mut |_, _| {}).unwrap();
        let sequences = [SequenceView { rows: 0..3, context: 3, blocks: &[0] }];
        let (tokens, positions) = ([1, 2, 3], [0, 1, 2]);
        let step =
            StepInput { tokens: &tokens, positions: &positions, sequences: &sequences, logit_rows: &[] };
        model.forward(&step, &mut Vec::new()).unwrap();
        group.abort();
        assert!(model.forward(&step, &mut Vec::new()).is_err());
        drop(model);
        assert_eq!(left(&group), [], "{}", chip.name());
    }
}

/// Returns the error that a fault causes in a model.
fn failure(chip: Chip, fault: &str) -> DeviceError {
    let (config, source) = random();
    let lines = format!("fault = {fault}");
    let run = || -> Result<(), EngineError> {
        let group = AscendGroup::new(settings(chip, attention_shape(&config), &lines, ""))?;
        let mut engine = engine(&group, &config, &source, 64)?;
        engine.submit(greedy(&[1, 2, 3], 40))?;
        while !engine.is_idle() {
            engine.step()?;
        }
        let again = engine.submit(greedy(&[1], 1));
        again.map(drop)
    };
    match run() {
        Err(EngineError::Device(error)) => error,
        other => panic!("{fault}: {other:?}"),
    }
}

#[test]
fn every_fault_ends_in_its_words() {
    for chip in CHIPS {
        let error = failure(chip, "oom:3");
        assert!(matches!(error, DeviceError::OutOfMemory { wanted_bytes: 1.., .. }), "{error}");
        assert!(error.to_string().contains("207001") || error.to_string().contains("207018"), "{error}");
        for fault in ["lost:300", "timeout:300"] {
            let error = failure(chip, fault);
            assert!(matches!(error, DeviceError::Lost { .. }), "{fault}: {error}");
            // A run says how it goes on. Other verbs have nothing to resume.
            assert!(!error.to_string().contains("resume"), "{error}");
        }
        let error = failure(chip, "missing:aclnnRmsNormGetWorkspaceSize");
        assert!(error.to_string().contains("aclnnRmsNormGetWorkspaceSize is in none of"), "{error}");
    }
}

#[test]
fn a_lost_device_answers_at_once_for_ever() {
    let (config, source) = random();
    let group =
        AscendGroup::new(settings(Chip::A2800i, attention_shape(&config), "fault = lost:200", "")).unwrap();
    let mut engine = engine(&group, &config, &source, 64).unwrap();
    engine.submit(greedy(&[1, 2, 3], 400)).unwrap();
    let mut errors = Vec::new();
    for _ in 0..500 {
        if let Err(error) = engine.step() {
            errors.push(error.to_string());
        }
    }
    assert!(errors.len() > 2, "{errors:?}");
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
}

#[test]
fn without_cann_a_real_card_is_refused_with_what_was_searched() {
    if std::env::var_os("ASCEND_HOME_PATH").is_some() {
        crate::support::skipped("CANN is here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    for args in [
        &["run", "suites/quickstart.toml", "--model", "demo", "--device", "800i-a2", "--out", out][..],
        &["npu-selftest", "--device", "300i-duo"],
    ] {
        answer(args).expect(5, &["libascendcl.so", "searched", "set_env.sh", "--emulate"]);
    }
    let here = ["run", "suites/quickstart.toml", "--device", "cpu", "--emulate", "--out", out];
    answer(&here).expect(2, &["--emulate: device cpu has no emulator; expected 300i-duo or 800i-a2"]);
}
