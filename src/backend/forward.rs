//! A backend behind a pointer is a backend: `&'static B`, `Box<B>` and `Arc<B>`, of a known type or of `dyn Backend`.
//!
//! Each method of [`Backend`] is handed on, also those with defaults: a pointer must not turn a batch into single
//! calls or lose a port.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::{Backend, BackendResult, Holds, OpenContext, Port, Scope, Usage};
use crate::codec::{Compressor, Format};
use crate::key::CacheKey;
use crate::key_format::CacheKeyFormat;
use crate::runtime::RuntimeHandle;
use crate::tier::TierOptions;
use crate::value::{BackendLabel, CacheValue, DeleteStatus, Entry, Raw, Stamp, Timestamp};

/// What `async_trait` makes of an async method. Spelled out, the pointed-to backend's own future is returned; written
/// as `async fn`, each pointer would box it once more.
type Call<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<B: Backend + ?Sized> Backend for $pointer {
            fn read<'s, 'k, 'c>(&'s self, key: &'k CacheKey) -> Call<'c, BackendResult<Option<CacheValue<Raw>>>>
            where
                's: 'c,
                'k: 'c,
            {
                (**self).read(key)
            }

            fn write<'s, 'k, 'c>(&'s self, key: &'k CacheKey, value: CacheValue<Raw>) -> Call<'c, BackendResult<()>>
            where
                's: 'c,
                'k: 'c,
            {
                (**self).write(key, value)
            }

            fn remove<'s, 'k, 'c>(&'s self, key: &'k CacheKey) -> Call<'c, BackendResult<DeleteStatus>>
            where
                's: 'c,
                'k: 'c,
            {
                (**self).remove(key)
            }

            fn label(&self) -> BackendLabel {
                (**self).label()
            }

            fn value_format(&self) -> &dyn Format {
                (**self).value_format()
            }

            fn compressor(&self) -> &dyn Compressor {
                (**self).compressor()
            }

            fn key_format(&self) -> &CacheKeyFormat {
                (**self).key_format()
            }

            fn read_many<'s, 'k, 'c>(
                &'s self,
                keys: &'k [CacheKey],
            ) -> Call<'c, Vec<BackendResult<Option<CacheValue<Raw>>>>>
            where
                's: 'c,
                'k: 'c,
            {
                (**self).read_many(keys)
            }

            fn write_many<'s, 'c>(
                &'s self,
                entries: Vec<(CacheKey, CacheValue<Raw>)>,
            ) -> Call<'c, Vec<BackendResult<()>>>
            where
                's: 'c,
            {
                (**self).write_many(entries)
            }

            fn remove_many<'s, 'k, 'c>(
                &'s self,
                keys: &'k [CacheKey],
            ) -> Call<'c, Vec<BackendResult<DeleteStatus>>>
            where
                's: 'c,
                'k: 'c,
            {
                (**self).remove_many(keys)
            }

            fn read_entries<'s, 'k, 'c>(
                &'s self,
                keys: &'k [CacheKey],
            ) -> Call<'c, Vec<BackendResult<Option<Entry>>>>
            where
                's: 'c,
                'k: 'c,
            {
                (**self).read_entries(keys)
            }

            fn write_entries<'s, 'c>(
                &'s self,
                entries: Vec<(CacheKey, Entry)>,
            ) -> Call<'c, Vec<BackendResult<()>>>
            where
                's: 'c,
            {
                (**self).write_entries(entries)
            }

            fn remove_entries<'s, 'c>(
                &'s self,
                entries: Vec<(CacheKey, Stamp)>,
            ) -> Call<'c, Vec<BackendResult<DeleteStatus>>>
            where
                's: 'c,
            {
                (**self).remove_entries(entries)
            }

            fn holds(&self) -> Holds {
                (**self).holds()
            }

            fn clear<'s, 'a, 'c>(&'s self, scope: &'a Scope, stamp: Stamp) -> Call<'c, BackendResult<()>>
            where
                's: 'c,
                'a: 'c,
            {
                (**self).clear(scope, stamp)
            }

            fn flush<'s, 'c>(&'s self) -> Call<'c, BackendResult<()>>
            where
                's: 'c,
            {
                (**self).flush()
            }

            fn validate(&self) -> BackendResult<()> {
                (**self).validate()
            }

            fn suits(&self, runtime: &RuntimeHandle) -> BackendResult<()> {
                (**self).suits(runtime)
            }

            fn tier_options(&self) -> TierOptions {
                (**self).tier_options()
            }

            fn usage(&self) -> Usage {
                (**self).usage()
            }

            fn open<'s, 'a, 'c>(&'s self, context: &'a OpenContext) -> Call<'c, BackendResult<()>>
            where
                's: 'c,
                'a: 'c,
            {
                (**self).open(context)
            }

            fn reopen<'s, 'c>(&'s self) -> Call<'c, BackendResult<()>>
            where
                's: 'c,
            {
                (**self).reopen()
            }

            fn sweep(&self, now: Timestamp) -> usize {
                (**self).sweep(now)
            }

            fn port(&self) -> Option<Arc<dyn Port>> {
                (**self).port()
            }

            fn immediate(&self) -> bool {
                (**self).immediate()
            }

            fn residual(&self) -> Option<Duration> {
                (**self).residual()
            }

            fn running_jobs(&self) -> usize {
                (**self).running_jobs()
            }

            fn compares(&self) -> bool {
                (**self).compares()
            }

            fn shared(&self) -> bool {
                (**self).shared()
            }

            fn authoritative(&self) -> bool {
                (**self).authoritative()
            }
        }
    )*};
}

forward!(&'static B, Box<B>, Arc<B>);

#[cfg(test)]
mod tests {
    /// The names of the functions in a piece of source.
    fn functions(source: &str) -> Vec<&str> {
        let names = source.lines().filter_map(|line| {
            let line = line.trim();
            let rest = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "))?;
            rest.split(['(', '<']).next()
        });
        names.collect()
    }

    #[test]
    fn every_method_of_the_trait_is_handed_on() {
        let declared = include_str!("mod.rs");
        let start = declared.find("pub trait Backend:").unwrap();
        let declared = &declared[start..];
        let declared = functions(&declared[..declared.find("\n}\n").unwrap()]);
        let forwarded = include_str!("forward.rs");
        let start = forwarded.find("macro_rules! forward").unwrap();
        let forwarded = &forwarded[start..];
        let forwarded = functions(&forwarded[..forwarded.find("\n}\n").unwrap()]);
        assert!(declared.len() > 20, "the trait was found");
        assert_eq!(declared, forwarded, "in the trait's order");
    }
}
