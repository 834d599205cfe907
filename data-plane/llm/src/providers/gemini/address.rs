//! Paths of Google's that no dialect has (see [`crate::address`] for those). Called when a snapshot is compiled, and for
//! films by whoever asks how far they are.

/// Below AI Studio's base URL; `model` is made of safe characters.
pub(crate) fn ai_studio(model: &str, method: &str) -> String {
    format!("/{}:{method}", resource(model))
}

/// What AI Studio calls a model where it is no more than a name elsewhere.
pub(crate) fn resource(model: &str) -> String {
    let folder = if model.contains('/') { "" } else { "models/" };
    format!("{folder}{model}")
}

/// Below Vertex's base URL; `model` is made of safe characters.
pub(crate) fn vertex(model: &str, method: &str) -> String {
    let (publisher, name) = crate::address::published(model);
    format!("/publishers/{publisher}/models/{name}:{method}")
}

/// Where Vertex counts tokens for Claude: below the base URL.
pub const CLAUDE_COUNT_TOKENS: &str = "/publishers/anthropic/models/count-tokens:rawPredict";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_the_model() {
        assert_eq!(ai_studio("veo-3", "predict"), "/models/veo-3:predict");
        assert_eq!(ai_studio("tunedModels/x", "predict"), "/tunedModels/x:predict");
        assert_eq!(vertex("imagen-4", "predict"), "/publishers/google/models/imagen-4:predict");
        assert_eq!(
            vertex("publishers/google/models/imagen-4", "predict"),
            vertex("google/imagen-4", "predict")
        );
    }
}
