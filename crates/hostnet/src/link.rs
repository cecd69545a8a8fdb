//! Reading links, and changing one property of one link.

use std::{
    fmt::{self, Display},
    os::fd::AsRawFd,
};

use nix::errno::Errno;
use rtnetlink::packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVxlan, LinkAttribute,
        LinkFlags, LinkInfo as RawInfo, LinkLayerType, LinkMessage, State,
    },
    nsid::{NsidAttribute, NsidMessage},
};

use crate::{Error, Namespace, Netlink};

/// A network device as the kernel describes it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LinkInfo {
    /// The number of the device in its namespace; never used again while the namespace lives,
    /// except after a wrap.
    pub index: u32,
    /// The name, 1 to 15 bytes.
    pub name: String,
    /// The hardware address; zero where the kind has none.
    pub mac: [u8; 6],
    /// The largest packet without its Ethernet header, in bytes.
    pub mtu_bytes: u32,
    /// Whether the device is administratively up. It may still have no carrier.
    pub is_up: bool,
    /// Whether packets pass: it is up, has a carrier, and the kernel has acted on both (RFC 2863's
    /// operational state). A device that has just got its carrier drops what it is to send.
    pub is_running: bool,
    /// Whether frames begin with an Ethernet header.
    pub is_ethernet: bool,
    /// Whether the operator has it hear frames for foreign addresses.
    pub is_promiscuous: bool,
    /// Whether the host neither asks nor answers ARP and neighbour solicitations on the device.
    pub is_noarp: bool,
    /// Whether the kernel makes no IPv6 link-local address on the device by itself.
    pub is_addr_gen_none: bool,
    /// What made the device.
    pub kind: Kind,
    /// Free text that stays with the device (IFLA_IFALIAS).
    pub alias: Option<String>,
    /// The index of the bridge or other device that owns this one.
    pub controller: Option<u32>,
    /// For a veth: the index of the other end, in the namespace `peer_namespace_id`.
    pub peer: Option<u32>,
    /// The number under which this namespace knows that of the other end; `None`: the same one.
    pub peer_namespace_id: Option<i32>,
}

/// What made a device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Kind {
    /// Real hardware, or the loopback.
    #[default]
    Hardware,
    /// One end of a virtual cable.
    Veth,
    /// A bridge of the kernel.
    Bridge,
    /// A VXLAN tunnel.
    Vxlan {
        /// Whether VNI and VTEP come with each packet, from a program, not from the device.
        is_collect_metadata: bool,
        /// Whether the Group Policy tag (draft-smith-vxlan-group-policy) is sent and understood.
        has_policy_tag: bool,
        /// The UDP port.
        port: u16,
    },
    /// Anything else, by the kernel's word for it.
    Other(String),
}

impl Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hardware => f.write_str("hardware"),
            Self::Veth => f.write_str("kind veth"),
            Self::Bridge => f.write_str("kind bridge"),
            Self::Vxlan { is_collect_metadata, has_policy_tag, port } => write!(
                f,
                "kind vxlan (port {port}, external {is_collect_metadata}, gbp {has_policy_tag})"
            ),
            Self::Other(kind) => write!(f, "kind {kind}"),
        }
    }
}

/// Whether the host asks and answers on a device who has an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arp {
    /// As on any link.
    On,
    /// The host drops ARP there unread, and sends none.
    Off,
}

/// Whether a device hears frames for foreign addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Promiscuity {
    /// All frames.
    On,
    /// Only its own and those for all.
    Off,
}

/// What a link is to be known by. Given in one message, which costs the kernel's lock once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity<'a> {
    /// The name, 1 to 15 bytes.
    pub name: &'a str,
    /// The hardware address.
    pub mac: [u8; 6],
    /// The MTU, in bytes without the Ethernet header.
    pub mtu_bytes: u32,
    /// The alias, at most 255 bytes; `None` leaves it as it is.
    pub alias: Option<&'a str>,
}

