//! Cases about what a rule matches: protocols, ports, ICMP, addresses, groups, lists.

use crate::{
    cases::{Case, Said, case, inward, outward},
    describe::{A, A1, A2, B, B1, B2, C1, C2, What},
};

pub(crate) fn all() -> Vec<Case> {
    [without_rules(), ports(), protocols(), addresses(), lists()].concat()
}

fn without_rules() -> Vec<Case> {
    vec![
        case("nobody is in a group"),
        case("nobody is in a group and NICs are closed").closed(),
        case("nobody is in a group and NICs are open again"),
        case("one NIC is in an empty group").member(&[B1], &[A]),
        case("two NICs on one host are in an empty group").member(&[A1, B1], &[A]),
        case("two NICs on two hosts are in an empty group").member(&[A1, B2], &[A]),
        case("all NICs are in one empty group").member(&[A1, B1, C1, A2, B2, C2], &[A]),
        case("two empty groups").member(&[A1, A2], &[A]).member(&[B1, B2], &[B]),
        case("one NIC is in both of two empty groups")
            .member(&[A1, A2], &[A])
            .member(&[B1, B2], &[B])
            .member(&[C1], &[A, B]),
        case("an empty group beside closed NICs").member(&[A1, A2], &[A]).closed(),
        case("an empty group without default rules").member(&[A1, B1, A2], &[A]).bare(&[A]),
    ]
}

/// Lists of ports, and ports to try.
const PORTS: [(&str, &[u16]); 14] = [
    ("80", &[79, 80, 81]),
    ("0-65535", &[0, 1, 65535]),
    ("0-79", &[0, 79, 80]),
    ("0", &[0, 1]),
    ("1", &[0, 1, 2]),
    ("1-79", &[0, 1, 79]),
    ("81-65535", &[80, 82, 65535]),
    ("65535", &[65534, 65535]),
    ("80-81", &[79, 82]),
    ("22,80", &[22, 23]),
    ("22-25,81,8000-8080", &[21, 22, 25, 26, 7999, 8000, 8080, 8081]),
    ("79,81", &[79, 80]),
    ("1,3,5,7,9,11,13,15,17,80", &[1, 2, 17, 18]),
    ("80-255", &[255, 256]),
];

fn ports() -> Vec<Case> {
    let mut cases = Vec::new();
    let base = |name: String| case(name).member(&[B1, B2], &[A]);
    for (list, tried) in PORTS {
        let tcp: Vec<What> = tried.iter().map(|port| What::Tcp(*port)).collect();
        let udp: Vec<What> = tried.iter().map(|port| What::Udp(*port)).collect();
        let name = |what| format!("{what} ports {list}");
        cases.push(base(name("TCP")).rules(A, &[&inward().tcp(list)]).also(&tcp));
        cases.push(base(name("UDP")).rules(A, &[&inward().udp(list)]).also(&udp));
        let open = [&inward().tcp(list).drop()[..], &inward()];
        cases.push(base(name("all but TCP")).rules(A, &open).also(&tcp));
        let egress = outward().udp(list).drop();
        cases.push(
            case(name("from a member, all but UDP"))
                .member(&[B1], &[A])
                .rules(A, &[&egress])
                .also(&udp),
        );
    }
    cases
}

fn protocols() -> Vec<Case> {
    let base = |name: &str| case(name).member(&[B1, B2], &[A]);
    let numbers = [47, 50, 132, 4, 255].map(What::Other);
    let mut cases = vec![
        base("all protocols").rules(A, &[&inward()]).also(&numbers),
        base("all protocols of IPv4").rules(A, &[&inward().v4()]).also(&numbers),
        base("all protocols of IPv6").rules(A, &[&inward().v6()]).also(&numbers),
        base("TCP of IPv4").rules(A, &[&inward().tcp("80").v4()]),
        base("TCP of IPv6").rules(A, &[&inward().tcp("80").v6()]),
        base("UDP of IPv4").rules(A, &[&inward().udp("80").v4()]),
        base("UDP of IPv6").rules(A, &[&inward().udp("80").v6()]),
    ];
    for number in [47, 50, 132, 4, 255, 2] {
        let tried = [What::Other(number), What::Other(if number == 50 { 51 } else { 50 })];
        let name = format!("protocol {number}");
        cases.push(base(&name).rules(A, &[&inward().protocol(number)]).also(&tried));
        let rules = [&inward().protocol(number).drop()[..], &inward()];
        cases.push(base(&format!("all but {name}")).rules(A, &rules).also(&tried));
    }
    let echo = [8, 128];
    let tried = [What::Echo(1), What::Echo(255)];
    for (name, rules) in [
        ("ICMP", inward().icmp()),
        ("ICMP of IPv4", inward().icmp().v4()),
        ("ICMP of IPv6", inward().icmp().v6()),
        ("echo requests", inward().kind(echo, None)),
        ("echo requests of code 0", inward().kind(echo, Some(0))),
        ("echo requests of code 1", inward().kind(echo, Some(1))),
        ("echo requests of code 255", inward().kind(echo, Some(255))),
        ("timestamps, which are no echo requests", inward().kind([13, 129], None)),
        ("types before echo requests", inward().kind([7, 127], None)),
        ("types behind echo requests", inward().kind([9, 130], Some(0))),
    ] {
        cases.push(base(name).rules(A, &[&rules]).also(&tried));
        let rules = [&rules.drop()[..], &inward()];
        cases.push(base(&format!("all but {name}")).rules(A, &rules).also(&tried));
    }
    cases
}

