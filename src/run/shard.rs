//! Cutting a plan into shards that run on several machines.
//!
//! Every shard computes the whole plan, so that identity and few-shot prompts are those of the unsharded run. Then it keeps
//! its own part. Items belong to a shard by a hash of task and document, so that neither order nor subjects decide. Timed
//! cases are dealt out by their work, the largest first, each to the shard with the least work so far. Both depend on the
//! plan only: measured speeds would give each machine another division.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use glmbench_device::Precision;
use glmbench_engine::config::ModelConfig;
use sha2::{Digest, Sha256};

use crate::record::{MOST_SHARDS, Places, ShardCase, ShardPart, Shards, grouped};
use crate::suite::Suite;

use super::cases::{Case, Sharded};
use super::duration::Counted;
use super::error::RunError;
use super::plan::Plan;

/// One of the shards of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Its number, from 1 to `count`.
    pub index: u32,
    /// Number of shards.
    pub count: u32,
}

impl Shard {
    /// Returns the shard with this number.
    ///
    /// # Errors
    /// A message: the number is 0 or above the count, or the count is 0 or too large.
    pub fn new(index: u32, count: u32) -> Result<Self, String> {
        if count == 0 || count > MOST_SHARDS {
            return Err(format!("found {count} shards; expected 1 to {MOST_SHARDS}"));
        }
        if index == 0 || index > count {
            return Err(format!("found shard {index} of {count}; shards are numbered from 1 to {count}"));
        }
        Ok(Self { index, count })
    }

    /// Whether an item belongs to the shard. The hash is SHA-256 over the task's length, task and document. Its first
    /// 8 bytes, big-endian, modulo the number of shards give the shard.
    pub fn has(self, task: &str, doc_id: &str) -> bool {
        let mut digest = Sha256::new();
        digest.update((task.len() as u64).to_le_bytes());
        digest.update(task);
        digest.update(doc_id);
        let first =
            digest.finalize().iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        first % u64::from(self.count) == u64::from(self.index - 1)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // As it is printed: no sign, no zeros before it.
        let plain = |text: &str| text.parse().ok().filter(|number: &u32| number.to_string() == text);
        let numbers = || {
            let (index, count) = text.split_once('/')?;
            Some((plain(index)?, plain(count)?))
        };
        let (index, count) =
            numbers().ok_or_else(|| format!("found `{text}`; expected a shard such as 3/16"))?;
        Self::new(index, count)
    }
}

impl Plan<'_> {
    /// Keeps one shard of the plan. Capacities stay those of the whole plan, so that a search for the largest batch finds the
    /// same bounds as in the unsharded run.
    ///
    /// # Errors
    /// [`RunError::Suite`] if two timed cases have one name, or if accuracy cases of one number of ranks do not stand together.
    /// A shard without items of some tasks would run the others in another order.
    pub fn keep_shard(
        &mut self,
        shard: Shard,
        suite: &Suite,
        config: &ModelConfig,
        precision: Precision,
        operators: bool,
    ) -> Result<(), RunError> {
        let refuse = |problem: String| Err(RunError::Suite { suite: suite.path.clone(), problem });
        let mut ranks: Vec<usize> = self.accuracy.iter().map(|run| run.tp).collect();
        ranks.dedup();
        if ranks.len() > ranks.iter().collect::<BTreeSet<_>>().len() {
            return refuse(format!(
                "found accuracy cases on {ranks:?} ranks in this order; shards need those of one number together"
            ));
        }
        let mut whole = self.record(suite, config, precision);
        whole.operators = operators && !whole.performance.is_empty();
        let input_hashes = self.input_hashes();
        let counted = Counted { config, precision, step_tokens: self.step_tokens() };
        let case = |case: &&dyn Case| ShardCase { id: case.id(), work: case.work(counted) };
        let mut cases: Vec<ShardCase> = self.timed().iter().map(case).collect();
        sort_for_dealing(&mut cases);
        if let Some(pair) = cases.windows(2).find(|pair| pair[0].id == pair[1].id) {
            let problem =
                format!("two timed cases are called {}; a shard could not tell them apart", pair[0].id);
            return refuse(problem);
        }
        let own = dealt(&cases, shard);
        self.retain_timed(&|id| own.contains_key(id));
        let mut items = BTreeMap::new();
        for run in &mut self.accuracy {
            let plan = run.evaluation.plan();
            run.own.retain(|&index| shard.has(&run.task, &plan.item(index).doc_id));
            items.insert(run.task.clone(), Places::of(run.own.iter().copied()));
        }
        let cases = own.into_iter().map(|(id, work)| ShardCase { id, work }).collect();
        let part = ShardPart { index: shard.index, items, cases, origin: None };
        let shards =
            Shards { count: shard.count, plan_hash: whole.hash(), whole: Some(whole), parts: vec![part] };
        self.sharded = Some(Sharded { shards, input_hashes });
        Ok(())
    }

    /// Returns the plan's shard, as kept in `run.json`; `None` for a whole plan.
    pub fn shards(&self) -> Option<Shards> {
        self.sharded.as_ref().map(|sharded| sharded.shards.clone())
    }

    /// Returns the shard; `None` for a whole plan.
    pub fn shard(&self) -> Option<Shard> {
        let shards = &self.sharded.as_ref()?.shards;
        Some(Shard { index: shards.parts.first()?.index, count: shards.count })
    }

    /// Returns what the name of a run directory says of its shard: `-3of16`.
    pub(super) fn shard_suffix(&self) -> String {
        self.shard().map_or_else(String::new, |shard| format!("-{}of{}", shard.index, shard.count))
    }

    /// Describes the shard's share of the plan: `shard 3 of 16: 84 of 1,346 items, 2 of 30 timed cases`.
    pub fn share_words(&self) -> Option<String> {
        let shards = &self.sharded.as_ref()?.shards;
        let whole = shards.whole.as_ref()?;
        let mut words = Vec::new();
        let items: u64 = whole.accuracy.iter().map(|case| case.items).sum();
        if items > 0 {
            let own: usize = self.accuracy.iter().map(|run| run.own.len()).sum();
            words.push(format!("{} of {} items", grouped(own as u64), grouped(items)));
        }
        let cases = whole.timed_ids().len();
        if cases > 0 {
            let own = self.timed().len() as u64;
            words.push(format!("{} of {} timed cases", grouped(own), grouped(cases as u64)));
        }
        Some(format!("{}: {}", shards.words(), words.join(", ")))
    }
}

