//! The virtual clock: the cost of an operator, and the begin and end of each stream entry.
//!
//! An entry begins when its stream is free and the host has issued it. Operators also wait for the chip's compute
//! units, which all streams share. An entry takes `max(flops / (peak * efficiency), bytes / (bandwidth * efficiency)) +
//! launch`. A collective begins when the last rank has arrived. A rank may arrive later in real time, so entries behind
//! an unresolved collective wait in a list. They are dated once it is resolved.
//!
//! What an entry costs is a [`Work`] priced by a [`Profile`]. With `record = on`, a device counts its work, so that the same
//! work can be priced by other profiles ([`Profile::work_ns`]).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::group::Group;
use crate::half::DType;
use crate::settings::Profile;
use crate::stream::Stream;

/// The work of an operator, computed from its shapes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cost {
    /// Type of the matrix product. `None` for vector operators.
    pub cube: Option<DType>,
    /// Multiplications and additions in the matrix unit.
    pub cube_flops: f64,
    /// Operations in the vector unit.
    pub vector_flops: f64,
    /// Bytes read and written in device memory.
    pub bytes: f64,
    /// Whether it is attention with more than one query of a sequence.
    pub prompt: bool,
}

/// A stream entry of a device, as the clock prices it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Work {
    /// An operator, launched by itself or within a graph.
    Operator {
        /// Its cost.
        cost: Cost,
        /// Whether it was launched outside a graph.
        single: bool,
    },
    /// A collective.
    Collective {
        /// Bytes that every rank sends.
        bytes: f64,
        /// Number of ranks.
        ranks: usize,
    },
    /// A copy between host and device, of this many bytes.
    HostCopy(usize),
    /// A copy within the device, of this many bytes.
    DeviceCopy(usize),
    /// Setting memory, of this many bytes.
    DeviceSet(usize),
}

impl Work {
    /// Numbers of [`Work::to_numbers`].
    pub(crate) const NUMBERS: usize = 7;

    /// Returns the work as numbers for C: kind, matrix type, matrix operations, vector operations, bytes, prompt. The
    /// last is single (0 or 1) or the number of ranks.
    pub(crate) fn to_numbers(self) -> [f64; Self::NUMBERS] {
        match self {
            Self::Operator { cost, single } => {
                let cube = cost.cube.map_or(0.0, |dtype| 1.0 + f64::from(dtype as i32));
                let flag = |is: bool| if is { 1.0 } else { 0.0 };
                let Cost { cube_flops, vector_flops, bytes, prompt, .. } = cost;
                [0.0, cube, cube_flops, vector_flops, bytes, flag(prompt), flag(single)]
            }
            Self::Collective { bytes, ranks } => [1.0, 0.0, 0.0, 0.0, bytes, 0.0, ranks as f64],
            Self::HostCopy(bytes) => [2.0, 0.0, 0.0, 0.0, bytes as f64, 0.0, 0.0],
            Self::DeviceCopy(bytes) => [3.0, 0.0, 0.0, 0.0, bytes as f64, 0.0, 0.0],
            Self::DeviceSet(bytes) => [4.0, 0.0, 0.0, 0.0, bytes as f64, 0.0, 0.0],
        }
    }

    /// Returns the work that [`Work::to_numbers`] wrote; `None` for other numbers.
    pub(crate) fn from_numbers(numbers: [f64; Self::NUMBERS]) -> Option<Self> {
        let [kind, cube, cube_flops, vector_flops, bytes, prompt, last] = numbers;
        if !numbers.iter().all(|number| number.is_finite() && *number >= 0.0) {
            return None;
        }
        Some(match kind as u32 {
            0 => {
                let cube = if cube == 0.0 { None } else { Some(DType::from_code(cube as i32 - 1)?) };
                let cost = Cost { cube, cube_flops, vector_flops, bytes, prompt: prompt > 0.0 };
                Self::Operator { cost, single: last > 0.0 }
            }
            1 => Self::Collective { bytes, ranks: last as usize },
            2 => Self::HostCopy(bytes as usize),
            3 => Self::DeviceCopy(bytes as usize),
            4 => Self::DeviceSet(bytes as usize),
            _ => return None,
        })
    }
}

