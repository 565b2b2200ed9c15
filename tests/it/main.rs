//! Integration tests: the product as a user meets it.

mod convert;
#[cfg(test)]
mod dataset;
mod goldens;
mod invariance;
mod support;
mod tokenizer;
mod weights;
