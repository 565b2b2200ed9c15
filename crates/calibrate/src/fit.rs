//! Fits free figures of a profile to measured times, and says how well the fit predicts models that it has not seen.
//!
//! The residual of a case is the logarithm of modelled over measured time, so that 10 % too fast and 10 % too slow count
//! alike. Every model has the same weight, however many rows it has. The search is Nelder and Mead's simplex (1965) on the
//! logarithms of the figures, with the usual coefficients 1, 2, 0.5 and 0.5.

use std::ops::RangeInclusive;

use glmbench_ascend::Pricer;
use glmbench_device::DeviceError;

use super::counted::Counted;
use super::published::Phase;

/// A figure that a fit may change.
#[derive(Debug, Clone, PartialEq)]
pub struct Free {
    /// The profile's key.
    pub key: &'static str,
    /// The profiles that share the figure, by their place among the bases. Empty means all.
    pub of: Vec<usize>,
    /// Where the search starts.
    pub start: f64,
    /// The values that a fit may choose.
    pub range: RangeInclusive<f64>,
    /// The source that the profile states.
    pub source: &'static str,
}

impl Free {
    /// Whether the figure is of this base.
    pub fn concerns(&self, base: usize) -> bool {
        self.of.is_empty() || self.of.contains(&base)
    }
}

/// A measured time with the work that it was spent on.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// The profile of its chip, by its place among the bases.
    pub base: usize,
    /// The model; a fit that leaves one out leaves all its cases out.
    pub model: String,
    /// The phase.
    pub phase: Phase,
    /// Number of chips.
    pub chips: usize,
    /// Whether steps ran as graphs, without single launches.
    pub graph: bool,
    /// The work.
    pub counted: Counted,
    /// The measured time, ns.
    pub measured_ns: f64,
}

impl Case {
    /// Returns the modelled time in ns by a profile's settings.
    ///
    /// # Errors
    /// The emulator refuses the settings.
    pub fn modelled_ns(&self, pricer: &Pricer, settings: &str) -> Result<f64, DeviceError> {
        if !self.graph {
            return self.counted.price(pricer, settings);
        }
        self.counted.price(pricer, &format!("{settings}single_launch_ns = 0\n"))
    }

    /// Returns the logarithm of modelled over measured time.
    ///
    /// # Errors
    /// The emulator refuses the settings.
    pub fn residual(&self, pricer: &Pricer, bases: &[String]) -> Result<f64, DeviceError> {
        let settings = bases.get(self.base).map_or("", String::as_str);
        Ok((self.modelled_ns(pricer, settings)? / self.measured_ns).ln())
    }
}

/// A fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The figures, in the order of the free ones.
    pub values: Vec<f64>,
    /// The settings of every base with the fitted figures.
    pub settings: Vec<String>,
    /// Root mean square of the residuals ([`rms`]).
    pub rms: f64,
}

fn with(bases: &[String], free: &[Free], values: &[f64]) -> Vec<String> {
    let own = |base: usize| free.iter().zip(values).filter(move |(free, _)| free.concerns(base));
    let settings = |(base, text): (usize, &String)| {
        own(base).fold(text.clone(), |text, (free, value)| text + &format!("{} = {value}\n", free.key))
    };
    bases.iter().enumerate().map(settings).collect()
}

/// Returns the root mean square of the residuals of `cases`. Every phase of every model has the same weight.
///
/// # Errors
/// The emulator refuses the settings.
pub fn rms(pricer: &Pricer, bases: &[String], cases: &[&Case]) -> Result<f64, DeviceError> {
    let mut groups: Vec<(&str, Phase, f64, f64)> = Vec::new();
    for case in cases {
        let square = case.residual(pricer, bases)?.powi(2);
        match groups.iter_mut().find(|(model, phase, ..)| *model == case.model && *phase == case.phase) {
            Some((.., sum, n)) => (*sum, *n) = (*sum + square, *n + 1.0),
            None => groups.push((&case.model, case.phase, square, 1.0)),
        }
    }
    let mean: f64 = groups.iter().map(|(.., sum, n)| sum / n).sum::<f64>() / (groups.len().max(1) as f64);
    Ok(mean.sqrt())
}

