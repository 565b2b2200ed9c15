use glmbench_device::DType;

use super::*;

fn achieved(bytes: u64, flops: u64, seconds: f64, peaks: Option<Peaks>) -> Achieved {
    Achieved { cost: PhaseCost { bytes, flops }, seconds, tp: 1, peaks, by: format!("{bytes}/{flops}") }
}

/// A machine with 1 GB/s and 10 Gflop/s.
const PEAKS: Peaks = Peaks { bytes_per_s: 1e9, flops_per_s: 1e10 };

fn seconds(rates: &Rates, prefill: PhaseCost, decode: PhaseCost) -> (f64, String) {
    match rates.phases(CaseCost { prefill, decode }, 1, false) {
        Expected::Known { seconds, by, .. } => (seconds, by),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_phase_takes_the_time_of_the_nearest_by_what_the_machine_can_do() {
    let rates = Rates {
        // Twice the roofline time: 1 s for 1 GB, 1 s for 10 Gflop.
        prefill: vec![achieved(1, 10_000_000_000, 2.0, Some(PEAKS)), achieved(1, 10, 1.0, Some(PEAKS))],
        decode: vec![achieved(1_000_000_000, 1, 1.25, Some(PEAKS))],
        ..Rates::default()
    };
    let cost = |bytes, flops| PhaseCost { bytes, flops };
    let (time, by) = seconds(&rates, cost(1, 30_000_000_000), cost(0, 0));
    assert!((time - 6.0).abs() < 1e-9 && by == "1/10000000000", "{time} {by}");
    // Eight times the operations do not take eight times as long in a memory-bound step.
    let (time, _) = seconds(&rates, cost(1, 10_000_000_000), cost(1_000_000_000, 8));
    assert!((time - 3.25).abs() < 1e-9, "{time}");
    assert_eq!(
        rates.phases(CaseCost { prefill: cost(1, 1), decode: cost(0, 0) }, 2, false),
        Expected::Unknown
    );
    let no_decode = Rates { decode: Vec::new(), ..rates };
    assert_eq!(
        no_decode.phases(CaseCost { prefill: cost(1, 1), decode: cost(1, 1) }, 1, false),
        Expected::Unknown
    );
    assert_eq!(
        Rates::default().phases(CaseCost { prefill: cost(1, 1), decode: cost(0, 0) }, 1, false),
        Expected::Unknown
    );
}

#[test]
fn without_the_machines_limits_the_larger_ratio_counts() {
    let rates = Rates { prefill: vec![achieved(100, 100, 1.0, None)], ..Rates::default() };
    let (time, _) = seconds(&rates, PhaseCost { bytes: 200, flops: 500 }, PhaseCost { bytes: 0, flops: 0 });
    assert!((time - 5.0).abs() < 1e-9, "{time}");
}

#[test]
fn a_profile_gives_the_least_time_of_its_clock() {
    let profile = ClockProfile {
        name: "p".into(),
        sha256: String::new(),
        memory_bytes_per_s: 1_000_000_000,
        matmul_flops_per_s: 10_000_000_000,
        title: "a test".into(),
        figures: Vec::new(),
        fits: Vec::new(),
    };
    let rates = Rates::of_profile(profile);
    let prefill = PhaseCost { bytes: 1, flops: 20_000_000_000 };
    let cost = CaseCost { prefill, decode: PhaseCost { bytes: 3_000_000_000, flops: 1 } };
    let least = |tp| match rates.phases(cost, tp, false) {
        Expected::AtLeast { seconds, by } => (seconds, by),
        other => panic!("{other:?}"),
    };
    assert_eq!(least(1), (5.0, "profile p".to_owned()));
    assert_eq!(least(2).0, 2.5);
}

#[test]
fn decoding_the_6b_model_takes_what_its_bytes_take() {
    let config = ModelConfig::chatglm2_6b();
    let counted = Counted { config: &config, precision: DType::Fp16.into(), step_tokens: 512 };
    let of = |outputs| counted.cost(&[512], outputs);
    let CaseCost { prefill, decode } = of(65);
    let measured = |cost: PhaseCost, seconds| Achieved {
        seconds,
        ..achieved(cost.bytes, cost.flops, 1.0, Some(Peaks { bytes_per_s: 4e10, flops_per_s: 1e11 }))
    };
    // 64 steps of 12 GB at 30 GB/s.
    let rates = Rates {
        prefill: vec![measured(prefill, 60.0)],
        decode: vec![measured(decode, 25.6)],
        ..Rates::default()
    };
    let CaseCost { prefill, decode } = of(641);
    let (time, _) = seconds(&rates, prefill, decode);
    assert!((time - 60.0 - 256.0).abs() < 1.0, "{time}");
}

#[test]
fn times_are_told_as_people_tell_them() {
    for (seconds, words) in [
        (0.01, "less than 0.1 s"),
        (1.25, "1.2 s"),
        (59.6, "60 s"),
        (600.0, "10 min"),
        (3600.0, "1.0 h"),
        (144_000.0, "40 h"),
        (864_000.0, "10 days"),
    ] {
        assert_eq!(in_words(seconds), words);
    }
}
