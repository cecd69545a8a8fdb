//! Makes the machine what it is to be.

use std::{collections::BTreeMap, sync::Arc};

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
