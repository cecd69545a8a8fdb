//! Instances that are nothing but a network namespace.
//!
//! The namespace is named `<prefix>-<instance>`, the host's end of a NIC `nl` and the last twelve
//! digits of the NIC, and carries the whole NIC in its alias: what runs can be told from the
//! kernel alone. The only process that belongs to an instance is its DHCP client, if it has one
//! ([`client`]), which goes on when the agent ends; processes that somebody else started inside are never
//! ended here, they only lose their NICs.

mod cable;
mod client;
mod inside;
mod spare;

use std::{path::Path, sync::Arc, time::Duration};

use hostnet::{Kind, LinkInfo, Namespace, Netlink};
use tokio::task;
use uuid::Uuid;

use crate::{Driver, Error, FarEnd, Found, FoundNic, InstanceSpec, Prepared};

pub(crate) use cable::{is_host_device_name, silence};
use client::Clients;
pub use spare::Spare;

/// The metric of the first NIC's default routes; each further NIC has the next one. Above zero, so
/// that a route that a guest adds by hand wins.
const METRIC_FIRST: u32 = 100;

/// How long an instance's end may take to get its carrier. The kernel defers such events by at most
/// a second (`net/core/link_watch.c`).
const CARRIER_WAIT: Duration = Duration::from_secs(2);

/// How often that is looked at.
const CARRIER_PAUSE: Duration = Duration::from_millis(1);

/// Runs instances as network namespaces.
#[derive(Clone, Debug)]
pub struct Netns {
    prefix: Arc<str>,
    /// Where the host's ends live; `None`: in the namespace of the calling process.
    host: Option<Namespace>,
    stock: Arc<spare::Stock>,
    clients: Arc<Clients>,
}

impl Netns {
    /// A driver whose host is the namespace of this process, and whose agent keeps its data in a
    /// directory. Drivers with one prefix on one machine share their instances.
    pub fn new(prefix: impl Into<String>, data: &Path) -> Self {
        let clients = Arc::new(Clients::below(data));
        Self { prefix: prefix.into().into(), host: None, stock: Arc::default(), clients }
    }

    /// A driver whose host is another namespace: one of several hosts of a lab.
    pub fn on(prefix: impl Into<String>, data: &Path, host: Namespace) -> Self {
        Self { host: Some(host), ..Self::new(prefix, data) }
    }

    /// The name of the namespace of an instance, as `ip netns` shows it.
    pub fn namespace_name(&self, instance: Uuid) -> String {
        format!("{}-{}", self.prefix, instance.simple())
    }

