//! A thin epoll loop for the load generator and the upstream.
//!
//! Both share one core, and both must cost less per request than what they measure: no tasks, no wakers, and a timer
//! in microseconds, so that an open loop sends when it says it does.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

const EVENTS: usize = 256;

pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

#[derive(Clone, Copy)]
pub(crate) struct Ready {
    pub(crate) token: usize,
    /// There is something to read, or the end.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS) })
    }

    /// Watches for reading.
    pub(crate) fn add(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, data(token), epoll::EventFlags::IN)?)
    }

    /// Watches for reading, and for writing if `write`.
    pub(crate) fn watch_writing(&self, source: impl AsFd, token: usize, write: bool) -> io::Result<()> {
        let flags =
            if write { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        Ok(epoll::modify(&self.epoll, source, data(token), flags)?)
    }

    /// Waits until something is ready or the timeout (rounded up to milliseconds) is over, and puts what is ready into
    /// `into`.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, into: &mut Vec<Ready>) -> io::Result<()> {
        let timeout = timeout.map(timespec);
        self.events.clear();
        into.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        into.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            let ended = flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR);
            Ready {
                token: usize::try_from(event.data.u64()).unwrap_or(usize::MAX),
                readable: ended || flags.contains(epoll::EventFlags::IN),
                writable: flags.contains(epoll::EventFlags::OUT),
            }
        }));
        Ok(())
    }
}

/// A timer that becomes readable at every multiple of `period` from now; it stays so until [`Ticker::clear`].
pub(crate) struct Ticker(OwnedFd);

impl Ticker {
    pub(crate) fn new(period: Duration) -> io::Result<Self> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let period = timespec(period);
        timerfd_settime(
            &timer,
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: period, it_value: period },
        )?;
        Ok(Self(timer))
    }

    pub(crate) fn clear(&self) {
        let _not_due = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Ticker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn data(token: usize) -> epoll::EventData {
    epoll::EventData::new_u64(token as u64)
}

/// `None` for "would block".
pub(crate) fn non_blocking<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
