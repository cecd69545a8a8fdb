//! Networks in GRE: all that networks in VXLAN carry, and who may send into them. Needs root.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::Duration,
};

use hostnet::Namespace;
use lab::wait;
use netloom_tests::{
    LIMIT, TestLab,
    frames::{Wire, ethernet, gre, has_got, listener, udp},
    guest::{Guest, ip},
    networks::{gre_pool, l3},
    rest::Rest,
    root_or_skip,
    traffic::{Ping, ping},
};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use serde_json::{Value, json};

const HOSTS: [&str; 2] = ["h1", "h2"];
/// The hosts' VTEPs.
const VTEPS: [Ipv4Addr; 2] = [Ipv4Addr::new(172, 31, 255, 11), Ipv4Addr::new(172, 31, 255, 12)];
const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 31, 255, 66);
const IPV4: u16 = 0x0800;
const PORT: u16 = 5001;
/// What the underlay of 1,500 bytes leaves.
const MTU: usize = 1_458;
/// Bytes that a connection carries.
const BYTES: usize = 8 << 20;
/// How long something that must not arrive is waited for.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A network in GRE with one VM on `h1` and others on `h2` and `h1`, in this order.
struct World {
    vms: [Namespace; 3],
    addresses: [[IpAddr; 2]; 3],
    key: u32,
    rest: Rest,
}

impl World {
    fn new(lab: &TestLab) -> Self {
        let rest = lab.rest();
        let pool = gre_pool(&rest);
        let l2 = rest.made("/l2-networks/gre", &json!({"name": "grey", "poolUuid": pool}));
        let shown = rest.named("/l2-networks", "grey");
        assert_eq!(shown["type"], "GreNetwork", "{shown}");
        let key = u32::try_from(shown["vni"].as_u64().unwrap()).unwrap();
        let l3 = l3(&rest, "grey", &l2, 6);
        let addresses: [[IpAddr; 2]; 3] = [11, 12, 13]
            .map(|last| [format!("10.6.0.{last}"), format!("fd06::{last}")])
            .map(|pair| pair.map(|text| text.parse().unwrap()));
        let hosts = [("grey-1", "h1"), ("grey-2", "h2"), ("grey-3", "h1")];
        let vms = [0, 1, 2].map(|at| {
            let (name, host) = hosts[at];
            let made = rest.create_vm(name, (&l3, host), &addresses[at]);
            assert_eq!(made.status, 200, "{made:?}");
            assert_eq!(made.body["inventory"]["vmNics"][0]["mtu"], MTU, "{made:?}");
            lab.namespace(name)
        });
        lab.settle(&HOSTS);
        Self { vms, addresses, key, rest }
    }
}

#[test]
fn a_network_in_gre_carries_all_that_one_in_vxlan_does() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let world = World::new(&lab);
    let [one, two, three] = &world.vms;
    let before = HOSTS.map(|host| through_device(&lab.namespace(host)));
    let wire = Wire::open(&lab.namespace("h2"));
    for (from, to, at) in [(one, two, 1), (two, one, 0), (one, three, 2)] {
        // IP and ICMP headers take 28 bytes, in IPv6 48.
        for (ip, header) in world.addresses[at].into_iter().zip([28, 48]) {
            for bytes in [0, 700, MTU - header] {
                assert_eq!(ping(from, ip, bytes), Ping::Answered, "{bytes} bytes to {ip}");
            }
            assert_eq!(ping(from, ip, MTU - header + 1), Ping::TooBig, "{ip}");
            exchange(from, to, ip);
            converse(from, to, ip, MTU - header);
        }
    }
    assert!(std::iter::from_fn(|| wire.take()).any(|frame| is_gre(&frame, world.key)));
    // Without segments that are gathered: each packet by itself.
    for vm in [one, two] {
        ip(vm, "link set eth0 gso_max_segs 1");
    }
    for ip in world.addresses[1] {
        exchange(one, two, ip);
    }
    for group in ["10.6.0.255", "255.255.255.255", "224.0.0.77"] {
        assert!(reaches_all(one, &[two, three], group), "{group}");
        assert!(reaches_all(two, &[one, three], group), "{group}");
    }
    let after = HOSTS.map(|host| through_device(&lab.namespace(host)));
    assert_eq!(before, after, "no frame of the network passed a device of VXLAN");
    // The tenants in VXLAN go on beside it.
    lab.check();
}

