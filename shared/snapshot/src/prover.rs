//! The chain prover: whether the links of a model group can serve what the group is there for.
//!
//! Pure. The admin API refuses a write that makes a group [`Severity::Unfit`] and answers with the warnings; the
//! publisher logs both. What is broken by itself (an empty pool, weights that are all zero) is no finding: it does not
//! compile. An unfit group does: routing keeps requests off a link that can't serve them in any case, and a model that
//! loses a tag must not keep a whole installation from being published.

use std::collections::{BTreeSet, HashMap};

use nemo_proto::config::{self, Kind, resource::Kind as R};
use nemo_types::DeploymentId;

use crate::{Deployment, ResourceSet, Routing};

/// What follows from a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The group works, but a fallback can't do all that the primary pool does.
    Warning,
    /// A link, or the group, can never serve a request.
    Unfit,
}

/// The member of a model that a finding comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    Endpoints,
    Tags,
    Context,
    /// Its deployments are switched off.
    Disabled,
}

impl Cause {
    /// The member's name.
    pub fn member(self) -> &'static str {
        match self {
            Self::Endpoints => "endpoints",
            Self::Tags => "tags",
            Self::Context => "context_window",
            Self::Disabled => "disabled",
        }
    }
}

/// Something that is not as it should be with one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    pub cause: Cause,
    pub group: String,
    /// Member of the group: `links[1]`, `links[0].deployments[2]`, `required_tags[0]`.
    pub field: String,
    pub message: String,
    pub expected: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "model group {:?}, {}: {}", self.group, self.field, self.message)
    }
}

/// Findings of all groups, those that are more severe first.
pub fn prove(set: &ResourceSet, routing: &Routing) -> Vec<Finding> {
    let prover = Prover::new(set, routing);
    let groups = set.sorted(Kind::ModelGroup);
    let mut findings: Vec<_> = groups
        .iter()
        .filter_map(|resource| match &resource.kind {
            Some(R::ModelGroup(group)) => Some(prover.group(group)),
            _ => None,
        })
        .flatten()
        .collect();
    findings.sort_by(|a, b| (b.severity, &a.group, &a.field).cmp(&(a.severity, &b.group, &b.field)));
    findings
}

/// Proves group after group against one snapshot.
pub struct Prover<'a> {
    routing: &'a Routing,
    deployments: HashMap<DeploymentId, &'a Deployment>,
    /// Tags that some model has.
    known: BTreeSet<&'a str>,
}

/// What the members of one link can do together.
#[derive(Default)]
struct Ability<'a> {
    /// `None`: everything, as far as the catalog knows.
    endpoints: Option<BTreeSet<&'a str>>,
    tags: BTreeSet<&'a str>,
    /// The largest; `None`: that of some member is unknown.
    context: Option<u64>,
}

impl<'a> Ability<'a> {
    fn of(members: &[&'a Deployment]) -> Self {
        let models = || members.iter().map(|member| &member.model);
        let unknown = models().any(|model| model.endpoints.is_empty());
        let endpoints = models().flat_map(|model| &model.endpoints).map(|endpoint| &**endpoint).collect();
        let unbounded = models().any(|model| model.context_window == 0);
        Self {
            endpoints: (!unknown).then_some(endpoints),
            tags: models().flat_map(|model| &model.tags).map(|tag| &**tag).collect(),
            context: models().map(|model| model.context_window).max().filter(|_| !unbounded),
        }
    }
}

fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}

impl<'a> Prover<'a> {
    pub fn new(set: &ResourceSet, routing: &'a Routing) -> Self {
        debug_assert!(routing.deployments().len() <= set.count(Kind::Deployment));
        let deployments = routing.deployments().iter().map(|deployment| (deployment.id, &**deployment));
        let tags = routing.models.values().flat_map(|model| &model.tags);
        Self { routing, deployments: deployments.collect(), known: tags.map(|tag| &**tag).collect() }
    }

    /// Groups that have a deployment which `concerned` selects.
    pub fn groups_with(
        &self,
        set: &ResourceSet,
        concerned: impl Fn(&Deployment) -> bool,
    ) -> Vec<config::ModelGroup> {
        let groups = set.sorted(Kind::ModelGroup).into_iter().filter_map(|resource| match resource.kind {
            Some(R::ModelGroup(group)) => Some(group),
            _ => None,
        });
        groups
            .filter(|group| {
                let mut members = group.links.iter().flat_map(|link| &link.deployments);
                members.any(|member| self.deployment(member).is_some_and(&concerned))
            })
            .collect()
    }

