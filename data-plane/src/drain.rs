//! The end of a node in five phases: (1) not ready any more, (2) time for load balancers to notice while requests are
//! still served, (3) no new connections, and open ones are asked to finish (`connection: close`, GOAWAY), (4) requests
//! in flight up to the deadline, (5) usage is shipped. Health and metrics answer until the last. Called by
//! [`crate::app`].

use std::{net::SocketAddr, time::Duration};

use nemo_runtime::{drain, drain::DrainWatcher, readiness::Readiness};

/// Runs `port`, which gets the watcher of phase 3, through phases 1 to 4. Ends when the port has.
pub async fn run_port<P: Future<Output = ()>>(
    port: impl FnOnce(DrainWatcher) -> P,
    signal: DrainWatcher,
    readiness: Readiness,
    notice: Duration,
    addr: SocketAddr,
) {
    let (close, closing) = drain::channel();
    let phases = async {
        signal.signaled().await;
        readiness.set_draining();
        if !notice.is_zero() {
            tracing::info!(seconds = notice.as_secs_f32(), "not ready any more; waiting for load balancers");
            tokio::time::sleep(notice).await;
        }
        tracing::info!(address = %addr, "closing the data port; requests in flight finish");
        close.start();
    };
    tokio::join!(port(closing), phases);
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_port_closes_only_after_load_balancers_had_time_to_notice() {
        let (trigger, signal) = drain::channel();
        let readiness = Readiness::new();
        let closed = Arc::new(Mutex::new(None));
        let (seen, ready) = (closed.clone(), readiness.clone());
        let port = |closing: DrainWatcher| async move {
            closing.signaled().await;
            *seen.lock().unwrap() = Some((Instant::now(), ready.is_draining()));
        };
        let begin = Instant::now();
        trigger.start();
        let addr = "127.0.0.1:1".parse().unwrap();
        run_port(port, signal, readiness, Duration::from_secs(5), addr).await;
        let (at, unready) = closed.lock().unwrap().unwrap();
        assert!(at - begin >= Duration::from_secs(5));
        assert!(unready);
    }
}
