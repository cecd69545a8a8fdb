//! The product against a reference model: random messages by seed, each of which must succeed or be
//! refused as the model says, and leave what the model has.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use model::{
    AnyId, Claim, Code, Id, Kind, Record, Resource,
    resource::{
        account::{ADMIN, Account},
        cluster::Cluster,
        host::Host,
        ip_range::IpRange,
        l2_attachment::L2NetworkClusterRef,
        l2_network::L2Network,
        l2_vxlan::VniRange,
        l3_network::L3Network,
        quota::Quota,
        used_ip::UsedIp,
        vm_instance::VmInstance,
        vm_nic::VmNic,
        vtep::Vtep,
        zone::{EnableState, Zone},
    },
    status::HostStatus,
};
use netloom_control::{Caller, Request};
use proptest::{collection::vec, prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use store::{Read, Snapshot, Store, engine::memory::Fault};
use uuid::Uuid;

use crate::{
    harness::{ADMINISTRATOR, Cloud},
    reference::{Call, Start, View, Who, World},
};

const TENANT: Id<Account> = Id::new(Uuid::from_u128(0xa));

/// A message as callers send it; `None` for what is none.
fn request(call: &Call) -> Option<Request> {
    let text = |id: &Uuid| id.simple().to_string();
    let ip = |last: &u8| format!("10.0.0.{last}");
    let uuid = |id: &Uuid| json!({"uuid": text(id)});
    let mut tags = Vec::new();
    let (made, message, params): (Option<Uuid>, &str, Value) = match call {
        Call::CreateZone { id } => (Some(*id), "CreateZone", json!({"name": "z"})),
        Call::DeleteZone { id } => (None, "DeleteZone", uuid(id)),
        Call::CreateCluster { id, zone } => (Some(*id), "CreateCluster", {
            json!({"name": "c", "zoneUuid": text(zone), "hypervisorType": "KVM"})
        }),
        Call::DeleteCluster { id } => (None, "DeleteCluster", uuid(id)),
        Call::AddHost { id, cluster, ip: [net, last] } => (Some(*id), "AddKVMHost", {
            let ip = format!("172.30.{net}.{last}");
            json!({"name": "h", "clusterUuid": text(cluster), "managementIp": ip})
        }),
        Call::DeleteHost { id, is_dead } => (None, "DeleteHost", {
            let mode = if *is_dead { "Enforcing" } else { "Permissive" };
            json!({"uuid": text(id), "deleteMode": mode})
        }),
        Call::CreatePool { id, zone } => (Some(*id), "CreateL2VxlanNetworkPool", {
            json!({"name": "p", "zoneUuid": text(zone)})
        }),
        Call::CreateVnis { id, pool, vnis: (low, high) } => (Some(*id), "CreateVniRange", {
            json!({"name": "r", "l2NetworkUuid": text(pool), "startVni": low, "endVni": high})
        }),
        Call::DeleteVnis { id } => (None, "DeleteVniRange", uuid(id)),
        Call::CreateL2 { id, pool, vni } => (Some(*id), "CreateL2VxlanNetwork", {
            json!({"name": "n", "poolUuid": text(pool), "vni": vni})
        }),
        Call::DeleteL2 { id } => (None, "DeleteL2Network", uuid(id)),
        Call::Attach { l2, cluster } => (None, "AttachL2NetworkToCluster", {
            let (l2, cluster) = (text(l2), text(cluster));
            let cidr = "{172.30.0.0/24}";
            tags.push(format!("l2NetworkUuid::{l2}::clusterUuid::{cluster}::cidr::{cidr}"));
            json!({"l2NetworkUuid": l2, "clusterUuid": cluster})
        }),
        Call::Detach { l2, cluster } => (None, "DetachL2NetworkFromCluster", {
            json!({"l2NetworkUuid": text(l2), "clusterUuid": text(cluster)})
        }),
        Call::CreateL3 { id, l2 } => (Some(*id), "CreateL3Network", {
            let first = "FirstAvailableIpAllocatorStrategy";
            json!({"name": "l", "l2NetworkUuid": text(l2), "ipAllocatorStrategy": first})
        }),
        Call::DeleteL3 { id } => (None, "DeleteL3Network", uuid(id)),
        Call::SetL3State { id, enabled } => (None, "ChangeL3NetworkState", {
            json!({"uuid": text(id), "stateEvent": if *enabled { "enable" } else { "disable" }})
        }),
        Call::AddRange { id, l3, ips: (low, high) } => {
            (Some(*id), "AddIpRange", crate::harness::range(&text(l3), &ip(low), &ip(high)))
        }
        Call::DeleteRange { id } => (None, "DeleteIpRange", uuid(id)),
        Call::CreateVm { id, l3s, host, start } => (Some(*id), "CreateVmInstance", {
            let wanted = |(l3, last): &(Uuid, Option<u8>)| {
                last.map(|last| format!("staticIp::{}::{}", text(l3), ip(&last)))
            };
            tags.extend(l3s.iter().filter_map(wanted));
            let l3s: Vec<_> = l3s.iter().map(|(l3, _)| text(l3)).collect();
            let strategy = match start {
                Start::Instant => "InstantStart",
                Start::JustCreate => "JustCreate",
                Start::Stopped => "CreateStopped",
            };
            json!({
                "name": "v", "l3NetworkUuids": l3s, "defaultL3NetworkUuid": l3s[0],
                "hostUuid": host.as_ref().map(text), "strategy": strategy,
            })
        }),
        Call::StartVm { id, host } => (None, "StartVmInstance", {
            json!({"uuid": text(id), "hostUuid": host.as_ref().map(text)})
        }),
        Call::StopVm { id } => (None, "StopVmInstance", uuid(id)),
        Call::RebootVm { id } => (None, "RebootVmInstance", uuid(id)),
        Call::DestroyVm { id } => (None, "DestroyVmInstance", uuid(id)),
        Call::RecoverVm { id } => (None, "RecoverVmInstance", uuid(id)),
        Call::ExpungeVm { id } => (None, "ExpungeVmInstance", uuid(id)),
        Call::CreateNic { id, l3, ip: wanted } => (Some(*id), "CreateVmNic", {
            json!({"l3NetworkUuid": text(l3), "ip": wanted.as_ref().map(ip)})
        }),
        Call::DeleteNic { id } => (None, "DeleteVmNic", uuid(id)),
        Call::PlugNic { vm, nic } => (None, "AttachVmNicToVm", {
            json!({"vmInstanceUuid": text(vm), "vmNicUuid": text(nic)})
        }),
        Call::AttachL3 { vm, l3, ip: wanted } => (None, "AttachL3NetworkToVm", {
            let wanted = wanted.as_ref().map(ip);
            json!({"vmInstanceUuid": text(vm), "l3NetworkUuid": text(l3), "staticIp": wanted})
        }),
        Call::UnplugNic { nic } => (None, "DetachL3NetworkFromVm", json!({"vmNicUuid": text(nic)})),
        Call::SetIp { vm, l3, ip: wanted } => (None, "SetVmStaticIp", {
            json!({"vmInstanceUuid": text(vm), "l3NetworkUuid": text(l3), "ip": ip(wanted)})
        }),
        Call::SetQuota { name, value } => {
            (None, "UpdateQuota", { json!({"identityUuid": TENANT, "name": name, "value": value}) })
        }
        Call::Give { to, id } => (None, "ChangeResourceOwner", {
            let account = if *to == Who::Admin { Id::new(ADMIN) } else { TENANT };
            json!({"accountUuid": account, "resourceUuid": text(id)})
        }),
        Call::LetGo | Call::Connect { .. } => return None,
    };
    let request = crate::harness::request(message, params);
    Some(Request { resource_uuid: made, system_tags: tags, ..request })
}

/// Does it; of messages the code of a refusal.
fn act(cloud: &Cloud, who: Who, call: &Call) -> Result<(), Code> {
    let Some(request) = request(call) else {
        let let_go = |tx: &mut store::Tx<Record>| {
            let open: Vec<Uuid> = tx.list(Kind::Release).map(|row| row.uuid()).collect();
            open.into_iter().for_each(|release| netloom_control::releaser::forget(tx, release));
            Ok(())
        };
        // Nothing that callers see tells whether this was done, so it is, whatever fails once.
        let mut tries = (0..3).map(|_| cloud.store.transact(let_go));
        assert!(tries.any(|done| done.is_ok()), "no fault befalls a commit thrice");
        return Ok(());
    };
    let source = IpAddr::from([127, 0, 0, 1]);
    let caller = match who {
        Who::Admin => ADMINISTRATOR,
        Who::Tenant => Caller::Account { id: TENANT, is_admin: false, session: None, source },
    };
    cloud.send(caller, vec![request]).map(|_| ()).map_err(|error| error.code)
}

fn rows<R: Resource>(snapshot: &Snapshot<Record>) -> Vec<R> {
    snapshot.list(R::KIND).map(|row| R::of(&row).unwrap().clone()).collect()
}

/// What the product shows, in the model's words.
fn seen(cloud: &Cloud, snapshot: &Snapshot<Record>) -> View {
    let mut view = View::default();
    let mut row = |kind: Kind, id: Uuid, text: String| {
        let owner = snapshot.get(kind, id).unwrap().meta.owner;
        let is = |account: Id<Account>| owner == Some(account);
        let owner = is(Id::new(ADMIN)).then_some(Who::Admin).or(is(TENANT).then_some(Who::Tenant));
        view.rows.insert(id, (owner, text));
    };
    let attached = rows::<L2NetworkClusterRef>(snapshot);
    let vteps = rows::<Vtep>(snapshot);
    let (mut hosts, mut nics) = (BTreeMap::new(), BTreeMap::new());
    for zone in rows::<Zone>(snapshot) {
        row(Kind::Zone, zone.uuid.uuid(), "zone".to_owned());
    }
    for cluster in rows::<Cluster>(snapshot) {
        let of = attached.iter().filter(|it| it.cluster_uuid == cluster.uuid);
        let of: BTreeSet<Uuid> = of.map(|it| it.l2_network_uuid.uuid()).collect();
        let text = format!("cluster in {} with {of:?}", cluster.zone_uuid.uuid());
        row(Kind::Cluster, cluster.uuid.uuid(), text);
    }
    for host in rows::<Host>(snapshot) {
        let of = vteps.iter().filter(|vtep| vtep.host_uuid == host.uuid);
        let of: BTreeSet<Uuid> = of.map(|vtep| vtep.pool_uuid.uuid()).collect();
        let text = format!("host in {} with {of:?}", host.cluster_uuid.uuid());
        row(Kind::Host, host.uuid.uuid(), text);
    }
    for l2 in rows::<L2Network>(snapshot) {
        let of = l2.segment.pool().map(Id::uuid).zip(l2.segment.number());
        row(Kind::L2Network, l2.uuid.uuid(), format!("l2 in {} {of:?}", l2.zone_uuid.uuid()));
    }
    for it in rows::<VniRange>(snapshot) {
        let vnis = (it.l2_network_uuid.uuid(), (it.start_vni, it.end_vni));
        row(Kind::VniRange, it.uuid.uuid(), format!("vnis {vnis:?}"));
    }
    for l3 in rows::<L3Network>(snapshot) {
        let text =
            format!("l3 {:?}", (l3.l2_network_uuid.uuid(), l3.state == EnableState::Enabled));
        row(Kind::L3Network, l3.uuid.uuid(), text);
    }
    for it in rows::<IpRange>(snapshot) {
        let range = (it.l3_network_uuid.uuid(), (last(it.start_ip), last(it.end_ip)));
        row(Kind::IpRange, it.uuid.uuid(), format!("range {range:?}"));
    }
    for vm in rows::<VmInstance>(snapshot) {
        let place = vm.last_host_uuid.map(|last| Claim::Running(last, vm.uuid));
        let is_kept = place.is_some_and(|place| snapshot.holder(&place).is_some());
        let nowhere = HostStatus::default();
        let status = vm.host_uuid.map_or(&nowhere, |host| cloud.board.status(host));
        let state = vm.state(status, is_kept).as_str();
        let (host, cluster) = (vm.host_uuid.map(Id::uuid), vm.cluster_uuid.map(Id::uuid));
        row(Kind::VmInstance, vm.uuid.uuid(), format!("vm {state} at {host:?} of {cluster:?}"));
        hosts.extend(host.map(|host| (vm.uuid.uuid(), host)));
    }
    for nic in rows::<VmNic>(snapshot) {
        let (vm, l3) = (nic.vm_instance_uuid.map(Id::uuid), nic.l3_network_uuid.uuid());
        let (host, wanted) = (nic.host_uuid.map(Id::uuid), nic.static_ips.first());
        let wanted = wanted.map(|ip| last(*ip));
        row(
            Kind::VmNic,
            nic.uuid.uuid(),
            format!("nic {:?} {:?} {host:?} {wanted:?}", (vm, l3), nic.device_id),
        );
        nics.extend(vm.map(|vm| ((vm, nic.device_id), nic.uuid.uuid())));
    }
    let quotas = rows::<Quota>(snapshot).into_iter();
    view.quotas = quotas.map(|it| (it.name, u64::try_from(it.value).unwrap())).collect();
    (view.hosts, view.nics) = (hosts, nics);
    for used in rows::<UsedIp>(snapshot) {
        let AnyId { kind, uuid } = used.used_by;
        let user = (kind != Kind::Release).then_some(uuid);
        view.addresses.insert((used.l2_network_uuid.uuid(), last(used.ip)), user);
    }
    view
}

fn last(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => panic!("{ip}"),
    }
}

