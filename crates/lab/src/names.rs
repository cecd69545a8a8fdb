//! What things of a lab are called on this machine.
//!
//! Names have no `-` in them, so `nl-<lab>-` never is the start of another lab's names.

use std::time::Duration;

use hostnet::Namespace;
use model::Kind;
use uuid::Uuid;

use crate::{Error, wait};

/// Longest name of a lab or host, in bytes: `p-<host>` is a device, and those have 15 at most.
const NAME_MAX: usize = 12;
/// Names that are not for hosts.
const RESERVED: &[&str] = &["server", "fabric", "host", "underlay"];
/// Where the uuids of resources come from (RFC 9562 §5.5); any fixed value does.
const UUIDS: Uuid = Uuid::from_u128(0x6e65_746c_6f6f_6d00_8000_6c61_6200_0001);

/// Checks the name of a lab.
pub(crate) fn check_lab(name: &str) -> Result<(), Error> {
    check("lab name", name)
}

/// Checks the name of a host.
pub(crate) fn check_host(name: &str) -> Result<(), Error> {
    if RESERVED.contains(&name) {
        let rule = "is used by the lab itself; choose another name";
        return Err(Error::Name { what: "host name", name: name.to_owned(), rule });
    }
    check("host name", name)
}

fn check(what: &'static str, name: &str) -> Result<(), Error> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(is_plain) {
        return Ok(());
    }
    let rule = "must be 1 to 12 lower-case letters and digits";
    Err(Error::Name { what, name: name.to_owned(), rule })
}

/// How long a host may take until the namespace of a VM that it had is gone.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// The start of the names of all namespaces of a lab.
pub(crate) fn prefix(lab: &str) -> String {
    format!("nl-{lab}-")
}

/// The namespace of a host, and of the underlay when `host` is [`FABRIC`]. With a `-` behind it
/// also the start of the names of its VMs' namespaces.
pub(crate) fn namespace(lab: &str, host: &str) -> String {
    format!("nl-{lab}-{host}")
}

/// Stands for the underlay among the hosts.
pub(crate) const FABRIC: &str = "fabric";

/// The uuid of the resource of this kind and name: the same each time the topology is applied.
pub(crate) fn uuid(lab: &str, kind: Kind, resource: &str) -> Uuid {
    Uuid::new_v5(&UUIDS, format!("{lab}/{}/{resource}", kind.def().name).as_bytes())
}

/// The namespace of a VM, on whichever host it runs. The host that a VM has left needs a moment
/// until its namespace there is gone: one that has two is waited for.
pub(crate) fn vm_namespace(lab: &str, vm: Uuid) -> Result<Option<Namespace>, Error> {
    let end = format!("-{}", vm.simple());
    let mut found = Vec::new();
    wait::until(LEAVE_LIMIT, || {
        found = Namespace::list(&prefix(lab))?;
        found.retain(|name| name.ends_with(&end));
        Ok::<_, Error>((found.len() < 2).then_some(()))
    })?;
    match &found[..] {
        [] => Ok(None),
        [one] => Ok(Some(Namespace::open(one)?)),
        several => Err(Error::TwoPlaces { vm, namespaces: several.join(", ") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_be_taken_for_another_is_refused() {
        for bad in ["", "a-b", "A", "a.b", "thirteenbytes", "ü", "../x"] {
            assert!(check_lab(bad).is_err(), "{bad}");
        }
        assert!(check_host("server").is_err());
        check_lab("demo").unwrap();
        check_host("twelve-bytes".replace('-', "0").as_str()).unwrap();
    }

    #[test]
    fn a_resource_has_the_same_uuid_each_time_and_another_one_in_another_lab() {
        let of = |lab, kind| uuid(lab, kind, "x");
        assert_eq!(of("a", Kind::Zone), of("a", Kind::Zone));
        assert_ne!(of("a", Kind::Zone), of("b", Kind::Zone));
        assert_ne!(of("a", Kind::Zone), of("a", Kind::Host));
    }
}
