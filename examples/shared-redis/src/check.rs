//! Starts both services, and has each see what the other has written.
#![expect(clippy::disallowed_methods, reason = "a client of two processes, outside of any runtime")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;

/// Within this time everything must have been seen.
const PATIENCE: Duration = Duration::from_secs(10);

struct Service {
    name: &'static str,
    child: Child,
    address: SocketAddr,
}

impl Service {
    /// Starts the program `name`, which lies beside this one.
    fn start(name: &'static str, redis: &str) -> Result<Self, Failure> {
        let program = std::env::current_exe()?.with_file_name(name);
        let mut child = Command::new(program).args([redis, "127.0.0.1:0"]).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line.trim().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{name} does not listen: {line:?}").into());
        };
        Ok(Self { name, child, address })
    }

    /// A request over a connection of its own; the whole answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String, Failure> {
        let mut stream = TcpStream::connect(self.address)?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all((head + body).as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Asks until the answer ends in `wanted`.
    fn expect(&self, path: &str, wanted: &str) -> Result<(), Failure> {
        let began = Instant::now();
        loop {
            let answer = self.ask("GET", path, "")?;
            if answer.contains(wanted) {
                println!("{}: GET {path}: {} ({} ms)", self.name, wanted.trim(), began.elapsed().as_millis());
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{}: GET {path} gives no `{wanted}` but {answer:?}", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn put(&self, name: &str, price: u64) -> Result<(), Failure> {
        let answer = self.ask("PUT", &format!("/price/{name}"), &price.to_string())?;
        if answer.starts_with("HTTP/1.1 200") {
            Ok(())
        } else {
            Err(format!("{}: {answer}", self.name).into())
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Checks both services against each other.
///
/// # Errors
/// What was not seen.
pub fn run(redis: &str) -> Result<(), Failure> {
    let services = [Service::start("on-tokio", redis)?, Service::start("on-smol", redis)?];
    for service in &services {
        service.expect("/peers", "Up, 1 others")?;
    }
    let [tokio, smol] = &services;
    for (round, (writer, reader)) in [(tokio, smol), (smol, tokio)].into_iter().enumerate() {
        let price = round as u64 * 10 + 1;
        writer.put("tea", price)?;
        // Held in memory, and replaced there.
        reader.expect("/price/tea", &format!("\r\n\r\n{price} from memory"))?;
        writer.put("tea", price + 1)?;
        reader.expect("/price/tea", &format!("\r\n\r\n{} from", price + 1))?;
    }
    println!("done");
    Ok(())
}
