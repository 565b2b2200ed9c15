//! Integration tests: the product as a user meets it.

#[cfg(test)]
mod convert;
mod dataset;
mod goldens;
mod invariance;
mod support;
mod tokenizer;
mod weights;
