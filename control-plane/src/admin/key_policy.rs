//! Checks of what a key is limited to and carries: patterns of models and endpoints, networks, tags, metadata. Called by
//! `ops/keys.rs`.

use ipnet::IpNet;

use super::{AdminError, validate};

/// Labels of the data plane's endpoints, which a test there compares with its own.
pub use nemo_types::endpoint::LABELS as ENDPOINTS;

/// Most entries of a list of names.
const MAX_NAMES: usize = 1000;
const MAX_CIDRS: usize = 100;
const MAX_TAGS: usize = 32;
/// Bytes of a key's metadata.
const MAX_METADATA: usize = 4096;

/// Names of models that a key may use; `*` stands for any characters.
///
/// # Errors
/// With the entry that is no pattern.
pub(super) fn models(field: &str, patterns: &[String]) -> Result<(), AdminError> {
    validate::at_most(field, patterns.len(), MAX_NAMES)?;
    for (at, pattern) in patterns.iter().enumerate() {
        let field = format!("{field}[{at}]");
        let well_formed = (1..=256).contains(&pattern.len())
            && pattern.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/@-*".contains(&b))
            && pattern.bytes().any(|b| b.is_ascii_alphanumeric());
        if !well_formed {
            let expected = "1 to 256 of A-Z a-z 0-9 . _ : / @ - and * for any characters; an empty list allows \
                            every model";
            return Err(AdminError::invalid(field, format!("{pattern:?} is no model or pattern"), expected));
        }
    }
    Ok(())
}

/// Labels of endpoints; `*` stands for any characters.
///
/// # Errors
/// With the entry that matches no endpoint.
pub(super) fn endpoints(field: &str, patterns: &[String]) -> Result<(), AdminError> {
    validate::at_most(field, patterns.len(), MAX_NAMES)?;
    for (at, pattern) in patterns.iter().enumerate() {
        let allowed = nemo_snapshot::policy::Allowed::new(std::slice::from_ref(pattern));
        if !ENDPOINTS.iter().any(|label| allowed.permits(label)) {
            let expected = format!("one of {}; or with * for any characters", ENDPOINTS.join(", "));
            let message = format!("{pattern:?} is no endpoint");
            return Err(AdminError::invalid(format!("{field}[{at}]"), message, expected));
        }
    }
    Ok(())
}

/// Networks in the form in which they are kept: `10.0.0.7/8` is `10.0.0.0/8`, an address is a network of one.
///
/// # Errors
/// With the entry that is no network.
pub(super) fn cidrs(field: &str, networks: &[String]) -> Result<Vec<String>, AdminError> {
    validate::at_most(field, networks.len(), MAX_CIDRS)?;
    let network = |(at, text): (usize, &String)| {
        let single = || text.parse::<std::net::IpAddr>().map(IpNet::from);
        let parsed = text.parse::<IpNet>().or_else(|_| single());
        parsed.map(|network| network.trunc().to_string()).map_err(|_| {
            let expected = "a network as in 10.0.0.0/8 or 2001:db8::/32, or an address";
            AdminError::invalid(format!("{field}[{at}]"), format!("{text:?} is no network"), expected)
        })
    };
    networks.iter().enumerate().map(network).collect()
}

/// Capability tags.
///
/// # Errors
/// With the entry that is no tag, or is there twice.
pub(super) fn tags(field: &str, tags: &[String]) -> Result<(), AdminError> {
    validate::at_most(field, tags.len(), MAX_TAGS)?;
    for (at, tag) in tags.iter().enumerate() {
        let field = format!("{field}[{at}]");
        validate::slug(&field, tag)?;
        if tags[..at].contains(tag) {
            return Err(AdminError::invalid(field, format!("{tag:?} is there twice"), "each tag once"));
        }
    }
    Ok(())
}

/// A JSON object, or nothing.
///
/// # Errors
/// When it is something else, or too large.
pub(super) fn metadata(field: &str, text: &str) -> Result<(), AdminError> {
    let expected = format!("a JSON object of at most {MAX_METADATA} bytes, as text");
    let refuse = |message: String| Err(AdminError::invalid(field, message, expected.clone()));
    if text.is_empty() {
        return Ok(());
    }
    if text.len() > MAX_METADATA {
        return refuse(format!("{} bytes", text.len()));
    }
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
        Ok(_) => Ok(()),
        Err(error) => refuse(format!("not a JSON object: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn every_entry_that_is_wrong_is_named() {
        type Check = fn(&str, &[String]) -> Result<(), AdminError>;
        let networks: Check = |field, entries| cidrs(field, entries).map(drop);
        for (check, good, bad) in [
            (models as Check, "openai/*", ""),
            (models, "gpt-5*-mini", "*"),
            (models, "m", "a b"),
            (endpoints, "chat.completions", "chat"),
            (endpoints, "images.*", "Images.*"),
            (networks, "10.0.0.0/8", "10.0.0.0/33"),
            (networks, "2001:db8::1", "everywhere"),
            (tags, "vision", "Vision"),
            (tags, "long-context", ""),
        ] {
            check("f", &list(&[good])).unwrap();
            let error = check("f", &list(&[good, bad])).unwrap_err();
            assert_eq!(error.field.as_deref(), Some("f[1]"), "{error}");
            assert!(error.expected.is_some());
        }
        assert_eq!(tags("f", &list(&["a", "a"])).unwrap_err().field.as_deref(), Some("f[1]"));
        assert_eq!(cidrs("f", &vec!["10.0.0.1".to_owned(); 101]).unwrap_err().field.as_deref(), Some("f"));
    }

    #[test]
    fn networks_are_kept_in_one_form() {
        let kept = cidrs("f", &list(&["10.1.2.3/8", "192.0.2.1", "2001:DB8::1/32"])).unwrap();
        assert_eq!(kept, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
    }

    #[test]
    fn metadata_is_a_small_json_object() {
        for text in ["", "{}", r#"{"team":{"cost":[1,null]}}"#] {
            metadata("f", text).unwrap();
        }
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_METADATA));
        for text in ["[]", "1", "{", "{} {}", &large] {
            assert_eq!(metadata("f", text).unwrap_err().field.as_deref(), Some("f"), "{text}");
        }
    }
}
