//! A timer that belongs to a connection and outlives its requests: what is armed for one is mostly good for the next,
//! which is due a little later, and so nothing has to be entered into the timer wheel and taken out again for every
//! request. Called by [`super::pool`].

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::time::{Instant, Sleep};

/// See the module. Made when it is first waited for.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

/// The time was up first.
#[derive(Debug)]
pub(super) struct Late;

impl Alarm {
    /// # Errors
    /// When `work` is not done by then.
    // Not `async`, and `work` is pinned by the caller: a future that takes another one has room for it twice.
    pub(super) fn within<T>(
        &mut self,
        by: Instant,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> impl Future<Output = Result<T, Late>> {
        poll_fn(move |cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => self.poll_due(cx, by).map(|()| Err(Late)),
        })
    }

    fn poll_due(&mut self, cx: &mut Context<'_>, by: Instant) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(by)));
        // Armed for later than this; the other way round it fires too early, and is moved then.
        if sleep.deadline() > by {
            sleep.as_mut().reset(by);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= by {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use super::*;

    /// Whatever it was armed for before, it rings when it is due, and not a moment earlier.
    #[tokio::test(start_paused = true)]
    async fn it_rings_when_it_is_due_whatever_was_due_before() {
        let mut alarm = Alarm::default();
        let begin = Instant::now();
        for seconds in [5, 60, 2, 2, 90] {
            let by = Instant::now() + Duration::from_secs(seconds);
            // Mostly the answer is there long before.
            let early = tokio::time::sleep(Duration::from_secs(1));
            alarm.within(by, pin!(early)).await.unwrap();
            alarm.within(by, pin!(std::future::pending::<()>())).await.unwrap_err();
            assert_eq!(Instant::now().duration_since(by), Duration::ZERO);
        }
        assert_eq!(begin.elapsed(), Duration::from_secs(159));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_rang_rings_again() {
        let mut alarm = Alarm::default();
        let by = Instant::now() + Duration::from_secs(1);
        for _ in 0..2 {
            alarm.within(by, pin!(std::future::pending::<()>())).await.unwrap_err();
        }
        assert_eq!(Instant::now(), by);
    }
}
