//! The flags that say how a server is reached.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use glmbench_remote::{Api, Endpoint, Key, RemoteError, Route, Timeouts, Tls, Url};

/// The environment variable that holds a key, if no file does.
const KEY_VARIABLE: &str = "GLMBENCH_ENDPOINT_KEY";

/// How a server is reached.
#[derive(Debug, Clone, Args)]
pub struct ReachArgs {
    /// Base URL of /info and /health if it is another (MindIE: port 1026)
    #[arg(long, value_name = "URL", value_parser = url, help_heading = "Endpoint")]
    management_url: Option<Url>,
    /// Base URL of /metrics if it is another (MindIE: port 1027)
    #[arg(long, value_name = "URL", value_parser = url, help_heading = "Endpoint")]
    metrics_url: Option<Url>,
    /// Generation route of MindIE: default (/v1/completions), infer, or generate
    #[arg(long, value_name = "ROUTE", value_parser = route, default_value = "default", help_heading = "Endpoint")]
    route: Route,
    /// Model id to ask for [default: the server's only model]
    #[arg(long, value_name = "ID", help_heading = "Endpoint")]
    served_model: Option<String>,
    /// File with the bearer key, which goes to the endpoint's scheme, host and port only [default: GLMBENCH_ENDPOINT_KEY]
    #[arg(long, value_name = "FILE", help_heading = "Endpoint")]
    key_file: Option<PathBuf>,
    /// Send the key to --management-url and --metrics-url, too, if they are elsewhere
    #[arg(long, help_heading = "Endpoint")]
    key_elsewhere: bool,
    /// PEM file of the authorities to trust [default: the system's]
    #[arg(long, value_name = "FILE", help_heading = "Endpoint")]
    cacert: Option<PathBuf>,
    /// PEM file of this client's certificate (mutual TLS)
    #[arg(long, value_name = "FILE", requires = "cert_key", help_heading = "Endpoint")]
    cert: Option<PathBuf>,
    /// PEM file of this client's private key
    #[arg(long, value_name = "FILE", requires = "cert", help_heading = "Endpoint")]
    cert_key: Option<PathBuf>,
    /// Seconds to wait for a connection, the first event, the next event, and the whole answer
    #[arg(long, value_name = "S,S,S,S", value_parser = timeouts, default_value = "10,600,120,1800", help_heading = "Endpoint")]
    timeouts: Timeouts,
    /// Open a connection for every request
    #[arg(long, help_heading = "Endpoint")]
    no_keep_alive: bool,
}

fn url(text: &str) -> Result<Url, RemoteError> {
    text.parse()
}

fn route(text: &str) -> Result<Route, RemoteError> {
    text.parse()
}

/// Parses a URL of the command line.
pub(super) fn parse_url(text: &str) -> Result<Url, RemoteError> {
    text.parse()
}

/// Parses a protocol of the command line.
pub(super) fn parse_api(text: &str) -> Result<Api, RemoteError> {
    text.parse()
}

fn timeouts(text: &str) -> Result<Timeouts, String> {
    let wrong =
        || format!("found `{text}`; expected four numbers of seconds above 0, such as 10,600,120,1800");
    let seconds = |word: &str| {
        let value: f64 = word.trim().parse().map_err(|_| wrong())?;
        if value > 0.0 && value <= 1e6 { Ok(Duration::from_secs_f64(value)) } else { Err(wrong()) }
    };
    let times = text.split(',').map(seconds).collect::<Result<Vec<_>, String>>()?;
    match times[..] {
        [connect, first_byte, between_events, whole] => {
            Ok(Timeouts { connect, first_byte, between_events, whole })
        }
        _ => Err(wrong()),
    }
}

impl ReachArgs {
    /// Returns the server and how it is reached. Nothing is sent.
    pub fn endpoint(&self, url: &Url, api: Api) -> Result<Endpoint, RemoteError> {
        let key = match &self.key_file {
            Some(file) => Some(Key::from_file(file)?),
            None if std::env::var_os(KEY_VARIABLE).is_some_and(|key| !key.is_empty()) => {
                Some(Key::from_env(KEY_VARIABLE)?)
            }
            None => None,
        };
        Ok(Endpoint {
            management: self.management_url.clone(),
            metrics: self.metrics_url.clone(),
            route: self.route,
            model: self.served_model.clone(),
            key,
            key_elsewhere: self.key_elsewhere,
            tls: Tls { ca: self.cacert.clone(), certificate: self.cert.clone(), key: self.cert_key.clone() },
            timeouts: self.timeouts,
            keep_alive: !self.no_keep_alive,
            ..Endpoint::new(url.clone(), api)
        })
    }
}
