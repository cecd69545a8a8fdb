//! A transaction, with the rules that hold for every resource: ids, owners, quotas, claims,
//! references, fences. What a deletion takes along is in [`crate::delete`].

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    mem,
    sync::Arc,
};

use model::{
    AnyId, Claim, Code, Error, Id, Kind, Meta, Record, Relation, Resource, Result, Timestamp,
    record::{OWNER, UNCOUNTED},
    resource::{
        account::Account,
        dhcp_option::DhcpOption,
        guest_data::GuestData,
        host::Host,
        release::Release,
        security_group_member::{VmNicSecurityGroupRef, VmNicSecurityPolicy},
        used_ip::UsedIp,
        vm_instance::VmInstance,
        vm_nic::VmNic,
    },
    status::{Board, HostStatus},
};
use store::{Key, Read, Tx};
use uuid::Uuid;

use crate::{
    claim,
    command::{Call, Caller, Surroundings},
    memberships,
    operation::Done,
    quota,
};

/// A store transaction on behalf of a call.
pub struct Txn<'a> {
    pub(crate) tx: &'a mut Tx<Record>,
    surroundings: &'a Surroundings,
    caller: &'a Caller,
    call: &'a Call,
    /// Which call of its command it is, and how many uuids it has drawn.
    at: usize,
    drawn: Cell<u64>,
    /// System tags that a handler has read, by their position in the call.
    used_tags: RefCell<BTreeSet<usize>>,
    hosts: BTreeSet<Id<Host>>,
    objects: BTreeSet<Uuid>,
    /// The instances that changed, or whose NICs did.
    instances: BTreeSet<Id<VmInstance>>,
    /// The instances and NICs that may be in other groups now, because of queries for members.
    regrouped: BTreeSet<AnyId>,
    waits_for_lost_hosts: bool,
    /// Hosts whose evacuation success waits for.
    evacuated: BTreeSet<Id<Host>>,
    /// Instances whose move success waits for.
    moved: BTreeSet<Id<VmInstance>>,
    /// Whose what is made will be, if not the caller's.
    owner: Option<Id<Account>>,
}

impl<'a> Txn<'a> {
    /// Runs `call`, the `at`-th of its command, over `tx`.
    pub(crate) fn new(
        tx: &'a mut Tx<Record>,
        (surroundings, caller): (&'a Surroundings, &'a Caller),
        call: &'a Call,
        at: usize,
    ) -> Self {
        let (drawn, used_tags) = (Cell::new(0), RefCell::default());
        let (hosts, objects, instances) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let (waits_for_lost_hosts, owner) = (true, None);
        Self {
            tx,
            surroundings,
            caller,
            call,
            at,
            drawn,
            used_tags,
            hosts,
            objects,
            instances,
            regrouped: BTreeSet::new(),
            waits_for_lost_hosts,
            evacuated: BTreeSet::new(),
            moved: BTreeSet::new(),
            owner,
        }
    }

    /// What is made from now on is its owner's, and a part of it.
    pub(crate) fn act_for<R: Resource>(&mut self, whole: Id<R>) {
        self.owner = self.record(R::KIND, whole.uuid()).and_then(|record| record.meta.owner);
    }

    /// Adds what it did to what its command did.
    pub(crate) fn end(mut self, done: &mut Done) {
        if !self.waits_for_lost_hosts {
            let board = &self.surroundings.board;
            self.hosts.retain(|host| board.status(*host).connected);
        }
        done.hosts.extend(self.hosts);
        done.objects.extend(self.objects);
        done.evacuated.extend(self.evacuated);
        done.moved.extend(self.moved);
    }

    /// The instances that changed, or whose NICs did, since this was asked last.
    pub(crate) fn take_instances(&mut self) -> BTreeSet<Id<VmInstance>> {
        mem::take(&mut self.instances)
    }

    /// The instances and NICs that may be in other groups, since this was asked last.
    pub(crate) fn take_regrouped(&mut self) -> BTreeSet<AnyId> {
        mem::take(&mut self.regrouped)
    }

    /// Success does not wait for hosts that are not connected: they act when they are back.
    pub(crate) fn waits_for_no_lost_host(&mut self) {
        self.waits_for_lost_hosts = false;
    }

