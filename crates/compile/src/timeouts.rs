//! How long a host remembers connections that are idle, where administrators have set it.

use model::{
    Id,
    resource::host::Host,
    setting::{
        ICMP, OPENING, OTHER, Setting, TCP_CLOSED, TCP_CLOSING, TCP_ESTABLISHED, TCP_OPENING,
        UDP_ESTABLISHED,
    },
};
use wire::object::{Object, Timeouts};

use crate::settings::{self, Value};

/// What a host holds; `None`: all is as the data plane has it by itself.
pub(crate) fn timeouts(host: Id<Host>, globals: &[Value]) -> Option<Object> {
    let seconds = |setting: &Setting| {
        let value = settings::value(setting, [].iter(), globals);
        u32::try_from(setting.number(value)).unwrap_or(u32::MAX)
    };
    let all = |seconds: &dyn Fn(&Setting) -> u32| Timeouts {
        uuid: host.uuid(),
        tcp_opening: seconds(&TCP_OPENING),
        tcp_established: seconds(&TCP_ESTABLISHED),
        tcp_closing: seconds(&TCP_CLOSING),
        tcp_closed: seconds(&TCP_CLOSED),
        opening: seconds(&OPENING),
        udp_established: seconds(&UDP_ESTABLISHED),
        icmp: seconds(&ICMP),
        other: seconds(&OTHER),
    };
    let default = |setting: &Setting| u32::try_from(setting.number(None)).unwrap_or(u32::MAX);
    let told = all(&seconds);
    (told != all(&default)).then_some(Object::Timeouts(told))
}
