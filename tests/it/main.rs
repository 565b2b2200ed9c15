//! Integration tests: the product as a user meets it.
mod tokenizer;
