//! VM NIC: a port of an L2 network. It exists on its own, with or without a VM, bound or not.

use std::net::IpAddr;

use derive::{Message, Resource};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    host::Host,
    l2_network::L2Network,
    l3_network::L3Network,
    nic_binding, nic_looks, nic_plug, nic_settings,
    used_ip::UsedIp,
    vm_instance::{InstanceDriver, VmInstance},
    zone::EnableState,
};
use crate::{
    Claim, FieldDef, Id, Kind, Mac, Message, MessageDef, Plain, Record, Resource,
    shown::{Child, Derived, Shown, View},
    status::HostStatus,
};

/// A port of an L2 network, with its addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/vm-instances/nics", children, derived, claims, home, messages)]
pub struct VmNic {
    /// Its id.
    pub uuid: Id<VmNic>,
    /// The instance it is plugged into.
    #[field(on_delete = "cascade", part)]
    pub vm_instance_uuid: Option<Id<VmInstance>>,
    /// The L3 network of its first address.
    #[field(on_delete = "cascade")]
    pub l3_network_uuid: Id<L3Network>,
    /// Its L2 network.
    #[field(hidden, on_delete = "cascade")]
    pub l2_network_uuid: Id<L2Network>,
    /// The host it is on: where its instance runs, or that whose device it is.
    #[field(on_delete = "detach")]
    pub host_uuid: Option<Id<Host>>,
    /// The device that it was plugged into last; it is while it has a host and no instance.
    #[field(hidden)]
    pub plugged_device: Option<String>,
    /// The host of that device.
    #[field(hidden, on_delete = "keep")]
    pub plugged_host_uuid: Option<Id<Host>>,
    /// The host that it moves to: its pending binding, if it has one.
    #[serde(default)]
    #[field(on_delete = "detach")]
    pub pending_host_uuid: Option<Id<Host>>,
    /// The device there, which waits for its first frame.
    #[serde(default)]
    #[field(hidden)]
    pub pending_device: Option<String>,
    /// The number of the move that is under way, or was last: each has its own.
    #[serde(default)]
    #[field(hidden)]
    pub move_number: u32,
    /// The management addresses of the host that it moves from and of that which it moves to, as the
    /// move began: their agents hand its connections over.
    #[serde(default)]
    #[field(hidden)]
    pub move_ips: Vec<IpAddr>,
    /// The host that it was moved away from last, which may not have let go yet.
    #[serde(default)]
    #[field(hidden, on_delete = "keep")]
    pub left_host_uuid: Option<Id<Host>>,
    /// Its number in the data plane; never reused.
    #[field(hidden)]
    pub number: u32,
    /// Its MAC.
    #[field(index)]
    pub mac: Mac,
    /// Its first address, which decides `ip`, `netmask` and `gateway` in the API.
    #[field(on_delete = "detach")]
    pub used_ip_uuid: Option<Id<UsedIp>>,
    /// The addresses that somebody chose for it: it gets them again when its instance is recovered.
    #[field(hidden)]
    pub static_ips: Vec<IpAddr>,
    /// Further L3 networks, on the same L2 network, of which it has an address.
    #[field(hidden, on_delete = "detach")]
    pub more_l3_network_uuids: Vec<Id<L3Network>>,
    /// The hostname of its instance, which nobody else has on its L3 network.
    #[field(hidden)]
    pub hostname: Option<String>,
    /// MTU in bytes.
    pub mtu: u32,
    /// Position in the instance: 0 is `eth0`.
    pub device_id: u32,
    /// Whether it passes traffic.
    pub state: EnableState,
    /// What its instance routes for: it may send from any address in these prefixes, too.
    pub allowed_prefixes: Vec<IpNet>,
}

