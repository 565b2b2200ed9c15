//! A connector that notes when things happen on the wire, and enforces the limits that move with events.
//!
//! A call blocks its thread from beginning to end, and everything here runs on that thread. Its clock is therefore a
//! variable of the thread: connectors and transports get no other handle of the call that they serve.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, Transport, time::Duration as Limit,
};
use ureq::{Error, Timeout};

use crate::Phase;

/// What the wire showed of the call of this thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// A new connection stood.
    pub(super) connected: Option<Instant>,
    /// The last byte was handed over.
    pub(super) sent: Option<Instant>,
    /// The latest bytes arrived, or the end of the connection.
    pub(super) arrived: Option<Instant>,
    /// A byte of an answer arrived.
    pub(super) answered: bool,
    /// When waiting for input ends.
    pub(super) deadline: Option<Instant>,
    /// The limit behind the deadline.
    pub(super) phase: Phase,
    /// The wait for a first event, counted from the last byte sent.
    first_byte: Duration,
}

impl Clock {
    const fn idle() -> Self {
        Self {
            connected: None,
            sent: None,
            arrived: None,
            answered: false,
            deadline: None,
            phase: Phase::FirstByte,
            first_byte: Duration::MAX,
        }
    }
}

thread_local! {
    static CLOCK: Cell<Clock> = const { Cell::new(Clock::idle()) };
}

/// Resets the clock for a new call.
pub(super) fn begin(first_byte: Duration) {
    CLOCK.set(Clock { first_byte, ..Clock::idle() });
}

/// Returns what the clock shows.
pub(super) fn read() -> Clock {
    CLOCK.get()
}

/// Moves the deadline: from now on the next event is awaited.
pub(super) fn expect_within(limit: Duration) {
    update(|clock| {
        clock.deadline = Instant::now().checked_add(limit);
        clock.phase = Phase::BetweenEvents;
    });
}

fn update(change: impl FnOnce(&mut Clock)) {
    let mut clock = CLOCK.get();
    change(&mut clock);
    CLOCK.set(clock);
}

/// Wraps finished connections, encryption included.
#[derive(Debug)]
pub(super) struct StampConnector;

impl<In: Transport> Connector<In> for StampConnector {
    type Out = Stamped<In>;

    fn connect(&self, _: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Stamped<In>>, Error> {
        update(|clock| clock.connected = Some(Instant::now()));
        Ok(chained.map(Stamped))
    }
}

/// A transport that keeps the thread's clock.
pub(super) struct Stamped<T>(T);

impl<T: Transport> fmt::Debug for Stamped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Transport> Transport for Stamped<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.0.transmit_output(amount, timeout)?;
        let now = Instant::now();
        update(|clock| {
            clock.sent = Some(now);
            clock.deadline = now.checked_add(clock.first_byte);
        });
        Ok(())
    }

    fn await_input(&mut self, mut timeout: NextTimeout) -> Result<bool, Error> {
        if let Some(deadline) = read().deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Timeout(Timeout::PerRead));
            }
            if left < *timeout.after {
                timeout = NextTimeout { after: Limit::Exact(left), reason: Timeout::PerRead, ..timeout };
            }
        }
        let more = self.0.await_input(timeout)?;
        update(|clock| {
            clock.arrived = Some(Instant::now());
            clock.answered |= more;
        });
        Ok(more)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}
