//! The syntax of ZQL: text to statements. Source: `search/src/main/antlr4/ZQL.g4` of zstackio/zstack.
//! *And* binds tighter than *or*. Not here: `filter by` and `getapi`, which call ZStack's plugins.

use model::{Error, Result};
use winnow::{
    ModalResult, Parser,
    combinator::{alt, cut_err, delimited, eof, opt, preceded, separated, terminated},
    error::{ContextError, ErrMode, StrContext, StrContextValue},
    token::{take_till, take_while},
};

use crate::{
    invisible,
    query::{Direction, Operator},
};

/// How deep parentheses and sub-queries may be nested.
const DEPTH_MAX: usize = 32;
/// Most statements of one text.
pub(super) const STATEMENTS_MAX: usize = 32;

/// What a statement asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Query,
    Count,
    Sum,
}

/// A statement.
#[derive(Debug)]
pub(super) struct Statement<'t> {
    pub(super) verb: Verb,
    pub(super) target: Target<'t>,
    /// Of a sum, the field that tells its groups.
    pub(super) by: Option<&'t str>,
    pub(super) filter: Vec<Cond<'t>>,
    pub(super) returns: Vec<&'t str>,
    pub(super) group_by: Vec<&'t str>,
    pub(super) order_by: Vec<(&'t str, Direction)>,
    pub(super) limit: Option<&'t str>,
    pub(super) offset: Option<&'t str>,
    pub(super) name: Option<&'t str>,
}

/// What it is about: `vminstance`, `vminstance.name,uuid`, `distinct(vminstance.name)`.
#[derive(Debug, PartialEq)]
pub(super) struct Target<'t> {
    pub(super) entity: &'t str,
    pub(super) fields: Vec<&'t str>,
    pub(super) is_distinct: bool,
}

/// A condition.
#[derive(Debug, PartialEq)]
pub(super) enum Cond<'t> {
    All(Vec<Cond<'t>>),
    Any(Vec<Cond<'t>>),
    Is { path: &'t str, operator: Word, operand: Operand<'t> },
}

/// An operator: what queries have anyway, or one of ZQL alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Plain(Operator),
    /// All values of a list are there.
    Has,
    /// Not all of them are.
    HasNot,
}

/// What a value is compared with.
#[derive(Debug, PartialEq)]
pub(super) enum Operand<'t> {
    Values(Vec<&'t str>),
    Query { target: Target<'t>, filter: Option<Box<Cond<'t>>> },
}

/// Reads the statements of a text.
///
/// # Errors
/// [`model::Code::InvalidArgument`] with the place and what could stand there.
pub(super) fn parse(text: &str) -> Result<Vec<Statement<'_>>> {
    let text = text.trim();
    let mut rest = text;
    statements(&mut rest).map_err(|error| {
        let at = text[..text.len() - rest.len()].chars().count() + 1;
        let near: String = rest.chars().take(20).map(seen).collect();
        let cause = error.into_inner().map(|cause| cause.to_string()).unwrap_or_default();
        let cause = match cause.trim() {
            "" => "not understood".to_owned(),
            cause => cause.replace('\n', "; "),
        };
        let error = Error::field("zql", format!("at character {at}, before \"{near}\": {cause}"));
        error.hint(
            "query|count|sum <resource>[.<fields>] [where ..] [return with (total)] [group by ..] \
             [order by .. asc|desc] [limit ..] [offset ..] [named as '..']",
        )
    })
}

/// As it stands in a line of an error.
fn seen(c: char) -> char {
    match c {
        _ if c.is_whitespace() => ' ',
        _ if invisible::is_hidden(c) => char::REPLACEMENT_CHARACTER,
        _ => c,
    }
}

fn statements<'t>(input: &mut &'t str) -> ModalResult<Vec<Statement<'t>>> {
    let several = separated(1..=STATEMENTS_MAX, statement, symbol(";")).parse_next(input)?;
    let end = eof.context(expected("the end of the statement"));
    (opt(symbol(";")), end).parse_next(input)?;
    Ok(several)
}

fn expected(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

fn is_letter(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// White space of every kind: statements are written in several lines, and copied from anywhere.
fn blanks(input: &mut &str) -> ModalResult<()> {
    take_while(0.., char::is_whitespace).void().parse_next(input)
}

/// A word with the blanks behind it.
fn word<'t>(input: &mut &'t str) -> ModalResult<&'t str> {
    terminated(take_while(1.., is_letter), blanks).context(expected("a name")).parse_next(input)
}

