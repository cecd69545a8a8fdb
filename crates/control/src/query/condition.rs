//! Conditions: a path, and what a value at its end must be.
//!
//! A condition over relations holds if **any** related resource meets it, whatever the operator:
//! `vmNics.ip!=10.0.0.1` finds instances with a NIC that has another address, as ZStack's sub-query
//! does. Without related resources none holds, `is null` neither. Tags are values of the resource
//! instead: `__userTag__!=a` finds what has no tag `a`, and `is null` what has none.

use std::cmp::Ordering;

use model::{Error, FieldType, Plain, Result};
use uuid::Uuid;

use super::{path::Path, pattern::Pattern, value};

/// Most values that one condition names.
pub const VALUES_MAX: usize = 10_000;

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
    NotLike,
    In,
    NotIn,
    IsNull,
    NotNull,
}

impl Operator {
    /// What holds where one of these does not; `None` for those that say what a value is.
    const fn opposite(self) -> Option<Self> {
        match self {
            Self::NotEqual => Some(Self::Equal),
            Self::NotIn => Some(Self::In),
            Self::NotLike => Some(Self::Like),
            Self::IsNull => Some(Self::NotNull),
            Self::Equal
            | Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual
            | Self::Like
            | Self::In
            | Self::NotNull => None,
        }
    }
}

/// What resources must meet to be found.
#[derive(Clone, Debug)]
pub struct Condition {
    pub(crate) path: Path,
    pub(crate) test: Test,
    /// No related resource may meet the test.
    pub(crate) is_negated: bool,
}

/// What a value must be.
#[derive(Clone, Debug)]
pub(crate) struct Test {
    operator: Operator,
    /// What to compare with, ascending.
    wanted: Vec<Plain<'static>>,
    pattern: Option<Pattern>,
}

impl Condition {
    /// Reads the values as what they are compared with, once. [`Operator::In`] and
    /// [`Operator::NotIn`] take several; those that ask for `null` none; all others one.
    ///
    /// # Errors
    /// [`model::Code::InvalidArgument`], blaming `key`, for what the field cannot be.
    pub fn read(key: &str, path: Path, operator: Operator, values: &[&str]) -> Result<Self> {
        let kind = path.value_type();
        let (operator, is_negated) = match operator.opposite() {
            Some(opposite) if path.of_tags => (opposite, true),
            _ => (operator, false),
        };
        let test = Test::read(kind, operator, values).map_err(|rule| {
            let error = Error::field(key, format!("{}: {rule}", path.end.name()));
            error.hint(format!("{} is compared with {}", path.end.name(), value::form(kind)))
        })?;
        Ok(Self { path, test, is_negated })
    }
}

impl Test {
    fn read(kind: FieldType, operator: Operator, values: &[&str]) -> Result<Self, String> {
        use Operator::{
            Equal, Greater, GreaterOrEqual, In, IsNull, Less, LessOrEqual, Like, NotEqual, NotIn,
            NotLike, NotNull,
        };
        if values.len() > VALUES_MAX {
            return Err(format!("{} values are more than {VALUES_MAX}", values.len()));
        }
        let ordered = matches!(operator, Less | LessOrEqual | Greater | GreaterOrEqual);
        if ordered && matches!(kind, FieldType::List(_)) {
            return Err("a list is neither before nor after a value".to_owned());
        }
        let mut test = Self { operator, wanted: Vec::new(), pattern: None };
        match (operator, values) {
            (IsNull | NotNull, []) => {}
            (Like | NotLike, [pattern]) => test.pattern = Some(Pattern::new(kind, pattern)),
            (In | NotIn, several) => {
                let read = several.iter().map(|text| value::read(kind, text));
                test.wanted = read.collect::<Result<_, _>>()?;
                test.wanted.sort_by(|a, b| a.order(b).unwrap_or(Ordering::Equal));
                test.wanted.dedup();
            }
            (Equal | NotEqual | Less | LessOrEqual | Greater | GreaterOrEqual, [one]) => {
                test.wanted.push(value::read(kind, one)?);
            }
            _ => return Err(format!("{operator:?} does not go with {} values", values.len())),
        }
        Ok(test)
    }

    /// Being one of these, which are ascending.
    pub(crate) fn is_one_of(ids: &[Uuid]) -> Self {
        let wanted = ids.iter().map(|id| Plain::Uuid(*id)).collect();
        Self { operator: Operator::In, wanted, pattern: None }
    }