    /// Removes what a crash left of namespaces that were being made. Blocks shortly.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sweep(&self) -> Result<(), Error> {
        Ok(Namespace::sweep(|name| self.instance_of(name).is_some() || self.is_spare(name))?)
    }

    async fn host(&self) -> Result<Netlink, Error> {
        Ok(match &self.host {
            Some(namespace) => namespace.netlink().await?,
            None => Netlink::current().await?,
        })
    }

    /// The namespace of an instance, made if it is not there. Out of a spare, if there is one: then
    /// also the host's device of its first NIC.
    async fn inside(
        &self,
        host: &Netlink,
        spec: &InstanceSpec,
    ) -> Result<(Netlink, Option<LinkInfo>), Error> {
        let name = self.namespace_name(spec.uuid);
        match Namespace::open(&name) {
            Err(hostnet::Error::NoNamespace { .. }) => {}
            found => {
                let inside = found?.netlink().await?;
                if inside::is_of(&inside, spec.generation).await? {
                    return Ok((inside, None));
                }
                self.remove(spec.uuid).await?;
            }
        }
        let made = match spec.nics.first() {
            Some(nic) => self.use_spare(host, &name, nic).await?,
            None => None,
        };
        let (inside, link) = match made {
            Some(made) => made,
            None => (blocking(move || Namespace::create(&name)).await?.netlink().await?, None),
        };
        inside::note(&inside, spec.generation).await?;
        Ok((inside, link))
    }

    /// Removes a namespace with its cables, if it is there.
    async fn remove_named(&self, name: String) -> Result<(), Error> {
        match Namespace::open(&name) {
            Ok(namespace) => {
                // The kernel takes a namespace down later, or not at all while a process is in it.
                let (host, inside) = (self.host().await?, namespace.netlink().await?);
                cable::remove_unwanted(&host, &inside, &[]).await?;
            }
            Err(hostnet::Error::NoNamespace { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        blocking(move || Namespace::remove(&name)).await
    }

    /// The host's device of a NIC, if the device is there and complete.
    async fn host_link(&self, host: &Netlink, nic: Uuid) -> Result<Option<LinkInfo>, Error> {
        let found = host.link_by_name(&host_device_name(nic)).await?;
        Ok(found.filter(|link| nic_of(link) == Some(nic)))
    }

    fn instance_of(&self, namespace: &str) -> Option<Uuid> {
        let digits = namespace.strip_prefix(&*self.prefix)?.strip_prefix('-')?;
        // Only the form that we write; `parse_str` also takes others.
        Uuid::try_parse(digits).ok().filter(|instance| instance.simple().to_string() == digits)
    }
}

/// Ends what is run for the instances of a host whose agent kept its data there and does not run any more;
/// how many there were.
///
/// # Errors
/// What the kernel says.
pub(crate) fn end_all(data: &Path) -> Result<usize, Error> {
    Clients::below(data).end_all()
}

fn found_nic(nic: Uuid, link: &LinkInfo) -> FoundNic {
    FoundNic { nic, host_ifindex: link.index, up: link.is_up, far_end: FarEnd::of(link) }
}

impl Driver for Netns {
    async fn prepare(&self, spec: &InstanceSpec) -> Result<Vec<Prepared>, Error> {
        spec.check()?;
        let host = self.host().await?;
        let (inside, mut fresh) = self.inside(&host, spec).await?;
        inside::start(&inside).await?;
        if fresh.is_none() {
            cable::remove_unwanted(&host, &inside, &spec.nics).await?;
        }
        let mut prepared = Vec::with_capacity(spec.nics.len());
        for (nic, metric) in spec.nics.iter().zip(METRIC_FIRST..) {
            let link = match fresh.take() {
                Some(link) => link,
                None => cable::ensure(&host, &inside, nic).await?,
            };
            inside::configure(&inside, nic, metric).await?;
            prepared.push(Prepared {
                nic: nic.uuid,
                host_ifindex: link.index,
                far_end: FarEnd::of(&link),
                host_device: link.name,
            });
        }
        self.clients.ensure((spec.uuid, &self.namespace_name(spec.uuid)), &spec.nics).await?;
        Ok(prepared)
    }

    async fn activate(&self, nic: Uuid) -> Result<(), Error> {
        let host = self.host().await?;
        match self.host_link(&host, nic).await? {
            Some(link) if link.is_up => Ok(()),
            Some(link) => {
                host.set_up(link.index).await?;
                until_running(&host, &link).await
            }
            None => Err(Error::NoNic { nic }),
        }
    }

    async fn deactivate(&self, nic: Uuid) -> Result<(), Error> {
        let host = self.host().await?;
        let Some(link) = self.host_link(&host, nic).await? else { return Ok(()) };
        match host.set_down(link.index).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn remove(&self, instance: Uuid) -> Result<(), Error> {
        // It would keep the namespace.
        self.clients.end(instance)?;
        self.remove_named(self.namespace_name(instance)).await
    }

    async fn discard(&self, host_ifindex: u32) -> Result<(), Error> {
        let host = self.host().await?;
        match host.link_by_index(host_ifindex).await? {
            Some(link) if cable::is_host_end(&link) => Ok(host.delete_link(link.index).await?),
            Some(link) => Err(Error::NotOurs { device: link.name }),
            None => Ok(()),
        }
    }

    async fn find(&self, instance: Uuid, nic: Uuid) -> Result<Option<FoundNic>, Error> {
        let namespace = match Namespace::open(&self.namespace_name(instance)) {
            Ok(namespace) => namespace,
            Err(hostnet::Error::NoNamespace { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let host = self.host().await?;
        let Some(link) = self.host_link(&host, nic).await? else { return Ok(None) };
        let id = host.namespace_id(&namespace).await?;
        let found = found_nic(nic, &link);
        Ok((id.is_some() && link.peer_namespace_id == id).then_some(found))
    }

    async fn list(&self) -> Result<Vec<Found>, Error> {
        let host = self.host().await?;
        let prefix = format!("{}-", self.prefix);
        let names = blocking(move || Namespace::list(&prefix)).await?;
        let links = host.links().await?;
        let mut found = Vec::new();
        for name in names {
            let Some(instance) = self.instance_of(&name) else { continue };
            let namespace = match Namespace::open(&name) {
                Ok(namespace) => namespace,
                Err(hostnet::Error::NoNamespace { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let id = host.namespace_id(&namespace).await?;
            let mut nics: Vec<_> = links
                .iter()
                .filter(|link| id.is_some() && link.peer_namespace_id == id)
                .filter_map(|link| {
                    let nic = nic_of(link)?;
                    Some(found_nic(nic, link))
                })
                .collect();
            nics.sort_unstable();
            found.push(Found { instance, nics });
        }
        Ok(found)
    }
}

/// Waits until the instance's end can send. The kernel connects the queues of a device that has
/// got its carrier a little later, up to a second; what is sent meanwhile is dropped, and the first
/// ARP request with it. An end that the instance keeps down is not waited for.
async fn until_running(host: &Netlink, link: &LinkInfo) -> Result<(), Error> {
    let running = async {
        while let Some(end) = host.other_end(link).await? {
            if end.is_running || !end.is_up {
                break;
            }
            tokio::time::sleep(CARRIER_PAUSE).await;
        }
        Ok::<(), Error>(())
    };
    match tokio::time::timeout(CARRIER_WAIT, running).await {
        Ok(done) => done,
        Err(_) => {
            tracing::warn!(device = link.name, "the instance's end has no carrier yet");
            Ok(())
        }
    }
}

/// The name of the host's device of a NIC: `nl` and the last 12 hexadecimal digits of its uuid,
/// which are random in every version of uuid that is in use. 14 of 15 possible bytes.
pub fn host_device_name(nic: Uuid) -> String {
    let digits = nic.simple().to_string();
    format!("nl{}", &digits[digits.len() - 12..])
}

/// The NIC to which a complete host's device belongs.
fn nic_of(link: &LinkInfo) -> Option<Uuid> {
    let nic = Uuid::try_parse(link.alias.as_deref()?).ok()?;
    (link.kind == Kind::Veth && link.name == host_device_name(nic)).then_some(nic)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, hostnet::Error> + Send + 'static,
) -> Result<T, Error> {
    let done = task::spawn_blocking(work).await.map_err(|_| Error::Cancelled)?;
    Ok(done?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_lead_back_to_the_uuid() {
        let uuid = Uuid::parse_str("00112233-4455-4677-8899-aabbccddeeff").unwrap();
        assert_eq!(host_device_name(uuid), "nlaabbccddeeff");
        let driver = Netns::new("lab-7", Path::new(""));
        let name = driver.namespace_name(uuid);
        assert_eq!(name, "lab-7-00112233445546778899aabbccddeeff");
        assert_eq!(driver.instance_of(&name), Some(uuid));
        assert_eq!(Netns::new("lab", Path::new("")).instance_of(&name), None);
    }
}
