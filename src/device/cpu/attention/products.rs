//! What attention asks of the kernels that multiply: the products of one block of the cache with a chunk of rows.

use std::fmt::Debug;

use crate::device::cpu::buffer::prefetch;
use crate::device::cpu::kv::Panels;
use crate::device::cpu::softmax::Weights;

use super::sums::Strips;

/// A block of the cache, as one KV head has it.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Its keys.
    pub keys: Panels<'a>,
    /// Its values.
    pub values: Panels<'a>,
    /// Tokens of it that the item's last row sees, one at least.
    pub tokens: usize,
}

/// Rows of an item that are done together, [`super::CHUNK_ROWS`] at most.
#[derive(Debug, Clone, Copy)]
pub struct Chunk {
    /// The first of them, a multiple of [`super::CHUNK_ROWS`].
    pub first: usize,
    /// How many.
    pub rows: usize,
    /// Rows of the item.
    pub of: usize,
}

/// A way to compute products of blocks, with a thread's working memory.
pub trait Products: Debug + Send {
    /// How the scores of a chunk of `rows` rows lie.
    fn score_strips(&self, rows: usize) -> Strips;

    /// How the weighted values of such a chunk lie, `width` numbers a row.
    fn value_strips(&self, rows: usize, width: usize) -> Strips;

    /// Takes a row's query, for the products to come.
    fn take_query(&mut self, row: usize, query: &[f32]);

    /// Scores of the block's tokens: the chunk's queries times keys. What stands behind the block's tokens has no meaning.
    fn score(&mut self, block: &Block<'_>, chunk: Chunk, scores: &mut [f32], ahead: &mut Ahead<'_>);

    /// Where the weights of a chunk's row go.
    fn weights(&mut self, row: usize) -> Weights;

    /// Adds the block's values, weighted, to the chunk's sums. The weights are where [`Self::weights`] said, or else in place of
    /// the scores; they are zero behind a row's tokens, up to a whole tile.
    fn weigh(
        &mut self,
        block: &Block<'_>,
        chunk: Chunk,
        scores: &[f32],
        sums: &mut [f32],
        ahead: &mut Ahead<'_>,
    );

    /// The item is done.
    fn end(&mut self);
}

/// What will be read next, asked for little by little while there is something to compute: so memory is at work all the time,
/// and what it can have under way at once is never exceeded for long.
#[derive(Debug)]
pub struct Ahead<'a> {
    rest: [&'a [u8]; 4],
    share: usize,
}

impl<'a> Ahead<'a> {
    /// A block, or nothing, in so many calls.
    pub fn new(block: Option<Block<'a>>, calls: usize) -> Self {
        let [keys, values] = block.map_or([[&[][..]; 2]; 2], |b| [b.keys.bytes(), b.values.bytes()]);
        let rest = [keys[0], keys[1], values[0], values[1]];
        let all: usize = rest.iter().map(|b| b.len()).sum();
        Self { rest, share: all.div_ceil(calls).next_multiple_of(64) }
    }

    /// Asks for a share.
    #[inline]
    pub fn fetch(&mut self) {
        if let Some(rest) = self.rest.iter_mut().find(|rest| !rest.is_empty()) {
            let (share, later) = rest.split_at(self.share.min(rest.len()));
            prefetch(share);
            *rest = later;
        }
    }
}
