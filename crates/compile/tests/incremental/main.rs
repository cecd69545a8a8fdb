//! The incremental compiler against the plain one, over random histories, and how much it works.

mod followed;
mod group_rows;
mod groups;
mod joins;
mod judged;
mod random;
mod rows;
mod told;

use std::{collections::BTreeMap, net::IpAddr};

use model::{
    Id, Meta, Record, Timestamp,
    resource::{
        host::Host,
        l2_network::Segment,
        network_service::{NetworkServiceType, ProviderType},
        used_ip::UsedIp,
        vm_instance::VmInstance,
        vm_nic::VmNic,
    },
};
use netloom_compile::{Compiler, HostDelta, HostObjects, MissingVtep, compile_all, missing_vteps};
use proptest::prelude::*;
use store::{Event, Store, Watch};
use wire::{
    object::{Moving, Object, ObjectKey, Table},
    shared::Shared,
};

use crate::{
    random::{Step, step},
    rows::*,
};

/// What every host holds.
type Hosts = BTreeMap<Id<Host>, BTreeMap<ObjectKey, Shared>>;

fn commit(store: &Store<Record>, step: Step) {
    let work = move |tx: &mut store::Tx<Record>| {
        match step.clone() {
            // What another row holds alone is refused, and does not happen.
            Step::Put(records) => records.into_iter().for_each(|record| drop(tx.put(record))),
            Step::Delete(kind, uuid) => tx.delete(kind, uuid),
        }
        Ok(())
    };
    store.transact(work).expect("the store in memory commits");
}

fn follow(hosts: &mut Hosts, deltas: BTreeMap<Id<Host>, HostDelta>) {
    for (host, delta) in deltas {
        assert_ne!(delta, HostDelta::default(), "a host without a change must be absent");
        let tables: Vec<Table> = delta.upserts.iter().map(|object| object.key().table).collect();
        assert!(tables.is_sorted(), "additions come in the order of their tables");
        assert!(delta.removes.iter().rev().is_sorted(), "removals come in reverse");
        let objects = hosts.entry(host).or_default();
        for object in delta.upserts {
            assert_ne!(objects.get(&object.key()), Some(&object), "an upsert changes something");
            objects.insert(object.key(), object);
        }
        for key in delta.removes {
            assert!(objects.remove(&key).is_some(), "what is removed was there");
        }
        if objects.is_empty() {
            hosts.remove(&host);
        }
    }
}

fn hosts(objects: BTreeMap<Id<Host>, HostObjects>) -> Hosts {
    let held = |objects: HostObjects| {
        assert!(objects.is_sorted_by_key(|object| object.key()), "in the order of applying them");
        objects.into_iter().map(|object| (object.key(), object)).collect()
    };
    objects.into_iter().map(|(host, objects)| (host, held(objects))).collect()
}

/// A store, its watch and a compiler that has the snapshot. Where DHCP may have an address, it is known
/// who has it.
fn start() -> (Store<Record>, Watch<Record>, Compiler) {
    let store = Store::in_memory().expect("memory opens");
    commit(&store, Step::Put((2..4).map(|l3| record_of(dhcp(l3))).collect()));
    let mut watch = store.watch();
    let Some(Event::Snapshot(snapshot)) = watch.try_next() else { panic!("a snapshot is first") };
    let mut compiler = Compiler::new();
    compiler.load(&snapshot);
    (store, watch, compiler)
}

