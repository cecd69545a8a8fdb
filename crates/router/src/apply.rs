//! Makes the machine what it is to be.

use std::{collections::BTreeMap, fs, str::SplitWhitespace, sync::Arc};

use hostnet::{Namespace, Netlink};
use model::Mac;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    announce::{New, announce},
    network, nft,
    problems::{Problems, Service},
    sets::{self, Change, Sets},
    state::Desired,
};

/// What has become of a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The router.
    pub router: Uuid,
    /// The state that was applied last.
    pub generation: u64,
    /// What of it does not work.
    pub problems: Problems,
}

/// What the kernel counts of connections, of the namespace of the thread that reads it.
const TRACKING: &str = "/proc/thread-self/net/stat/nf_conntrack";

/// Packets that found no room in the table of connections: of a table with a line of names, and one of
/// hexadecimal numbers for each processor, the column `drop`.
fn refused(table: &str) -> Option<u64> {
    let mut lines = table.lines().map(str::split_whitespace);
    let column = lines.next()?.position(|name| name == "drop")?;
    let of_processor =
        |mut line: SplitWhitespace<'_>| u64::from_str_radix(line.nth(column)?, 16).ok();
    Some(lines.filter_map(of_processor).sum())
}

/// A router's machine, in a network namespace of its own.
pub struct Machine {
    namespace: Arc<Namespace>,
    netlink: Netlink,
    /// What is in the packet filter's sets, if this process has put it there: it starts from nothing.
    held: Option<Sets>,
    /// Tells neighbours of addresses that have come.
    announcing: JoinSet<()>,
}

impl Machine {
    /// That of this namespace. Nothing is changed, and nothing is known of it.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn open(namespace: Namespace) -> Result<Machine, hostnet::Error> {
        let netlink = namespace.netlink().await?;
        let (namespace, announcing) = (Arc::new(namespace), JoinSet::new());
        Ok(Machine { namespace, netlink, held: None, announcing })
    }

    /// Makes the machine like this. The packet filter comes first: what it does not know of is let nothing
    /// through, so no address works before it is translated.
    pub async fn apply(&mut self, desired: &Desired) -> Status {
        let (router, generation) = (desired.router, desired.generation);
        let devices = match network::devices(&self.netlink).await {
            Ok(devices) => devices,
            Err(error) => {
                let mut problems = Problems::default();
                problems.note(Service::Network, "devices", &error.to_string());
                return Status { router, generation, problems };
            }
        };
        let names: BTreeMap<Mac, String> =
            devices.iter().map(|(mac, link)| (*mac, link.name.clone())).collect();
        let (wanted, mut problems) = sets::sets(desired, &names);
        match self.filter(wanted) {
            Ok(()) => {
                let (others, new) = network::apply((&self.netlink, &devices), desired).await;
                problems.add(others);
                self.announce(new);
                if let Err(error) = network::forward(&self.namespace) {
                    problems.note(Service::Network, "forwarding", &error.to_string());
                }
            }
            // Addresses stay as they are: a VIP without its rules would be the router's own.
            Err(why) => problems.note(Service::Firewall, "nftables", &why),
        }
        Status { router, generation, problems }
    }

    /// What was dropped: by the packet filter, by its counters' names, and `full` by a table of connections
    /// that has no room, as the kernel counts it. Empty if nothing can be read.
    #[must_use]
    pub fn drops(&self) -> BTreeMap<String, u64> {
        let work = || {
            let mut drops = nft::counted().unwrap_or_default();
            let tracked = fs::read_to_string(TRACKING).unwrap_or_default();
            drops.extend(refused(&tracked).map(|refused| ("full".to_owned(), refused)));
            drops
        };
        self.namespace.run_in(work).unwrap_or_default()
    }

    fn announce(&mut self, new: Vec<New>) {
        while self.announcing.try_join_next().is_some() {}
        if !new.is_empty() {
            self.announcing.spawn(announce(Arc::clone(&self.namespace), new));
        }
    }

    /// Brings the sets into the kernel: what has changed, or all if nothing is known or that is refused.
    fn filter(&mut self, wanted: Sets) -> Result<(), String> {
        let held = self.held.take();
        let (namespace, words) =
            (&self.namespace, |error: &dyn std::error::Error| error.to_string());
        let work = || {
            let changed = held.map(|held| nft::change(&Change::between(&held, &wanted)));
            match changed {
                Some(Ok(())) => Ok(()),
                Some(Err(_)) | None => nft::replace(&wanted),
            }
        };
        let done = namespace.run_in(work).map_err(|error| words(&error))?;
        done.map_err(|error| words(&error))?;
        self.held = Some(wanted);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_without_room_are_those_of_all_processors() {
        let table = "entries  found drop early_drop\n00000001 00000000 0000000a 00000003\n\
                     00000001 00000000 00000001 00000000\n";
        assert_eq!(refused(table), Some(11));
        for strange in ["", "entries found\n1 2\n"] {
            assert_eq!(refused(strange), None);
        }
        assert_eq!(refused("entries drop\nxyz\n"), Some(0));
    }
}
