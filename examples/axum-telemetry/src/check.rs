//! The service's own client: requests, and a look at the answers.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Failure;

/// Sends requests, prints metrics and traces, and fails if something is missing.
pub(crate) async fn run(address: SocketAddr) -> Result<(), Failure> {
    for id in [1, 2, 3, 1, 1, 2] {
        expect(&get(address, &format!("/user/{id}")).await?, &format!("\"name\":\"user {id}\""))?;
    }
    expect(&get(address, "/ready").await?, "\"status\":\"ready\"")?;
    let metrics = get(address, "/metrics").await?;
    println!("{metrics}");
    for line in [
        "# HELP tierkeep_reads_total Reads of a tier by outcome",
        "# TYPE tierkeep_region_read_seconds histogram",
        "tierkeep_reads_total{cache=\"shop\",tier=\"memory\",outcome=\"hit\"} 3",
        "tierkeep_loads_total{cache=\"shop\",region=\"user\",outcome=\"loaded\"} 3",
        "tierkeep_tier_up{cache=\"shop\",tier=\"remote\"} 1",
    ] {
        expect(&metrics, line)?;
    }
    let traces = get(address, "/traces").await?;
    println!("{traces}");
    // A call's span is a batch's: no part of one trace, and linked to the reads that it serves.
    for part in [" request\n", " tierkeep.read in ", " tierkeep.load in ", " tierkeep.call for tierkeep."] {
        expect(&traces, part)?;
    }
    Ok(())
}

fn expect(answer: &str, part: &str) -> Result<(), Failure> {
    if answer.contains(part) {
        Ok(())
    } else {
        Err(format!("`{part}` is not in this answer:\n{answer}").into())
    }
}

/// A GET over a connection of its own.
async fn get(address: SocketAddr, path: &str) -> Result<String, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
