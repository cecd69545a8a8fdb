//! What guests are told: which hosts learn of it, and what.

use std::net::IpAddr;

use model::{
    Kind, Record, Resource,
    resource::{
        ip_range::AddressMode,
        l3_network::L3Network,
        network_service::{NetworkServiceType as Type, ProviderType},
        used_ip::UsedIp,
        vm_instance::VmInstance,
        vm_nic::VmNic,
    },
    setting::{DHCP_LEASE_TIME, DHCP_SLAAC_ADDRESSES, METADATA_TOKEN, VENDOR_DATA},
};
use netloom_compile::{Guest, guest};
use store::Read;
use wire::{
    object::{About, Object, ObjectKey, Port, Subnet, Table},
    told::{Bytes, DhcpOption, Resolver, Service, SshKey},
};

use crate::{followed::Followed, rows::*};

impl Followed {
    /// L3 network 2 on network 0, with a NIC on each of hosts 0 and 1, and host 2 without.
    fn new() -> Self {
        let mut one = Self::empty();
        let mut records: Vec<Record> = (0..3).map(|h| record_of(vtep(h, h, 0, h))).collect();
        records.extend([
            record_of(network(0, 0, 7)),
            record_of(l3(2)),
            record_of(range(0, 2, None)),
        ]);
        for n in [0, 1] {
            let used = UsedIp { gateway: ip(513), ..used(n, 0, 522 + n) };
            records.extend([record_of(nic(n, 0, Some(n))), record_of(used)]);
        }
        one.put(records);
        one
    }

    fn attach(&mut self, services: &[Type]) {
        let row = |what: &Type| record_of(service(2, ProviderType::Flat, *what));
        self.put(services.iter().map(row).collect());
    }

    fn subnet(&self, host: u32) -> Option<Subnet> {
        let key = ObjectKey { table: Table::Subnet, uuid: id::<L3Network>(9, 2).uuid() };
        match self.held.get(&id(4, host))?.get(&key).map(|object| &**object) {
            Some(Object::Subnet(subnet)) => Some(subnet.clone()),
            _ => None,
        }
    }

    fn about(&self, host: u32, instance: u32) -> Option<About> {
        let key = ObjectKey { table: Table::About, uuid: id::<VmInstance>(5, instance).uuid() };
        match self.held.get(&id(4, host))?.get(&key).map(|object| &**object) {
            Some(Object::About(about)) => Some(about.clone()),
            _ => None,
        }
    }

    /// The same, as whoever asks about a NIC gets it.
    fn guest(&self, n: u32) -> Guest {
        let record = self.store.snapshot().get(Kind::VmNic, id::<VmNic>(6, n).uuid());
        let nic = VmNic::of(record.as_deref().expect("it is there")).expect("a NIC");
        guest(&self.store.snapshot(), nic).expect("it is on a host")
    }

