//! Throughput, latency and rates between two VMs, on one host and across two.
//!
//! Every contender is a pair of namespaces with what stands between them. All of them are there
//! at the same time and idle, but for the one that is measured.

use std::{net::Ipv4Addr, time::Duration};

use hostnet::Namespace;

use crate::{
    Failure,
    load::Load,
    loom::{A, B, C, Loom},
    node::{Node, Role},
    plan::{Group, Metric, Step},
    site::{MTU_BYTES, Site, UNDERLAY_MTU_BYTES, VM_DEVICE, limit_gso},
};

/// VMs of one host.
pub(crate) const SAME_HOST: Group =
    Group { id: "same-host", steps: &steps(&["veth", "bridge", "routing", "netloom"]) };

/// VMs of two hosts.
pub(crate) const CROSS_HOST: Group =
    Group { id: "cross-host", steps: &steps(&["routing", "bridge-vxlan", "netloom"]) };

/// VMs of two hosts on a wire without tunnels.
pub(crate) const WIRES: Group =
    Group { id: "wires", steps: &steps(&["bridge", "no-vlan", "vlan"]) };

/// Guests behind taps of one host.
pub(crate) const TAPS: Group = Group { id: "taps", steps: &steps(&["bridge", "netloom"]) };

/// The VLAN of that contender.
const VLAN: u16 = 100;

/// What the kernel sets at most unless told otherwise (GSO_MAX_SEGS).
const GSO_SEGMENTS: u32 = 65_535;

const fn steps(contenders: &'static [&'static str]) -> [Step; 5] {
    const fn metric(id: &'static str, unit: &'static str) -> Metric {
        Metric { id, unit, quantile: 0.5 }
    }
    const GSO: &[Metric] = &[metric("tcp-gso", "Gbit/s")];
    const NO_GSO: &[Metric] = &[metric("tcp-no-gso", "Gbit/s")];
    const RR: &[Metric] = &[metric("rr-p50", "us"), metric("rr-p99", "us")];
    const CONNECT: &[Metric] = &[metric("connect", "1/s")];
    const UDP: &[Metric] = &[metric("udp-64", "1000/s")];
    [
        Step { id: "tcp-gso", contenders, metrics: GSO },
        Step { id: "tcp-no-gso", contenders, metrics: NO_GSO },
        Step { id: "rr", contenders, metrics: RR },
        Step { id: "connect", contenders, metrics: CONNECT },
        Step { id: "udp-64", contenders, metrics: UDP },
    ]
}

/// The contenders of a group, ready to be measured.
pub(crate) struct Traffic {
    pairs: Vec<Pair>,
    time: Duration,
    /// Removes the namespaces; last, when nobody is inside any more.
    _site: Site,
}

/// Two VMs, with a node in each.
pub(crate) struct Pair {
    contender: String,
    source: Namespace,
    to: Ipv4Addr,
    client: Node,
    _server: Node,
}

impl Traffic {
    /// Builds the contenders of [`SAME_HOST`].
    pub(crate) fn same_host(loom: &Loom, time: Duration) -> Result<Self, Failure> {
        let mut site = Site::new()?;
        let pairs = vec![
            veth(&mut site)?,
            bridge(&mut site)?,
            routing(&mut site)?,
            Pair::new("netloom", (loom.vm(A.0)?, loom.vm(B.0)?), B.1)?,
        ];
        Ok(Self { pairs, time, _site: site })
    }

    /// Builds the contenders of [`CROSS_HOST`].
    pub(crate) fn cross_host(loom: &Loom, time: Duration) -> Result<Self, Failure> {
        let mut site = Site::new()?;
        let pairs = vec![
            routing_across(&mut site)?,
            bridge_vxlan(&mut site)?,
            Pair::new("netloom", (loom.vm(A.0)?, loom.vm(C.0)?), C.1)?,
        ];
        Ok(Self { pairs, time, _site: site })
    }

    /// Builds the contenders of [`WIRES`].
    pub(crate) fn wires(loom: &Loom, time: Duration) -> Result<Self, Failure> {
        let mut site = Site::new()?;
        let mut pairs = vec![bridge_across(&mut site)?];
        for (contender, vlan) in [("no-vlan", None), ("vlan", Some(VLAN))] {
            let (vms, to) = loom.physical(contender, vlan)?;
            for vm in [&vms.0, &vms.1] {
                site.mtu((vm, VM_DEVICE), MTU_BYTES)?;
            }
            pairs.push(Pair::new(contender, vms, to)?);
        }
        Ok(Self { pairs, time, _site: site })
    }

