//! Which shard a process runs: by the command line, a Slurm array, or a Kubernetes Indexed Job.

use std::str::FromStr;

use super::shard::Shard;

/// What a command line says of shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShardChoice {
    /// Nothing: the environment of an array or of an indexed job decides.
    #[default]
    Unsaid,
    /// The whole plan, whatever the environment says.
    Whole,
    /// The environment's index in this many shards.
    Of(u32),
    /// This shard.
    Is(Shard),
}

impl FromStr for ShardChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::Whole),
            "auto" => Ok(Self::Unsaid),
            _ => match text.strip_prefix("auto/") {
                Some(count) => {
                    let count = count.parse().map_err(|_| format!("found `{text}`; expected auto/16"))?;
                    Shard::new(1, count).map(|shard| Self::Of(shard.count))
                }
                None => text
                    .parse()
                    .map(Self::Is)
                    .map_err(|error| format!("{error} (also known: auto/16 and none)")),
            },
        }
    }
}

/// Where a shard's number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShardSource {
    /// The command line.
    Flag,
    /// `SLURM_ARRAY_TASK_ID`.
    Slurm,
    /// `JOB_COMPLETION_INDEX`.
    Kubernetes,
}

impl ShardSource {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flag => "--shard",
            Self::Slurm => "SLURM_ARRAY_TASK_ID",
            Self::Kubernetes => "JOB_COMPLETION_INDEX",
        }
    }
}

const OUT: &str = "--shard none runs the whole plan";

/// The numbers of a Slurm array: `SLURM_ARRAY_TASK_ID` and `_COUNT`, `_MIN`, `_MAX`, `_STEP`.
struct SlurmTask {
    id: u32,
    count: Option<u32>,
    min: u32,
    max: Option<u32>,
    step: u32,
}

type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

fn number(of: Variables<'_>, name: &str) -> Result<Option<u32>, String> {
    let Some(text) = of(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("{name} is `{text}`; expected a number; {OUT}"))
}

