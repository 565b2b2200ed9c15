//! Tests through the exported functions, used as a caller in C would use them.

mod antiquant;
mod attention;
mod clock;
mod faults;
mod graph;
mod hccl;
mod misuse;
mod numerics;
mod pages;
mod quant;
mod session;
mod speed;