/// A network of whose guests hosts take care, and where its instances are: most histories would have none.
fn told() -> Step {
    let services = [NetworkServiceType::Dhcp, NetworkServiceType::Userdata];
    let services = services.map(|what| record_of(service(2, ProviderType::Flat, what)));
    let mut records = vec![record_of(l3(2)), record_of(range(0, 2, None)), record_of(zone("z"))];
    records.extend(services);
    records.push(record_of(group_rows::guarded(2)));
    records.extend((0..4).map(|n| record_of(instance(n, n, "a"))));
    records.extend((0..4).map(|n| record_of(used(n, 0, n))));
    Step::Put(records)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn after_every_step_the_compiler_has_what_a_full_compile_gives(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (store, mut watch, mut compiler) = start();
        let mut copies = Hosts::new();
        for step in [told()].into_iter().chain(steps) {
            commit(&store, step);
            let Some(Event::Commit(commit)) = watch.try_next() else { continue };
            follow(&mut copies, compiler.apply(&commit.changes));
            prop_assert_eq!(&copies, &hosts(compile_all(&store.snapshot())));
            prop_assert_eq!(compiler.missing(), &missing_vteps(&store.snapshot()));
        }
    }

    #[test]
    fn changes_of_many_transactions_may_be_taken_in_at_once(
        before in prop::collection::vec(step(), 1..20),
        after in prop::collection::vec(step(), 1..20),
    ) {
        let (store, mut watch, mut compiler) = start();
        [told()].into_iter().chain(before).for_each(|step| commit(&store, step));
        let old = store.snapshot();
        let mut copies = hosts(compiler.load(&old));
        after.into_iter().for_each(|step| commit(&store, step));
        let mut changes = Vec::new();
        while let Some(event) = watch.try_next() {
            if let Event::Commit(commit) = event && commit.revision > old.revision() {
                changes.extend(commit.changes.iter().cloned());
            }
        }
        let expected = hosts(compile_all(&store.snapshot()));
        follow(&mut copies, compiler.apply(&changes));
        prop_assert_eq!(&copies, &expected);
        // A watcher that has lagged loads a snapshot instead.
        prop_assert_eq!(&hosts(compiler.load(&store.snapshot())), &expected);
    }
}

/// `hosts` hosts with a VTEP each; `networks` networks with `members` NICs each, spread over the
/// first `spread` hosts.
fn lay_out(store: &Store<Record>, hosts: u32, networks: u32, (members, spread): (u32, u32)) {
    let vteps = (0..hosts).map(|h| record_of(vtep(h, h, 0, h)));
    let nets = (0..networks).map(|n| record_of(network(n, 0, n)));
    let nics = (0..networks)
        .flat_map(move |n| (0..members).map(move |m| (n, m)))
        .flat_map(move |(n, m)| nic_rows(n * members + m, n, Some(m % spread)));
    commit(store, Step::Put(vteps.chain(nets).chain(nics).collect()));
}

/// The work of adding NIC 99,999 to network 0 on host `host`.
fn work_of_one_nic(store: &Store<Record>, host: u32) -> (u64, usize) {
    let mut compiler = Compiler::new();
    compiler.load(&store.snapshot());
    let before = compiler.work().total();
    let mut watch = store.watch();
    commit(store, Step::Put(nic_rows(99_999, 0, Some(host)).to_vec()));
    let found = std::iter::from_fn(|| watch.try_next());
    let changes = found
        .filter_map(|event| match event {
            Event::Commit(commit) => Some(commit.changes),
            _ => None,
        })
        .next();
    let deltas = compiler.apply(&changes.expect("one transaction"));
    (compiler.work().total() - before, deltas.values().map(|delta| delta.upserts.len()).sum())
}

#[test]
fn one_nic_costs_its_networks_hosts_whatever_else_there_is() {
    let cost = |networks, members, spread| {
        let store = Store::in_memory().unwrap();
        lay_out(&store, 20, networks, (members, spread));
        work_of_one_nic(&store, 0)
    };
    let (small, objects) = cost(1, 10, 10);
    assert_eq!(objects, 10, "a port, and a peer on each of nine other hosts");
    let (crowded, _) = cost(200, 10, 10);
    assert_eq!(small, crowded, "other networks cost nothing");
    let (big, _) = cost(1, 100, 10);
    assert_eq!(small, big, "members cost nothing when their hosts are the same");
    assert!(small <= 4 * 10 + 20, "{small} entries for ten hosts");
}

#[test]
fn the_first_nic_on_a_host_costs_the_networks_members_and_hosts() {
    let store = Store::in_memory().unwrap();
    lay_out(&store, 20, 50, (40, 10));
    let (work, objects) = work_of_one_nic(&store, 15);
    assert_eq!(objects, 1 + 1 + 40 + 10, "network, port, its peers, and it as a peer");
    assert!(work <= 4 * (40 + 10) + 20, "{work} entries for {objects} objects");
}

#[test]
fn a_host_without_a_vtep_holds_nothing_of_the_network_and_is_named() {
    let (store, _, mut compiler) = start();
    let records = [
        record_of(network(0, 0, 7)),
        record_of(vtep(0, 0, 0, 1)),
        record_of(nic(0, 0, Some(0))),
        record_of(nic(1, 0, Some(1))),
    ];
    commit(&store, Step::Put(records.to_vec()));
    let held = hosts(compiler.load(&store.snapshot()));
    let missing = MissingVtep { host: id(4, 1), pool: id(2, 0) };
    assert_eq!(compiler.missing().iter().collect::<Vec<_>>(), [&missing]);
    assert!(!held.contains_key(&id(4, 1)));
    let tables: Vec<Table> = held[&id(4, 0)].keys().map(|key| key.table).collect();
    assert_eq!(tables, [Table::Network, Table::Port], "and it is nobody's peer");
}

