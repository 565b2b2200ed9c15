//! The error of modelled times, and what it rests on.
//!
//! Every modelled figure of a report carries the error of its shape: [`cell`] in tables, [`after`] in sentences, [`span`] in
//! charts, [`figures`] in CSV files. A ratio of two has that of [`RatioError`]. [`glmbench_calibrate::modelled`] defines both.
//!
//! [`cards`](mod@cards) compares card with card. [`evidence`](super::evidence) has the published speeds behind the errors and the
//! figures of the profile, [`card_memory`](super::card_memory) what a card's memory holds.

pub(crate) mod cards;
pub(crate) mod figures;
mod ratio;

use crate::language::{Text, joined, text};
use glmbench_calibrate::modelled::{
    Basis as ErrorBasis, Beyond, Ground, Of, Outside, Shape, UNKNOWN, is_shipped, stated,
};
use glmbench_device::{ClockFit, DeviceInfo};

use super::format::NONE;
use crate::record::{Clock, LoadRow, PerfRow, Phase, ProfileFit, RunRecord};

pub(super) use self::cards::{beside, card_of, cards, cards_sentence};
pub(crate) use self::figures::Figure;
pub(crate) use self::ratio::RatioError;
pub(crate) use glmbench_calibrate::modelled::Stated;

/// The error of a modelled figure, or why it is not known.
pub(crate) type Known = Result<Stated, &'static str>;

/// Returns the profile of a run with modelled times.
pub(super) fn profile_of(run: &RunRecord) -> Option<&str> {
    run.provenance.clock_profile.as_deref().filter(|_| run.provenance.clock == Clock::Modelled)
}

/// What the error of modelled times in a run depends on, besides their shapes.
#[derive(Clone, Copy)]
pub struct Basis<'a> {
    /// The profile, as in records.
    pub profile: &'a str,
    /// Its own fits to the times of a card.
    pub fits: &'a [ProfileFit],
    /// Parameters of the model; `None` if the record has no shape that says so.
    pub parameters: Option<f64>,
    /// Whether launches were captured as graphs; `None` if the record does not say.
    pub graphs: Option<bool>,
    /// Whether the weights are quantised; `None` if the record does not say.
    pub quantised: Option<bool>,
}

impl Basis<'_> {
    /// Returns the error of a figure of this shape: `[batch, input tokens, output tokens]` on a number of chips.
    fn error(&self, of: Of, chips: u32, lengths: [u32; 3]) -> Known {
        let Self { profile, fits, parameters, graphs, quantised } = *self;
        let fits: Vec<ClockFit> = fits.iter().map(ClockFit::from).collect();
        let [batch, input_tokens, output_tokens] = lengths.map(|n| n as usize);
        let chips = chips as usize;
        let shape = Shape { chips, batch, input_tokens, output_tokens, parameters, graphs, quantised };
        stated(Ground { profile: Some(profile), fits: &fits }, of, shape)
    }
}

/// Returns the basis of a run with modelled times.
pub(super) fn basis_of(run: &RunRecord) -> Option<Basis<'_>> {
    let of = &run.provenance;
    let parameters = of.model_details.get("shape").and_then(|shape| parameters(shape));
    let graphs = of.device_details.get("graph").map(|word| word != "off");
    let fits = of.modelled_by.as_ref().map_or(&[][..], |by| &by.fits);
    let quantised = of.dtype.known().map(|precision| precision.has_quantised_weights());
    Some(Basis { profile: profile_of(run)?, fits, parameters, graphs, quantised })
}

/// Returns the parameters of a model by its shape in records: `28 layers, hidden 4096, ffn 13696, 32 heads of 128, 2 KV heads,
/// vocabulary 65024`. `None` for other words.
fn parameters(shape: &str) -> Option<f64> {
    let numbers: Vec<f64> = shape.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    let &[layers, hidden, ffn, heads, channels, kv_heads, vocabulary] = numbers.as_slice() else {
        return None;
    };
    let attention = 2.0 * hidden * channels * (heads + kv_heads);
    Some(layers * (attention + 3.0 * hidden * ffn) + 2.0 * vocabulary * hidden)
}

