//! A packet's way in the words of the field.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use dataplane::{Finding, Traced};
use packet::{Addr, Direction, Fdb, FdbTarget, Mac, PortKey, Serving};
use uuid::Uuid;
use wire::{
    holding::Holding,
    object::{Network, Object, Table},
    policy::{Action, Way},
    question::Step,
};

use super::{Side, of_table};
use crate::explain::Explained;

/// The NICs of a network by their MACs, as far as a trace has met these.
struct Stations(BTreeMap<[u8; 6], Uuid>);

impl Stations {
    /// Looks at all peers once: there may be a hundred thousand.
    fn of(holding: &Holding, network: &Network, met: &BTreeSet<[u8; 6]>) -> Stations {
        let peers = of_table(holding, Table::Peer).filter_map(|object| match object {
            Object::Peer(peer) => Some((peer.network, peer.mac, peer.uuid)),
            _ => None,
        });
        let ports = of_table(holding, Table::Port).filter_map(|object| match object {
            Object::Port(port) => Some((port.network, port.mac, port.uuid)),
            _ => None,
        });
        let all = peers.chain(ports);
        let all = all.filter(|(of, mac, _)| *of == network.uuid && met.contains(mac));
        Stations(all.map(|(_, mac, uuid)| (mac, uuid)).collect())
    }
}

/// What the steps are told with.
struct Teller<'a> {
    holding: &'a Holding,
    stations: Stations,
    sides: &'a [Side<'a>],
    /// A port has been found that sends.
    has_sender: bool,
    /// A station has been looked for: routing has begun.
    has_route: bool,
}

