//! Links, addresses and routes in namespaces of their own. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]

use std::{net::IpAddr, process::Command};

use netloom_hostnet::{
    Arp, Error, Identity, Kind, LinkNews, Namespace, Origin, Promiscuity, VethSpec, VxlanSpec, Way,
    scratch::{Scratch, root_or_skip},
};

fn veth<'a>(peer_namespace: &'a Namespace) -> VethSpec<'a> {
    VethSpec {
        name: "host0",
        mac: [0xfe, 0, 0, 0, 0, 1],
        arp: Arp::Off,
        peer_namespace,
        peer_name: "eth0",
        peer_mac: [2, 0, 0, 0, 0, 1],
        mtu_bytes: 1450,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn ipsec_policies_are_counted_in_their_namespace() {
    if !root_or_skip() {
        return;
    }
    let (with, without) = (Scratch::new("with").unwrap(), Scratch::new("without").unwrap());
    assert_eq!(with.ipsec_policies().await.unwrap(), 0);
    let mut news = LinkNews::of(&with).await.unwrap();
    let add = |direction: &str| {
        let policy = format!("xfrm policy add src 10.9.0.0/24 dst 10.8.0.0/24 dir {direction}");
        with.run_in(|| Command::new("ip").args(policy.split(' ')).status()).unwrap().unwrap()
    };
    for (direction, count) in [("out", 1), ("in", 2), ("fwd", 2)] {
        assert!(add(direction).success());
        assert_eq!(with.ipsec_policies().await.unwrap(), count, "{direction}");
        assert_eq!(news.next().await, Some(None), "{direction}");
    }
    assert_eq!(without.ipsec_policies().await.unwrap(), 0);
}

#[tokio::test]
async fn a_veth_is_made_once_with_its_final_ends() {
    if !root_or_skip() {
        return;
    }
    let (host, vm) = (Scratch::new("host").unwrap(), Scratch::new("vm").unwrap());
    let (outside, inside) = (host.netlink().await.unwrap(), vm.netlink().await.unwrap());
    let made = outside.create_veth(&veth(&vm)).await.unwrap();
    assert!(!made.is_up && made.is_noarp);
    assert_eq!((made.kind.clone(), made.mac, made.mtu_bytes), (Kind::Veth, veth(&vm).mac, 1450));
    let peer = outside.veth_peer(&made, &inside).await.unwrap().unwrap();
    assert_eq!((peer.name.as_str(), peer.mac, peer.mtu_bytes), ("eth0", veth(&vm).peer_mac, 1450));
    assert!(!peer.is_up && !peer.is_noarp);
    assert_eq!(inside.veth_peer(&peer, &outside).await.unwrap(), Some(made.clone()));
    assert_eq!(outside.create_veth(&veth(&vm)).await.unwrap(), made);

    let changed = VethSpec { mtu_bytes: 1400, arp: Arp::On, ..veth(&vm) };
    let changed = outside.create_veth(&changed).await.unwrap();
    assert_eq!((changed.index, changed.mtu_bytes, changed.is_noarp), (made.index, 1400, false));
    assert_eq!(outside.existing("host0").await.unwrap(), changed);
    assert_eq!(inside.existing("eth0").await.unwrap().mtu_bytes, 1400);
}

#[tokio::test]
async fn a_veth_with_other_ends_is_an_error_and_stays() {
    if !root_or_skip() {
        return;
    }
    let (host, vm) = (Scratch::new("host").unwrap(), Scratch::new("vm").unwrap());
    let other = Scratch::new("other").unwrap();
    let outside = host.netlink().await.unwrap();
    let made = outside.create_veth(&veth(&vm)).await.unwrap();
    for wrong in [
        VethSpec { mac: [0xfe, 0, 0, 0, 0, 2], ..veth(&vm) },
        VethSpec { peer_mac: [2, 0, 0, 0, 0, 2], ..veth(&vm) },
        VethSpec { peer_name: "eth1", ..veth(&vm) },
        veth(&other),
    ] {
        let error = outside.create_veth(&wrong).await.unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    }
    let taken = VethSpec { name: "host1", ..veth(&vm) };
    let error = outside.create_veth(&taken).await.unwrap_err();
    assert!(error.is_exists() && error.to_string().contains("host1"), "{error}");
    assert_eq!(outside.links().await.unwrap().iter().filter(|it| it.kind == Kind::Veth).count(), 1);
    assert_eq!(outside.existing("host0").await.unwrap(), made);
}

#[tokio::test]
async fn equal_indexes_in_another_namespace_are_no_peer() {
    if !root_or_skip() {
        return;
    }
    let (host, vm) = (Scratch::new("host").unwrap(), Scratch::new("vm").unwrap());
    let (host2, vm2) = (Scratch::new("host2").unwrap(), Scratch::new("vm2").unwrap());
    let outside = host.netlink().await.unwrap();
    let made = outside.create_veth(&veth(&vm)).await.unwrap();
    let twin = host2.netlink().await.unwrap().create_veth(&veth(&vm2)).await.unwrap();
    assert_eq!((made.index, made.peer), (twin.index, twin.peer), "the test has lost its point");
    let wrong = vm2.netlink().await.unwrap();
    assert_eq!(outside.veth_peer(&made, &wrong).await.unwrap(), None);
}

#[tokio::test]
async fn the_vxlan_device_takes_its_metadata_from_programs() {
    if !root_or_skip() {
        return;
    }
    let host = Scratch::new("vxlan").unwrap();
    let netlink = host.netlink().await.unwrap();
    let spec = VxlanSpec { name: "vxlan0", port: 4789, mtu_bytes: 8950, has_policy_tag: true };
    let made = netlink.create_vxlan_collect_md(&spec).await.unwrap();
    let kind = Kind::Vxlan { is_collect_metadata: true, has_policy_tag: true, port: 4789 };
    assert_eq!((made.kind.clone(), made.mtu_bytes, made.is_noarp), (kind, 8950, true));
    netlink.set_up(made.index).await.unwrap();
    let again = netlink.create_vxlan_collect_md(&spec).await.unwrap();
    assert!(again.is_up && again.index == made.index);
    let larger = VxlanSpec { mtu_bytes: 9100, ..spec };
    assert_eq!(netlink.create_vxlan_collect_md(&larger).await.unwrap().mtu_bytes, 9100);
    let error = netlink.create_vxlan_collect_md(&VxlanSpec { port: 4790, ..spec }).await;
    assert!(matches!(error, Err(Error::Mismatch { .. })), "{error:?}");
    let second = VxlanSpec { name: "vxlan1", ..spec };
    let error = netlink.create_vxlan_collect_md(&second).await.unwrap_err();
    assert!(error.is_exists(), "{error}");
}

#[tokio::test]
async fn properties_of_a_link_are_set_and_read_back() {
    if !root_or_skip() {
        return;
    }
    let (host, vm) = (Scratch::new("host").unwrap(), Scratch::new("vm").unwrap());
    let netlink = host.netlink().await.unwrap();
    let bridge = netlink.create_bridge("br0").await.unwrap();
    assert_eq!(netlink.create_bridge("br0").await.unwrap(), bridge);
    let index = netlink.create_veth(&veth(&vm)).await.unwrap().index;
    assert!(matches!(netlink.create_bridge("host0").await, Err(Error::Mismatch { .. })));
    netlink.set_controller(index, bridge.index).await.unwrap();
    netlink.set_mtu(index, 1300).await.unwrap();
    netlink.set_alias(index, "what it is for").await.unwrap();
    netlink.set_addr_gen_mode_none(index).await.unwrap();
    netlink.set_promiscuity(index, Promiscuity::On).await.unwrap();
    netlink.set_up(index).await.unwrap();
    let link = netlink.link_by_index(index).await.unwrap().unwrap();
    assert_eq!(link.controller, Some(bridge.index));
    assert_eq!(link.alias.as_deref(), Some("what it is for"));
    assert!(link.mtu_bytes == 1300 && link.is_up && link.is_addr_gen_none && link.is_noarp);
    assert_eq!(netlink.addresses(index).await.unwrap(), []);
    netlink.set_controller(index, 0).await.unwrap();
    netlink.set_down(index).await.unwrap();
    let link = netlink.existing("host0").await.unwrap();
    assert!(link.controller.is_none() && !link.is_up);
    netlink.delete_link(index).await.unwrap();
    netlink.delete_link(index).await.unwrap();
    assert_eq!(netlink.link_by_name("host0").await.unwrap(), None);
    let error = netlink.set_up(index).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[tokio::test]
async fn addresses_and_routes_are_added_once_and_removed_once() {
    if !root_or_skip() {
        return;
    }
    let (host, vm) = (Scratch::new("host").unwrap(), Scratch::new("vm").unwrap());
    let (outside, inside) = (host.netlink().await.unwrap(), vm.netlink().await.unwrap());
    outside.create_veth(&veth(&vm)).await.unwrap();
    let index = inside.existing("eth0").await.unwrap().index;
    inside.set_addr_gen_mode_none(index).await.unwrap();
    let addresses = [(ip("10.0.0.2"), 24), (ip("192.0.2.9"), 32), (ip("2001:db8::2"), 64)];
    for (ip, prefix_len) in addresses.iter().chain(&addresses) {
        inside.address_add(index, *ip, *prefix_len).await.unwrap();
    }
    inside.set_up(index).await.unwrap();
    let local = inside.local_addresses().await.unwrap();
    assert!(addresses.iter().all(|(ip, _)| local.contains(ip)), "{local:?}");
    let mut found = inside.addresses(index).await.unwrap();
    found.sort_unstable_by_key(|it| it.ip);
    assert!(found.iter().all(|it| it.origin == Origin::Netloom), "{found:?}");
    assert_eq!(found.iter().map(|it| (it.ip, it.prefix_len)).collect::<Vec<_>>(), addresses);

    for gateway in [ip("10.0.0.254"), ip("10.0.0.1"), ip("10.0.0.1"), ip("2001:db8:f::1")] {
        inside.route_add_default(index, gateway, 100).await.unwrap();
    }
    let routes = inside.default_routes().await.unwrap();
    assert_eq!(
        routes.iter().map(|it| (it.gateway, it.metric, it.origin)).collect::<Vec<_>>(),
        [ip("10.0.0.1"), ip("2001:db8:f::1")].map(|ip| (ip, 100, Origin::Netloom))
    );
    for route in routes.iter().chain(&routes) {
        inside.route_remove_default(index, route.gateway, route.metric).await.unwrap();
    }
    assert_eq!(inside.default_routes().await.unwrap(), []);
    for (ip, prefix_len) in addresses.iter().chain(&addresses) {
        inside.address_remove(index, *ip, *prefix_len).await.unwrap();
    }
    assert_eq!(inside.addresses(index).await.unwrap(), []);
    let local = inside.local_addresses().await.unwrap();
    assert!(!addresses.iter().any(|(ip, _)| local.contains(ip)), "{local:?}");
}

#[tokio::test]
async fn the_narrowest_way_is_that_of_the_route_or_of_its_device() {
    if !root_or_skip() {
        return;
    }
    let (host, vm) = (Scratch::new("host").unwrap(), Scratch::new("vm").unwrap());
    let outside = host.netlink().await.unwrap();
    let made = outside.create_veth(&VethSpec { arp: Arp::On, ..veth(&vm) }).await.unwrap();
    let (own, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
    assert_eq!(outside.narrowest_way(own, [other]).await.unwrap(), None, "nobody has it");
    let loopback = ip("fd00::1");
    outside.address_add(1, loopback, 128).await.unwrap();
    outside.address_add(made.index, own, 24).await.unwrap();
    outside.set_up(made.index).await.unwrap();
    let (device, index) = ("host0".to_owned(), made.index);
    let way = |mtu_bytes| {
        let (device, is_ethernet, route_to) = (device.clone(), true, None);
        Some(Way { device, index, is_ethernet, mtu_bytes, route_to })
    };
    assert_eq!(outside.narrowest_way(own, [other]).await.unwrap(), way(1450));
    assert_eq!(outside.narrowest_way(own, []).await.unwrap(), way(1450));
    assert_eq!(outside.narrowest_way(own, [ip("203.0.113.1")]).await.unwrap(), way(1450));
    assert_eq!(outside.narrowest_way(loopback, []).await.unwrap(), None);
    let route = ["route", "add", "192.0.2.2/32", "dev", "host0", "mtu", "1400"];
    let run = || std::process::Command::new("ip").args(route).status().unwrap();
    assert!(host.run_in(run).unwrap().success());
    let others = [ip("192.0.2.3"), other];
    let narrow = Way { route_to: Some(other), ..way(1400).unwrap() };
    assert_eq!(outside.narrowest_way(own, others).await.unwrap(), Some(narrow));
}

#[tokio::test]
async fn a_link_gets_another_identity_and_news_say_which_link() {
    if !root_or_skip() {
        return;
    }
    let (host, other) = (Scratch::new("identity").unwrap(), Scratch::new("other").unwrap());
    let netlink = host.netlink().await.unwrap();
    let link = netlink.create_veth(&veth(&other)).await.unwrap();
    let mut news = LinkNews::of(&host).await.unwrap();
    let identity = Identity {
        name: "renamed",
        mac: [0xfe, 1, 2, 3, 4, 5],
        mtu_bytes: 1300,
        alias: Some("somebody"),
    };
    netlink.set_identity(link.index, &identity).await.unwrap();
    assert_eq!(news.next().await, Some(Some(link.index)));
    let found = netlink.existing("renamed").await.unwrap();
    let alias = found.alias.as_deref();
    assert_eq!((found.index, found.mac, found.mtu_bytes), (link.index, identity.mac, 1300));
    assert_eq!(alias, identity.alias);
    let bridge = netlink.create_bridge("taken").await.unwrap();
    let taken = Identity { name: "taken", ..identity };
    let error = netlink.set_identity(link.index, &taken).await.unwrap_err();
    assert!(error.is_exists(), "{error}");
    assert_eq!(netlink.existing("taken").await.unwrap(), bridge);
}
