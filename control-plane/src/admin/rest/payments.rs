//! `POST /webhooks/payments`: events of the payment provider. No admin token: the provider signs. Not part of the admin
//! API's document.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest as _, Request, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use nemo_runtime::clock;
use serde_json::json;

use crate::{
    admin::{Admin, AdminError, ErrorKind},
    credits::payments::{Refused, Unsigned},
};

const PATH: &str = "/webhooks/payments";
const SIGNATURE: &str = "stripe-signature";
/// Events are some kilobytes.
const MAX_BODY_BYTES: usize = 256 * 1024;
/// The provider repeats what is not answered in time.
const PATIENCE: Duration = Duration::from_secs(8);

pub(super) fn routes() -> Router<Arc<Admin>> {
    Router::new().route(PATH, post(receive)).layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

async fn receive(State(admin): State<Arc<Admin>>, request: Request) -> Result<Response, AdminError> {
    let Some(payments) = &admin.payments else {
        let message = "payments are not set up: set payments_webhook_secret (NEMO_PAYMENTS_WEBHOOK_SECRET)";
        return Err(AdminError::new(ErrorKind::NotFound, message));
    };
    let signature = request.headers().get(SIGNATURE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if signature.is_none() {
        return Err(refused(Refused::Unsigned(Unsigned::Missing)));
    }
    let dealt = async {
        let body = Bytes::from_request(request, &()).await.map_err(|rejection| {
            let kind = match rejection.status().as_u16() {
                413 => ErrorKind::TooLarge,
                _ => ErrorKind::InvalidArgument,
            };
            AdminError::new(kind, rejection.to_string())
        })?;
        let now = clock::unix_us() / 1_000_000;
        payments.receive(&admin.store, signature.as_deref(), &body, now).await.map_err(refused)
    };
    let taken = tokio::time::timeout(PATIENCE, dealt).await.unwrap_or_else(|_| {
        Err(AdminError::new(ErrorKind::Unavailable, "the event was not dealt with in time: send it again"))
    })?;
    Ok(Json(json!({ "outcome": taken.outcome.name(), "reason": taken.reason })).into_response())
}

fn refused(refused: Refused) -> AdminError {
    match refused {
        Refused::Unsigned(error) => {
            let expected = "a signature of the body with the endpoint's secret, not older than five minutes";
            AdminError::invalid(SIGNATURE, error.to_string(), expected)
        }
        Refused::Malformed(reason) | Refused::Event(reason) => {
            AdminError::new(ErrorKind::InvalidArgument, reason)
        }
        Refused::Store(error) => error.into(),
    }
}
