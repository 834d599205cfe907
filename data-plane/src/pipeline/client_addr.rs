//! Who sent a request: the other side of its connection, or whom a trusted proxy names. Called by [`super::handle`] and
//! [`crate::models`] for keys that are limited to networks.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";
/// More hops are not read: what lies behind them is whatever the client made up.
const MAX_HOPS: usize = 32;

/// The client's address; `None` when the connection has none. `x-forwarded-for` is believed as far as the proxies
/// that wrote it are trusted: from the right, up to the first address that is none of them.
pub fn find(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let peer = peer?.to_canonical();
    let is_trusted = |addr: &IpAddr| trusted.iter().any(|network| network.contains(addr));
    if !is_trusted(&peer) {
        return Some(peer);
    }
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(',')).take(MAX_HOPS);
    let mut nearest = peer;
    for hop in hops {
        // A proxy that writes something else can't tell whom it speaks for.
        let Some(addr) = address(hop.trim()) else { break };
        nearest = addr;
        if !is_trusted(&addr) {
            break;
        }
    }
    Some(nearest)
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]:4711`.
fn address(text: &str) -> Option<IpAddr> {
    let parsed = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|addr| addr.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    parsed.or_else(with_port).or_else(bracketed).map(|addr| addr.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(peer: &str, forwarded: &[&str], trusted: &str) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.split(' ').filter_map(|text| text.parse().ok()).collect();
        find(peer.parse().ok(), &headers, &trusted).unwrap().to_string()
    }

    #[test]
    fn a_client_can_not_choose_its_address() {
        for (peer, forwarded, trusted, client) in [
            ("192.0.2.1", &["10.0.0.1"][..], "", "192.0.2.1"),
            ("192.0.2.1", &["10.0.0.1"], "198.51.100.0/24", "192.0.2.1"),
            ("10.0.0.9", &["203.0.113.5"], "10.0.0.0/8", "203.0.113.5"),
            ("10.0.0.9", &["1.2.3.4, 203.0.113.5"], "10.0.0.0/8", "203.0.113.5"),
            ("10.0.0.9", &["1.2.3.4", "203.0.113.5, 10.0.0.7"], "10.0.0.0/8", "203.0.113.5"),
            ("10.0.0.9", &["10.0.0.8,10.0.0.7"], "10.0.0.0/8", "10.0.0.8"),
            ("10.0.0.9", &["203.0.113.5, unknown"], "10.0.0.0/8", "10.0.0.9"),
            ("10.0.0.9", &[], "10.0.0.0/8", "10.0.0.9"),
            ("::ffff:10.0.0.9", &["[2001:db8::1]:4711"], "10.0.0.0/8", "2001:db8::1"),
            ("10.0.0.9", &["203.0.113.5:80"], "10.0.0.0/8", "203.0.113.5"),
        ] {
            assert_eq!(found(peer, forwarded, trusted), client, "{peer} {forwarded:?} {trusted}");
        }
        assert_eq!(find(None, &HeaderMap::new(), &[]), None);
    }
}
