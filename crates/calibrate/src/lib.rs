//! Calibration: the virtual clock against published and measured speeds.
//!
//! [`published`] has the published speeds. [`counted`] runs the engine's own plan of their shapes on the emulated chip, once, and
//! keeps the work; [`cases`] joins both. [`fit`] varies free figures of a profile until the price of the work is nearest to the
//! published times. [`families`] says which figures are free. [`residuals`] holds the rows against the profiles, and [`text`]
//! writes a profile with fitted figures. [`measured`] takes the timed cases of our own runs instead of published rows.
//!
//! [`modelled`] states the error of a modelled figure, from the committed table of residuals.
#![forbid(unsafe_code)]

pub mod cases;
pub mod counted;
pub mod families;
pub mod fit;
pub mod measured;
pub mod modelled;
pub mod published;
pub mod residuals;
pub mod text;