impl Profile {
    /// Duration of a piece of work in ns.
    pub(crate) fn work_ns(&self, work: &Work) -> u64 {
        match work {
            Work::Operator { cost, single } => self.operator_ns(cost, *single),
            Work::Collective { bytes, ranks } => self.collective_ns(*bytes, *ranks),
            Work::HostCopy(bytes) => self.host_copy_ns(*bytes),
            Work::DeviceCopy(bytes) => self.device_copy_ns(*bytes),
            Work::DeviceSet(bytes) => self.device_set_ns(*bytes),
        }
    }

    /// Duration of an operator in ns. Outside a graph, it has the cost of a single launch besides.
    pub(crate) fn operator_ns(&self, cost: &Cost, single: bool) -> u64 {
        self.duration_ns(cost) + if single { self.single_launch_ns.round() as u64 } else { 0 }
    }

    /// Duration of an operator within a graph in ns, rounded to nearest.
    pub(crate) fn duration_ns(&self, cost: &Cost) -> u64 {
        let peak = match cost.cube {
            Some(DType::Int8) => self.cube_int8_ops,
            Some(DType::Bf16) if self.cube_bf16_flops > 0.0 => self.cube_bf16_flops,
            Some(DType::Float) if self.cube_fp32_flops > 0.0 => self.cube_fp32_flops,
            _ => self.cube_fp16_flops,
        };
        let cube = cost.cube_flops / (peak * self.compute_efficiency);
        let vector = cost.vector_flops / (self.vector_fp16_flops * self.vector_efficiency);
        let rate = match cost.cube {
            Some(_) => self.memory_bytes_per_s * self.memory_efficiency,
            None => self.activation_bytes_per_s,
        };
        let memory = cost.bytes / rate;
        let launch = if cost.cube.is_some() { self.matmul_launch_ns } else { self.vector_launch_ns };
        let prompt = if cost.prompt { self.prompt_layer_ns } else { 0.0 };
        (cube.max(vector).max(memory) * 1e9 + launch + prompt).round() as u64
    }

    /// Duration of a copy between host and device in ns.
    pub(crate) fn host_copy_ns(&self, bytes: usize) -> u64 {
        let rate = self.pcie_bytes_per_s * self.link_efficiency;
        (bytes as f64 / rate * 1e9 + self.copy_latency_ns).round() as u64
    }

    /// Duration of a copy within the device in ns. Every byte is read and written.
    pub(crate) fn device_copy_ns(&self, bytes: usize) -> u64 {
        let rate = self.memory_bytes_per_s * self.memory_efficiency;
        (2.0 * bytes as f64 / rate * 1e9 + self.vector_launch_ns).round() as u64
    }

    /// Duration of setting device memory in ns.
    pub(crate) fn device_set_ns(&self, bytes: usize) -> u64 {
        let rate = self.memory_bytes_per_s * self.memory_efficiency;
        (bytes as f64 / rate * 1e9 + self.vector_launch_ns).round() as u64
    }

    /// Duration in ns of a collective of `ranks` ranks in which every rank sends `bytes` over its links. A rank has a link
    /// of its own to each of up to `link_peers` others, and uses all of them at once.
    pub(crate) fn collective_ns(&self, bytes: f64, ranks: usize) -> u64 {
        let links = ((ranks.max(2) - 1) as f64).min(self.link_peers.max(1.0));
        let efficiency = if links > 1.0 { self.mesh_efficiency } else { self.link_efficiency };
        let rate = self.link_bytes_per_s * links * efficiency;
        (bytes / rate * 1e9 + self.collective_latency_ns).round() as u64
    }
}