impl Netlink {
    /// All links of the namespace, in the kernel's order.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn links(&self) -> Result<Vec<LinkInfo>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let messages = self.dump("list the devices", request).await?;
        Ok(messages.iter().filter_map(parse).collect())
    }

    /// The link of that name, if there is one.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn link_by_name(&self, name: &str) -> Result<Option<LinkInfo>, Error> {
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.find(format!("look up device {name}"), request).await
    }

    /// The link of that index, if there is one.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<LinkInfo>, Error> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        self.find(format!("look up device {index}"), request).await
    }

    /// The other end of a veth, in whatever namespace it is.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn other_end(&self, link: &LinkInfo) -> Result<Option<LinkInfo>, Error> {
        let Some(index) = link.peer else { return Ok(None) };
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.attributes.extend(link.peer_namespace_id.map(LinkAttribute::IfNetnsId));
        self.find(format!("look up the other end of {}", link.name), request).await
    }

    /// The link of that name.
    ///
    /// # Errors
    /// [`Error::NoDevice`], or what the kernel says.
    pub async fn existing(&self, name: &str) -> Result<LinkInfo, Error> {
        self.link_by_name(name).await?.ok_or_else(|| Error::NoDevice {
            namespace: self.namespace().name().to_owned(),
            device: name.to_owned(),
        })
    }

    /// The number under which this namespace knows `other`, for [`LinkInfo::peer_namespace_id`].
    ///
    /// `None` as long as the kernel has given it none: no device here can have its peer there.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn namespace_id(&self, other: &Namespace) -> Result<Option<i32>, Error> {
        let mut request = NsidMessage::default();
        let fd = other.file.as_raw_fd().unsigned_abs();
        request.attributes.push(NsidAttribute::Fd(fd));
        let action = format!("look up the id of namespace {}", other.name());
        let reply = self.get(action, RouteNetlinkMessage::GetNsId(request)).await?;
        let Some(RouteNetlinkMessage::NewNsId(reply)) = reply else { return Ok(None) };
        Ok(reply.attributes.iter().find_map(|attribute| match attribute {
            NsidAttribute::Id(id) if *id >= 0 => Some(*id),
            _ => None,
        }))
    }

    /// Puts a link administratively up.
    ///
    /// # Errors
    /// What the kernel says; [`Error::is_not_found`] when there is no such link.
    pub async fn set_up(&self, index: u32) -> Result<(), Error> {
        let message = with_flag(index, LinkFlags::Up, LinkFlags::Up);
        self.set(format!("put device {index} up"), message).await
    }

    /// Puts a link administratively down.
    ///
    /// # Errors
    /// As [`Netlink::set_up`].
    pub async fn set_down(&self, index: u32) -> Result<(), Error> {
        let message = with_flag(index, LinkFlags::Up, LinkFlags::empty());
        self.set(format!("put device {index} down"), message).await
    }

    /// Makes a link hear all frames, or not. This is the operator's switch, not counted by user.
    ///
    /// # Errors
    /// As [`Netlink::set_up`].
    pub async fn set_promiscuity(&self, index: u32, wanted: Promiscuity) -> Result<(), Error> {
        let value = match wanted {
            Promiscuity::On => LinkFlags::Promisc,
            Promiscuity::Off => LinkFlags::empty(),
        };
        let message = with_flag(index, LinkFlags::Promisc, value);
        self.set(format!("make device {index} promiscuous: {wanted:?}"), message).await
    }

    /// Makes the host talk ARP on a link, or not.
    ///
    /// # Errors
    /// As [`Netlink::set_up`].
    pub async fn set_arp(&self, index: u32, wanted: Arp) -> Result<(), Error> {
        let value = match wanted {
            Arp::On => LinkFlags::empty(),
            Arp::Off => LinkFlags::Noarp,
        };
        let message = with_flag(index, LinkFlags::Noarp, value);
        self.set(format!("set ARP on device {index}: {wanted:?}"), message).await
    }

    /// Gives a link its MTU, in bytes without the Ethernet header.
    ///
    /// # Errors
    /// As [`Netlink::set_up`]; the kernel names no limits, see `ip -d link`.
    pub async fn set_mtu(&self, index: u32, mtu_bytes: u32) -> Result<(), Error> {
        let action = format!("set the MTU of device {index} to {mtu_bytes}");
        self.set(action, with_attribute(index, LinkAttribute::Mtu(mtu_bytes))).await
    }

    /// Makes a link a port of the bridge `controller`; 0 takes it out of its bridge.
    ///
    /// # Errors
    /// As [`Netlink::set_up`].
    pub async fn set_controller(&self, index: u32, controller: u32) -> Result<(), Error> {
        let action = format!("put device {index} under device {controller}");
        self.set(action, with_attribute(index, LinkAttribute::Controller(controller))).await
    }

    /// Gives a link its alias, at most 255 bytes.
    ///
    /// # Errors
    /// As [`Netlink::set_up`].
    pub async fn set_alias(&self, index: u32, alias: &str) -> Result<(), Error> {
        let action = format!("set the alias of device {index} to {alias}");
        self.set(action, with_attribute(index, LinkAttribute::IfAlias(alias.to_owned()))).await
    }

    /// Gives a link another name, also while it is up (Linux 6.2).
    ///
    /// # Errors
    /// As [`Netlink::set_up`]; [`Error::is_exists`] when another link has the name.
    pub async fn set_name(&self, index: u32, name: &str) -> Result<(), Error> {
        let action = format!("name device {index} {name}");
        self.set(action, with_attribute(index, LinkAttribute::IfName(name.to_owned()))).await
    }

    /// Gives a link that is down another identity.
    ///
    /// # Errors
    /// As [`Netlink::set_up`]; [`Error::is_exists`] when another link has the name. The link may
    /// have the address and the MTU then.
    pub async fn set_identity(&self, index: u32, identity: &Identity<'_>) -> Result<(), Error> {
        let mut message = with_attribute(index, LinkAttribute::IfName(identity.name.to_owned()));
        message.attributes.push(LinkAttribute::Address(identity.mac.to_vec()));
        message.attributes.push(LinkAttribute::Mtu(identity.mtu_bytes));
        let alias = identity.alias.map(|alias| LinkAttribute::IfAlias(alias.to_owned()));
        message.attributes.extend(alias);
        self.set(format!("make device {index} {}", identity.name), message).await
    }

    /// Keeps the kernel from making an IPv6 link-local address when the link goes up.
    ///
    /// # Errors
    /// As [`Netlink::set_up`]. A link without IPv6 is success: it makes no address either.
    pub async fn set_addr_gen_mode_none(&self, index: u32) -> Result<(), Error> {
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = with_attribute(index, LinkAttribute::AfSpecUnspec(vec![mode]));
        let action = format!("turn off IPv6 link-local addresses of device {index}");
        match self.set(action, message).await {
            Err(Error::Kernel { source, .. }) if is_without_ipv6(&source) => Ok(()),
            done => done,
        }
    }

    /// Deletes a link; for a veth both ends go. No such link is success.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn delete_link(&self, index: u32) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let action = format!("delete device {index}");
        match self.change(action, RouteNetlinkMessage::DelLink(message), 0).await {
            Err(error) if error.is_not_found() => Ok(()),
            done => done,
        }
    }

    async fn find(
        &self,
        action: impl Into<String>,
        request: LinkMessage,
    ) -> Result<Option<LinkInfo>, Error> {
        match self.get(action, RouteNetlinkMessage::GetLink(request)).await {
            Ok(reply) => Ok(reply.as_ref().and_then(parse)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn set(&self, action: impl Into<String>, message: LinkMessage) -> Result<(), Error> {
        self.change(action, RouteNetlinkMessage::SetLink(message), 0).await
    }
}

fn is_without_ipv6(source: &std::io::Error) -> bool {
    let errno = source.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EOPNOTSUPP | Errno::EINVAL))
}

