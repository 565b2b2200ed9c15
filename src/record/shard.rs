//! Shards: parts of a plan that run on their own, on several machines, and are merged afterwards.
//!
//! The record of a shard has the part of this shard as its plan. So reports, audits and resuming treat it as a run of fewer items
//! and cases. [`Shards`] beside it holds the whole plan. The identity is that of the whole plan.

mod origin;
mod places;

use super::plan::Plan;
use crate::language::{Text, joined, text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub use origin::{ALIKE_SHARE, ShardOrigin};
pub use places::Places;

/// Largest number of shards of a plan.
pub const MOST_SHARDS: u32 = 65_535;

/// The shards of a plan that a run has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shards {
    /// Number of shards of the plan.
    pub count: u32,
    /// [`Plan::hash`] of the whole plan.
    pub plan_hash: String,
    /// The whole plan. `None` if the run's own plan is the whole one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Plan>,
    /// The parts that the run has, by their number: one in the run of a shard, several in a merged run.
    pub parts: Vec<ShardPart>,
}

/// A part of a plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardPart {
    /// Number of the shard, from 1 to [`Shards::count`].
    pub index: u32,
    /// Places of its items among all items of their task, by task ([`Places`]). Empty in a merged run, which has the items in the
    /// plan's order.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub items: BTreeMap<String, Places>,
    /// Its timed cases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cases: Vec<ShardCase>,
    /// Where it ran. `None` in the run of a shard: its provenance says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<ShardOrigin>,
}

/// A timed case of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardCase {
    /// The case's name.
    pub id: String,
    /// Its work, in bytes of memory traffic ([`Places`] of items have none). Only sums and ratios of it have a meaning.
    pub work: u64,
}

impl Shards {
    /// Checks the numbers: loops and memory go by them.
    ///
    /// # Errors
    /// A message: there are no shards or too many, or a part's number is none of theirs or another part's, too.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MOST_SHARDS).contains(&self.count) {
            return Err(format!("found {} shards; expected 1 to {MOST_SHARDS}", self.count));
        }
        let mut seen = std::collections::BTreeSet::new();
        for ShardPart { index, .. } in &self.parts {
            if !(1..=self.count).contains(index) {
                return Err(format!(
                    "found shard {index} of {}; shards are numbered from 1 to {}",
                    self.count, self.count
                ));
            }
            if !seen.insert(index) {
                return Err(format!("found shard {index} twice; expected each once"));
            }
        }
        Ok(())
    }

    /// Returns the part with this number.
    pub fn part(&self, index: u32) -> Option<&ShardPart> {
        self.parts.iter().find(|part| part.index == index)
    }

    /// Returns the only part, if the run is that of a shard rather than a merged one.
    pub fn single(&self) -> Option<&ShardPart> {
        match self.parts.as_slice() {
            [part] if part.origin.is_none() => Some(part),
            _ => None,
        }
    }

    /// Returns the numbers of the parts that are whole, that are here in part, and that are missing.
    pub fn standing(&self) -> [Vec<u32>; 3] {
        let mut all = [Vec::new(), Vec::new(), Vec::new()];
        for index in 1..=self.count {
            let of = match self.part(index) {
                Some(part) if part.origin.as_ref().is_none_or(|origin| origin.complete) => 0,
                Some(_) => 1,
                None => 2,
            };
            all[of].push(index);
        }
        all
    }

    /// Describes what of the plan is here: `shard 3 of 16`, `14 of 16 shards (shard 7 in part, shard 9 missing)`, `16 shards
    /// merged`.
    pub fn words(&self) -> Text {
        if let Some(part) = self.single() {
            return text!("shard {index} of {count}", index = part.index, count = self.count);
        }
        let [whole, partial, missing] = self.standing();
        if whole.len() == self.count as usize {
            return text!("{count} shards merged", count = self.count);
        }
        let in_part = (!partial.is_empty()).then(|| text!("{shards} in part", shards = numbers(&partial)));
        let missing = (!missing.is_empty()).then(|| text!("{shards} missing", shards = numbers(&missing)));
        let lacking = joined(in_part.into_iter().chain(missing), ", ");
        text!("{whole} of {count} shards ({lacking})", whole = whole.len(), count = self.count, lacking)
    }

    /// Whether the run has the whole plan.
    pub fn is_whole(&self) -> bool {
        self.single().is_none() && self.standing()[0].len() == self.count as usize
    }

    /// Returns where a timed case of a merged run was timed.
    pub fn origin_of(&self, case_id: &str) -> Option<&ShardOrigin> {
        let part = self.parts.iter().find(|part| part.cases.iter().any(|case| case.id == case_id))?;
        part.origin.as_ref()
    }

    /// Returns the machines that timed cases, each with the names of its hosts, if they are of more than one kind.
    /// Their times must not be judged together.
    pub fn unlike_hosts(&self) -> Option<Vec<Vec<&str>>> {
        let kinds = self.kinds();
        (kinds.len() > 1).then(|| kinds.into_iter().map(|(_, hosts)| hosts).collect())
    }

    /// Describes how the kinds of machines that timed cases differ: `same host, bandwidth 1.7 and 2.3 GB/s`. `None` if they
    /// are of one kind.
    pub fn unlike_words(&self) -> Option<Text> {
        let kinds = self.kinds();
        let [(first, _), others @ ..] = kinds.as_slice() else { return None };
        let words: Vec<Text> = others.iter().map(|(other, _)| first.difference_words(other)).collect();
        (!words.is_empty()).then(|| joined(words, "; "))
    }

    /// Returns a machine of each kind that timed cases, with the names of all its hosts.
    fn kinds(&self) -> Vec<(&ShardOrigin, Vec<&str>)> {
        let timed = self.parts.iter().filter(|part| !part.cases.is_empty());
        let mut kinds: Vec<(&ShardOrigin, Vec<&str>)> = Vec::new();
        for origin in timed.filter_map(|part| part.origin.as_ref()) {
            match kinds.iter_mut().find(|(kind, _)| kind.is_like(origin)) {
                Some((_, hosts)) if hosts.contains(&origin.host.as_str()) => {}
                Some((_, hosts)) => hosts.push(&origin.host),
                None => kinds.push((origin, vec![&origin.host])),
            }
        }
        kinds
    }
}