#[test]
fn who_is_no_vtep_of_the_network_does_not_get_in_and_others_gre_is_the_hosts() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let world = World::new(&lab);
    let [one, two, _] = &world.vms;
    let [IpAddr::V4(source), IpAddr::V4(target)] = [world.addresses[0][0], world.addresses[1][0]]
    else {
        panic!("IPv4 first")
    };
    assert_eq!(ping(one, target.into(), 56), Ping::Answered);
    let macs = [one, two].map(|vm| Wire::open(vm).mac);
    let inner = |text: &[u8]| ethernet(macs[1], macs[0], IPV4, &udp(source, target, PORT, text));
    let inbox = listener(two, target, PORT);
    let host = lab.namespace("h2");
    let stack = host.run_in(stack).unwrap();
    let (guest, fabric) = (Guest::new(), lab.namespace("fabric"));
    let name = guest.namespace.name();
    ip(&fabric, &format!("link add gw0 mtu 1600 type veth peer name eth0 mtu 1600 netns {name}"));
    ip(&fabric, "link set gw0 master br0 up");
    guest.ip("link set eth0 up");
    let (stranger, to) = (Wire::open(&guest.namespace), Wire::open(&host).mac);
    let send = |from, start, key, text: &[u8]| {
        let packet = gre((from, VTEPS[1]), start, key, &inner(text));
        stranger.send(&ethernet(to, stranger.mac, IPV4, &packet));
    };
    let key = world.key;
    // As its peer would send it: only the underlay can keep that out, as with VXLAN.
    send(VTEPS[0], 0x2000, key, b"as a peer");
    assert!(wait::holds(LIMIT, || has_got(&inbox)), "the packets are right");
    let foreign: [(Ipv4Addr, u16, u32, &[u8]); 7] = [
        (STRANGER, 0x2000, key, b"stranger"),
        (VTEPS[0], 0x2000, key + 1, b"other key"),
        (VTEPS[0], 0x2000, key | 1 << 24, b"long key"),
        (VTEPS[0], 0x3000, key, b"sequence"),
        (VTEPS[0], 0xa000, key, b"checksum"),
        (VTEPS[0], 0x2001, key, b"version"),
        (VTEPS[0], 0x0000, key, b"no key"),
    ];
    for (from, start, key, text) in foreign {
        send(from, start, key, text);
        assert!(wait::holds(LIMIT, || hears(&stack, text)), "{start:x} {key}: the host's own");
        assert!(!has_got(&inbox), "{start:x} {key} from {from}");
    }
    // In VXLAN, with the same number.
    let vxlan = [&[8, 0, 0, 0][..], &(key << 8).to_be_bytes(), &inner(b"in vxlan")].concat();
    let packet = udp(VTEPS[0], VTEPS[1], 8472, &vxlan);
    let before = drops(&lab, "h2", "unknown_vtep");
    stranger.send(&ethernet(to, stranger.mac, IPV4, &packet));
    assert!(wait::holds(LIMIT, || drops(&lab, "h2", "unknown_vtep") > before));
    assert!(!has_got(&inbox), "GRE is not VXLAN");
    assert!(!wait::holds(PATIENCE, || has_got(&inbox)));
    assert!(!hears(&stack, b"as a peer"), "what is ours is not the host's");
}

/// GRE has no device, so it does not go where the host's policies hold; and the host says so.
#[test]
fn where_frames_must_pass_the_tunnel_device_nothing_leaves_in_gre_and_the_host_says_why() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let world = World::new(&lab);
    let (peer, told) = (world.addresses[1][0], || world.rest.named("/hosts", "h1"));
    assert_eq!(told()["notInEffect"], Value::Null);
    lab.ip("h1", "xfrm policy add src 198.51.100.0/24 dst 203.0.113.0/24 dir out");
    let says = |of: &Value| {
        let text = of["notInEffect"].as_str().unwrap_or_default();
        text.contains("GRE cannot pass the tunnel device") && text.contains("ip xfrm policy")
    };
    assert!(wait::holds(LIMIT, || says(&told())), "{}", told());
    let nic = || world.rest.named("/vm-instances", "grey-1")["vmNics"][0].clone();
    assert!(wait::holds(LIMIT, || says(&nic())), "{}", nic());
    let wire = Wire::open(&lab.namespace("h2"));
    assert_eq!(ping(&world.vms[0], peer, 56), Ping::Lost);
    assert!(!std::iter::from_fn(|| wire.take()).any(|frame| is_gre(&frame, world.key)));
    assert!(drops(&lab, "h1", "gre_forbidden") > 0);
    assert_eq!(ping(&world.vms[0], world.addresses[2][0], 56), Ping::Answered, "on this host");
    // VXLAN goes on, through its device.
    lab.check();
    lab.ip("h1", "xfrm policy delete src 198.51.100.0/24 dst 203.0.113.0/24 dir out");
    assert!(wait::holds(LIMIT, || told()["notInEffect"] == Value::Null), "{}", told());
    lab.settle(&HOSTS);
    assert_eq!(ping(&world.vms[0], peer, 56), Ping::Answered);
}

#[test]
fn an_underlay_that_is_too_small_for_gre_is_told() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let world = World::new(&lab);
    lab.ip("h2", "link set eth0 mtu 1499");
    let told = || world.rest.named("/hosts", "h2")["notInEffect"].to_string();
    let says = || told().contains("eth0 has an MTU of 1499") && told().contains("to 1500");
    assert!(wait::holds(LIMIT, says), "{}", told());
}