    /// Success waits until this host has confirmed what concerns it as a whole.
    pub(crate) fn waits_for(&mut self, host: Id<Host>) {
        self.hosts.insert(host);
        self.objects.insert(host.uuid());
    }

    /// Success waits until this host is empty, which an evacuation of it sees to.
    pub(crate) fn waits_for_evacuation(&mut self, host: Id<Host>) {
        self.waits_for(host);
        self.evacuated.insert(host);
    }

    /// Success waits until this object is settled on these hosts.
    pub(crate) fn waits_for_object(&mut self, object: Uuid, hosts: BTreeSet<Id<Host>>) {
        self.hosts.extend(hosts);
        self.objects.insert(object);
    }

    /// Remembers that the members of groups may be others once a row is gone.
    pub(crate) fn regroup(&mut self, gone: &Record) {
        self.regrouped.extend(memberships::affected(Some(gone), gone));
    }

    /// Success waits until this instance is where it moves to.
    pub(crate) fn waits_for_move(&mut self, instance: &VmInstance) {
        self.hosts.extend(instance.host_uuid.into_iter().chain(instance.moves_to()));
        self.objects.insert(instance.uuid.uuid());
        self.moved.insert(instance.uuid);
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.surroundings.now
    }

    /// What hosts have reported.
    #[must_use]
    pub fn board(&self) -> &'a Board {
        &self.surroundings.board
    }

    /// What `host` has reported.
    #[must_use]
    pub fn status(&self, host: Id<Host>) -> &'a HostStatus {
        self.surroundings.board.status(host)
    }

    /// The call's system tags that start with `start`, without it.
    #[must_use]
    pub fn tags(&self, start: &str) -> Vec<&'a str> {
        let mut used = self.used_tags.borrow_mut();
        let tags = self.call.system_tags.iter().enumerate();
        let fitting = tags.filter_map(|(at, tag)| Some((at, tag.strip_prefix(start)?)));
        let (places, rests): (Vec<_>, Vec<_>) = fitting.unzip();
        used.extend(places);
        rests
    }

    /// A system tag that no handler has read, so that it had no effect, and that what is made does
    /// not keep either.
    #[must_use]
    pub fn unused_tag(&self, made: Option<Kind>) -> Option<&'a str> {
        let forms = made.map_or(&[][..], |kind| kind.def().tags);
        let kept = |tag: &str| forms.iter().any(|form| form.at_any_time && form.fits(tag));
        let used = self.used_tags.borrow();
        let mut tags = self.call.system_tags.iter().enumerate();
        let odd = tags.find(|(at, tag)| !used.contains(at) && !kept(tag));
        odd.map(|(_, tag)| tag.as_str())
    }

    /// The id for what the call creates: the caller's choice, else a new one.
    #[must_use]
    pub fn new_id<R: Resource>(&self) -> Id<R> {
        Id::new(self.call.resource_uuid.unwrap_or_else(|| self.random_uuid()))
    }

    /// A uuid that nobody else has: derived from the seed, so that a repeat draws the same.
    #[must_use]
    pub fn random_uuid(&self) -> Uuid {
        self.drawn.set(self.drawn.get() + 1);
        let mut name = self.drawn.get().to_be_bytes().to_vec();
        name.extend(self.at.to_be_bytes());
        Uuid::new_v5(&self.surroundings.seed, &name)
    }

    /// The resource, or [`Code::NotFound`].
    ///
    /// # Errors
    /// When there is none.
    pub fn get<R: Resource>(&self, id: Id<R>) -> Result<R> {
        self.find(id).ok_or_else(|| Error::not_found(R::DEF.name, id))
    }

    /// The resource, if there is one.
    #[must_use]
    pub fn find<R: Resource>(&self, id: Id<R>) -> Option<R> {
        self.record(R::KIND, id.uuid()).and_then(|record| R::of(&record).cloned())
    }

    /// The record of any kind, if there is one.
    #[must_use]
    pub fn record(&self, kind: Kind, uuid: Uuid) -> Option<Arc<Record>> {
        self.tx.get(kind, uuid)
    }

    /// The record, if there is one and the caller may see it.
    #[must_use]
    pub(crate) fn visible(&self, kind: Kind, uuid: Uuid) -> Option<Arc<Record>> {
        let record = self.record(kind, uuid)?;
        self.caller.sees(&*self.tx, &record).then_some(record)
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &'a Caller {
        self.caller
    }

    /// Every resource that points at `parent` by this relation, by uuid.
    #[must_use]
    pub fn children<C: Resource, P: Resource>(
        &self,
        relation: Relation<C, P>,
        parent: Id<P>,
    ) -> Vec<C> {
        self.child_ids(relation, parent).into_iter().filter_map(|id| self.find(id)).collect()
    }

    /// The ids of all resources that point at `parent` by this relation, ascending.
    #[must_use]
    pub fn child_ids<C: Resource, P: Resource>(
        &self,
        relation: Relation<C, P>,
        parent: Id<P>,
    ) -> Vec<Id<C>> {
        self.tx.referrers(C::KIND, relation.field, parent.uuid()).map(Id::new).collect()
    }

    /// One resource that points at `parent` by this relation, if any does.
    #[must_use]
    pub fn any_child<C: Resource, P: Resource>(
        &self,
        relation: Relation<C, P>,
        parent: Id<P>,
    ) -> Option<C> {
        let first = self.tx.referrers(C::KIND, relation.field, parent.uuid()).next();
        first.and_then(|uuid| self.find(Id::new(uuid)))
    }

    /// The addresses that somebody has.
    #[must_use]
    pub fn used_by(&self, user: AnyId) -> Vec<Id<UsedIp>> {
        self.tx.referrers(Kind::UsedIp, UsedIp::USED_BY, user.uuid).map(Id::new).collect()
    }

    /// How many resources point at `parent` by this relation; the same work however many.
    #[must_use]
    pub fn count<C: Resource, P: Resource>(&self, relation: Relation<C, P>, parent: Id<P>) -> u64 {
        self.tx.count(C::KIND, relation.field, &Key::Uuid(parent.uuid()))
    }

    /// Makes this transaction conflict with every other one that adds or removes what points at
    /// `parent`. Adding and removing do it for direct parents; a decision that rests on the
    /// members of any other parent must do it itself, or two servers could decide at once.
    pub fn fence<R: Resource>(&mut self, parent: Id<R>) {
        self.fence_uuid(parent.uuid());
    }

    pub(crate) fn fence_uuid(&mut self, parent: Uuid) {
        self.tx.fence(&parent.simple().to_string());
    }

    /// Adds a resource, which is the caller's from now on, or, if it is a part of another one, that
    /// one's owner's: its uuid must be free, nobody else may
    /// hold what it holds alone, and the caller's quota must allow it.
    ///
    /// # Errors
    /// [`Code::UuidTaken`], [`Code::QuotaExceeded`], and what [`claim::refusal`] says.
    pub fn insert<R: Resource>(&mut self, resource: R) -> Result<Id<R>> {
        let id = resource.id();
        if let Some(other) = self.owner_of_uuid(R::KIND, id.uuid()) {
            let text = match self.visible(other, id.uuid()) {
                Some(_) => format!("a {} {id} exists", other.def().name),
                None => format!("{id} is taken"),
            };
            let error = Error::new(Code::UuidTaken, text);
            let hint = "choose another uuid, or leave it out";
            return Err(error.on_field("resourceUuid").hint(hint));
        }
        self.keep_quota(R::KIND)?;
        let now = self.now();
        let owner = self.owner.or(self.caller.account());
        let mut record = Record::new(resource, Meta { owner, created: now, changed: now });
        if let Some(whole) = record.whole().and_then(|id| self.record(id.kind, id.uuid)) {
            record.meta.owner = owner_of_parts(&whole).or(owner);
        }
        self.fence_parents(&record);
        self.regrouped.extend(memberships::affected(None, &record));
        self.put(record)?;
        Ok(id)
    }

    /// Adds a resource that is an account's, whoever calls. Its uuid was drawn at random, and it is
    /// not counted.
    pub(crate) fn insert_for<R: Resource>(
        &mut self,
        account: Id<Account>,
        resource: R,
    ) -> Result<()> {
        let now = self.now();
        let meta = Meta { owner: Some(account), created: now, changed: now };
        let record = Record::new(resource, meta);
        self.fence_parents(&record);
        self.put(record)
    }

    /// Adds a resource that is the platform's own. Its uuid is fixed.
    pub(crate) fn insert_for_platform<R: Resource>(&mut self, resource: R) -> Result<()> {
        let now = self.now();
        self.put(Record::new(resource, Meta { owner: None, created: now, changed: now }))
    }

    /// Changes a resource that exists.
    ///
    /// # Errors
    /// [`Code::NotFound`] when it does not, and what [`claim::refusal`] says.
    pub fn update<R: Resource>(&mut self, resource: R) -> Result<()> {
        let (id, before) = (resource.id(), self.record(R::KIND, resource.id().uuid()));
        let before = before.ok_or_else(|| Error::not_found(R::DEF.name, id))?;
        let after = Record::new(resource, before.meta);
        self.replace(&before, after)
    }

    /// Puts `after` in the place of `before`. Claims that it gives up and on which hosts act are
    /// kept by a release.
    pub(crate) fn replace(&mut self, before: &Record, mut after: Record) -> Result<()> {
        after.meta.changed = self.now();
        let kept = after.claims();
        let mut given_up = before.claims();
        given_up.retain(|claim| claim.rests() && !kept.contains(claim));
        let object = before.object();
        self.regrouped.extend(memberships::affected(Some(before), &after));
        self.note(before);
        self.put(after)?;
        // Of this it is known who was told: nobody else need be waited for after a restart.
        let place = |claim: &Claim| match claim {
            Claim::Running(host, _) | Claim::Plugged(host, _) => Some(*host),
            _ => None,
        };
        let told = given_up.iter().filter_map(place).collect::<BTreeSet<_>>();
        let told = given_up.iter().all(|claim| place(claim).is_some()).then_some(told);
        let told = told.map(|hosts| hosts.into_iter().collect());
        self.release(BTreeSet::from([object]), given_up, told).map(|_| ())
    }

    fn put(&mut self, record: Record) -> Result<()> {
        self.note(&record);
        let result = self.tx.put(record);
        result.map_err(|taken| {
            let is_seen = self.visible(taken.kind, taken.id).is_some();
            claim::refusal(&taken.claim, taken.kind, is_seen.then_some(taken.id))
        })
    }

    /// Remembers which host has to act on a change of this, and which instance has changed.
    pub(crate) fn note(&mut self, record: &Record) {
        let instance = VmInstance::of(record).map(|instance| instance.uuid);
        let of_nic = || VmNic::of(record).and_then(|nic| nic.vm_instance_uuid);
        self.instances.extend(instance.or_else(of_nic));
        // Of these hosts know as a part of something else.
        let data = GuestData::of(record).map(|data| AnyId::of(data.vm_instance_uuid));
        let option = DhcpOption::of(record).map(|option| option.resource);
        let member = VmNicSecurityGroupRef::of(record).map(|member| member.vm_nic_uuid);
        let nic = member.or(VmNicSecurityPolicy::of(record).map(|policy| policy.vm_nic_uuid));
        let whole = data
            .or(option)
            .or(nic.map(AnyId::of))
            .and_then(|whole| self.tx.get(whole.kind, whole.uuid));
        if let Some(whole) = whole {
            self.note(&whole);
        }
        let pending = VmNic::of(record).and_then(VmNic::moves_to);
        let moves = VmInstance::of(record).and_then(VmInstance::moves_to);
        for home in record.home().into_iter().chain(pending).chain(moves) {
            self.hosts.insert(home);
            self.objects.insert(record.object());
        }
    }

    /// Makes a release of these claims, if there are any: they are not given out again until no host
    /// acts on them any more.
    pub(crate) fn let_rest(
        &mut self,
        objects: BTreeSet<Uuid>,
        claims: Vec<Claim>,
    ) -> Result<Option<Id<Release>>> {
        self.release(objects, claims, None)
    }

    fn release(
        &mut self,
        mut objects: BTreeSet<Uuid>,
        mut claims: Vec<Claim>,
        hosts: Option<Vec<Id<Host>>>,
    ) -> Result<Option<Id<Release>>> {
        if claims.is_empty() {
            return Ok(None);
        }
        // The networks are waited for, too: a host that still has one may still have what was in
        // it.
        let networks = claims.iter().filter_map(Claim::network).map(Id::uuid);
        objects.extend(networks);
        let more: Vec<Claim> = claims.iter().filter_map(Claim::resting).collect();
        claims.extend(more);
        let release = Release {
            uuid: Id::new(self.random_uuid()),
            objects: objects.into_iter().collect(),
            claims,
            hosts,
            create_date: self.now(),
        };
        let (id, now) = (release.uuid, self.now());
        let meta = Meta { owner: None, created: now, changed: now };
        self.put(Record::new(release, meta))?;
        Ok(Some(id))
    }

    /// The release that keeps a claim, if one does.
    #[must_use]
    pub(crate) fn release_of(&self, claim: &Claim) -> Option<Release> {
        match self.tx.holder(claim)? {
            (Kind::Release, uuid) => self.find(Id::new(uuid)),
            _ => None,
        }
    }

    /// Ends a release before its time: what it keeps is the former holder's again, in the same
    /// place.
    pub(crate) fn take_back(&mut self, release: &Release) {
        self.tx.delete(Kind::Release, release.uuid.uuid());
    }

    fn fence_parents(&mut self, record: &Record) {
        for parent in parents(record) {
            self.fence_uuid(parent);
        }
    }

    /// The kind that has a resource with this uuid. Among the kinds that users see a uuid names one
    /// resource, because hosts report by uuid alone. A uuid that was drawn at random is not looked
    /// for.
    fn owner_of_uuid(&self, kind: Kind, uuid: Uuid) -> Option<Kind> {
        if self.call.resource_uuid != Some(uuid) {
            return self.tx.get(kind, uuid).map(|_| kind);
        }
        let shown = |other: &Kind| *other == kind || other.def().is_shown();
        Kind::ALL.iter().copied().filter(shown).find(|other| self.tx.get(*other, uuid).is_some())
    }

    /// An administrator has no limits.
    pub(crate) fn keep_quota(&mut self, kind: Kind) -> Result<()> {
        match (self.caller.account(), self.caller.is_admin()) {
            (Some(account), false) => self.keep_quota_of(account, kind),
            _ => Ok(()),
        }
    }

    /// Whether an account may have one more of a kind. The fence keeps two servers from both taking
    /// the last place.
    pub(crate) fn keep_quota_of(&mut self, account: Id<Account>, kind: Kind) -> Result<()> {
        let Some(counted) = kind.def().quota else { return Ok(()) };
        self.fence_uuid(account.uuid());
        let of = |field| self.tx.count(kind, field, &Key::Uuid(account.uuid()));
        let is_counted = kind.def().column(UNCOUNTED).is_none();
        let count = of(OWNER) - if is_counted { 0 } else { of(UNCOUNTED) };
        if count < quota::limit(&*self.tx, account, counted) {
            return Ok(());
        }
        let text = format!("the account has {count} {}, which is its limit", kind.def().name);
        let hint = format!("delete some, or ask an administrator for more {}", counted.name);
        Err(Error::new(Code::QuotaExceeded, text).hint(hint))
    }

    /// The first claim from `from` on, in its sequence, that nobody holds.
    #[must_use]
    pub fn first_free(&self, from: &Claim) -> Option<Claim> {
        self.tx.first_free(from)
    }

    /// The first claim of a sequence, from `low` to `high`, that somebody holds, and who.
    #[must_use]
    pub fn first_held(&self, low: &Claim, high: &Claim) -> Option<(Claim, (Kind, Uuid))> {
        self.tx.first_held(low, high)
    }

    /// The next number of a sequence that starts at 1 and never repeats.
    ///
    /// # Errors
    /// [`Code::Internal`] after 2^32 numbers.
    pub fn number(&mut self, sequence: &str) -> Result<u32> {
        let next = self.tx.counter(sequence);
        let spent = || Error::new(Code::Internal, format!("all numbers of {sequence} are spent"));
        u32::try_from(next).map_err(|_| spent())
    }
}

/// Who owns what is a part of a resource: its owner, and of an account the account.
fn owner_of_parts(whole: &Record) -> Option<Id<Account>> {
    match whole.kind() {
        Kind::Account => Some(Id::new(whole.uuid())),
        _ => whole.meta.owner,
    }
}

/// What a resource points at, its owner aside: fencing that would make every two calls of one
/// account meet.
pub(crate) fn parents(record: &Record) -> Vec<Uuid> {
    let references = record.index().into_iter().filter(|(field, _)| *field != OWNER);
    let uuid = |(_, value)| match value {
        model::Plain::Uuid(uuid) => Some(uuid),
        _ => None,
    };
    references.filter_map(uuid).collect()
}