/// Formats numbers of shards: `shard 3`, `shards 3, 5 and 7`, `shards 1, 2, 3 and 9 more`.
pub fn numbers(list: &[u32]) -> Text {
    const SHOWN: usize = 8;
    let shown: Vec<String> = list.iter().take(SHOWN).map(u32::to_string).collect();
    match (shown.as_slice(), list.len()) {
        ([], _) => text!("no shard"),
        ([one], _) => text!("shard {one}", one),
        (_, all) if all > SHOWN => {
            text!("shards {shown} and {more} more", shown = joined(&shown, ", "), more = all - SHOWN)
        }
        ([rest @ .., last], _) => text!("shards {rest} and {last}", rest = joined(rest, ", "), last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Roofline;

    #[test]
    fn a_run_says_what_it_has_of_the_plan() {
        let origin = |complete, host: &str, rate| ShardOrigin {
            run_id: "r".into(),
            complete,
            host: host.into(),
            cpu_model: "c".into(),
            kernel: "avx2".into(),
            threads: 2,
            governor: None,
            roofline: Some(Roofline { bandwidth_bytes_per_s: rate, peak_flops_per_s: 1e11, measured: None }),
            load: None,
            started: String::new(),
            finished: None,
            resumed: 0,
        };
        let part = |index, origin: Option<ShardOrigin>| ShardPart {
            index,
            cases: vec![ShardCase { id: format!("c{index}"), work: 1 }],
            origin,
            ..ShardPart::default()
        };
        let shards = |count, parts| Shards { count, plan_hash: "h".into(), whole: None, parts };
        let one = shards(16, vec![part(3, None)]);
        assert_eq!((one.words().to_string().as_str(), one.is_whole()), ("shard 3 of 16", false));
        let some = shards(
            4,
            vec![part(1, Some(origin(true, "a", 1e10))), part(2, Some(origin(false, "b", 1.05e10)))],
        );
        assert_eq!(some.words(), "1 of 4 shards (shard 2 in part, shards 3 and 4 missing)");
        assert_eq!((some.origin_of("c2").map(|o| o.host.as_str()), some.unlike_hosts()), (Some("b"), None));
        let all =
            shards(2, vec![part(1, Some(origin(true, "a", 1e10))), part(2, Some(origin(true, "b", 2e10)))]);
        assert_eq!((all.words().to_string().as_str(), all.is_whole()), ("2 shards merged", true));
        assert_eq!(all.unlike_hosts(), Some(vec![vec!["a"], vec!["b"]]));
        assert_eq!(
            all.unlike_words().as_ref().map(ToString::to_string).as_deref(),
            Some("a and b: bandwidth 10.0 and 20.0 GB/s")
        );
        // The same host, slower than before. Threads make no other machine.
        let slower = ShardOrigin { threads: 8, ..origin(true, "a", 1.7e9) };
        let again = shards(2, vec![part(1, Some(slower)), part(2, Some(origin(true, "a", 2.3e9)))]);
        assert_eq!(
            again.unlike_words().as_ref().map(ToString::to_string).as_deref(),
            Some("same host, bandwidth 1.7 and 2.3 GB/s")
        );
        let threads = ShardOrigin { threads: 8, ..origin(true, "a", 1e10) };
        assert!(threads.is_like(&origin(true, "a", 1e10)));
        // Without measured limits they may.
        let unmeasured = ShardOrigin { roofline: None, ..origin(true, "a", 1e10) };
        assert!(unmeasured.is_like(&origin(true, "a", 1e10)) && !unmeasured.is_like(&threads));
        for (count, index) in [(0, 1), (u32::MAX, 1), (3, 0), (3, 9)] {
            assert!(shards(count, vec![part(index, None)]).check().is_err(), "{index} of {count}");
        }
        assert!(shards(3, vec![part(2, None), part(2, None)]).check().is_err());
        assert_eq!(shards(3, vec![part(1, None), part(3, None)]).check(), Ok(()));
        let sole = shards(1, vec![part(1, Some(origin(true, "a", 1e10)))]);
        assert!(sole.is_whole());
    }
}
