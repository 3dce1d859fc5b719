//! The service on tokio, with axum. `--check redis://…` checks it against its twin on smol.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use shared_redis::prices::{Answer, Prices};
use shared_redis::{Failure, arguments, check};
use tierkeep::backend::RedisDriver;
use tierkeep_tokio::TokioRuntime;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    if std::env::args().nth(1).as_deref() == Some("--check") {
        let redis = std::env::args().nth(2).ok_or("say which Redis")?;
        return tokio::task::spawn_blocking(move || check::run(&redis)).await?;
    }
    let (redis, address) = arguments()?;
    let prices = Prices::open(TokioRuntime::current(), RedisDriver::Tokio, &redis).await?;
    let routes = Router::new()
        .route("/price/{name}", get(read).put(write))
        .route("/peers", get(peers))
        .with_state(prices);
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, routes).await?;
    Ok(())
}

async fn read(State(prices): State<Prices>, Path(name): Path<String>) -> (StatusCode, String) {
    respond(prices.get(&name).await)
}

async fn write(State(prices): State<Prices>, Path(name): Path<String>, body: String) -> (StatusCode, String) {
    respond(prices.put(&name, &body).await)
}

async fn peers(State(prices): State<Prices>) -> (StatusCode, String) {
    respond(prices.peers())
}

fn respond((status, text): Answer) -> (StatusCode, String) {
    (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text)
}