/// A point in a stream. Others can query its time.
#[derive(Debug)]
pub(crate) struct Point {
    time_ns: AtomicU64,
}

const UNDATED: u64 = u64::MAX;

impl Point {
    /// Creates a point that is not reached yet.
    pub(crate) fn new() -> Self {
        Self { time_ns: AtomicU64::new(UNDATED) }
    }

    /// Virtual time of the point, once it is known.
    pub(crate) fn time_ns(&self) -> Option<u64> {
        Some(self.time_ns.load(Ordering::Acquire)).filter(|t| *t != UNDATED)
    }
}

impl Default for Point {
    fn default() -> Self {
        Self::new()
    }
}

/// An entry of a timeline.
pub(crate) enum Entry {
    /// An operator or copy.
    Work {
        /// Duration in ns.
        duration_ns: u64,
        /// Whether it needs the compute units.
        cores: bool,
    },
    /// Collective number `index` of the group.
    Meet {
        /// The group.
        group: Arc<Group>,
        /// This rank.
        rank: usize,
        /// Number of the collective within the group.
        index: u64,
    },
    /// A recorded event.
    Record(Arc<Point>),
    /// A wait for another stream.
    Wait {
        /// The recorded point.
        point: Arc<Point>,
        /// The stream on which the event was recorded.
        stream: Arc<Stream>,
    },
}

/// What a timeline is blocked on.
pub(crate) enum Blocked {
    /// The other ranks of a group.
    Group(Arc<Group>, u64),
    /// Another stream.
    Stream(Arc<Stream>),
}

/// The virtual time of one stream.
#[derive(Default)]
pub(crate) struct Timeline {
    now_ns: u64,
    /// Why a collective failed.
    pub broken: Option<String>,
    waiting: VecDeque<(u64, Entry)>,
}

impl Timeline {
    /// Appends an entry that the host issued at `host_ns`.
    pub(crate) fn push(&mut self, host_ns: u64, entry: Entry, cores_free: &AtomicU64) {
        if self.waiting.is_empty()
            && let Entry::Work { duration_ns, cores } = entry
        {
            self.work(host_ns, duration_ns, cores, cores_free);
            return;
        }
        self.waiting.push_back((host_ns, entry));
        let _ = self.advance(cores_free);
    }

    fn work(&mut self, host_ns: u64, duration_ns: u64, cores: bool, cores_free: &AtomicU64) {
        let mut begin = self.now_ns.max(host_ns);
        if cores {
            begin = begin.max(cores_free.load(Ordering::Relaxed));
        }
        self.now_ns = begin + duration_ns;
        if cores {
            cores_free.fetch_max(self.now_ns, Ordering::Relaxed);
        }
    }

    /// Dates all entries that can be dated. Returns what the first undated entry waits for.
    pub(crate) fn advance(&mut self, cores_free: &AtomicU64) -> Option<Blocked> {
        while let Some((host_ns, entry)) = self.waiting.front() {
            let host_ns = *host_ns;
            match entry {
                Entry::Work { duration_ns, cores } => {
                    let (duration_ns, cores) = (*duration_ns, *cores);
                    self.work(host_ns, duration_ns, cores, cores_free);
                }
                Entry::Meet { group, rank, index } => {
                    match group.meet(*rank, *index, self.now_ns.max(host_ns)) {
                        Ok(Some(end_ns)) => self.now_ns = end_ns,
                        Ok(None) => return Some(Blocked::Group(Arc::clone(group), *index)),
                        Err(problem) => {
                            self.broken.get_or_insert(problem);
                        }
                    }
                }
                Entry::Record(point) => {
                    self.now_ns = self.now_ns.max(host_ns);
                    point.time_ns.store(self.now_ns, Ordering::Release);
                }
                Entry::Wait { point, stream } => match point.time_ns() {
                    Some(time_ns) => self.now_ns = self.now_ns.max(host_ns).max(time_ns),
                    None => return Some(Blocked::Stream(Arc::clone(stream))),
                },
            }
            self.waiting.pop_front();
        }
        None
    }

