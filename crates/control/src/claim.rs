//! How a refused claim is told.

use model::{Claim, Code, Error, Kind, Record};
use store::Taken;
use uuid::Uuid;

/// What has to happen before what hosts act on can be given to somebody else.
const UNCONFIRMED: &str =
    "hosts must confirm its removal first; QueryHost status!=Connected shows who is missing";

/// The same, from the store's words.
pub(crate) fn taken(taken: Taken<Record>) -> Error {
    refusal(&taken.claim, taken.kind, Some(taken.id))
}

/// The refusal of a claim that `holder` has: nobody who is named, if the caller does not see it.
pub(crate) fn refusal(claim: &Claim, kind: Kind, holder: Option<Uuid>) -> Error {
    let (code, field, hint) = match claim {
        Claim::AccountName(_) | Claim::UserName(..) => {
            (Code::Duplicate, "name", "choose another name")
        }
        Claim::Quota(..) => (Code::Duplicate, "name", "change the one that there is"),
        Claim::Share(..) => (Code::Duplicate, "resourceUuids", "it needs no second share"),
        Claim::ManagementIp(_) => {
            (Code::InvalidArgument, "managementIp", "each host has a management address of its own")
        }
        Claim::VtepIp(..) | Claim::FormerVtep(..) => {
            (Code::InvalidArgument, "vtepIp", "each host of a pool needs an address of its own")
        }
        Claim::Vni(..) | Claim::PoolVni(..) | Claim::RestingVni(..) => {
            (Code::VniExhausted, "vni", "choose another VNI, or leave it out")
        }
        Claim::Wire(..) => (
            Code::InvalidArgument,
            "l2NetworkUuid",
            "a cluster has one network for each interface and tag: detach the other one, or use \
             another tag or interface",
        ),
        Claim::Mac(..) => (
            Code::InvalidArgument,
            "mac",
            "a MAC is unique on its L2 network: choose another one, or leave it out",
        ),
        Claim::Prefix(..) | Claim::Sharer(..) if kind == Kind::Release => {
            (Code::InUse, "prefixes", UNCONFIRMED)
        }
        Claim::Prefix(..) | Claim::Sharer(..) => (
            Code::InUse,
            "prefixes",
            "one NIC of an L2 network routes for a prefix: choose another",
        ),
        Claim::Ip(..) if kind == Kind::Release => (Code::IpExhausted, "ip", UNCONFIRMED),
        Claim::Router(..) => (
            Code::InvalidArgument,
            "routerInterfaceIp",
            "both are on one L2 network: choose another address",
        ),
        Claim::RangeEnd(..) | Claim::Gateway(..) | Claim::Subnet(..) => (
            Code::InvalidArgument,
            "startIp",
            "ranges of one L2 network do not overlap: choose other addresses",
        ),
        Claim::Hostname(..) => (
            Code::InvalidArgument,
            "hostname",
            "a hostname is unique on the L3 networks of its instance: choose another one",
        ),
        Claim::Running(..) | Claim::Plugged(..) => (
            Code::InUse,
            "uuid",
            "its host must confirm first that it let go, or be deleted as dead",
        ),
        Claim::Device(..) => (
            Code::InUse,
            "device",
            "one NIC is plugged into a device: UnplugVmNic takes the other one out",
        ),
        Claim::Ip(..) => (Code::IpExhausted, "ip", "choose another address, or leave it out"),
        Claim::VipPort(..) | Claim::Eip(..) | Claim::Peer(..) | Claim::Forwarded(_) => {
            of_vip(claim)
        }
    };
    Error::new(code, text(claim, kind, holder)).on_field(field).hint(hint)
}

fn text(claim: &Claim, kind: Kind, holder: Option<Uuid>) -> String {
    match (kind, holder) {
        (Kind::Release, _) => format!("{claim} is still being released by its former holder"),
        (_, Some(id)) => format!("{claim} belongs to {} {}", kind.def().name, id.simple()),
        (_, None) => format!("{claim} is taken"),
    }
}

/// The same of what VIPs are used for.
const fn of_vip(claim: &Claim) -> (Code, &'static str, &'static str) {
    match claim {
        Claim::VipPort(..) => (
            Code::InvalidArgument,
            "vipPortStart",
            "rules of one protocol have ports of their own: GetVipAvailablePort lists free ones",
        ),
        _ => (
            Code::OperationFailed,
            "vmNicUuid",
            "an address of a NIC has one EIP: DetachEip takes the other one off",
        ),
    }
}
