//! What a key may do: the options of `nemo keys create` and `nemo keys update`.

use clap::Args;
use nemo_proto::admin::{
    AllowedCidrs, AllowedEndpoints, AllowedModels, DefaultTags, IssueKeyRequest, UpdateKeyRequest,
};

use crate::cli::{Seconds, duration};

#[derive(Clone, Debug, Default, Args)]
pub struct Policy {
    /// Models that the key may use, `provider/*` for all of one; absent or empty: all
    #[arg(long, value_delimiter = ',', value_name = "MODELS")]
    models: Option<Vec<String>>,
    /// Endpoints that it may use: chat.completions, embeddings, …; absent or empty: all
    #[arg(long, value_delimiter = ',', value_name = "ENDPOINTS")]
    endpoints: Option<Vec<String>>,
    /// Networks that it may be used from: 10.0.0.0/8, 2001:db8::/32; absent or empty: everywhere
    #[arg(long, value_delimiter = ',', value_name = "NETWORKS")]
    cidrs: Option<Vec<String>>,
    /// Tags of its requests that name none
    #[arg(long, value_delimiter = ',', value_name = "TAGS")]
    tags: Option<Vec<String>>,
    /// A JSON object that is kept with it, and with its requests
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// After this the key stops working: 90m, 12h, 30d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    expires: Option<Seconds>,
}

/// `--models ''` is the empty list.
fn list(given: Vec<String>) -> Vec<String> {
    given.into_iter().filter(|name| !name.is_empty()).collect()
}

impl Policy {
    /// What is said of a new key.
    pub(super) fn creation(self) -> IssueKeyRequest {
        let names = |given: Option<Vec<String>>| given.map(list).unwrap_or_default();
        IssueKeyRequest {
            allowed_models: names(self.models),
            allowed_endpoints: names(self.endpoints),
            allowed_cidrs: names(self.cidrs),
            default_tags: names(self.tags),
            metadata: self.metadata.unwrap_or_default(),
            expires_at: self.expires.map(Seconds::from_now),
            ..Default::default()
        }
    }

    /// What is said of a key that exists; the rest stays.
    pub(super) fn change(self) -> UpdateKeyRequest {
        UpdateKeyRequest {
            allowed_models: self.models.map(|names| AllowedModels { names: list(names) }),
            allowed_endpoints: self.endpoints.map(|names| AllowedEndpoints { names: list(names) }),
            allowed_cidrs: self.cidrs.map(|networks| AllowedCidrs { networks: list(networks) }),
            default_tags: self.tags.map(|names| DefaultTags { names: list(names) }),
            metadata: self.metadata,
            expires_at: self.expires.map(Seconds::from_now),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_of_models_is_all_of_them_and_no_list_changes_nothing() {
        let policy = |models: Option<&[&str]>| Policy {
            models: models.map(|models| models.iter().map(|model| (*model).to_owned()).collect()),
            ..Policy::default()
        };
        assert_eq!(policy(None).change(), UpdateKeyRequest::default());
        assert_eq!(policy(Some(&[""])).change().allowed_models.unwrap().names, Vec::<String>::new());
        assert_eq!(policy(Some(&["a", "b"])).change().allowed_models.unwrap().names, ["a", "b"]);
        assert_eq!(policy(Some(&["a"])).creation().allowed_models, ["a"]);
    }
}
