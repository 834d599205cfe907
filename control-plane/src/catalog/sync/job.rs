//! A run of the sync: fetch, compare, write. Started by `app.rs` for the leader, and by the admin operations.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use nemo_runtime::drain::DrainWatcher;
use nemo_types::{CredentialId, Sealed};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Change, Fact, Proposal, SourceKind, SyncSettings,
    client::SourceClient,
    diff::{self, Diff},
    gather, models_dev, openrouter, provider_list,
};
use crate::{
    admin::validate,
    coordination::Election,
    sealing::Sealer,
    store::{
        Store, StoreError, SystemTx,
        catalog::{self as rows, ModelRow, NewModel, NewOffering, Source, StoredModel},
        catalog_sync::{self as memory, Account, NewChange, RunRow},
    },
};

/// More models than there will be for a while.
const MOST: i64 = 100_000;

/// What one source came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceReport {
    pub name: String,
    pub models: usize,
    /// Empty: it has answered.
    pub error: String,
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunReport {
    /// `None`: nothing was written.
    pub id: Option<Uuid>,
    pub sources: Vec<SourceReport>,
    /// What is different; those that an operator has rejected before are not among them.
    pub proposals: Vec<Proposal>,
    pub applied: u64,
    pub held: u64,
}

/// Runs the sync. Clones share it.
#[derive(Clone, Debug)]
pub struct CatalogSync {
    store: Store,
    sealer: Sealer,
    client: SourceClient,
    pub settings: Arc<SyncSettings>,
}

impl CatalogSync {
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(store: Store, sealer: Sealer, settings: SyncSettings) -> Result<Self, rustls::Error> {
        Ok(Self { store, sealer, client: SourceClient::new()?, settings: Arc::new(settings) })
    }