/// Returns the phases that give a timed phase its error.
fn of_phase(phase: Phase) -> Of {
    match phase {
        Phase::Prefill => Of::Prefill,
        Phase::Decode => Of::Decode,
        Phase::E2e => Of::Both,
    }
}

/// Returns the time error of a row.
pub(super) fn error_of(basis: Basis<'_>, row: &PerfRow, phase: Phase) -> Known {
    basis.error(of_phase(phase), row.tp, [row.batch, row.input_tokens, row.output_tokens])
}

/// Returns the error of a figure of a run by its shape: `[batch, input tokens, output tokens]`. `None` with a measured clock.
pub(crate) fn error_at(run: &RunRecord, phase: Phase, tp: u32, lengths: [u32; 3]) -> Option<Known> {
    basis_of(run).map(|basis| basis.error(of_phase(phase), tp, lengths))
}

/// Returns the time error of a phase on a device with a virtual clock, for a shape `[batch, input tokens, output tokens]` of a
/// model with `parameters` parameters. `None` with a measured clock.
pub(crate) fn error_on(
    device: &DeviceInfo,
    parameters: u64,
    phase: Phase,
    lengths: [usize; 3],
) -> Option<Known> {
    let by = device.modelled_by.as_ref()?;
    let profile = format!("{} sha256:{}", by.name, by.sha256);
    let [batch, input_tokens, output_tokens] = lengths;
    let graphs = device.details.iter().find(|(name, _)| name == "graph").map(|(_, word)| word != "off");
    let shape = Shape {
        chips: device.tp,
        batch,
        input_tokens,
        output_tokens,
        parameters: Some(parameters as f64),
        graphs,
        quantised: Some(device.precision.has_quantised_weights()),
    };
    Some(stated(Ground { profile: Some(&profile), fits: &by.fits }, of_phase(phase), shape))
}

/// Returns the shape of the steps behind a load's times: the largest batch, of the mean request.
pub(crate) fn shape_of_load(row: &LoadRow) -> [u32; 3] {
    let served = row.requests.saturating_sub(row.failed).max(1);
    let mean = |tokens: u64| u32::try_from(tokens.div_ceil(served)).unwrap_or(u32::MAX);
    [row.max_batch, mean(row.input_tokens), mean(row.output_tokens)]
}

/// Returns the time error of a load: that of the steps behind it. `None` with a measured clock.
pub(crate) fn error_of_load(run: &RunRecord, row: &LoadRow) -> Option<Known> {
    error_at(run, Phase::E2e, row.tp, shape_of_load(row))
}

/// Returns an error in the words of a cell.
pub(crate) fn short(error: Option<Known>) -> String {
    error.map_or_else(|| NONE.to_owned(), |error| error.map_or_else(|_| NONE.to_owned(), |of| of.short()))
}

/// Returns an error in words: `± 12 % (19 rows of 3 models; worst 34 %)`.
pub(crate) fn stated_words(stated: &Stated) -> Text {
    let Stated { error, worst, rows, models, of, pooled, beyond } = stated;
    let (rows, models) = match of {
        ErrorBasis::Published => {
            (text!("{rows} row{rows:s}", rows), text!("{models} model{models:s}", models))
        }
        ErrorBasis::Fitted => {
            (text!("{rows} measured time{rows:s}", rows), text!("{shapes} shape{shapes:s}", shapes = models))
        }
    };
    let pooled = if *pooled { text!(", over all numbers of chips") } else { Text::EMPTY };
    let beyond = match beyond.as_slice() {
        [] => Text::EMPTY,
        all => text!("; extrapolated: {beyond}", beyond = joined(all.iter().map(beyond_words), ", ")),
    };
    text!(
        "± {error} % ({rows} of {models}{pooled}; worst {worst} %{beyond})",
        error = format!("{:.0}", 100.0 * error),
        rows,
        models,
        pooled,
        worst = format!("{:.0}", 100.0 * worst),
        beyond
    )
}

