//! Many keys.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nemo_runtime::grpc::NodeToken;
use nemo_tests::site::NODE_TOKEN;
use nemo_types::Secret;
use serde_json::json;
use sqlx::Connection as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use super::gateway::Gateway;
use super::{Args, node, say};
use crate::proc;

/// A change that has not reached every node by then never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// With one number of keys.
pub(super) struct Measured {
    keys: u32,
    /// The last-good file, which holds what a full push does.
    snapshot_bytes: u64,
    /// From the start of the process until it is ready.
    build: Duration,
    load: Duration,
    resync: Duration,
    node_kib: u64,
    node_empty_kib: u64,
    control_plane_kib: u64,
    /// Sorted: from sending the change to the last node that has applied it.
    propagation: Vec<Duration>,
    /// Sorted: the data plane's own time to apply a change.
    apply: Vec<Duration>,
}

pub(super) async fn measure(args: &Args, keys: u32) -> anyhow::Result<Measured> {
    // Nobody calls the model.
    let mut gateway = Gateway::start(([127, 0, 0, 1], 9).into()).await?;
    gateway.restart_data_plane(true).await?;
    let node_empty_kib = node_memory(&gateway)?;

    say("  inserting");
    insert(&gateway, keys).await?;
    say("  control plane: start");
    let build = gateway.restart_control_plane().await?;
    say("  data plane: full sync, then a start from the last-good file");
    let resync = gateway.restart_data_plane(true).await?;
    let node_kib = node_memory(&gateway)?;
    let file = gateway.site.dir().join("node/snapshot");
    let snapshot_bytes = settled_size(&file, keys).await?;
    let load = gateway.restart_data_plane(false).await?;
    let control_plane = gateway.control_plane.as_ref().context("no control plane")?;
    let control_plane_kib = proc::resident(control_plane.pid())?;
    say(&format!("  one key changes, {} nodes follow, {} times", args.nodes, args.changes));
    let (propagation, apply) = propagation(&gateway, args).await?;
    Ok(Measured {
        keys,
        snapshot_bytes,
        build,
        load,
        resync,
        node_kib,
        node_empty_kib,
        control_plane_kib,
        propagation,
        apply,
    })
}

fn node_memory(gateway: &Gateway) -> anyhow::Result<u64> {
    proc::resident(gateway.data_plane.as_ref().context("no data plane")?.pid())
}