/// The numbers by which a history is made up.
struct Dice<'a>(std::slice::Iter<'a, u8>);

impl Dice<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        self.0.next().map_or(0, |number| usize::from(*number) % sides)
    }

    fn is(&mut self, sides: usize) -> bool {
        self.roll(sides) == 1
    }

    /// Mostly one of these; sometimes another resource, or nothing that there is.
    fn id(&mut self, world: &World, who: Who, ids: Vec<Uuid>) -> Uuid {
        let own = ids.iter().copied().filter(|id| world.owner(*id) == Some(who));
        let own: Vec<Uuid> = own.collect();
        let ids = if who == Who::Tenant && !own.is_empty() && !self.is(6) { own } else { ids };
        match self.roll(32) {
            1 => Uuid::from_u128(0xbad),
            _ if ids.is_empty() => Uuid::from_u128(0xbad),
            _ => ids[self.roll(ids.len())],
        }
    }

    /// Of something new; sometimes somebody has it.
    fn fresh(&mut self, world: &World, step: usize) -> Uuid {
        let taken = world.l2s().chain(world.vms());
        let taken: Vec<Uuid> = taken.collect();
        match self.roll(32) {
            1 if !taken.is_empty() => taken[self.roll(taken.len())],
            _ => Uuid::from_u128(0x1000 + step as u128),
        }
    }

    fn address(&mut self) -> Option<u8> {
        let last = u8::try_from(8 + self.roll(16)).unwrap();
        self.is(3).then_some(last)
    }
}

