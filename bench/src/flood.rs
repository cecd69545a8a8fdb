//! What a VM can still do while a neighbour floods it: connections that it takes from a peer, with
//! and without a flood of new flows from another peer.

use std::{net::Ipv4Addr, time::Duration};

use crate::{
    Failure,
    load::Load,
    loom::{A, B, C, Loom},
    node::{Node, Role},
    plan::{Group, Metric, Step},
    site::{MTU_BYTES, Site, VM_DEVICE},
};

/// What is measured under a flood.
pub(crate) const FLOOD: Group = Group {
    id: "flood",
    steps: &[Step {
        id: "connect",
        contenders: &["bridge", "bridge-flooded", "netloom", FLOODED],
        metrics: &[Metric { id: "flood-connect", unit: "1/s", quantile: 0.5 }],
    }],
};

const FLOODED: &str = "netloom-flooded";
/// What the table forgets last has to be there before: the flood begins so much earlier.
const LEAD: Duration = Duration::from_millis(500);

/// A client, a victim that serves it, and a flooder.
struct Trio {
    client: Node,
    flooder: Node,
    to: Ipv4Addr,
    _victim: Node,
}

/// netloom's and a bridge's.
pub(crate) struct Flood {
    netloom: Trio,
    bridge: Trio,
    time: Duration,
    /// Removes the namespaces; last, when nobody is inside any more.
    _site: Site,
}

impl Flood {
    /// Builds both.
    ///
    /// # Errors
    /// What the kernel or the lab says.
    pub(crate) fn new(loom: &Loom, time: Duration) -> Result<Self, Failure> {
        let mut site = Site::new()?;
        let bridge = bridge(&mut site)?;
        let [client, victim, flooder] = [A, B, C].map(|(name, _)| loom.vm(name));
        let netloom = Trio {
            client: Node::start(&client?, Role::Client)?,
            flooder: Node::start(&flooder?, Role::Client)?,
            to: B.1,
            _victim: Node::start(&victim?, Role::Server)?,
        };
        Ok(Self { netloom, bridge, time, _site: site })
    }

    /// Takes a sample.
    pub(crate) fn measure(&mut self, contender: &str) -> Result<Vec<Vec<f64>>, Failure> {
        let (name, is_flooded) = match contender.strip_suffix("-flooded") {
            Some(name) => (name, true),
            None => (contender, false),
        };
        let trio = if name == "netloom" { &mut self.netloom } else { &mut self.bridge };
        if is_flooded {
            // It outlasts what is measured.
            trio.flooder.begin(Load::Flood, trio.to, LEAD + 2 * self.time)?;
            trio.client.run(Load::Connect, trio.to, LEAD)?;
        }
        let values = trio.client.run(Load::Connect, trio.to, self.time)?;
        if is_flooded {
            trio.flooder.end()?;
        }
        Ok(values.into_iter().map(|value| vec![value]).collect())
    }
}

/// A host with a bridge, and a cable to each of three.
fn bridge(site: &mut Site) -> Result<Trio, Failure> {
    let host = site.namespace("flood-host")?;
    let mut vms = Vec::new();
    for number in 1..=3_u8 {
        let (vm, port) = (site.namespace(&format!("flood-{number}"))?, format!("p{number}"));
        site.cable((&host, &port), (&vm, VM_DEVICE), MTU_BYTES)?;
        site.address((&vm, VM_DEVICE), address(number), 24)?;
        vms.push(vm);
    }
    site.bridge(&host, &["p1", "p2", "p3"], MTU_BYTES)?;
    let [client, victim, flooder] = &vms[..] else { return Err("three VMs are needed".into()) };
    Ok(Trio {
        client: Node::start(client, Role::Client)?,
        flooder: Node::start(flooder, Role::Client)?,
        to: address(2),
        _victim: Node::start(victim, Role::Server)?,
    })
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, 0, number)
}
