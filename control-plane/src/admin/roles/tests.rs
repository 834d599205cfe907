//! The table is whole: every role and action has its cell, every method of the API its action.

use std::{collections::BTreeSet, fmt::Write as _, path::Path};

use prost::Message as _;

use super::*;

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Service>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<Method>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
}

/// Covers R000-16: no method can be added without saying who may call it.
#[test]
fn every_method_of_the_api_is_exactly_one_action() {
    let files = Files::decode(nemo_proto::DESCRIPTORS).unwrap().file;
    let declared: BTreeSet<_> = files
        .iter()
        .filter(|file| file.package == "nemo.admin.v1")
        .flat_map(|file| &file.service)
        .flat_map(|service| service.method.iter().map(move |method| (&*service.name, &*method.name)))
        .collect();
    let mapped: BTreeSet<_> = METHODS.iter().map(|(service, method, _)| (*service, *method)).collect();
    assert_eq!(mapped, declared);
    assert_eq!(mapped.len(), METHODS.len(), "a method is listed twice");
}

#[test]
fn every_action_has_one_row_and_a_method() {
    let rows: Vec<_> = TABLE.iter().map(|(action, _)| *action).collect();
    assert_eq!(rows.iter().collect::<std::collections::HashSet<_>>().len(), rows.len());
    let used: std::collections::HashSet<_> = METHODS.iter().map(|(_, _, action)| *action).collect();
    assert_eq!(used, rows.into_iter().collect());
}

/// Whoever stands higher may do everything that is allowed below.
#[test]
fn roles_are_a_ladder() {
    for (action, cells) in TABLE {
        assert!(cells[0], "the operator may not {action}");
        assert!(cells.windows(2).all(|pair| pair[0] || !pair[1]), "{action}: {cells:?}");
        for (role, allowed) in Role::ALL.into_iter().zip(cells) {
            assert_eq!(role.may(action), allowed);
        }
    }
    assert!(Role::ALL.windows(2).all(|pair| pair[0] > pair[1]));
}

#[test]
fn the_operators_role_can_not_be_given() {
    assert_eq!("operator".parse::<Role>(), Err(UnknownRole));
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Operator) {
        assert_eq!(role.name().parse(), Ok(role));
    }
}

const INTRODUCTION: &str = "\
# Roles

Who may do what through the admin API, over REST and gRPC alike. This file is made of the tables in
[roles.rs](../control-plane/src/admin/roles.rs), and a test compares it with them; another goes through every method
with every role. `UPDATE_DOCS=1 cargo nextest run -p nemo-control-plane roles` writes it anew.

The **operator** runs the installation: an operator's admin token, a person in a group with that role, or whoever may
read the data directory. The others are roles in one organization, of a member or of an admin token; in any other
organization they may do nothing, and are told the same whether it exists or not. What belongs to the operator
(credentials, deployments, model groups, settings, admin tokens and audit entries without an organization) is the
operator's alone.

";

/// `docs/roles.md` is what the code says.
#[test]
fn the_document_of_roles_is_up_to_date() {
    let mut text = INTRODUCTION.to_owned();
    let roles: Vec<_> = Role::ALL.iter().map(|role| role.name()).collect();
    writeln!(text, "| action | {} |", roles.join(" | ")).unwrap();
    writeln!(text, "|---|{}", "---|".repeat(roles.len())).unwrap();
    for (action, cells) in TABLE {
        let cells = cells.map(|allowed| if allowed { "yes" } else { "–" });
        writeln!(text, "| {action} | {} |", cells.join(" | ")).unwrap();
    }
    text.push_str(
        "\nEvery method is one action. Only the operator may set `disabled` of an organization. Listing\n",
    );
    text.push_str("organizations shows each caller those that it is in.\n\n| method | action |\n|---|---|\n");
    for (service, method, action) in METHODS {
        writeln!(text, "| `{service}.{method}` | {action} |").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/roles.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/roles.md differs: UPDATE_DOCS=1 cargo nextest run -p nemo-control-plane roles"
    );
}