/// Kinds of calls, what makes something more often.
const CALLS: usize = 64;

fn made_up(world: &World, step: usize, dice: &mut Dice<'_>) -> (Who, Call) {
    let what = dice.roll(CALLS);
    let who = if dice.is(3) { Who::Tenant } else { Who::Admin };
    let (zones, l2s, vms): (Vec<_>, Vec<_>, Vec<_>) =
        (world.zones().collect(), world.l2s().collect(), world.vms().collect());
    let (l3s, nics): (Vec<_>, Vec<_>) = (world.l3s().collect(), world.nics().collect());
    let pools: Vec<_> = world.pools().collect();
    let pools = if dice.is(8) { l2s.clone() } else { pools };
    let (clusters, hosts): (Vec<_>, Vec<_>) = (world.clusters().collect(), world.hosts().collect());
    let call = match what {
        0 => Call::CreateZone { id: dice.fresh(world, step) },
        1 => match dice.roll(3) {
            1 => Call::DeleteZone { id: dice.id(world, who, zones) },
            _ => Call::DeleteCluster { id: dice.id(world, who, clusters) },
        },
        2 | 3 => {
            let zone = dice.id(world, who, zones);
            Call::CreateCluster { id: dice.fresh(world, step), zone }
        }
        4 | 5 => {
            let ip = [u8::from(dice.is(4)), u8::try_from(1 + dice.roll(12)).unwrap()];
            let cluster = dice.id(world, who, clusters);
            Call::AddHost { id: dice.fresh(world, step), cluster, ip }
        }
        6 | 7 => Call::DeleteHost { id: dice.id(world, who, hosts), is_dead: dice.is(2) },
        8 => Call::CreatePool { id: dice.fresh(world, step), zone: dice.id(world, who, zones) },
        9 | 10 => {
            let low = u32::try_from(100 + dice.roll(12)).unwrap();
            let vnis = (low, (low + 3).saturating_sub(u32::try_from(dice.roll(5)).unwrap()));
            Call::CreateVnis { id: dice.fresh(world, step), pool: dice.id(world, who, pools), vnis }
        }
        11 => Call::DeleteVnis { id: dice.id(world, who, world.vni_ranges().collect()) },
        12..=15 => {
            let vni = dice.is(3).then_some(u32::try_from(100 + dice.roll(16)).unwrap());
            Call::CreateL2 { id: dice.fresh(world, step), pool: dice.id(world, who, pools), vni }
        }
        16 => Call::DeleteL2 { id: dice.id(world, who, l2s) },
        17 | 18 => {
            Call::Attach { l2: dice.id(world, who, pools), cluster: dice.id(world, who, clusters) }
        }
        19 => {
            Call::Detach { l2: dice.id(world, who, pools), cluster: dice.id(world, who, clusters) }
        }
        20..=22 => Call::CreateL3 { id: dice.fresh(world, step), l2: dice.id(world, who, l2s) },
        23 => Call::DeleteL3 { id: dice.id(world, who, l3s) },
        24 | 25 => Call::SetL3State { id: dice.id(world, who, l3s), enabled: !dice.is(3) },
        26..=28 => {
            let low = u8::try_from(8 + dice.roll(16)).unwrap();
            let ips = (low, (low + 3).saturating_sub(u8::try_from(dice.roll(5)).unwrap()));
            Call::AddRange { id: dice.fresh(world, step), l3: dice.id(world, who, l3s), ips }
        }
        29 => Call::DeleteRange { id: dice.id(world, who, world.ranges().collect()) },
        30..=36 => {
            let mut given = vec![(dice.id(world, who, l3s.clone()), dice.address())];
            if dice.is(3) {
                given.push((dice.id(world, who, l3s), dice.address()));
            }
            let host = (dice.is(3) && who == Who::Admin).then(|| dice.id(world, who, hosts));
            let start = [Start::Instant, Start::JustCreate, Start::Stopped, Start::Instant];
            let start = start[dice.roll(4)];
            Call::CreateVm { id: dice.fresh(world, step), l3s: given, host, start }
        }
        37..=39 => {
            let host = dice.is(3).then(|| dice.id(world, who, hosts));
            Call::StartVm { id: dice.id(world, who, vms), host }
        }
        40 | 41 => Call::StopVm { id: dice.id(world, who, vms) },
        42 => Call::RebootVm { id: dice.id(world, who, vms) },
        43 | 44 => Call::DestroyVm { id: dice.id(world, who, vms) },
        45..=47 => Call::RecoverVm { id: dice.id(world, who, vms) },
        48 => Call::ExpungeVm { id: dice.id(world, who, vms) },
        49 | 50 => {
            let l3 = dice.id(world, who, l3s);
            Call::CreateNic { id: dice.fresh(world, step), l3, ip: dice.address() }
        }
        51 => Call::DeleteNic { id: dice.id(world, who, nics) },
        52 | 53 => Call::PlugNic { vm: dice.id(world, who, vms), nic: dice.id(world, who, nics) },
        54 | 55 => {
            let (vm, l3) = (dice.id(world, who, vms), dice.id(world, who, l3s));
            Call::AttachL3 { vm, l3, ip: dice.address() }
        }
        56 => Call::UnplugNic { nic: dice.id(world, who, nics) },
        57 | 58 => {
            let (vm, l3) = (dice.id(world, who, vms), dice.id(world, who, l3s));
            Call::SetIp { vm, l3, ip: u8::try_from(8 + dice.roll(16)).unwrap() }
        }
        59 => {
            let name = ["vm.num", "l3.num", "vxlan.num"][dice.roll(3)];
            Call::SetQuota { name, value: dice.roll(4) as u64 }
        }
        60 | 61 => {
            let all = [zones, l2s, l3s, vms, nics].concat();
            Call::Give { to: who, id: dice.id(world, Who::Admin, all) }
        }
        62 => return (Who::Admin, Call::LetGo),
        _ if hosts.is_empty() => return (Who::Admin, Call::LetGo),
        _ => {
            let host = hosts[dice.roll(hosts.len())];
            return (Who::Admin, Call::Connect { host, up: !dice.is(3) });
        }
    };
    // What only administrators may do, they do mostly.
    let who = if what < 12 || (17..20).contains(&what) || (59..62).contains(&what) {
        if dice.is(12) { Who::Tenant } else { Who::Admin }
    } else {
        who
    };
    (who, call)
}

