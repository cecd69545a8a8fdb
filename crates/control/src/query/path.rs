//! Paths: `mac`, `vmNics.ip`, `vmNics.l3Network.name`. Relations lead to other resources, the last
//! name is a field of theirs.
//!
//! Downwards a relation is a [`Child`] by its name; upwards it is a field that points, without its
//! ending `Uuid`. A declaration may give a path of relations another name. `__systemTag__` and
//! `__userTag__` lead to the tags of every resource.

use model::{Error, FieldType, Kind, Result, resource::tag::PSEUDO_FIELDS, shown::Child};

use crate::inventory::{self, Entry};

/// Most relations in a path.
pub const RELATIONS_MAX: usize = 3;

/// A way from a resource to a field of itself or of related resources.
#[derive(Clone, Debug)]
pub struct Path {
    pub(crate) steps: Vec<Step>,
    pub(crate) end: Entry,
    /// It leads to a resource's tags: what they are not is said of all of them.
    pub(crate) of_tags: bool,
}

/// One relation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// To what a field points at.
    Up(Entry, Kind),
    /// To what points here.
    Down(&'static Child),
}

impl Step {
    /// The kind that it leads to.
    pub(crate) const fn to(self) -> Kind {
        match self {
            Step::Up(_, kind) => kind,
            Step::Down(child) => child.kind,
        }
    }
}

impl Path {
    /// Reads a path that starts at resources of `kind`.
    ///
    /// # Errors
    /// [`model::Code::InvalidArgument`], blaming `key`, for names that lead nowhere (with those
    /// that do) and for more than [`RELATIONS_MAX`] relations.
    pub fn read(kind: Kind, key: &str, text: &str) -> Result<Self> {
        let mut names: Vec<&str> = text.split('.').map(str::trim).collect();
        let field = names.pop().unwrap_or_default();
        let (mut at, mut steps) = (kind, Vec::new());
        for name in names {
            steps.extend(relation(at, name).ok_or_else(|| no_relation(at, key, name))?);
            if steps.len() > RELATIONS_MAX {
                let rule = format!("{text} leads over more than {RELATIONS_MAX} relations");
                let hint = "query in two steps: first the resources in the middle, then \
                            ?= with their uuids";
                return Err(Error::field(key, rule).hint(hint));
            }
            at = steps.last().map_or(at, |step: &Step| step.to());
        }
        if let Some(tags) = PSEUDO_FIELDS.iter().find(|child| child.name == field) {
            steps.push(Step::Down(tags));
            let end = inventory::comparable(tags.kind, key, "tag")?;
            return Ok(Self { steps, end, of_tags: true });
        }
        Ok(Self { steps, end: inventory::comparable(at, key, field)?, of_tags: false })
    }

    /// A path that a declaration names; it may end in a hidden column. `None` if it leads nowhere,
    /// which a test rules out.
    pub(crate) fn declared(kind: Kind, text: &str) -> Option<Self> {
        let (relations, field) = text.rsplit_once('.').unwrap_or(("", text));
        let mut steps = Vec::new();
        for name in relations.split('.').filter(|name| !name.is_empty()) {
            let at = steps.last().map_or(kind, |step: &Step| step.to());
            steps.extend(relation(at, name)?);
        }
        let at = steps.last().map_or(kind, |step| step.to());
        let end = at.def().column(field).map(Entry::Column)?;
        Some(Self { steps, end, of_tags: false })
    }

    /// The type of the values that it leads to.
    #[must_use]
    pub fn value_type(&self) -> FieldType {
        self.end.comparable().unwrap_or(FieldType::Object)
    }
}

/// The steps that a name means.
fn relation(kind: Kind, name: &str) -> Option<Vec<Step>> {
    let def = kind.def();
    if let Some(child) = def.children.iter().find(|child| child.name == name) {
        return Some(vec![Step::Down(child)]);
    }
    if let Some((_, step)) = references(kind).find(|(known, _)| *known == name) {
        return Some(vec![step]);
    }
    let (_, path) = def.aliases.iter().find(|(alias, _)| *alias == name)?;
    let mut steps: Vec<Step> = Vec::new();
    for name in path.split('.') {
        let at = steps.last().map_or(kind, |step| step.to());
        steps.extend(relation(at, name)?);
    }
    Some(steps)
}

