//! Tests of the objects: what is refused, and what agents of other releases can hold.

use super::*;

#[test]
fn table_numbers_are_those_that_agents_know() {
    let numbers = Table::ALL.iter().map(|table| (table.name(), table.number()));
    let expected = [
        ("network", 1),
        ("peer", 2),
        ("instance", 3),
        ("port", 4),
        ("subnet", 5),
        ("about", 6),
        ("security_group", 7),
        ("member", 8),
        ("timeouts", 9),
    ];
    assert_eq!(numbers.collect::<Vec<_>>(), expected);
    assert_eq!(Table::from_number(10), None);
}

#[test]
fn values_out_of_range_are_refused_and_named() {
    let network = |attachment| {
        let network = Network { uuid: Uuid::nil(), number: 1, attachment };
        Object::decode(Table::Network, &Object::Network(network).encode())
    };
    let local_vtep = IpAddr::from([192, 0, 2, 1]);
    let wrong = network(Attachment::Tunnel(Tunnel {
        vni: 1 << 24,
        local_vtep,
        foreign: Vec::new(),
        is_gre: false,
        port: None,
    }));
    assert_eq!(wrong, Err(ParseError::Range { field: "Tunnel.vni", value: 1 << 24 }));
    let uplink = |vlan| Attachment::Uplink(Uplink { interface: "eth1".to_owned(), vlan });
    let wrong = network(uplink(Some(4095)));
    assert_eq!(wrong, Err(ParseError::Range { field: "Uplink.vlan", value: 4095 }));
    for right in [None, Some(1), Some(4094)] {
        network(uplink(right)).unwrap();
    }
}

#[test]
fn a_port_is_plugged_into_an_instance_or_a_device() {
    let check = |instance: Option<Uuid>, device: Option<&str>| {
        let port = Port {
            uuid: Uuid::from_u128(1),
            number: 1,
            network: Uuid::from_u128(2),
            instance,
            device_id: 0,
            mac: [2; 6],
            addresses: Vec::new(),
            mtu_bytes: 1450,
            prefixes: Vec::new(),
            device: device.map(str::to_owned),
            goes: None,
            comes: None,
            handover: None,
            told: None,
            policy: None,
            flow_log: None,
        };
        let read = Port::decode(&port.encode());
        read.map(|read| assert_eq!(read, port)).map(|()| port.version_needed())
    };
    let instance = Some(Uuid::from_u128(3));
    assert_eq!(check(instance, None), Ok(1), "as earlier releases have it");
    assert_eq!(check(None, Some("vnet0")), Ok(3), "they cannot hold it");
    assert_eq!(check(None, None), Err(ParseError::Missing("Port.instance")));
    let both = ParseError::Both("Port.instance", "Port.device");
    assert_eq!(check(instance, Some("vnet0")), Err(both));
    for (name, bytes) in [("", 0), ("sixteen-bytes-it", 16)] {
        let wrong = ParseError::Length { field: "Port.device", bytes };
        assert_eq!(check(None, Some(name)), Err(wrong));
    }
}

#[test]
fn a_machine_is_what_a_qemu_runs_and_earlier_releases_cannot_hold_it() {
    let check = |driver, machine: Option<Machine>| {
        let (uuid, name) = (Uuid::from_u128(1), "vm".to_owned());
        let (goes, comes) = (None, None);
        let instance = Instance { uuid, name, driver, generation: 0, machine, goes, comes };
        let read = Instance::decode(&instance.encode());
        read.map(|read| assert_eq!(read, instance)).map(|()| instance.version_needed())
    };
    let (image, format) = ("debian.qcow2".to_owned(), ImageFormat::Qcow2);
    let machine = Machine { cpus: 2, memory_mib: 512, image, format, is_paused: true };
    assert_eq!(check(Driver::Netns, None), Ok(1), "as earlier releases have it");
    assert_eq!(check(Driver::Qemu, Some(machine.clone())), Ok(5), "they cannot hold it");
    check(Driver::Qemu, None).unwrap_err();
    check(Driver::Netns, Some(machine)).unwrap_err();
}

