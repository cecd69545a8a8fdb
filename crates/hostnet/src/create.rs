//! Making devices. A device that is there and right is left untouched; one that is there and
//! something else is an error, never replaced: only the caller knows whether it may go.

use std::os::fd::AsRawFd;

use rtnetlink::{
    packet_core::{NLM_F_CREATE, NLM_F_EXCL},
    packet_route::{
        RouteNetlinkMessage,
        link::{
            InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo as RawInfo,
            LinkMessage,
        },
    },
};

use crate::{Arp, Error, Kind, LinkInfo, Namespace, Netlink};

/// A virtual cable between two namespaces.
#[derive(Clone, Debug)]
pub struct VethSpec<'a> {
    /// The name of the end in this namespace.
    pub name: &'a str,
    /// The hardware address of the end in this namespace.
    pub mac: [u8; 6],
    /// Whether the host talks ARP on the end in this namespace.
    pub arp: Arp,
    /// The namespace of the other end.
    pub peer_namespace: &'a Namespace,
    /// The name of the other end.
    pub peer_name: &'a str,
    /// The hardware address of the other end.
    pub peer_mac: [u8; 6],
    /// The MTU of both ends, in bytes without the Ethernet header.
    pub mtu_bytes: u32,
}

/// The one VXLAN device of a host, whose VNI and VTEPs come from the data plane's programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VxlanSpec<'a> {
    /// The name of the device.
    pub name: &'a str,
    /// The UDP port, here and at the other VTEPs.
    pub port: u16,
    /// The MTU of the inner packets, in bytes; the largest of all networks.
    pub mtu_bytes: u32,
    /// Whether the Group Policy tag is sent (where a program asks for it) and understood. A device
    /// without it drops tagged frames.
    pub has_policy_tag: bool,
}

impl Netlink {
    /// Makes a veth with one end here and one in another namespace, both down, in one step and
    /// with their final names and addresses.
    ///
    /// A pair that is there with the same ends and addresses is returned as it is (also when it is
    /// up), only its MTU and ARP are corrected.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when a device of this name is another one; [`Error::is_exists`] when
    /// the other namespace has a device of the peer's name.
    pub async fn create_veth(&self, spec: &VethSpec<'_>) -> Result<LinkInfo, Error> {
        let Some(found) = self.link_by_name(spec.name).await? else {
            let action = format!(
                "create veth {} with its peer {} in namespace {}",
                spec.name,
                spec.peer_name,
                spec.peer_namespace.name()
            );
            self.create(action, veth_message(spec)).await?;
            return self.existing(spec.name).await;
        };
        self.check_kind(&found, &Kind::Veth)?;
        if found.mac != spec.mac {
            let (is, should) =
                (format!("MAC {}", mac(found.mac)), format!("MAC {}", mac(spec.mac)));
            return Err(self.mismatch(&found, is, should));
        }
        let inside = spec.peer_namespace.netlink().await?;
        let peer = self.veth_peer(&found, &inside).await?;
        let right = peer
            .as_ref()
            .is_some_and(|peer| peer.name == spec.peer_name && peer.mac == spec.peer_mac);
        let Some(peer) = peer.filter(|_| right) else {
            let wanted = format!(
                "a peer {} with MAC {} in namespace {}",
                spec.peer_name,
                mac(spec.peer_mac),
                spec.peer_namespace.name()
            );
            return Err(self.mismatch(&found, "another peer".to_owned(), wanted));
        };
        if peer.mtu_bytes != spec.mtu_bytes {
            inside.set_mtu(peer.index, spec.mtu_bytes).await?;
        }
        if found.is_noarp != (spec.arp == Arp::Off) {
            self.set_arp(found.index, spec.arp).await?;
        }
        let found = self.with_mtu(found, spec.mtu_bytes).await?;
        Ok(LinkInfo { is_noarp: spec.arp == Arp::Off, ..found })
    }

