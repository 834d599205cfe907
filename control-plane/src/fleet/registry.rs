//! The nodes that this replica has seen, and what each of them holds. In memory: it is rebuilt as nodes reconnect.
//!
//! Fed by `grpc/config_service.rs` (connections, acknowledgements) and `grpc/usage_service.rs` (dropped events); read by
//! the admin API, which adds what other replicas wrote of theirs, and by the metrics.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nemo_proto::{admin, common::NodeInfo, config::Rejection};
use nemo_snapshot::ResourceKey;
use time::{Duration, OffsetDateTime};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    publish::Published,
    store::fleet_nodes::{FleetNode, NodeLease},
};

/// Most nodes known at a time, connected and gone.
pub const MAX_NODES: usize = 4096;
/// How long a node that is gone is still listed.
pub const FORGET_AFTER: Duration = Duration::hours(24);

/// Bound of a node's name for itself.
const MAX_NODE_ID: usize = 128;
/// Rejections of one refusal that are kept, and the length of their text.
const MAX_REJECTIONS: usize = 8;
const MAX_REJECTION_TEXT: usize = 2048;

#[derive(Clone, Debug)]
struct Node {
    info: NodeInfo,
    /// Number of the connection that counts; a node that reconnects may overlap with its former stream.
    connection: Option<u64>,
    connected_at: OffsetDateTime,
    /// End of the last connection.
    last_seen_at: OffsetDateTime,
    revision: u64,
    last_rejection: String,
    /// Newest revision that it refused; 0 when the last push was applied.
    refused_revision: u64,
    /// Number of the subscription, by the node's own count.
    session: u64,
    /// When it last said that it lives. `None`: it is of a release that does not; its connection says so.
    heard_at: Option<Instant>,
    apply_micros: u64,
    usage_dropped_total: u64,
}

#[derive(Debug, Default)]
struct State {
    nodes: HashMap<String, Node>,
    last_connection: u64,
    /// Nodes that said goodbye, until that is written: id, epoch, session.
    left: Vec<(String, u64, u64)>,
}

/// Why a node can't be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("node_id: expected 1 to {MAX_NODE_ID} visible ASCII characters")]
    MalformedNodeId,
    #[error("this replica already has {MAX_NODES} connected nodes")]
    Full,
}

/// Shared; a clone is another handle on the same registry.
#[derive(Clone, Debug)]
pub struct Registry {
    state: Arc<Mutex<State>>,
    published: watch::Receiver<Arc<Published>>,
    /// Something was acknowledged that the leases do not say yet.
    changed: Arc<Notify>,
    max_nodes: usize,
}

impl Registry {
    /// Lag is measured against what `published` shows.
    pub fn new(published: watch::Receiver<Arc<Published>>) -> Self {
        Self { state: Arc::default(), published, changed: Arc::default(), max_nodes: MAX_NODES }
    }

    /// A node opened its config stream. The connection lasts until the handle is dropped.
    ///
    /// # Errors
    /// [`Refused`] when the id is malformed or too many nodes are connected.
    pub fn connect(&self, info: &NodeInfo, held_revision: u64) -> Result<Connection, Refused> {
        self.connect_session(info, held_revision, 0)
    }

    /// As [`Registry::connect`], with the number of the subscription.
    ///
    /// # Errors
    /// As [`Registry::connect`].
    pub fn connect_session(
        &self,
        info: &NodeInfo,
        held_revision: u64,
        session: u64,
    ) -> Result<Connection, Refused> {
        check_node_id(&info.node_id)?;
        let now = now();
        let mut state = self.lock();
        make_room(&mut state.nodes, &info.node_id, self.max_nodes, now)?;
        state.last_connection += 1;
        let number = state.last_connection;
        let before = state.nodes.remove(&info.node_id);
        let same_process = before.as_ref().filter(|node| node.info.epoch == info.epoch);
        // A larger epoch is a restart whose former stream has not ended yet.
        if let Some(node) =
            before.as_ref().filter(|node| node.connection.is_some() && info.epoch < node.info.epoch)
        {
            tracing::warn!(
                node = info.node_id,
                epoch = info.epoch,
                other_epoch = node.info.epoch,
                "a second process connects with the id of a connected node; two nodes must not share a data directory"
            );
        }
        let node = Node {
            info: info.clone(),
            connection: Some(number),
            connected_at: now,
            last_seen_at: now,
            revision: held_revision,
            refused_revision: 0,
            session,
            heard_at: None,
            last_rejection: same_process.map(|node| node.last_rejection.clone()).unwrap_or_default(),
            apply_micros: same_process.map_or(0, |node| node.apply_micros),
            usage_dropped_total: same_process.map_or(0, |node| node.usage_dropped_total),
        };
        state.nodes.insert(info.node_id.clone(), node);
        drop(state);
        self.changed.notify_one();
        Ok(Connection { registry: self.clone(), node_id: info.node_id.clone(), number })
    }

    /// The node says how many usage events it has dropped since its start.
    pub fn usage_dropped(&self, node_id: &str, epoch: u64, dropped_total: u64) {
        if let Some(node) = self.lock().nodes.get_mut(node_id)
            && node.info.epoch == epoch
        {
            node.usage_dropped_total = dropped_total;
        }
    }

