use super::row::TABLE;
use super::*;

fn row(model: &str, chips: usize, batch: usize, left_out: f64) -> Residual {
    Residual {
        model: model.into(),
        chip: "910B4".into(),
        chips,
        dtype: "fp16".into(),
        mode: "graph".into(),
        batch,
        input_tokens: "32..1024".into(),
        output_tokens: "1024".into(),
        phase: "decode".into(),
        purpose: "fit".into(),
        published_ms: 10.0,
        before: None,
        ratio: Some(1.0),
        left_out: Some(left_out),
        reason: String::new(),
    }
}

fn of(rows: &[Residual], phase: &str, shape: Shape) -> Result<Stated, &'static str> {
    stated_of(&Known::published(rows, "910B4", phase), phase, shape)
}

/// The error, the times and models behind it, the worst of them, and where it is extrapolated.
fn said(stated: &Stated) -> String {
    let Stated { rows, models, worst, beyond, .. } = stated;
    let beyond: Vec<String> = beyond.iter().map(ToString::to_string).collect();
    let beyond = if beyond.is_empty() { String::new() } else { format!("; {}", beyond.join(", ")) };
    format!("{}, {rows} of {models}, worst {:.0} %{beyond}", stated.short(), 100.0 * worst)
}

#[test]
fn a_profile_fitted_to_a_card_states_the_error_of_its_fit() {
    let fit = |phase: &str, chips, error| ClockFit {
        phase: phase.into(),
        chips,
        rows: 9,
        shapes: 9,
        error,
        worst: 2.0 * error,
        batch: 32,
        tokens: 2064,
        parameters: 6.24e9,
        graphs: false,
    };
    let fits = [fit("prefill", 1, 0.02), fit("decode", 1, 0.03), fit("decode", 2, 0.05)];
    let ground = Ground { profile: Some("mine sha256:00"), fits: &fits };
    let shape = Shape {
        chips: 1,
        batch: 8,
        input_tokens: 1024,
        output_tokens: 64,
        parameters: Some(6.24e9),
        graphs: Some(false),
        quantised: Some(false),
    };
    let of = |of, shape| said(&stated(ground, of, shape).unwrap());
    assert_eq!(of(Of::Decode, shape), "± 3 %, 9 of 9, worst 6 %");
    assert_eq!(of(Of::Both, shape), "± 3 %, 9 of 9, worst 6 %");
    let outside = Shape { chips: 4, batch: 64, graphs: Some(true), ..shape };
    assert_eq!(
        of(Of::Decode, outside),
        "± 4 % *, 18 of 18, worst 10 %; TP 4 (fitted: 1, 2), launched as graphs (fitted: one by one), batch 64 (fitted up to 32)"
    );
    assert!(
        stated(Ground { fits: &fits[..1], ..ground }, Of::Decode, shape)
            .unwrap_err()
            .contains("no time of this phase")
    );
    assert!(stated(Ground { fits: &[], ..ground }, Of::Decode, shape).unwrap_err().contains("unknown here"));
}

#[test]
fn the_error_is_that_of_models_left_out_and_says_where_it_extrapolates() {
    let rows = [
        row("a-7B", 1, 4, 1.1),
        row("b-13B", 1, 8, 1.0 / 1.1),
        row("b-13B", 1, 8, 1.1),
        row("c-70B", 8, 4, 2.0),
    ];
    let shape = Shape {
        chips: 1,
        batch: 8,
        input_tokens: 1024,
        output_tokens: 1024,
        parameters: Some(6.2e9),
        graphs: Some(true),
        quantised: Some(false),
    };
    let inside = of(&rows, "decode", shape).unwrap();
    assert_eq!(said(&inside), "± 10 %, 3 of 2, worst 10 %");
    assert_eq!(inside.short(), "± 10 %");
    let other = Shape { parameters: Some(0.8e6), graphs: Some(false), quantised: Some(true), ..shape };
    assert_eq!(
        said(&of(&rows, "decode", other).unwrap()),
        "± 10 % *, 3 of 2, worst 10 %; model of 0.8 M parameters (published 7 to 13 B), launched one by one (published: as \
         graphs), quantised weights (published: none)"
    );
    let outside = Shape { chips: 4, batch: 16, input_tokens: 8192, output_tokens: 1, ..shape };
    let outside = of(&rows, "decode", outside).unwrap();
    assert_eq!(
        said(&outside),
        "± 41 % *, 4 of 3, worst 69 %; TP 4 (published: 1, 8), batch 16 (published up to 8), 8193 tokens (published up to 2048)"
    );
    assert_eq!(outside.short(), "± 41 % *");
    // One row says nothing of its own number of chips.
    let eight = of(&rows, "decode", Shape { chips: 8, ..shape }).unwrap();
    assert!(eight.pooled && eight.rows == 4, "{eight:?}");
    assert_eq!(of(&rows[3..], "decode", shape), Err("one row: error not known"));
    assert_eq!(of(&rows[..1], "decode", shape), Err("one row: error not known"));
    assert!(of(&rows, "prefill", shape).is_err());
    let named = |profile| Ground { profile, fits: &[] };
    assert!(stated(named(None), Of::Both, shape).is_err());
    assert!(stated(named(Some("800i-a2 sha256:00")), Of::Both, shape).is_err());
}

#[test]
fn every_shipped_profile_has_rows_and_the_table_is_whole() {
    let all = csv::Reader::from_reader(TABLE.as_bytes()).into_records().count();
    assert_eq!(residuals().len(), all);
    let shape = Shape {
        chips: 1,
        batch: 1,
        input_tokens: 256,
        output_tokens: 256,
        parameters: None,
        graphs: None,
        quantised: None,
    };
    assert!(residuals().iter().all(|row| row.parameters().is_some()));
    for name in Profile::builtin_names() {
        let profile = format!("{name} sha256:{}", Profile::builtin(name).unwrap().sha256);
        for of in [Of::Prefill, Of::Decode, Of::Both] {
            let stated = stated(Ground { profile: Some(&profile), fits: &[] }, of, shape).unwrap();
            assert!(stated.rows > 0 && stated.error < 0.5, "{name} {of:?} {stated:?}");
        }
    }
}

#[test]
fn an_error_is_the_logarithm_of_a_factor() {
    let (low, high) = ends(10.0, 2_f64.ln()).into_inner();
    assert!((low - 5.0).abs() < 1e-9 && (high - 20.0).abs() < 1e-9, "{low} {high}");
    assert_eq!(ends(7.0, 0.0), 7.0..=7.0);
    // The range of a reciprocal is the range turned round, which plus and minus a share is not.
    let (slow, fast) = ends(4.0, 0.3).into_inner();
    let (turned_slow, turned_fast) = ends(1.0 / 4.0, 0.3).into_inner();
    assert!((slow * turned_fast - 1.0).abs() < 1e-12 && (fast * turned_slow - 1.0).abs() < 1e-12);
    assert!((of_ratio(0.3, 0.4) - 0.5).abs() < 1e-12);
    let alike = [("a", 1.1), ("a", 1.0 / 1.1), ("b", 1.0)];
    let LogError { rms: error, worst } = rms_over_models(alike).unwrap();
    assert!((error - 1.1_f64.ln() / 2_f64.sqrt()).abs() < 1e-12 && (worst - 1.1_f64.ln()).abs() < 1e-12);
    assert_eq!(rms_over_models([]), None);
}