#[test]
fn a_nic_is_one_object_for_all_the_hosts_that_have_it_as_a_peer() {
    let (store, mut watch, mut compiler) = start();
    lay_out(&store, 6, 1, (5, 5));
    let mut held = Hosts::new();
    let mut take_in = |held: &mut Hosts| {
        while let Some(event) = watch.try_next() {
            if let Event::Commit(commit) = event {
                follow(held, compiler.apply(&commit.changes));
            }
        }
    };
    take_in(&mut held);
    commit(&store, Step::Put(nic_rows(99, 0, Some(5)).to_vec()));
    take_in(&mut held);
    let key = ObjectKey { table: Table::Peer, uuid: id::<VmNic>(6, 0).uuid() };
    let peer = |host| &*held[&id(4, host)][&key];
    assert!((2..6).all(|host| std::ptr::eq(peer(host), peer(1))), "host 5 came later");
}

#[test]
fn a_nic_that_moves_waits_where_it_goes_and_all_others_know() {
    let (store, mut watch, mut compiler) = start();
    lay_out(&store, 4, 1, (3, 3));
    let mut held = Hosts::new();
    let mut take_in = |held: &mut Hosts| {
        while let Some(event) = watch.try_next() {
            if let Event::Commit(commit) = event {
                follow(held, compiler.apply(&commit.changes));
            }
        }
    };
    let plugged = VmNic { pending_host_uuid: None, ..moving(nic(0, 0, Some(0)), 3) };
    commit(&store, Step::Put(vec![record_of(plugged)]));
    take_in(&mut held);
    assert!(!held.contains_key(&id(4, 3)), "nothing is there yet");
    commit(&store, Step::Put(vec![record_of(moving(nic(0, 0, Some(0)), 3))]));
    take_in(&mut held);
    let uuid = id::<VmNic>(6, 0).uuid();
    let object = |host, table| held[&id(4, host)].get(&ObjectKey { table, uuid }).map(|o| &**o);
    let to = Some(Moving { number: 7, vtep: ip(3) });
    let Some(Object::Port(here)) = object(0, Table::Port) else { panic!("it is still there") };
    assert_eq!((&here.goes, &here.comes, here.device.as_deref()), (&to, &None, Some("vnet0")));
    let Some(Object::Port(there)) = object(3, Table::Port) else { panic!("a port waits for it") };
    let from = Some(Moving { number: 7, vtep: ip(0) });
    assert_eq!((&there.goes, &there.comes, there.device.as_deref()), (&None, &from, Some("vnet1")));
    assert_eq!(there.addresses, here.addresses);
    for host in [1, 2] {
        let Some(Object::Peer(peer)) = object(host, Table::Peer) else { panic!("a peer") };
        assert_eq!((peer.vtep, &peer.goes), (ip(0), &to));
    }
    let tables = held[&id(4, 3)].keys().map(|key| key.table);
    let expected = [Table::Network, Table::Peer, Table::Peer, Table::Port];
    assert_eq!(tables.collect::<Vec<_>>(), expected, "the others are its peers there");
}

#[test]
fn addresses_are_sorted_and_carry_their_subnet() {
    let (store, _, mut compiler) = start();
    let mut records = nic_rows(0, 0, Some(0)).to_vec();
    records.extend([record_of(network(0, 0, 7)), record_of(vtep(0, 0, 0, 1))]);
    commit(&store, Step::Put(records));
    let held = hosts(compiler.load(&store.snapshot()));
    let key = ObjectKey { table: Table::Port, uuid: id::<VmNic>(6, 0).uuid() };
    let object = held[&id(4, 0)].get(&key).map(|object| &**object);
    let Some(Object::Port(port)) = object else { panic!("no port") };
    let ips: Vec<IpAddr> = port.addresses.iter().map(|address| address.ip).collect();
    assert_eq!(ips, [ip(10), ip(20)]);
    assert!(port.addresses.iter().all(|a| a.prefix_bits == 24 && a.gateway == Some(ip(1))));
}