    /// Virtual time at which the last dated entry ends.
    pub(crate) fn now_ns(&self) -> u64 {
        self.now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Config, Soc};

    #[test]
    fn the_larger_roof_counts_once() {
        let chip = Config::new(Soc::Ascend310P3).profile;
        let (compute_efficiency, memory_efficiency, activation_bytes_per_s) = (0.7, 0.6, 122.4e9);
        let profile = Profile { activation_bytes_per_s, compute_efficiency, memory_efficiency, ..chip };
        let cost = Cost { cube: Some(DType::Float16), cube_flops: 49e9, bytes: 122.4e6, ..Cost::default() };
        // 49e9 / (70e12 * 0.7) = 1 ms; 122.4e6 / (204e9 * 0.6) = 1 ms.
        assert_eq!(profile.duration_ns(&cost), 1_000_000 + 5_000);
        assert_eq!(profile.duration_ns(&Cost { bytes: 244.8e6, ..cost }), 2_000_000 + 5_000);
        let vector = Cost { bytes: 122.4e6, ..Cost::default() };
        assert_eq!(profile.duration_ns(&vector), 1_000_000 + 2_000);
        let split = Profile { single_launch_ns: 700.0, prompt_layer_ns: 90.0, ..profile };
        assert_eq!(split.operator_ns(&vector, false), 1_002_000);
        assert_eq!(split.operator_ns(&Cost { prompt: true, ..vector }, true), 1_002_790);
    }

    #[test]
    fn links_add_up_to_the_peers_that_have_one() {
        let chip = Config::new(Soc::Ascend910B4).profile;
        let profile = Profile {
            link_bytes_per_s: 28e9,
            link_peers: 7.0,
            link_efficiency: 0.5,
            mesh_efficiency: 1.0,
            collective_latency_ns: 1_000.0,
            ..chip
        };
        for (ranks, bytes) in [(1, 14e6), (2, 14e6), (4, 84e6), (8, 196e6), (16, 196e6)] {
            assert_eq!(profile.collective_ns(bytes, ranks), 1_001_000, "{ranks}");
        }
    }

    #[test]
    fn work_survives_its_way_through_numbers() {
        let cost =
            Cost { cube: Some(DType::Bf16), cube_flops: 1e9, vector_flops: 3.0, bytes: 7.0, prompt: true };
        let operator = |single| Work::Operator { cost, single };
        let vector = Work::Operator { cost: Cost::default(), single: true };
        let others = [Work::Collective { bytes: 9.0, ranks: 8 }, Work::HostCopy(1), Work::DeviceCopy(2)];
        for work in [operator(false), operator(true), vector, Work::DeviceSet(3)].into_iter().chain(others) {
            assert_eq!(Work::from_numbers(work.to_numbers()), Some(work));
        }
        for wrong in [[9.0; 7], [f64::NAN; 7], [0.0, 99.0, 0.0, 0.0, 0.0, 0.0, 0.0]] {
            assert_eq!(Work::from_numbers(wrong), None);
        }
    }

    #[test]
    fn operators_wait_for_host_stream_and_cores() {
        let cores = AtomicU64::new(0);
        let (mut a, mut b) = (Timeline::default(), Timeline::default());
        a.push(100, Entry::Work { duration_ns: 50, cores: true }, &cores);
        assert_eq!(a.now_ns(), 150);
        a.push(120, Entry::Work { duration_ns: 50, cores: true }, &cores);
        assert_eq!(a.now_ns(), 200);
        b.push(0, Entry::Work { duration_ns: 10, cores: false }, &cores);
        assert_eq!(b.now_ns(), 10);
        b.push(0, Entry::Work { duration_ns: 10, cores: true }, &cores);
        assert_eq!(b.now_ns(), 210);
    }
}
