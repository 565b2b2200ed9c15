//! Speed figures, on request: `cargo test --release -p ascend-emulator speed -- --ignored --nocapture`.

use std::ptr::null_mut;
use std::time::Instant;

use super::session::{Array, Session, WORKSPACE, random, tensor};
use crate::half::DType::Float16;
use crate::ops::linear::{aclnnMatmul, aclnnMatmulGetWorkspaceSize};
use crate::tensor::{aclCreateTensor, aclDestroyTensor};

#[test]
#[ignore = "prints times, asserts nothing about them"]
fn two_stages_in_timing_mode() {
    let s = Session::new("mode = timing");
    let (a, w, out) = (
        Array::empty(Float16, &[1, 4096]),
        Array::empty(Float16, &[4608, 4096]),
        Array::empty(Float16, &[1, 4608]),
    );
    let dims = [[1i64, 4096], [4096, 4608], [1, 4608]];
    let strides = [[4096i64, 1], [1, 4096], [4608, 1]];
    let data = [a.memory.0, w.memory.0, out.memory.0];
    let n = 200_000;
    let begin = Instant::now();
    for _ in 0..n {
        let (mut size, mut executor) = (0, null_mut());
        // SAFETY: arrays of two, live memory and handles.
        unsafe {
            let t: [_; 3] = std::array::from_fn(|i| {
                let (d, st) = (dims[i].as_ptr(), strides[i].as_ptr());
                aclCreateTensor(d, 2, 1, st, 0, 2, dims[i].as_ptr(), 2, data[i])
            });
            aclnnMatmulGetWorkspaceSize(t[0], t[1], t[2], 0, &raw mut size, &raw mut executor);
            aclnnMatmul(s.workspace(), WORKSPACE, executor, s.stream);
            for t in t {
                aclDestroyTensor(t);
            }
        }
    }
    println!("two stages with three tensors: {} ns", begin.elapsed().as_nanos() / n);
}

#[test]
#[ignore = "prints times, asserts nothing about them"]
fn product_rate() {
    let s = Session::new("");
    for (m, k, n) in [(64usize, 512usize, 512usize), (1, 1024, 1024)] {
        let a = Array::new(Float16, &[m as i64, k as i64], &random(1, m * k));
        let w = Array::new(Float16, &[n as i64, k as i64], &random(2, n * k));
        let out = Array::empty(Float16, &[m as i64, n as i64]);
        let view = tensor(
            w.memory.0,
            Float16,
            &[k as i64, n as i64],
            Some(&[1, k as i64]),
            0,
            2,
            &[n as i64, k as i64],
        );
        let begin = Instant::now();
        let times = 20;
        for _ in 0..times {
            // SAFETY: live handles.
            s.run(
                |ws, e| unsafe { aclnnMatmulGetWorkspaceSize(a.tensor, view, out.tensor, 0, ws, e) },
                aclnnMatmul,
            );
        }
        let seconds = begin.elapsed().as_secs_f64() / f64::from(times);
        println!("[{m}, {k}] x [{n}, {k}]^T: {:.1} GFLOP/s", 2.0 * (m * k * n) as f64 / seconds / 1e9);
        // SAFETY: a handle of our own.
        unsafe { aclDestroyTensor(view) };
    }
}
