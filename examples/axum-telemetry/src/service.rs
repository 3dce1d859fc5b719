//! The service: users, cached.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use tierkeep::{Cache, Region};
use tracing::Instrument;

use crate::Failure;
use crate::telemetry::Traces;

/// What the service serves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct User {
    id: u64,
    name: String,
}

/// What the handlers share.
pub(crate) struct Service {
    pub(crate) cache: Cache,
    pub(crate) users: Region<User, u64>,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) traces: Traces,
}

pub(crate) fn routes(service: Arc<Service>) -> Router {
    Router::new()
        .route("/user/{id}", get(user))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/traces", get(traces))
        .with_state(service)
}

async fn user(State(service): State<Arc<Service>>, Path(id): Path<u64>) -> impl IntoResponse {
    let request = tracing::info_span!("request", id);
    let user = service.users.get_or_load(&id, || load(id)).instrument(request).await;
    match user {
        // A hit serialises as its value.
        Ok(user) => Json(user).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// Stands for the database.
async fn load(id: u64) -> Result<User, Failure> {
    Ok(User { id, name: format!("user {id}") })
}

/// 200 or 503, with what is wrong.
async fn ready(State(service): State<Arc<Service>>) -> impl IntoResponse {
    let health = service.cache.health();
    let status = StatusCode::from_u16(health.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(health))
}

async fn metrics(State(service): State<Arc<Service>>) -> String {
    // Otherwise up to a second old.
    service.cache.publish_metrics();
    service.metrics.run_upkeep();
    service.metrics.render()
}

async fn traces(State(service): State<Arc<Service>>) -> impl IntoResponse {
    service.traces.text().map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}
