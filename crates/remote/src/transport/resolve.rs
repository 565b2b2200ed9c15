//! Name lookup, once per host and client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// Keeps the addresses of the first lookup: a lookup for every request would start a thread for every request.
#[derive(Debug, Default)]
pub(super) struct LookUpOnce {
    inner: DefaultResolver,
    /// Shared by clones.
    known: Arc<Mutex<HashMap<String, ResolvedSocketAddrs>>>,
}

impl Clone for LookUpOnce {
    fn clone(&self) -> Self {
        Self { inner: DefaultResolver::default(), known: Arc::clone(&self.known) }
    }
}

impl Resolver for LookUpOnce {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let host = format!("{:?} {:?}", uri.scheme(), uri.authority());
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&host).cloned();
        if let Some(addresses) = known {
            return Ok(addresses);
        }
        let addresses = self.inner.resolve(uri, config, timeout)?;
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(host, addresses.clone());
        Ok(addresses)
    }
}
