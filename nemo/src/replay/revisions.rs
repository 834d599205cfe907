//! The configuration by revision, as it was logged, and as it would be with the file. Requests of neighbouring revisions
//! come mixed, so a few are held; each is fetched as what differs from one that is held already.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use nemo_data_plane::routing::replay::Policy;
use nemo_proto::{
    admin::{ListRoutingConfigRequest, RoutingResource},
    config::{Kind, Resource, ResourceName},
};
use nemo_snapshot::{Delta, Rejection, ResourceKey, ResourceSet, compile};
use nemo_types::DeploymentId;
use prost::Message as _;
use tonic::Code;

use super::candidate::Candidate;
use crate::admin_client::{AdminClient, PAGE, explain};

/// Revisions that are held.
const HELD: usize = 16;

/// One revision.
pub(super) struct Revision {
    set: ResourceSet,
    pub(super) policy: Policy,
    /// With the file laid over it; an error for a revision that lacks what the file names.
    pub(super) candidate: Option<Result<Policy, String>>,
}

pub(super) struct Revisions<'a> {
    client: &'a AdminClient,
    candidate: Option<Candidate>,
    /// An error for one that can't be rebuilt.
    held: BTreeMap<u64, Result<Revision, String>>,
    /// The order in which they were used, by a clock of uses.
    used: BTreeMap<u64, u64>,
    clock: u64,
    seen: BTreeSet<u64>,
}

impl<'a> Revisions<'a> {
    pub(super) fn new(client: &'a AdminClient, candidate: Option<Candidate>) -> Self {
        let (held, used, seen) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { client, candidate, held, used, clock: 0, seen }
    }

    /// How many different ones were asked for.
    pub(super) fn seen(&self) -> u64 {
        self.seen.len() as u64
    }

    /// # Errors
    /// When the file names what no revision had that was asked for.
    pub(super) fn check_names(&self) -> anyhow::Result<()> {
        self.candidate.as_ref().map_or(Ok(()), Candidate::check_names)
    }

    /// The outer error ends a run, the inner one is about this revision.
    pub(super) async fn get(&mut self, number: u64) -> anyhow::Result<Result<&Revision, String>> {
        self.clock += 1;
        self.seen.insert(number);
        if !self.held.contains_key(&number) {
            self.evict();
            let revision = self.fetch(number).await?;
            self.held.insert(number, revision);
        }
        self.used.insert(number, self.clock);
        Ok(match self.held.get(&number).context("a revision that was just put there")? {
            Ok(revision) => Ok(revision),
            Err(reason) => Err(reason.clone()),
        })
    }

    fn evict(&mut self) {
        while self.held.len() >= HELD {
            let Some((oldest, _)) = self.used.iter().min_by_key(|(_, at)| **at) else { return };
            let oldest = *oldest;
            self.used.remove(&oldest);
            self.held.remove(&oldest);
        }
    }

    async fn fetch(&mut self, number: u64) -> anyhow::Result<Result<Revision, String>> {
        let below = self.held.range(..number).rev();
        let base = below.filter_map(|(at, held)| Some((*at, held.as_ref().ok()?.set.clone()))).next();
        let (since, base) = base.unwrap_or_default();
        let (delta, relative) = match self.delta(number, since).await? {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut set = if relative { base } else { ResourceSet::new() };
        set.apply(&delta);
        Ok(self.compiled(set, number))
    }

    fn compiled(&mut self, set: ResourceSet, number: u64) -> Result<Revision, String> {
        let snapshot = compile(&set, number).map_err(|rejections| refused(number, &rejections))?;
        let candidate = self.candidate.as_mut().map(|candidate| {
            let changed = candidate.over(&set)?;
            let snapshot = compile(&changed, number).map_err(|rejections| refused(number, &rejections))?;
            Ok(Policy::new(&snapshot))
        });
        Ok(Revision { set, policy: Policy::new(&snapshot), candidate })
    }

    /// What leads to this revision, and whether it is relative to `since`.
    async fn delta(&self, revision: u64, since: u64) -> anyhow::Result<Result<(Delta, bool), String>> {
        let mut request = ListRoutingConfigRequest {
            revision,
            since_revision: since,
            page_size: PAGE,
            ..ListRoutingConfigRequest::default()
        };
        let mut delta = Delta::default();
        loop {
            let page = match self.client.requests().list_routing_config(request.clone()).await {
                Ok(page) => page.into_inner(),
                Err(status) if status.code() == Code::NotFound => {
                    return Ok(Err(status.message().to_owned()));
                }
                Err(status) => return Err(explain(status)),
            };
            for resource in page.resources {
                add(&mut delta, resource).with_context(|| format!("revision {revision}"))?;
            }
            if page.next_page_token.is_empty() {
                return Ok(Ok((delta, since != 0 && page.since_revision == since)));
            }
            request.page_token = page.next_page_token;
        }
    }
}

fn refused(revision: u64, rejections: &[Rejection]) -> String {
    let shown: Vec<_> = rejections.iter().take(3).map(ToString::to_string).collect();
    format!("revision {revision} can't be served: {}", shown.join("; "))
}

fn add(delta: &mut Delta, resource: RoutingResource) -> anyhow::Result<()> {
    if resource.resource.is_empty() {
        let kind = format!("KIND_{}", resource.kind.to_ascii_uppercase());
        let kind = Kind::from_str_name(&kind).context("a resource of an unknown kind")?;
        let id = match kind {
            Kind::Model => resource.id.into_bytes(),
            // All of them are UUIDs.
            _ => resource.id.parse::<DeploymentId>().context("an id that is none")?.as_bytes().to_vec(),
        };
        let name = ResourceName { kind: kind.into(), id: id.into() };
        delta.remove(ResourceKey::from_name(&name).context("a resource without id")?);
        return Ok(());
    }
    let bytes = BASE64_STANDARD.decode(&resource.resource)?;
    delta.upsert(Resource::decode(&*bytes)?)?;
    Ok(())
}
