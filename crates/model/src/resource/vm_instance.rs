//! VM instance: what NICs are plugged into.

use std::net::IpAddr;

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    cluster::{Cluster, HypervisorType},
    host::Host,
    image::{Image, RootFormat},
    instance_offering::{AllocatorStrategy, InstanceOffering},
    l3_network::L3Network,
    nic_settings,
    tag::TagForm,
    vm_life,
    vm_state::{InstanceEvent, InstanceState},
    zone::Zone,
};
use crate::{
    Claim, FieldDef, Id, Kind, Message, MessageDef, Plain, Resource, Timestamp, Update,
    declare::Column,
    record::UNCOUNTED,
    shown::{Child, Derived, Shown, View},
    status::HostStatus,
    words,
};

words! {
    /// What runs an instance.
    InstanceDriver {
        /// A network namespace.
        Netns = "netns",
        /// A QEMU: a machine with processors of its own.
        Qemu = "qemu",
    }
}

words! {
    /// The type of an instance.
    InstanceType {
        /// A user's.
        User = "UserVm",
    }
}

words! {
    /// What becomes of an instance once it is made.
    StartStrategy {
        /// It starts.
        Instant = "InstantStart",
        /// It is a row and nothing else, until it is started.
        JustCreate = "JustCreate",
        /// It is stopped.
        Stopped = "CreateStopped",
    }
}

words! {
    /// How far an instance has come, as far as no host has a say in it.
    Phase {
        /// It has never been on a host.
        Created = "created",
        /// It has, or was meant to be ready for one.
        Live = "live",
        /// It is destroyed and may be recovered.
        Destroyed = "destroyed",
    }
}

/// An instance on a host. Its `state` in the API comes from the status board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(
    path = "/vm-instances",
    quota = "vm.num",
    quota_default = 20,
    also,
    children,
    derived,
    claims,
    home,
    tags,
    messages
)]
pub struct VmInstance {
    /// Its id.
    pub uuid: Id<VmInstance>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Its zone.
    #[field(on_delete = "cascade")]
    pub zone_uuid: Id<Zone>,
    /// Its cluster.
    #[field(on_delete = "detach")]
    pub cluster_uuid: Option<Id<Cluster>>,
    /// The host that it is meant to run on; none while it is stopped.
    #[field(on_delete = "detach")]
    pub host_uuid: Option<Id<Host>>,
    /// The host on which it was last, or is.
    #[field(on_delete = "keep")]
    pub last_host_uuid: Option<Id<Host>>,
    /// The host that it moves to while it runs, if it does.
    #[serde(default)]
    #[field(on_delete = "detach")]
    pub pending_host_uuid: Option<Id<Host>>,
    /// The number of the move that is under way, or was last: each has its own.
    #[serde(default)]
    #[field(hidden)]
    pub move_number: u32,
    /// The management addresses of the host that it moves from and of that which it moves to, as the
    /// move began.
    #[serde(default)]
    #[field(hidden)]
    pub move_ips: Vec<IpAddr>,
    /// Jobs that are a success once it has moved.
    #[serde(default)]
    #[field(hidden)]
    pub move_jobs: Vec<Uuid>,
    /// The L3 network of its default route.
    #[field(on_delete = "detach")]
    pub default_l3_network_uuid: Option<Id<L3Network>>,
    /// Always `UserVm`.
    #[serde(rename = "type")]
    pub instance_type: InstanceType,
    /// What runs the host's instances.
    pub hypervisor_type: HypervisorType,
    /// The offering that it was made by, also once that one is deleted.
    #[field(on_delete = "keep")]
    pub instance_offering_uuid: Option<Id<InstanceOffering>>,
    /// The image that it was made from, also once that one is deleted.
    #[field(on_delete = "keep")]
    pub image_uuid: Option<Id<Image>>,
    /// CPUs, as asked for.
    pub cpu_num: Option<u32>,
    /// Memory, as asked for, in bytes.
    pub memory_size: Option<u64>,
    /// The part of it that nobody else gets, as asked for, in bytes.
    pub reserved_memory_size: Option<u64>,
    /// What runs this one.
    pub driver: InstanceDriver,
    /// What it starts from, if it is a machine: the way below its host's directory of images, as the
    /// image had it.
    #[field(hidden)]
    pub image_path: Option<String>,
    /// What that is.
    #[field(hidden)]
    pub image_format: Option<RootFormat>,
    /// It is a machine that is to stand still.
    #[field(hidden)]
    pub is_paused: bool,
    /// Its hostname.
    #[field(hidden)]
    pub hostname: Option<String>,
    /// How far it has come.
    #[field(hidden)]
    pub phase: Phase,
    /// How often it was made anew: a host that has an older one makes it anew.
    #[field(hidden)]
    pub generation: u32,
    /// When it was destroyed, if it is.
    #[field(hidden)]
    pub destroyed: Option<Timestamp>,
}

