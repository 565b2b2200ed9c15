//! What leaves the machine: variables on a list, and texts without names of hosts, users and home folders.

use std::collections::BTreeMap;

use serde_json::Value;

/// Variables that a bundle may have. None of them names a host, a user or a path.
pub const VARIABLES: [&str; 20] = [
    "ACLNN_CACHE_LIMIT",
    "ASCEND_GLOBAL_LOG_LEVEL",
    "ASCEND_LAUNCH_BLOCKING",
    "ASCEND_RT_VISIBLE_DEVICES",
    "ASCEND_SLOG_PRINT_TO_STDOUT",
    "GLMBENCH_ASCEND",
    "GLMBENCH_ASCEND_FAULT",
    "HCCL_ALGO",
    "HCCL_BUFFSIZE",
    "HCCL_CONNECT_TIMEOUT",
    "HCCL_DETERMINISTIC",
    "HCCL_EXEC_TIMEOUT",
    "HCCL_INTRA_PCIE_ENABLE",
    "HCCL_INTRA_ROCE_ENABLE",
    "HCCL_OP_BASE_FFTS_MODE_ENABLE",
    "HCCL_OP_EXPANSION_MODE",
    "HCCL_WHITELIST_DISABLE",
    "INF_NAN_MODE_ENABLE",
    "LCCL_DETERMINISTIC",
    "TASK_QUEUE_ENABLE",
];

/// Maximum length of the value of a variable.
const MAX_VALUE: usize = 256;
/// Folders of users' homes. What follows is a name.
const HOMES: [&str; 3] = ["/home/", "/Users/", "/root"];
/// In place of a path in a home folder.
const HOME: &str = "(path in a home folder)";
/// Shortest name that is looked for. A shorter one would be found in ordinary words.
const SHORTEST: usize = 3;

/// Returns the variables on the list that are set to plain words and numbers.
pub fn environment(
    variables: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> BTreeMap<String, String> {
    let plain = |value: &str| {
        value.len() <= MAX_VALUE
            && value.chars().all(|c| c.is_ascii_alphanumeric() || "_-.,:;=+* ".contains(c))
    };
    variables
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| VARIABLES.contains(&name.as_str()))
        .map(|(name, value)| (name, if plain(&value) { value } else { "(withheld)".to_owned() }))
        .collect()
}

/// The names that a text may not have.
#[derive(Debug, Clone, Default)]
pub struct Private {
    homes: Vec<String>,
    names: Vec<(String, &'static str)>,
}

impl Private {
    /// Returns the names of this machine and of its user.
    pub fn of_this_machine() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        Self::new(
            variable("HOME").as_deref(),
            ["USER", "LOGNAME"].map(variable).into_iter().flatten(),
            host.into_iter().chain(variable("HOSTNAME")),
        )
    }

    fn new(
        home: Option<&str>,
        users: impl Iterator<Item = String>,
        hosts: impl Iterator<Item = String>,
    ) -> Self {
        let homes = home.map(|home| home.trim_end_matches('/').to_owned());
        let long = |name: &String| name.len() >= SHORTEST;
        let users = users.filter(|user| user != "root").map(|user| (user, "(user)"));
        // A host is also known by the first part of its name.
        let hosts = hosts.map(|host| host.trim().to_owned()).flat_map(|host| {
            let first = host.split('.').next().unwrap_or_default().to_owned();
            [(host, "(host)"), (first, "(host)")]
        });
        Self {
            homes: homes.into_iter().filter(|home| home.len() > 1).collect(),
            names: users.chain(hosts).filter(|(name, _)| long(name)).collect(),
        }
    }