fn with_attribute(index: u32, attribute: LinkAttribute) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes.push(attribute);
    message
}

fn with_flag(index: u32, mask: LinkFlags, value: LinkFlags) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = value;
    message.header.change_mask = mask;
    message
}

fn parse(message: &RouteNetlinkMessage) -> Option<LinkInfo> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let mut link = LinkInfo {
        index: message.header.index,
        is_up: flags.contains(LinkFlags::Up),
        is_ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        is_promiscuous: flags.contains(LinkFlags::Promisc),
        is_noarp: flags.contains(LinkFlags::Noarp),
        ..LinkInfo::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => {
                link.mac = mac.as_slice().try_into().unwrap_or_default();
            }
            LinkAttribute::OperState(state) => link.is_running = *state == State::Up,
            LinkAttribute::Mtu(mtu_bytes) => link.mtu_bytes = *mtu_bytes,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkNetNsId(id) => link.peer_namespace_id = Some(*id),
            LinkAttribute::LinkInfo(info) => link.kind = parse_kind(info),
            LinkAttribute::AfSpecUnspec(families) => {
                link.is_addr_gen_none = families.iter().any(is_addr_gen_none);
            }
            _ => {}
        }
    }
    Some(link)
}

fn is_addr_gen_none(family: &AfSpecUnspec) -> bool {
    let AfSpecUnspec::Inet6(settings) = family else { return false };
    settings.contains(&AfSpecInet6::AddrGenMode(In6AddrGenMode::None))
}

fn parse_kind(info: &[RawInfo]) -> Kind {
    let kind = info.iter().find_map(|part| match part {
        RawInfo::Kind(kind) => Some(kind),
        _ => None,
    });
    match kind {
        None => Kind::Hardware,
        Some(InfoKind::Veth) => Kind::Veth,
        Some(InfoKind::Bridge) => Kind::Bridge,
        Some(InfoKind::Vxlan) => parse_vxlan(info),
        Some(other) => Kind::Other(other.to_string()),
    }
}

fn parse_vxlan(info: &[RawInfo]) -> Kind {
    let settings = info.iter().find_map(|part| match part {
        RawInfo::Data(InfoData::Vxlan(settings)) => Some(settings.as_slice()),
        _ => None,
    });
    let settings = settings.unwrap_or_default();
    let port = settings.iter().find_map(|setting| match setting {
        InfoVxlan::Port(port) => Some(*port),
        _ => None,
    });
    Kind::Vxlan {
        is_collect_metadata: settings.contains(&InfoVxlan::CollectMetadata(true)),
        has_policy_tag: settings.contains(&InfoVxlan::Gbp),
        port: port.unwrap_or_default(),
    }
}
