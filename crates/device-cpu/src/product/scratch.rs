//! Workspace of products that first convert the activations: a block of rows in the form that the kernels need, and the
//! sums of each thread.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

use glmbench_device::DeviceError;

use crate::buffer::Buffer;
use crate::pack::quantise::Scaled;

use super::tiles::{BLOCK_BYTES, BLOCK_ROWS, ROOM_SUMS};

/// Purpose of the memory, for errors.
const WHAT: &str = "activations as the products want them";

/// The shared workspace of all products of a device. Allocated while the weights are loaded.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// A block of rows, in tiles or row by row.
    pub(crate) rows: Buffer<u8>,
    /// Scales and sums of the rows, if they are integers.
    pub(crate) scaled: Buffer<Scaled>,
    rooms: Vec<Mutex<Room>>,
    threads: usize,
}

/// The workspace of one thread.
#[derive(Debug)]
pub(crate) struct Room {
    /// Sums, as 32-bit numbers.
    sums: Buffer<u32>,
    /// The panels of one step over a block of depth, split into bf16 parts.
    parts: Buffer<u8>,
}

impl Room {
    /// Returns space for [`ROOM_SUMS`] sums, and for the panels of one step over a block of depth.
    pub(crate) fn parts<C: Pod>(&mut self) -> (&mut [C], &mut [u8]) {
        (bytemuck::cast_slice_mut(&mut self.sums), &mut self.parts)
    }
}

impl Scratch {
    /// Creates an empty workspace for `threads` threads.
    pub(crate) fn new(threads: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            rows: Buffer::zeroed(0, WHAT)?,
            scaled: Buffer::zeroed(0, WHAT)?,
            rooms: Vec::new(),
            threads,
        })
    }

    /// Reserves space for a block of rows of `row_bytes` each. Growing discards the contents.
    pub(crate) fn reserve(&mut self, row_bytes: usize) -> Result<(), DeviceError> {
        if self.rows.len() < BLOCK_ROWS * row_bytes {
            self.rows = Buffer::zeroed(BLOCK_ROWS * row_bytes, WHAT)?;
        }
        if self.rooms.is_empty() {
            self.scaled = Buffer::zeroed(BLOCK_ROWS, WHAT)?;
            let room = || {
                let sums = Buffer::zeroed(ROOM_SUMS, WHAT)?;
                Ok(Mutex::new(Room { sums, parts: Buffer::zeroed(BLOCK_BYTES, WHAT)? }))
            };
            self.rooms = (0..self.threads).map(|_| room()).collect::<Result<_, DeviceError>>()?;
        }
        Ok(())
    }

    /// Returns the size in bytes of a workspace for rows of `row_bytes` each.
    pub(crate) fn bytes(row_bytes: usize, threads: usize) -> usize {
        BLOCK_ROWS * (row_bytes + size_of::<Scaled>())
            + threads * (ROOM_SUMS * size_of::<u32>() + BLOCK_BYTES)
    }

    /// Locks and returns a thread's workspace.
    pub(crate) fn room(&self, thread: usize) -> MutexGuard<'_, Room> {
        self.rooms[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