/// Past the admin API, which would take minutes: the rows alone, as a restored backup brings them.
async fn insert(gateway: &Gateway, keys: u32) -> anyhow::Result<()> {
    let mut connection = sqlx::PgConnection::connect(gateway.database.url()).await?;
    sqlx::raw_sql("SET session_replication_role = replica").execute(&mut connection).await?;
    sqlx::query(
        "INSERT INTO api_keys (id, org_id, team_id, name, public_id, secret_hash) \
         SELECT gen_random_uuid(), $1::uuid, $2::uuid, 'key ' || n, \
                'x' || lpad(upper(to_hex(n)), 15, '0'), sha256(n::text::bytea) \
         FROM generate_series(1, $3) n",
    )
    .bind(&gateway.tenant.org_id)
    .bind(&gateway.tenant.team_id)
    .bind(i32::try_from(keys)?)
    .execute(&mut connection)
    .await?;
    sqlx::raw_sql("ANALYZE api_keys").execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// A key takes more than this in any form: a smaller file is from before.
const LEAST_BYTES_PER_KEY: u64 = 32;

/// Size of the last-good file once it holds all keys and no longer changes.
async fn settled_size(dir: &std::path::Path, keys: u32) -> anyhow::Result<u64> {
    let mut last = 0;
    for _ in 0..600 {
        let sizes = std::fs::read_dir(dir)?.flatten().filter_map(|entry| Some(entry.metadata().ok()?.len()));
        let size = sizes.max().unwrap_or(0);
        if size > u64::from(keys) * LEAST_BYTES_PER_KEY && size == last {
            return Ok(size);
        }
        last = size;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    anyhow::bail!("the last-good file in {} never settled", dir.display())
}

async fn propagation(gateway: &Gateway, args: &Args) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let endpoint = Endpoint::from_shared(format!("http://{}", gateway.site.ports.grpc))?;
    let (applied, mut news) = mpsc::channel(4 * args.nodes.max(1));
    let mut nodes = JoinSet::new();
    let mut held = None;
    for number in 0..args.nodes {
        let channel: Channel = endpoint.connect().await?;
        let token = NodeToken::new(&Secret::new(NODE_TOKEN))?;
        nodes.spawn(node::follow(channel, token, number, held.clone(), applied.clone()));
        if held.is_none() {
            // The first fetches everything; the others start from what it got.
            let first = tokio::select! {
                first = news.recv() => first.context("no node is left")?,
                Some(ended) = nodes.join_next() => return Err(ended?.err().context("a node has ended")?),
            };
            held = Some(first.held);
        }
    }
    let published = held.map_or(0, |held| held.revision());
    let (mut propagation, mut apply) = (Vec::new(), Vec::new());
    let path = format!("/organizations/{}/keys/{}", gateway.tenant.org_id, gateway.key.0);
    // The first two find the last nodes still subscribing.
    let warm_up = 2;
    for change in 0..args.changes + warm_up {
        let body = json!({ "name": format!("changed {change}") });
        let started = Instant::now();
        let ((), last) =
            tokio::try_join!(async { gateway.admin.patch(&path, body).await.map(drop) }, async {
                let all = all_applied(&mut news, args.nodes, published + change as u64 + 1);
                tokio::time::timeout(PATIENCE, all).await.context("a change that did not reach every node")?
            })?;
        if change >= warm_up {
            propagation.push(last - started);
            let listed = gateway.admin.get("/nodes").await?;
            let micros = listed["nodes"].as_array().into_iter().flatten();
            let micros = micros.filter_map(|node| node["apply_micros"].as_u64()).max().unwrap_or(0);
            apply.push(Duration::from_micros(micros));
        }
        if let Some(ended) = nodes.try_join_next() {
            return Err(ended?.err().context("a node has ended")?);
        }
    }
    propagation.sort_unstable();
    apply.sort_unstable();
    Ok((propagation, apply))
}

/// When the last of the nodes had applied the revision.
async fn all_applied(
    news: &mut mpsc::Receiver<node::Applied>,
    nodes: usize,
    revision: u64,
) -> anyhow::Result<Instant> {
    let mut seen = 0;
    loop {
        let applied = news.recv().await.context("no node is left")?;
        if applied.revision >= revision {
            seen += 1;
        }
        if seen == nodes {
            return Ok(applied.at);
        }
    }
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

pub(super) fn table(measured: &[Measured], args: &Args) -> String {
    let mut table = format!("{:<52}", "");
    for column in measured {
        let _ = write!(table, "{:>14}", format!("{} keys", column.keys));
    }
    table.push('\n');
    let millis = |duration: Duration| format!("{:.1}", duration.as_secs_f64() * 1e3);
    let seconds = |duration: Duration| format!("{:.2}", duration.as_secs_f64());
    let per_key = |kib: u64, empty: u64, keys: u32| {
        format!("{:.0}", kib.saturating_sub(empty) as f64 * 1024.0 / f64::from(keys))
    };
    let mut row = |name: String, value: &dyn Fn(&Measured) -> String| {
        let _ = write!(table, "{name:<52}");
        for column in measured {
            let _ = write!(table, "{:>14}", value(column));
        }
        table.push('\n');
    };
    row("snapshot, MiB".into(), &|it| format!("{:.1}", it.snapshot_bytes as f64 / 1048576.0));
    row("control plane, start to ready, s".into(), &|it| seconds(it.build));
    row("node, start to serving from the last-good file, s".into(), &|it| seconds(it.load));
    row("node, start to serving after a full resync, s".into(), &|it| seconds(it.resync));
    row("node, bytes of memory per key".into(), &|it| per_key(it.node_kib, it.node_empty_kib, it.keys));
    row("node, MiB".into(), &|it| format!("{:.0}", it.node_kib as f64 / 1024.0));
    row("control plane, MiB".into(), &|it| format!("{:.0}", it.control_plane_kib as f64 / 1024.0));
    for (percent, name) in [(50, "p50"), (99, "p99"), (100, "max")] {
        row(format!("one key changed: applied on {} nodes, ms, {name}", args.nodes), &|it| {
            millis(quantile(&it.propagation, percent))
        });
    }
    row("  slowest node's own time to apply it, ms, p50".into(), &|it| millis(quantile(&it.apply, 50)));
    if let [small, .., large] = measured {
        let ratio = |percent| {
            quantile(&large.propagation, percent).as_secs_f64()
                / quantile(&small.propagation, percent).as_secs_f64()
        };
        let met = if ratio(50) <= 2.0 { "met" } else { "MISSED" };
        let _ = writeln!(
            table,
            "\n{} times the keys: a change takes x {:.2} (p50), x {:.2} (p99); goal for the median x 2: {met}",
            large.keys / small.keys.max(1),
            ratio(50),
            ratio(99)
        );
    }
    table
}
