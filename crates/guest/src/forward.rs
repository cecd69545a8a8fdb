//! Asks other servers about names that are not a network's own, with a cache for each network: what a
//! tenant asks is kept for nobody else, and shows nobody else what was asked.
//!
//! Questions leave from the host's own namespace, each from a port and with an id that nobody can guess
//! (hickory). Everything has an end: a try, all tries, and what the cache keeps.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
};
use tokio::time::timeout;
use uuid::Uuid;

/// How long one server may take for one answer.
const TRY: Duration = Duration::from_millis(1500);
/// How often a server is asked again.
const AGAIN: usize = 2;
/// How long a guest waits at most: a resolver that asks us gives up after five seconds.
const ALL_TRIES: Duration = Duration::from_millis(4500);
/// Answers kept for one network.
const CACHE_MAX: u64 = 1000;
/// How long an answer is kept at most, whatever it says.
const KEPT: Duration = Duration::from_hours(1);
/// The same of an answer that there is nothing.
const NOTHING_KEPT: Duration = Duration::from_mins(5);

/// Who asks for the networks, by L3 network.
#[derive(Default)]
pub(crate) struct Forwarders(Mutex<HashMap<Uuid, (Vec<IpAddr>, TokioResolver)>>);

impl Forwarders {
    /// Completes `answer` with what these servers say.
    pub(crate) async fn ask(
        &self,
        subnet: Uuid,
        servers: &[IpAddr],
        query: &Query,
        mut answer: Message,
    ) -> Message {
        let failed = |mut answer: Message| {
            answer.metadata.response_code = ResponseCode::ServFail;
            answer
        };
        let Some(resolver) = self.resolver(subnet, servers) else { return failed(answer) };
        let looked = resolver.lookup(query.name().clone(), query.query_type());
        let Ok(found) = timeout(ALL_TRIES, looked).await else { return failed(answer) };
        match found {
            Ok(found) => {
                answer.add_answers(found.answers().iter().cloned());
                answer
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => {
                answer.metadata.response_code = nothing.response_code;
                answer.add_authorities(nothing.soa.map(|soa| soa.into_record_of_rdata()));
                answer
            }
            Err(NetError::Dns(DnsError::ResponseCode(code @ ResponseCode::NXDomain))) => {
                answer.metadata.response_code = code;
                answer
            }
            Err(error) => {
                tracing::debug!(%subnet, name = %query.name(), %error, "nobody answers");
                failed(answer)
            }
        }
    }

    /// Forgets the networks that are gone, with their caches.
    pub(crate) fn retain(&self, is_there: impl Fn(Uuid) -> bool) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|subnet, _| is_there(*subnet));
    }

    fn resolver(&self, subnet: Uuid, servers: &[IpAddr]) -> Option<TokioResolver> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, resolver)) = all.get(&subnet)
            && known == servers
        {
            return Some(resolver.clone());
        }
        let each = servers.iter().map(|ip| NameServerConfig::udp_and_tcp(*ip)).collect();
        let config = ResolverConfig::from_name_servers(each);
        let provider = TokioRuntimeProvider::default();
        let mut builder = TokioResolver::builder_with_config(config, provider);
        set(builder.options_mut());
        let resolver = builder.build().ok()?;
        all.insert(subnet, (servers.to_vec(), resolver.clone()));
        Some(resolver)
    }
}

fn set(options: &mut ResolverOpts) {
    options.timeout = TRY;
    options.attempts = AGAIN;
    options.cache_size = CACHE_MAX;
    // Those are the host's.
    options.use_hosts_file = ResolveHosts::Never;
    options.ndots = 0;
    options.edns0 = true;
    options.preserve_intermediates = true;
    options.positive_max_ttl = Some(KEPT);
    options.negative_max_ttl = Some(NOTHING_KEPT);
}

#[cfg(test)]
mod tests;