/// Words of the language, in any case.
fn words<'t>(
    wanted: &'static [&'static str],
) -> impl Parser<&'t str, (), ErrMode<ContextError>> + Copy {
    move |input: &mut &'t str| {
        for wanted in wanted {
            word.verify(|word: &str| word.eq_ignore_ascii_case(wanted)).parse_next(input)?;
        }
        Ok(())
    }
}

/// A sign with the blanks behind it.
fn symbol<'t>(sign: &'static str) -> impl Parser<&'t str, (), ErrMode<ContextError>> {
    (sign, blanks).void()
}

/// A field, or one of related resources.
fn path<'t>(input: &mut &'t str) -> ModalResult<&'t str> {
    let names = separated::<_, _, (), _, _, _, _>(1.., take_while(1.., is_letter), '.').take();
    terminated(names, blanks).context(expected("a field")).parse_next(input)
}

fn list<'t>(input: &mut &'t str) -> ModalResult<Vec<&'t str>> {
    separated(1.., word, symbol(",")).parse_next(input)
}

fn statement<'t>(input: &mut &'t str) -> ModalResult<Statement<'t>> {
    let verb = alt((
        words(&["query"]).value(Verb::Query),
        words(&["count"]).value(Verb::Count),
        words(&["sum"]).value(Verb::Sum),
    ));
    let verb = verb.context(expected("query, count or sum")).parse_next(input)?;
    let target = cut_err(target).parse_next(input)?;
    let by = opt(preceded(words(&["by"]), cut_err(word))).parse_next(input)?;
    let mut filter = Vec::new();
    if opt(words(&["where"])).parse_next(input)?.is_some() {
        filter.push(cut_err(|input: &mut &'t str| any(input, 0)).parse_next(input)?);
    }
    if opt(words(&["restrict", "by"])).parse_next(input)?.is_some() {
        let each = separated(1.., |input: &mut &'t str| is(input, 0), symbol(","));
        let mut all: Vec<Cond<'t>> =
            cut_err(delimited(symbol("("), each, symbol(")"))).parse_next(input)?;
        filter.append(&mut all);
    }
    let names = delimited(symbol("("), list, symbol(")"));
    let returns = opt(preceded(words(&["return", "with"]), cut_err(names))).parse_next(input)?;
    let group_by = opt(preceded(words(&["group", "by"]), cut_err(list))).parse_next(input)?;
    let orders = separated(1.., order, symbol(","));
    let order_by = opt(preceded(words(&["order", "by"]), cut_err(orders))).parse_next(input)?;
    let limit = opt(preceded(words(&["limit"]), cut_err(number))).parse_next(input)?;
    let offset = opt(preceded(words(&["offset"]), cut_err(number))).parse_next(input)?;
    let name = opt(preceded(words(&["named", "as"]), cut_err(string))).parse_next(input)?;
    let (returns, group_by) = (returns.unwrap_or_default(), group_by.unwrap_or_default());
    let order_by = order_by.unwrap_or_default();
    Ok(Statement { verb, target, by, filter, returns, group_by, order_by, limit, offset, name })
}

fn order<'t>(input: &mut &'t str) -> ModalResult<(&'t str, Direction)> {
    let direction = alt((
        words(&["asc"]).value(Direction::Ascending),
        words(&["desc"]).value(Direction::Descending),
    ));
    let (field, direction) = (word, opt(direction)).parse_next(input)?;
    Ok((field, direction.unwrap_or(Direction::Ascending)))
}

fn target<'t>(input: &mut &'t str) -> ModalResult<Target<'t>> {
    if opt(words(&["distinct"])).parse_next(input)?.is_some() {
        let inner = delimited(symbol("("), plain_target, symbol(")")).parse_next(input)?;
        return Ok(Target { is_distinct: true, ..inner });
    }
    plain_target(input)
}

fn plain_target<'t>(input: &mut &'t str) -> ModalResult<Target<'t>> {
    let entity = take_while(1.., is_letter).context(expected("a resource, such as vminstance"));
    let (entity, fields) =
        (entity, opt(preceded('.', separated(1.., path, symbol(","))))).parse_next(input)?;
    blanks.parse_next(input)?;
    Ok(Target { entity, fields: fields.unwrap_or_default(), is_distinct: false })
}

fn any<'t>(input: &mut &'t str, depth: usize) -> ModalResult<Cond<'t>> {
    let branch = |input: &mut &'t str| all(input, depth);
    let mut branches: Vec<Cond<'t>> = separated(1.., branch, words(&["or"])).parse_next(input)?;
    Ok(match branches.len() {
        1 => branches.remove(0),
        _ => Cond::Any(branches),
    })
}

