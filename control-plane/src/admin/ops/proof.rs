//! Whether what a write leaves behind can be published, and what is doubtful about it. Called by [`super::write`]
//! before it commits, or, with `validate_only`, before it rolls back.
//!
//! The configuration as it would be is compiled by the code that nodes run (I5), and the model groups that the write
//! concerns are proved. What was wrong before and is not of this write's making refuses nothing: it must be possible to
//! mend a configuration step by step.

use nemo_snapshot::{
    Deployment, Kind, Rejection, ResourceKey, ResourceSet, Routing, compile_routing,
    prover::{Finding, Prover, Severity},
};
use nemo_types::{DeploymentId, ModelGroupId, OrgId};

use crate::{
    admin::{Admin, AdminError, ErrorKind},
    publish::builder::{self, Build, BuildError},
    store::{WriteTx, changes::Uncommitted},
};

/// More are not told.
const MAX_WARNINGS: usize = 20;

/// What is written.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// Such as `model_group.update`.
    pub(super) action: &'static str,
    pub(super) kind: &'static str,
    pub(super) id: String,
    pub(super) org: Option<OrgId>,
    pub(super) deleted: bool,
}

impl Subject {
    /// `None` for what routing does not read.
    fn kind(&self) -> Option<Kind> {
        Some(match self.kind {
            "model_group" => Kind::ModelGroup,
            "deployment" => Kind::Deployment,
            "model" => Kind::Model,
            "setting" => Kind::Setting,
            _ => return None,
        })
    }

    /// Of everything but settings, which their id does not name.
    fn resource(&self) -> Option<ResourceKey> {
        let uuid = |id: [u8; 16]| id.to_vec();
        let id = match self.kind()? {
            Kind::Model => self.id.clone().into_bytes(),
            Kind::ModelGroup => uuid(*self.id.parse::<ModelGroupId>().ok()?.as_bytes()),
            Kind::Deployment => uuid(*self.id.parse::<DeploymentId>().ok()?.as_bytes()),
            _ => return None,
        };
        Some(ResourceKey { kind: self.kind()?, id: id.into() })
    }

    /// A member of the entity as the request calls it.
    fn member(&self, field: &str) -> String {
        if self.kind == "model" {
            return format!("model.{field}");
        }
        // Updates carry lists inside of a message, to tell an empty one from none.
        match (self.action, field.strip_prefix("links"), field.strip_prefix("required_tags")) {
            ("model_group.update", Some(rest), _) => format!("links.links{rest}"),
            ("model_group.update", _, Some(rest)) => format!("required_tags.names{rest}"),
            _ => field.to_owned(),
        }
    }

    fn rejected(&self, rejection: &Rejection) -> AdminError {
        let own = rejection.resource.is_some() && rejection.resource == self.resource();
        let (message, expected) = match rejection.message.split_once(", expected ") {
            Some((message, expected)) => (message.to_owned(), expected.to_owned()),
            None => (rejection.message.clone(), "what nodes can serve".to_owned()),
        };
        let of_setting = || self.kind == "setting" && rejection.field == "value";
        if own || of_setting() {
            return AdminError::invalid(self.member(&rejection.field), message, expected);
        }
        let whole = AdminError::new(
            ErrorKind::InvalidArgument,
            format!("the configuration could not be published with this: {rejection}"),
        );
        let too_many_tags = rejection.field == "tags" && self.kind == "model_group";
        let field = match self.kind {
            "model" => Some(self.member(&rejection.field)),
            "model_group" if too_many_tags => Some(self.member("required_tags")),
            _ => None,
        };
        AdminError { field, expected: Some(expected), ..whole }
    }

    fn unfit(&self, finding: &Finding) -> AdminError {
        let expected = finding.expected.clone();
        match self.kind {
            "model_group" => {
                AdminError::invalid(self.member(&finding.field), finding.message.clone(), expected)
            }
            "model" => AdminError::invalid(
                self.member(finding.cause.member()),
                format!("{finding}"),
                "a change that leaves the model fit for the groups that it is in",
            ),
            _ => AdminError {
                expected: Some(expected),
                ..AdminError::new(ErrorKind::InUse, format!("{finding}"))
            },
        }
    }
}

/// What was found wrong with one configuration.
#[derive(Debug, Default)]
struct Verdict {
    rejections: Vec<Rejection>,
    findings: Vec<Finding>,
    above_ceiling: Option<AdminError>,
}

impl Verdict {
    fn of(set: &ResourceSet, subject: &Subject) -> Self {
        match compile_routing(set) {
            Ok(routing) => Self {
                findings: findings(set, &routing, subject),
                above_ceiling: above_ceiling(&routing, subject),
                ..Self::default()
            },
            Err(rejections) => Self { rejections, ..Self::default() },
        }
    }

