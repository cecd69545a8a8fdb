//! Namespaces with a cable that are made before anybody wants them.
//!
//! What takes long about an instance is done beforehand: its namespace, its cable, and, by whoever
//! has the driver, the programs on the host's end; attaching one waits for RCU. The instance's
//! namespace then only has to be renamed, and not moved into: to move a device waits for RCU too.
//!
//! A spare is known by the name of its namespace alone, `<prefix>-spare_<digits>`: the device is
//! looked for as the other end of the cable in there. So one that a crash left half made is found,
//! goes with its namespace, and a device of somebody else is never taken for one.

use std::sync::{Mutex, PoisonError};

use hostnet::{Arp, Error as HostError, Identity, Kind, LinkInfo, Namespace, Netlink, VethSpec};
use uuid::Uuid;

use super::{Netns, blocking, cable, host_device_name, inside};
use crate::{Error, NicSpec};

/// What the alias of the host's end says, for people.
const ALIAS: &str = "netloom spare";

/// The device inside; most instances have one of this name.
const DEVICE: &str = "eth0";

/// An instance gives its own.
const MTU_BYTES: u32 = 1500;

/// A namespace with a cable, ready to become an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spare {
    /// The last twelve digits of a random uuid.
    digits: String,
    /// The index of the host's end.
    pub host_ifindex: u32,
}

/// Spares that may be taken, the oldest last.
#[derive(Debug, Default)]
pub(super) struct Stock(Mutex<Vec<Spare>>);

impl Stock {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<Spare>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Netns {
    /// Makes a spare, its host's end down. Nobody takes it before it is offered.
    ///
    /// # Errors
    /// What the kernel says; nothing stays behind then.
    pub async fn make_spare(&self) -> Result<Spare, Error> {
        let uuid = Uuid::new_v4();
        let made = self.assemble(uuid).await;
        if made.is_err() {
            self.remove_named(self.spare_namespace(&digits(uuid))).await?;
        }
        made
    }

    async fn assemble(&self, uuid: Uuid) -> Result<Spare, Error> {
        let digits = digits(uuid);
        let (host, name) = (self.host().await?, self.spare_namespace(&digits));
        let namespace = blocking(move || Namespace::create(&name)).await?;
        let inside = namespace.netlink().await?;
        inside::start(&inside).await?;
        let name = device_name(&digits);
        let spec = VethSpec {
            name: &name,
            mac: cable::host_mac(uuid),
            arp: Arp::Off,
            peer_namespace: &namespace,
            peer_name: DEVICE,
            // As long as it is nobody's.
            peer_mac: [0x02, 0, 0, 0, 0, 1],
            mtu_bytes: MTU_BYTES,
        };
        let link = host.create_veth(&spec).await?;
        cable::silence(&host, &link).await?;
        inside::silence(&inside, DEVICE).await?;
        // Last: it says that the spare is complete.
        host.set_alias(link.index, ALIAS).await?;
        Ok(Spare { digits, host_ifindex: link.index })
    }

    /// Lets the next instance take this spare.
    pub fn offer(&self, spare: Spare) {
        self.stock.with(|spares| spares.insert(0, spare));
    }

    /// The host's ends of those that are offered.
    pub fn offered(&self) -> Vec<u32> {
        self.stock.with(|spares| spares.iter().map(|spare| spare.host_ifindex).collect())
    }

    /// Takes one that is offered, the oldest: it is the caller's to use or to remove.
    pub fn take_spare(&self) -> Option<Spare> {
        self.stock.with(Vec::pop)
    }