/// Adds what the programs found to what a guest does before, in order, each thing once. The guest has
/// sent to this MAC.
pub(super) fn tell(
    (holding, network): (&Holding, &Network),
    (traced, sent_to): (&Traced, Option<[u8; 6]>),
    sides: &[Side<'_>],
    steps: &mut Vec<Step>,
) {
    let met = traced.findings.iter().filter_map(met).chain(sent_to).collect();
    let stations = Stations::of(holding, network, &met);
    let of_guest = sent_to.and_then(|mac| stations.0.get(&mac).copied());
    steps.iter_mut().for_each(|step| step.object = of_guest);
    let mut teller = Teller { holding, stations, sides, has_sender: false, has_route: false };
    for finding in &traced.findings {
        let step = teller.step(finding).filter(|step| !steps.contains(step));
        steps.extend(step);
    }
}

/// The MAC that was found.
fn met(finding: &Finding) -> Option<[u8; 6]> {
    match finding {
        Finding::Station(key, _) | Finding::Move(key, _) => Some(key.mac.0),
        Finding::Neighbour(_, Some(neigh)) => Some(neigh.mac.0),
        Finding::Behind(_, Some(behind)) => Some(behind.mac.0),
        Finding::Sharer(key, Some(_)) => Some(key.mac.0),
        _ => None,
    }
}

impl Teller<'_> {
    fn step(&mut self, finding: &Finding) -> Option<Step> {
        match finding {
            Finding::Port(..) | Finding::Net(..) | Finding::Vtep(..) | Finding::Wire(..) => {
                self.whose(finding)
            }
            Finding::Source(key, found) if !self.has_route => {
                let addr = ip(key.addr);
                let text = match found {
                    Some(_) => format!("{addr} is an address of the port"),
                    None => format!("{addr} is no address of the port"),
                };
                Some(step("guard", text, self.port_numbered(key.port)))
            }
            Finding::Source(..) | Finding::Serving(_, None) => None,
            Finding::Serving(key, Some(serving)) => {
                let text = format!("netloom itself {} at {}", what(*serving), ip(key.addr));
                Some(step("service", text, None))
            }
            Finding::Station(..) | Finding::Move(..) => self.where_to(finding),
            Finding::Neighbour(..) | Finding::Behind(..) | Finding::Sharer(..) => {
                self.who_has(finding)
            }
            Finding::Identity(..) | Finding::Class(..) | Finding::Chapter(..) => policy(finding),
            Finding::Passed(_, direction) => {
                let way = match direction {
                    Direction::FromPort => Way::Egress,
                    Direction::ToPort => Way::Ingress,
                };
                self.passed(way)
            }
            Finding::Dropped(drop) => {
                let stage = match (drop.reason.is_of_policy(), self.has_route) {
                    (true, _) => "policy",
                    (false, true) => "route",
                    (false, false) => "guard",
                };
                let object = self.port_numbered(drop.port.number);
                let by = if drop.rule != 0 && drop.reason.is_of_policy() {
                    format!(" by rule {}", drop.rule)
                } else {
                    String::new()
                };
                Some(step(stage, format!("dropped{by}: {}", drop.reason.name()), object))
            }
        }
    }

    /// Who sends, and into which network.
    fn whose(&mut self, finding: &Finding) -> Option<Step> {
        match finding {
            Finding::Port(key, found) => {
                let is_first = !std::mem::replace(&mut self.has_sender, true) && !self.has_route;
                let object = found.and_then(|port| self.port_numbered(port.number));
                let (stage, what) = match is_first {
                    true => ("classify", "it comes from"),
                    false => ("route", "it is for"),
                };
                let text = match found {
                    Some(port) => format!("{what} port {} on {}", port.number, place(*key)),
                    None => format!("{what} {}, which has no port", place(*key)),
                };
                Some(step(stage, text, object))
            }
            Finding::Net(number, found) => {
                let text = match found {
                    Some(_) => format!("in network {number}"),
                    None => format!("in network {number}, which is not on this host"),
                };
                Some(step("classify", text, self.network_numbered(*number)))
            }
            Finding::Vtep(key, found) => {
                let vtep = ip(key.addr);
                let (text, object) = match found {
                    Some(found) => {
                        (format!("VTEP {vtep} may send"), self.network_numbered(found.net))
                    }
                    None => (format!("VTEP {vtep} may not send with VNI {}", key.vni), None),
                };
                Some(step("classify", text, object))
            }
            Finding::Wire(key, found) => {
                let object = found.and_then(|wire| self.network_numbered(wire.net));
                let text = match found {
                    Some(_) => format!("{} leads into the network", place(*key)),
                    None => format!("{} leads into no network", place(*key)),
                };
                Some(step("classify", text, object))
            }
            _ => None,
        }
    }

    /// Where it goes.
    fn where_to(&mut self, finding: &Finding) -> Option<Step> {
        let (key, text) = match finding {
            Finding::Station(key, found) => {
                let mac = mac(key.mac);
                let text = match found {
                    Some(fdb) => format!("MAC {mac} is {}", whereabouts(*fdb)),
                    None => format!("no NIC of the network has MAC {mac}"),
                };
                (key, text)
            }
            Finding::Move(key, Some(moving)) => {
                let then = whereabouts(moving.then);
                (key, format!("MAC {} moves; then it is {then}", mac(key.mac)))
            }
            _ => return None,
        };
        self.has_route = true;
        Some(step("route", text, self.stations.0.get(&key.mac.0).copied()))
    }

    /// Who has an address.
    fn who_has(&self, finding: &Finding) -> Option<Step> {
        let stage = if self.has_route { "route" } else { "guard" };
        let (text, owner) = match finding {
            Finding::Neighbour(key, Some(neigh)) => {
                (format!("{} has MAC {}", ip(key.addr), mac(neigh.mac)), neigh.mac)
            }
            Finding::Neighbour(key, None) => {
                return Some(step(stage, format!("no NIC has {}", ip(key.addr)), None));
            }
            Finding::Behind(key, Some(behind)) if !behind.is_shared() => {
                let (addr, owner) = (ip(key.addr), mac(behind.mac));
                (format!("MAC {owner} routes for a prefix that {addr} is in"), behind.mac)
            }
            Finding::Behind(key, Some(_)) => {
                return Some(step(stage, format!("NICs share {}", ip(key.addr)), None));
            }
            Finding::Sharer(key, Some(_)) => {
                (format!("MAC {} is one of those that share it", mac(key.mac)), key.mac)
            }
            _ => return None,
        };
        Some(step(stage, text, self.stations.0.get(&owner.0).copied()))
    }

    /// What was decided about one side.
    fn passed(&self, way: Way) -> Option<Step> {
        let side = self.sides.iter().find(|side| side.way == way)?;
        let word = match way {
            Way::Egress => "egress",
            Way::Ingress => "ingress",
        };
        let text = match &side.explained {
            Explained::Inconclusive(_) => return None,
            Explained::Closed => format!("the port is closed to {word}"),
            Explained::Unfiltered => format!("the port has no policy for {word}"),
            Explained::Decided(named) => {
                let does = match named.action {
                    Action::Accept => "accepts",
                    Action::Drop => "drops",
                };
                match named.number {
                    0 => format!("no rule is about it: the port's {word} policy {does} it"),
                    rule => format!("{word} rule {rule} {does} it"),
                }
            }
        };
        Some(step("policy", text, Some(side.port.uuid)))
    }

    fn port_numbered(&self, number: u32) -> Option<Uuid> {
        let ports = of_table(self.holding, Table::Port);
        ports.into_iter().find_map(|object| match object {
            Object::Port(port) if port.number == number => Some(port.uuid),
            _ => None,
        })
    }

    fn network_numbered(&self, number: u32) -> Option<Uuid> {
        let networks = of_table(self.holding, Table::Network);
        networks.into_iter().find_map(|object| match object {
            Object::Network(network) if network.number == number => Some(network.uuid),
            _ => None,
        })
    }
}

