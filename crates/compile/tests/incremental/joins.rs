//! Routing domains: which networks are joined, as ports and members show it.

use model::{
    Record,
    resource::{l2_network::Segment, l3_network::L3Category, vm_nic::VmNic},
};
use netloom_compile::compile_all;
use proptest::prelude::*;
use store::Event;

use crate::{
    Hosts, commit, follow, followed::Followed, group_rows::*, hosts, random::Step, rows::*, start,
};

/// Networks 1 to `nets`, each with NIC of ten times its number, on host 0 and in group 0, whose members know
/// each other.
fn networks(nets: u32) -> Vec<Record> {
    let mut rows = vec![record_of(group(0)), record_of(rule_about(10, 0, 0))];
    for net in 1..=nets {
        rows.extend([record_of(on(net, Segment::Vlan { vlan: 9 })), range_on(net, net)]);
        rows.extend([record_of(l3_on(net, L3Category::Private)), record_of(guarded(net))]);
        rows.extend(nic_on(net * 10, net, 0));
        rows.push(record_of(in_group(net * 10, 0, 1)));
    }
    rows
}

impl Followed {
    /// The number of the domain of each network.
    fn domains(&self, nets: u32) -> Vec<u32> {
        let of = |net| self.port_on(0, net * 10).addresses[0].domain;
        (1..=nets).map(of).collect()
    }
}

/// An instance that joins two networks, with NICs of numbers n and n + 1.
fn router(n: u32, a: u32, b: u32) -> Vec<Record> {
    vec![record_of(leg(n, n, a, &[b])), record_of(leg(n + 1, n, b, &[a]))]
}

#[test]
fn an_instance_that_routes_between_two_networks_joins_them() {
    let mut all = Followed::empty();
    all.put(networks(4));
    assert_eq!(all.domains(4), [1, 2, 3, 4]);
    all.put(router(500, 3, 2));
    assert_eq!(all.domains(4), [1, 2, 2, 4]);
    all.put(router(510, 3, 4));
    assert_eq!(all.domains(4), [1, 2, 2, 2]);
    all.put(router(520, 1, 4));
    assert_eq!(all.domains(4), [1, 1, 1, 1]);
    // Whether it runs does not matter, but whom it routes for.
    all.put(vec![record_of(leg(510, 510, 3, &[]))]);
    assert_eq!(all.domains(4), [1, 2, 2, 1], "split in the middle");
    all.delete(&leg(520, 520, 1, &[]));
    assert_eq!(all.domains(4), [1, 2, 2, 4]);
}

#[test]
fn one_way_another_instance_or_a_public_network_joins_nothing() {
    let mut all = Followed::empty();
    all.put(networks(3));
    let apart = [1, 2, 3];
    all.put(vec![record_of(leg(500, 500, 1, &[2])), record_of(leg(501, 500, 2, &[3]))]);
    assert_eq!(all.domains(3), apart, "the way back is not there");
    all.put(vec![record_of(leg(501, 501, 2, &[1]))]);
    assert_eq!(all.domains(3), apart, "these are two");
    all.put(vec![record_of(VmNic { vm_instance_uuid: None, ..leg(501, 500, 2, &[1]) })]);
    assert_eq!(all.domains(3), apart);
    all.put(vec![record_of(leg(501, 500, 2, &[1, 3]))]);
    assert_eq!(all.domains(3), [1, 1, 3]);
    // The range of network 2 is 10.0.2.10 to 10.0.2.19.
    let routes = |prefix: &str| {
        let allowed_prefixes = vec![prefix.parse().expect("a prefix")];
        vec![record_of(VmNic { allowed_prefixes, ..leg(500, 500, 1, &[]) })]
    };
    for (prefix, expected) in [
        ("10.0.2.8/29", apart),
        ("0.0.0.0/0", [1, 1, 3]),
        ("10.0.2.16/28", apart),
        ("10.0.2.0/27", [1, 1, 3]),
    ] {
        all.put(routes(prefix));
        assert_eq!(all.domains(3), expected, "{prefix}");
    }
    all.put(vec![record_of(l3_on(2, L3Category::Public))]);
    assert_eq!(all.domains(3), apart);
    all.put(vec![record_of(l3_on(2, L3Category::Private))]);
    assert_eq!(all.domains(3), [1, 1, 3]);
    all.delete(&l3_on(2, L3Category::Private));
    assert_eq!(all.domains(3), apart);
}