    /// Whether a value meets it. A list meets what one of its items meets; what is not there meets
    /// `is null` alone.
    pub(crate) fn holds(&self, value: &Plain<'_>) -> bool {
        if value.is_null() {
            return self.operator == Operator::IsNull;
        }
        let items = value.items();
        let any = |test: fn(Ordering) -> bool| {
            let meets = |item: &Plain<'_>| {
                let mut wanted = self.wanted.iter();
                wanted.any(|wanted| item.order(wanted).is_some_and(test))
            };
            items.iter().any(meets)
        };
        match self.operator {
            Operator::Equal | Operator::In => items.iter().any(|item| self.names(item)),
            Operator::NotEqual | Operator::NotIn => !items.iter().any(|item| self.names(item)),
            Operator::Less => any(Ordering::is_lt),
            Operator::LessOrEqual => any(Ordering::is_le),
            Operator::Greater => any(Ordering::is_gt),
            Operator::GreaterOrEqual => any(Ordering::is_ge),
            Operator::Like => items.iter().any(|item| self.fits(item)),
            Operator::NotLike => !items.iter().any(|item| self.fits(item)),
            Operator::IsNull => false,
            Operator::NotNull => true,
        }
    }

    /// The values that what meets it has one of; `None` where that is not all that meets it.
    pub(crate) fn values(&self) -> Option<&[Plain<'static>]> {
        matches!(self.operator, Operator::Equal | Operator::In).then_some(&self.wanted)
    }

    fn names(&self, item: &Plain<'_>) -> bool {
        let place = |wanted: &Plain<'_>| wanted.order(item).unwrap_or(Ordering::Less);
        self.wanted.binary_search_by(place).is_ok()
    }

    fn fits(&self, item: &Plain<'_>) -> bool {
        self.pattern.as_ref().is_some_and(|pattern| match item {
            Plain::Text(text) => pattern.fits(text),
            other => pattern.fits(&other.to_text()),
        })
    }
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::*;

    fn check(kind: FieldType, value: &Plain<'_>, cases: &[(Operator, &[&str], bool)]) {
        for (operator, values, expected) in cases {
            let test = Test::read(kind, *operator, values).unwrap();
            assert_eq!(test.holds(value), *expected, "{value:?} {operator:?} {values:?}");
        }
    }

    #[test]
    fn numbers_compare_as_numbers() {
        use Operator::{Equal, Greater, In, Like, NotEqual, NotIn};
        let cases: &[(Operator, &[&str], bool)] = &[
            (Equal, &[" 100 "], true),
            (Equal, &["0100"], true),
            (NotEqual, &["100"], false),
            (In, &["99", " 100"], true),
            (NotIn, &["99", "100"], false),
            (Greater, &["99"], true),
            (Greater, &["1000"], false),
            (Like, &["1%"], true),
        ];
        check(FieldType::Integer, &Plain::Integer(100), cases);
    }

    #[test]
    fn nothing_meets_is_null_alone() {
        use Operator::{Equal, IsNull, Less, Like, NotEqual, NotIn, NotLike, NotNull};
        let cases: &[(Operator, &[&str], bool)] = &[
            (IsNull, &[], true),
            (NotNull, &[], false),
            (Equal, &["1"], false),
            (NotEqual, &["1"], false),
            (NotIn, &["1"], false),
            (Less, &["1"], false),
            (Like, &["%"], false),
            (NotLike, &["1"], false),
        ];
        check(FieldType::Integer, &Plain::Null, cases);
    }

    #[test]
    fn a_list_is_asked_for_its_items() {
        use Operator::{Equal, In, Like, NotEqual, NotIn, NotNull};
        let kind = FieldType::List(&FieldType::Text);
        let cases: &[(Operator, &[&str], bool)] = &[
            (Equal, &["b"], true),
            (Equal, &["c"], false),
            (NotEqual, &["b"], false),
            (NotEqual, &["c"], true),
            (In, &["c", "b"], true),
            (NotIn, &["c", "b"], false),
            (NotIn, &["c", "d"], true),
            (Like, &["%b%"], true),
            (NotNull, &[], true),
        ];
        check(kind, &Plain::List(vec![Plain::word("a"), Plain::word("b")]), cases);
        let cases: &[(Operator, &[&str], bool)] =
            &[(Equal, &["b"], false), (NotEqual, &["b"], true)];
        check(kind, &Plain::List(Vec::new()), cases);
        Test::read(kind, Operator::Greater, &["a"]).unwrap_err();
    }

    #[test]
    fn times_compare_as_times_in_each_form() {
        use Operator::{Equal, Greater, In, Less, Like, NotEqual};
        let at: Timestamp = "2026-04-01 13:00:00".parse().unwrap();
        let cases: &[(Operator, &[&str], bool)] = &[
            (Equal, &["2026-04-01 13:00:00"], true),
            (Equal, &["Apr 1, 2026 1:00:00 PM"], true),
            (NotEqual, &["Apr 1, 2026 1:00:01 PM"], true),
            (In, &["2026-01-01 00:00:00", "Apr 1, 2026 1:00:00 PM"], true),
            (Greater, &["2026-03-09 00:00:00"], true),
            (Less, &["2026-03-09 00:00:00"], false),
            (Like, &["Apr%"], true),
        ];
        check(FieldType::Time, &Plain::Time(at), cases);
    }

    #[test]
    fn addresses_are_ordered_as_addresses() {
        use Operator::{Equal, Less};
        let ip = Plain::Ip("10.0.0.9".parse().unwrap());
        check(FieldType::Ip, &ip, &[(Less, &["10.0.0.10"], true), (Equal, &["10.0.0.9"], true)]);
        let ip = Plain::Ip("fe80::1".parse().unwrap());
        check(FieldType::Ip, &ip, &[(Equal, &["FE80:0::1"], true)]);
    }
}
