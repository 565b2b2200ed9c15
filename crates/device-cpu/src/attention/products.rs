//! The products that attention needs: one block of the cache with a chunk of rows.

use std::fmt::Debug;
use std::ops::Range;

use crate::buffer::prefetch;

use super::kv::Panels;
use super::softmax::Weights;
use super::sums::Strips;

/// One block of the cache for one KV head.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block<'a> {
    /// The keys.
    pub keys: Panels<'a>,
    /// The values.
    pub values: Panels<'a>,
    /// Tokens of the block that the last row of the item sees, at least one.
    pub tokens: usize,
    /// Whether values after the tokens count as zeros, whatever the block holds there.
    pub clears_after: bool,
}

/// Rows of an item that are processed together, at most [`super::CHUNK_ROWS`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    /// The first row, a multiple of [`super::CHUNK_ROWS`].
    pub first: usize,
    /// Number of rows.
    pub rows: usize,
    /// Number of rows in the item.
    pub of: usize,
}

impl Chunk {
    /// Returns whether this is the item's first chunk.
    pub(super) fn is_first(self) -> bool {
        self.first == 0
    }

    /// Returns whether the item has no other chunk.
    pub(super) fn is_only(self) -> bool {
        self.rows == self.of
    }
}

/// An implementation of the products, with the workspace of a thread. Of an item and a block, the chunks come in their order: the
/// first one may leave the block in another form for the others.
pub(super) trait Products: Debug + Send {
    /// Returns the layout of the scores of a chunk of `rows` rows.
    fn score_strips(&self, rows: usize) -> Strips;

    /// Returns the layout of the weighted values of such a chunk, with `width` numbers per row.
    fn value_strips(&self, rows: usize, width: usize) -> Strips;

    /// Stores a row's query for the following products.
    fn take_query(&mut self, row: usize, query: &[f32]);

    /// Computes the scores of the tokens in the block: the chunk's queries times keys. Scores after those tokens are
    /// unspecified.
    fn score(&mut self, block: &Block<'_>, chunk: Chunk, scores: &mut [f32], ahead: &mut Ahead<'_>);

    /// Returns the destination of the weights for `rows` of the chunk, at most sixteen, which begin at a multiple
    /// of sixteen.
    fn weights(&mut self, rows: Range<usize>) -> Weights<'_>;

    /// Adds the weighted values of the block to the chunk's sums. The weights are where [`Self::weights`] directed
    /// them, or in place of the scores. Weights after a row's tokens are zero, up to a whole tile.
    fn weigh(
        &mut self,
        block: &Block<'_>,
        chunk: Chunk,
        scores: &[f32],
        sums: &mut [f32],
        ahead: &mut Ahead<'_>,
    );

    /// Returns whether values after the first `tokens` tokens are multiplied too, by the weight zero, and need not be finite.
    fn reads_after(&self, _tokens: usize) -> bool {
        false
    }

    /// Ends the item.
    fn end(&mut self);
}

/// The data that is read next, prefetched in small shares during the computation. This keeps memory busy throughout and
/// rarely exceeds the number of requests that it can have in flight.
#[derive(Debug)]
pub(super) struct Ahead<'a> {
    next: Option<Block<'a>>,
    rest: [&'a [u8]; 6],
    share: usize,
}

impl<'a> Ahead<'a> {
    /// Prepares to prefetch a block, if there is one, in `calls` calls.
    pub(super) fn new(block: Option<Block<'a>>, calls: usize) -> Self {
        let [keys, values] = block.map_or([[&[][..]; 3]; 2], |b| [b.keys.bytes(), b.values.bytes()]);
        let rest = [keys[0], keys[1], keys[2], values[0], values[1], values[2]];
        let all: usize = rest.iter().map(|b| b.len()).sum();
        Self { next: block, rest, share: all.div_ceil(calls).next_multiple_of(64) }
    }

    /// Returns the next block, for products that prefetch it themselves: it is no longer fetched in shares.
    pub(super) fn take(&mut self) -> Option<Block<'a>> {
        self.rest = Default::default();
        self.next
    }

    /// Prefetches one share.
    #[inline]
    pub(super) fn fetch(&mut self) {
        if let Some(rest) = self.rest.iter_mut().find(|rest| !rest.is_empty()) {
            let (share, later) = rest.split_at(self.share.min(rest.len()));
            prefetch(share);
            *rest = later;
        }
    }
}