/// Sorts cases by falling work, and equal ones by name.
fn sort_for_dealing(cases: &mut [ShardCase]) {
    cases.sort_unstable_by(|a, b| b.work.cmp(&a.work).then_with(|| a.id.cmp(&b.id)));
}

/// Deals cases out, which are sorted by falling work, and returns those of `shard`, by name with their work. Each goes to
/// the shard with the least work so far, the first of equal ones.
fn dealt(cases: &[ShardCase], shard: Shard) -> BTreeMap<String, u64> {
    use std::cmp::Reverse;
    let mut loads: std::collections::BinaryHeap<Reverse<(u128, u32)>> =
        (1..=shard.count).map(|index| Reverse((0, index))).collect();
    let mut own = BTreeMap::new();
    for ShardCase { id, work } in cases {
        let Some(Reverse((load, index))) = loads.pop() else { break };
        if index == shard.index {
            own.insert(id.clone(), *work);
        }
        // A case without known work still takes a place.
        loads.push(Reverse((load + u128::from(*work).max(1), index)));
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_share_of_an_item_is_fixed() {
        // printf '\x05\0\0\0\0\0\0\0cevalval-7' | sha256sum
        let digest = Sha256::digest(b"\x05\0\0\0\0\0\0\0cevalval-7");
        let first = u64::from_be_bytes(digest[..8].try_into().unwrap());
        let index = (first % 16) as u32 + 1;
        assert!(Shard { index, count: 16 }.has("ceval", "val-7"));
    }

    proptest! {
        #[test]
        fn each_item_and_case_has_one_shard(
            docs in prop::collection::vec(".*", 1..20), count in 1_u32..9, works in prop::collection::vec(0_u64..50, 0..30),
        ) {
            for doc in &docs {
                let owners = (1..=count).filter(|&index| Shard { index, count }.has("t", doc)).count();
                prop_assert_eq!(owners, 1);
            }
            let case = |(work, id): (&u64, i32)| ShardCase { id: format!("c{id}"), work: *work };
            let mut cases: Vec<ShardCase> = works.iter().zip(0..).map(case).collect();
            sort_for_dealing(&mut cases);
            let parts: Vec<BTreeMap<String, u64>> = (1..=count).map(|index| dealt(&cases, Shard { index, count })).collect();
            prop_assert_eq!(parts.iter().map(BTreeMap::len).sum::<usize>(), cases.len());
            // The largest case comes first: no shard has more than the fair share and one case.
            let total: u64 = works.iter().map(|work| (*work).max(1)).sum();
            let largest = works.iter().max().copied().unwrap_or(0).max(1);
            for part in parts {
                let load: u64 = part.values().map(|work| (*work).max(1)).sum();
                prop_assert!(load <= total.div_ceil(u64::from(count)) + largest);
            }
        }
    }
}
