//! Model name → model group, if the key may use it. No await (I1). Called by [`super::handle`].

use std::sync::Arc;

use nemo_snapshot::{KeyRecord, ModelGroup, Snapshot};

use super::error::{GatewayError, Kind};

/// How many near names a 404 lists.
const SUGGESTIONS: usize = 3;

/// Resolves the requested model.
///
/// # Errors
/// 404 `model_not_found` with the nearest names; 403 when the key is limited to other models.
pub fn run(snapshot: &Snapshot, key: &KeyRecord, requested: &str) -> Result<Arc<ModelGroup>, GatewayError> {
    let Some(group) = snapshot.routing.resolve(key.org_id, requested) else {
        return Err(not_found(snapshot, key, requested));
    };
    if !key.allowed_models.permit(requested, &group.name) {
        let message = format!("This API key may not use the model `{requested}`.");
        return Err(GatewayError::new(Kind::PermissionDenied, message).param("model"));
    }
    Ok(group.clone())
}

fn not_found(snapshot: &Snapshot, key: &KeyRecord, requested: &str) -> GatewayError {
    let mut message = if snapshot.routing.model(requested).is_some() {
        format!("The model `{requested}` is in the catalog, but no deployment serves it here.")
    } else {
        format!("The model `{requested}` does not exist.")
    };
    let nearest = snapshot.routing.nearest(key.org_id, requested, SUGGESTIONS);
    let nearest: Vec<_> = nearest.iter().filter(|name| key.allowed_models.permit(name, name)).collect();
    if nearest.is_empty() {
        message.push_str(" GET /v1/models lists what does.");
    } else {
        let names = nearest.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        message.push_str(&format!(" Did you mean {names}?"));
    }
    GatewayError::new(Kind::ModelNotFound, message).param("model")
}
