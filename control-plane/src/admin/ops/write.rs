//! The one way in which operations write. A [`Write`] holds one transaction, and in it come together: the change, its
//! row in the change feed (by trigger), its entry in the audit log, and the record of an idempotency key. Either all of
//! it is committed or nothing.
//!
//! Its steps: [`Admin::write_tenant`] (or `write_owner`, `write_system`) checks the caller and takes the lock that puts
//! all writers into one order; [`Write::replay`] for creates; [`Write::found`] for what is to be changed, which checks
//! `if-match`; then the store's functions on [`Write::tx`]; and one of the functions that end it. With `validate_only`
//! the end is a rollback. Before either, [`proof`] compiles what would be left behind.

use nemo_types::{OrgId, Sealed, Secret};
use prost::Message;
use ring::digest::{SHA256, digest};
use serde::Serialize;
use time::Duration;
use uuid::Uuid;

use super::proof::{self, Subject};
use crate::{
    admin::{
        Action, Admin, AdminError, Call, ErrorKind, Written,
        call::{IDEMPOTENCY_KEY, IF_MATCH},
        entity::{Entity, canonical},
        validate,
    },
    store::{
        OwnerTx, StoreError, SystemTx, TenantTx, WriteTx,
        audit::{self, NewEntry},
        idempotency,
    },
};

/// How long the answer to an idempotency key is kept.
const REMEMBERED: Duration = Duration::hours(24);

/// A write in progress. Dropping it rolls back.
pub(super) struct Write<'a, T> {
    /// For the functions of the store.
    pub(super) tx: T,
    admin: &'a Admin,
    call: &'a Call,
    /// Such as `team.update`.
    action: &'static str,
    before: Option<Image>,
    claim: Option<Claim<'a>>,
}

/// An entity as the audit log keeps it.
#[derive(Clone)]
struct Image {
    org_id: Option<Uuid>,
    kind: &'static str,
    id: String,
    json: String,
}

impl Image {
    fn of<E: Entity>(entity: &E) -> Self {
        let org_id = entity.org_id().parse::<OrgId>().ok().map(|org| org.0);
        Self { org_id, kind: E::KIND, id: entity.id().to_owned(), json: canonical(entity) }
    }
}

/// The idempotency key of this request, which no earlier one has used.
struct Claim<'a> {
    actor: String,
    key: &'a str,
    fingerprint: Vec<u8>,
    /// What the record is sealed for: one owner, caller and key.
    context: Vec<u8>,
}

/// What is sealed under an idempotency key.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "vec", tag = "1")]
    fingerprint: Vec<u8>,
    #[prost(uint64, tag = "2")]
    config_version: u64,
    #[prost(bytes = "vec", tag = "3")]
    answer: Vec<u8>,
}

impl Admin {
    /// A write in the name of an organization, for a caller who may do that there.
    pub(super) async fn write_tenant<'a>(
        &'a self,
        call: &'a Call,
        may: Action,
        org_id: &str,
        action: &'static str,
    ) -> Result<Write<'a, TenantTx>, AdminError> {
        let tx = self.tenant(call, may, org_id).await?;
        Write::begin(self, call, tx, action).await
    }

    /// A write over what an organization, or with an empty `org_id` the operator, owns.
    pub(super) async fn write_owner<'a>(
        &'a self,
        call: &'a Call,
        may: Action,
        org_id: &str,
        action: &'static str,
    ) -> Result<Write<'a, OwnerTx>, AdminError> {
        let tx = self.owner(call, may, org_id).await?;
        Write::begin(self, call, tx, action).await
    }

    /// A write in the name of an organization to what only the system's role can change. Whoever calls this asks for
    /// rows of that organization alone.
    pub(super) async fn write_system_for<'a>(
        &'a self,
        call: &'a Call,
        may: Action,
        org_id: &str,
        action: &'static str,
    ) -> Result<Write<'a, SystemTx>, AdminError> {
        drop(self.tenant(call, may, org_id).await?);
        Write::begin(self, call, self.store.system().await?, action).await
    }

    /// A write to what belongs to the installation, for the operator.
    pub(super) async fn write_system<'a>(
        &'a self,
        call: &'a Call,
        action: &'static str,
    ) -> Result<Write<'a, SystemTx>, AdminError> {
        call.check_operator()?;
        Write::begin(self, call, self.store.system().await?, action).await
    }
}

