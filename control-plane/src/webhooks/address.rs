//! Where webhooks may go. Tenants choose the URLs and this process sends, so an URL must not reach what only this
//! process can reach: https only, and only addresses of the public internet, decided for the address that is connected
//! to, not for the name. The operator can allow the rest for installations whose receivers are inside. Pure.
//!
//! Called by the operations (what an URL says of itself) and by [`super::client`] (what its name resolves to).

use std::net::IpAddr;

use http::Uri;

pub use nemo_runtime::public_address::is_public;

/// Longest URL.
const MAX_URL: usize = 2048;

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
