//! Who is heard about what.

use std::sync::Arc;

use wire::{
    holding::Holding,
    object::{Driver, ImageFormat, Machine, Moving},
    shared::Shared as Held,
};

use super::*;

const FROM: u128 = 1;
const OTHER: u128 = 2;
const VM: u128 = 10;
const NIC: u128 = 11;
const ALONE: u128 = 12;

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn handover(number: u32) -> Option<Handover> {
    Some(Handover { number, host: uuid(FROM), address: [192, 0, 2, 1].into() })
}

fn port(of: u128, instance: Option<u128>, number: u32) -> Port {
    Port {
        uuid: uuid(of),
        number: 7,
        network: uuid(20),
        instance: instance.map(uuid),
        device_id: 0,
        mac: [2; 6],
        addresses: Vec::new(),
        mtu_bytes: 1450,
        prefixes: Vec::new(),
        device: instance.is_none().then(|| "vnet0".to_owned()),
        goes: None,
        comes: Some(Moving { number, vtep: [192, 0, 2, 1].into() }),
        handover: handover(number),
        told: None,
        policy: None,
        flow_log: None,
    }
}

/// A machine that comes by move 3 with its NIC, and a NIC that comes by move 5.
fn desired() -> Desired {
    let (image, format) = ("guest".to_owned(), ImageFormat::Kernel);
    let machine = Some(Machine { cpus: 1, memory_mib: 128, image, format, is_paused: false });
    let instance = Instance {
        uuid: uuid(VM),
        name: "vm".to_owned(),
        driver: Driver::Qemu,
        generation: 0,
        machine,
        goes: None,
        comes: handover(3),
    };
    let objects = [
        Object::Instance(instance),
        Object::Port(port(NIC, Some(VM), 4)),
        Object::Port(port(ALONE, None, 5)),
    ];
    let holding: Holding = objects.into_iter().map(Held::from).collect();
    Desired { revision: 1, lineage: None, holding: Arc::new(holding) }
}

fn hello(what: What, of: u128, number: u32) -> Hello {
    let (version, processor, slots) = (VERSION, String::new(), Default::default());
    Hello { version, what, uuid: uuid(of), number, processor, slots }
}

#[test]
fn a_host_is_heard_about_what_comes_from_it_and_about_nothing_else() {
    let desired = desired();
    let admit = |host: u128, hello: &Hello| admit(Some(&desired), uuid(host), hello);
    let machine = admit(FROM, &hello(What::Machine, VM, 3)).unwrap();
    let Admitted::Machine(instance, ports) = machine else { panic!("{machine:?}") };
    assert_eq!((instance.uuid, ports.len(), ports[0].uuid), (uuid(VM), 1, uuid(NIC)));
    admit(FROM, &hello(What::Question, VM, 3)).unwrap();
    let alone = admit(FROM, &hello(What::Port, ALONE, 5)).unwrap();
    assert!(matches!(alone, Admitted::Port(port) if port.uuid == uuid(ALONE)));
    for (host, hello) in [
        (OTHER, hello(What::Machine, VM, 3)),
        (OTHER, hello(What::Port, ALONE, 5)),
        (FROM, hello(What::Machine, VM, 4)),
        (FROM, hello(What::Port, ALONE, 4)),
        // A NIC of a machine comes with it.
        (FROM, hello(What::Port, NIC, 4)),
        (FROM, hello(What::Machine, ALONE, 5)),
        (FROM, hello(What::Port, VM, 3)),
        (FROM, hello(What::Machine, 99, 3)),
    ] {
        let refused = admit(host, &hello).unwrap_err();
        assert!(refused.may_be_later, "{host} {hello:?}");
    }
    let later = Hello { version: VERSION + 1, ..hello(What::Machine, VM, 3) };
    assert!(!admit(FROM, &later).unwrap_err().may_be_later, "it will not speak another one soon");
    assert!(super::admit(None, uuid(FROM), &hello(What::Machine, VM, 3)).is_err());
}