fn all<'t>(input: &mut &'t str, depth: usize) -> ModalResult<Cond<'t>> {
    let branch = |input: &mut &'t str| single(input, depth);
    let mut branches: Vec<Cond<'t>> = separated(1.., branch, words(&["and"])).parse_next(input)?;
    Ok(match branches.len() {
        1 => branches.remove(0),
        _ => Cond::All(branches),
    })
}

fn single<'t>(input: &mut &'t str, depth: usize) -> ModalResult<Cond<'t>> {
    if opt(symbol("(")).parse_next(input)?.is_none() {
        return is(input, depth);
    }
    deeper(depth)?;
    let inner = |input: &mut &'t str| any(input, depth + 1);
    terminated(inner, symbol(")").context(expected("a closing parenthesis"))).parse_next(input)
}

/// Goes one level deeper.
fn deeper(depth: usize) -> ModalResult<()> {
    if depth < DEPTH_MAX {
        return Ok(());
    }
    let mut error = ContextError::new();
    error.push(expected("less than 32 levels of parentheses"));
    Err(ErrMode::Cut(error))
}

fn is<'t>(input: &mut &'t str, depth: usize) -> ModalResult<Cond<'t>> {
    let (path, operator) = (path, operator).parse_next(input)?;
    let operand = match operator {
        Word::Plain(Operator::IsNull | Operator::NotNull) => Operand::Values(Vec::new()),
        _ => operand(input, depth)?,
    };
    Ok(Cond::Is { path, operator, operand })
}

fn operator(input: &mut &str) -> ModalResult<Word> {
    let plain = |operator| Word::Plain(operator);
    let signs = alt((
        symbol("!=").value(plain(Operator::NotEqual)),
        symbol(">=").value(plain(Operator::GreaterOrEqual)),
        symbol("<=").value(plain(Operator::LessOrEqual)),
        symbol("=").value(plain(Operator::Equal)),
        symbol(">").value(plain(Operator::Greater)),
        symbol("<").value(plain(Operator::Less)),
    ));
    let named = alt((
        words(&["is", "null"]).value(plain(Operator::IsNull)),
        words(&["is", "not", "null"]).value(plain(Operator::NotNull)),
        words(&["in"]).value(plain(Operator::In)),
        words(&["not", "in"]).value(plain(Operator::NotIn)),
        words(&["like"]).value(plain(Operator::Like)),
        words(&["not", "like"]).value(plain(Operator::NotLike)),
        words(&["has"]).value(Word::Has),
        words(&["not", "has"]).value(Word::HasNot),
    ));
    alt((signs, named)).context(expected("an operator, such as = or like")).parse_next(input)
}

fn operand<'t>(input: &mut &'t str, depth: usize) -> ModalResult<Operand<'t>> {
    if opt(symbol("(")).parse_next(input)?.is_none() {
        return value.map(|value| Operand::Values(vec![value])).parse_next(input);
    }
    let close = || symbol(")").context(expected("a closing parenthesis"));
    if opt(words(&["query"])).parse_next(input)?.is_none() {
        let values = terminated(separated(0.., value, symbol(",")), close());
        return cut_err(values).map(Operand::Values).parse_next(input);
    }
    deeper(depth)?;
    let target = cut_err(plain_target).parse_next(input)?;
    let mut filter = None;
    if opt(words(&["where"])).parse_next(input)?.is_some() {
        filter = Some(Box::new(any(input, depth + 1)?));
    }
    close().parse_next(input)?;
    Ok(Operand::Query { target, filter })
}

fn value<'t>(input: &mut &'t str) -> ModalResult<&'t str> {
    let bare = |c: char| is_letter(c) || matches!(c, '-' | '.');
    let bare = terminated(take_while(1.., bare), blanks);
    let is_bare = |text: &&str| text.parse::<f64>().is_ok() || matches!(*text, "true" | "false");
    let what = "a text in quotes whose characters can all be seen, a number, true or false";
    alt((string, bare.verify(is_bare))).context(expected(what)).parse_next(input)
}

fn string<'t>(input: &mut &'t str) -> ModalResult<&'t str> {
    // Names have no such characters: a text that has them was meant otherwise than it looks.
    let until = |quote: char| take_till(0.., move |c| c == quote || invisible::is_hidden(c));
    let quoted = alt((delimited('\'', until('\''), '\''), delimited('"', until('"'), '"')));
    let what = "a text in quotes whose characters can all be seen";
    terminated(quoted, blanks).context(expected(what)).parse_next(input)
}

fn number<'t>(input: &mut &'t str) -> ModalResult<&'t str> {
    let digits = take_while(1.., |c: char| c.is_ascii_digit());
    terminated(digits, blanks).context(expected("a whole number")).parse_next(input)
}
