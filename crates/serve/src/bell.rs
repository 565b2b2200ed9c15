//! One wake-up of the connection thread for all events of a step.
//!
//! A channel wakes its reader with each event. From the engine's thread, each of these wakes is a system call, since the other
//! thread's runtime has to be told. A reader of [`Events`] is therefore only noted there. When the step's events are handed
//! out, the engine's thread rings once, and the readers are woken on their own thread.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;

use crate::job::Event;

/// The bell between the engine's thread and the connections' thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// The ringing thread. Its wakes wait for a ring.
    ringer: OnceLock<ThreadId>,
    noted: Mutex<Vec<Waker>>,
    rung: Notify,
}

impl Bell {
    /// Makes the calling thread the one that rings. Its wakes wait for a ring; those of any other thread do not.
    pub(crate) fn ringer(&self) -> Ringer {
        self.0.ringer.get_or_init(|| std::thread::current().id());
        Ringer(self.clone())
    }

    /// Returns a job's events for a reader that this bell wakes.
    pub(crate) fn events(&self, receiver: Receiver<Event>) -> Events {
        Events { receiver, bell: self.clone(), waker: None }
    }

    /// Wakes the noted readers after each ring. Runs on the connections' thread, without end.
    pub(crate) async fn answer(self) {
        loop {
            self.0.rung.notified().await;
            let noted = std::mem::take(&mut *self.0.noted.lock().unwrap_or_else(PoisonError::into_inner));
            noted.into_iter().for_each(Waker::wake);
        }
    }

    fn note(&self, reader: &Waker) {
        if self.0.ringer.get() == Some(&std::thread::current().id()) {
            self.0.noted.lock().unwrap_or_else(PoisonError::into_inner).push(reader.clone());
        } else {
            reader.wake_by_ref();
        }
    }
}

/// The end of the bell that rings. It rings a last time when it is dropped.
pub(crate) struct Ringer(Bell);

impl Ringer {
    /// Has the noted readers woken, if there are any.
    pub(crate) fn ring(&self) {
        let shared = &self.0.0;
        if !shared.noted.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            shared.rung.notify_one();
        }
    }
}

impl Drop for Ringer {
    fn drop(&mut self) {
        self.ring();
    }
}

/// The waker of a reader that is woken by the next ring.
struct Noted {
    bell: Bell,
    reader: Waker,
}

impl Wake for Noted {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.bell.note(&self.reader);
    }
}

/// The events of a job. Dropping them cancels the job.
pub(crate) struct Events {
    receiver: Receiver<Event>,
    bell: Bell,
    /// The reader, and the waker made for it.
    waker: Option<(Waker, Waker)>,
}

impl Events {
    /// Returns the next event, `None` if the engine gave the job up.
    pub(crate) fn poll_next(&mut self, context: &Context<'_>) -> Poll<Option<Event>> {
        let reader = context.waker();
        let (_, noted) = match self.waker.take() {
            Some(known) if known.0.will_wake(reader) => self.waker.insert(known),
            _ => {
                let noted = Arc::new(Noted { bell: self.bell.clone(), reader: reader.clone() });
                self.waker.insert((reader.clone(), noted.into()))
            }
        };
        self.receiver.poll_recv(&mut Context::from_waker(noted))
    }

    /// Waits for the next event, `None` if the engine gave the job up.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| self.poll_next(context)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::mpsc;

    use super::*;
    use crate::error::{ApiError, Kind};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn event() -> Event {
        Event::Failed(ApiError::new(Kind::Timeout, ""))
    }

    /// Polls until the bell has answered all rings so far.
    fn answered(bell: &Bell) {
        let mut answer = std::pin::pin!(bell.clone().answer());
        assert!(answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    #[test]
    fn readers_of_a_ringing_thread_are_woken_by_its_ring() {
        let (bell, count) = (Bell::default(), Arc::new(Count::default()));
        let ringer = bell.ringer();
        let woken = || count.0.load(Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&count));
        let context = Context::from_waker(&waker);
        let mut channels: Vec<_> = (0..3)
            .map(|_| {
                let (sender, receiver) = mpsc::channel(4);
                (sender, bell.events(receiver))
            })
            .collect();
        for (_, events) in &mut channels {
            assert!(events.poll_next(&context).is_pending());
        }
        for (sender, _) in &channels {
            sender.try_send(event()).unwrap();
        }
        answered(&bell);
        assert_eq!(woken(), 0, "nothing rang");
        ringer.ring();
        answered(&bell);
        assert_eq!(woken(), 3);
        // A job that the engine drops wakes its reader, too: at the latest when the thread ends.
        let (sender, mut events) = channels.remove(0);
        assert!(events.poll_next(&context).is_ready() && events.poll_next(&context).is_pending());
        drop(sender);
        drop(ringer);
        answered(&bell);
        assert_eq!(woken(), 4);
        assert!(matches!(events.poll_next(&context), Poll::Ready(None)));
    }

    #[test]
    fn other_threads_wake_at_once() {
        let (bell, count) = (Bell::default(), Arc::new(Count::default()));
        std::thread::scope(|scope| scope.spawn(|| drop(bell.ringer())).join().unwrap());
        let (sender, receiver) = mpsc::channel(4);
        let mut events = bell.events(receiver);
        let waker = Waker::from(Arc::clone(&count));
        assert!(events.poll_next(&Context::from_waker(&waker)).is_pending());
        sender.try_send(event()).unwrap();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
    }
}
