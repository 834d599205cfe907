//! Free loopback ports for servers that need to be told their port before they start.
//!
//! A server that can bind port 0 and say which one it got is always better. Here a port is reserved against other tests
//! by a UDP socket of the same number, which lives as long as this process, and against the kernel, which hands ports to
//! outgoing connections, by lying below those.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

/// Ports that this process has handed out, with their reservations. Bounded by the number of ports.
static GIVEN: Mutex<Option<HashMap<u16, UdpSocket>>> = Mutex::new(None);

/// Below are the ports of well-known servers.
const FIRST: u16 = 10_000;
/// The first port of outgoing connections, where the kernel does not say.
const DEFAULT_EPHEMERAL: u16 = 32_768;
const TRIES: u64 = 1000;

/// A port on 127.0.0.1 that nobody listens on and that no other call, in whatever process, has returned.
pub fn free_port() -> io::Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    let (random, count) = (RandomState::new(), first_ephemeral().saturating_sub(FIRST).max(1));
    for attempt in 0..TRIES {
        let offset = random.hash_one(attempt) % u64::from(count);
        let port = FIRST + u16::try_from(offset).unwrap_or_default();
        let Ok(reservation) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            given.insert(port, reservation);
            return Ok(port);
        }
    }
    Err(io::Error::other(format!("no free loopback port in {TRIES} tries")))
}

fn first_ephemeral() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(DEFAULT_EPHEMERAL)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_and_each_can_be_bound() {
        let ports: Vec<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len());
        let bound: Vec<_> =
            ports.iter().map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port))).collect();
        assert!(bound.iter().all(Result::is_ok), "{bound:?}");
    }
}
