//! DHCP in a network whose agent answers it, and where nobody does.

use super::Vector;
use super::frame::{Ip, udp};
use super::world::{A, A_NUMBER, B, NOW, from_a};
use crate::{Budget, DropReason, HANDED_PER_WINDOW, Mac, Net, Verdict};

pub(super) fn vectors() -> Vec<Vector> {
    use DropReason as Why;
    let request =
        |source: &str, mac| Ip::new(source, "255.255.255.255", 17, udp(68, 67)).frame(mac, A.mac);
    let answered = |name, frame| {
        from_a(name, frame).with(|memory| {
            memory.nets.insert(1, Net::closed().with_dhcp());
        })
    };
    let handed =
        |vector: Vector| vector.sent(A_NUMBER).verdict(Verdict::HandOff { port: A_NUMBER });
    let window = u32::try_from(NOW >> 30 & 0xffff_ffff).expect("32 bits");
    // A is the port at place 1.
    let used = |vector: Vector, window, used| {
        vector.with(|memory| {
            memory.budgets.insert(1, Budget { window, used });
        })
    };
    let mut fragment = Ip::new("0.0.0.0", "255.255.255.255", 17, udp(68, 67));
    fragment.fragment = 0x2000;
    let first = || request("0.0.0.0", Mac::BROADCAST);
    vec![
        handed(answered("a dhcp request is for the agent", first())),
        handed(answered("a lease is renewed with the agent", request(A.v4, Mac::BROADCAST))),
        handed(answered("a lease is renewed with the agent, by unicast", request(A.v4, B.mac))),
        answered("a dhcp request from another's address", request(B.v4, Mac::BROADCAST))
            .dropped(A_NUMBER, Why::SpoofedAddress),
        answered("a dhcp request in fragments", fragment.frame(Mac::BROADCAST, A.mac))
            .dropped(A_NUMBER, Why::Dhcp),
        from_a("a renewal where nobody answers dhcp", request(A.v4, Mac::BROADCAST))
            .sent(A_NUMBER)
            .verdict(Verdict::Flood { net: 1, sender: A_NUMBER }),
        handed(used(
            answered("the last dhcp request of a second", first()),
            window,
            HANDED_PER_WINDOW - 1,
        )),
        used(answered("a dhcp request too many", first()), window, HANDED_PER_WINDOW)
            .dropped(A_NUMBER, Why::HandOffRate),
        handed(used(
            answered("a dhcp request a second later", first()),
            window - 1,
            HANDED_PER_WINDOW,
        )),
    ]
}
