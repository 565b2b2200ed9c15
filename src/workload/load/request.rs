//! One request of a load: its times, and whether they meet the objectives.

use crate::record::{Objective, Objectives};
use crate::stats::tell_token_times;
use serde::{Deserialize, Serialize};

impl Objectives {
    /// Whether the request succeeded and meets all stated objectives. A request of one token has no TPOT, so it meets
    /// any.
    pub fn keeps(&self, request: &LoadRequest) -> bool {
        let within = |time: Option<f64>, most: Option<Objective>| {
            time.zip(most).is_none_or(|(time, most)| !most.is_exceeded_by(time))
        };
        request.error.is_none()
            && within(Some(request.ttft_ns() as f64), self.ttft)
            && within(request.tpot_ns(), self.tpot)
            && within(Some(request.e2e_ns() as f64), self.e2e)
    }

    /// Whether the times of a served request tell if it meets the objectives. If tokens arrived together, its TPOT is
    /// unknown; then goodput is unknown, neither met nor missed.
    pub fn are_told(&self, request: &LoadRequest) -> bool {
        self.tpot.is_none() || request.output_tokens <= 1 || request.has_token_times()
    }
}

/// One request. All fields but the gaps are points in time on the run's clock, in nanoseconds from run start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// Scheduled arrival, whether or not the engine was free to accept the request then.
    pub arrival_ns: u64,
    /// When the first step that fed any of its tokens began.
    pub start_ns: u64,
    /// When its first token was chosen.
    pub first_token_ns: u64,
    /// Gaps between its tokens, from the first token on.
    pub itl_ns: Vec<u64>,
    /// When its last token was chosen.
    pub end_ns: u64,
    /// Prompt tokens.
    pub input_tokens: u32,
    /// Generated tokens.
    pub output_tokens: u32,
    /// The exchange with a server. `None` for an engine in this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wire: Option<Wire>,
    /// Why the request was not completed. If set, its times are meaningless.
    pub error: Option<String>,
}

/// A request over a wire. Points in time are on the run's clock, in nanoseconds from run start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// When the request's last byte was sent.
    pub sent_ns: u64,
    /// Duration of connecting (address, TCP and TLS); 0 for a reused connection.
    pub connect_ns: u64,
    /// When the first byte of the answer arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ns: Option<u64>,
    /// When the answer ended, its end marker included.
    pub closed_ns: u64,
    /// Events that carried text or tokens. Those that arrived together count once.
    pub events: u64,
    /// How often the request was sent: 2 if the server had closed the kept connection, which did not answer. Such a request has
    /// failed, and the times above are those of its last attempt.
    pub attempts: u32,
    /// The attempts before the last one. Empty in records older than this field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Attempted>,
    /// Prompt tokens as the server counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens: Option<u64>,
}

/// An attempt to send a request that was not answered. Points in time are on the run's clock, in nanoseconds from run start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    /// When it began.
    pub start_ns: u64,
    /// When its last byte was sent. `None` if it was not sent whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_ns: Option<u64>,
    /// When it failed.
    pub end_ns: u64,
}

impl LoadRequest {
    /// Returns the time to first token from when the request was sent, for one over a wire.
    pub fn ttft_sent_ns(&self) -> Option<u64> {
        Some(self.first_token_ns.saturating_sub(self.wire.as_ref()?.sent_ns))
    }

    /// Returns the end-to-end latency from when the request was sent, for one over a wire.
    pub fn e2e_sent_ns(&self) -> Option<u64> {
        Some(self.end_ns.saturating_sub(self.wire.as_ref()?.sent_ns))
    }

    /// Returns how late the request was sent: from its arrival by the schedule until its connection was begun. The first
    /// connection counts if the request was sent again.
    pub fn late_ns(&self) -> Option<u64> {
        let wire = self.wire.as_ref()?;
        let last = wire.sent_ns.saturating_sub(wire.connect_ns);
        let begun = wire.before.first().map_or(last, |first| first.start_ns);
        Some(begun.saturating_sub(self.arrival_ns))
    }

