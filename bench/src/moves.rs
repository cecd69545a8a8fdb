//! How long a guest is out of reach when it moves to another host: from its last answer by the old
//! cable to its first one by the new.

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use hostnet::Namespace;
use lab::wait;
use serde_json::json;

use crate::{
    Failure,
    loom::{A, HOST, Loom, OTHER_HOST, text},
    ping::Pinger,
    plan::{Group, Metric, NETLOOM, Step},
    site::{BRIDGE, MTU_BYTES, Site, set_mac},
    stats,
};

/// What is measured of moves.
pub(crate) const MOVES: Group = Group {
    id: "moves",
    steps: &[Step {
        id: "gap",
        contenders: &[NETLOOM],
        metrics: &[Metric { id: "move-gap", unit: "ms", quantile: 0.5 }],
    }],
};

const HOSTS: [&str; 2] = [HOST, OTHER_HOST];
/// The guest's device: its port is the cable that it has at the moment.
const GUEST_DEVICE: &str = BRIDGE;
/// Probes before the move, one each millisecond, and after it.
const BEFORE: u32 = 100;
const AFTER: u32 = 400;
/// How long anything may take until it is in effect.
const LIMIT: Duration = Duration::from_secs(30);

/// A guest with a cable to each of two hosts, and a VM that asks it.
pub(crate) struct Moves {
    asker: Pinger,
    ip: Ipv4Addr,
    nic: String,
    guest: Namespace,
    site: Site,
    /// Where it is, of [`HOSTS`].
    at: usize,
    loom: Loom,
}

impl Moves {
    /// Brings it up.
    ///
    /// # Errors
    /// What the lab says, or the kernel.
    pub(crate) fn new(loom: Loom) -> Result<Self, Failure> {
        let (mut site, asker) = (Site::new()?, Pinger::open(&loom.vm(A.0)?)?);
        let (nic, ip) = loom.nic()?;
        let guest = site.namespace("mover")?;
        for host in HOSTS {
            site.cable((&loom.host(host)?, &device(host)), (&guest, &cable(host)), MTU_BYTES)?;
        }
        site.bridge(&guest, &[&cable(HOST)], MTU_BYTES)?;
        set_mac((&guest, GUEST_DEVICE), &text(&nic, "mac")?)?;
        site.address((&guest, GUEST_DEVICE), ip, 16)?;
        let nic = text(&nic, "uuid")?;
        let plug = json!({"vmNicUuid": nic, "hostUuid": loom.uuid("/hosts", HOST)?,
            "device": device(HOST)});
        loom.made("PlugVmNic", plug, &[])?;
        asker.first_reply(ip)?;
        Ok(Self { asker, ip, nic, guest, site, at: 0, loom })
    }

    /// Moves the guest to the other host; ms.
    pub(crate) fn sample(&mut self) -> Result<Vec<Vec<f64>>, Failure> {
        let (from, to) = (HOSTS[self.at], HOSTS[1 - self.at]);
        let host = self.loom.uuid("/hosts", to)?;
        let bind = json!({"vmNicUuid": self.nic, "hostUuid": host, "device": device(to)});
        self.loom.made("BindVmNic", bind, &[])?;
        let gap = self.asker.longest_gap(self.ip, [BEFORE, AFTER], || {
            self.site.leave_bridge((&self.guest, &cable(from)))?;
            self.site.join_bridge((&self.guest, &cable(to)))?;
            // Any frame will do; it is lost where nobody listens.
            let says = || UdpSocket::bind((self.ip, 0))?.send_to(b"here", (A.1, 9));
            self.guest.run_in(says)??;
            Ok(())
        })?;
        self.at = 1 - self.at;
        let is_there = || {
            let asked = [format!("uuid={}", self.nic), format!("hostUuid={host}")];
            let found = self.loom.client.query("/vm-instances/nics", &asked);
            found.is_ok_and(|found| found.len() == 1 && found[0]["pendingHostUuid"].is_null())
        };
        match wait::holds(LIMIT, is_there) {
            true => Ok(vec![vec![stats::ms(gap)]]),
            false => Err(format!("the server does not hear that it is on {to}").into()),
        }
    }
}

/// The cable's end on a host.
fn device(host: &str) -> String {
    format!("nlb-{host}")
}

/// Its end in the guest.
fn cable(host: &str) -> String {
    format!("to-{host}")
}