/// Most NICs of an instance that are looked at for a reason.
const NICS_SHOWN: usize = 16;

/// The uuid of the one disk of an instance.
fn root_volume(instance: Uuid) -> Uuid {
    Uuid::new_v5(&instance, b"root volume")
}

impl VmInstance {
    const TAGS: &'static [TagForm] = &[
        TagForm {
            form: "staticIp::{l3NetworkUuid}::{ip}",
            at_any_time: false,
            of_field: true,
            doc: "The address that its NIC gets when it is made, or by SetVmStaticIp; IPv6 with -- for :.",
        },
        TagForm {
            form: "customMac::{l3NetworkUuid}::{mac}",
            at_any_time: false,
            of_field: false,
            doc: "The MAC address that its NIC gets when it is made.",
        },
        TagForm {
            form: "l3::{l3NetworkUuid}::SecurityGroupUuids::{securityGroupUuids}",
            at_any_time: false,
            of_field: false,
            doc: "The security groups that its NIC is made in, with commas between them, in this order.",
        },
        TagForm {
            form: "hostname::{hostname}",
            at_any_time: true,
            of_field: true,
            doc: "Its host name, as SetVmHostname sets it. DHCP tells the instance.",
        },
        TagForm {
            form: "userdata::{base64}",
            at_any_time: false,
            of_field: true,
            doc: "Its user data when it is made. SetVmUserdata changes it, and GetVmUserdata shows it.",
        },
        TagForm {
            form: "sshkey::{key}",
            at_any_time: true,
            of_field: true,
            doc: "The public key of its owner, as SetVmSshKey sets it.",
        },
    ];

    const MESSAGES: &'static [&'static MessageDef] = &{
        let [start, stop, reboot, destroy, recover, expunge, pause, resume, migrate] =
            vm_life::MESSAGES;
        let [set_hostname, delete_hostname, get_hostname] = nic_settings::HOSTNAME_MESSAGES;
        [
            &CreateVmInstance::DEF,
            &UpdateVmInstance::DEF,
            start,
            stop,
            reboot,
            destroy,
            recover,
            expunge,
            pause,
            resume,
            migrate,
            set_hostname,
            delete_hostname,
            get_hostname,
        ]
    };

    /// A destroyed one is not counted against the quota of its owner.
    const ALSO: &'static [Column] = &[Column {
        hidden: true,
        ..Column::computed(
            FieldDef::of::<Option<Uuid>>(UNCOUNTED, "Its owner, once it is destroyed."),
            |record| match (VmInstance::of(record), record.meta.owner) {
                (Some(instance), Some(owner)) if instance.phase == Phase::Destroyed => {
                    Plain::Uuid(owner.uuid())
                }
                _ => Plain::Null,
            },
        )
        .indexed()
    }];

    /// Its place on its host, and on the one that it moves to, which rests until that host has let go.
    pub(crate) fn holds_alone(&self) -> Vec<Claim> {
        let hosts = self.host_uuid.into_iter().chain(self.moves_to());
        hosts.map(|host| Claim::Running(host, self.uuid)).collect()
    }

    /// The host that it moves to while it runs, if it does.
    #[must_use]
    pub fn moves_to(&self) -> Option<Id<Host>> {
        self.pending_host_uuid.filter(|host| self.host_uuid.is_some_and(|from| from != *host))
    }

    const CHILDREN: &'static [Child] = &[Child {
        name: "vmNics",
        kind: Kind::VmNic,
        by: "vmInstanceUuid",
        order: Some("deviceId"),
        shown: Shown::Whole,
        only: &[],
    }];

    const DERIVED: &'static [Derived] = &[
        Derived {
            field: FieldDef::of::<InstanceState>("state", "What its host reports of it."),
            read: |record, view| {
                let state = VmInstance::of(record).map(|instance| instance.state_in(view));
                state.map_or(Plain::Null, |state| Plain::word(state.as_str()))
            },
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Uuid>("rootVolumeUuid", "Its one disk: its host's files."),
            read: |record, _| Plain::Uuid(root_volume(record.uuid())),
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<Vec<Value>>("allVolumes", "Its one disk, for ZStack's clients."),
            read: |record, _| {
                let instance = VmInstance::of(record);
                Plain::List(instance.map(VmInstance::volume).into_iter().collect())
            },
            found_by: &[],
            only: &[],
        },
        Derived::nothing("vmCdRoms", "Always empty."),
        Derived {
            field: FieldDef::of::<String>("platform", "What it runs: always `Linux`."),
            read: |_, _| Plain::word("Linux"),
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<String>("allocatorStrategy", "How its host is chosen."),
            read: |_, _| Plain::word(AllocatorStrategy::LeastVm.as_str()),
            found_by: &[],
            only: &[],
        },
        Derived {
            read: |record, view| {
                let reason = VmInstance::of(record).and_then(|it| it.not_in_effect(view));
                reason.map_or(Plain::Null, |reason| Plain::Text(reason.into()))
            },
            ..Derived::NOT_IN_EFFECT
        },
    ];

    /// The disk that ZStack's clients expect. There is no such thing, so there is no row.
    fn volume(&self) -> Plain<'static> {
        let mut volume = json!({
            "uuid": root_volume(self.uuid.uuid()).simple().to_string(),
            "name": format!("ROOT-for-{}", self.name),
            "vmInstanceUuid": self.uuid,
            "type": "Root",
            "deviceId": 0,
            "size": 0,
            "actualSize": 0,
            "state": "Enabled",
            "status": "Ready",
            "isShareable": false,
        });
        if let (Some(image), Some(fields)) = (self.image_uuid, volume.as_object_mut()) {
            fields.insert("rootImageUuid".to_owned(), json!(image));
        }
        Plain::Object(volume)
    }

    /// Why it, or one of its NICs, is not on its host as it should be.
    fn not_in_effect(&self, view: &dyn View) -> Option<String> {
        let host = self.host_uuid?;
        let status = view.board().status(host);
        if status.failed.is_empty() {
            return None;
        }
        let nic = || {
            let nics = view.pointing(Kind::VmNic, "vmInstanceUuid", self.uuid.uuid(), NICS_SHOWN);
            nics.iter().find_map(|nic| {
                let reason = status.not_in_effect(host, nic.uuid())?;
                Some(format!("NIC {}: {reason}", nic.uuid().simple()))
            })
        };
        status.not_in_effect(host, self.uuid.uuid()).or_else(nic)
    }

    /// Its state, from where it is meant to be, and what its host reports; `is_held`: some host may
    /// still have it.
    #[must_use]
    pub fn state(&self, status: &HostStatus, is_held: bool) -> InstanceState {
        let (meant, reported) = match (self.phase, self.host_uuid) {
            (Phase::Destroyed, _) => (InstanceState::Destroying, None),
            (_, Some(_)) => (InstanceState::Starting, Some(self.reported(status))),
            (Phase::Created, None) => (InstanceState::Created, None),
            (Phase::Live, None) => (InstanceState::Stopping, None),
        };
        let event = reported.or((!is_held).then_some(InstanceEvent::LetGo));
        event.and_then(|event| meant.next(event)).unwrap_or(meant)
    }

    fn reported(&self, status: &HostStatus) -> InstanceEvent {
        match (status.connected, status.up.contains(&self.uuid.uuid())) {
            (true, true) if self.is_paused => InstanceEvent::StandsStill,
            (true, true) => InstanceEvent::Runs,
            (true, false) => InstanceEvent::DoesNotRun,
            (false, _) => InstanceEvent::HostLost,
        }
    }

    fn state_in(&self, view: &dyn View) -> InstanceState {
        let nowhere = HostStatus::default();
        let status = self.host_uuid.map_or(&nowhere, |host| view.board().status(host));
        let last = self.last_host_uuid.map(|host| Claim::Running(host, self.uuid));
        self.state(status, last.is_some_and(|claim| view.is_claimed(&claim)))
    }
}