    /// Removes the names from every text of a value. Keys stay: they are ours.
    pub fn remove_from(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.without(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.remove_from(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.remove_from(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn without(&self, text: &str) -> String {
        let homes = self.homes.iter().map(String::as_str).chain(HOMES);
        let text = homes.fold(text.to_owned(), |text, home| without_paths(&text, home));
        let text = self.names.iter().fold(text, |text, (name, by)| without_word(&text, name, by));
        without_addresses(&text)
    }
}

/// Replaces paths that begin with `start`, to their ends.
fn without_paths(text: &str, start: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "\"'`,;:()<>|".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(start) {
        let path = &rest[at..];
        let end = path.find(ends).unwrap_or(path.len());
        // `/rooted` is no path below `/root`.
        let whole =
            start.ends_with('/') || path[start.len()..end].is_empty() || path[start.len()..].starts_with('/');
        out.push_str(&rest[..at]);
        out.push_str(if whole { HOME } else { &path[..end] });
        rest = &path[end..];
    }
    out + rest
}

/// Replaces a name where it is a word of its own.
fn without_word(text: &str, name: &str, by: &str) -> String {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        let last = before.chars().next_back().or_else(|| out.chars().next_back());
        let alone = !last.is_some_and(inner) && !after.starts_with(inner);
        out.push_str(before);
        out.push_str(if alone { by } else { name });
        rest = after;
    }
    out + rest
}

/// Replaces IPv4 addresses of private networks and of the machine itself. Others may be versions.
fn without_addresses(text: &str) -> String {
    let part = |c: char| c.is_ascii_digit() || c == '.';
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let word = &rest[at..];
        let end = word.find(|c| !part(c)).unwrap_or(word.len());
        let address: Option<std::net::Ipv4Addr> = word[..end].trim_end_matches('.').parse().ok();
        let private = address.is_some_and(|ip| ip.is_private() || ip.is_loopback() || ip.is_link_local());
        out.push_str(&rest[..at]);
        out.push_str(if private { "(address)" } else { &word[..end] });
        rest = &word[end..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn private() -> Private {
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>().into_iter();
        Private::new(
            Some("/data/people/mila"),
            words(&["mila", "ab", "root"]),
            words(&["gpu7.lab.example\n"]),
        )
    }

    #[test]
    fn names_and_homes_leave_every_text() {
        for (text, expected) in [
            ("open /data/people/mila/x/y.so: no", "open (path in a home folder): no"),
            ("[/home/jo/a b] '/Users/jo/x'", "[(path in a home folder) b] '(path in a home folder)'"),
            ("/rooted and /root", "/rooted and (path in a home folder)"),
            ("mila@gpu7: milan, gpu7.lab.example, gpu70", "(user)@(host): milan, (host), gpu70"),
            (
                "at 192.168.1.20:7000, version 8.5.0.1, 10.1.2.3.",
                "at (address):7000, version 8.5.0.1, (address)",
            ),
            ("ab root /usr/local/Ascend", "ab root /usr/local/Ascend"),
            ("mila", "(user)"),
        ] {
            assert_eq!(private().without(text), expected, "{text}");
        }
        let below = ["/root", ".cache"].join("/");
        assert_eq!(private().without(&below), "(path in a home folder)");
        let mut value = serde_json::json!({"a": ["mila", {"b": "/home/x"}], "n": 1});
        private().remove_from(&mut value);
        assert_eq!(value, serde_json::json!({"a": ["(user)", {"b": HOME}], "n": 1}));
    }

    #[test]
    fn the_environment_is_a_list_of_plain_words() {
        let set = [
            ("HCCL_BUFFSIZE", "110"),
            ("HCCL_IF_IP", "10.0.0.1"),
            ("GLMBENCH_ASCEND", "decode=matmul,kv=copy"),
            ("HCCL_ALGO", "/home/mila/x"),
            ("GLMBENCH_SERVE_KEY", "secret"),
            ("HOME", "/home/mila"),
        ];
        let found = environment(set.into_iter().map(|(name, value)| (name.into(), value.into())));
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            found,
            [
                ("GLMBENCH_ASCEND", "decode=matmul,kv=copy"),
                ("HCCL_ALGO", "(withheld)"),
                ("HCCL_BUFFSIZE", "110")
            ]
        );
        assert!(VARIABLES.is_sorted());
    }
}
