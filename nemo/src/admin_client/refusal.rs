//! What the control plane refuses with, in words for the terminal: what is wrong and what to do. Called wherever a
//! call fails.

use std::error::Error as _;

use tonic::{Code, Status};

/// The refusal as an error of the command.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub fn explain(status: Status) -> anyhow::Error {
    let message = status.message();
    let advice = match status.code() {
        // The channel's own errors have a source, the server's answers none.
        Code::Unavailable if status.source().is_some() => {
            return anyhow::anyhow!(
                "the control plane does not answer ({}); check that it runs, and --url (its gRPC address)",
                root(&status)
            );
        }
        Code::Unavailable => "; try again in a moment",
        // tonic's words for an answer that is none of gRPC's.
        Code::Internal if message.starts_with("protocol error") => {
            return anyhow::anyhow!(
                "what answers there does not speak gRPC; --url (NEMO_ADMIN_URL) wants the control plane's gRPC address, \
                 as http://127.0.0.1:8082, not that of its REST API"
            );
        }
        Code::Unauthenticated => "; set NEMO_ADMIN_TOKEN to an admin token of this control plane",
        Code::PermissionDenied => "; ask an owner of the organization, or the operator, for a token that may",
        Code::Aborted => "; somebody else changed it meanwhile: look again, then repeat",
        Code::Unimplemented => "; this control plane is older than this command line",
        _ => "",
    };
    let message = if message.is_empty() { status.code().description() } else { message };
    anyhow::anyhow!("{message}{advice}")
}

/// The innermost reason: "Connection refused" instead of "transport error".
fn root(status: &Status) -> String {
    let mut reason = status.source();
    while let Some(inner) = reason.and_then(std::error::Error::source) {
        reason = Some(inner);
    }
    reason.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let text = |code, message: &str| explain(Status::new(code, message)).to_string();
        assert!(text(Code::Unauthenticated, "no token").contains("NEMO_ADMIN_TOKEN"));
        assert!(text(Code::Unavailable, "the database is away").contains("database is away; try again"));
        assert_eq!(text(Code::InvalidArgument, "name: empty"), "name: empty");
        assert!(!text(Code::Internal, "").is_empty());
        let rest =
            text(Code::Internal, "protocol error: received message with invalid compression flag: 123");
        assert!(rest.contains("gRPC address"), "{rest}");
    }
}
