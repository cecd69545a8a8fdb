//! The kernel's maps, filled as the agent fills them, and the reference beside them.

use std::path::Path;

use dataplane::{Options, TestHarness};
use judge::{Known, Verdict};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_gettime},
};
use packet::{Config, DropReason, Entry, Meta};
use wire::{
    object::{Member, SecurityGroup},
    policy::Policy,
};

use super::lot::{LOCALS, Sets, members, objects, sets_by_lot};
use super::*;

/// Where the private mount namespace has an empty directory; the kernel's own has no files.
const BPF_DIRECTORY: &str = "/sys/fs/bpf";
/// The tunnel device, which need not be there: nothing is sent.
const TUNNEL: u32 = 9;
/// Of each network, its number and this.
const VNI: u32 = 100;
const SIZE: ConntrackSize =
    ConntrackSize { ports: 2 * LOCALS as u32, port_buckets: 128, common_buckets: 2_048 };

/// A connection as a port sees it.
pub(super) type Key = (u32, Addr, Addr, u16, u16, u8);

/// Whether to run a test that needs root. Not being root is a failure, not a reason to skip,
/// unless NETLOOM_SKIP_ROOT_TESTS=1 asks for it.
pub(super) fn may_run(test: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let skip = std::env::var("NETLOOM_SKIP_ROOT_TESTS").is_ok_and(|value| value == "1");
    assert!(skip, "{test} needs root (or NETLOOM_SKIP_ROOT_TESTS=1 to leave it out)");
    eprintln!("SKIPPED {test}: not root");
    false
}

/// A host without devices.
pub(super) struct World {
    harness: TestHarness,
    ledger: Ledger,
    ties: Ties,
    sets: Sets,
    /// What is held but for members.
    objects: Vec<Object>,
    /// What the reference knows.
    groups: Vec<SecurityGroup>,
    members: Vec<Member>,
    policies: BTreeMap<Nic, Option<Policy>>,
}

/// Whether a packet that belongs to no connection passes one end: by a rule about single packets, or by
/// any that allows it if what it may answer is allowed by one.
fn alone(own: Verdict, other: Option<Verdict>) -> bool {
    let is_single = |it: Verdict| it.action == Action::Accept && it.is_stateless;
    own.action == Action::Accept && (is_single(own) || other.is_some_and(is_single))
}

