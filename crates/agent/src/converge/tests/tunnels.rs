//! What goes past the tunnel device, and what cannot.

use wire::object::{Attachment, Object};

use super::{settle, *};
use crate::{memory::Memory, sample};

/// The same with all networks in GRE.
fn in_gre(mut desired: Holding) -> Holding {
    let objects: Vec<_> = desired.objects().values().cloned().collect();
    for object in objects {
        let Object::Network(network) = &*object else { continue };
        let mut network = network.clone();
        let Attachment::Tunnel(tunnel) = &mut network.attachment else { continue };
        tunnel.is_gre = true;
        desired.upsert(Object::Network(network));
    }
    desired
}

#[tokio::test]
async fn where_gre_cannot_pass_its_ports_fail_and_the_host_says_why() {
    let (memory, desired) = (Memory::default(), in_gre(sample::two_networks()));
    let mut converger = Converger::new(memory.clone());
    let outcome = settle(&mut converger, &desired).await;
    assert!(outcome.is_clean(), "{outcome:?}");
    assert_eq!(outcome.kernel, desired.kernel_digest(), "keys are no VNIs, for both ends");
    assert_ne!(outcome.kernel, sample::two_networks().kernel_digest());
    assert_eq!(memory.state().receives_directly.gre, [2].into());
    memory.state().passes_tunnel = Some("of policies; take them away".to_owned());
    converger.doubt();
    let outcome = settle(&mut converger, &desired).await;
    for port in [sample::PORT_A, sample::PORT_B] {
        let reason = &outcome.failed[&sample::uuid(port)];
        assert!(reason.contains("GRE") && reason.contains("take them away"), "{reason}");
    }
    assert!(outcome.trouble.concat().contains("of policies"), "{outcome:?}");
    memory.state().passes_tunnel = None;
    converger.doubt();
    assert!(settle(&mut converger, &desired).await.is_clean());
}

#[tokio::test]
async fn where_the_way_is_no_ethernet_gre_fails_and_vxlan_does_not() {
    let memory = Memory::default();
    memory.state().is_no_ethernet = true;
    let vxlan = sample::two_networks();
    assert!(settle(&mut Converger::new(memory.clone()), &vxlan).await.is_clean());
    let desired = in_gre(vxlan);
    let outcome = settle(&mut Converger::new(memory.clone()), &desired).await;
    let reason = &outcome.failed[&sample::uuid(sample::PORT_A)];
    assert!(reason.contains("eth0") && reason.contains("no Ethernet"), "{reason}");
}

#[tokio::test]
async fn the_tunnel_device_gets_the_port_that_networks_name() {
    let (memory, mut desired) = (Memory::default(), sample::two_networks());
    let mut converger = Converger::new(memory.clone());
    settle(&mut converger, &desired).await;
    assert_eq!(memory.state().receives_directly.port, 8472);
    let objects: Vec<_> = desired.objects().values().cloned().collect();
    for object in objects {
        let Object::Network(network) = &*object else { continue };
        let mut network = network.clone();
        let Attachment::Tunnel(tunnel) = &mut network.attachment else { continue };
        tunnel.port = Some(4789);
        desired.upsert(Object::Network(network));
    }
    let writes = memory.state().writes;
    settle(&mut converger, &desired).await;
    assert_eq!(memory.state().receives_directly.port, 4789);
    assert_eq!(memory.state().port, 4789);
    assert_eq!(memory.state().writes, writes + 1, "the device is made anew, and nothing else");
}
