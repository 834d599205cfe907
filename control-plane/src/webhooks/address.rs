//! Where webhooks may go. Tenants choose the URLs and this process sends, so an URL must not reach what only this
//! process can reach: https only, and only addresses of the public internet, decided for the address that is connected
//! to, not for the name. The operator can allow the rest for installations whose receivers are inside. Pure.
//!
//! Called by the operations (what an URL says of itself) and by [`super::client`] (what its name resolves to).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;

/// Longest URL.
const MAX_URL: usize = 2048;

/// Whether an address belongs to the public internet.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Everything that IANA's registry of special addresses does not call globally reachable, multicast, and what embeds
/// other addresses.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(address) = address.to_ipv4_mapped() {
        return is_public_v4(address);
    }
    let segments = address.segments();
    if segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        // What a network without IPv4 makes of it (NAT64).
        let [a, b] = [segments[6], segments[7]].map(u16::to_be_bytes);
        return is_public_v4(Ipv4Addr::new(a[0], a[1], b[0], b[1]));
    }
    let global = (0x2000..=0x3fff).contains(&segments[0]);
    let special = matches!(
        (segments[0], segments[1]),
        // Protocol assignments with Teredo, documentation, 6to4.
        (0x2001, 0..=0x1ff | 0xdb8) | (0x2002, _) | (0x3fff, 0..=0xfff)
    );
    global && !special
}

/// Why an URL is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    #[error("not a URL")]
    Malformed,
    #[error("longer than {MAX_URL} characters")]
    TooLong,
    #[error("not https")]
    NotHttps,
    #[error("has a user or password")]
    Credentials,
    #[error("has a fragment")]
    Fragment,
    #[error("is on a private network or on this machine")]
    Private,
}

/// An URL as far as its text tells. Names are looked up when something is sent, each time.
///
/// # Errors
/// When it can't be an endpoint.
pub fn check(url: &str, allow_private: bool) -> Result<Uri, BadUrl> {
    if url.len() > MAX_URL {
        return Err(BadUrl::TooLong);
    }
    // `Uri` drops fragments without a word.
    if url.contains('#') {
        return Err(BadUrl::Fragment);
    }
    let uri: Uri = url.parse().map_err(|_| BadUrl::Malformed)?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if allow_private => {}
        _ => return Err(BadUrl::NotHttps),
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(BadUrl::Malformed)?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(BadUrl::Credentials);
    }
    if !allow_private && !may_be_public(host) {
        return Err(BadUrl::Private);
    }
    Ok(uri)
}

/// False for addresses that are not public, and for names that are of this machine.
fn may_be_public(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(address) => is_public(address),
        Err(_) => {
            let name = bare.trim_end_matches('.').to_ascii_lowercase();
            // Other spellings of addresses (octal, one number) are left to no resolver.
            let numeric = name
                .rsplit('.')
                .next()
                .is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()) || label.starts_with("0x"));
            !(numeric || name == "localhost" || name.ends_with(".localhost"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_special_addresses_are_not_public() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::",
            "3fff::1",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "100.63.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2001:4860::8888",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn urls_that_could_reach_inside_are_refused() {
        for (url, error) in [
            ("http://example.com/", BadUrl::NotHttps),
            ("ftp://example.com/", BadUrl::NotHttps),
            ("/hooks", BadUrl::NotHttps),
            ("https://", BadUrl::Malformed),
            ("https://user:pass@example.com/", BadUrl::Credentials),
            ("https://example.com/#x", BadUrl::Fragment),
            ("https://127.0.0.1/", BadUrl::Private),
            ("https://[::1]:8443/", BadUrl::Private),
            ("https://[::ffff:10.0.0.1]/", BadUrl::Private),
            ("https://169.254.169.254/latest", BadUrl::Private),
            ("https://LOCALHOST/", BadUrl::Private),
            ("https://a.localhost./", BadUrl::Private),
            ("https://2130706433/", BadUrl::Private),
            ("https://0x7f.1/", BadUrl::Private),
            ("https://127.0x1/", BadUrl::Private),
        ] {
            assert_eq!(check(url, false), Err(error), "{url}");
        }
        for url in ["https://example.com", "https://example.com:8443/a?b=c", "https://1.1.1.1/"] {
            assert!(check(url, false).is_ok(), "{url}");
        }
        assert!(check("http://127.0.0.1:8080/hook", true).is_ok());
        assert_eq!(check("ftp://127.0.0.1/", true), Err(BadUrl::NotHttps));
    }
}
