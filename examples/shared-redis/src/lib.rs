//! Two web services that share one Redis: one on tokio with axum, one on smol with hyper. Each keeps prices in memory,
//! and shows at once what the other has changed, because the backplane tells it.
//!
//! ```sh
//! redis-server --port 6390 &
//! cargo run -p shared-redis --bin on-tokio -- redis://127.0.0.1:6390 127.0.0.1:8001 &
//! cargo run -p shared-redis --bin on-smol -- redis://127.0.0.1:6390 127.0.0.1:8002 &
//! curl -X PUT -d 3 http://127.0.0.1:8001/price/tea
//! curl http://127.0.0.1:8002/price/tea
//! ```
//!
//! `on-tokio --check redis://…` starts both on free ports, has each see the other's writes, and ends.

pub mod check;
pub mod prices;

use std::error::Error;

/// Any error: the example only reports it.
pub type Failure = Box<dyn Error + Send + Sync>;

/// The Redis URL and the address to listen on, from the command line.
///
/// # Errors
/// If they are not there.
pub fn arguments() -> Result<(String, String), Failure> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(redis), Some(address)) => Ok((redis, address)),
        _ => Err("say which Redis and where to listen: redis://127.0.0.1:6379 127.0.0.1:8001".into()),
    }
}