impl<'a, T: WriteTx> Write<'a, T> {
    async fn begin(
        admin: &'a Admin,
        call: &'a Call,
        mut tx: T,
        action: &'static str,
    ) -> Result<Self, AdminError> {
        // Before any row is read or locked: all writers take it first, so they can't wait for each other in a circle,
        // and what is read from here on stays true.
        tx.lock_config().await?;
        Ok(Self { tx, admin, call, action, before: None, claim: None })
    }

    /// For creates, before anything is written: the answer of an earlier request with the same idempotency key.
    ///
    /// # Errors
    /// [`ErrorKind::IdempotencyKeyReused`] when that request was another one.
    pub(super) async fn replay<R: Message + Default>(
        &mut self,
        request: &impl Serialize,
    ) -> Result<Option<Written<R>>, AdminError> {
        let Some(key) = self.call.idempotency_key.as_ref().filter(|_| !self.call.validate_only) else {
            return Ok(None);
        };
        let key = key.as_str();
        let actor = self.call.caller.actor();
        let actor = format!("{}:{}", actor.kind(), actor.id());
        let fingerprint = format!("{}\0{}", self.action, canonical(request));
        let fingerprint = digest(&SHA256, fingerprint.as_bytes()).as_ref().to_vec();
        let context = format!("idempotency\0{}\0{actor}\0{key}", self.tx.owner_column()).into_bytes();
        let Some(sealed) = idempotency::find(&mut self.tx, &actor, key).await? else {
            self.claim = Some(Claim { actor, key, fingerprint, context });
            return Ok(None);
        };
        let reused = |message: &str| AdminError {
            field: Some(IDEMPOTENCY_KEY.to_owned()),
            expected: Some("a new key for a new request".to_owned()),
            ..AdminError::new(ErrorKind::IdempotencyKeyReused, message)
        };
        let unreadable = |_| reused("the answer to this key can't be read any more");
        let record = self.admin.sealer.open(&context, &Sealed::from_bytes(sealed)).map_err(unreadable)?;
        let record =
            Record::decode(record.as_slice()).map_err(|_| reused("the record of this key is damaged"))?;
        if record.fingerprint != fingerprint {
            return Err(reused(&format!(
                "the key {key:?} was used for another request in the last 24 hours"
            )));
        }
        let answer =
            R::decode(record.answer.as_slice()).map_err(|_| reused("the record of this key is damaged"))?;
        Ok(Some(Written { answer, config_version: Some(record.config_version), replayed: true }))
    }

    /// For changes and deletions: the entity as it is before.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or [`ErrorKind::PreconditionFailed`] when `if-match` names another version.
    pub(super) fn found<E: Entity>(
        &mut self,
        before: Option<impl Into<E>>,
        id: impl std::fmt::Display,
    ) -> Result<E, AdminError> {
        let before: E = before.ok_or_else(|| AdminError::not_found(&E::name(), id))?.into();
        self.precondition(Some(&before))?;
        self.before = Some(Image::of(&before));
        Ok(before)
    }

    /// For what is created or replaced by one request.
    ///
    /// # Errors
    /// [`ErrorKind::PreconditionFailed`] when `if-match` names another version, or there is none.
    pub(super) fn found_or_new<E: Entity>(
        &mut self,
        before: Option<impl Into<E>>,
    ) -> Result<Option<E>, AdminError> {
        let before: Option<E> = before.map(Into::into);
        self.precondition(before.as_ref())?;
        self.before = before.as_ref().map(Image::of);
        Ok(before)
    }