    /// Returns the queueing time, from arrival until the first step began.
    pub fn queue_ns(&self) -> u64 {
        self.start_ns.saturating_sub(self.arrival_ns)
    }

    /// Returns the time to first token, from arrival.
    pub fn ttft_ns(&self) -> u64 {
        self.first_token_ns.saturating_sub(self.arrival_ns)
    }

    /// Whether the time of each token is known: over a wire, if nearly every token arrived at a time of its own.
    pub fn has_token_times(&self) -> bool {
        self.wire.as_ref().is_none_or(|wire| tell_token_times(wire.events, self.output_tokens.into()))
    }

    /// Returns the time per token after the first; undefined for one token, and if the times of tokens are unknown.
    pub fn tpot_ns(&self) -> Option<f64> {
        if !self.has_token_times() {
            return None;
        }
        let gaps = self.output_tokens.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(self.end_ns.saturating_sub(self.first_token_ns) as f64 / f64::from(gaps))
    }

    /// Returns the end-to-end latency, from arrival to the last token.
    pub fn e2e_ns(&self) -> u64 {
        self.end_ns.saturating_sub(self.arrival_ns)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Arrives at 100, waits 30, has its first token at 180 after prefill, then gaps of 20 and 50. Ends at 250.
    pub(in crate::workload::load) fn timeline() -> LoadRequest {
        LoadRequest {
            arrival_ns: 100,
            start_ns: 130,
            first_token_ns: 180,
            itl_ns: vec![20, 50],
            end_ns: 250,
            input_tokens: 7,
            output_tokens: 3,
            wire: None,
            error: None,
        }
    }

    #[test]
    fn the_definitions_hold_on_a_hand_made_timeline() {
        let request = timeline();
        assert_eq!((request.queue_ns(), request.ttft_ns(), request.e2e_ns()), (30, 80, 150));
        assert_eq!(request.tpot_ns(), Some(35.0));
        // The 80 until the first token are in no gap, so TTFT and gaps add up to E2E.
        assert_eq!(request.ttft_ns() + request.itl_ns.iter().sum::<u64>(), request.e2e_ns());
        let one = LoadRequest { output_tokens: 1, itl_ns: vec![], end_ns: 180, ..timeline() };
        assert_eq!((one.tpot_ns(), one.e2e_ns()), (None, 80));
    }

    #[test]
    fn objectives_are_kept_all_or_not() {
        let ns = |ns| Some(Objective::of_ns(ns));
        let all = Objectives { ttft: ns(80), tpot: ns(35), e2e: ns(150) };
        assert!(all.keeps(&timeline()) && Objectives::default().keeps(&timeline()));
        for tighter in [
            Objectives { ttft: ns(79), ..all },
            Objectives { tpot: ns(34), ..all },
            Objectives { e2e: ns(149), ..all },
        ] {
            assert!(!tighter.keeps(&timeline()), "{tighter:?}");
        }
        let failed = LoadRequest { error: Some("x".into()), ..timeline() };
        assert!(!Objectives::default().keeps(&failed));
        let one = LoadRequest { output_tokens: 1, itl_ns: vec![], end_ns: 180, ..timeline() };
        assert!(Objectives { tpot: ns(1), ..Objectives::default() }.keeps(&one), "one token has no TPOT");
        // Tokens that arrive together tell no TPOT, so an objective for it is neither met nor missed.
        let wire = Wire {
            sent_ns: 0,
            connect_ns: 0,
            first_byte_ns: None,
            closed_ns: 0,
            events: 1,
            attempts: 1,
            before: Vec::new(),
            prompt_tokens: None,
        };
        let again = Attempted { start_ns: 130, sent_ns: Some(140), end_ns: 150 };
        let again = Wire { sent_ns: 170, connect_ns: 5, attempts: 2, before: vec![again], ..wire.clone() };
        assert_eq!(
            LoadRequest { wire: Some(again), ..timeline() }.late_ns(),
            Some(30),
            "by its first attempt"
        );
        let joined = LoadRequest { wire: Some(wire), ..timeline() };
        assert!(all.are_told(&timeline()) && !all.are_told(&joined));
        assert!(Objectives { tpot: None, ..all }.are_told(&joined));
    }
}