/// Agents come and go; what is in GRE goes on.
#[test]
fn gre_goes_on_without_agents_and_after_their_return() {
    if !root_or_skip() {
        return;
    }
    let lab = TestLab::up();
    let world = World::new(&lab);
    let peer = world.addresses[1][0];
    lab.kill(&["h1", "h2", "server"]);
    assert_eq!(ping(&world.vms[0], peer, 56), Ping::Answered);
    exchange(&world.vms[0], &world.vms[1], peer);
    lab.start(&["server", "h1", "h2"]);
    lab.settle(&HOSTS);
    exchange(&world.vms[0], &world.vms[1], peer);
}

/// Hears the IPv4 packets that reach the host's stack: what a program has taken before does not.
fn stack() -> OwnedFd {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthIp).unwrap()
}

/// Whether a packet with this text has reached the stack.
fn hears(stack: &OwnedFd, text: &[u8]) -> bool {
    let mut buffer = [0; 2048];
    while let Ok(length) = recv(stack.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
        if buffer[..length].windows(text.len()).any(|window| window == text) {
            return true;
        }
    }
    false
}

fn is_gre(frame: &[u8], key: u32) -> bool {
    let start = [&[0x20, 0, 0x65, 0x58], &key.to_be_bytes()[..]].concat();
    frame.len() > 56 && frame[12..14] == [8, 0] && frame[23] == 47 && frame[34..42] == start
}

fn drops(lab: &TestLab, host: &str, reason: &str) -> u64 {
    netloom_tests::machine::drops(&lab.data(host)).get(reason).copied().unwrap_or_default()
}

/// Packets that the tunnel device of a host has received and sent.
fn through_device(host: &Namespace) -> [u64; 2] {
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
    let text = host.run_in(read).unwrap().unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("nlvx:")).unwrap();
    let fields: Vec<_> = line.split_whitespace().collect();
    [1, 9].map(|field| fields[field].parse().unwrap())
}

/// Carries bytes over one connection, and back; what comes is what was sent.
fn exchange(from: &Namespace, to: &Namespace, ip: IpAddr) {
    let server = to.run_in(|| TcpListener::bind((ip, 0))).unwrap().unwrap();
    let address = server.local_addr().unwrap();
    let echo = thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        stream.set_read_timeout(Some(ANSWER)).unwrap();
        let mut bytes = vec![0; BYTES];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let mut stream = from.run_in(|| TcpStream::connect_timeout(&address, ANSWER)).unwrap().unwrap();
    stream.set_read_timeout(Some(ANSWER)).unwrap();
    stream.set_write_timeout(Some(ANSWER)).unwrap();
    let bytes: Vec<u8> = (0..BYTES).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect();
    stream.write_all(&bytes).unwrap();
    let mut back = vec![0; BYTES];
    stream.read_exact(&mut back).unwrap();
    assert!(back == bytes, "the bytes come back as they were sent");
    echo.join().unwrap();
}

/// Sends datagrams of several sizes, each answered by the same.
fn converse(from: &Namespace, to: &Namespace, ip: IpAddr, largest: usize) {
    let server = to.run_in(|| UdpSocket::bind((ip, 0))).unwrap().unwrap();
    let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = from.run_in(|| UdpSocket::bind(any)).unwrap().unwrap();
    client.connect(server.local_addr().unwrap()).unwrap();
    server.set_read_timeout(Some(ANSWER)).unwrap();
    client.set_read_timeout(Some(ANSWER)).unwrap();
    let mut buffer = vec![0; 9_000];
    // The last ones leave in fragments.
    for size in [1, 700, largest, 3_000, 8_000] {
        let request: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        client.send(&request).unwrap();
        let (length, peer) = server.recv_from(&mut buffer).unwrap();
        server.send_to(&buffer[..length], peer).unwrap();
        let length = client.recv(&mut buffer).unwrap();
        assert!(buffer[..length] == request, "{size} bytes to {ip}");
    }
}

/// Whether a datagram to all, or to a group, of one reaches the others.
fn reaches_all(from: &Namespace, to: &[&Namespace], group: &str) -> bool {
    let listens = |namespace: &&Namespace| {
        let socket = namespace.run_in(|| UdpSocket::bind("0.0.0.0:9999").unwrap()).unwrap();
        if group.parse::<Ipv4Addr>().unwrap().is_multicast() {
            let join = || socket.join_multicast_v4(&group.parse().unwrap(), &Ipv4Addr::UNSPECIFIED);
            ip(namespace, &format!("route replace {group}/32 dev eth0"));
            namespace.run_in(join).unwrap().unwrap();
        }
        socket.set_read_timeout(Some(ANSWER)).unwrap();
        socket
    };
    let sockets: Vec<UdpSocket> = to.iter().map(listens).collect();
    ip(from, &format!("route replace {group}/32 dev eth0"));
    let sender = from.run_in(|| UdpSocket::bind("0.0.0.0:0")).unwrap().unwrap();
    sender.set_broadcast(true).unwrap();
    sender.send_to(group.as_bytes(), (group, 9999)).unwrap();
    ip(from, &format!("route delete {group}/32 dev eth0"));
    sockets.iter().all(|socket| {
        let mut buffer = [0; 32];
        let got = socket.recv_from(&mut buffer);
        got.is_ok_and(|(length, _)| &buffer[..length] == group.as_bytes())
    })
}
