//! Tierkeep in an application on async-std: the runtime is the only thing that differs.

use std::error::Error;
use std::time::Duration;

use tierkeep::{Cache, MemoryBackend, Region};
use tierkeep_async_std::AsyncStdRuntime;

async fn run() -> Result<(), Box<dyn Error>> {
    let cache = Cache::builder(AsyncStdRuntime::new()).tier(MemoryBackend::entries(1_000)).build().await?;
    let squares: Region<u64, u64> = cache.region("square").ttl(Duration::from_secs(60)).build()?;

    let slowly = async |n: u64| {
        println!("working out {n} squared");
        Ok::<_, std::convert::Infallible>(n * n)
    };
    for _ in 0..2 {
        let square = squares.get_or_load(&12, || slowly(12)).await?;
        println!("{square}, {} ms old", square.age().as_millis());
    }

    let ended = cache.shutdown(Duration::from_secs(10)).await;
    println!("{}", if ended.clean { "done" } else { "not everything was flushed" });
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    async_std::task::block_on(run())
}
