//! Cooldowns by hand: see what the fleet keeps away from, set one, lift one. An organization's are its own; with an
//! empty `org_id` they are the operator's, and hold for everybody.
//!
//! What is in force is on the board, not in the database; who did what is in the audit log like any other write. The
//! board is written while the write still can be rolled back, and not waited for longer than [`PATIENCE`].

use std::{sync::Arc, time::Duration};

use nemo_proto::admin::{
    ClearCooldownRequest, ClearCooldownResponse, Cooldown, ListCooldownsRequest, ListCooldownsResponse,
    SetCooldownRequest,
};
use nemo_snapshot::Routing;
use nemo_types::{DeploymentId, OrgId};
use tokio::time::{Instant, timeout};

use crate::{
    admin::{Action, Admin, AdminError, Call, ErrorKind, Written, validate},
    cooldown::{
        Board, Cause, Cooling, Scope, Value,
        board::{MAX_ENTRIES, Outcome},
    },
    coordination::Unavailable,
    publish::Publisher,
    store::{OwnerTx, deployments},
};

/// A week: whoever keeps away for longer switches the deployment off.
pub(in crate::admin) const LONGEST_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Characters.
pub(in crate::admin) const LONGEST_REASON: usize = 256;
/// Cooldowns in one answer.
const LISTED: usize = 5_000;
/// Other writers wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

const _: () = assert!(LISTED <= MAX_ENTRIES);

/// What the operations work with.
#[derive(Clone)]
pub struct Cooldowns {
    board: Board,
    publisher: Arc<Publisher>,
}

impl std::fmt::Debug for Cooldowns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cooldowns").finish_non_exhaustive()
    }
}

impl Cooldowns {
    pub fn new(board: Board, publisher: Arc<Publisher>) -> Self {
        Self { board, publisher }
    }

    fn connected(&self) -> Result<(), AdminError> {
        if self.board.is_connected() { Ok(()) } else { Err(away(&Unavailable("not connected".into()))) }
    }
}

impl Admin {
    pub async fn set_cooldown(
        &self,
        call: &Call,
        request: SetCooldownRequest,
    ) -> Result<Written<Cooldown>, AdminError> {
        let deployment: DeploymentId = validate::id("deployment_id", &request.deployment_id)?;
        if !(1..=LONGEST_MS).contains(&request.duration_ms) {
            let message = format!("{} is no duration of a cooldown", request.duration_ms);
            let expected = format!("1 to {LONGEST_MS} milliseconds (a week)");
            return Err(AdminError::invalid("duration_ms", message, expected));
        }
        check_reason(&request.reason)?;
        let cooldowns = self.cooldowns()?;
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "cooldown.set").await?;
        let (scope, name) = cooldowns.scope(&mut write.tx, &request.org_id, deployment).await?;
        let before = cooldowns.board.of(scope.org, deployment);
        write.found_or_new::<Cooldown>(before.map(|it| describe(&it, &name, Instant::now())))?;
        let value = Value {
            cause: Cause::Manual,
            duration_ms: request.duration_ms,
            reason: request.reason.clone(),
            reporter: call.caller.name().to_owned(),
            generation: 0,
            lifted: false,
        };
        let after = Cooldown {
            org_id: request.org_id,
            deployment_id: deployment.to_string(),
            deployment: name,
            cause: value.cause.label().to_owned(),
            reason: request.reason,
            remaining_ms: request.duration_ms,
            reporter: value.reporter.clone(),
        };
        if !call.validate_only {
            cooldowns.connected()?;
            match reached(timeout(PATIENCE, cooldowns.board.set(scope, value)).await)? {
                Outcome::Set => {}
                Outcome::Kept { remaining } => {
                    let seconds = remaining.as_secs();
                    let message = format!("one is in force for another {seconds} s, and none is shortened");
                    let error = AdminError::new(ErrorKind::InUse, message).with_field("duration_ms");
                    return Err(AdminError {
                        expected: Some("a longer duration, or clear the present one first".to_owned()),
                        ..error
                    });
                }
            }
        }
        write.done(after).await
    }

    pub async fn list_cooldowns(
        &self,
        call: &Call,
        request: ListCooldownsRequest,
    ) -> Result<ListCooldownsResponse, AdminError> {
        let cooldowns = self.cooldowns()?;
        // Checks the caller, and that the organization exists.
        drop(self.owner(call, Action::Read, &request.org_id).await?);
        let org = match request.org_id.as_str() {
            "" => None,
            text => Some(validate::id::<OrgId>("org_id", text)?),
        };
        let (routing, now) = (cooldowns.publisher.routing(), Instant::now());
        let named = |it: &Cooling| deployment_name(&routing, it.scope.org.or(org), it.scope.deployment);
        let concerned = |it: &Cooling| match org {
            None => true,
            // Which deployments others have is nobody's business.
            Some(org) => it.scope.org == Some(org) || (it.scope.org.is_none() && named(it).is_some()),
        };
        let all = cooldowns.board.list().into_iter().filter(concerned);
        let mut listed: Vec<_> =
            all.take(LISTED + 1).map(|it| describe(&it, &named(&it).unwrap_or_default(), now)).collect();
        let truncated = listed.len() > LISTED;
        listed.truncate(LISTED);
        Ok(ListCooldownsResponse { cooldowns: listed, truncated })
    }

    pub async fn clear_cooldown(
        &self,
        call: &Call,
        request: ClearCooldownRequest,
    ) -> Result<Written<ClearCooldownResponse>, AdminError> {
        let deployment: DeploymentId = validate::id("deployment_id", &request.deployment_id)?;
        let cooldowns = self.cooldowns()?;
        let mut write = self.write_owner(call, Action::Write, &request.org_id, "cooldown.clear").await?;
        let (scope, name) = cooldowns.scope(&mut write.tx, &request.org_id, deployment).await?;
        let before = cooldowns.board.of(scope.org, deployment);
        write.found::<Cooldown>(before.map(|it| describe(&it, &name, Instant::now())), deployment)?;
        if !call.validate_only {
            cooldowns.connected()?;
            let lifted = cooldowns.board.lift(scope, call.caller.name());
            reached(timeout(PATIENCE, lifted).await)?;
        }
        write.deleted().await
    }

    fn cooldowns(&self) -> Result<&Cooldowns, AdminError> {
        self.cooldowns
            .as_ref()
            .ok_or_else(|| AdminError::new(ErrorKind::Unavailable, "there is no fleet to keep away"))
    }
}

