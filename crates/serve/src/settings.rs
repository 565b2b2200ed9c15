//! What the server is told when it starts.

use std::time::Duration;

use sha2::{Digest, Sha256};

use glmbench_device::{DeviceKind, Precision};

/// Settings of a server.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The model's name, as `/v1/models` lists it and replies repeat it.
    pub model: String,
    /// Whether any model name in a request is accepted.
    pub any_model: bool,
    /// Whether prompts that begin alike share the KV cache of their beginning. Replies are the same, but their times depend on
    /// earlier requests.
    pub prefix_cache: bool,
    /// Most prompt tokens of a step that also decodes ([`Scheduling::Mixed`]). `None` alternates steps of prompts and of tokens.
    ///
    /// [`Scheduling::Mixed`]: glmbench_engine::Scheduling::Mixed
    pub prefill_chunk: Option<usize>,
    /// Whether prompts of token ids get the model's prefix (`[gMASK] sop`) unless they have it.
    pub prefix_ids: bool,
    /// The key that requests must carry.
    pub key: Option<Key>,
    /// How long the server works on after it was told to end, while `/health` says 503.
    pub drain_delay: Duration,
    /// Longest wait for running requests when the server ends.
    pub drain: Duration,
    /// Weight type and device name, for `/info`.
    pub described: Described,
    /// Limits of requests and connections.
    pub limits: ServeLimits,
}

/// What `/info` says of the model.
#[derive(Debug, Clone)]
pub struct Described {
    /// Types of weights, activations and KV cache.
    pub dtype: Precision,
    /// The device.
    pub device: DeviceKind,
    /// Version of the program.
    pub version: String,
}

/// Limits that keep one client from taking what the others need.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// Largest body, in bytes.
    pub body_bytes: usize,
    /// Bytes of all bodies that are being read or held; at least those of one body.
    pub all_bodies_bytes: usize,
    /// Maximum tokens with pieces in a reply of `/tokenize`. Ids alone have no limit but the body's.
    pub pieces: usize,
    /// Prompts of one request.
    pub prompts: usize,
    /// Sequences that may wait beside those that run.
    pub queue: usize,
    /// Connections at once.
    pub connections: usize,
    /// Wait for a whole request head.
    pub header: Duration,
    /// Wait for the next request of a connection.
    pub idle: Duration,
    /// Wait for a whole body.
    pub body: Duration,
    /// Wait for a client that takes no byte of a response.
    pub write: Duration,
    /// Longest time of a request.
    pub request: Duration,
    /// Longest time that a stream's reader may be behind.
    pub slow_reader: Duration,
    /// Most new tokens of a chat request that does not say how many.
    pub chat_tokens: usize,
    /// Most log-probabilities at a position.
    pub logprobs: usize,
    /// Log-probabilities of all requests that are being answered.
    pub all_logprobs: usize,
    /// Stop texts of one request.
    pub stops: usize,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            body_bytes: 2 << 20,
            all_bodies_bytes: 32 << 20,
            pieces: 16_384,
            prompts: 128,
            queue: 128,
            connections: 1024,
            header: Duration::from_secs(10),
            idle: Duration::from_mins(1),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            request: Duration::from_mins(10),
            slow_reader: Duration::from_secs(10),
            chat_tokens: 1024,
            logprobs: 20,
            all_logprobs: 1 << 19,
            stops: 16,
        }
    }
}

impl ServeLimits {
    /// Returns the bytes of all bodies. The largest body that is let in always fits.
    pub(crate) fn all_bodies(&self) -> usize {
        self.all_bodies_bytes.max(self.body_bytes)
    }
}

/// The hash of a key. The key itself is not kept.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// Returns the hash of a key.
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// Whether a request's key is this one. The time does not depend on where they differ.
    pub(crate) fn is(&self, offered: &str) -> bool {
        let other = Self::new(offered);
        self.0.iter().zip(other.0).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}
