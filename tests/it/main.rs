//! Integration tests: the product as a user meets it.

mod goldens;
mod invariance;
mod support;
mod tokenizer;
mod weights;
