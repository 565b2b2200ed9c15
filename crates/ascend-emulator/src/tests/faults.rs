//! Injected faults.

use std::ptr::null_mut;

use super::session::{Array, Memory, Session, WORKSPACE, message};
use crate::copy::aclrtMemcpy;
use crate::half::DType::Float16;
use crate::memory::aclrtMalloc;
use crate::ops::elementwise::{aclnnMul, aclnnMulGetWorkspaceSize};
use crate::registry::with_device;

fn mul(s: &Session, a: &Array, out: &Array) -> i32 {
    let (mut size, mut executor) = (0, null_mut());
    // SAFETY: live handles.
    unsafe {
        let code = aclnnMulGetWorkspaceSize(a.tensor, a.tensor, out.tensor, &raw mut size, &raw mut executor);
        if code != 0 { code } else { aclnnMul(s.workspace(), WORKSPACE, executor, s.stream) }
    }
}

#[test]
fn the_nth_allocation_fails_and_the_next_succeeds() {
    let s = Session::new("fault = oom:2\nfault = oom:3");
    let first = Memory::new(10);
    let mut pointer = null_mut();
    for code in [207_001, 207_001, 0] {
        // SAFETY: a place for the pointer.
        assert_eq!(unsafe { aclrtMalloc(&raw mut pointer, 64, 0) }, code);
    }
    drop((first, Memory(pointer)));
    s.end();
}

#[test]
fn more_than_the_chip_has_is_out_of_memory() {
    let s = Session::new("mode = timing\nmemory_bytes = 1e9");
    let half = Memory::new(500_000_000);
    let mut pointer = null_mut();
    // SAFETY: a place for the pointer.
    assert_eq!(unsafe { aclrtMalloc(&raw mut pointer, 600_000_000, 0) }, 207_018);
    assert!(message().contains("600000000 bytes wanted"), "{}", message());
    drop(half);
    drop(Memory::new(600_000_000));
    s.end();
}

#[test]
fn a_lost_device_stays_lost() {
    for mode in ["compute", "timing"] {
        let s = Session::new(&format!("mode = {mode}\nfault = lost:2"));
        let (a, out) = (Array::new(Float16, &[16], &[1.0; 16]), Array::empty(Float16, &[16]));
        assert_eq!(mul(&s, &a, &out), 0);
        assert_eq!(s.sync(), 0);
        assert_eq!(mul(&s, &a, &out), 507_010);
        assert!(message().contains("device 0 is lost"));
        assert_eq!(mul(&s, &a, &out), 507_010);
        assert_eq!(s.sync(), 507_010);
        let mut byte = 0u8;
        // SAFETY: a byte on either side.
        assert_eq!(unsafe { aclrtMemcpy((&raw mut byte).cast(), 1, a.memory.0, 1, 2) }, 507_010);
        assert_eq!(with_device(|d| d.check_alive()).unwrap_err().code, 507_010);
    }
}

#[test]
fn a_hanging_operator_is_seen_at_the_synchronise() {
    for mode in ["compute", "timing"] {
        let s = Session::new(&format!("mode = {mode}\nfault = timeout:1"));
        let (a, out) = (Array::new(Float16, &[16], &[1.0; 16]), Array::empty(Float16, &[16]));
        assert_eq!(mul(&s, &a, &out), 0);
        assert_eq!(s.sync(), 507_014);
        assert!(message().contains("aclnnMul does not end"));
        assert_eq!(s.sync(), 507_014);
    }
}

#[test]
fn the_nth_result_of_an_operator_is_wrong_and_only_that() {
    let s = Session::new("fault = wrong:Mul:2");
    let (a, out) = (Array::new(Float16, &[16], &[2.0; 16]), Array::empty(Float16, &[16]));
    for wrong in [false, true, false] {
        assert_eq!(mul(&s, &a, &out), 0);
        assert_eq!(s.sync(), 0);
        assert_eq!(out.read() != [4.0; 16], wrong);
        assert_eq!(out.read()[0], if wrong { -9.0 } else { 4.0 });
    }
    drop((a, out));
    s.end();
}
