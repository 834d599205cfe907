//! Which base URLs a node can call. Asked by the admin API before one is stored, and by [`crate::compile`] before it is
//! published.

use http::Uri;
use rustls_pki_types::ServerName;

/// For whoever wrote something else.
pub const EXPECTED: &str = "http(s)://host[:port][/path]";

/// The URL, as far as its scheme and host tell. What a provider allows behind them is its own affair.
///
/// # Errors
/// Why it can't be called.
pub fn parse(text: &str) -> Result<Uri, &'static str> {
    let uri: Uri = text.parse().map_err(|_| "not a URL")?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("not an http or https URL"),
    };
    let host = uri.host().filter(|host| !host.is_empty()).ok_or("no host")?;
    // Behind TLS somebody must prove to be it, so it has to be what certificates are made for.
    if tls && ServerName::try_from(host.trim_start_matches('[').trim_end_matches(']')).is_err() {
        return Err("its host is neither a DNS name nor an IP address");
    }
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses() {
        for text in [
            "https://api.example.com/v1",
            "https://v1",
            "https://under_score.example:8443/v1",
            "https://10.0.0.99/v1",
            "https://[::1]:8443/v1",
            "https://example.com./v1",
            "http://127.0.0.1:11434",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
        for (text, problem) in [
            ("https://-x.example/v1", "its host"),
            ("https://x-.example/v1", "its host"),
            ("https://10.0.0.999/v1", "its host"),
            ("https://a..b/v1", "its host"),
            ("https://a+b/v1", "its host"),
            ("ftp://host", "http or https"),
            ("host/v1", "URL"),
            ("/v1", "http or https"),
            ("", "URL"),
        ] {
            let found = parse(text).unwrap_err();
            assert!(found.contains(problem), "{text}: {found}");
        }
        let long = format!("https://{}.example/v1", "x".repeat(64));
        assert!(parse(&long).is_err());
    }
}