/// Fits the free figures of the profiles with these settings to cases.
///
/// # Errors
/// The emulator refuses the settings.
pub fn fit(pricer: &Pricer, bases: &[String], free: &[Free], cases: &[&Case]) -> Result<Fitted, DeviceError> {
    let values = |point: &[f64]| -> Vec<f64> {
        free.iter().zip(point).map(|(f, x)| x.exp().clamp(*f.range.start(), *f.range.end())).collect()
    };
    let mut failure = None;
    let mut cost = |point: &[f64]| {
        // Outside its range, a figure counts as its nearest end, and pays for the distance.
        let outside = |(f, x): (&Free, &f64)| (x - x.clamp(f.range.start().ln(), f.range.end().ln())).abs();
        let outside: f64 = free.iter().zip(point).map(outside).sum();
        match rms(pricer, &with(bases, free, &values(point)), cases) {
            Ok(rms) => rms + outside,
            Err(error) => {
                failure = Some(error);
                f64::MAX
            }
        }
    };
    let start: Vec<f64> = free.iter().map(|f| f.start.ln()).collect();
    // A simplex can collapse before it reaches the bottom. A new one from there goes on.
    let (mut point, mut least) = minimum(&start, &mut cost);
    for _ in 0..RESTARTS {
        let (next, value) = minimum(&point, &mut cost);
        let gained = least - value;
        if gained > 0.0 {
            (point, least) = (next, value);
        }
        if gained < CLOSE {
            break;
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    let values = values(&point);
    let settings = with(bases, free, &values);
    let rms = rms(pricer, &settings, cases)?;
    Ok(Fitted { values, settings, rms })
}

/// Fits without each model in turn, and predicts the cases of that model. Returns the logarithm of predicted over measured
/// time, in the order of the cases.
///
/// # Errors
/// The emulator refuses the settings.
pub fn leave_one_out(
    pricer: &Pricer,
    bases: &[String],
    free: &[Free],
    cases: &[&Case],
) -> Result<Vec<f64>, DeviceError> {
    let mut fits: Vec<(&str, Vec<String>)> = Vec::new();
    for case in cases {
        if fits.iter().all(|(model, _)| *model != case.model) {
            let others: Vec<&Case> =
                cases.iter().copied().filter(|other| other.model != case.model).collect();
            fits.push((&case.model, fit(pricer, bases, free, &others)?.settings));
        }
    }
    let residual = |case: &&Case| {
        let fitted = fits.iter().find(|(model, _)| *model == case.model);
        case.residual(pricer, fitted.map_or(bases, |(_, settings)| settings))
    };
    cases.iter().map(residual).collect()
}

/// Steps of the search at most. Six figures take about 400.
const MOST_STEPS: usize = 1_000;
/// Searches from the end of the one before, at most.
const RESTARTS: usize = 4;
/// The search ends when the simplex's costs differ by less.
const CLOSE: f64 = 1e-7;

/// Returns the point with the least cost near `start`, and its cost.
fn minimum(start: &[f64], mut cost: impl FnMut(&[f64]) -> f64) -> (Vec<f64>, f64) {
    let mut simplex: Vec<(Vec<f64>, f64)> = Vec::with_capacity(start.len() + 1);
    for i in 0..=start.len() {
        let mut point = start.to_vec();
        if let Some(x) = i.checked_sub(1).and_then(|i| point.get_mut(i)) {
            *x += 0.3;
        }
        let value = cost(&point);
        simplex.push((point, value));
    }
    for _ in 0..MOST_STEPS {
        simplex.sort_by(|a, b| a.1.total_cmp(&b.1));
        let last = simplex.len() - 1;
        if last == 0 || simplex[last].1 - simplex[0].1 < CLOSE {
            break;
        }
        let centre: Vec<f64> = (0..start.len())
            .map(|i| simplex[..last].iter().map(|(point, _)| point[i]).sum::<f64>() / last as f64)
            .collect();
        let worst = simplex[last].clone();
        let along = |t: f64| -> Vec<f64> {
            centre.iter().zip(&worst.0).map(|(centre, worst)| centre + t * (centre - worst)).collect()
        };
        let mut tried = |t: f64| {
            let point = along(t);
            let value = cost(&point);
            (point, value)
        };
        let reflected = tried(1.0);
        let next = if reflected.1 < simplex[0].1 {
            let expanded = tried(2.0);
            Some(if expanded.1 < reflected.1 { expanded } else { reflected })
        } else if reflected.1 < simplex[last - 1].1 {
            Some(reflected)
        } else {
            let inside = tried(if reflected.1 < worst.1 { 0.5 } else { -0.5 });
            Some(inside).filter(|inside| inside.1 < reflected.1.min(worst.1))
        };
        if let Some(next) = next {
            simplex[last] = next;
            continue;
        }
        let best = simplex[0].0.clone();
        for (point, value) in &mut simplex[1..] {
            point.iter_mut().zip(&best).for_each(|(x, best)| *x = best + 0.5 * (*x - best));
            *value = cost(point);
        }
    }
    simplex.sort_by(|a, b| a.1.total_cmp(&b.1));
    simplex.swap_remove(0)
}

#[cfg(test)]
mod tests {
    use super::minimum;

    #[test]
    fn the_search_finds_the_bottom_of_a_curved_valley() {
        // Rosenbrock's function: its minimum is 0 at (1, 1).
        let (point, value) =
            minimum(&[-1.2, 1.0], |p| 100.0 * (p[1] - p[0] * p[0]).powi(2) + (1.0 - p[0]).powi(2));
        assert!(value < 1e-6 && point.iter().all(|x| (x - 1.0).abs() < 1e-2), "{point:?} {value}");
        assert_eq!(minimum(&[], |_| 3.0), (Vec::new(), 3.0));
    }
}