    /// Resolves when leases should be written at once.
    pub(super) async fn lease_changed(&self) {
        self.changed.notified().await;
    }

    /// Nodes that said goodbye since the last call: id, epoch, session.
    pub(super) fn take_left(&self) -> Vec<(String, u64, u64)> {
        std::mem::take(&mut self.lock().left)
    }

    /// The connected nodes that were heard of within `lease`, and how much of it is left to each.
    pub(super) fn leases(&self, lease: std::time::Duration, now: Instant) -> Vec<NodeLease> {
        let state = self.lock();
        let connected = state.nodes.values().filter(|node| node.connection.is_some());
        let leases = connected.filter_map(|node| {
            let silent = node.heard_at.map(|at| now.saturating_duration_since(at)).unwrap_or_default();
            let remaining = lease.checked_sub(silent)?;
            Some(NodeLease {
                node_id: node.info.node_id.clone(),
                epoch: node.info.epoch,
                session: node.session,
                revision: node.revision,
                refused_revision: node.refused_revision,
                refusal: node.last_rejection.clone(),
                remaining_ms: millis(remaining),
                silent_ms: millis(silent),
                version: node.info.version.clone(),
                zone: node.info.zone.clone(),
                connected_at: node.connected_at,
                apply_micros: node.apply_micros,
                usage_dropped_total: node.usage_dropped_total,
            })
        });
        leases.collect()
    }

    /// Revision that nodes are brought to.
    pub fn published_revision(&self) -> u64 {
        self.published.borrow().revision
    }

    /// The nodes of the whole installation, by id: those that this replica knows best as it knows them, the others as
    /// their replicas wrote them.
    pub fn fleet(&self, rows: Vec<FleetNode>) -> Vec<admin::Node> {
        let (published, now) = (self.published_revision(), now());
        let state = self.lock();
        let known: HashMap<&str, &FleetNode> = rows.iter().map(|row| (row.node_id.as_str(), row)).collect();
        let own = state
            .nodes
            .values()
            .filter(|node| known.get(node.info.node_id.as_str()).is_none_or(|row| node.is_newer_than(row)));
        let mut nodes: Vec<_> = own.map(|node| node.describe(published, now)).collect();
        let own: HashSet<String> = nodes.iter().map(|node| node.node_id.clone()).collect();
        drop(state);
        let others = rows.into_iter().filter(|row| !own.contains(&row.node_id));
        nodes.extend(others.map(|row| describe_row(row, published, now)));
        nodes.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        nodes
    }

    /// The nodes that this replica has seen, by id.
    pub fn nodes(&self) -> Vec<admin::Node> {
        let (published, now) = (self.published_revision(), now());
        let mut nodes: Vec<_> =
            self.lock().nodes.values().map(|node| node.describe(published, now)).collect();
        nodes.sort_by(|a, b| a.node_id.cmp(&b.node_id));
        nodes
    }

    /// Ids of the connected nodes.
    pub fn connected(&self) -> Vec<String> {
        let state = self.lock();
        let connected = state.nodes.iter().filter(|(_, node)| node.connection.is_some());
        connected.map(|(id, _)| id.clone()).collect()
    }

