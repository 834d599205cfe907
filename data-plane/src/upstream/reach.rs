//! Which addresses an origin may have. The operator's deployments are where the operator says. An organization's own are
//! where the organization says: on the internet, and in networks that the operator has opened to them, nowhere else
//! (SSRF). Asked by [`super::pool`] of the address that is connected to, not of the name.

use std::{io, net::SocketAddr, sync::Arc};

use ipnet::IpNet;
use nemo_runtime::public_address::is_public;
use tokio::net::{TcpStream, lookup_host};

/// Of the addresses that a name has.
const MAX_ADDRESSES: usize = 8;

/// Where connections may go.
#[derive(Clone, Debug)]
pub enum Reach {
    /// The operator's own.
    Anywhere,
    /// Addresses of the public internet, and these networks.
    Outside(Arc<[IpNet]>),
}

/// Nothing was connected to: the host has no address that this origin may have.
#[derive(Debug, thiserror::Error)]
#[error("at an address that an organization's own deployments may not have (organization_networks)")]
pub struct OutOfReach;

impl Reach {
    /// Connects to the first address of the host that answers.
    pub async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let Self::Outside(_) = self else { return TcpStream::connect((host, port)).await };
        let allowed: Vec<SocketAddr> = lookup_host((host, port))
            .await?
            .filter(|address| self.may(address))
            .take(MAX_ADDRESSES)
            .collect();
        if allowed.is_empty() {
            return Err(io::Error::other(OutOfReach));
        }
        TcpStream::connect(&*allowed).await
    }

    fn may(&self, address: &SocketAddr) -> bool {
        let Self::Outside(networks) = self else { return true };
        let address = address.ip().to_canonical();
        is_public(address) || networks.iter().any(|network| network.contains(&address))
    }
}

/// Whether an attempt to connect ended because of [`OutOfReach`].
pub fn is_out_of_reach(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<OutOfReach>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_organization_reaches_the_internet_and_what_was_opened_to_it() {
        let opened: IpNet = "10.1.0.0/16".parse().unwrap();
        let outside = Reach::Outside([opened].into());
        for (address, allowed) in [
            ("93.184.216.34:443", true),
            ("[2606:2800:220:1::1]:443", true),
            ("10.1.2.3:8000", true),
            ("[::ffff:10.1.2.3]:8000", true),
            ("10.2.0.1:8000", false),
            ("127.0.0.1:8000", false),
            ("169.254.169.254:80", false),
            ("[::ffff:169.254.169.254]:80", false),
            ("[::1]:80", false),
            ("0.0.0.0:80", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(outside.may(&address), allowed, "{address}");
            assert!(Reach::Anywhere.may(&address));
        }
    }

    #[tokio::test]
    async fn names_and_addresses_are_judged_by_where_they_lead() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let outside = Reach::Outside([].into());
        for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1"] {
            let refused = outside.connect(host, port).await.unwrap_err();
            assert!(is_out_of_reach(&refused), "{host}: {refused}");
        }
        let opened = Reach::Outside(["127.0.0.0/8".parse().unwrap()].into());
        assert!(opened.connect("127.0.0.1", port).await.is_ok());
        assert!(Reach::Anywhere.connect("127.0.0.1", port).await.is_ok());
        drop(listener);
        assert!(!is_out_of_reach(&opened.connect("127.0.0.1", port).await.unwrap_err()));
    }
}
