//! What the chain prover finds about a published revision goes to the log, each finding once for as long as it holds.
//!
//! The admin API refuses what makes a group unfit; it comes here when a catalog changes below a group, or when rows
//! were edited by hand. It is published all the same: routing keeps requests off a link that can't serve them.

use nemo_snapshot::prover::{Finding, Severity};

/// Lines of one revision.
const MOST: usize = 20;

/// Logs what is new; `logged` becomes what holds now.
pub(super) fn log(logged: &mut Vec<Finding>, revision: u64, findings: Vec<Finding>) {
    let new = new(logged, &findings);
    for finding in new.iter().take(MOST) {
        match finding.severity {
            Severity::Unfit => {
                tracing::error!(revision, %finding, "a model group has a link that serves nothing");
            }
            Severity::Warning => {
                tracing::warn!(revision, %finding, "a model group's fallback does less than its first link");
            }
        }
    }
    if new.len() > MOST {
        tracing::warn!(revision, more = new.len() - MOST, "further findings about model groups");
    }
    *logged = findings;
}

fn new<'a>(logged: &[Finding], findings: &'a [Finding]) -> Vec<&'a Finding> {
    findings.iter().filter(|finding| !logged.contains(finding)).collect()
}

#[cfg(test)]
mod tests {
    use nemo_snapshot::prover::Cause;

    use super::*;

    #[test]
    fn a_finding_is_logged_once_for_as_long_as_it_holds() {
        let finding = |group: &str| Finding {
            severity: Severity::Warning,
            cause: Cause::Tags,
            group: group.into(),
            field: "links[1]".into(),
            message: "m".into(),
            expected: "e".into(),
        };
        let (a, b) = (finding("a"), finding("b"));
        let mut logged = Vec::new();
        assert_eq!(new(&logged, std::slice::from_ref(&a)), [&a]);
        log(&mut logged, 1, vec![a.clone()]);
        assert_eq!(new(&logged, &[a.clone(), b.clone()]), [&b]);
        log(&mut logged, 2, Vec::new());
        assert_eq!(new(&logged, std::slice::from_ref(&a)), [&a]);
    }
}