impl VmNic {
    const MESSAGES: &'static [&'static MessageDef] = &{
        let [
            attach,
            detach,
            attach_nic,
            plug,
            unplug,
            change,
            attach_to_nic,
            attachable,
            candidates,
        ] = nic_plug::MESSAGES;
        let [bind, unbind, activate] = nic_binding::MESSAGES;
        let [state, driver, mac, set_ip, delete_ip, prefixes, told] = nic_settings::MESSAGES;
        let [trace, drops, rules] = nic_looks::MESSAGES;
        [
            &CreateVmNic::DEF,
            &DeleteVmNic::DEF,
            attach,
            detach,
            attach_nic,
            plug,
            unplug,
            bind,
            unbind,
            activate,
            change,
            attach_to_nic,
            attachable,
            candidates,
            state,
            driver,
            mac,
            set_ip,
            delete_ip,
            prefixes,
            told,
            trace,
            drops,
            rules,
        ]
    };

    /// Whether it has addresses of an L3 network, or will have once its instance is recovered.
    #[must_use]
    pub fn is_on(&self, l3: Id<L3Network>) -> bool {
        self.l3_network_uuid == l3 || self.more_l3_network_uuids.contains(&l3)
    }

    /// The host and its device that it is plugged into, if it is without an instance.
    #[must_use]
    pub fn plugged(&self) -> Option<(Id<Host>, &str)> {
        match self.vm_instance_uuid {
            None => Some((self.host_uuid?, self.plugged_device.as_deref()?)),
            Some(_) => None,
        }
    }

    /// The host and its device that it moves to, if it does: its pending binding.
    #[must_use]
    pub fn pending(&self) -> Option<(Id<Host>, &str)> {
        match self.vm_instance_uuid {
            None if self.pending_host_uuid != self.host_uuid => {
                Some((self.pending_host_uuid?, self.pending_device.as_deref()?))
            }
            _ => None,
        }
    }

    /// The host that it moves to, if it does: by itself, or with its instance.
    #[must_use]
    pub fn moves_to(&self) -> Option<Id<Host>> {
        match self.vm_instance_uuid {
            None => Some(self.pending()?.0),
            Some(_) if self.host_uuid.is_some() && self.pending_host_uuid != self.host_uuid => {
                self.pending_host_uuid
            }
            Some(_) => None,
        }
    }

    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        let name = |hostname: &String| {
            Claim::Hostname(self.l3_network_uuid, hostname.to_ascii_lowercase())
        };
        let mac = Claim::Mac(self.l2_network_uuid, self.mac);
        let l2 = self.l2_network_uuid;
        let prefix = |net: &IpNet| match net.prefix_len() == net.max_prefix_len() {
            true => Claim::Sharer(l2, net.addr(), self.uuid),
            false => Claim::Prefix(l2, net.addr(), net.prefix_len()),
        };
        let prefixes = self.allowed_prefixes.iter().map(prefix);
        let bindings = self.plugged().into_iter().chain(self.pending());
        let plugged = bindings.flat_map(|(host, device)| {
            [Claim::Plugged(host, self.uuid), Claim::Device(host, device.to_owned())]
        });
        self.hostname.iter().map(name).chain([mac]).chain(prefixes).chain(plugged).collect()
    }

    const CHILDREN: &'static [Child] = &[
        Child {
            name: "usedIps",
            kind: Kind::UsedIp,
            by: "usedBy",
            order: Some("ipVersion"),
            shown: Shown::Whole,
            only: &[],
        },
        Child {
            name: "dhcpOptions",
            kind: Kind::DhcpOption,
            by: "resourceUuid",
            order: Some("code"),
            shown: Shown::Fields,
            only: &[],
        },
        Child::unseen("eip", Kind::Eip, "vmNicUuid"),
        Child::unseen("portForwarding", Kind::PortForwardingRule, "vmNicUuid"),
    ];

    const DERIVED: &'static [Derived] = &[
        Derived {
            field: FieldDef::of::<Option<IpAddr>>("ip", "Its first address."),
            read: |nic, view| first(nic, view, |used| Plain::Ip(used.ip)),
            found_by: &["usedIps.ip"],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<IpAddr>>("netmask", "The mask of that one's subnet."),
            read: |nic, view| first(nic, view, |used| used.netmask.map_or(Plain::Null, Plain::Ip)),
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<IpAddr>>("gateway", "The gateway of that one's subnet."),
            read: |nic, view| first(nic, view, |used| Plain::Ip(used.gateway)),
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<u8>>("ipVersion", "4 or 6: that one's family."),
            read: |nic, view| first(nic, view, |used| Plain::Integer(used.ip_version.into())),
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<String>>(
                "device",
                "The device of its host that it is plugged into, if something else made that.",
            ),
            read: |nic, _| {
                let plugged = VmNic::of(nic).and_then(VmNic::plugged);
                plugged.map_or(Plain::Null, |(_, device)| Plain::Text(device.to_owned().into()))
            },
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<String>>(
                "pendingDevice",
                "The device of `pendingHostUuid` that waits for its first frame.",
            ),
            read: |nic, _| {
                let pending = VmNic::of(nic).and_then(VmNic::pending);
                pending.map_or(Plain::Null, |(_, device)| Plain::Text(device.to_owned().into()))
            },
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<String>(
                "driverType",
                "What it is: `external` while plugged into a device that something else made, `virtio` \
                 in an instance of driver `qemu`, else `veth`.",
            ),
            read: |nic, view| {
                let nic = VmNic::of(nic);
                let instance = nic.and_then(|nic| nic.vm_instance_uuid).and_then(|instance| {
                    let record = view.get(Kind::VmInstance, instance.uuid())?;
                    VmInstance::of(&record).map(|instance| instance.driver)
                });
                match (nic.and_then(VmNic::plugged), instance) {
                    (Some(_), _) => Plain::word("external"),
                    (None, Some(InstanceDriver::Qemu)) => Plain::word("virtio"),
                    (None, _) => Plain::word("veth"),
                }
            },
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<u32>>(
                "connections",
                "Connections that it has, as its host has counted last: every ten seconds or less often.",
            ),
            read: |nic, view| {
                let count = |status: &HostStatus| status.connections.get(&nic.uuid()).copied();
                on_host(nic, view, count).map_or(Plain::Null, |count| Plain::Integer(count.into()))
            },
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Option<u32>>(
                "connectionsSure",
                "Connections that it is sure to get: so many that it opens, and as many that others open.",
            ),
            read: |nic, view| {
                let sure = |status: &HostStatus| {
                    status.connections.contains_key(&nic.uuid()).then_some(status.connections_sure)
                };
                on_host(nic, view, sure).map_or(Plain::Null, |sure| Plain::Integer(sure.into()))
            },
            found_by: &[],
            only: &[],
        },
        Derived {
            read: |nic, view| {
                let homes = VmNic::of(nic).map(|nic| [nic.host_uuid, nic.pending_host_uuid]);
                let why = |host| view.board().status(host).not_in_effect(host, nic.uuid());
                let reason = homes.into_iter().flatten().flatten().find_map(why);
                reason.map_or(Plain::Null, |reason| Plain::Text(reason.into()))
            },
            ..Derived::NOT_IN_EFFECT
        },
    ];
}

