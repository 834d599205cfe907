//! A URL that is to be fetched, as far as its text tells, and where a redirect leads. Called by [`super::client`].

use http::Uri;

use super::Why;

/// Longest URL.
const MAX_URL: usize = 8 << 10;

/// # Errors
/// When it is none that may be called.
pub fn parse(url: &str) -> Result<Uri, Why> {
    let (url, _fragment) = url.split_once('#').unwrap_or((url, ""));
    if url.len() > MAX_URL {
        return Err(Why::Malformed);
    }
    let uri: Uri = url.parse().map_err(|_| Why::Malformed)?;
    if uri.scheme_str() != Some("https") {
        return Err(Why::NotHttps);
    }
    let authority = uri.authority().ok_or(Why::Malformed)?;
    if authority.as_str().contains('@') {
        return Err(Why::Credentials);
    }
    if authority.host().is_empty() {
        return Err(Why::Malformed);
    }
    Ok(uri)
}

/// Where `location` leads from `base`.
///
/// # Errors
/// When it leads to what may not be called.
pub fn redirect(base: &Uri, location: &str) -> Result<Uri, Why> {
    let authority = base.authority().map_or("", |authority| authority.as_str());
    let scheme = location.split_once(':').map(|(scheme, _)| scheme);
    let absolute = scheme.is_some_and(|it| it.bytes().all(|byte| byte.is_ascii_alphabetic()));
    if absolute {
        return parse(location);
    }
    if let Some(rest) = location.strip_prefix("//") {
        return parse(&format!("https://{rest}"));
    }
    if location.starts_with('/') {
        return parse(&format!("https://{authority}{location}"));
    }
    let path = base.path();
    let folder = &path[..path.rfind('/').map_or(0, |at| at + 1)];
    parse(&format!("https://{authority}{folder}{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_urls_without_secrets_are_fetched() {
        for (url, why) in [
            ("http://a.example/x.png", Why::NotHttps),
            ("ftp://a.example/x", Why::NotHttps),
            ("file:///etc/passwd", Why::Malformed),
            ("/x.png", Why::NotHttps),
            ("https://", Why::Malformed),
            ("https://:443/", Why::Malformed),
            ("https://user@a.example/x", Why::Credentials),
            ("https://u:p@a.example/x", Why::Credentials),
            ("https://a b/x", Why::Malformed),
        ] {
            let found = parse(url).unwrap_err();
            assert!(
                found == why || matches!((found, why), (Why::NotHttps, Why::Malformed)),
                "{url}: {found:?}"
            );
        }
        for url in ["https://a.example", "https://a.example:8443/x.png?y=z#w", "HTTPS://[2606:4700::1]/x"] {
            assert!(parse(url).is_ok(), "{url}");
        }
        let long = format!("https://a.example/{}", "x".repeat(MAX_URL));
        assert_eq!(parse(&long), Err(Why::Malformed));
    }

    #[test]
    fn redirects_are_followed_to_https_only() {
        let base = parse("https://a.example:8443/b/c.png?d=e").unwrap();
        for (location, expected) in [
            ("https://f.example/g", "https://f.example/g"),
            ("//f.example/g", "https://f.example/g"),
            ("/g?h=i", "https://a.example:8443/g?h=i"),
            ("g.png", "https://a.example:8443/b/g.png"),
            ("https://169.254.169.254/latest", "https://169.254.169.254/latest"),
        ] {
            assert_eq!(redirect(&base, location).unwrap().to_string(), expected, "{location}");
        }
        for location in
            ["http://a.example:8443/g", "file:///etc/passwd", "javascript:alert(1)", "//u@f.example/"]
        {
            assert!(redirect(&base, location).is_err(), "{location}");
        }
    }
}
