//! Where a server is, which protocol it speaks, and how it is reached.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::files::read_bounded;
use crate::{Api, RemoteError, Route};

/// What decides whether two URLs are of one server.
#[derive(PartialEq, Eq)]
struct Origin {
    /// Whether the connection is encrypted.
    is_https: bool,
    /// Host, in lower case.
    host: String,
    /// Port.
    port: u16,
}

/// A base URL: scheme, host, optional port, optional path in front of the routes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url(String);

impl Url {
    /// Returns the text, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether the connection is encrypted.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// Returns scheme, host and port. If the URL names no port, returns the scheme's default port.
    fn origin(&self) -> Origin {
        let uri = self.0.parse::<ureq::http::Uri>().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if self.is_https() { 443 } else { 80 });
        let host = uri.host().unwrap_or_default().to_ascii_lowercase();
        Origin { is_https: self.is_https(), host, port }
    }

    /// Returns the URL of a route that begins with a slash.
    pub(crate) fn join(&self, route: &str) -> String {
        format!("{}{route}", self.0)
    }
}

impl FromStr for Url {
    type Err = RemoteError;

    /// Parses `http://host[:port][/path]`, or the same with `https`. A user name, a query or a fragment is refused.
    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let wrong = |what: &str| {
            Err(RemoteError::Option(format!(
                "the endpoint {what}: expected http://HOST:PORT or https://HOST:PORT, with an optional path"
            )))
        };
        // The text may hold a password: it is not shown before that is excluded.
        let Some((scheme, rest)) = text.split_once("://") else { return wrong("has no scheme") };
        if rest.contains('@') {
            return wrong("holds a user name or password, which belong into a key file");
        }
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return wrong(&format!("`{text}` has the scheme `{scheme}`"));
        }
        if rest.contains(['?', '#']) {
            return wrong(&format!("`{text}` has a query or fragment"));
        }
        let url = format!("{}://{}", scheme.to_ascii_lowercase(), rest.trim_end_matches('/'));
        match url.parse::<ureq::http::Uri>() {
            Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => Ok(Self(url)),
            _ => wrong(&format!("`{text}` is no URL")),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands in the place of a key.
const HIDDEN: &str = "[key]";
/// Number of first bytes of a key that count as the key. Fewer occur in any text.
const LEAST_BEGUN: usize = 4;

/// A bearer key. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    secret: String,
    /// How a server may show the key, longest first.
    forms: Vec<String>,
}

impl Key {
    /// Takes a key. White space around it is removed.
    ///
    /// # Errors
    /// If the key is empty, or holds a byte that no HTTP header may hold. The message does not show it.
    pub fn new(text: &str) -> Result<Self, RemoteError> {
        let key = text.trim();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(RemoteError::Option(
                "the key is empty or holds bytes other than printable ASCII: expected one line".into(),
            ));
        }
        Ok(Self { secret: key.to_owned(), forms: forms(key) })
    }

    /// Reads a key from a file of at most 64 KiB.
    pub fn from_file(path: &Path) -> Result<Self, RemoteError> {
        let text = read_bounded(path, 1 << 16, "key")?;
        let text = std::str::from_utf8(&text).unwrap_or_default();
        Self::new(text).map_err(|e| RemoteError::Option(format!("{}: {e}", path.display())))
    }

    /// Reads a key from an environment variable.
    pub fn from_env(name: &str) -> Result<Self, RemoteError> {
        let text = std::env::var(name).map_err(|_| {
            RemoteError::Option(format!("the environment variable {name} is not set: expected the key"))
        })?;
        Self::new(&text).map_err(|e| RemoteError::Option(format!("{name}: {e}")))
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// Returns a text with `[key]` in the place of the key, plain or escaped for JSON, URLs or HTML.
    pub(crate) fn hide(&self, text: String) -> String {
        self.forms.iter().fold(text, |text, form| {
            if text.contains(form.as_str()) { text.replace(form.as_str(), HIDDEN) } else { text }
        })
    }

    /// The same for a text that may be cut off within the key: a beginning of the key at the text's end goes, too.
    pub(crate) fn hide_cut(&self, text: String) -> String {
        let mut text = self.hide(text);
        // All forms are ASCII.
        let begun =
            |form: &String| (LEAST_BEGUN..form.len()).rev().find(|&length| text.ends_with(&form[..length]));
        if let Some(length) = self.forms.iter().filter_map(begun).max() {
            text.truncate(text.len() - length);
            text.push_str(HIDDEN);
        }
        text
    }
}

/// Returns the key's forms, longest first: plain, escaped for JSON, percent-encoded, escaped for HTML.
fn forms(key: &str) -> Vec<String> {
    let each = |escape: &dyn Fn(char) -> Option<String>| -> String {
        key.chars().map(|c| escape(c).unwrap_or_else(|| c.to_string())).collect()
    };
    let json = |slash: bool| {
        each(&|c| match c {
            '"' | '\\' => Some(format!("\\{c}")),
            '/' if slash => Some("\\/".into()),
            _ => None,
        })
    };
    // Encoders differ in what they leave as it is.
    let percent = |upper: bool, left: &str| {
        each(&|c| match c {
            'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '.' | '_' | '~' => None,
            _ if left.contains(c) => None,
            _ if upper => Some(format!("%{:02X}", u32::from(c))),
            _ => Some(format!("%{:02x}", u32::from(c))),
        })
    };
    let html = |quote: &str, apostrophe: &str| {
        each(&|c| match c {
            '&' => Some("&amp;".into()),
            '<' => Some("&lt;".into()),
            '>' => Some("&gt;".into()),
            '"' => Some(quote.into()),
            '\'' => Some(apostrophe.into()),
            _ => None,
        })
    };
    let mut all = vec![
        key.to_owned(),
        json(false),
        json(true),
        html("&quot;", "&#39;"),
        html("&quot;", "&#x27;"),
        html("&#34;", "&#39;"),
        html("&quot;", "'"),
        html("\"", "'"),
    ];
    for left in ["", "/", "!'()*"] {
        all.extend([percent(true, left), percent(false, left)]);
    }
    all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    all.dedup();
    all
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// Files of an encrypted connection, all PEM. MindIE's default needs all three (mutual TLS).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities to trust. Without it: the system's, from the places where distributions keep them.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain.
    pub certificate: Option<PathBuf>,
    /// The client's private key, unencrypted.
    pub key: Option<PathBuf>,
}