    /// The other end of `link`, if it is in the namespace of `inside`.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn veth_peer(
        &self,
        link: &LinkInfo,
        inside: &Netlink,
    ) -> Result<Option<LinkInfo>, Error> {
        let (Kind::Veth, Some(peer)) = (&link.kind, link.peer) else { return Ok(None) };
        // An index says nothing without its namespace: equal indexes are common.
        let is_there = match link.peer_namespace_id {
            Some(id) => self.namespace_id(inside.namespace()).await? == Some(id),
            None => self.namespace().is_same(inside.namespace())?,
        };
        if !is_there {
            return Ok(None);
        }
        let peer = inside.link_by_index(peer).await?;
        Ok(peer.filter(|peer| peer.kind == Kind::Veth && peer.peer == Some(link.index)))
    }

    /// Makes the VXLAN device of a host, down and without ARP. It learns nothing, sends UDP without
    /// checksums unless a packet's tunnel key asks for them, and accepts them missing over IPv6 too
    /// (RFC 6935 allows both for tunnels). Whether "don't fragment" is set is up to the tunnel key.
    ///
    /// A device that is right is returned as it is, only its MTU is corrected.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when a device of this name is another one.
    pub async fn create_vxlan_collect_md(&self, spec: &VxlanSpec<'_>) -> Result<LinkInfo, Error> {
        let wanted = Kind::Vxlan {
            is_collect_metadata: true,
            has_policy_tag: spec.has_policy_tag,
            port: spec.port,
        };
        if let Some(found) = self.link_by_name(spec.name).await? {
            self.check_kind(&found, &wanted)?;
            return self.with_mtu(found, spec.mtu_bytes).await;
        }
        let mut settings = vec![
            InfoVxlan::CollectMetadata(true),
            InfoVxlan::Learning(false),
            InfoVxlan::Port(spec.port),
            InfoVxlan::UDPCsum(false),
            InfoVxlan::UDPZeroCsumTX(true),
            InfoVxlan::UDPZeroCsumRX(true),
        ];
        if spec.has_policy_tag {
            settings.push(InfoVxlan::Gbp);
        }
        let mut message = device_message(spec.name, Some(spec.mtu_bytes));
        set_arp(&mut message, Arp::Off);
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            RawInfo::Kind(InfoKind::Vxlan),
            RawInfo::Data(InfoData::Vxlan(settings)),
        ]));
        self.create(format!("create vxlan {}", spec.name), message).await?;
        self.existing(spec.name).await
    }

    /// Removes a VXLAN device that is as the spec says but for its UDP port, which no device can be given later.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn remove_vxlan_of_other_port(&self, spec: &VxlanSpec<'_>) -> Result<(), Error> {
        let Some(found) = self.link_by_name(spec.name).await? else { return Ok(()) };
        match found.kind {
            Kind::Vxlan { is_collect_metadata: true, has_policy_tag, port }
                if has_policy_tag == spec.has_policy_tag && port != spec.port =>
            {
                self.delete_link(found.index).await
            }
            _ => Ok(()),
        }
    }

    /// Makes a bridge, down.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when a device of this name is no bridge.
    pub async fn create_bridge(&self, name: &str) -> Result<LinkInfo, Error> {
        if let Some(found) = self.link_by_name(name).await? {
            self.check_kind(&found, &Kind::Bridge)?;
            return Ok(found);
        }
        let mut message = device_message(name, None);
        message.attributes.push(LinkAttribute::LinkInfo(vec![RawInfo::Kind(InfoKind::Bridge)]));
        self.create(format!("create bridge {name}"), message).await?;
        self.existing(name).await
    }

    async fn create(&self, action: impl Into<String>, message: LinkMessage) -> Result<(), Error> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.change(action, RouteNetlinkMessage::NewLink(message), flags).await
    }

    async fn with_mtu(&self, mut link: LinkInfo, mtu_bytes: u32) -> Result<LinkInfo, Error> {
        if link.mtu_bytes != mtu_bytes {
            self.set_mtu(link.index, mtu_bytes).await?;
            link.mtu_bytes = mtu_bytes;
        }
        Ok(link)
    }

    fn check_kind(&self, found: &LinkInfo, wanted: &Kind) -> Result<(), Error> {
        if found.kind == *wanted {
            return Ok(());
        }
        Err(self.mismatch(found, found.kind.to_string(), wanted.to_string()))
    }

    fn mismatch(&self, link: &LinkInfo, found: String, wanted: String) -> Error {
        let namespace = self.namespace().name().to_owned();
        Error::Mismatch { namespace, device: link.name.clone(), found, wanted }
    }
}

fn device_message(name: &str, mtu_bytes: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.extend(mtu_bytes.map(LinkAttribute::Mtu));
    message
}

fn set_arp(message: &mut LinkMessage, arp: Arp) {
    message.header.flags.set(LinkFlags::Noarp, arp == Arp::Off);
    message.header.change_mask |= LinkFlags::Noarp;
}

fn veth_message(spec: &VethSpec<'_>) -> LinkMessage {
    let mut peer = device_message(spec.peer_name, Some(spec.mtu_bytes));
    peer.attributes.push(LinkAttribute::Address(spec.peer_mac.to_vec()));
    peer.attributes.push(LinkAttribute::NetNsFd(spec.peer_namespace.file.as_raw_fd()));
    let mut message = device_message(spec.name, Some(spec.mtu_bytes));
    set_arp(&mut message, spec.arp);
    message.attributes.push(LinkAttribute::Address(spec.mac.to_vec()));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        RawInfo::Kind(InfoKind::Veth),
        RawInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    message
}

fn mac([a, b, c, d, e, f]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