/// Two hosts with tunnels and one without, networks of both accounts.
fn first_calls() -> Vec<Call> {
    let id = |number: u128| Uuid::from_u128(number);
    let (zone, cluster, pool) = (id(0x10), id(0x11), id(0x12));
    let mut calls = vec![
        Call::CreateZone { id: zone },
        Call::CreateCluster { id: cluster, zone },
        Call::CreatePool { id: pool, zone },
        Call::CreateVnis { id: id(0x13), pool, vnis: (100, 104) },
        Call::Attach { l2: pool, cluster },
    ];
    for (number, ip) in [(0x20, [0, 1]), (0x21, [0, 2]), (0x22, [1, 3])] {
        calls.push(Call::AddHost { id: id(number), cluster, ip });
        calls.push(Call::Connect { host: id(number), up: true });
    }
    for number in [0x30, 0x40, 0x50] {
        let (l2, l3) = (id(number), id(number + 1));
        calls.push(Call::CreateL2 { id: l2, pool, vni: None });
        calls.push(Call::CreateL3 { id: l3, l2 });
        calls.push(Call::AddRange { id: id(number + 2), l3, ips: (10, 12) });
    }
    calls.push(Call::SetQuota { name: "vm.num", value: 3 });
    calls.push(Call::Give { to: Who::Tenant, id: id(0x50) });
    calls.push(Call::Give { to: Who::Tenant, id: id(0x51) });
    calls.push(Call::Give { to: Who::Tenant, id: pool });
    calls
}

