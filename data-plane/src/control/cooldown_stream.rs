//! What this node sees of upstreams goes out, what the fleet keeps away from comes in. Called by [`super`].
//!
//! A breaker that opens is told at once; counts, which matter only together with those of others, every second. A
//! session begins with what is open here, and with the whole board from there.

use std::time::Duration;

use bytes::Bytes;
use nemo_proto::{
    common::NodeInfo,
    cooldown::{self as wire, CooldownUpdate, HealthReport, cooldown_service_client::CooldownServiceClient},
};
use nemo_types::{DeploymentId, OrgId};
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::NodeChannel;
use crate::health::{Cause, FailureClass, HealthBoard, Observation, Scope};

/// How often counts are told.
const REPORT: Duration = Duration::from_secs(1);
/// Openings of many breakers at once are one report.
const COALESCE: Duration = Duration::from_millis(5);
/// Observations in one report.
const MAX_OBSERVATIONS: usize = 4096;
/// Cooldowns of a board that is collected before it is taken over: more than a control plane keeps.
const MAX_BOARD: usize = 65_536;

/// The node's side of `CooldownService.Watch`, over all sessions.
pub struct CooldownStream {
    info: NodeInfo,
    health: HealthBoard,
}

impl CooldownStream {
    pub fn new(info: NodeInfo, health: HealthBoard) -> Self {
        Self { info, health }
    }

    /// One session. Ends with `Ok` when the server ends the stream.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn run(&self, channel: &NodeChannel) -> Result<(), Status> {
        let mut client = CooldownServiceClient::new(channel.clone());
        let (reports, outgoing) = mpsc::channel(1);
        let mut open = self.observations(true);
        let rest = open.split_off(open.len().min(MAX_OBSERVATIONS));
        let first = HealthReport { info: Some(self.info.clone()), observations: open };
        reports.send(first).await.map_err(|_| ended())?;
        let mut updates = match client.watch(ReceiverStream::new(outgoing)).await {
            Ok(updates) => updates.into_inner(),
            Err(status) if status.code() == Code::Unimplemented => {
                tracing::info!("the control plane is an older one: cooldowns stay each node's own");
                return std::future::pending().await;
            }
            Err(status) => return Err(status),
        };
        send(&reports, &rest).await?;
        let mut board = Vec::new();
        let mut tick = tokio::time::interval(REPORT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                update = updates.message() => match update? {
                    Some(update) => self.updated(&update, &mut board)?,
                    None => return Ok(()),
                },
                () = self.health.opened() => {
                    tokio::time::sleep(COALESCE).await;
                    self.report(&reports).await?;
                }
                _ = tick.tick() => self.report(&reports).await?,
            }
        }
    }

    async fn report(&self, reports: &mpsc::Sender<HealthReport>) -> Result<(), Status> {
        send(reports, &self.observations(false)).await
    }

    fn observations(&self, all: bool) -> Vec<wire::Observation> {
        self.health.observations(all).iter().map(to_wire).collect()
    }

    /// `board` collects the parts of a whole board.
    fn updated(
        &self,
        update: &CooldownUpdate,
        board: &mut Vec<(Scope, Duration, Cause)>,
    ) -> Result<(), Status> {
        let set: Vec<_> = update.set.iter().filter_map(cooldown).collect();
        if update.full {
            if board.len() + set.len() > MAX_BOARD {
                return Err(Status::resource_exhausted(format!(
                    "a board of more than {MAX_BOARD} cooldowns"
                )));
            }
            board.extend(set);
            if !update.more {
                self.health.replace(board);
                board.clear();
            }
            return Ok(());
        }
        self.health.set(&set);
        for lifted in [false, true] {
            let cleared = update.cleared.iter().filter(|it| it.lifted == lifted);
            let scopes: Vec<_> = cleared.filter_map(|it| scope(&it.org_id, &it.deployment_id)).collect();
            if !scopes.is_empty() {
                self.health.clear(&scopes, lifted);
            }
        }
        Ok(())
    }
}

async fn send(
    reports: &mpsc::Sender<HealthReport>,
    observations: &[wire::Observation],
) -> Result<(), Status> {
    for chunk in observations.chunks(MAX_OBSERVATIONS) {
        let report = HealthReport { info: None, observations: chunk.to_vec() };
        reports.send(report).await.map_err(|_| ended())?;
    }
    Ok(())
}