impl World {
    /// Opens a data plane in a mount namespace of the calling thread: a killed test leaves nothing.
    pub(super) fn open() -> World {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        let (nothing, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        mount(nothing, "/", nothing, private, nothing).unwrap();
        mount(Some("scratch"), BPF_DIRECTORY, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
        let bpffs = Path::new(BPF_DIRECTORY).join("host");
        let options = Options { conntrack: SIZE, ..Options::new(bpffs) };
        let mut harness = TestHarness::open(&options).unwrap();
        // From now on somebody listens.
        assert_eq!(harness.plane.events().unwrap(), []);
        let config = harness.config().unwrap();
        harness.set_config(Config { tunnel_ifindex: TUNNEL, ..config }).unwrap();
        let locals = Nic::all().filter(|nic| nic.is_local());
        let ports = locals.map(|nic| (nic.uuid(), sample::plug(nic.number())));
        World {
            harness,
            ledger: Ledger::default(),
            ties: Ties { ports: ports.collect(), ..Ties::default() },
            sets: Vec::new(),
            objects: Vec::new(),
            groups: Vec::new(),
            members: Vec::new(),
            policies: BTreeMap::new(),
        }
    }

    /// Fills the maps with other groups, members and policies. Gives the number of policies.
    pub(super) fn fill(&mut self, lot: &mut Lot) -> u32 {
        self.sets = sets_by_lot(lot);
        self.objects = objects(lot, &self.sets);
        self.regroup(lot);
        let policies = self.policies.values().filter(|policy| policy.is_some());
        u32::try_from(policies.count()).unwrap()
    }

    /// Makes others members of the groups, whose policies stay.
    pub(super) fn regroup(&mut self, lot: &mut Lot) {
        let mut objects = members(lot, &self.sets);
        objects.extend(self.objects.iter().cloned());
        self.groups.clear();
        self.members.clear();
        self.policies.clear();
        let nics: BTreeMap<_, _> = Nic::all().map(|nic| (nic.uuid(), nic)).collect();
        for object in &objects {
            match object {
                Object::SecurityGroup(group) => self.groups.push(group.clone()),
                Object::Member(member) => self.members.push(member.clone()),
                Object::Port(port) => {
                    self.policies.insert(nics[&port.uuid], port.policy.clone());
                }
                _ => {}
            }
        }
        let networks = [1, 2].map(|number| sample::network(number, VNI + number));
        let others = networks.into_iter().chain([sample::instance(sample::INSTANCE)]);
        let desired: Holding = objects.into_iter().chain(others).collect();
        let edits = self.ledger.follow(&desired, &self.ties);
        assert_eq!(self.ledger.closed().collect::<Vec<_>>(), [], "every group is known");
        assert!(self.ledger.unfit().is_empty(), "{:?}", self.ledger.unfit());
        self.harness.plane.apply(edits).unwrap();
    }

    /// What the reference says of a packet on each side that is on this host.
    pub(super) fn judged(&self, probe: &Probe) -> Judged {
        let egress = self.judge(probe.sender, probe.receiver, Way::Egress, probe);
        let leaves = egress.is_none_or(|verdict| verdict.action == Action::Accept);
        let ingress = if leaves { self.ingress(probe) } else { None };
        let answered = probe.answered();
        let ends = [
            (egress, self.judge(probe.sender, probe.receiver, Way::Ingress, &answered)),
            (self.ingress(probe), self.judge(probe.receiver, probe.sender, Way::Egress, &answered)),
        ];
        let is_alone = ends.into_iter().all(|(own, other)| own.is_none_or(|own| alone(own, other)));
        Judged { egress, ingress, is_alone }
    }

    /// What it says of a packet that has left its sender.
    pub(super) fn ingress(&self, probe: &Probe) -> Option<Verdict> {
        self.judge(probe.receiver, probe.sender, Way::Ingress, probe)
    }

    fn judge(&self, asked: Nic, other: Nic, way: Way, probe: &Probe) -> Option<Verdict> {
        let policy = self.policies.get(&asked)?;
        let known = Known { groups: &self.groups, members: &self.members };
        let Probe { is_v6, protocol, shows, .. } = *probe;
        let remote = other.address(is_v6);
        let shown = judge::Probe { domain: asked.domain(), remote, protocol, shows };
        let open = Verdict { action: Action::Accept, rule: 0, is_stateless: false };
        Some(policy.as_ref().map_or(open, |policy| judge::judge(policy, known, way, &shown)))
    }

    /// Runs the program that a packet meets first; what it says and tells.
    pub(super) fn send(&mut self, probe: &Probe) -> Seen {
        let Probe { sender, receiver, .. } = *probe;
        let frame = probe.frame();
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
        let now_ns = u64::try_from(std::time::Duration::from(now).as_nanos()).unwrap();
        let length = u32::try_from(frame.len()).unwrap();
        let from_port = Meta { now_ns, ifindex: sender.number(), length, ..Meta::default() };
        let from_tunnel = Meta {
            ifindex: TUNNEL,
            tunnelled: 1,
            vni: VNI + u32::from(sender.network),
            vtep: Addr::v4([192, 0, 2, 2]),
            local: Addr::v4([192, 0, 2, 1]),
            ..from_port
        };
        let (entry, meta) = match sender.is_local() {
            true => (Entry::FromPort, from_port),
            false => (Entry::FromTunnel, from_tunnel),
        };
        let verdict = self.harness.run(entry, &meta, &frame, 1).unwrap().verdict;
        let told = self.harness.plane.events().unwrap();
        match (verdict.kind, &told[..]) {
            (1, [_]) if !probe.opens => Seen::Refused,
            (1, [drop]) => {
                let (way, at) = match drop.reason {
                    Some(DropReason::PolicyIngress) => (Way::Ingress, receiver),
                    Some(DropReason::PolicyEgress) => (Way::Egress, sender),
                    other => panic!("{other:?}: {probe:?}"),
                };
                assert_eq!(drop.port, at.number(), "{probe:?}");
                Seen::Denied { way, rule: drop.rule }
            }
            (2, []) if receiver.is_local() && verdict.value == receiver.number() => Seen::Arrives,
            (3 | 8, []) if !receiver.is_local() => Seen::Arrives,
            _ => panic!("{verdict:?}, {told:?}: {probe:?}"),
        }
    }

    /// The connections that are allowed, and the rule that decided about each.
    pub(super) fn connections(&self) -> BTreeMap<Key, u32> {
        let held = self.harness.plane.view().connections().unwrap();
        let allowed = held.into_iter().filter(|connection| connection.allowed);
        let key = |port, key: packet::CtKey| {
            let packet::CtKey { local, remote, local_port, remote_port, protocol, .. } = key;
            (port, local, remote, local_port, remote_port, protocol)
        };
        allowed.map(|found| (key(found.port, found.key), found.rule)).collect()
    }

    pub(super) fn forget_connections(&mut self) {
        self.harness.set_conntrack(&[]).unwrap();
        // What the flow cache has of them is of another epoch.
        let config = self.harness.config().unwrap();
        self.harness.set_config(Config { epoch: config.epoch.wrapping_add(1), ..config }).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = dataplane::unload(&Path::new(BPF_DIRECTORY).join("host"));
    }
}
