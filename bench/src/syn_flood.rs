//! What is left to a VM that is flooded with SYNs: the connections that it opens, and a stream that it
//! sends. The flood comes from a neighbour whom its group lets in, or from a stranger on the other host
//! whom it does not.

use std::{net::Ipv4Addr, time::Duration};

use serde_json::json;

use crate::{
    Failure,
    filtered::Filtered,
    load::Load,
    loom::{HOST, Loom, OTHER_HOST},
    node::{Node, Role},
    plan::{Group, Metric, Step},
    site::{MTU_BYTES, Site, VM_DEVICE},
    syn,
};

/// A victim's own traffic.
pub(crate) const SYN_FLOOD: Group = Group {
    id: "syn-flood",
    steps: &[
        Step { id: "connect.bridge", contenders: BRIDGES, metrics: &[metric("connect", "1/s")] },
        Step { id: "connect.netloom", contenders: LOOMS, metrics: &[metric("connect", "1/s")] },
        Step { id: "stream.bridge", contenders: BRIDGES, metrics: &[metric("stream", "Gbit/s")] },
        Step { id: "stream.netloom", contenders: LOOMS, metrics: &[metric("stream", "Gbit/s")] },
    ],
};

const BRIDGES: &[&str] = &["bridge", "bridge-neighbour"];
const LOOMS: &[&str] = &["netloom", "netloom-neighbour", "netloom-stranger"];
/// The flood begins so much earlier.
const LEAD: Duration = Duration::from_millis(300);

/// Less than so many thousand SYNs a second are no flood.
const LEAST: f64 = 5.0;

const fn metric(id: &'static str, unit: &'static str) -> Metric {
    Metric { id, unit, quantile: 0.5 }
}

/// A victim, whom it talks to, and who floods it.
struct Cast {
    /// What the victim sends.
    victim: Node,
    /// Whom it talks to.
    peer: Ipv4Addr,
    /// The victim.
    to: Ipv4Addr,
    neighbour: Node,
    stranger: Option<Node>,
    /// What the victim serves, which the flood asks for, and its peer.
    _servers: [Node; 2],
}

/// netloom's and a bridge's.
pub(crate) struct SynFlood {
    netloom: Cast,
    bridge: Cast,
    time: Duration,
    /// Removes the namespaces; last, when nobody is inside any more.
    _site: Site,
}

impl SynFlood {
    /// Builds both.
    ///
    /// # Errors
    /// What the kernel or the lab says.
    pub(crate) fn new(loom: &Loom, time: Duration) -> Result<Self, Failure> {
        let mut site = Site::new()?;
        let bridge = bridge(&mut site)?;
        Ok(Self { netloom: filtered(loom)?, bridge, time, _site: site })
    }

    /// Takes a sample of a step.
    pub(crate) fn measure(
        &mut self,
        step: &str,
        contender: &str,
    ) -> Result<Vec<Vec<f64>>, Failure> {
        let load = if step.starts_with("connect") { Load::Connect } else { Load::Stream };
        let (name, flooder) = contender.split_once('-').unwrap_or((contender, ""));
        let cast = if name == "netloom" { &mut self.netloom } else { &mut self.bridge };
        let (peer, to) = (cast.peer, cast.to);
        let flooder = match flooder {
            "" => None,
            "neighbour" => Some(&mut cast.neighbour),
            _ => Some(cast.stranger.as_mut().ok_or("there is no stranger")?),
        };
        let Some(flooder) = flooder else {
            return Ok(vec![cast.victim.run(load, peer, self.time)?]);
        };
        // It outlasts what is measured.
        flooder.begin(Load::SynFlood, to, LEAD + 2 * self.time)?;
        cast.victim.run(load, peer, LEAD)?;
        let values = cast.victim.run(load, peer, self.time)?;
        // Both want the same CPU; what is hardly a flood says nothing.
        match flooder.end()?.first() {
            Some(sent) if *sent > LEAST => Ok(vec![values]),
            sent => Err(format!("the flood was of {sent:?} thousand SYNs a second").into()),
        }
    }
}

/// VMs of a lab, of which the victim's group lets in the neighbour.
fn filtered(loom: &Loom) -> Result<Cast, Failure> {
    let filtered = Filtered::new(loom)?;
    let [victim, peer, neighbour] =
        ["victim", "peer", "neighbour"].map(|name| filtered.vm(name, HOST));
    let (victim, peer, neighbour) = (victim?, peer?, neighbour?);
    let stranger = filtered.vm("stranger", OTHER_HOST)?;
    let [victims, neighbours] = ["victims", "neighbours"].map(|name| filtered.group(name));
    let (victims, neighbours) = (victims?, neighbours?);
    let rule = json!({"type": "Ingress", "protocol": "TCP", "dstPortRange": "0-65535",
        "remoteSecurityGroupUuid": neighbours});
    filtered.rules(&victims, vec![rule])?;
    filtered.join(&victims, std::slice::from_ref(&victim.nic))?;
    filtered.join(&neighbours, std::slice::from_ref(&neighbour.nic))?;
    let flooders = [&neighbour.namespace, &stranger.namespace];
    for flooder in flooders {
        syn::mute(flooder)?;
    }
    let [neighbour, stranger] = flooders.map(|flooder| Node::start(flooder, Role::Client));
    let servers = [&victim, &peer].map(|vm| Node::start(&vm.namespace, Role::Server));
    let [one, other] = servers;
    Ok(Cast {
        victim: Node::start(&victim.namespace, Role::Client)?,
        peer: peer.ip,
        to: victim.ip,
        neighbour: neighbour?,
        stranger: Some(stranger?),
        _servers: [one?, other?],
    })
}

/// A host with a bridge, and a cable to each of three.
fn bridge(site: &mut Site) -> Result<Cast, Failure> {
    let host = site.namespace("syn-host")?;
    let mut vms = Vec::new();
    for number in 1..=3_u8 {
        let (vm, port) = (site.namespace(&format!("syn-{number}"))?, format!("p{number}"));
        site.cable((&host, &port), (&vm, VM_DEVICE), MTU_BYTES)?;
        site.address((&vm, VM_DEVICE), Ipv4Addr::new(10, 78, 0, number), 24)?;
        vms.push(vm);
    }
    site.bridge(&host, &["p1", "p2", "p3"], MTU_BYTES)?;
    let [victim, peer, neighbour] = &vms[..] else { return Err("three VMs are needed".into()) };
    syn::mute(neighbour)?;
    Ok(Cast {
        victim: Node::start(victim, Role::Client)?,
        peer: Ipv4Addr::new(10, 78, 0, 2),
        to: Ipv4Addr::new(10, 78, 0, 1),
        neighbour: Node::start(neighbour, Role::Client)?,
        stranger: None,
        _servers: [Node::start(victim, Role::Server)?, Node::start(peer, Role::Server)?],
    })
}
