//! Rule sets: what the groups of a port say about one way, as entries of the maps.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use packet::{Cell, Chapter, ChapterKey, ClassKey, Node, selector_of_class, selector_of_identity};
use thiserror::Error;
use wire::{
    object::SecurityGroup,
    policy::{Action, Rule, Way},
};

use crate::{
    forest::{Forest, Id, TooMuch},
    number::{Of, Salt, identity},
    prefixes::{Family, Prefix},
    trees::{self, Trees},
};

/// What is said about the connections of a port that are opened one way.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Its groups, in the order in which they are asked.
    pub groups: &'a [&'a SecurityGroup],
    /// The way.
    pub way: Way,
    /// What becomes of what no group has a rule for.
    pub default: Action,
}

/// Why there are no entries for a rule set. A port with such a policy must be closed: half of the
/// rules are not half of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// More prefixes than a host has room for.
    #[error(
        "its rules name more than {0} prefixes of addresses in one direction, the most that there is \
         room for: name fewer or larger ones"
    )]
    Prefixes(u32),
    /// They take more work than any that make sense.
    #[error(
        "its rules overlap in too many ways to be resolved: use fewer different ports and addresses \
         together"
    )]
    Work,
}

impl From<TooMuch> for Unfit {
    fn from(TooMuch: TooMuch) -> Self {
        Self::Work
    }
}

/// The protocols of a [`Chapter`].
const TREES: usize = 4;
const TCP: usize = 0;
const UDP: usize = 1;
const ICMP: usize = 2;
const OTHER: usize = 3;

/// What is decided by protocol and port.
type Answers = [Id; TREES];

/// Where no rule matches.
const NONE: Cell = Cell { rank: Cell::NONE, rule: 0 };

/// A rule, and what it decides.
struct Ranked<'a> {
    rule: &'a Rule,
    cell: Cell,
}

/// A rule set.
pub struct RuleSet {
    /// Its number: a hash of what it says.
    pub number: u64,
    /// It names groups: identities are to be looked up.
    pub has_members: bool,
    /// It names addresses: classes are to be looked up.
    pub has_classes: bool,
    /// Some of its rules are for single packets.
    pub has_stateless: bool,
    /// Its prefixes and their classes.
    pub classes: BTreeMap<ClassKey, u32>,
    /// The chapters of its classes.
    pub chapters: BTreeMap<ChapterKey, Chapter>,
    /// The groups that it names, with what is decided about their members, for each family.
    members: BTreeMap<u32, [Answers; 2]>,
    /// Groups that a rule which drops names.
    refused: BTreeSet<u32>,
    salt: Salt,
    forest: Forest,
    trees: Trees,
}

impl Said<'_> {
    /// The number of the rule set. Never 0.
    #[must_use]
    pub fn number(&self, salt: Salt) -> u64 {
        let mut hash = salt.hash(Of::RuleSet);
        hash.add(&[action(self.default)]);
        let mut bytes = Vec::new();
        for (rule, is_stateless) in self.rules() {
            bytes.clear();
            put_rule(&mut bytes, rule, is_stateless);
            hash.add(&bytes);
        }
        hash.number().max(1)
    }

    /// The rules of this way, in order, and whether their group is stateless.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (&Rule, bool)> {
        let way = self.way;
        self.groups.iter().flat_map(move |group| {
            let rules = group.rules.iter().filter(move |rule| rule.way == way);
            rules.map(|rule| (rule, group.is_stateless))
        })
    }

    fn ranked(&self) -> (Vec<Ranked<'_>>, Cell) {
        let rules = self.rules().enumerate().map(|(position, (rule, is_stateless))| {
            let stateless = if is_stateless { Cell::STATELESS } else { 0 };
            let rank = rank(position, rule.action) | stateless;
            Ranked { rule, cell: Cell { rank, rule: rule.number } }
        });
        let rules: Vec<_> = rules.collect();
        let default = Cell { rank: rank(rules.len(), self.default), rule: 0 };
        (rules, default)
    }
}

/// A rank but for [`Cell::STATELESS`]. No message has as many rules as ranks can tell apart.
fn rank(position: usize, action: Action) -> u32 {
    let position = u32::try_from(position).unwrap_or(u32::MAX).min((u32::MAX >> 2) - 1);
    let accept = match action {
        Action::Accept => Cell::ACCEPT,
        Action::Drop => 0,
    };
    position << 2 | accept
}

const fn action(action: Action) -> u8 {
    match action {
        Action::Accept => 1,
        Action::Drop => 2,
    }
}

