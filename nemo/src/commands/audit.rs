//! `nemo audit …`: who changed what, and whether the log of it is whole.

use anyhow::bail;
use clap::Subcommand;
use nemo_proto::{
    Timestamp,
    admin::{AuditEntry, ListAuditRequest, VerifyAuditRequest, VerifyAuditResponse},
};

use super::{
    output::{Entity, json, rfc3339},
    session::Session,
    table::{Cell, Column},
};
use crate::{
    admin_client::{PAGE, explain},
    cli::{Owner, Target, moment},
    console,
};

#[derive(Debug, Subcommand)]
pub enum Audit {
    /// List changes, the newest first
    #[command(after_help = "\
Examples:
  nemo audit list
  nemo audit list --org acme --since 7d --actor ann@example.com
  nemo audit list --action key. --limit 200 --json   everything about keys, with what was before and after")]
    List {
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
        /// At this moment or later: 2h (ago), 2026-11-21, 2026-11-21T08:00:00Z
        #[arg(long, value_name = "TIME", value_parser = moment)]
        since: Option<Timestamp>,
        /// Before this moment
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<Timestamp>,
        /// By this one only: id or name
        #[arg(long, value_name = "WHO")]
        actor: Option<String>,
        /// Such as team.update, or `team.` for everything about teams
        #[arg(long)]
        action: Option<String>,
        /// About the thing with this id only
        #[arg(long, value_name = "ID")]
        target_id: Option<String>,
        #[command(flatten)]
        owner: Owner,
        #[command(flatten)]
        target: Target,
    },
    /// Check that no entry was changed or removed
    #[command(after_help = "\
Examples:
  nemo audit verify
  nemo audit verify --noted 1234:9f86d081…   finds also whoever rewrote the whole log since this was noted

It prints the last entry as SEQ:HASH. Note that elsewhere, and give it to the next verification. Exit code 1 when
something is wrong.")]
    Verify {
        /// An entry that was noted elsewhere: SEQ:HASH
        #[arg(long, value_name = "SEQ:HASH", value_parser = noted)]
        noted: Option<Noted>,
        #[command(flatten)]
        target: Target,
    },
}

/// An entry that was noted elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    seq: u64,
    hash: String,
}

fn noted(text: &str) -> Result<Noted, String> {
    let parts = text.split_once(':').and_then(|(seq, hash)| Some((seq.parse().ok()?, hash)));
    match parts {
        Some((seq, hash)) if hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(Noted { seq, hash: hash.to_ascii_lowercase() })
        }
        _ => Err(format!("{text:?} is no entry; expected SEQ:HASH as `nemo audit verify` prints it")),
    }
}

impl Entity for AuditEntry {
    const KIND: &'static str = "audit entry";
    const NOUN: &'static str = "audit entries";
    const COLUMNS: &'static [Column] = &[
        Column::number("SEQ"),
        Column::whole("AT"),
        Column::text("ACTOR"),
        Column::text("FROM"),
        Column::whole("ACTION"),
        Column::whole("TARGET"),
    ];

    fn id(&self) -> &str {
        &self.hash
    }

    fn name(&self) -> &str {
        &self.action
    }

    fn cells(&self) -> Vec<Cell> {
        let actor = [&self.actor_name, &self.actor_id, &self.actor_kind];
        let actor = actor.into_iter().find(|name| !name.is_empty());
        vec![
            self.seq.to_string().into(),
            rfc3339(self.at).into(),
            actor.map_or("", String::as_str).into(),
            self.remote_addr.as_str().into(),
            self.action.as_str().into(),
            self.target_id.as_str().into(),
        ]
    }
}

/// # Errors
/// When nothing runs, the control plane refuses, or the log is not whole.
pub async fn run(command: Audit) -> anyhow::Result<()> {
    match command {
        Audit::List { limit, since, until, actor, action, target_id, owner, target } => {
            let session = Session::reading(&target)?;
            let request = ListAuditRequest {
                org_id: session.client.owner(owner.org.as_deref()).await?,
                actor: actor.unwrap_or_default(),
                action: action.unwrap_or_default(),
                target_id: target_id.unwrap_or_default(),
                after: since,
                before: until,
                ..Default::default()
            };
            session.out.list(&newest(&session, request, usize::try_from(limit)?).await?)
        }
        Audit::Verify { noted, target } => {
            let session = Session::reading(&target)?;
            let (noted_seq, noted_hash) = noted.map(|noted| (noted.seq, noted.hash)).unwrap_or_default();
            let request = VerifyAuditRequest { noted_seq, noted_hash, ..Default::default() };
            let mut client = session.client.audit();
            let answer = console::step("Checking the audit log", client.verify_audit(request)).await;
            show(&session, &answer.map_err(explain)?.into_inner())
        }
    }
}

async fn newest(
    session: &Session,
    mut request: ListAuditRequest,
    limit: usize,
) -> anyhow::Result<Vec<AuditEntry>> {
    let mut entries: Vec<AuditEntry> = Vec::new();
    loop {
        request.page_size = PAGE.min(u32::try_from(limit - entries.len())?);
        let page = session.client.audit().list_audit(request.clone()).await.map_err(explain)?.into_inner();
        entries.extend(page.entries);
        if entries.len() >= limit || page.next_page_token.is_empty() {
            entries.truncate(limit);
            return Ok(entries);
        }
        request.page_token = page.next_page_token;
    }
}

fn show(session: &Session, verified: &VerifyAuditResponse) -> anyhow::Result<()> {
    if session.out.json {
        json(verified)?;
    } else if verified.ok {
        let head = format!("{}:{}", verified.head_seq, verified.head_hash);
        if session.out.quiet {
            console::result(head);
        } else {
            console::result(format_args!(
                "{} entries, none changed or missing; the last is {head}",
                verified.entries
            ));
        }
    }
    if !verified.ok {
        bail!("the audit log is not whole: entry {}: {}", verified.fault_seq, verified.fault);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_entry_is_a_number_and_a_hash() {
        let hash = "0f".repeat(32);
        assert_eq!(noted(&format!("7:{hash}")), Ok(Noted { seq: 7, hash }));
        for text in ["", "7", "7:", "x:00", "7:zz"] {
            assert!(noted(text).unwrap_err().contains("SEQ:HASH"), "{text}");
        }
    }
}
