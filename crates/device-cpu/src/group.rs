//! The CPU as several ranks: groups of cores, each with its own threads, that all-reduce through shared memory.

use std::sync::{Arc, Mutex, PoisonError};

use glmbench_device::DeviceError;
use glmbench_device::affinity::{BOUND, NOT_BOUND, bind_current_thread, core_groups, core_list};
use glmbench_device::group::{DeviceGroup, HostSum};

use super::{Cpu, CpuOptions, Packs};

/// A group of ranks on groups of cores.
#[derive(Debug)]
pub struct CpuGroup {
    options: CpuOptions,
    tp: usize,
    /// The cores of each rank, if ranks are to be bound.
    cores: Option<Result<Vec<Vec<usize>>, String>>,
    sum: Arc<HostSum>,
    /// The packed weights of each rank, taken when its device is created.
    packs: Vec<Mutex<Packs>>,
}

impl CpuGroup {
    /// Creates `tp` ranks that share `options.threads` threads evenly, at least one each. `options.attention` is the
    /// shape of one rank. With `bind`, each rank's threads are bound to their own cores. If that fails,
    /// [`DeviceInfo::details`](glmbench_device::DeviceInfo::details) has the reason.
    pub fn new(options: CpuOptions, tp: usize, bind: bool) -> Self {
        let cores = bind.then(|| core_groups(tp));
        Self { options, tp, cores, sum: HostSum::new(crate::NAME, tp), packs: Vec::new() }
    }

    /// Returns the group with packed weights that outlive the process, rank by rank.
    #[must_use]
    pub fn with_packs(self, packs: Vec<Packs>) -> Self {
        Self { packs: packs.into_iter().map(Mutex::new).collect(), ..self }
    }

    fn threads(&self, rank: usize) -> usize {
        let until = |rank: usize| self.options.threads * rank / self.tp;
        (until(rank + 1) - until(rank)).max(1)
    }

    /// Returns the cores of a rank; empty if it is not bound.
    fn cores_of(&self, rank: usize) -> &[usize] {
        self.cores.as_ref().and_then(|groups| groups.as_ref().ok()).map_or(&[], |groups| &groups[rank])
    }

    /// Binds the calling thread, whose affinity the rank's other threads inherit. Returns an entry for the details.
    fn bind(&self, rank: usize) -> Option<(String, String)> {
        let detail = |name: &str, value: String| Some((name.to_owned(), value));
        match self.cores.as_ref()? {
            Ok(groups) => match bind_current_thread(&groups[rank]) {
                Ok(()) => detail(BOUND, core_list(&groups[rank])),
                Err(reason) => detail(NOT_BOUND, reason),
            },
            Err(reason) => detail(NOT_BOUND, reason.clone()),
        }
    }
}

impl DeviceGroup for CpuGroup {
    type Device = Cpu;

    fn name(&self) -> &'static str {
        crate::NAME
    }

    fn tp(&self) -> usize {
        self.tp
    }

    fn device(&self, rank: usize) -> Result<Cpu, DeviceError> {
        let details = self.bind(rank);
        let options = CpuOptions { threads: self.threads(rank), ..self.options };
        let mut cpu = Cpu::on_cores(options, self.cores_of(rank))?;
        cpu.details.extend(details);
        if let Some(packs) = self.packs.get(rank) {
            cpu = cpu.with_packs(std::mem::take(&mut packs.lock().unwrap_or_else(PoisonError::into_inner)));
        }
        cpu.communicator = (self.tp > 1).then(|| self.sum.communicator(rank));
        Ok(cpu)
    }

    fn abort(&self) {
        self.sum.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glmbench_device::affinity::why_not_bound;
    use glmbench_device::{AttentionShape, DType, Device};

    fn group(threads: usize, tp: usize, bind: bool) -> CpuGroup {
        let attention = AttentionShape { heads: 1, kv_heads: 1, channels: 4 };
        let options = CpuOptions { threads, ..CpuOptions::plain(DType::Fp16.into(), 16, attention) };
        CpuGroup::new(options, tp, bind)
    }

    #[test]
    fn threads_are_shared_out_evenly_and_every_rank_has_one() {
        let shares = |threads, tp| -> Vec<usize> {
            (0..tp).map(|rank| group(threads, tp, false).threads(rank)).collect()
        };
        assert_eq!(shares(8, 2), [4, 4]);
        assert_eq!(shares(7, 2), [3, 4]);
        assert_eq!(shares(1, 4), [1, 1, 1, 1]);
    }

    /// Sums of fp16 numbers are computed in fp32 and rounded once: 2048 + 1 + 1 is 2050, but 2048 with intermediate
    /// rounding.
    #[test]
    fn a_sum_is_rounded_once_and_the_same_on_every_rank() {
        let group = group(4, 3, false);
        let sums: Vec<Vec<f32>> = std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..3)
                .map(|rank| {
                    let group = &group;
                    scope.spawn(move || {
                        let mut cpu = group.device(rank).unwrap();
                        let mut x = cpu.activation(40, 20).unwrap();
                        let mut sum = Vec::new();
                        // Small and large jobs in turn: on one thread and on all threads.
                        for rows in [1, 40, 3] {
                            let mine = [2048.0, 1.0, 1.0][rank];
                            cpu.upload(&vec![mine; rows * 20], &mut x).unwrap();
                            cpu.all_reduce(&mut x).unwrap();
                            cpu.download(&x, &mut sum).unwrap();
                            assert_eq!(sum, vec![2050.0; rows * 20]);
                        }
                        sum
                    })
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        });
        assert!(sums.iter().all(|sum| *sum == sums[0]));
    }

    #[test]
    fn a_bound_rank_names_its_cores_or_the_reason() {
        let told = |tp: usize| {
            std::thread::spawn(move || group(tp, tp, true).device(0).unwrap().info()).join().unwrap()
        };
        let info = told(1);
        assert!(info.details.iter().any(|(name, _)| name == BOUND) || why_not_bound(&info).is_some());
        let info = told(1 << 12);
        assert!(why_not_bound(&info).unwrap().contains("cannot have a core each"), "{info:?}");
        assert!(group(2, 2, false).device(0).unwrap().info().details.is_empty());
    }
}