/// Servers on one engine, and what the model has after each of the calls so far.
struct Trial {
    clouds: Vec<Cloud>,
    worlds: Vec<World>,
    /// What each server knows at least.
    known: Vec<usize>,
}

impl Trial {
    fn start(servers: usize) -> Self {
        let first = Cloud::empty();
        crate::harness::tenant(&first, 0xa);
        let mut trial =
            Self { clouds: vec![first], worlds: vec![World::default()], known: vec![0] };
        for call in first_calls() {
            assert_eq!(trial.step(0, Who::Admin, &call), Ok(()));
        }
        while trial.clouds.len() < servers {
            trial.clouds.push(trial.clouds[0].second_server());
            trial.known.push(trial.worlds.len() - 1);
        }
        trial
    }

    fn world(&self) -> &World {
        self.worlds.last().unwrap()
    }

    /// One server does something, and the model.
    fn step(&mut self, at: usize, who: Who, call: &Call) -> Result<(), Code> {
        if let Call::Connect { host, up } = call {
            for cloud in &mut self.clouds {
                match *up {
                    true => cloud.acked(&host.simple().to_string(), 0),
                    false => cloud.lost(&host.simple().to_string()),
                }
            }
            self.worlds.iter_mut().for_each(|world| {
                world.apply(who, call, &View::default()).unwrap();
            });
            return Ok(());
        }
        let result = act(&self.clouds[at], who, call);
        if result == Err(Code::StoreUnavailable) {
            self.settle(at, who, call);
            return result;
        }
        let what = || format!("{who:?} {call:?}\nin {:#?}", self.world().view());
        if let Err(code) = result {
            let says = |world: &World| world.clone().apply(who, call, &View::default());
            let said: Vec<_> = self.worlds[self.known[at]..].iter().map(says).collect();
            assert!(said.contains(&Err(code)), "{code:?}, not {said:?}: {}", what());
            return result;
        }
        let view = seen(&self.clouds[at], &self.clouds[at].snapshot());
        let mut world = self.world().clone();
        assert_eq!(world.apply(who, call, &view), Ok(()), "{}", what());
        assert_eq!(world.view(), view, "after {}", what());
        self.worlds.push(world);
        self.known[at] = self.worlds.len() - 1;
        Ok(())
    }

