//! The service on smol, with hyper.

use std::convert::Infallible;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use shared_redis::prices::{Answer, Prices};
use shared_redis::{Failure, arguments};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use tierkeep::backend::RedisDriver;
use tierkeep_smol::SmolRuntime;

/// The largest body that is read.
const MOST: usize = 1024;

fn main() -> Result<(), Failure> {
    smol::block_on(async {
        let (redis, address) = arguments()?;
        let prices = Prices::open(SmolRuntime::new(), RedisDriver::Smol, &redis).await?;
        let listener = smol::net::TcpListener::bind(address).await?;
        println!("listening on {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            let prices = prices.clone();
            smol::spawn(async move {
                let service = service_fn(|request| serve(&prices, request));
                let mut http = http1::Builder::new();
                let serving = http.timer(SmolTimer::new()).serve_connection(FuturesIo::new(stream), service);
                if let Err(error) = serving.await {
                    eprintln!("a connection ended: {error}");
                }
            })
            .detach();
        }
    })
}

async fn serve(prices: &Prices, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let (status, text) = match (&head.method, head.uri.path().strip_prefix("/price/")) {
        (&Method::GET, Some(name)) => prices.get(name).await,
        (&Method::PUT, Some(name)) => write(prices, name, body).await,
        (&Method::GET, None) if head.uri.path() == "/peers" => prices.peers(),
        _ => (404, "there are only prices\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Ok(response)
}

async fn write(prices: &Prices, name: &str, body: Incoming) -> Answer {
    match Limited::new(body, MOST).collect().await {
        Ok(body) => prices.put(name, &String::from_utf8_lossy(&body.to_bytes())).await,
        Err(error) => (400, format!("{error}\n")),
    }
}
