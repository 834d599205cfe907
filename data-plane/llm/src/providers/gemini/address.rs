//! Paths of Google's that no dialect has (see [`crate::address`] for those), and base URLs of Vertex AI. Called when a
//! snapshot is compiled, for films by whoever asks how far they are, and by who sets up a deployment.

/// Where a deployment on Vertex is called: a project's models in one location (`us-central1`, `global`, `eu`).
///
/// `None` when one of the two is no name that Google gives: nothing else may get into a host.
pub fn vertex_base_url(project: &str, location: &str) -> Option<String> {
    // Projects of companies that came before Google's projects have a colon: `example.com:project`.
    let of_project =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b':');
    let of_location = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let begins = |text: &str| {
        text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let fits = begins(project)
        && project.len() <= 128
        && project.bytes().all(of_project)
        && begins(location)
        && location.len() <= 40
        && location.bytes().all(of_location);
    if !fits {
        return None;
    }
    let host = match location {
        "global" => "aiplatform.googleapis.com".to_owned(),
        "us" | "eu" => format!("aiplatform.{location}.rep.googleapis.com"),
        region => format!("{region}-aiplatform.googleapis.com"),
    };
    Some(format!("https://{host}/v1/projects/{project}/locations/{location}"))
}

/// Below AI Studio's base URL; `model` is made of safe characters.
pub(crate) fn ai_studio(model: &str, method: &str) -> String {
    let folder = if model.contains('/') { "" } else { "models/" };
    format!("/{folder}{model}:{method}")
}

/// Below Vertex's base URL; `model` is made of safe characters.
pub(crate) fn vertex(model: &str, method: &str) -> String {
    let name = model.strip_prefix("publishers/").unwrap_or(model);
    let (publisher, name) = match name.rsplit_once('/') {
        Some((publisher, name)) => (publisher.strip_suffix("/models").unwrap_or(publisher), name),
        None => ("google", name),
    };
    format!("/publishers/{publisher}/models/{name}:{method}")
}

/// Where Vertex counts tokens for Claude: below the base URL.
pub const CLAUDE_COUNT_TOKENS: &str = "/publishers/anthropic/models/count-tokens:rawPredict";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vertex_is_called_where_the_location_is() {
        for (project, location, url) in [
            (
                "my-project",
                "us-central1",
                "https://us-central1-aiplatform.googleapis.com/v1/projects/my-project/locations/us-central1",
            ),
            (
                "example.com:p1",
                "global",
                "https://aiplatform.googleapis.com/v1/projects/example.com:p1/locations/global",
            ),
            ("p", "eu", "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu"),
        ] {
            assert_eq!(vertex_base_url(project, location).as_deref(), Some(url));
        }
    }

    #[test]
    fn nothing_but_a_name_gets_into_the_host() {
        for (project, location) in [
            ("", "us"),
            ("p", ""),
            ("p", "evil.com/"),
            ("p", "a.b"),
            ("p/../x", "us"),
            ("P", "us"),
            ("p", "-x"),
            ("p?", "us"),
        ] {
            assert_eq!(vertex_base_url(project, location), None, "{project} {location}");
        }
        assert_eq!(vertex_base_url("p", &"a".repeat(41)), None);
    }

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
