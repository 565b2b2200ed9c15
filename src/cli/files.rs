//! The limit of open files, which bounds connections: each holds one.
//!
//! A process starts with a low soft limit (1,024 on most systems), which it may raise itself up to the hard one.

/// Open files beside connections: standard streams, log and records, the model's files, the listener, and what the runtime waits
/// on. Connections that are being turned away count as well.
const OTHERS: u64 = 192;

/// How many connections a process has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// The connections.
    pub(super) connections: usize,
    /// The hard limit of open files. `None` where the system has no limit that could be asked for.
    pub(super) limit: Option<u64>,
}

impl Room {
    /// Says what is lacking for `wanted` connections, and what to do; `None` if nothing is.
    pub(super) fn lack(&self, wanted: usize) -> Option<String> {
        let limit = self.limit.filter(|_| wanted > self.connections)?;
        let needed = wanted as u64 + OTHERS;
        Some(format!(
            "{wanted} connections need {needed} open files, and this process may have {limit} (its hard limit), enough for {} \
             connections; raise the limit where the process is started (`ulimit -Hn {needed}` as root, `LimitNOFILE={needed}` in a \
             systemd unit, `--ulimit nofile={needed}` for a container)",
            self.connections
        ))
    }
}

/// Raises the soft limit of open files to what `wanted` connections need, or to the hard limit if that is lower. A limit that is
/// high enough stays. Returns for how many connections there is room, at most `wanted`.
pub(super) fn make_room(wanted: usize) -> Room {
    room(limits::raise(wanted as u64 + OTHERS), wanted)
}

/// Returns the room within the soft limit and the hard one.
fn room(limits: Option<(u64, u64)>, wanted: usize) -> Room {
    let Some((soft, hard)) = limits else { return Room { connections: wanted, limit: None } };
    let most = usize::try_from(soft.saturating_sub(OTHERS)).unwrap_or(usize::MAX);
    Room { connections: wanted.min(most), limit: Some(hard) }
}

#[cfg(unix)]
mod limits {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    /// Raises the soft limit to `needed`, at most to the hard one. Returns both as they are then; `None` if the system tells none.
    pub(super) fn raise(needed: u64) -> Option<(u64, u64)> {
        let resource = Resource::RLIMIT_NOFILE;
        let (soft, hard) = getrlimit(resource).ok()?;
        if soft >= needed {
            return Some((soft, hard));
        }
        // A system may have a limit of its own below the hard one (macOS); then the soft limit stays.
        let _ = setrlimit(resource, needed.min(hard), hard);
        getrlimit(resource).ok()
    }
}

#[cfg(not(unix))]
mod limits {
    /// There is no such limit.
    pub(super) fn raise(_: u64) -> Option<(u64, u64)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_limit_leaves_beside_other_files() {
        assert_eq!(room(None, 500), Room { connections: 500, limit: None });
        assert_eq!(room(Some((1 << 20, 1 << 20)), 500).connections, 500);
        let tight = room(Some((300, 300)), 500);
        assert_eq!(tight, Room { connections: 108, limit: Some(300) });
        assert_eq!(room(Some((100, 100)), 500).connections, 0);
    }

    #[test]
    fn a_lack_says_what_was_found_and_what_is_needed() {
        let tight = room(Some((300, 300)), 500);
        let said = tight.lack(500).unwrap();
        for words in
            ["500 connections need 692 open files", "may have 300", "108 connections", "ulimit -Hn 692"]
        {
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(tight.lack(108), None);
        assert_eq!(room(None, 500).lack(500), None);
    }
}
