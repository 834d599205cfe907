//! SIGTERM and SIGINT: the first drains, the second stops at once. Called by the three binaries.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::drain::DrainTrigger;

/// Starts `drain` on the first signal and cancels `stop` on the second, then ends.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn watch(drain: DrainTrigger, stop: CancellationToken) -> std::io::Result<()> {
    let mut signals = Signals::install()?;
    signals.next().await;
    tracing::info!("draining; send the signal again to stop at once");
    drain.start();
    signals.next().await;
    tracing::warn!("stopping at once");
    stop.cancel();
    Ok(())
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
        // Installed before the first signal is raised, or it would end the test process.
        let _installed = Signals::install().unwrap();
        let (flag, done) = (stop.clone(), tokio::sync::oneshot::channel::<()>());
        task.spawn("signals", async move {
            watch(trigger, flag).await.unwrap();
            drop(done.0);
        });
        tokio::task::yield_now().await;
        raise("-TERM");
        watcher.signaled().await;
        assert!(!stop.is_cancelled());
        raise("-INT");
        stop.cancelled().await;
    }
}