/// Limits of waiting. A limit that is passed fails the request with the name of its [`Phase`](crate::Phase).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Name lookup, TCP and TLS.
    pub connect: Duration,
    /// From the last byte sent to the first event. Comments of a waiting server do not count.
    pub first_byte: Duration,
    /// From one event to the next. A byte a second that never completes an event does not count.
    pub between_events: Duration,
    /// The whole attempt.
    pub whole: Duration,
}

impl Default for Timeouts {
    /// 10 s, 600 s, 120 s, 1,800 s.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_mins(10),
            between_events: Duration::from_mins(2),
            whole: Duration::from_mins(30),
        }
    }
}

/// How often a request that sent no byte of an answer is sent again: 429 or 503 with `Retry-After`, failed connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts after the first.
    pub times: u32,
    /// The longest wait between two attempts. A server that asks for more is not asked again.
    pub longest_wait: Duration,
}

impl Retry {
    /// No second attempt: for load, where a retry would hide a failure.
    pub const NEVER: Self = Self { times: 0, longest_wait: Duration::ZERO };
}

impl Default for Retry {
    /// Three attempts more, at most 30 s apart.
    fn default() -> Self {
        Self { times: 3, longest_wait: Duration::from_secs(30) }
    }
}

/// A server and how it is reached.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Base URL of inference.
    pub url: Url,
    /// Base URL of `/info` and `/health`, if another (MindIE: port 1026).
    pub management: Option<Url>,
    /// Base URL of `/metrics`, if another (MindIE: port 1027).
    pub metrics: Option<Url>,
    /// The protocol.
    pub api: Api,
    /// The generation route.
    pub route: Route,
    /// The model id to ask for and to insist on in answers. Without it: the only model of `/v1/models`, where one is needed.
    pub model: Option<String>,
    /// The bearer key. It is sent to the scheme, host and port of [`Endpoint::url`] only.
    pub key: Option<Key>,
    /// Sends the key to the management and metrics addresses, too, if they are elsewhere.
    pub key_elsewhere: bool,
    /// Certificates.
    pub tls: Tls,
    /// Limits of waiting.
    pub timeouts: Timeouts,
    /// Second attempts.
    pub retry: Retry,
    /// Whether a connection serves several requests. `false` opens one for every request.
    pub keep_alive: bool,
    /// The largest answer in bytes, and the largest line of a stream.
    pub max_body: usize,
}

impl Endpoint {
    /// Returns an endpoint with the defaults: no key, system certificates, 64 MiB answers, connections kept alive.
    pub fn new(url: Url, api: Api) -> Self {
        Self {
            url,
            management: None,
            metrics: None,
            api,
            route: Route::Default,
            model: None,
            key: None,
            key_elsewhere: false,
            tls: Tls::default(),
            timeouts: Timeouts::default(),
            retry: Retry::default(),
            keep_alive: true,
            max_body: 64 << 20,
        }
    }

    /// Returns the key if a request to this URL may carry it.
    pub(crate) fn key_for(&self, url: &Url) -> Option<&Key> {
        self.key.as_ref().filter(|_| self.key_elsewhere || url.origin() == self.url.origin())
    }

    pub(crate) fn management(&self) -> &Url {
        self.management.as_ref().unwrap_or(&self.url)
    }

    pub(crate) fn metrics(&self) -> &Url {
        self.metrics.as_ref().or(self.management.as_ref()).unwrap_or(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_hidden_however_a_server_shows_it() {
        let key = Key::new(r#"sk/a"b\c+d=&<e>'f"#).unwrap();
        for shown in [
            r#"sk/a"b\c+d=&<e>'f"#,
            r#"sk/a\"b\\c+d=&<e>'f"#,
            r#"sk\/a\"b\\c+d=&<e>'f"#,
            "sk%2Fa%22b%5Cc%2Bd%3D%26%3Ce%3E%27f",
            "sk/a%22b%5Cc%2Bd%3D%26%3Ce%3E%27f",
            "sk%2Fa%22b%5Cc%2Bd%3D%26%3Ce%3E'f",
            "sk%2fa%22b%5cc%2bd%3d%26%3ce%3e%27f",
            r"sk/a&quot;b\c+d=&amp;&lt;e&gt;&#39;f",
            r"sk/a&quot;b\c+d=&amp;&lt;e&gt;&#x27;f",
            r#"sk/a"b\c+d=&amp;&lt;e&gt;'f"#,
        ] {
            assert_eq!(key.hide(format!("no {shown}, {shown}")), "no [key], [key]", "{shown}");
            let cut = key.hide_cut(format!("no {}", &shown[..shown.len() - 1]));
            assert_eq!(cut, "no [key]", "{shown}");
        }
        assert_eq!(key.hide("sk/a".into()), "sk/a");
        let plain = Key::new("sk-1").unwrap();
        assert_eq!((plain.forms.len(), plain.hide("a sk-1 b".into())), (1, "a [key] b".into()));
        assert_eq!(format!("{key:?}"), "Key(hidden)");
    }
}