impl Cooldowns {
    /// Whom it is about, and the name of the deployment, which must be one that they use.
    async fn scope(
        &self,
        tx: &mut OwnerTx,
        org_id: &str,
        deployment: DeploymentId,
    ) -> Result<(Scope, String), AdminError> {
        let org = match org_id {
            "" => None,
            text => Some(validate::id::<OrgId>("org_id", text)?),
        };
        // One that was just made may not be published yet; one of the operator is in no organization's rows.
        let own = deployments::get(tx, deployment.0).await?.map(|row| row.name);
        let name = own.or_else(|| deployment_name(&self.publisher.routing(), org, deployment));
        let unknown = || AdminError::not_found("deployment", deployment).with_field("deployment_id");
        Ok((Scope { org, deployment }, name.ok_or_else(unknown)?))
    }
}

/// Of a published deployment that the organization can use; without one, of any.
fn deployment_name(routing: &Routing, org: Option<OrgId>, id: DeploymentId) -> Option<String> {
    let found = routing.deployments().iter().find(|it| it.id == id)?;
    let usable = org.is_none() || found.org_id.is_none() || found.org_id == org;
    usable.then(|| found.name.to_string())
}

fn describe(it: &Cooling, name: &str, now: Instant) -> Cooldown {
    Cooldown {
        org_id: it.scope.org.map(|org| org.to_string()).unwrap_or_default(),
        deployment_id: it.scope.deployment.to_string(),
        deployment: name.to_owned(),
        cause: it.cause.label().to_owned(),
        reason: it.reason.clone(),
        remaining_ms: u64::try_from(it.remaining(now).as_millis()).unwrap_or(u64::MAX),
        reporter: it.reporter.clone(),
    }
}

fn check_reason(reason: &str) -> Result<(), AdminError> {
    if reason.chars().count() <= LONGEST_REASON && !reason.chars().any(char::is_control) {
        return Ok(());
    }
    let expected = format!("at most {LONGEST_REASON} characters, none of them a control character");
    Err(AdminError::invalid("reason", "has another form", expected))
}

fn away(error: &Unavailable) -> AdminError {
    let message = format!("cooldowns can't be written now: {error}; nodes go on with their own breakers");
    AdminError::new(ErrorKind::Unavailable, message)
}

fn reached<T>(answer: Result<Result<T, Unavailable>, tokio::time::error::Elapsed>) -> Result<T, AdminError> {
    let late = |_| away(&Unavailable(format!("no answer within {} s", PATIENCE.as_secs())));
    answer.map_err(late)?.map_err(|error| away(&error))
}
