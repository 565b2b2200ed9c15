//! What a request over a wire has beyond a completion: its text, times and faults.

/// What a remote backend knows of a finished request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The generated text, if the server gave text. It replaces the text of the completed ids, which may be unknown.
    pub text: Option<String>,
    /// Why the request has no usable answer: the exchange failed, or the server does not reveal what the protocol reads.
    /// Such an item has failed.
    pub fault: Option<String>,
    /// When each generated token arrived, in nanoseconds on the backend's clock, ascending. Tokens of one event share
    /// its time. Empty if the answer came in one piece.
    pub token_ns: Vec<u64>,
    /// Prompt tokens as counted by the server.
    pub prompt_tokens: Option<u64>,
    /// Generated tokens as counted by the server, or else by their ids or events.
    pub output_tokens: u64,
    /// Points in time of the exchange.
    pub times: WireTimes,
}

/// Points in time of one request over a wire, in nanoseconds on the backend's clock, and what was counted.
/// The times are those of the last attempt.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WireTimes {
    /// When the request's last byte was sent, or sending failed.
    pub sent_ns: u64,
    /// Duration of connecting (address, TCP and TLS), in nanoseconds; 0 for a reused connection.
    pub connect_ns: u64,
    /// When the first byte of the answer arrived. `None` if none did.
    pub first_byte_ns: Option<u64>,
    /// When the answer ended, its end marker included.
    pub closed_ns: u64,
    /// Events of the stream that carried text or tokens. Those that arrived together count once.
    pub events: u64,
    /// How often the request was sent. Timed requests are sent once, or twice if the server had closed the kept
    /// connection of the first.
    pub attempts: u32,
    /// The attempts before the last one.
    pub before: Vec<AttemptTimes>,
}

/// Points in time of an attempt that was not answered, in nanoseconds on the backend's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptTimes {
    /// When it began.
    pub start_ns: u64,
    /// When its last byte was sent. `None` if it was not sent whole.
    pub sent_ns: Option<u64>,
    /// When it failed.
    pub end_ns: u64,
}
