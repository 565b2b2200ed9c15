//! Lines: the values of one thing over runs, in the order of time.

use super::cache::{Known, What};
use super::figures::{RunFigures, Standing};
use crate::language::{Text, text};
use crate::record::{Clock, unix_seconds};
use crate::report::followed::{Figure, Kind};
use crate::stats::{Level, Step, levels, steps};
use std::collections::{BTreeMap, HashMap};

/// How a value came about. Values of different sources are never on one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    /// By a real device, with its clock.
    Measured,
    /// Time of a virtual clock.
    Modelled,
    /// Computed by the stand-in for a card: numbers, no times.
    Emulated,
}

impl Source {
    fn of(figure: &Figure, run: &RunFigures) -> Self {
        match run.clock {
            Clock::Modelled if figure.kind.is_timed() => Self::Modelled,
            _ if run.emulated => Self::Emulated,
            _ => Self::Measured,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Modelled => "modelled",
            Self::Emulated => "emulated",
        }
    }
}

/// A run with figures on lines.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) folder: &'a str,
    pub(super) of: &'a RunFigures,
    /// When it began, in seconds since 1970.
    pub(super) at: u64,
}

/// A folder without lines, and why.
#[derive(Debug, Clone)]
pub(super) struct LeftOut<'a> {
    pub(super) folder: &'a str,
    /// `None` for a folder that cannot be read.
    pub(super) of: Option<&'a RunFigures>,
    /// `INVALID`, `incomplete`, `part of a plan`, `copy` or `broken`.
    pub(super) standing: &'static str,
    pub(super) why: String,
}

/// Separates the runs that carry lines, in the order of time, from the others.
pub(super) fn sorted(known: &[Known]) -> (Vec<Run<'_>>, Vec<LeftOut<'_>>) {
    let (mut runs, mut left_out) = (Vec::new(), Vec::new());
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for known in known {
        let folder = known.folder.as_str();
        let of = match &known.what {
            What::Run(of) => of.as_ref(),
            What::Broken(why) => {
                left_out.push(LeftOut { folder, of: None, standing: "broken", why: why.clone() });
                continue;
            }
        };
        let mut leave = |standing, why| left_out.push(LeftOut { folder, of: Some(of), standing, why });
        match (of.standing, unix_seconds(&of.started), seen.get(of.run_json.as_str())) {
            // A copy is no second run.
            (_, _, Some(first)) => leave("copy", format!("a copy of {first}")),
            (Standing::Valid, Some(at), None) => runs.push(Run { folder, of, at }),
            (Standing::Valid, None, None) => {
                let why =
                    format!("started: found {:?}, expected a time such as 2026-11-23T04:46:00Z", of.started);
                leave("broken", why);
            }
            (standing, ..) => leave(standing.word(), of.verdict.clone()),
        }
        seen.entry(&of.run_json).or_insert(folder);
    }
    runs.sort_by(|a, b| (a.at, a.folder).cmp(&(b.at, b.folder)));
    (runs, left_out)
}

/// What the values of a line have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key<'a> {
    pub(super) kind: Kind,
    pub(super) model: &'a str,
    pub(super) form: &'a str,
    pub(super) device: &'a str,
    pub(super) tp: u32,
    pub(super) source: Source,
    /// Processor and threads of measured times, or the profile of modelled ones.
    pub(super) by: &'a str,
    pub(super) case: &'a str,
    pub(super) basis: &'a str,
}

/// A value on a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point<'a> {
    /// Place of the run in the list of runs.
    pub(super) run: usize,
    pub(super) at: u64,
    pub(super) figure: &'a Figure,
}

/// A line.
#[derive(Debug, Clone)]
pub(super) struct Line<'a> {
    pub(super) key: Key<'a>,
    /// In the order of time; never empty.
    pub(super) points: Vec<Point<'a>>,
    /// Where its level changed.
    pub(super) steps: Vec<Step>,
    /// The levels between. Their values are the points.
    pub(super) levels: Vec<Level>,
}

impl<'a> Line<'a> {
    fn of(key: Key<'a>, points: Vec<Point<'a>>) -> Self {
        let values: Vec<f64> = points.iter().map(|point| point.figure.value).collect();
        let steps = steps(&values);
        Self { key, levels: levels(&values, &steps), points, steps }
    }

    pub(super) fn values(&self) -> Vec<f64> {
        self.points.iter().map(|point| point.figure.value).collect()
    }

    pub(super) fn last(&self) -> &Point<'a> {
        self.points.last().expect("invariant: a line has a point")
    }

    /// The case with its kind: `Decode, batch 8, 512 in, 128 out`.
    pub(super) fn name(&self) -> Text {
        Text::list([Text::term(self.key.kind.title()), Text::data(self.key.case.to_owned())], ", ")
    }

    /// What ran it: `demo in fp16 on cpu, 2 ranks, measured`.
    pub(super) fn place(&self) -> Text {
        let Key { model, form, device, tp, source, .. } = &self.key;
        let ranks = if *tp > 1 { text!(", {tp} ranks", tp) } else { Text::EMPTY };
        text!(
            "{model} in {form} on {device}{ranks}, {source}",
            model,
            form,
            device,
            ranks,
            source = Text::term(source.word())
        )
    }
}

/// Makes the lines of runs, by kind, model, form and device.
pub(super) fn lines<'a>(runs: &[Run<'a>]) -> Vec<Line<'a>> {
    let mut all: BTreeMap<Key<'a>, Vec<Point<'a>>> = BTreeMap::new();
    for (place, run) in runs.iter().enumerate() {
        for figure in &run.of.figures {
            let source = Source::of(figure, run.of);
            let by = match source {
                Source::Modelled => run.of.profile.as_deref(),
                _ if figure.kind.is_timed() => run.of.processor.as_deref(),
                _ => None,
            };
            let key = Key {
                kind: figure.kind,
                model: &run.of.model,
                form: &run.of.form,
                device: &run.of.device,
                tp: figure.tp,
                source,
                by: by.unwrap_or_default(),
                case: &figure.case,
                basis: &figure.basis,
            };
            let points = all.entry(key).or_default();
            // A plan may time one shape twice; the first stands for the run.
            if points.last().is_none_or(|last| last.run != place) {
                points.push(Point { run: place, at: run.at, figure });
            }
        }
    }
    let all: Vec<(Key<'a>, Vec<Point<'a>>)> = all.into_iter().collect();
    super::found::spread(&all, |(key, points)| Line::of(key.clone(), points.clone()))
}