/// All of a rule that has a meaning for packets, so that no two rules give the same bytes: whatever
/// there may be several of comes with its count.
fn put_rule(bytes: &mut Vec<u8>, rule: &Rule, is_stateless: bool) {
    bytes.extend(rule.number.to_be_bytes());
    bytes.extend([is_stateless.into(), rule.is_v6.into(), action(rule.action)]);
    bytes.extend([rule.protocol.is_some().into(), rule.protocol.unwrap_or_default()]);
    bytes.push(rule.group.is_some().into());
    bytes.extend(rule.group.unwrap_or_default().to_be_bytes());
    bytes.extend((rule.ports.len() as u64).to_be_bytes());
    for span in &rule.ports {
        bytes.extend(span.first.to_be_bytes());
        bytes.extend(span.last.to_be_bytes());
    }
    bytes.extend((rule.addresses.len() as u64).to_be_bytes());
    for ip in rule.addresses.iter().flat_map(|span| [span.first, span.last]) {
        bytes.push(ip.is_ipv6().into());
        bytes.extend(packet::Addr::from(ip).octets());
    }
}

impl RuleSet {
    /// Compiles what is said. Takes time in proportion to the rules, their ports and their prefixes.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn compile(said: &Said<'_>, salt: Salt) -> Result<Self, Unfit> {
        let (rules, default) = said.ranked();
        let (mut forest, mut trees) = (Forest::default(), Trees::new(salt));
        let mut set = Self {
            number: said.number(salt),
            has_members: false,
            has_classes: false,
            has_stateless: said.rules().any(|(_, is_stateless)| is_stateless),
            classes: BTreeMap::new(),
            chapters: BTreeMap::new(),
            members: BTreeMap::new(),
            refused: BTreeSet::new(),
            salt,
            forest: Forest::default(),
            trees: Trees::new(salt),
        };
        for family in Family::ALL {
            let rules: Vec<_> = rules.iter().filter(|r| r.rule.is_v6 == family.is_v6()).collect();
            set.compile_classes(family, &rules, default, (&mut forest, &mut trees))?;
            set.compile_members(family, &rules)?;
        }
        set.has_classes = !set.classes.is_empty();
        set.has_members = !set.members.is_empty();
        set.trees.nodes = trees.nodes;
        Ok(set)
    }

    /// The groups that its rules name.
    pub fn names(&self) -> impl Iterator<Item = u32> {
        self.members.keys().copied()
    }

    /// Whether a rule which drops names one of these groups: a member that is not known as one would
    /// pass.
    #[must_use]
    pub fn refuses(&self, groups: &[u32]) -> bool {
        groups.iter().any(|group| self.refused.contains(group))
    }

    /// A node of the trees of the chapters that were made.
    #[must_use]
    pub fn node(&self, key: u64) -> Option<&Node> {
        self.trees.nodes.get(&key)
    }

    /// The nodes right below a node.
    pub fn below(key: u64, node: &Node) -> impl Iterator<Item = u64> {
        trees::below(key, node)
    }

    /// The chapters about NICs that are in exactly these groups, sorted; none if it names none of
    /// them.
    ///
    /// # Errors
    /// [`Unfit::Work`].
    pub fn about(&mut self, groups: &[u32]) -> Result<BTreeMap<ChapterKey, Chapter>, Unfit> {
        let mut chapters = BTreeMap::new();
        let identity = identity(self.salt, groups);
        self.forest.rest();
        for family in Family::ALL {
            let of = |answers: &[Answers; 2]| answers[usize::from(family.is_v6())];
            let named = groups.iter().filter_map(|group| self.members.get(group).map(of));
            let Some(all) = merged(&mut self.forest, named)? else { continue };
            let chapter = chapter(&self.forest, &mut self.trees, all);
            if chapter != Chapter::default() {
                let selector = selector_of_identity(identity, family.is_v6());
                chapters.insert(ChapterKey { ruleset: self.number, selector }, chapter);
            }
        }
        Ok(chapters)
    }

    fn compile_members(&mut self, family: Family, rules: &[&Ranked<'_>]) -> Result<(), Unfit> {
        let none = self.forest.same(NONE);
        for ranked in rules {
            let Some(group) = ranked.rule.group else { continue };
            if ranked.rule.action == Action::Drop {
                self.refused.insert(group);
            }
            let answers = self.members.entry(group).or_insert([[none; TREES]; 2]);
            lay(&mut self.forest, &mut answers[usize::from(family.is_v6())], family, ranked)?;
        }
        Ok(())
    }

    /// Prefixes come after those that they are in, so what is decided about these is known. Classes
    /// are as many as there are different answers, and a prefix about which nothing else is decided
    /// than about that around it needs no entry.
    fn compile_classes(
        &mut self,
        family: Family,
        rules: &[&Ranked<'_>],
        default: Cell,
        (forest, trees): (&mut Forest, &mut Trees),
    ) -> Result<(), Unfit> {
        let mut base = [forest.same(default); TREES];
        let anywhere = |r: &&&Ranked<'_>| r.rule.addresses.is_empty() && r.rule.group.is_none();
        for ranked in rules.iter().filter(anywhere) {
            lay(forest, &mut base, family, ranked)?;
        }
        let mut classes: HashMap<Answers, u32> = HashMap::from([(base, 0)]);
        let mut laid: HashMap<(Answers, Vec<usize>), Answers> = HashMap::new();
        let mut around: Vec<(Prefix, Answers)> = Vec::new();
        self.add_chapter(family, 0, chapter(forest, trees, base));
        for (prefix, own) in prefixes(family, rules)? {
            while around.last().is_some_and(|(of, _)| !family.has(*of, prefix)) {
                around.pop();
            }
            let before = around.last().map_or(base, |(_, answers)| *answers);
            let answers = match laid.get(&(before, own.clone())) {
                Some(answers) => *answers,
                None => {
                    let mut answers = before;
                    for index in &own {
                        lay(forest, &mut answers, family, rules[*index])?;
                    }
                    laid.insert((before, own), answers);
                    answers
                }
            };
            around.push((prefix, answers));
            if answers == before {
                continue;
            }
            let next = u32::try_from(classes.len()).unwrap_or(u32::MAX);
            let class = *classes.entry(answers).or_insert(next);
            if class == next {
                self.add_chapter(family, class, chapter(forest, trees, answers));
            }
            let key = ClassKey::new(self.number, family.addr(prefix), prefix.bits);
            self.classes.insert(key, class);
        }
        Ok(())
    }

    fn add_chapter(&mut self, family: Family, class: u32, chapter: Chapter) {
        let selector = selector_of_class(class, family.is_v6());
        self.chapters.insert(ChapterKey { ruleset: self.number, selector }, chapter);
    }
}

/// All prefixes of rules, in order, with the positions of the rules that name them.
fn prefixes(family: Family, rules: &[&Ranked<'_>]) -> Result<BTreeMap<Prefix, Vec<usize>>, Unfit> {
    let mut prefixes: BTreeMap<Prefix, Vec<usize>> = BTreeMap::new();
    let mut count = 0;
    for (index, ranked) in rules.iter().enumerate() {
        for prefix in ranked.rule.addresses.iter().flat_map(|span| family.prefixes(span)) {
            let own = prefixes.entry(prefix).or_default();
            if own.last() != Some(&index) {
                own.push(index);
            }
            count += 1;
            if prefixes.len() > packet::MAX_CLASSES as usize || count > PREFIXES_MAX {
                return Err(Unfit::Prefixes(packet::MAX_CLASSES));
            }
        }
    }
    Ok(prefixes)
}

/// Prefixes of rules at most, where several rules have the same.
const PREFIXES_MAX: u32 = 4 * packet::MAX_CLASSES;

/// Lays a rule over what is decided so far.
fn lay(
    forest: &mut Forest,
    answers: &mut Answers,
    family: Family,
    ranked: &Ranked<'_>,
) -> Result<(), TooMuch> {
    let rule = ranked.rule;
    let mut over = |tree: usize, number: Option<u8>| {
        let number = number.map(u16::from).map(|number| (number, number));
        let ports = rule.ports.iter().map(|span| (span.first, span.last));
        let is_any = number.is_none() && rule.ports.is_empty();
        let everywhere = is_any.then_some((0, u16::MAX));
        let spans = number.into_iter().chain(ports).chain(everywhere);
        answers[tree] = forest.lay(answers[tree], spans, ranked.cell)?;
        Ok(())
    };
    match rule.protocol.map(|protocol| (tree(family, protocol), protocol)) {
        // There are no ports that are the same thing for all protocols.
        None if !rule.ports.is_empty() => Ok(()),
        None => (0..TREES).try_for_each(|tree| over(tree, None)),
        // What is not known to have ports has none that match.
        Some((OTHER, _)) if !rule.ports.is_empty() => Ok(()),
        Some((OTHER, protocol)) => over(OTHER, Some(protocol)),
        Some((tree, _)) => over(tree, None),
    }
}

/// Which tree of a chapter has a protocol. ICMP is that of the family: any other is a number like
/// another.
pub(crate) const fn tree(family: Family, protocol: u8) -> usize {
    match (family, protocol) {
        (_, 6) => TCP,
        (_, 17) => UDP,
        (Family::V4, 1) | (Family::V6, 58) => ICMP,
        _ => OTHER,
    }
}

/// The tree of a chapter.
pub(crate) const fn root(chapter: &Chapter, tree: usize) -> u64 {
    [chapter.tcp, chapter.udp, chapter.icmp, chapter.other][tree]
}

/// Whether the trees of [`root`] are by port, and not by protocol number.
pub(crate) const fn has_ports(tree: usize) -> bool {
    tree != OTHER
}

fn merged(
    forest: &mut Forest,
    all: impl Iterator<Item = Answers>,
) -> Result<Option<Answers>, TooMuch> {
    let mut merged: Option<Answers> = None;
    for answers in all {
        let mut both = merged.unwrap_or(answers);
        for (one, other) in both.iter_mut().zip(answers) {
            *one = forest.merge(*one, other)?;
        }
        merged = Some(both);
    }
    Ok(merged)
}

fn chapter(forest: &Forest, trees: &mut Trees, answers: Answers) -> Chapter {
    let [tcp, udp, icmp, other] = answers.map(|id| match forest.is_same(id, NONE) {
        true => 0,
        false => trees.root(forest, id),
    });
    Chapter { tcp, udp, icmp, other }
}
