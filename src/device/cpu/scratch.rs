//! Working memory of products that do not read the activations as they are: a block of rows in the form that the kernels
//! want, and each thread's sums.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytemuck::Pod;

use crate::device::DeviceError;

use super::buffer::Buffer;
use super::int8::Scaled;
use super::tiles::{BLOCK_BYTES, BLOCK_ROWS, ROOM_SUMS};

/// What the memory is for.
const WHAT: &str = "activations as the products want them";

/// What the products of a device share; taken while the weights are loaded.
#[derive(Debug)]
pub struct Scratch {
    /// A block of rows, in tiles or one after the other.
    pub rows: Buffer<u8>,
    /// Scales and sums of the rows, where they are integers.
    pub scaled: Buffer<Scaled>,
    rooms: Vec<Mutex<Room>>,
    threads: usize,
}

/// A thread's working memory.
#[derive(Debug)]
pub struct Room {
    /// Numbers of 32 bits.
    sums: Buffer<u32>,
    /// A step's panels of a block of depth, cut into parts.
    parts: Buffer<u8>,
}

impl Room {
    /// Room for [`ROOM_SUMS`] sums, and for a step's panels of a block of depth.
    pub fn parts<C: Pod>(&mut self) -> (&mut [C], &mut [u8]) {
        (bytemuck::cast_slice_mut(&mut self.sums), &mut self.parts)
    }
}

impl Scratch {
    /// Room for nothing, for so many threads.
    pub fn new(threads: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            rows: Buffer::zeroed(0, WHAT)?,
            scaled: Buffer::zeroed(0, WHAT)?,
            rooms: Vec::new(),
            threads,
        })
    }

    /// Makes room for a block of rows of so many bytes each; what was in it is lost.
    pub fn reserve(&mut self, row_bytes: usize) -> Result<(), DeviceError> {
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

    /// Bytes that it takes for rows of so many bytes each.
    pub fn bytes(row_bytes: usize, threads: usize) -> usize {
        BLOCK_ROWS * (row_bytes + size_of::<Scaled>())
            + threads * (ROOM_SUMS * size_of::<u32>() + BLOCK_BYTES)
    }

    /// A thread's working memory.
    pub fn room(&self, thread: usize) -> MutexGuard<'_, Room> {
        self.rooms[thread].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
