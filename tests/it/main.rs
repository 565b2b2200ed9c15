//! Integration tests: the product as a user meets it.

#![cfg(test)]

mod check;
mod convert;
mod dataset;
mod goldens;
mod invariance;
mod shapes;
mod suite;
mod support;
mod task;
mod tokenizer;
mod weights;