    /// Finds the spares that an earlier process made, and removes those that are not complete.
    /// Before any is made or taken: one that is being made is not complete.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn find_spares(&self) -> Result<Vec<Spare>, Error> {
        let prefix = self.spare_namespace("");
        let names = blocking(move || Namespace::list(&prefix)).await?;
        let (host, mut found) = (self.host().await?, Vec::new());
        for name in names {
            let Some(digits) = self.spare_digits(&name) else { continue };
            let end = match Namespace::open(&name) {
                Ok(namespace) => ends(&host, &namespace.netlink().await?, &digits).await?,
                Err(HostError::NoNamespace { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            match end {
                Some((end, _)) => found.push(Spare { digits, host_ifindex: end.index }),
                None => self.remove_named(name).await?,
            }
        }
        Ok(found)
    }

    /// Removes a spare that nobody has taken.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_spare(&self, spare: &Spare) -> Result<(), Error> {
        self.remove_named(self.spare_namespace(&spare.digits)).await
    }

    /// Whether a namespace is that of a spare, or of one that is half made.
    pub(super) fn is_spare(&self, namespace: &str) -> bool {
        self.spare_digits(namespace).is_some()
    }

    /// Makes a namespace of this name out of a spare, whose cable becomes that of `nic`. `None`
    /// when there is no spare, or none that is still as it was made. Within, `None` when there is
    /// a namespace and its cable is to be made as ever.
    pub(super) async fn use_spare(
        &self,
        host: &Netlink,
        name: &str,
        nic: &NicSpec,
    ) -> Result<Option<(Netlink, Option<LinkInfo>)>, Error> {
        let Some(spare) = self.take_spare() else { return Ok(None) };
        let (from, to) = (self.spare_namespace(&spare.digits), name.to_owned());
        let renamed = blocking(move || {
            Namespace::rename(&from, &to)?;
            Namespace::open(&to)
        });
        let namespace = match renamed.await {
            Ok(namespace) => namespace,
            Err(error) => {
                tracing::warn!(%error, spare = spare.digits, "a spare cannot be used");
                let is_gone = matches!(error, Error::Host(HostError::NoNamespace { .. }));
                if !is_gone {
                    self.offer(spare);
                }
                return Ok(None);
            }
        };
        let inside = namespace.netlink().await?;
        let ends = ends(host, &inside, &spare.digits).await?;
        let Some((end, device)) = ends.filter(|(end, _)| end.index == spare.host_ifindex) else {
            return Ok(Some((inside, None)));
        };
        let link = become_nic(host, &inside, (end, device.index), nic).await?;
        Ok(Some((inside, link)))
    }

    fn spare_namespace(&self, digits: &str) -> String {
        // No instance, and nothing else with a prefix of ours, has a `_` in its name.
        format!("{}-spare_{digits}", self.prefix)
    }

    fn spare_digits(&self, namespace: &str) -> Option<String> {
        let digits = namespace.strip_prefix(&self.spare_namespace(""))?;
        cable::are_digits(digits).then(|| digits.to_owned())
    }
}

/// The ends of a spare's cable, the host's first, if all is as it was made.
async fn ends(
    host: &Netlink,
    inside: &Netlink,
    digits: &str,
) -> Result<Option<(LinkInfo, LinkInfo)>, Error> {
    let Some(device) = inside.link_by_name(DEVICE).await? else { return Ok(None) };
    let Some(end) = inside.veth_peer(&device, host).await? else { return Ok(None) };
    let is_complete = end.name == device_name(digits)
        && end.kind == Kind::Veth
        && end.alias.as_deref() == Some(ALIAS)
        && is_silent(&end)
        && !device.is_up;
    Ok(is_complete.then_some((end, device)))
}

fn is_silent(end: &LinkInfo) -> bool {
    !end.is_up && end.is_noarp && end.is_addr_gen_none
}

/// Gives both ends their identities, the host's end last: its alias says that all is done. `None`
/// when somebody else has its name, who is dealt with where every cable is made.
async fn become_nic(
    host: &Netlink,
    inside: &Netlink,
    (end, device): (LinkInfo, u32),
    nic: &NicSpec,
) -> Result<Option<LinkInfo>, Error> {
    let NicSpec { mac, mtu_bytes, .. } = *nic;
    let identity = Identity { name: &nic.device, mac, mtu_bytes, alias: None };
    inside.set_identity(device, &identity).await?;
    let (name, alias, mac) =
        (host_device_name(nic.uuid), nic.uuid.to_string(), cable::host_mac(nic.uuid));
    let identity = Identity { name: &name, mac, mtu_bytes, alias: Some(&alias) };
    match host.set_identity(end.index, &identity).await {
        Err(error) if error.is_exists() => Ok(None),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Some(LinkInfo { name, mac, mtu_bytes, alias: Some(alias), ..end })),
    }
}

fn digits(uuid: Uuid) -> String {
    let digits = uuid.simple().to_string();
    digits[digits.len() - 12..].to_owned()
}

/// The name of the host's end of a spare's cable: 15 of 15 possible bytes, and no NIC's.
fn device_name(digits: &str) -> String {
    format!("nls{digits}")
}
