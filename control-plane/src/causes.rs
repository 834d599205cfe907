//! What an error says together with its causes: the texts of HTTP clients end at "client error (Connect)". Called by all
//! that sends requests from here: webhooks, the catalog sync, OpenID Connect.

use std::error::Error;

/// The error and its causes, from the outermost to the innermost.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("client error")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_cause_is_told() {
        assert_eq!(with_causes(&Outer(std::io::Error::other("refused"))), "client error: refused");
    }
}