/// Makes an instance and starts it, unless `strategy` says otherwise. System tags
/// `staticIp::<l3>::<ip>` (IPv6 with `--` for `:`) and `customMac::<l3>::<mac>` choose addresses,
/// `l3::<l3>::SecurityGroupUuids::<uuid>,<uuid>` security groups,
/// `hostname::<name>` names it, `userdata::<base64>` and `sshkey::<key>` are for its software to read.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/vm-instances", creates = "VmInstance")]
pub struct CreateVmInstance {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// One NIC for each, in this order.
    #[field(max_len = 16, required)]
    pub l3_network_uuids: Vec<Id<L3Network>>,
    /// What its NICs are to be like, in JSON:
    /// `[{"l3NetworkUuid":"..","ip":"10.0.0.5","mac":"..","state":"disable"}]`.
    #[field(max_len = 8192)]
    pub vm_nic_params: Option<String>,
    /// The L3 network of its default route; needed when there are several.
    pub default_l3_network_uuid: Option<Id<L3Network>>,
    /// Where it may run.
    pub zone_uuid: Option<Id<Zone>>,
    /// Where it may run.
    pub cluster_uuid: Option<Id<Cluster>>,
    /// Where it must run.
    pub host_uuid: Option<Id<Host>>,
    /// The only type there is, if named at all.
    #[serde(rename = "type")]
    pub instance_type: Option<InstanceType>,
    /// Whether it starts at once, which it does if nothing is said.
    pub strategy: Option<StartStrategy>,
    /// What runs it; `netns` if absent. `qemu` needs an image whose `url` is `file:///...`, and memory.
    pub driver: Option<InstanceDriver>,
    /// How large it is to be. One that is a namespace takes what there is.
    pub instance_offering_uuid: Option<Id<InstanceOffering>>,
    /// What it starts from. One that is a namespace has its host's files.
    pub image_uuid: Option<Id<Image>>,
    /// CPUs; those of the offering if absent.
    #[field(range = "1..=1024")]
    pub cpu_num: Option<u32>,
    /// Memory, in bytes; that of the offering if absent.
    #[field(range = "1..=9223372036854775807")]
    pub memory_size: Option<u64>,
    /// The part of it that nobody else gets, in bytes; that of the offering if absent.
    #[field(range = "0..=9223372036854775807")]
    pub reserved_memory_size: Option<u64>,
}

/// Changes what an instance is called, by which network it reaches others, and how large it is to be.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/vm-instances/{uuid}/actions", action = "updateVmInstance")]
pub struct UpdateVmInstance {
    /// The instance.
    pub uuid: Id<VmInstance>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
    /// The L3 network of its default route, one of its NICs'.
    pub default_l3_network_uuid: Option<Id<L3Network>>,
    /// CPUs.
    #[field(range = "1..=1024")]
    pub cpu_num: Option<u32>,
    /// Memory, in bytes.
    #[field(range = "1..=9223372036854775807")]
    pub memory_size: Option<u64>,
    /// The part of it that nobody else gets, in bytes.
    #[field(range = "0..=9223372036854775807")]
    pub reserved_memory_size: Option<u64>,
}