    /// Nobody knows whether it was done: either is right, and nothing else.
    fn settle(&mut self, at: usize, who: Who, call: &Call) {
        let engine = Box::new(self.clouds[at].engine.clone());
        let truth: Store<Record> = Store::open(engine).unwrap();
        let view = seen(&self.clouds[at], &truth.snapshot());
        if self.world().view() == view {
            return;
        }
        let mut world = self.world().clone();
        assert_eq!(world.apply(who, call, &view), Ok(()), "{call:?}");
        assert_eq!(world.view(), view, "after {call:?}");
        self.worlds.push(world);
    }
}

fn histories() -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(vec(any::<u8>(), 0..20), 1..96)
}

fn agree(history: &[Vec<u8>]) {
    let mut trial = Trial::start(1);
    for (step, numbers) in history.iter().enumerate() {
        let (who, call) = made_up(trial.world(), step, &mut Dice(numbers.iter()));
        let before = trial.clouds[0].snapshot().revision();
        let result = trial.step(0, who, &call);
        let is_same = trial.clouds[0].snapshot().revision() == before;
        assert!(is_same || result.is_ok(), "{call:?} is refused, and done");
    }
}

/// Two servers that see each other late; either may crash and come back, and a commit may be one of
/// which nobody knows whether it happened.
fn agree_apart(history: &[Vec<u8>]) {
    let mut trial = Trial::start(2);
    for (step, numbers) in history.iter().enumerate() {
        let mut dice = Dice(numbers.iter());
        let (at, event) = (dice.roll(2), dice.roll(12));
        let (who, call) = made_up(trial.world(), step, &mut dice);
        let engine = trial.clouds[at].engine.clone();
        match event {
            1 => {
                trial.clouds[at] = trial.clouds[1 - at].second_server();
                trial.known[at] = trial.known[1 - at];
            }
            2 => engine.inject(Fault::FailBefore),
            3 => engine.inject(Fault::FailAfter),
            4 => engine.inject(Fault::Conflict),
            5..8 => engine.delay_log(),
            _ => engine.show_log(),
        }
        let _: Result<(), Code> = trial.step(at, who, &call);
    }
    let engine = trial.clouds[0].engine.clone();
    engine.show_log();
    let reopened: Store<Record> = Store::open(Box::new(engine)).unwrap();
    for cloud in &trial.clouds {
        cloud.store.follow().unwrap();
        assert_eq!(seen(cloud, &cloud.snapshot()), trial.world().view());
        assert_eq!(seen(cloud, &reopened.snapshot()), trial.world().view());
    }
}