    /// Builds the contenders of [`TAPS`].
    pub(crate) fn taps(loom: &Loom, time: Duration) -> Result<Self, Failure> {
        let mut site = Site::new()?;
        let host = site.namespace("taps-host")?;
        let (one, other) = (site.namespace("taps-1")?, site.namespace("taps-2")?);
        site.tap((&host, "p1"), &one)?;
        site.tap((&host, "p2"), &other)?;
        site.bridge(&host, &["p1", "p2"], MTU_BYTES)?;
        let to = same_subnet(&site, &one, &other)?;
        let mut pairs = vec![Pair::new("bridge", (one, other), to)?];

        let (one, other) = (site.namespace("loom-1")?, site.namespace("loom-2")?);
        loom.plug_tap(&mut site, "nlb-tap1", &one)?;
        let to = loom.plug_tap(&mut site, "nlb-tap2", &other)?;
        pairs.push(Pair::new("netloom", (one, other), to)?);
        Ok(Self { pairs, time, _site: site })
    }

    /// Of contenders that are there already, in namespaces of the site and elsewhere.
    pub(crate) fn of(pairs: Vec<Pair>, time: Duration, site: Site) -> Self {
        Self { pairs, time, _site: site }
    }

    /// Takes a sample of a step.
    pub(crate) fn measure(
        &mut self,
        step: &str,
        contender: &str,
    ) -> Result<Vec<Vec<f64>>, Failure> {
        let pair = self.pairs.iter_mut().find(|pair| pair.contender == contender);
        let pair = pair.ok_or_else(|| format!("there is no contender {contender}"))?;
        let values = match step {
            "tcp-gso" => pair.run(Load::Stream, self.time)?,
            "tcp-no-gso" => {
                limit_gso(&pair.source, 1)?;
                let values = pair.run(Load::Stream, self.time);
                limit_gso(&pair.source, GSO_SEGMENTS)?;
                values?
            }
            "rr" => pair.run(Load::RequestResponse, self.time)?,
            "connect" => pair.run(Load::Connect, self.time)?,
            "udp-64" => pair.run(Load::SmallFrames, self.time)?,
            other => return Err(format!("there is no step {other}").into()),
        };
        Ok(values.into_iter().map(|value| vec![value]).collect())
    }
}

impl Pair {
    /// Of VMs that are up, the second of which has an address.
    pub(crate) fn new(
        contender: &str,
        (source, destination): (Namespace, Namespace),
        to: Ipv4Addr,
    ) -> Result<Self, Failure> {
        // Always built in, and sends as fast as it may: the machine's default may pace by timers.
        for vm in [&source, &destination] {
            vm.sysctl("net/ipv4/tcp_congestion_control", "reno")?;
        }
        let server = Node::start(&destination, Role::Server)?;
        let client = Node::start(&source, Role::Client)?;
        Ok(Self { contender: contender.to_owned(), source, to, client, _server: server })
    }

    /// Who it is of.
    pub(crate) fn contender(&self) -> &str {
        &self.contender
    }

    /// Has the client do something.
    pub(crate) fn run(&mut self, load: Load, time: Duration) -> Result<Vec<f64>, Failure> {
        self.client.run(load, self.to, time)
    }
}

/// One cable, nothing between.
pub(crate) fn veth(site: &mut Site) -> Result<Pair, Failure> {
    let (one, other) = (site.namespace("veth-1")?, site.namespace("veth-2")?);
    site.cable((&one, VM_DEVICE), (&other, VM_DEVICE), MTU_BYTES)?;
    let to = same_subnet(site, &one, &other)?;
    Pair::new("veth", (one, other), to)
}

/// A host with a bridge, and a cable to each VM.
pub(crate) fn bridge(site: &mut Site) -> Result<Pair, Failure> {
    let host = site.namespace("bridge-host")?;
    let (one, other) = (site.namespace("bridge-1")?, site.namespace("bridge-2")?);
    site.cable((&host, "p1"), (&one, VM_DEVICE), MTU_BYTES)?;
    site.cable((&host, "p2"), (&other, VM_DEVICE), MTU_BYTES)?;
    site.bridge(&host, &["p1", "p2"], MTU_BYTES)?;
    let to = same_subnet(site, &one, &other)?;
    Pair::new("bridge", (one, other), to)
}