    /// Fetches and compares; writes unless it is a `dry_run`.
    ///
    /// # Errors
    /// When the database can't be read or written. Sources that don't answer are in the report.
    pub async fn run_once(&self, dry_run: bool) -> Result<RunReport, StoreError> {
        let started_at = validate::now();
        let (said, sources) = self.fetch().await?;
        let answered: BTreeSet<String> = said.iter().map(|(name, _)| name.clone()).collect();
        let gathered = gather::gather(said);
        let mut report = RunReport { sources, ..RunReport::default() };

        let mut tx = self.store.system().await?;
        if !dry_run {
            // Decides on what it reads here, so nobody else may write meanwhile; a second run waits for the first.
            tx.serialize_config().await?;
        }
        let stored = rows::list(&mut tx, None, None, "", MOST).await?;
        let listed = memory::listings(&mut tx).await?;
        let found = diff::diff(&stored, &gathered, &listed, &answered);
        report.proposals = not_rejected(&mut tx, &found).await?;
        if dry_run || answered.is_empty() {
            (report.applied, report.held) = counts(&report.proposals);
            return Ok(report);
        }
        let run = Uuid::now_v7();
        report.id = Some(run);
        self.write(&mut tx, run, &stored, &mut report).await?;
        let believed: Vec<String> =
            answered.iter().filter(|source| !found.suspicious.contains_key(*source)).cloned().collect();
        memory::put_listings(&mut tx, &believed, &found.listings).await?;
        let from = report.proposals.iter().filter(|it| it.hold.is_none()).flat_map(fields_of);
        memory::put_provenance(&mut tx, &found.provenance.into_iter().chain(from).collect::<Vec<_>>())
            .await?;
        let row = RunRow {
            id: run,
            started_at,
            sources: serde_json::to_string(&report.sources).unwrap_or_default(),
            applied: count(report.applied),
            held: count(report.held),
        };
        memory::insert_run(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(report)
    }

    async fn write(
        &self,
        tx: &mut SystemTx,
        run: Uuid,
        stored: &[StoredModel],
        report: &mut RunReport,
    ) -> Result<(), StoreError> {
        let mut by_model: BTreeMap<&str, Vec<(&str, &Change)>> = BTreeMap::new();
        let mut open = Vec::new();
        for proposal in &report.proposals {
            let change = serde_json::to_string(&proposal.change).unwrap_or_default();
            let new = NewChange {
                run_id: run,
                model_id: &proposal.model,
                provider: &proposal.provider,
                kind: proposal.change.kind(),
                change: &change,
                source: &proposal.source,
                reason: proposal.hold.as_deref().unwrap_or_default(),
            };
            if proposal.hold.is_some() {
                report.held += u64::from(memory::hold(tx, &new).await?);
                open.push((proposal.model.clone(), proposal.provider.clone(), proposal.change.kind()));
            } else {
                memory::insert_applied(tx, &new).await?;
                report.applied += 1;
                by_model.entry(&proposal.model).or_default().push((&proposal.provider, &proposal.change));
            }
        }
        if report.sources.iter().all(|source| source.error.is_empty()) {
            memory::settle(tx, &open).await?;
        }
        let accounts = if self.settings.deploy { memory::accounts(tx).await? } else { Vec::new() };
        let now = validate::now();
        for (id, changes) in by_model {
            let old = stored.iter().find(|model| model.row.id == id);
            apply(tx, id, old, &changes, &accounts, now).await?;
        }
        Ok(())
    }

    /// Makes one change that was held; nothing, where what it is about is gone.
    ///
    /// # Errors
    /// When the database can't be written.
    pub async fn make(
        &self,
        tx: &mut SystemTx,
        model: &str,
        provider: &str,
        change: &Change,
    ) -> Result<(), StoreError> {
        let old = rows::get(tx, model).await?;
        if let Change::OfferingVanished { .. } = change {
            memory::remove_offering(tx, model, provider).await?;
            return memory::forget_listing(tx, model, provider).await;
        }
        if old.is_none() && !matches!(change, Change::ModelAdded { .. } | Change::OfferingAdded { .. }) {
            return Ok(());
        }
        let accounts = if self.settings.deploy { memory::accounts(tx).await? } else { Vec::new() };
        apply(tx, model, old.as_ref(), &[(provider, change)], &accounts, validate::now()).await
    }

    /// Asks all sources, in the order of the settings; a provider's own list is believed before all others.
    async fn fetch(&self) -> Result<(Vec<(String, Vec<Fact>)>, Vec<SourceReport>), StoreError> {
        let (mut first, mut then, mut reports) = (Vec::new(), Vec::new(), Vec::new());
        for source in &self.settings.sources {
            let name = source.kind.name();
            match source.kind {
                SourceKind::Providers => {
                    for account in self.accounts().await? {
                        let name = format!("{name}:{}", account.provider);
                        let said = self.provider_list(&account).await;
                        keep(&mut first, &mut reports, name, said);
                    }
                }
                SourceKind::ModelsDev => {
                    let said = self.registry(&source.url, models_dev::read).await;
                    keep(&mut then, &mut reports, name.to_owned(), said);
                }
                SourceKind::OpenRouter => {
                    let said = self.registry(&source.url, openrouter::read).await;
                    keep(&mut then, &mut reports, name.to_owned(), said);
                }
            }
        }
        first.append(&mut then);
        Ok((first, reports))
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        let mut tx = self.store.system().await?;
        let mut accounts = memory::accounts(&mut tx).await?;
        // Where the list is elsewhere, or must be signed for; registries tell of these.
        accounts.retain(|account| {
            !matches!(account.provider.as_str(), "azure" | "bedrock" | "google-vertex" | "custom" | "demo")
        });
        Ok(accounts)
    }

    async fn registry(
        &self,
        url: &str,
        read: fn(&[u8]) -> Result<Vec<Fact>, String>,
    ) -> Result<Vec<Fact>, String> {
        read(&self.client.get(url, HeaderMap::new()).await?)
    }

    async fn provider_list(&self, account: &Account) -> Result<Vec<Fact>, String> {
        let own = nemo_types::base_url(&account.provider).unwrap_or_default();
        let base = if account.base_url.is_empty() { own } else { &account.base_url };
        if base.is_empty() {
            return Err("it has no base URL".to_owned());
        }
        let headers = self.credential(account)?;
        let path = if account.provider == "cohere" { "/v1/models?page_size=1000" } else { "/models" };
        let limit = match account.provider.as_str() {
            "anthropic" => "?limit=1000",
            "google-ai-studio" => "?pageSize=1000",
            _ => "",
        };
        let body: Bytes = self.client.get(&format!("{base}{path}{limit}"), headers).await?;
        provider_list::read(&account.provider, &body)
    }

    fn credential(&self, account: &Account) -> Result<HeaderMap, String> {
        let sealed = Sealed::from_bytes(account.sealed.clone());
        let opened = self.sealer.open(CredentialId(account.credential_id).as_bytes(), &sealed);
        let secret = opened.map_err(|error| {
            format!("the credential {:?} can't be opened: {error}", account.credential_name)
        })?;
        let secret = String::from_utf8(secret).map_err(|_| "the credential is not text".to_owned())?;
        let (name, text) = match account.provider.as_str() {
            "anthropic" => (HeaderName::from_static("x-api-key"), secret),
            "google-ai-studio" => (HeaderName::from_static("x-goog-api-key"), secret),
            _ => (header::AUTHORIZATION, format!("Bearer {secret}")),
        };
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| "the credential has characters that no header can carry".to_owned())?;
        value.set_sensitive(true);
        let mut headers = HeaderMap::from_iter([(name, value)]);
        if account.provider == "anthropic" {
            headers.insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
        }
        Ok(headers)
    }

