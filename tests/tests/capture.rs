//! What a NIC sends and receives is written down, with why frames were dropped; and an operator
//! finds the same reasons counted at the server. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    fs::File,
    net::Ipv4Addr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    frames::{Wire, arp, ethernet, udp},
    root_or_skip,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pcap_file::pcapng::{
    PcapNgReader,
    blocks::{Block, enhanced_packet::EnhancedPacketOption, opt_common::CommonOption},
};

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const PORT: u16 = 5001;
const RED_1: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const RED_2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 12);
/// Nobody has it.
const OTHER: [u8; 6] = [0xfa, 0x4c, 9, 9, 9, 9];

/// A frame of a file: the device's number, its bytes, and the verdict.
type Captured = (u32, Vec<u8>, Option<String>);

/// What the file has up to its last whole block.
fn read(path: &Path) -> Vec<Captured> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let Ok(mut reader) = PcapNgReader::new(file) else { return Vec::new() };
    let mut found = Vec::new();
    while let Some(Ok((block, _))) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block else { continue };
        let verdict = packet.options.iter().find_map(|option| match option {
            EnhancedPacketOption::Common(CommonOption::Comment(text)) => Some(text.to_string()),
            _ => None,
        });
        found.push((packet.interface_id, packet.data.to_vec(), verdict));
    }
    found
}

fn capture(lab: &TestLab, node: &str, rest: &[&str]) -> Child {
    let mut command = Command::new(&lab.options.binary);
    command.args(["lab", "capture", node, "--name", lab.name(), "--state-root"]);
    command.arg(lab.root()).args(rest).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn end(mut child: Child) -> ExitStatus {
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    child.wait().unwrap()
}

fn has(frame: &[u8], marker: &[u8]) -> bool {
    frame.windows(marker.len()).any(|window| window == marker)
}

#[test]
fn a_captured_nic_shows_what_passed_and_why_the_rest_was_dropped() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let [red_1, red_2] = ["red-1", "red-2"].map(|vm| Wire::open(&lab.namespace(vm)));
    let path = lab.root().join("red.pcapng");
    let child = capture(&lab, "red-1", &["-w", path.to_str().unwrap()]);
    let sends = |marker: &[u8]| udp(RED_1, RED_2, PORT, marker);
    let sent = |marker: &[u8]| read(&path).into_iter().find(|(_, frame, _)| has(frame, marker));
    // Until it listens, nothing is written down.
    assert!(wait::holds(LIMIT, || {
        red_1.send(&ethernet(red_2.mac, red_1.mac, IPV4, &sends(b"honest")));
        sent(b"honest").is_some()
    }));
    red_1.send(&ethernet(red_2.mac, OTHER, IPV4, &sends(b"forged-mac")));
    let lie = arp(1, OTHER, RED_1, RED_2);
    red_1.send(&ethernet([0xff; 6], red_1.mac, ARP, &lie));
    red_2.send(&ethernet(red_1.mac, red_2.mac, IPV4, &udp(RED_2, RED_1, PORT, b"answer")));
    let markers = [&b"honest"[..], b"forged-mac", &lie, b"answer"];
    assert!(wait::holds(LIMIT, || markers.iter().all(|marker| sent(marker).is_some())));
    assert!(end(child).success(), "an interrupted capture is a whole one");
    let verdict = |marker: &[u8]| {
        let (device, frame, verdict) = sent(marker).unwrap();
        (device, frame.len() > marker.len(), verdict)
    };
    assert_eq!(verdict(b"honest"), (0, true, None));
    assert_eq!(verdict(b"answer"), (1, true, None), "received inside the VM");
    let why = |text: &str| Some(format!("dropped (sent by a port): {text}"));
    let mac = why("spoofed_mac: The source MAC is not the port's.");
    assert_eq!(verdict(b"forged-mac"), (0, true, mac));
    let inside = why("spoofed_arp_mac: The sender MAC inside an ARP packet is not the port's.");
    assert_eq!(verdict(&lie), (0, true, inside));

    // As text, until so many: and once one has ended, the next may listen.
    let child = capture(&lab, "red-1", &["--text", "--count", "1"]);
    let mut child = Some(child);
    assert!(wait::holds(LIMIT, || {
        red_1.send(&ethernet(red_2.mac, OTHER, IPV4, &sends(b"forged-mac")));
        child.as_mut().unwrap().try_wait().unwrap().is_some()
    }));
    let output = child.take().unwrap().wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");

    // The server has the same reason, in the same words.
    let client = lab.client();
    let counted = || {
        let hosts = client.query("/hosts", &["name=h1".to_owned()]).unwrap();
        let drops = hosts[0]["drops"].as_array().unwrap().clone();
        drops.into_iter().find(|drop| drop["reason"] == "spoofed_mac")
    };
    assert!(wait::holds(LIMIT, || counted().is_some()));
    let drop = counted().unwrap();
    assert_eq!(drop["meaning"], "The source MAC is not the port's.");
    assert!(drop["packets"].as_u64().unwrap() > 0);
    let hosts = client.query("/hosts", &["name=h1".to_owned()]).unwrap();
    let (digests, maps) = (&hosts[0]["digests"], hosts[0]["maps"].as_array().unwrap());
    assert_eq!(digests["agree"], true, "{digests}");
    let ports = maps.iter().find(|map| map["map"] == "ports").unwrap();
    assert_eq!(ports["entries"], 2, "red-1 and blue-1");
}

#[test]
fn of_two_captures_on_a_host_the_second_is_refused_and_a_host_is_captured_as_well() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let [red_1, red_2] = ["red-1", "red-2"].map(|vm| Wire::open(&lab.namespace(vm)));
    let path = lab.root().join("h1.pcapng");
    let child = capture(&lab, "h1", &["-w", path.to_str().unwrap()]);
    let forged = ethernet(red_2.mac, OTHER, IPV4, &udp(RED_1, RED_2, PORT, b"forged-mac"));
    let told = || read(&path).into_iter().find(|(_, frame, _)| frame.starts_with(&forged[..20]));
    assert!(wait::holds(LIMIT, || {
        red_1.send(&forged);
        told().is_some()
    }));
    let (_, _, verdict) = told().unwrap();
    assert!(verdict.unwrap().contains("spoofed_mac"));
    // What goes through the tunnel is heard on the underlay's device.
    let passed = ethernet(red_2.mac, red_1.mac, IPV4, &udp(RED_1, RED_2, PORT, b"outside"));
    assert!(wait::holds(LIMIT, || {
        red_1.send(&passed);
        read(&path).iter().any(|(_, frame, _)| has(frame, b"outside"))
    }));
    let second = capture(&lab, "red-1", &["--seconds", "1"]).wait_with_output().unwrap();
    let text = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && text.contains("one at a time"), "{text}");
    assert!(end(child).success());
    let mut third = capture(&lab, "blue-1", &["--seconds", "1"]);
    assert!(wait::holds(Duration::from_secs(30), || third.try_wait().unwrap().is_some()));
    let nic = capture(&lab, "red-1", &["--nic", "3"]).wait_with_output().unwrap();
    let text = String::from_utf8(nic.stderr).unwrap();
    assert!(!nic.status.success() && text.contains("has no NIC 3"), "{text}");
}