/// Says where a figure is outside the times that its error rests on.
fn beyond_words(beyond: &Beyond) -> Text {
    let known = match beyond.of {
        ErrorBasis::Published => text!("published"),
        ErrorBasis::Fitted => text!("fitted"),
    };
    match &beyond.what {
        Outside::Chips(own, chips) => {
            text!("TP {own} ({known}: {chips})", own, known, chips = joined(chips, ", "))
        }
        Outside::Parameters(own, [least, most]) if least == most => {
            text!("model of {own} parameters ({known} {least} B)", own, known, least)
        }
        Outside::Parameters(own, [least, most]) => {
            text!("model of {own} parameters ({known} {least} to {most} B)", own, known, least, most)
        }
        Outside::Launches { as_graphs: true } => text!("launched as graphs ({known}: one by one)", known),
        Outside::Launches { as_graphs: false } => text!("launched one by one ({known}: as graphs)", known),
        Outside::QuantisedWeights => text!("quantised weights ({known}: none)", known),
        Outside::Batch(own, most) => text!("batch {own} ({known} up to {most})", own, known, most),
        Outside::Tokens(own, most) => text!("{own} tokens ({known} up to {most})", own, known, most),
    }
}

/// Returns an error as it follows a figure in a sentence. Empty for measured figures, and where no error of the profile is known:
/// [`sentence`] says so once.
pub(crate) fn words(error: Option<Known>) -> Text {
    match error {
        None | Some(Err(UNKNOWN)) => Text::EMPTY,
        Some(Ok(stated)) => text!(" {error}", error = stated_words(&stated)),
        Some(Err(why)) => text!(" ({why})", why = Text::term(why)),
    }
}

/// Returns what follows a modelled time where it stands alone, such as in a gate: `, modelled ± 12 %`. Empty for measured times.
pub(crate) fn marked(error: Option<&Known>) -> Text {
    error.map_or(Text::EMPTY, |known| text!(", {remark}", remark = remark(known)))
}

/// Says that a time is modelled, and its error: `modelled ± 12 %`.
pub(crate) fn remark(known: &Known) -> Text {
    match known {
        Ok(stated) => text!("modelled {error}", error = stated.short()),
        Err(why) => text!("modelled, {why}", why = Text::term(*why)),
    }
}

/// Returns the time error of a row in the words of a cell.
pub(super) fn cell(basis: Basis<'_>, row: &PerfRow, phase: Phase) -> String {
    short(Some(error_of(basis, row, phase)))
}

/// Returns what follows a modelled time in a sentence: ` ± 12 % (19 rows of 3 models; worst 34 %)`. Empty for measured times.
pub(super) fn after(run: &RunRecord, row: &PerfRow, phase: Phase) -> Text {
    words(basis_of(run).map(|basis| error_of(basis, row, phase)))
}

/// Returns what follows a chart's clock: the least and the largest error of its rows. Empty for measured times.
pub(super) fn span<'a>(run: &RunRecord, rows: impl Iterator<Item = &'a PerfRow>, phase: Phase) -> Text {
    let Some(basis) = basis_of(run) else { return Text::EMPTY };
    span_of(rows.filter(|row| row.phase == phase).map(|row| Some(error_of(basis, row, phase))))
}

/// Returns the least and the largest of errors: ` ± 9 to 20 %`. Empty if no error is known.
pub(crate) fn span_of(errors: impl Iterator<Item = Option<Known>>) -> Text {
    let errors: Vec<Stated> = errors.filter_map(|error| error?.ok()).collect();
    let percents = errors.iter().map(|stated| (100.0 * stated.error).round());
    let (least, most) = percents.fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(x), b.max(x)));
    let beyond = if errors.iter().any(|stated| !stated.beyond.is_empty()) {
        text!(", partly extrapolated")
    } else {
        Text::EMPTY
    };
    let (shown_least, shown_most) = (format!("{least:.0}"), format!("{most:.0}"));
    if errors.is_empty() {
        Text::EMPTY
    } else if least >= most {
        text!(" ± {most} %{beyond}", most = shown_most, beyond)
    } else {
        text!(" ± {least} to {most} %{beyond}", least = shown_least, most = shown_most, beyond)
    }
}