    /// For the metrics.
    pub fn summary(&self) -> Summary {
        let published = self.published_revision();
        let state = self.lock();
        let connected = state.nodes.values().filter(|node| node.connection.is_some());
        connected.fold(Summary::default(), |sum, node| Summary {
            connected: sum.connected + 1,
            refusing: sum.refusing + u64::from(!node.last_rejection.is_empty()),
            max_lag: sum.max_lag.max(published.saturating_sub(node.revision)),
            usage_dropped: sum.usage_dropped.saturating_add(node.usage_dropped_total),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connected nodes in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub connected: u64,
    /// Nodes whose last answer was a refusal.
    pub refusing: u64,
    /// Published revisions that the slowest node lacks.
    pub max_lag: u64,
    pub usage_dropped: u64,
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn describe_row(row: FleetNode, published: u64, now: OffsetDateTime) -> admin::Node {
    let unsigned = |value: i64| u64::try_from(value).unwrap_or_default();
    admin::Node {
        node_id: row.node_id,
        epoch: unsigned(row.epoch),
        version: row.version,
        zone: row.zone,
        connected: row.live,
        revision: unsigned(row.revision),
        lag: published.saturating_sub(unsigned(row.revision)),
        last_rejection: row.refusal,
        connected_at: Some(row.connected_at.into()),
        last_seen_at: Some(if row.live { now } else { row.seen_at }.into()),
        apply_micros: unsigned(row.apply_micros),
        usage_dropped_total: unsigned(row.usage_dropped_total),
    }
}

impl Node {
    /// False when the row is of a later subscription, which another replica has.
    fn is_newer_than(&self, row: &FleetNode) -> bool {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let own = (signed(self.info.epoch), signed(self.session));
        let row_of = (row.epoch, row.session);
        // Nodes of an older release don't count their subscriptions.
        let elsewhere = self.session == 0 && self.connection.is_none() && row.live;
        own >= row_of && !elsewhere
    }

    fn describe(&self, published: u64, now: OffsetDateTime) -> admin::Node {
        let connected = self.connection.is_some();
        admin::Node {
            node_id: self.info.node_id.clone(),
            epoch: self.info.epoch,
            version: self.info.version.clone(),
            zone: self.info.zone.clone(),
            connected,
            revision: self.revision,
            lag: published.saturating_sub(self.revision),
            last_rejection: self.last_rejection.clone(),
            connected_at: Some(self.connected_at.into()),
            // A connection lives as long as the node answers HTTP/2 pings.
            last_seen_at: Some(if connected { now } else { self.last_seen_at }.into()),
            apply_micros: self.apply_micros,
            usage_dropped_total: self.usage_dropped_total,
        }
    }
}

/// A node's open config stream. Dropping it marks the node as gone.
pub struct Connection {
    registry: Registry,
    node_id: String,
    number: u64,
}

impl Connection {
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// The node holds this revision now.
    pub fn applied(&self, revision: u64, apply_micros: u64) {
        self.update(|node| {
            node.revision = revision;
            node.apply_micros = apply_micros;
            node.refused_revision = 0;
            node.last_rejection.clear();
        });
        self.registry.changed.notify_one();
    }

    /// The node refused `revision`.
    pub fn refused(&self, revision: u64, rejections: &[Rejection]) {
        let text = describe_rejections(revision, rejections);
        self.update(|node| {
            node.last_rejection = text;
            node.refused_revision = revision;
        });
        self.registry.changed.notify_one();
    }

    /// The node lives.
    pub fn heard(&self) {
        self.update(|node| node.heard_at = Some(Instant::now()));
    }

    /// The node stops: nobody has to wait for it.
    pub fn left(&self) {
        let mut state = self.registry.lock();
        let State { nodes, left, .. } = &mut *state;
        if let Some(node) = nodes.get_mut(&self.node_id)
            && node.connection == Some(self.number)
        {
            left.push((self.node_id.clone(), node.info.epoch, node.session));
            node.connection = None;
            node.last_seen_at = now();
        }
        drop(state);
        self.registry.changed.notify_one();
    }

    fn update(&self, change: impl FnOnce(&mut Node)) {
        let mut state = self.registry.lock();
        if let Some(node) = state.nodes.get_mut(&self.node_id)
            && node.connection == Some(self.number)
        {
            change(node);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.update(|node| {
            node.connection = None;
            node.last_seen_at = now();
        });
    }
}

fn now() -> OffsetDateTime {
    let micros = i128::from(nemo_runtime::clock::unix_us());
    OffsetDateTime::from_unix_timestamp_nanos(micros * 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// # Errors
/// [`Refused::MalformedNodeId`] unless the id is 1 to 128 visible ASCII characters.
pub fn check_node_id(node_id: &str) -> Result<(), Refused> {
    let well_formed =
        (1..=MAX_NODE_ID).contains(&node_id.len()) && node_id.bytes().all(|byte| byte.is_ascii_graphic());
    if well_formed { Ok(()) } else { Err(Refused::MalformedNodeId) }
}

/// One line for an operator: which revision, and per resource which field and why.
pub fn describe_rejections(revision: u64, rejections: &[Rejection]) -> String {
    use std::fmt::Write as _;
    let mut text = format!("revision {revision}");
    for (at, rejection) in rejections.iter().take(MAX_REJECTIONS).enumerate() {
        let name = rejection.resource.as_ref().and_then(ResourceKey::from_name).map(|key| key.describe());
        let _ = write!(text, "{}", if at == 0 { ": " } else { "; " });
        if let Some(name) = name {
            let _ = write!(text, "{name}: ");
        }
        if !rejection.field.is_empty() {
            let _ = write!(text, "{}: ", rejection.field);
        }
        let _ = write!(text, "{}", rejection.message);
    }
    if rejections.len() > MAX_REJECTIONS {
        let _ = write!(text, "; and {} more", rejections.len() - MAX_REJECTIONS);
    }
    if text.len() > MAX_REJECTION_TEXT {
        text.truncate(text.floor_char_boundary(MAX_REJECTION_TEXT));
        text.push('…');
    }
    text
}

/// Forgets nodes that are long gone, and when that is not enough, those gone for longest.
fn make_room(
    nodes: &mut HashMap<String, Node>,
    newcomer: &str,
    max_nodes: usize,
    now: OffsetDateTime,
) -> Result<(), Refused> {
    nodes.retain(|_, node| node.connection.is_some() || now - node.last_seen_at < FORGET_AFTER);
    while nodes.len() >= max_nodes && !nodes.contains_key(newcomer) {
        let gone = nodes.iter().filter(|(_, node)| node.connection.is_none());
        let Some(oldest) = gone.min_by_key(|(_, node)| node.last_seen_at).map(|(id, _)| id.clone()) else {
            return Err(Refused::Full);
        };
        nodes.remove(&oldest);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