    /// Runs now and then while this replica leads the job, until drain.
    pub async fn run(self, mut election: Election, drain: DrainWatcher) {
        if self.settings.sources.is_empty() {
            return;
        }
        loop {
            tokio::select! {
                () = drain.signaled() => return,
                () = election.mine() => {}
            }
            tokio::select! {
                () = drain.signaled() => return,
                ran = self.run_once(false) => tell(ran),
            }
            tokio::select! {
                () = drain.signaled() => return,
                () = tokio::time::sleep(self.settings.every) => {}
            }
        }
    }
}

fn tell(ran: Result<RunReport, StoreError>) {
    match ran {
        Ok(report) => {
            for source in report.sources.iter().filter(|source| !source.error.is_empty()) {
                tracing::warn!(
                    source = source.name,
                    error = source.error,
                    "a catalog source did not answer as it should"
                );
            }
            if report.held > 0 {
                tracing::warn!(
                    held = report.held,
                    "changes of the catalog wait for approval: see `nemo catalog changes --state held`"
                );
            }
            tracing::info!(
                applied = report.applied,
                held = report.held,
                "the catalog is in step with its sources"
            );
        }
        Err(error) => {
            tracing::warn!(%error, "the catalog could not be brought in step; it is tried again later")
        }
    }
}

fn keep(
    said: &mut Vec<(String, Vec<Fact>)>,
    reports: &mut Vec<SourceReport>,
    name: String,
    facts: Result<Vec<Fact>, String>,
) {
    let (models, error) = match &facts {
        Ok(facts) => (facts.len(), String::new()),
        Err(error) => (0, error.clone()),
    };
    reports.push(SourceReport { name: name.clone(), models, error });
    said.extend(facts.ok().map(|facts| (name, facts)));
}

async fn not_rejected(tx: &mut SystemTx, found: &Diff) -> Result<Vec<Proposal>, StoreError> {
    let mut proposals = Vec::new();
    for proposal in &found.proposals {
        let change = serde_json::to_string(&proposal.change).unwrap_or_default();
        let new = NewChange {
            run_id: Uuid::nil(),
            model_id: &proposal.model,
            provider: &proposal.provider,
            kind: proposal.change.kind(),
            change: &change,
            source: &proposal.source,
            reason: "",
        };
        let valid = validate::model_name("model", &proposal.model).is_ok();
        // Only what was held can have been rejected: mostly nothing is.
        if valid && (proposal.hold.is_none() || !memory::is_rejected(tx, &new).await?) {
            proposals.push(proposal.clone());
        }
    }
    Ok(proposals)
}