/// Returns a sentence on the errors of modelled times in a run, by phase, without regard to shapes.
pub(super) fn sentence(run: &RunRecord) -> Option<Text> {
    let basis = basis_of(run)?;
    let mut chips: Vec<u32> = run.plan.performance.iter().map(|case| case.tp).collect();
    chips.push(run.provenance.tp);
    chips.sort_unstable();
    chips.dedup();
    let of = |chips: u32| {
        let words = |of| match basis.error(of, chips, [1, 256, 256]) {
            Ok(stated) => stated_words(&stated),
            Err(why) => Text::term(why),
        };
        text!(
            "TP {chips}: prefill {prefill}, decode {decode}",
            chips,
            prefill = words(Of::Prefill),
            decode = words(Of::Decode)
        )
    };
    let known = joined(chips.into_iter().map(of), "; ");
    let against = match (is_shipped(basis.profile), basis.fits.is_empty()) {
        (true, _) => text!("published speeds of models that the fit has not seen"),
        (false, false) => {
            text!("the times of the card that the profile is fitted to, on shapes left out of the fit")
        }
        // The record has no error of such a profile.
        (false, true) => {
            return Some(text!(
                "Times are modelled by a profile that is neither a shipped one of this version nor fitted to a card: their \
                 error is unknown here."
            ));
        }
    };
    let card = cards::card_words(run).map_or(Text::EMPTY, |card| text!(" on an {card}", card));
    Some(text!("Times are modelled{card}. Their error against {against}: {known}.", card, against, known))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::ModelledBy;
    use crate::report::{fixture, perf_rows};

    #[test]
    fn the_parameters_are_read_from_the_shape() {
        let shape = "28 layers, hidden 4096, ffn 13696, 32 heads of 128, 2 KV heads, vocabulary 65024";
        assert!((parameters(shape).unwrap() / 6.24e9 - 1.0).abs() < 0.01);
        assert_eq!(parameters("unknown"), None);
    }

    #[test]
    fn measured_times_carry_no_model_error_and_unknown_profiles_say_so() {
        let fixture::Records { mut run, requests, .. } = fixture::realistic();
        let rows = perf_rows(&run, &requests);
        assert_eq!((after(&run, &rows[0], Phase::Prefill), sentence(&run)), (Text::EMPTY, None));
        let file = |run: &RunRecord| figures::csv(run, &figures::of(run, &rows, &[])).unwrap();
        assert!(file(&run).is_none());
        run.provenance.clock = Clock::Modelled;
        run.provenance.clock_profile = Some("mine sha256:00".into());
        // One sentence says so, and no figure repeats it.
        assert_eq!(after(&run, &rows[0], Phase::Prefill), "");
        let says = sentence(&run).unwrap();
        assert!(says.contains("error is unknown here") && says.contains("nor fitted to a card"), "{says}");
        let told = |run: &RunRecord| String::from_utf8(file(run).unwrap().bytes).unwrap();
        assert!(told(&run).contains("error unknown here"));
        let unknown = error_at(&run, Phase::Decode, 1, [1, 8, 8]);
        assert!(marked(unknown.as_ref()).starts_with(", modelled, error unknown here"));
        // A profile that was fitted to a card states its own error.
        let fit = |phase: &str| ProfileFit {
            phase: phase.into(),
            chips: 1,
            rows: 9,
            shapes: 9,
            error: 0.034,
            worst: 0.07,
            batch: 32,
            tokens: 4096,
            parameters: 6.24e9,
            graphs: false,
        };
        let fits = vec![fit("prefill"), fit("decode")];
        run.provenance.modelled_by =
            Some(Box::new(ModelledBy { title: "mine".into(), figures: Vec::new(), fits }));
        assert_eq!(after(&run, &rows[0], Phase::Decode), " ± 3 % (9 measured times of 9 shapes; worst 7 %)");
        assert!(
            sentence(&run).unwrap().contains("fitted to, on shapes left out of the fit: TP 1: prefill ± 3 %")
        );
        let errors = told(&run);
        assert!(errors.lines().nth(1).unwrap().contains(",0.034,0.07,9,9,,"), "{errors}");
    }
}
