//! SIGTERM and SIGINT: the first drains, the second stops at once. Called by the three binaries. SIGHUP: certificates
//! are read again at once ([`Hangups`]).

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::drain::DrainTrigger;

/// Starts `drain` on the first signal and cancels `stop` on the second, then ends. The handlers are the caller's to
/// install, before anybody can think that the process is up.
pub async fn watch(mut signals: Signals, drain: DrainTrigger, stop: CancellationToken) {
    signals.next().await;
    tracing::info!("draining; send the signal again to stop at once");
    drain.start();
    signals.next().await;
    tracing::warn!("stopping at once");
    stop.cancel();
}

/// Handlers stay installed once made: a signal between two calls of [`Signals::next`] is not lost.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Resolves on the next SIGTERM or SIGINT.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// SIGHUPs of this process. From the first on they don't end it any more; each is seen by everyone who waits.
#[derive(Debug)]
pub struct Hangups(Option<Signal>);

impl Hangups {
    /// Where no handler can be installed none ever comes, and the log says so.
    pub fn install() -> Self {
        let installed = signal(SignalKind::hangup());
        if let Err(error) = &installed {
            tracing::warn!(%error, "cannot listen for SIGHUP; changed certificates are found all the same");
        }
        Self(installed.ok())
    }

    /// Resolves on the next SIGHUP.
    pub async fn next(&mut self) {
        let came = match &mut self.0 {
            Some(signal) => signal.recv().await,
            None => None,
        };
        if came.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, id};

    use super::*;

    fn raise(name: &str) {
        assert!(Command::new("kill").args([name, &id().to_string()]).status().unwrap().success());
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_stops() {
        let (trigger, watcher) = crate::drain::channel();
        let stop = CancellationToken::new();
        let task = crate::TaskGroup::new();
        // Before the first signal is raised, or it would end the test process.
        let signals = Signals::install().unwrap();
        let (flag, done) = (stop.clone(), tokio::sync::oneshot::channel::<()>());
        raise("-TERM");
        task.spawn("signals", async move {
            watch(signals, trigger, flag).await;
            drop(done.0);
        });
        watcher.signaled().await;
        assert!(!stop.is_cancelled());
        raise("-INT");
        stop.cancelled().await;
    }
}