    fn precondition<E: Entity>(&self, found: Option<&E>) -> Result<(), AdminError> {
        let Some(wanted) = &self.call.if_match else { return Ok(()) };
        let etag = found.map(Entity::etag);
        if etag.as_ref().is_some_and(|etag| wanted.allows(etag)) {
            return Ok(());
        }
        let message = match &etag {
            Some(etag) => format!("the {} was changed meanwhile: its etag is {etag}", E::name()),
            None => format!("the {} does not exist", E::name()),
        };
        Err(AdminError {
            field: Some(IF_MATCH.to_owned()),
            expected: Some("the etag of the present version: read it again, then decide again".to_owned()),
            ..AdminError::new(ErrorKind::PreconditionFailed, message)
        })
    }

    /// A secret for the answer. A validation made no key that it could open anything with.
    pub(super) fn reveal(&self, secret: &Secret) -> String {
        if self.call.validate_only { String::new() } else { secret.expose().to_owned() }
    }

    /// Ends a create or a change whose answer is the entity.
    pub(super) async fn done<E: Entity + Message>(mut self, after: E) -> Result<Written<E>, AdminError> {
        let image = Image::of(&after);
        let mut answer = after;
        answer.warn(self.prove(&image, false).await?);
        self.end(Some(image), answer).await
    }

    /// Ends a create or a change whose answer holds more than the entity.
    pub(super) async fn done_with<E: Entity, R: Message>(
        self,
        after: &E,
        answer: R,
    ) -> Result<Written<R>, AdminError> {
        self.end(Some(Image::of(after)), answer).await
    }

    /// Ends a deletion.
    pub(super) async fn deleted<R: Message + Default>(mut self) -> Result<Written<R>, AdminError> {
        if let Some(before) = self.before.clone() {
            self.prove(&before, true).await?;
        }
        self.end(None, R::default()).await
    }

    /// Refuses what could not be published; the answer are warnings.
    async fn prove(&mut self, target: &Image, deleted: bool) -> Result<Vec<String>, AdminError> {
        let (action, kind, id) = (self.action, target.kind, target.id.clone());
        let subject = Subject { action, kind, id, org: target.org_id.map(OrgId), deleted };
        proof::prove(self.admin, &mut self.tx, subject).await
    }

    async fn end<R: Message>(mut self, after: Option<Image>, answer: R) -> Result<Written<R>, AdminError> {
        if self.call.validate_only {
            return Ok(Written { answer, config_version: None, replayed: false });
        }
        self.audit(after.as_ref()).await?;
        let config_version = self.tx.written_revision().await?;
        if let Some(claim) = self.claim.take() {
            let record =
                Record { fingerprint: claim.fingerprint, config_version, answer: answer.encode_to_vec() };
            let sealed = self.admin.sealer.seal_record(&claim.context, &record.encode_to_vec())?;
            let until = validate::now() + REMEMBERED;
            let put = idempotency::put(&mut self.tx, &claim.actor, claim.key, sealed.as_bytes(), until).await;
            put.map_err(|error| match error {
                StoreError::Conflict { .. } => {
                    AdminError::new(ErrorKind::Conflict, "another request with this key is at work")
                        .with_field(IDEMPOTENCY_KEY)
                }
                error => error.into(),
            })?;
        }
        self.tx.finish().await?;
        Ok(Written { answer, config_version: Some(config_version), replayed: false })
    }

    async fn audit(&mut self, after: Option<&Image>) -> Result<(), AdminError> {
        let Some(target) = after.or(self.before.as_ref()) else {
            tracing::error!(action = self.action, "a write without an entity");
            return Err(AdminError::new(ErrorKind::Internal, "the control plane's log says what"));
        };
        let caller = &self.call.caller;
        let remote_addr = self.call.remote_addr.map(|addr| addr.to_string()).unwrap_or_default();
        let entry = NewEntry {
            org_id: target.org_id,
            actor_kind: caller.actor().kind(),
            actor_id: &caller.actor().id(),
            actor_name: caller.name(),
            remote_addr: &remote_addr,
            action: self.action,
            target_kind: target.kind,
            target_id: &target.id,
            before: self.before.as_ref().map(|image| image.json.as_str()),
            after: after.map(|image| image.json.as_str()),
        };
        Ok(audit::append(&mut self.tx, &entry).await?)
    }
}
