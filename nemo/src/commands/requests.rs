//! `nemo requests …`

use nemo_proto::admin::{GetRequestRequest, ListRequestsRequest, RequestRecord};

use super::{json, keys, table::Table};
use crate::{
    admin_client::{AdminClient, explain},
    cli::Requests,
    console,
};

/// # Errors
/// When nothing runs, or the control plane refuses.
pub async fn run(command: Requests) -> anyhow::Result<()> {
    match command {
        Requests::List { limit, model, key, outcome, target } => {
            let client = AdminClient::open(&target)?;
            let org_id = client.organization(target.org.as_deref()).await?;
            let key_id = match key {
                Some(key) => keys::find(&client, &org_id, &key).await?.id,
                None => String::new(),
            };
            let request = ListRequestsRequest {
                org_id,
                key_id,
                model: model.unwrap_or_default(),
                outcome: outcome.unwrap_or_default(),
                page_size: limit,
                ..ListRequestsRequest::default()
            };
            let listed = client.requests().list_requests(request).await.map_err(explain)?.into_inner();
            if target.json { json(&listed.requests) } else { show_list(&listed.requests) }
        }
        Requests::Show { id, target } => {
            let client = AdminClient::open(&target)?;
            let org_id = client.organization(target.org.as_deref()).await?;
            let request = GetRequestRequest { org_id, id };
            let record = client.requests().get_request(request).await.map_err(explain)?.into_inner();
            if target.json { json(&record) } else { show(&record) }
        }
    }
}

fn show_list(requests: &[RequestRecord]) -> anyhow::Result<()> {
    if requests.is_empty() {
        console::note("no requests yet");
        return Ok(());
    }
    let mut table =
        Table::new(["STARTED", "ID", "MODEL", "PROVIDER", "OUTCOME", "STATUS", "IN", "OUT", "USD", "MS"]);
    for record in requests {
        table.row([
            keys::rfc3339(record.started_at),
            record.id.clone(),
            if record.model.is_empty() { record.requested_model.clone() } else { record.model.clone() },
            record.provider.clone(),
            record.outcome.clone(),
            record.http_status.to_string(),
            count(record.input_tokens),
            count(record.output_tokens),
            if record.cost_usd.is_empty() { "?".to_owned() } else { record.cost_usd.clone() },
            (record.total_us / 1000).to_string(),
        ]);
    }
    table.print();
    Ok(())
}

/// Unknown is not zero.
fn count(tokens: Option<u64>) -> String {
    tokens.map_or_else(|| "?".to_owned(), |tokens| tokens.to_string())
}

/// Every field that has a value, one a line.
fn show(record: &RequestRecord) -> anyhow::Result<()> {
    if let serde_json::Value::Object(fields) = serde_json::to_value(record)? {
        let width = fields.keys().map(String::len).max().unwrap_or_default();
        for (name, value) in fields {
            match value {
                serde_json::Value::Null => {}
                serde_json::Value::String(text) if text.is_empty() => {}
                serde_json::Value::String(text) => console::result(format_args!("{name:width$}  {text}")),
                other => console::result(format_args!("{name:width$}  {other}")),
            }
        }
    }
    Ok(())
}