/// After so many histories what was never seen is taken for what cannot be.
const HISTORIES_MAX: usize = 500;

/// Or the tests above would prove nothing of it.
#[test]
fn every_call_of_the_model_succeeds_and_every_code_of_it_is_met() {
    let (mut runner, mut found) = (TestRunner::deterministic(), BTreeSet::new());
    let (mut codes, wanted) = (BTreeSet::new(), 35);
    let all = [
        Code::AccessDenied,
        Code::InUse,
        Code::InvalidArgument,
        Code::IpExhausted,
        Code::NoHost,
        Code::NotFound,
        Code::OperationFailed,
        Code::QuotaExceeded,
        Code::UuidTaken,
        Code::VniExhausted,
    ];
    for _ in 0..HISTORIES_MAX {
        let history = histories().new_tree(&mut runner).unwrap().current();
        let mut trial = Trial::start(1);
        for (step, numbers) in history.iter().enumerate() {
            let (who, call) = made_up(trial.world(), step, &mut Dice(numbers.iter()));
            let name = format!("{call:?}").split(' ').next().unwrap().to_owned();
            match trial.step(0, who, &call) {
                Ok(()) => drop(found.insert(name)),
                Err(code) => drop(codes.insert(code.as_str())),
            }
        }
        if found.len() == wanted && codes.len() == all.len() {
            break;
        }
    }
    assert_eq!(found.len(), wanted, "{found:?}");
    assert_eq!(codes, all.iter().map(|code| code.as_str()).collect());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn each_message_does_what_the_reference_model_says(history in histories()) {
        agree(&history);
    }

    #[test]
    fn two_servers_that_crash_and_see_each_other_late_do_what_it_says(history in histories()) {
        agree_apart(&history);
    }
}