impl SlurmTask {
    fn read(of: Variables<'_>) -> Result<Option<Self>, String> {
        let Some(id) = number(of, "SLURM_ARRAY_TASK_ID")? else { return Ok(None) };
        let count = number(of, "SLURM_ARRAY_TASK_COUNT")?;
        // The only task is the first, whatever its number.
        let least = if count == Some(1) { id } else { 0 };
        Ok(Some(Self {
            id,
            count,
            min: number(of, "SLURM_ARRAY_TASK_MIN")?.unwrap_or(least),
            max: number(of, "SLURM_ARRAY_TASK_MAX")?,
            step: number(of, "SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1),
        }))
    }

    /// Returns the task's shard. An array may begin at any number and count in steps; with gaps, its numbers do not tell
    /// how many shards there are.
    fn shard(&self) -> Result<Shard, String> {
        let Some(count) = self.count else {
            return Err(format!(
                "SLURM_ARRAY_TASK_ID is {} and SLURM_ARRAY_TASK_COUNT is not set; give --shard {}/N; {OUT}",
                self.id, self.id
            ));
        };
        let last = u64::from(self.min) + u64::from(count.max(1) - 1) * u64::from(self.step);
        let is_even = self.max.is_none_or(|max| u64::from(max) == last);
        let place = self.id.checked_sub(self.min).filter(|place| place.is_multiple_of(self.step));
        match place.filter(|_| is_even) {
            Some(place) => Shard::new((place / self.step).saturating_add(1), count)
                .map_err(|why| format!("the Slurm array: {why}")),
            None => Err(format!(
                "the Slurm array has {count} tasks with gaps (task {}, from {} in steps of {}), so it does not say which shard \
                 this is; give --shard K/N, such as --shard \"$SLURM_ARRAY_TASK_ID/16\"; {OUT}",
                self.id, self.min, self.step
            )),
        }
    }

    /// Whether the task may be this shard: by its place in the array, or by its number counted from 1 or from 0. The
    /// number counts if a few tasks of a larger array are submitted again.
    fn may_be(&self, shard: Shard) -> bool {
        match self.shard() {
            Ok(own) if own.count == shard.count => own == shard,
            _ => self.id == shard.index || self.id.checked_add(1) == Some(shard.index),
        }
    }
}

impl ShardChoice {
    /// Returns the shard to run with its source; `None` for the whole plan. `variables` reads the environment: of a task
    /// of a Slurm array, or of a pod of a Kubernetes Indexed Job. A pod does not know how many there are.
    ///
    /// # Errors
    /// A message: sources contradict each other, or the number of shards is unknown.
    pub fn resolve(
        self,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<(Shard, ShardSource)>, String> {
        if self == Self::Whole {
            return Ok(None);
        }
        let slurm = SlurmTask::read(variables)?;
        let pod = number(variables, "JOB_COMPLETION_INDEX")?;
        if let Self::Is(shard) = self {
            if let Some(task) = slurm.as_ref().filter(|task| !task.may_be(shard)) {
                return Err(format!(
                    "--shard {shard} contradicts task {} of the Slurm array ({}); give one of them, or unset SLURM_ARRAY_TASK_ID",
                    task.id,
                    task.shard().map_or_else(|_| "with gaps".into(), |own| format!("shard {own}")),
                ));
            }
            if let Some(pod) = pod.filter(|pod| pod.checked_add(1) != Some(shard.index)) {
                return Err(format!(
                    "--shard {shard} contradicts JOB_COMPLETION_INDEX {pod}, which counts from 0; give --shard auto/{}",
                    shard.count
                ));
            }
            return Ok(Some((shard, ShardSource::Flag)));
        }
        let asked = if let Self::Of(count) = self { Some(count) } else { None };
        let of_slurm = slurm.as_ref().map(SlurmTask::shard).transpose()?;
        if let (Some(own), Some(count)) =
            (of_slurm, asked.filter(|count| of_slurm.is_some_and(|own| own.count != *count)))
        {
            return Err(format!(
                "--shard auto/{count} contradicts the Slurm array of {} tasks; give --shard K/{count}",
                own.count
            ));
        }
        match (of_slurm, pod) {
            (Some(own), Some(pod)) if pod.checked_add(1) != Some(own.index) => Err(format!(
                "SLURM_ARRAY_TASK_ID says shard {own} and JOB_COMPLETION_INDEX {pod} says shard {}; give --shard K/N",
                pod.saturating_add(1)
            )),
            (Some(own), _) if own.count == 1 && asked.is_none() => Ok(None),
            (Some(own), _) => Ok(Some((own, ShardSource::Slurm))),
            (None, Some(pod)) => match asked {
                Some(count) => Shard::new(pod.saturating_add(1), count)
                    .map(|shard| Some((shard, ShardSource::Kubernetes)))
                    .map_err(|why| format!("JOB_COMPLETION_INDEX {pod}: {why}")),
                None => Err(format!(
                    "JOB_COMPLETION_INDEX is {pod} and nothing says how many shards there are; give --shard auto/N; {OUT}"
                )),
            },
            (None, None) => match asked {
                Some(count) => Err(format!(
                    "--shard auto/{count}: neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set; give --shard K/{count}"
                )),
                None => Ok(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(choice: &str, variables: &[(&str, &str)]) -> Result<Option<(u32, u32)>, String> {
        let choice = if choice.is_empty() { ShardChoice::Unsaid } else { choice.parse()? };
        let of =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Ok(choice.resolve(&of)?.map(|(shard, _)| (shard.index, shard.count)))
    }

    fn slurm<'a>(
        id: &'a str,
        count: &'a str,
        min: &'a str,
        max: &'a str,
        step: &'a str,
    ) -> [(&'a str, &'a str); 5] {
        [
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_COUNT", count),
            ("SLURM_ARRAY_TASK_MIN", min),
            ("SLURM_ARRAY_TASK_MAX", max),
            ("SLURM_ARRAY_TASK_STEP", step),
        ]
    }

    #[test]
    fn a_shard_is_taken_from_flag_or_environment() {
        assert_eq!(resolve("", &[]), Ok(None));
        assert_eq!(resolve("3/16", &[]), Ok(Some((3, 16))));
        // Arrays begin anywhere and count in steps.
        assert_eq!(resolve("", &slurm("0", "4", "0", "3", "1")), Ok(Some((1, 4))));
        assert_eq!(resolve("", &slurm("16", "16", "1", "16", "1")), Ok(Some((16, 16))));
        assert_eq!(resolve("", &slurm("14", "3", "10", "14", "2")), Ok(Some((3, 3))));
        assert_eq!(resolve("auto/4", &slurm("0", "4", "0", "3", "1")), Ok(Some((1, 4))));
        // A job that is no array, or one of a single task.
        assert_eq!(resolve("", &slurm("7", "1", "7", "7", "1")), Ok(None));
        assert_eq!(resolve("", &slurm("7", "1", "", "", "")), Ok(None));
        for bad in ["+1/3", "01/3", "1/03", "1/+3", " 1/3"] {
            assert!(resolve(bad, &[]).is_err(), "{bad}");
        }
        assert_eq!(resolve("none", &slurm("2", "4", "0", "3", "1")), Ok(None));
        assert_eq!(resolve("auto/8", &[("JOB_COMPLETION_INDEX", "0")]), Ok(Some((1, 8))));
        // Both agree.
        assert_eq!(resolve("3/4", &slurm("2", "4", "0", "3", "1")), Ok(Some((3, 4))));
        assert_eq!(resolve("3/4", &[("JOB_COMPLETION_INDEX", "2")]), Ok(Some((3, 4))));
        // Tasks 3 and 7 of 16, submitted again.
        assert_eq!(resolve("7/16", &slurm("7", "2", "3", "7", "1")), Ok(Some((7, 16))));
        assert_eq!(resolve("8/16", &slurm("7", "2", "3", "7", "1")), Ok(Some((8, 16))));
    }

    #[test]
    fn contradictions_say_what_was_found_and_what_to_do() {
        let refused = |choice: &str, variables: &[(&str, &str)]| resolve(choice, variables).unwrap_err();
        for (choice, variables, says) in [
            ("4/4", &slurm("2", "4", "0", "3", "1")[..], "contradicts task 2 of the Slurm array (shard 3/4)"),
            ("9/16", &slurm("7", "2", "3", "7", "1"), "contradicts task 7"),
            ("", &slurm("7", "2", "3", "7", "1"), "with gaps"),
            ("", &slurm("5", "3", "1", "9", "3"), "with gaps"),
            ("auto/8", &slurm("2", "4", "0", "3", "1"), "contradicts the Slurm array of 4 tasks"),
            ("", &[("SLURM_ARRAY_TASK_ID", "2")], "SLURM_ARRAY_TASK_COUNT is not set"),
            ("", &[("SLURM_ARRAY_TASK_ID", "two")], "is `two`; expected a number"),
            ("", &[("JOB_COMPLETION_INDEX", "2")], "give --shard auto/N"),
            ("auto/2", &[("JOB_COMPLETION_INDEX", "2")], "found shard 3 of 2"),
            ("4/4", &[("JOB_COMPLETION_INDEX", "2")], "contradicts JOB_COMPLETION_INDEX 2"),
            ("auto/4", &[], "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set"),
        ] {
            let message = refused(choice, variables);
            assert!(message.contains(says), "{choice} {variables:?}: {message}");
        }
        let mut both = slurm("2", "4", "0", "3", "1").to_vec();
        both.push(("JOB_COMPLETION_INDEX", "1"));
        assert!(refused("", &both).contains("JOB_COMPLETION_INDEX 1 says shard 2"));
        for bad in ["0/4", "5/4", "1/0", "1/65536", "3", "a/b", "-1/4", "1/2/3", "auto/0", "auto/x"] {
            assert!(bad.parse::<ShardChoice>().is_err(), "{bad}");
        }
    }
}
