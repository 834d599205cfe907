//! `nemo fleet …`: the nodes of the data plane.

use clap::Subcommand;
use nemo_proto::admin::{ListNodesRequest, Node};

use super::{
    output::{Entity, json, rfc3339},
    session::Session,
    table::{Cell, Column},
};
use crate::{admin_client::explain, cli::Target, console};

#[derive(Debug, Subcommand)]
pub enum Fleet {
    /// List the nodes, each with the configuration that it serves
    #[command(after_help = "\
Examples:
  nemo fleet nodes
  nemo fleet nodes --json | jq '.nodes[] | select(.lag > 0)'")]
    Nodes {
        #[command(flatten)]
        target: Target,
    },
}

impl Entity for Node {
    const KIND: &'static str = "node";
    const NOUN: &'static str = "nodes";
    const COLUMNS: &'static [Column] = &[
        Column::whole("NODE"),
        Column::text("STATE"),
        Column::text("ZONE"),
        Column::text("VERSION"),
        Column::number("REVISION"),
        Column::number("LAG"),
        Column::number("APPLY MS"),
        Column::number("DROPPED"),
        Column::whole("LAST SEEN"),
        Column::text("REFUSED"),
    ];

    fn id(&self) -> &str {
        &self.node_id
    }

    fn name(&self) -> &str {
        &self.node_id
    }

    fn cells(&self) -> Vec<Cell> {
        let lag = if self.lag > 0 { console::Style::Change } else { console::Style::Plain };
        let thousandths = self.apply_micros % 1000;
        vec![
            self.node_id.as_str().into(),
            Cell::state(if self.connected { "connected" } else { "disconnected" }),
            self.zone.as_str().into(),
            self.version.as_str().into(),
            self.revision.to_string().into(),
            Cell::styled(self.lag.to_string(), lag),
            format!("{}.{:01}", self.apply_micros / 1000, thousandths / 100).into(),
            self.usage_dropped_total.to_string().into(),
            rfc3339(self.last_seen_at).into(),
            Cell::styled(&self.last_rejection, console::Style::Bad),
        ]
    }
}

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Fleet) -> anyhow::Result<()> {
    let Fleet::Nodes { target } = command;
    let session = Session::reading(&target)?;
    let request = ListNodesRequest::default();
    let listed = session.client.fleet().list_nodes(request).await.map_err(explain)?.into_inner();
    if session.out.json {
        return json(&listed);
    }
    session.out.list(&listed.nodes)?;
    if !session.out.quiet {
        console::note(format_args!("published revision {}", listed.published_revision));
    }
    Ok(())
}
