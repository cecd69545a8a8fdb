//! A store whose hosts are followed.

use model::{Id, Record, Resource, resource::host::Host};
use uuid::Uuid;
use wire::object::{Object, ObjectKey, Port, Table};

use crate::{Hosts, commit, follow, hosts, random::Step, rows::*, start};

/// A store whose hosts are followed. After each commit they hold what a full compile gives.
pub(crate) struct Followed {
    pub(crate) store: store::Store<Record>,
    watch: store::Watch<Record>,
    pub(crate) compiler: netloom_compile::Compiler,
    pub(crate) held: Hosts,
    /// How many objects each host was told of, or was told to forget, by the last commit.
    pub(crate) told: std::collections::BTreeMap<Id<Host>, usize>,
}

impl Followed {
    pub(crate) fn empty() -> Self {
        let (store, watch, compiler) = start();
        Self { store, watch, compiler, held: Hosts::new(), told: Default::default() }
    }

    pub(crate) fn put(&mut self, records: Vec<Record>) {
        commit(&self.store, Step::Put(records));
        self.take_in();
    }

    pub(crate) fn delete<R: Resource>(&mut self, gone: &R) {
        commit(&self.store, Step::Delete(R::KIND, gone.id().uuid()));
        self.take_in();
    }

    fn take_in(&mut self) {
        self.follow();
        assert_eq!(self.held, hosts(netloom_compile::compile_all(&self.store.snapshot())));
    }

    /// Takes in what was committed, without the full compile, which takes long where there is much.
    pub(crate) fn follow(&mut self) {
        while let Some(event) = self.watch.try_next() {
            if let store::Event::Commit(commit) = event {
                let deltas = self.compiler.apply(&commit.changes);
                let told = deltas
                    .iter()
                    .map(|(host, delta)| (*host, delta.upserts.len() + delta.removes.len()));
                self.told = told.collect();
                follow(&mut self.held, deltas);
            }
        }
    }

    /// The hosts that were told something by the last commit.
    pub(crate) fn told(&self) -> Vec<u32> {
        (0..200).filter(|host| self.told.contains_key(&id(4, *host))).collect()
    }

    pub(crate) fn object(&self, host: u32, table: Table, uuid: Uuid) -> Option<Object> {
        let object = self.held.get(&id(4, host))?.get(&ObjectKey { table, uuid })?;
        Some(Object::clone(object))
    }

    pub(crate) fn port_on(&self, host: u32, nic: u32) -> Port {
        let uuid = id::<model::resource::vm_nic::VmNic>(6, nic).uuid();
        match self.object(host, Table::Port, uuid) {
            Some(Object::Port(port)) => port,
            other => panic!("{other:?}"),
        }
    }
}
