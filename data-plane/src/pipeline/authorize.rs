//! What a key may do: from where, at which endpoint, with which model. No await (I1). Called by [`super::handle`] and
//! [`crate::models`].

use std::{net::IpAddr, sync::Arc};

use nemo_llm::{Endpoint, Sort};
use nemo_snapshot::{KeyRecord, ModelGroup, Snapshot};

use super::error::{GatewayError, Kind};

/// How many near names a 404 lists.
const SUGGESTIONS: usize = 3;

/// Whether the key may be used by this client. `client` is asked for only when the key is limited to networks.
///
/// # Errors
/// 403 that names the client's address, as this node sees it.
pub fn client(key: &KeyRecord, client: impl FnOnce() -> Option<IpAddr>) -> Result<(), GatewayError> {
    if key.policy.allowed_cidrs.is_empty() {
        return Ok(());
    }
    let client = client();
    if client.is_some_and(|client| key.policy.permits_client(client)) {
        return Ok(());
    }
    let client = client.map_or("an unknown address".to_owned(), |client| client.to_canonical().to_string());
    let message = format!("This API key may not be used from {client}.");
    Err(GatewayError::new(Kind::PermissionDenied, message))
}

/// Whether the key may be used at this endpoint.
///
/// # Errors
/// 403 that names the endpoint.
pub fn endpoint(key: &KeyRecord, endpoint: Endpoint) -> Result<(), GatewayError> {
    if key.policy.allowed_endpoints.permits(endpoint.label()) {
        return Ok(());
    }
    let message = format!("This API key may not use the endpoint `{}`.", endpoint.label());
    Err(GatewayError::new(Kind::PermissionDenied, message))
}

/// Resolves the requested model.
///
/// # Errors
/// 404 `model_not_found` with the nearest names; 403 when the key is limited to other models.
pub fn run(snapshot: &Snapshot, key: &KeyRecord, requested: &str) -> Result<Arc<ModelGroup>, GatewayError> {
    named(snapshot, key, requested, "model").map(|named| named.group)
}

/// What a name led to.
#[derive(Debug)]
pub struct Named<'a> {
    pub group: Arc<ModelGroup>,
    /// Without the suffix that was taken off.
    pub name: &'a str,
    pub sort: Option<Sort>,
}

/// Resolves a model that the request names in `field`. Where no model is called so, OpenRouter's suffixes are taken off
/// and mean what is best first: `:nitro` throughput, `:floor` price.
///
/// # Errors
/// As [`run`], naming the field.
pub fn named<'a>(
    snapshot: &Snapshot,
    key: &KeyRecord,
    requested: &'a str,
    field: &'static str,
) -> Result<Named<'a>, GatewayError> {
    let find = |name| snapshot.routing.resolve(key.org_id, name);
    let found = find(requested).map(|group| (group, requested, None)).or_else(|| {
        let (name, sort) = suffix(requested)?;
        find(name).map(|group| (group, name, Some(sort)))
    });
    let Some((group, name, sort)) = found else {
        return Err(not_found(snapshot, key, requested).param(field));
    };
    if !key.policy.allowed_models.permit(name, &group.name) {
        let message = format!("This API key may not use the model `{requested}`.");
        return Err(GatewayError::new(Kind::PermissionDenied, message).param(field));
    }
    Ok(Named { group: group.clone(), name, sort })
}

fn suffix(requested: &str) -> Option<(&str, Sort)> {
    let (name, suffix) = requested.rsplit_once(':')?;
    match suffix {
        "nitro" => Some((name, Sort::Throughput)),
        "floor" => Some((name, Sort::Price)),
        _ => None,
    }
}

fn not_found(snapshot: &Snapshot, key: &KeyRecord, requested: &str) -> GatewayError {
    let mut message = if snapshot.routing.model(requested).is_some() {
        format!("The model `{requested}` is in the catalog, but no deployment serves it here.")
    } else {
        format!("The model `{requested}` does not exist.")
    };
    let nearest = snapshot.routing.nearest(key.org_id, requested, SUGGESTIONS);
    let nearest: Vec<_> = nearest.iter().filter(|name| key.policy.allowed_models.permits(name)).collect();
    if nearest.is_empty() {
        message.push_str(" GET /v1/models lists what does.");
    } else {
        let names = nearest.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        message.push_str(&format!(" Did you mean {names}?"));
    }
    GatewayError::new(Kind::ModelNotFound, message)
}
