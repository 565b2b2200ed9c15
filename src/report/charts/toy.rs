//! The smallest example of a kind of chart, for tests only: one bar. `docs/ADDING.md` points here.

use super::head::Head;
use super::ink::Ink;
use plotters::coord::Shift;
use plotters::prelude::*;

/// A chart of one number.
pub(in crate::report) struct ToyChart {
    pub(in crate::report) longest: u32,
}

/// Width and height.
pub(super) const SIZE: (u32, u32) = (560, 120);

impl ToyChart {
    pub(super) fn title(&self) -> String {
        format!("The longest prompt, {} tokens", self.longest)
    }
}

/// Draws the chart on the whole area.
pub(super) fn draw<DB: DrawingBackend>(
    area: &DrawingArea<DB, Shift>,
    chart: &ToyChart,
    ink: &Ink,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    Head::of("The longest prompt", &format!("{} tokens", chart.longest), SIZE.0 as i32).write(area, ink)?;
    let width = i32::try_from(chart.longest.min(500)).unwrap_or(500);
    area.draw(&Rectangle::new([(20, 80), (20 + width, 100)], BLACK.filled()))
}