/// Lists of addresses, in IPv4 and in IPv6. The instances have .21 to .26, and ::21 to ::26.
const ADDRESSES: [(&str, [&str; 2]); 20] = [
    ("one address", ["10.6.0.21", "fd06::21"]),
    ("one address as a network", ["10.6.0.21/32", "fd06::21/128"]),
    ("one address on the other host", ["10.6.0.24", "fd06::24"]),
    ("a network of two", ["10.6.0.22/31", "fd06::22/127"]),
    ("a network of four", ["10.6.0.20/30", "fd06::20/126"]),
    ("a network of sixteen", ["10.6.0.16/28", "fd06::20/124"]),
    ("the whole subnet", ["10.6.0.0/24", "fd06::/64"]),
    ("a network around the subnet", ["10.0.0.0/8", "fd00::/8"]),
    ("half of all", ["0.0.0.0/1", "8000::/1"]),
    ("the other half of all", ["128.0.0.0/1", "::/1"]),
    ("all addresses", ["0.0.0.0/0", "::/0"]),
    ("a network beside", ["10.7.0.0/24", "fd07::/64"]),
    ("first to last", ["10.6.0.22-10.6.0.25", "fd06::22-fd06::25"]),
    ("one to itself", ["10.6.0.22-10.6.0.22", "fd06::22-fd06::22"]),
    ("all the way down", ["0.0.0.0-10.6.0.23", "::-fd06::23"]),
    (
        "all the way up",
        ["10.6.0.24-255.255.255.255", "fd06::24-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
    ),
    ("two addresses", ["10.6.0.21,10.6.0.26", "fd06::21,fd06::26"]),
    (
        "an address, a network and a range",
        ["10.6.0.21,10.6.0.24/31,10.6.0.26-10.6.0.40", "fd06::21,fd06::24/127,fd06::26-fd06::40"],
    ),
    ("the first address of a network", ["10.6.0.24/29", "fd06::24/126"]),
    ("the last address of a network", ["10.6.0.24/30", "fd06::26/127"]),
];

fn addresses() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, at) in ADDRESSES {
        let base = |way: &str| case(format!("{way} {name}")).member(&[B1, B2], &[A]);
        cases.push(base("from").rules(A, &[&inward().at(at)]));
        cases.push(base("TCP from").rules(A, &[&inward().tcp("80").at(at)]));
        cases.push(base("not from").rules(A, &[&inward().at(at).drop(), &inward()]));
        cases.push(base("not to").rules(A, &[&outward().at(at).drop()]));
    }
    cases
}

/// A rule about an address group, while that changes.
fn lists() -> Vec<Case> {
    let base = case("an address group of nobody")
        .member(&[B1, B2], &[A])
        .rules(A, &[&inward().tcp("80").in_list()]);
    let none: [&str; 0] = [];
    vec![
        base.clone(),
        base.then("an address group of one").listed(&["10.6.0.21", "fd06::21"]),
        base.then("an address group of one in IPv4").listed(&["10.6.0.21"]),
        base.then("an address group of one in IPv6").listed(&["fd06::21"]),
        base.then("an address group of networks").listed(&["10.6.0.24/30", "fd06::24/126"]),
        base.then("an address group of ranges")
            .listed(&["10.6.0.21-10.6.0.23", "fd06::24-fd06::25"]),
        base.then("an address group of many").listed(&[
            "10.6.0.21",
            "10.6.0.23",
            "10.6.0.25",
            "10.6.1.0/24",
            "10.6.2.0/24",
            "10.6.3.0/24",
            "10.6.4.0/24",
            "10.6.5.0/24",
            "10.6.6.0/24",
            "10.6.7.0/24",
            "10.6.8.0/24",
            "10.6.9.0/24",
            "fd06::22",
            "fd06::24",
            "fd06::26",
        ]),
        base.then("an address group of all").listed(&["0.0.0.0/0", "::/0"]),
        base.then("an address group of nobody again").listed(&none),
        base.then("all but an address group")
            .rules(A, &[&inward().in_list().drop(), &inward()])
            .listed(&["10.6.0.21", "fd06::24"]),
        base.then("all but an address group of nobody")
            .rules(A, &[&inward().in_list().drop(), &inward()]),
        base.then("to all but an address group")
            .rules(A, &[&outward().in_list().drop()])
            .listed(&["10.6.0.21", "fd06::24"]),
        base.then("an address group in two rules")
            .rules(A, &[&inward().tcp("80").in_list(), &inward().udp("81").in_list()])
            .listed(&["10.6.0.21", "fd06::24"]),
    ]
}