/// A host that routes between the subnets of two VMs.
fn routing(site: &mut Site) -> Result<Pair, Failure> {
    let host = site.namespace("route-host")?;
    let (one, other) = (site.namespace("route-1")?, site.namespace("route-2")?);
    subnet(site, (&host, "p1"), &one, 1)?;
    subnet(site, (&host, "p2"), &other, 2)?;
    host.sysctl("net/ipv4/ip_forward", "1")?;
    Pair::new("routing", (one, other), vm_address(2))
}

/// Two hosts that route to each other over the underlay.
fn routing_across(site: &mut Site) -> Result<Pair, Failure> {
    let [one, other] = underlay(site, "routed")?;
    let (source, destination) = (site.namespace("routed-1")?, site.namespace("routed-2")?);
    for (host, vm, number) in [(&one, &source, 1), (&other, &destination, 2)] {
        subnet(site, (host, "p1"), vm, number)?;
        site.gateway((host, "u0"), host_address(3 - number))?;
        host.sysctl("net/ipv4/ip_forward", "1")?;
    }
    Pair::new("routing", (source, destination), vm_address(2))
}

/// Two hosts with a bridge each, joined by the kernel's VXLAN over the underlay.
fn bridge_vxlan(site: &mut Site) -> Result<Pair, Failure> {
    let [one, other] = underlay(site, "vxlan")?;
    let (source, destination) = (site.namespace("vxlan-1")?, site.namespace("vxlan-2")?);
    for (host, vm, number) in [(&one, &source, 1), (&other, &destination, 2)] {
        site.cable((host, "p1"), (vm, VM_DEVICE), MTU_BYTES)?;
        site.vxlan(host, host_address(number), host_address(3 - number))?;
        site.bridge(host, &["p1", "vx"], MTU_BYTES)?;
    }
    let to = same_subnet(site, &source, &destination)?;
    Pair::new("bridge-vxlan", (source, destination), to)
}

/// Two hosts whose bridges have the wire as a port.
fn bridge_across(site: &mut Site) -> Result<Pair, Failure> {
    let [one, other] = underlay(site, "wire")?;
    let (source, destination) = (site.namespace("wire-1")?, site.namespace("wire-2")?);
    for (host, vm) in [(&one, &source), (&other, &destination)] {
        site.cable((host, "p1"), (vm, VM_DEVICE), MTU_BYTES)?;
        site.bridge(host, &["p1", "u0"], MTU_BYTES)?;
    }
    let to = same_subnet(site, &source, &destination)?;
    Pair::new("bridge", (source, destination), to)
}

/// Two hosts on a wire that is made like that of netloom's lab: a bridge in a namespace of its own.
fn underlay(site: &mut Site, name: &str) -> Result<[Namespace; 2], Failure> {
    let fabric = site.namespace(&format!("{name}-fabric"))?;
    let hosts = [1, 2].map(|number| site.namespace(&format!("{name}-host{number}")));
    let [one, other] = hosts;
    let hosts = [one?, other?];
    for (host, number) in hosts.iter().zip(1..) {
        site.cable((&fabric, &format!("p{number}")), (host, "u0"), UNDERLAY_MTU_BYTES)?;
        site.address((host, "u0"), host_address(number), 24)?;
    }
    site.bridge(&fabric, &["p1", "p2"], UNDERLAY_MTU_BYTES)?;
    Ok(hosts)
}

/// Gives two VMs addresses of one subnet; that of the second one is the result.
pub(crate) fn same_subnet(
    site: &Site,
    one: &Namespace,
    other: &Namespace,
) -> Result<Ipv4Addr, Failure> {
    let to = Ipv4Addr::new(10, 77, 0, 2);
    site.address((one, VM_DEVICE), Ipv4Addr::new(10, 77, 0, 1), 24)?;
    site.address((other, VM_DEVICE), to, 24)?;
    Ok(to)
}

/// Connects a VM to a host that is its router, in a subnet of its own.
fn subnet(
    site: &mut Site,
    port: (&Namespace, &str),
    vm: &Namespace,
    number: u8,
) -> Result<(), Failure> {
    let router = Ipv4Addr::new(10, 77, number, 1);
    site.cable(port, (vm, VM_DEVICE), MTU_BYTES)?;
    site.address(port, router, 24)?;
    site.address((vm, VM_DEVICE), vm_address(number), 24)?;
    site.gateway((vm, VM_DEVICE), router)
}

fn vm_address(subnet: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, subnet, 2)
}

/// Documentation addresses (RFC 5737): nobody else has them.
fn host_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}
