//! Values for unit tests of this crate.

use std::sync::Arc;

use nemo_snapshot::{Deployment, Model};
use nemo_types::DeploymentId;

use crate::usage::{
    Journal,
    journal::{Limits, MEMORY, SEGMENT, Writer, model::Disk},
};

/// In memory, with the usual sizes.
pub fn journal() -> Journal {
    let limits = Limits { segment: SEGMENT, max: 1 << 30, memory: MEMORY };
    let writer = Writer { epoch: 1, boot_id: "boot".into() };
    Journal::open(Arc::new(Disk::new()), limits, writer).unwrap().0
}

/// A deployment of `model` at `provider`, not part of any snapshot.
pub fn deployment(provider: &str, model: &str) -> Arc<Deployment> {
    Arc::new(Deployment {
        slot: 0,
        id: DeploymentId::generate(),
        org_id: None,
        name: format!("{provider}/{model}").into(),
        provider: provider.into(),
        base_url: "http://127.0.0.1:1/v1".into(),
        credential: None,
        model: Arc::new(Model {
            id: model.into(),
            display_name: model.into(),
            owned_by: "".into(),
            created_unix: 0,
            context_window: 0,
            max_output_tokens: 0,
            tags: Vec::new(),
            tag_set: nemo_snapshot::TagSet::EMPTY,
            aliases: Vec::new(),
            input_modalities: Vec::new(),
            output_modalities: Vec::new(),
            endpoints: Vec::new(),
            offerings: Vec::new(),
        }),
        upstream_model: model.into(),
        price: None,
        weight: 1,
        disabled: false,
        timeouts: nemo_snapshot::Timeouts::default(),
        rpm: None,
        tpm: None,
    })
}