#[test]
fn of_joins_that_would_give_an_address_twice_the_older_one_counts() {
    let mut all = Followed::empty();
    all.put(networks(4));
    // Networks 3 and 4 have the same addresses, and both would be joined with 2.
    let twin = || range_on(4, 3);
    all.put(vec![twin()]);
    all.put(router(510, 2, 3));
    assert_eq!(all.domains(4), [1, 2, 2, 4]);
    let second = vec![record_of(leg(520, 520, 2, &[3])), record_of(leg(521, 520, 4, &[2]))];
    // On one L2 network a prefix is one NIC's, so it comes by way of network 1.
    all.put(router(530, 1, 2));
    assert_eq!(all.domains(4), [1, 1, 1, 4]);
    all.put(second);
    let third = vec![record_of(leg(540, 540, 1, &[3])), record_of(leg(541, 540, 4, &[1]))];
    all.put(third);
    assert_eq!(all.domains(4), [1, 1, 1, 4], "it came later");
    all.delete(&leg(510, 510, 2, &[]));
    assert_eq!(all.domains(4), [1, 1, 3, 1], "its way is free");
    all.put(vec![record_of(leg(510, 510, 2, &[3]))]);
    assert_eq!(all.domains(4), [1, 1, 1, 4]);
}

#[test]
fn members_of_joined_networks_know_each_other_and_after_a_split_no_more() {
    let mut all = Followed::empty();
    all.put(networks(2));
    let known = |all: &Followed| {
        all.held[&id(4, 0)].keys().filter(|key| key.table == wire::object::Table::Member).count()
    };
    assert_eq!(known(&all), 2, "each is known to itself");
    // Network 1's NIC moves to a host of its own: it alone is known there.
    all.put(nic_on(10, 1, 1));
    let there = |all: &Followed| {
        let held = &all.held[&id(4, 1)];
        held.keys().filter(|key| key.table == wire::object::Table::Member).count()
    };
    assert_eq!((known(&all), there(&all)), (1, 1));
    all.put(router(500, 1, 2));
    assert_eq!((known(&all), there(&all)), (2, 2));
    all.put(vec![record_of(leg(500, 500, 1, &[]))]);
    assert_eq!((known(&all), there(&all)), (1, 1));
}

/// What a split costs: the networks that were together, and the ports and members of those whose number
/// changes; nothing of others.
#[test]
fn a_split_costs_the_networks_that_were_together() {
    let cost = |nets: u32, chained: u32| {
        let mut all = Followed::empty();
        commit(&all.store, Step::Put(networks(nets)));
        let routers = (1..chained).flat_map(|net| router(5000 + net * 10, net, net + 1));
        commit(&all.store, Step::Put(routers.collect()));
        all.follow();
        let middle = chained / 2;
        assert_eq!(all.domains(nets)[chained as usize - 1], 1);
        let before = all.compiler.work();
        let gone = leg(5000 + middle * 10, 5000 + middle * 10, middle, &[]);
        commit(&all.store, Step::Put(vec![record_of(gone)]));
        all.follow();
        assert_eq!(all.domains(nets)[chained as usize - 1], middle + 1);
        let after = all.compiler.work();
        (after.domains - before.domains, after.total() - before.total())
    };
    let (domains, total) = cost(40, 20);
    assert_eq!(cost(120, 20), (domains, total), "networks that are not joined cost nothing");
    assert!(domains < 4 * 20 + 20, "{domains} entries for 20 networks");
    let (longer, _) = cost(120, 100);
    assert!(longer < 4 * 100 + 20, "{longer} entries for 100 networks");
}

const NETS: u32 = 6;

fn change() -> impl Strategy<Value = Step> {
    let routes = || prop::collection::vec(1..=NETS, 0..3);
    let leg = (0..12u32, 0..4u32, 1..=NETS, routes()).prop_map(|(n, instance, net, routes)| {
        record_of(leg(500 + n, 500 + instance, net, &routes))
    });
    let category = prop::sample::select(vec![L3Category::Private, L3Category::Public]);
    let l3 = (1..=NETS, category).prop_map(|(net, category)| record_of(l3_on(net, category)));
    let range = (1..=NETS, 1..=NETS).prop_map(|(net, of)| range_on(net, of));
    let network = (1..=NETS).prop_map(|net| record_of(on(net, Segment::NoVlan)));
    // A NIC that routes for several networks at once, to have joins that are not by chance.
    let router = (0..6u32, 1..=NETS, 1..=NETS).prop_map(|(n, a, b)| router(500 + n * 2, a, b));
    let record = prop_oneof![4 => leg, 2 => range, 1 => l3, 1 => network];
    prop_oneof![
        3 => prop::collection::vec(record.clone(), 1..4).prop_map(Step::Put),
        4 => router.prop_map(Step::Put),
        1 => record.prop_map(|record| Step::Delete(record.kind(), record.uuid())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn after_every_change_domains_are_those_of_a_search_over_everything(
        changes in prop::collection::vec(change(), 1..40),
    ) {
        let (store, mut watch, mut compiler) = start();
        let mut copies = Hosts::new();
        for step in [Step::Put(networks(NETS))].into_iter().chain(changes) {
            commit(&store, step);
            while let Some(event) = watch.try_next() {
                let Event::Commit(commit) = event else { continue };
                follow(&mut copies, compiler.apply(&commit.changes));
            }
            let expected = hosts(compile_all(&store.snapshot()));
            prop_assert_eq!(&copies, &expected);
        }
        let mut anew = netloom_compile::Compiler::new();
        prop_assert_eq!(hosts(anew.load(&store.snapshot())), copies);
    }
}