/// What its host says of a NIC.
fn on_host<T>(
    record: &Record,
    view: &dyn View,
    of: impl FnOnce(&HostStatus) -> Option<T>,
) -> Option<T> {
    of(view.board().status(VmNic::of(record)?.host_uuid?))
}

/// Something about a NIC's first address.
fn first(
    record: &Record,
    view: &dyn View,
    of: impl FnOnce(&UsedIp) -> Plain<'static>,
) -> Plain<'static> {
    let used = VmNic::of(record).and_then(|nic| nic.used_ip_uuid);
    let used = used.and_then(|used| view.get(Kind::UsedIp, used.uuid()));
    used.as_deref().and_then(UsedIp::of).map_or(Plain::Null, of)
}

/// Makes a NIC that is plugged in nowhere yet.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/nics", creates = "VmNic")]
pub struct CreateVmNic {
    /// The L3 network of its addresses.
    pub l3_network_uuid: Id<L3Network>,
    /// The wanted address; a free one if absent.
    pub ip: Option<IpAddr>,
}

/// Deletes a NIC that is plugged in nowhere.
#[derive(Debug, Deserialize, Message)]
#[message(delete = "/nics/{uuid}")]
pub struct DeleteVmNic {
    /// The NIC.
    pub uuid: Id<VmNic>,
}