    fn port(&self, nic: u32) -> Port {
        let key = ObjectKey { table: Table::Port, uuid: id::<VmNic>(6, nic).uuid() };
        match self.held[&id(4, nic)].get(&key).map(|object| &**object) {
            Some(Object::Port(port)) => port.clone(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_network_with_dhcp_is_told_of_where_its_nics_are_and_without_it_nowhere() {
    let mut all = Followed::new();
    assert_eq!((all.subnet(0), all.port(0).told), (None, None), "no service, no word");
    all.attach(&[Type::Dhcp]);
    let subnet = all.subnet(0).expect("its NICs are there");
    assert_eq!(all.subnet(1).as_ref(), Some(&subnet));
    assert_eq!(all.subnet(2), None, "none of its NICs is there");
    let dhcp = subnet.dhcp.expect("it has DHCP");
    assert_eq!(
        (dhcp.server, dhcp.server6),
        (Some(ip(513)), None),
        "known by the gateway's address"
    );
    assert_eq!(dhcp.lease_seconds, 86_400);
    assert_eq!((subnet.dns, subnet.domain.as_deref()), (vec![ip(53)], Some("example.org")));
    assert_eq!(subnet.ranges.len(), 1);
    let told = all.port(0).told.expect("it is told");
    assert_eq!((told.services, told.is_default), (vec![Service::Dhcp], true));
    assert_eq!(told.hostname.as_deref(), Some("10-0-2-10"));
    assert_eq!(
        all.guest(0),
        Guest { port: all.port(0), subnets: all.subnet(0).into_iter().collect() }
    );
    assert!(all.port(0).addresses.iter().all(|a| a.subnet == Some(id::<L3Network>(9, 2).uuid())));

    all.delete(&service(2, ProviderType::Flat, Type::Dhcp));
    assert_eq!((all.subnet(0), all.port(0).told), (None, None));
}

#[test]
fn what_guests_are_told_follows_the_rows_at_once() {
    let mut all = Followed::new();
    all.attach(&[Type::Dhcp]);
    all.put(vec![record_of(L3Network { dns: vec![ip(54), ip(53)], ..l3(2) })]);
    assert_eq!(all.subnet(0).expect("it is there").dns, [ip(54), ip(53)]);
    all.put(vec![record_of(route(2, 5))]);
    let routes = all.subnet(1).expect("it is there").routes;
    assert_eq!(routes.iter().map(|route| route.via).collect::<Vec<_>>(), [ip(9)]);
    all.put(vec![record_of(dhcp_server(2, 520))]);
    let dhcp = all.subnet(0).and_then(|subnet| subnet.dhcp).expect("it has DHCP");
    assert_eq!(dhcp.server, Some(ip(520)), "its own address");
    let lease = |all: &Followed| all.subnet(0).and_then(|it| it.dhcp).map(|it| it.lease_seconds);
    all.put(vec![record_of(setting(&DHCP_LEASE_TIME, "600"))]);
    assert_eq!(lease(&all), Some(600));
    all.put(vec![record_of(own_setting(&DHCP_LEASE_TIME, l3(2).uuid, "1200"))]);
    assert_eq!(lease(&all), Some(1200), "its own goes before that of all");
    all.put(vec![record_of(VmNic { mtu: 1400, ..nic(0, 0, Some(0)) })]);
    assert_eq!(all.port(0).mtu_bytes, 1400);
}

#[test]
fn a_nic_that_is_not_the_default_one_says_so() {
    let mut all = Followed::new();
    all.attach(&[Type::Dhcp]);
    let elsewhere = VmInstance { default_l3_network_uuid: Some(id(9, 8)), ..instance(0, 0, "vm") };
    all.put(vec![record_of(elsewhere)]);
    let port = all.port(0);
    assert!(!port.told.expect("it is told").is_default);
    assert_eq!(port.addresses[0].gateway, None);
}

#[test]
fn ipv6_ranges_are_told_with_their_mode_and_their_server_needs_no_address() {
    let mut all = Followed::new();
    all.attach(&[Type::Dhcp]);
    let range = range(1, 2, Some(AddressMode::Stateful));
    all.put(vec![record_of(range)]);
    let subnet = all.subnet(0).expect("it is there");
    let modes: Vec<_> = subnet.ranges.iter().map(|range| range.mode).collect();
    assert_eq!(modes, [None, Some(wire::told::AddressMode::Stateful)]);
    assert_eq!(subnet.dhcp.expect("it has DHCP").server6, None);
    let services = all.port(0).told.expect("it is told").services;
    assert_eq!(services, [Service::Dhcp, Service::Ipv6]);
}

#[test]
fn a_network_with_dns_is_asked_itself_and_peers_there_have_names() {
    let mut all = Followed::new();
    all.attach(&[Type::Dns]);
    let subnet = all.subnet(0).expect("it is there");
    let metadata = IpAddr::from([169, 254, 169, 254]);
    let resolver = Resolver { addresses: vec![metadata], forwarders: vec![ip(53)] };
    assert_eq!((subnet.dns, subnet.dhcp), (vec![metadata], None));
    assert_eq!(subnet.resolver, Some(resolver));
    let name = |all: &Followed| {
        let key = ObjectKey { table: Table::Peer, uuid: id::<VmNic>(6, 1).uuid() };
        let Object::Peer(peer) = &*all.held[&id(4, 0)][&key] else { panic!("no peer") };
        peer.known_as.clone().map(|known| known.hostname)
    };
    assert_eq!(name(&all).as_deref(), Some("10-0-2-11"));
    for (given, shown) in [("web", "web"), ("web.Example.org", "web"), ("a.b", "a.b")] {
        all.put(vec![record_of(VmNic { hostname: Some(given.into()), ..nic(1, 0, Some(1)) })]);
        assert_eq!(name(&all).as_deref(), Some(shown));
    }
    all.delete(&service(2, ProviderType::Flat, Type::Dns));
    assert_eq!(name(&all), None);
}

#[test]
fn a_router_that_is_not_there_serves_no_names_but_its_dhcp_is_served() {
    let mut all = Followed::new();
    let of_router = [Type::Dhcp, Type::Dns, Type::Snat];
    all.put(of_router.map(|what| record_of(service(2, ProviderType::Vrouter, what))).to_vec());
    let subnet = all.subnet(0).expect("it is there");
    assert!(subnet.resolver.is_none() && subnet.dhcp.is_some());
    assert_eq!(subnet.dns, [ip(53)]);
}

#[test]
fn what_a_network_is_told_costs_nothing_where_it_is_not() {
    let mut all = Followed::new();
    let cost = |all: &mut Followed, dns: u32| {
        let before = all.compiler.work().total();
        all.put(vec![record_of(L3Network { dns: vec![ip(dns)], ..l3(2) })]);
        all.compiler.work().total() - before
    };
    all.attach(&[Type::Dhcp]);
    let alone = cost(&mut all, 60);
    let others = (10..200).flat_map(|n| {
        let row = service(n, ProviderType::Flat, Type::Dhcp);
        [record_of(l3(n)), record_of(range(0, n, None)), record_of(row)]
    });
    all.put(others.collect());
    assert_eq!(all.store.snapshot().total(Kind::L3Network), 191);
    assert_eq!(cost(&mut all, 61), alone);
}

#[test]
fn what_an_instance_may_read_is_where_it_is_while_its_network_has_userdata() {
    let mut all = Followed::new();
    let rows = [
        record_of(instance(0, 0, "vm")),
        record_of(zone("here")),
        record_of(guest_data(0, Some("aGk="), Some("ssh-ed25519 AAAA me"))),
        record_of(user_tag(0, "blue")),
        record_of(setting(&VENDOR_DATA, "#cloud-config")),
    ];
    all.put(rows.to_vec());
    assert_eq!(all.about(0, 0), None, "nobody would serve it");
    all.attach(&[Type::Userdata]);
    let about = all.about(0, 0).expect("it is there");
    assert_eq!((all.about(1, 0), all.about(1, 1)), (None, None), "no instance has a row there");
    let told = all.port(0).told.expect("it is told");
    assert_eq!(told.services, [Service::Metadata]);
    let expected = About {
        uuid: id::<VmInstance>(5, 0).uuid(),
        name: "vm".to_owned(),
        hostname: "10-0-2-10.example.org".to_owned(),
        user_data: Some(Bytes(b"hi".to_vec())),
        vendor_data: Some(Bytes(b"#cloud-config".to_vec())),
        ssh_keys: vec![SshKey {
            name: "default".to_owned(),
            key: "ssh-ed25519 AAAA me".to_owned(),
        }],
        account: uuid::Uuid::nil(),
        zone: "here".to_owned(),
        offering: "1 CPUs, 0 MiB".to_owned(),
        tags: vec!["blue".to_owned()],
        needs_token: false,
    };
    assert_eq!(about, expected);

    all.put(vec![record_of(VmNic { hostname: Some("web".into()), ..nic(0, 0, Some(0)) })]);
    all.put(vec![record_of(own_setting(&METADATA_TOKEN, id::<VmInstance>(5, 0), "Required"))]);
    all.put(vec![record_of(zone("there")), record_of(guest_data(0, None, None))]);
    let about = all.about(0, 0).expect("it is there");
    assert_eq!((about.hostname.as_str(), about.needs_token), ("web.example.org", true));
    assert_eq!((about.zone.as_str(), about.user_data), ("there", None));

    all.delete(&service(2, ProviderType::Flat, Type::Userdata));
    assert_eq!(all.about(0, 0), None);
}

#[test]
fn what_operators_add_to_dhcp_is_told_as_it_stands_in_messages() {
    let mut all = Followed::new();
    all.attach(&[Type::Dhcp]);
    let network = id::<L3Network>(9, 2);
    let own = id::<VmNic>(6, 0);
    all.put(vec![
        record_of(dhcp_option(network, 66, "boot")),
        record_of(dhcp_option(network, 42, "10.0.0.5,10.0.0.6")),
        record_of(dhcp_option(network, 119, "a.org, b.org")),
        record_of(dhcp_option(own, 67, "hex:0a0b")),
        record_of(own_setting(&DHCP_SLAAC_ADDRESSES, network, "Any")),
    ]);
    let dhcp = all.subnet(0).and_then(|subnet| subnet.dhcp).expect("it has DHCP");
    let data = |options: &[DhcpOption]| -> Vec<(u16, Vec<u8>)> {
        options.iter().map(|option| (option.code, option.data.0.clone())).collect()
    };
    assert_eq!(data(&dhcp.options), [(66, b"boot".to_vec())]);
    assert_eq!(dhcp.time_servers, [IpAddr::from([10, 0, 0, 5]), IpAddr::from([10, 0, 0, 6])]);
    assert_eq!(dhcp.search, ["a.org", "b.org"]);
    let told = all.port(0).told.expect("it is told");
    assert_eq!((data(&told.options), told.may_choose), (vec![(67, vec![10, 11])], true));
    assert_eq!(data(&all.port(1).told.expect("it is told").options), []);
}