    fn is_fine(&self) -> bool {
        self.rejections.is_empty()
            && self.above_ceiling.is_none()
            && self.findings.iter().all(|finding| finding.severity == Severity::Warning)
    }

    /// The first thing that is wrong now and was not before.
    fn refusal(&self, before: &Self, subject: &Subject) -> Option<AdminError> {
        // What depends on something broken is rejected with it, now for this reason and then for that one.
        let own = subject.resource();
        let known = |rejection: &Rejection| {
            before.rejections.iter().any(|it| {
                if rejection.resource == own { it == rejection } else { it.resource == rejection.resource }
            })
        };
        let rejection = self.rejections.iter().find(|rejection| !known(rejection));
        let new = |finding: &&Finding| {
            finding.severity == Severity::Unfit
                && (subject.kind == "model_group" || !before.findings.contains(finding))
        };
        rejection
            .map(|rejection| subject.rejected(rejection))
            .or_else(|| self.above_ceiling.clone())
            .or_else(|| self.findings.iter().find(new).map(|finding| subject.unfit(finding)))
    }
}

/// Of the groups that the subject concerns.
fn findings(set: &ResourceSet, routing: &Routing, subject: &Subject) -> Vec<Finding> {
    let Some(key) = subject.resource().filter(|_| !subject.deleted) else { return Vec::new() };
    let prover = Prover::new(set, routing);
    let groups = match key.kind {
        Kind::ModelGroup => {
            let kind = set.get(&key).and_then(|item| item.decode().kind);
            match kind {
                Some(nemo_proto::config::resource::Kind::ModelGroup(group)) => vec![group],
                _ => Vec::new(),
            }
        }
        Kind::Model => prover.groups_with(set, |it| it.model.id.as_bytes() == &*key.id),
        _ => prover.groups_with(set, |it: &Deployment| it.id.as_bytes()[..] == *key.id),
    };
    groups.iter().flat_map(|group| prover.group(group)).collect()
}

/// A setting that is written above the one that bounds it.
fn above_ceiling(routing: &Routing, subject: &Subject) -> Option<AdminError> {
    if subject.kind != "setting" || subject.deleted {
        return None;
    }
    let above = routing.check_ceiling(subject.org, &subject.id).err()?;
    let expected = format!("at most {}, or a higher {} first", above.most, above.ceiling);
    Some(AdminError::invalid("value", above.to_string(), expected))
}

/// Compiles what `tx` would leave behind.
///
/// # Errors
/// The first thing that the write breaks, with the member of the request.
pub(super) async fn prove<T: WriteTx>(
    admin: &Admin,
    tx: &mut T,
    subject: Subject,
) -> Result<Vec<String>, AdminError> {
    if subject.kind().is_none() {
        return Ok(Vec::new());
    }
    let published = admin.published.as_ref().map(|published| published.borrow().clone()).unwrap_or_default();
    let mut view = Uncommitted::begin(tx).await?;
    let build = builder::build_routing(&mut view, published.revision).await.map_err(unreadable)?;
    view.end().await?;
    let after = judge(published.set.clone(), build, &subject).await?;
    if !after.is_fine() {
        let mut committed = admin.store.config_snapshot().await?;
        let build = builder::build_routing(&mut committed, published.revision).await.map_err(unreadable)?;
        drop(committed);
        let before = judge(published.set.clone(), build, &subject).await?;
        if let Some(refusal) = after.refusal(&before, &subject) {
            return Err(refusal);
        }
    }
    let own = |finding: &Finding| match subject.kind {
        "model_group" => format!("{}: {}", finding.field, finding.message),
        _ => finding.to_string(),
    };
    Ok(after.findings.iter().take(MAX_WARNINGS).map(own).collect())
}

/// On a thread of its own: a large configuration takes milliseconds.
async fn judge(base: ResourceSet, build: Build, subject: &Subject) -> Result<Verdict, AdminError> {
    let subject = subject.clone();
    let work = move || {
        let mut set = if build.base_revision == 0 { ResourceSet::new() } else { base };
        set.apply(&build.delta);
        Verdict::of(&set, &subject)
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "the compiler stopped unexpectedly");
        AdminError::new(ErrorKind::Internal, "the control plane's log says what")
    })
}

fn unreadable(error: BuildError) -> AdminError {
    match error {
        BuildError::Store(error) => error.into(),
        BuildError::Row(rejection) => {
            tracing::error!(%rejection, "a row that is no resource");
            AdminError::new(ErrorKind::Internal, "the control plane's log says what")
        }
    }
}