#[test]
fn the_default_route_goes_by_the_instances_default_network_alone() {
    let (store, mut watch, mut compiler) = start();
    let other = UsedIp { l3_network_uuid: id(9, 9), ..used(0, 1, 10) };
    let records = [
        record_of(on(0, Segment::NoVlan)),
        record_of(nic(0, 0, Some(0))),
        record_of(used(0, 0, 20)),
        record_of(other),
    ];
    let gateways = |held: &Hosts| {
        let key = ObjectKey { table: Table::Port, uuid: id::<VmNic>(6, 0).uuid() };
        let object = held[&id(4, 0)].get(&key).map(|object| &**object);
        let Some(Object::Port(port)) = object else { panic!("no port") };
        let of = port.addresses.iter().map(|address| (address.ip, address.gateway));
        of.collect::<Vec<_>>()
    };
    commit(&store, Step::Put(records.to_vec()));
    let mut held = hosts(compiler.load(&store.snapshot()));
    assert_eq!(gateways(&held), [(ip(10), Some(ip(1))), (ip(20), Some(ip(1)))], "no default");
    while watch.try_next().is_some() {}
    for (default, expected) in [(9, [Some(ip(1)), None]), (2, [None, Some(ip(1))])] {
        let default_l3_network_uuid = Some(id(9, default));
        let vm = VmInstance { default_l3_network_uuid, ..instance(0, 0, "vm") };
        commit(&store, Step::Put(vec![record_of(vm)]));
        let Some(Event::Commit(commit)) = watch.try_next() else { panic!("a commit") };
        follow(&mut held, compiler.apply(&commit.changes));
        let found: Vec<_> = gateways(&held).into_iter().map(|(_, gateway)| gateway).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_nic_on_a_device_is_a_port_without_instance_and_a_peer_like_any_other() {
    let (store, _, mut compiler) = start();
    lay_out(&store, 2, 1, (1, 1));
    let mut rows = nic_rows(99, 0, Some(1));
    let plugged = VmNic {
        vm_instance_uuid: None,
        plugged_device: Some("vnet0".to_owned()),
        ..nic(99, 0, Some(1))
    };
    rows[0] = record_of(plugged.clone());
    commit(&store, Step::Put(rows.to_vec()));
    let held = hosts(compiler.load(&store.snapshot()));
    let key = |table| ObjectKey { table, uuid: plugged.uuid.uuid() };
    let Object::Port(port) = &*held[&id(4, 1)][&key(Table::Port)] else { panic!("no port") };
    assert_eq!((port.instance, port.device.as_deref()), (None, Some("vnet0")));
    assert!(port.addresses.iter().all(|address| address.gateway == Some(ip(1))));
    assert!(held[&id(4, 0)].contains_key(&key(Table::Peer)));
    // An agent of an earlier release knows no port without an instance.
    let object = &*held[&id(4, 1)][&key(Table::Port)];
    assert_eq!(object.needs(), 3);

    let unplugged = VmNic { host_uuid: None, ..plugged };
    commit(&store, Step::Put(vec![record_of(unplugged)]));
    let held = hosts(compiler.load(&store.snapshot()));
    assert!(!held.contains_key(&id(4, 1)), "not even its network");
}

#[test]
fn a_network_without_tunnels_needs_no_vtep_and_tells_nobody_of_its_nics() {
    let (store, _, mut compiler) = start();
    let vlan = on(0, Segment::Vlan { vlan: 5 });
    let records =
        vec![record_of(vlan), record_of(nic(0, 0, Some(0))), record_of(nic(1, 0, Some(1)))];
    commit(&store, Step::Put(records));
    let all = hosts(compiler.load(&store.snapshot()));
    assert!(compiler.missing().is_empty());
    for host in [0, 1] {
        let held: Vec<_> = all[&id(4, host)].values().collect();
        let [Object::Network(network), Object::Port(_)] = [&**held[0], &**held[1]] else {
            panic!("{held:?}")
        };
        assert!(network.tunnel().is_none());
        assert_eq!(held.len(), 2);
    }
}

#[test]
fn a_change_that_no_host_can_see_costs_no_object() {
    let (store, mut watch, mut compiler) = start();
    lay_out(&store, 3, 1, (3, 3));
    compiler.load(&store.snapshot());
    let before = compiler.work();
    let touched = Meta { changed: Timestamp(5), ..Meta::default() };
    commit(&store, Step::Put(vec![Record::new(nic(0, 0, Some(0)), touched)]));
    let last = std::iter::from_fn(|| watch.try_next()).last();
    let Some(Event::Commit(commit)) = last else { panic!("no commit") };
    assert_eq!(commit.changes.len(), 1);
    assert!(compiler.apply(&commit.changes).is_empty());
    assert_eq!(compiler.work(), before);
}