#[test]
fn a_port_moves_one_way_and_older_agents_cannot_hold_it() {
    let moving = |number| Moving { number, vtep: [192, 0, 2, 9].into() };
    let check = |goes: Option<Moving>, comes: Option<Moving>| {
        let port = Port {
            uuid: Uuid::from_u128(1),
            number: 1,
            network: Uuid::from_u128(2),
            instance: None,
            device_id: 0,
            mac: [2; 6],
            addresses: Vec::new(),
            mtu_bytes: 1450,
            prefixes: Vec::new(),
            device: Some("vnet0".to_owned()),
            goes,
            comes,
            handover: None,
            told: None,
            policy: None,
            flow_log: None,
        };
        let read = Port::decode(&port.encode());
        read.map(|read| assert_eq!(read, port)).map(|()| port.version_needed())
    };
    assert_eq!(check(None, None), Ok(3));
    assert_eq!(check(Some(moving(1)), None), Ok(4));
    assert_eq!(check(None, Some(moving(1))), Ok(4));
    let both = ParseError::Both("Port.goes", "Port.comes");
    assert_eq!(check(Some(moving(1)), Some(moving(1))), Err(both));
    let none = ParseError::Range { field: "Moving.number", value: 0 };
    assert_eq!(check(Some(moving(0)), None), Err(none));
}

#[test]
fn a_machine_moves_one_way_and_what_moves_with_others_help_needs_a_newer_agent() {
    let handover = |number| {
        let (host, address) = (Uuid::from_u128(9), [192, 0, 2, 9].into());
        Some(Handover { number, host, address })
    };
    let check = |goes, comes| {
        let (image, format) = ("guest".to_owned(), ImageFormat::Kernel);
        let machine = Machine { cpus: 1, memory_mib: 64, image, format, is_paused: false };
        let (uuid, name, driver) = (Uuid::from_u128(1), "vm".to_owned(), Driver::Qemu);
        let machine = Some(machine);
        let instance = Instance { uuid, name, driver, generation: 0, machine, goes, comes };
        let read = Instance::decode(&instance.encode());
        read.map(|read| assert_eq!(read, instance)).map(|()| instance.version_needed())
    };
    assert_eq!(check(None, None), Ok(5));
    assert_eq!(check(handover(1), None), Ok(6));
    assert_eq!(check(None, handover(1)), Ok(6));
    let both = ParseError::Both("Instance.goes", "Instance.comes");
    assert_eq!(check(handover(1), handover(1)), Err(both));
    let none = ParseError::Range { field: "Handover.number", value: 0 };
    assert_eq!(check(handover(0), None), Err(none));
}

#[test]
fn a_prefix_that_is_not_its_lowest_address_is_refused() {
    let check = |ip: &str, bits| {
        let prefix = Prefix { ip: ip.parse().unwrap(), bits };
        Prefix::decode(&prefix.encode()).map(|read| assert_eq!(read, prefix))
    };
    for (ip, bits) in [("0.0.0.0", 0), ("10.0.0.0", 8), ("10.0.0.1", 32), ("::", 0)] {
        check(ip, bits).unwrap();
    }
    check("fd00::1", 128).unwrap();
    for (ip, bits) in [("10.0.0.1", 24), ("10.0.0.0", 33), ("fd00::1", 127), ("::ffff:0:0", 96)] {
        let value = u32::from(bits);
        assert_eq!(check(ip, bits), Err(ParseError::Range { field: "Prefix.bits", value }));
    }
    check("::", 129).unwrap_err();
}

#[test]
fn a_wrong_length_names_its_field() {
    let mut bytes = Vec::new();
    prost::encoding::bytes::encode(1, &vec![1_u8; 15], &mut bytes);
    let expected = ParseError::Length { field: "Network.uuid", bytes: 15 };
    assert_eq!(Object::decode(Table::Network, &bytes), Err(expected));
    assert_eq!(Object::decode(Table::Network, &[]), Err(ParseError::Missing("Network.uuid")));
}