fn ended() -> Status {
    Status::unavailable("the stream has ended")
}

fn scope(org: &[u8], deployment: &[u8]) -> Option<Scope> {
    let org = if org.is_empty() { None } else { Some(OrgId::from_bytes(org)?) };
    Some((org, DeploymentId::from_bytes(deployment)?))
}

fn cooldown(wire: &wire::Cooldown) -> Option<(Scope, Duration, Cause)> {
    let scope = scope(&wire.org_id, &wire.deployment_id)?;
    let cause = class(wire.failure_class()).map_or(Cause::Manual, Cause::Failure);
    Some((scope, Duration::from_millis(wire.remaining_ms.into()), cause))
}

fn class(wire: wire::FailureClass) -> Option<FailureClass> {
    Some(match wire {
        wire::FailureClass::Unspecified => return None,
        wire::FailureClass::RateLimited => FailureClass::RateLimited,
        wire::FailureClass::Timeout => FailureClass::Timeout,
        wire::FailureClass::Server => FailureClass::Server,
        wire::FailureClass::Connect => FailureClass::Connect,
        wire::FailureClass::Credential => FailureClass::Credential,
        wire::FailureClass::Interrupted => FailureClass::Interrupted,
    })
}

fn to_wire(it: &Observation) -> wire::Observation {
    let class = match it.class {
        FailureClass::RateLimited => wire::FailureClass::RateLimited,
        FailureClass::Timeout => wire::FailureClass::Timeout,
        FailureClass::Server => wire::FailureClass::Server,
        FailureClass::Connect => wire::FailureClass::Connect,
        FailureClass::Credential => wire::FailureClass::Credential,
        FailureClass::Interrupted => wire::FailureClass::Interrupted,
    };
    let clip = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
    wire::Observation {
        org_id: Bytes::copy_from_slice(it.pair.0.as_bytes()),
        deployment_id: Bytes::copy_from_slice(it.pair.1.as_bytes()),
        failure_class: class.into(),
        attempts: it.attempts,
        failures: it.failures,
        opened_ms: it.opened_ms.map(clip),
        hint_ms: it.hint_ms.map(clip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_survive_the_wire() {
        for it in FailureClass::ALL {
            let pair = (OrgId::generate(), DeploymentId::generate());
            let observation =
                Observation { pair, class: it, attempts: 2, failures: 1, hint_ms: None, opened_ms: Some(7) };
            assert_eq!(class(to_wire(&observation).failure_class()), Some(it));
        }
        assert_eq!(class(wire::FailureClass::Unspecified), None);
    }

    /// A node that reconnects holds what the board has, and nothing that it no longer has.
    #[test]
    fn a_whole_board_replaces_in_parts_what_was_held() {
        let health = HealthBoard::default();
        let stream = CooldownStream::new(NodeInfo::default(), health.clone());
        let (org, other) = (OrgId::generate(), OrgId::generate());
        let [old, first, second] = [(); 3].map(|()| DeploymentId::generate());
        let cooldown = |org: Option<OrgId>, deployment: DeploymentId| wire::Cooldown {
            org_id: org.map(|org| Bytes::copy_from_slice(org.as_bytes())).unwrap_or_default(),
            deployment_id: Bytes::copy_from_slice(deployment.as_bytes()),
            remaining_ms: 60_000,
            failure_class: 0,
        };
        let update = |full, more, set| CooldownUpdate { full, more, set, ..CooldownUpdate::default() };
        let mut parts = Vec::new();
        stream.updated(&update(false, false, vec![cooldown(None, old)]), &mut parts).unwrap();
        assert!(health.remaining(org, old).is_some() && health.remaining(other, old).is_some());
        stream.updated(&update(true, true, vec![cooldown(Some(org), first)]), &mut parts).unwrap();
        assert!(health.remaining(org, first).is_none(), "not before it is whole");
        assert!(health.remaining(org, old).is_some());
        stream.updated(&update(true, false, vec![cooldown(None, second)]), &mut parts).unwrap();
        assert!(health.remaining(org, old).is_none());
        assert!(health.remaining(org, first).is_some() && health.remaining(other, first).is_none());
        assert!(health.remaining(other, second).is_some());
    }
}
