//! Integration tests: the product as a user meets it.

mod convert;
#[cfg(test)]
mod check;
#[cfg(test)]
mod dataset;
mod goldens;
mod invariance;
#[cfg(test)]
mod suite;
mod support;
#[cfg(test)]
mod task;
mod tokenizer;
mod weights;
