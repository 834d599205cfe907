//! One command at a control plane: its client, its output, and what goes along with a write. Also how a thing is
//! found by what the user typed.

use anyhow::{Context as _, bail};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use super::output::{Entity, Output};
use crate::{
    admin_client::{AdminClient, explain},
    cli::{Delete, Target, Write},
    console,
};

/// A write is only checked.
const VALIDATE_ONLY: &str = "x-nemo-validate-only";
/// A write returns when the fleet has applied it.
const WAIT: &str = "x-nemo-wait";
/// In answers to writes: the version of the configuration that has it.
const CONFIG_VERSION: &str = "x-nemo-config-version";

pub(super) struct Session {
    pub(super) client: AdminClient,
    pub(super) out: Output,
    wait: bool,
    validate_only: bool,
}

impl Session {
    pub(super) fn reading(target: &Target) -> anyhow::Result<Self> {
        let (client, out) = (AdminClient::open(target)?, Output::new(target));
        Ok(Self { client, out, wait: false, validate_only: false })
    }

    pub(super) fn writing(options: &Write) -> anyhow::Result<Self> {
        let reading = Self::reading(&options.target)?;
        Ok(Self { wait: options.wait, validate_only: options.validate_only, ..reading })
    }

    /// The message of a write with what the options ask for.
    pub(super) fn write<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if self.validate_only {
            request.metadata_mut().insert(VALIDATE_ONLY, MetadataValue::from_static("true"));
        }
        if self.wait {
            request.metadata_mut().insert(WAIT, MetadataValue::from_static("fleet"));
        }
        request
    }

    /// The answer to a write; `None` when it was only checked.
    pub(super) async fn send<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> anyhow::Result<Option<T>> {
        let answer = match self.wait {
            true => console::step("Waiting for the fleet", call).await,
            false => call.await,
        };
        let answer = answer.map_err(explain)?;
        if self.validate_only {
            console::note("valid; nothing was changed");
            return Ok(None);
        }
        let version = answer.metadata().get(CONFIG_VERSION).and_then(|version| version.to_str().ok());
        if let Some(version) = version.filter(|_| self.wait && !self.out.json && !self.out.quiet) {
            console::note(format_args!("every live node has configuration {version}"));
        }
        Ok(Some(answer.into_inner()))
    }

    /// Sends a write and prints what came of it.
    pub(super) async fn put<T: Entity>(
        &self,
        verb: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> anyhow::Result<()> {
        match self.send(call).await? {
            Some(item) => {
                if !self.out.quiet {
                    item.warnings().iter().for_each(console::note);
                }
                self.out.written(verb, &item)
            }
            None => Ok(()),
        }
    }

    /// Sends the deletion of `item` and prints that it is gone.
    pub(super) async fn delete<T: Entity, R>(
        &self,
        item: &T,
        call: impl Future<Output = Result<Response<R>, Status>>,
    ) -> anyhow::Result<()> {
        match self.send(call).await? {
            Some(_) => self.out.written("deleted", item),
            None => Ok(()),
        }
    }
}

/// Asks whether this is meant, on a terminal and unless `--yes`.
///
/// # Errors
/// When it is not.
pub(super) fn confirm<T: Entity>(item: &T, options: &Delete) -> anyhow::Result<()> {
    let asked = !options.yes && !options.write.validate_only && console::interactive();
    if asked && !console::confirm(&format!("Delete the {} {}?", T::KIND, item.name())) {
        bail!("nothing was deleted");
    }
    Ok(())
}

/// The one that is meant by a name or an id.
///
/// # Errors
/// When there is none, or more than one.
pub(super) fn choose<T: Entity>(items: Vec<T>, wanted: &str) -> anyhow::Result<T> {
    let mut found: Vec<T> =
        items.into_iter().filter(|item| item.id() == wanted || item.name() == wanted).collect();
    match found.len() {
        0 => bail!("there is no {} {wanted:?}; `nemo {} list` shows them", T::KIND, T::NOUN),
        1 => found.pop().context("one"),
        more => {
            bail!("{wanted:?} stands for {more} {}; use the id from `nemo {} list --json`", T::NOUN, T::NOUN)
        }
    }
}

/// Lists every page: `list!(client.teams().list_teams -> teams, ListTeamsRequest { org_id })`.
macro_rules! list {
    ($client:ident.$service:ident().$method:ident -> $items:ident, $request:ident { $($field:ident),* $(,)? }) => {
        $crate::console::step(
            "Reading",
            $crate::admin_client::all(async |page_token| {
                let request = $request {
                    $($field: $field.to_owned(),)*
                    page_size: $crate::admin_client::PAGE,
                    page_token,
                    ..Default::default()
                };
                let page = $client.$service().$method(request).await?.into_inner();
                Ok((page.$items, page.next_page_token))
            }),
        )
        .await
    };
}
pub(super) use list;