fn counts(proposals: &[Proposal]) -> (u64, u64) {
    let held = proposals.iter().filter(|proposal| proposal.hold.is_some()).count() as u64;
    (proposals.len() as u64 - held, held)
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The fields that a change sets, with its source.
fn fields_of(proposal: &Proposal) -> Vec<(String, String, &'static str, String)> {
    let entry =
        |provider: &str, field| (proposal.model.clone(), provider.to_owned(), field, proposal.source.clone());
    match &proposal.change {
        Change::ModelAdded { .. } => {
            vec![
                entry("", "model"),
                entry(&proposal.provider, "offering"),
                entry(&proposal.provider, "price"),
            ]
        }
        Change::OfferingAdded { .. } => {
            vec![entry(&proposal.provider, "offering"), entry(&proposal.provider, "price")]
        }
        Change::PriceChanged { .. } => vec![entry(&proposal.provider, "price")],
        Change::LimitsChanged { .. } => vec![entry("", "context_window"), entry("", "max_output_tokens")],
        Change::OfferingVanished { .. } => Vec::new(),
    }
}

async fn apply(
    tx: &mut SystemTx,
    id: &str,
    old: Option<&StoredModel>,
    changes: &[(&str, &Change)],
    accounts: &[Account],
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let mut model = old.map(as_new);
    let mut offered = Vec::new();
    for (provider, change) in changes {
        match change {
            Change::ModelAdded { fact } | Change::OfferingAdded { fact } => {
                let model = model.get_or_insert_with(|| new_model(id, fact));
                if model.offerings.iter().all(|offering| offering.provider != fact.provider) {
                    model.offerings.push(NewOffering {
                        provider: fact.provider.clone(),
                        upstream_model: fact.upstream_model.clone(),
                        amounts: fact.amounts.clone().unwrap_or_default(),
                        price_id: None,
                    });
                    offered.push(fact);
                }
            }
            Change::PriceChanged { after, .. } => {
                let offerings = model.iter_mut().flat_map(|model| &mut model.offerings);
                for offering in offerings.filter(|offering| offering.provider == *provider) {
                    offering.amounts = after.clone();
                }
            }
            Change::LimitsChanged { after, .. } => {
                if let Some(model) = &mut model {
                    model.row.context_window = after.context_window;
                    model.row.max_output_tokens = after.max_output_tokens;
                }
            }
            Change::OfferingVanished { .. } => {}
        }
    }
    let Some(model) = model else { return Ok(()) };
    rows::put(tx, vec![model], Source::Discovered, now).await?;
    for fact in offered {
        let account = accounts.iter().find(|account| account.provider == fact.provider);
        if let Some(account) = account
            && !memory::is_deployed(tx, id, &fact.provider).await?
        {
            // As the environment's deployments are called, where the credential is from there.
            let mark = if account.credential_name.starts_with("env:") { "env" } else { "sync" };
            let name = format!("{mark}:{}/{id}", fact.provider);
            memory::deploy(tx, account, &name, id, &fact.upstream_model).await?;
        }
    }
    Ok(())
}

fn as_new(model: &StoredModel) -> NewModel {
    let offerings = model.offerings.iter().map(|offering| NewOffering {
        provider: offering.provider.clone(),
        upstream_model: offering.upstream_model.clone(),
        amounts: offering.amounts.clone(),
        price_id: None,
    });
    NewModel { offerings: offerings.collect(), row: model.row.clone() }
}

/// A model that nobody has described yet, as its first source tells of it.
fn new_model(id: &str, fact: &Fact) -> NewModel {
    let text = || vec!["text".to_owned()];
    let input = fact.input_modalities.clone().unwrap_or_else(text);
    let output = fact.output_modalities.clone().unwrap_or_else(|| match id.contains("embed") {
        true => vec!["embedding".to_owned()],
        false => text(),
    });
    let embeds = output.iter().any(|kind| kind == "embedding") || id.contains("embed");
    let endpoint = match () {
        () if embeds => "embeddings",
        () if output.iter().any(|kind| kind == "text") => "chat.completions",
        () if output.iter().any(|kind| kind == "image") => "images.generations",
        () if output.iter().any(|kind| kind == "audio") => "audio.speech",
        () => "chat.completions",
    };
    let mut tags: BTreeSet<String> = fact.abilities.iter().flatten().cloned().collect();
    let window = fact.context_window.unwrap_or_default();
    let takes = |kind: &str| input.iter().any(|it| it == kind);
    for (tag, has) in [
        ("vision", takes("image")),
        ("audio", takes("audio")),
        ("video", takes("video")),
        ("file", takes("file")),
        ("multimodal", input.len() > 1),
        ("long-context", window >= 200_000),
    ] {
        if has {
            tags.insert(tag.to_owned());
        }
    }
    let row = ModelRow {
        id: id.to_owned(),
        display_name: fact.display_name.clone().unwrap_or_else(|| id.to_owned()),
        owned_by: fact
            .owned_by
            .clone()
            .filter(|name| validate::slug("owned_by", name).is_ok())
            .unwrap_or_default(),
        created_unix: fact.created_unix.unwrap_or_default().max(0),
        context_window: window,
        max_output_tokens: fact.max_output_tokens.unwrap_or_default().min(if window > 0 {
            window
        } else {
            i64::MAX
        }),
        tags: tags.into_iter().collect(),
        aliases: Vec::new(),
        input_modalities: input,
        output_modalities: if embeds { vec!["embedding".to_owned()] } else { output },
        endpoints: vec![endpoint.to_owned()],
        source: String::new(),
    };
    NewModel { row, offerings: Vec::new() }
}