/// What the policy has asked about the other end.
fn policy(finding: &Finding) -> Option<Step> {
    let text = match finding {
        Finding::Identity(key, Some(_)) => {
            format!("{} is of a member of groups that rules may name", ip(key.addr))
        }
        Finding::Identity(key, None) => format!("{} is of no member of groups", ip(key.addr)),
        Finding::Class(key, Some(_)) => {
            format!("{} is in a prefix that a rule names", ip(key.addr))
        }
        Finding::Class(key, None) => format!("{} is in no prefix that a rule names", ip(key.addr)),
        _ => return None,
    };
    Some(step("policy", text, None))
}

fn step(stage: &str, text: String, object: Option<Uuid>) -> Step {
    Step { stage: stage.to_owned(), text, object }
}

fn ip(addr: Addr) -> IpAddr {
    addr.into()
}

fn mac(mac: Mac) -> model::Mac {
    model::Mac(mac.0)
}

fn place(PortKey { ifindex, vlan, .. }: PortKey) -> String {
    match vlan {
        0 => format!("interface {ifindex}"),
        _ => format!("interface {ifindex}, VLAN {vlan}"),
    }
}

fn whereabouts(fdb: Fdb) -> String {
    match fdb.target() {
        Some(FdbTarget::Local(key)) => format!("on this host, at {}", place(key)),
        Some(FdbTarget::Remote { vtep, .. }) => format!("behind VTEP {}", ip(vtep)),
        Some(FdbTarget::Uplink(key)) => format!("behind {}", place(key)),
        Some(FdbTarget::Host(_)) => "the host itself".to_owned(),
        None => "somewhere that this release does not know".to_owned(),
    }
}

/// What netloom does at an address.
fn what(serving: Serving) -> String {
    let all = [
        (Serving::DHCP | Serving::RELAY, "serves DHCP"),
        (Serving::IPV6, "serves DHCPv6"),
        (Serving::METADATA, "serves metadata"),
        (Serving::DNS, "serves names"),
        (Serving::ADDRESS, "has an address"),
    ];
    let does = all.into_iter().filter(|(bits, _)| serving.what & bits != 0).map(|(_, what)| what);
    does.collect::<Vec<_>>().join(" and ")
}