    fn deployment(&self, member: &config::LinkDeployment) -> Option<&'a Deployment> {
        self.deployments.get(&DeploymentId::from_bytes(&member.deployment_id)?).copied()
    }

    /// Findings of one group.
    pub fn group(&self, group: &config::ModelGroup) -> Vec<Finding> {
        let mut findings = Findings { group: &group.name, all: Vec::new() };
        self.required_tags(group, &mut findings);
        let links: Vec<Vec<&Deployment>> = group
            .links
            .iter()
            .map(|link| {
                link.deployments.iter().filter(|it| it.weight > 0).filter_map(|it| self.deployment(it))
            })
            .map(Iterator::collect)
            .collect();
        let Some(primary) = links.first().map(|members| Ability::of(members)) else { return findings.all };
        for (at, members) in links.iter().enumerate() {
            if members.iter().all(|member| member.disabled) {
                let message = "every deployment of this link is switched off".to_owned();
                findings.warn(Cause::Disabled, format!("links[{at}]"), message, "one that is on");
            }
            self.tags_of_link(at, group, &mut findings);
            if at > 0 {
                compare(at, &primary, &Ability::of(members), &mut findings);
            }
        }
        findings.all
    }

    fn required_tags(&self, group: &config::ModelGroup, findings: &mut Findings<'_>) {
        for (at, tag) in group.required_tags.iter().enumerate() {
            if !self.known.contains(tag.as_str()) {
                let message = format!("no model of the catalog has the tag {tag:?}");
                let expected = format!("one of: {}", listed(self.known.iter().copied()));
                findings.unfit(Cause::Tags, format!("required_tags[{at}]"), message, expected);
            }
        }
    }

    /// Whether the members of a link have the group's required tags.
    fn tags_of_link(&self, at: usize, group: &config::ModelGroup, findings: &mut Findings<'_>) {
        let Ok(required) = self.routing.tag_set(group.required_tags.iter().map(String::as_str)) else {
            return;
        };
        let members: Vec<_> = group.links[at]
            .deployments
            .iter()
            .enumerate()
            .filter_map(|(position, member)| Some((position, self.deployment(member)?)))
            .collect();
        let lacking = |deployment: &Deployment| required.minus(deployment.model.tag_set);
        if members.iter().all(|(_, deployment)| !lacking(deployment).is_empty()) {
            let common =
                members.iter().fold(required, |common, (_, it)| crate::TagSet(common.0 & lacking(it).0));
            // When each lacks another one, there is none to name for all.
            let missing = if common.is_empty() { required } else { common };
            let names = listed(self.routing.tags.names(missing));
            let message = format!("no deployment of this link has the group's required tags: {names}");
            let expected = "a deployment of a model that has them all, or fewer required_tags";
            findings.unfit(Cause::Tags, format!("links[{at}]"), message, expected);
            return;
        }
        for (position, deployment) in members {
            let missing = lacking(deployment);
            if !missing.is_empty() {
                let names = listed(self.routing.tags.names(missing));
                let message = format!(
                    "{} is never used here: its model lacks the group's required tags {names}",
                    deployment.name
                );
                let field = format!("links[{at}].deployments[{position}]");
                findings.warn(Cause::Tags, field, message, "a model that has them");
            }
        }
    }
}

/// What the primary pool can do and a fallback can't.
fn compare(at: usize, primary: &Ability<'_>, link: &Ability<'_>, findings: &mut Findings<'_>) {
    let field = || format!("links[{at}]");
    if let (Some(wanted), Some(served)) = (&primary.endpoints, &link.endpoints) {
        let missing = || listed(wanted.difference(served).copied());
        if !wanted.is_empty() && wanted.is_disjoint(served) {
            let message = format!(
                "serves none of the endpoints of the first link ({}), but {}",
                listed(wanted.iter().copied()),
                listed(served.iter().copied())
            );
            let expected = "deployments whose models serve what the first link serves";
            findings.unfit(Cause::Endpoints, field(), message, expected);
            return;
        }
        if !wanted.is_subset(served) {
            let message =
                format!("is no fallback for {}: the first link serves it, this one does not", missing());
            findings.warn(Cause::Endpoints, field(), message, "the endpoints of the first link");
        }
    }
    if !primary.tags.is_subset(&link.tags) {
        let missing = listed(primary.tags.difference(&link.tags).copied());
        let message =
            format!("is no fallback for requests that need the tags {missing}, which the first link has");
        findings.warn(Cause::Tags, field(), message, "the tags of the first link");
    }
    if let (Some(wanted), Some(held)) = (primary.context, link.context)
        && held < wanted
    {
        let message = format!("holds {held} tokens of context, the first link {wanted}");
        findings.warn(Cause::Context, field(), message, "a context window as large as the first link's");
    }
}

struct Findings<'a> {
    group: &'a str,
    all: Vec<Finding>,
}

impl Findings<'_> {
    fn unfit(&mut self, cause: Cause, field: String, message: String, expected: impl Into<String>) {
        self.push(Severity::Unfit, cause, field, message, expected.into());
    }

    fn warn(&mut self, cause: Cause, field: String, message: String, expected: &str) {
        self.push(Severity::Warning, cause, field, message, expected.to_owned());
    }

    fn push(&mut self, severity: Severity, cause: Cause, field: String, message: String, expected: String) {
        let group = self.group.to_owned();
        self.all.push(Finding { severity, cause, group, field, message, expected });
    }
}

#[cfg(test)]
mod tests;