/// The fields that point at other resources, under the names that they have in paths.
fn references(kind: Kind) -> impl Iterator<Item = (&'static str, Step)> {
    inventory::entries(kind).filter_map(|entry| {
        let field = entry.field()?;
        let name = field.name.strip_suffix("Uuids").or(field.name.strip_suffix("Uuid"))?;
        Some((name, Step::Up(entry, field.refs?)))
    })
}

fn no_relation(kind: Kind, key: &str, name: &str) -> Error {
    let def = kind.def();
    let error = Error::field(key, format!("{} has no relation {name}", def.name));
    let known = (def.children.iter().map(|child| child.name))
        .chain(references(kind).map(|(name, _)| name))
        .chain(def.aliases.iter().map(|(alias, _)| *alias));
    error.hint(format!("its relations: {}", inventory::names(known)))
}

/// Whether showing a list of these shows lists of lists without end. For the test of declarations.
#[cfg(test)]
fn shows_itself(child: &Child, seen: &[Kind]) -> bool {
    let whole = |child: &&Child| child.shown == model::shown::Shown::Whole;
    seen.contains(&child.kind)
        || child.kind.def().children.iter().filter(whole).any(|below| {
            let seen: Vec<Kind> = seen.iter().copied().chain([child.kind]).collect();
            shows_itself(below, &seen)
        })
}

#[cfg(test)]
mod tests {
    use model::shown::Shown;

    use super::*;

    #[test]
    fn everything_declared_leads_somewhere() {
        for kind in Kind::ALL {
            let def = kind.def();
            for (alias, _) in def.aliases {
                assert!(relation(*kind, alias).is_some(), "{kind:?}: {alias}");
                assert!(references(*kind).all(|(name, _)| name != *alias), "{alias} is taken");
            }
            for child in def.children {
                let by = child.kind.def().column(child.by);
                assert!(by.is_some_and(|by| by.is_indexed()), "{kind:?}: {}", child.name);
                assert!(child.shown != Shown::Whole || !shows_itself(child, &[*kind]));
            }
            for (derived, path) in
                def.derived.iter().flat_map(|d| d.found_by.iter().map(move |path| (d, path)))
            {
                let found = Path::declared(*kind, path);
                let end = found.map(|path| path.end);
                let indexed = matches!(end, Some(Entry::Column(c)) if c.is_indexed());
                assert!(indexed, "{kind:?}: {} is found by {path}", derived.field.name);
            }
        }
    }

    #[test]
    fn zstacks_expanded_queries_work() {
        for (kind, paths) in [
            (
                Kind::Zone,
                "vmInstance.name cluster.name host.managementIp l2Network.vni l3Network.name",
            ),
            (Kind::Cluster, "zone.name host.name vmInstance.name l2Network.name"),
            (Kind::Host, "zone.name cluster.zone.name vmInstance.vmNics.ip"),
            (
                Kind::L2Network,
                "zone.name l3Network.name cluster.name clusterRef.clusterUuid vniRange.startVni \
                 l2VxlanNetwork.vni vtep.vtepIp vxlanPool.name",
            ),
            (Kind::VniRange, "vxlanPool.name"),
            (Kind::Vtep, "vxlanPool.name host.name"),
            (Kind::L3Network, "zone.name l2Network.name vmNic.mac usedIp.ip ipRanges.startIp"),
            (Kind::IpRange, "l3Network.name"),
            (Kind::UsedIp, "l3Network.zoneUuid vmNic.vmInstance.name"),
            (Kind::VmInstance, "zone.name cluster.name host.name vmNics.l3Network.name"),
            (Kind::VmNic, "vmInstance.state l3Network.l2Network.name usedIp.ip"),
        ] {
            for path in paths.split_whitespace() {
                Path::read(kind, "q", path).unwrap();
            }
        }
    }

    #[test]
    fn what_leads_nowhere_is_refused_with_what_does() {
        for (path, hint) in [
            ("colour", "vmNics"),
            ("colour.name", "vmNics"),
            ("vmNics", "vmNics.uuid"),
            ("vmNics.colour", "usedIps"),
            ("vmNics.number", "usedIps"),
            ("vmNics.l3Network.l2Network.zone.name", "two steps"),
            ("", "vmNics"),
        ] {
            let error = Path::read(Kind::VmInstance, "q", path).expect_err(path);
            assert_eq!(error.field.as_deref(), Some("q"));
            assert!(error.hint.as_ref().is_some_and(|text| text.contains(hint)), "{error}");
        }
    }
}
