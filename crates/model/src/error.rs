//! The one error type that crosses crate borders, and the one table of its codes.
//!
//! Codes are ZStack's where it has one, else `NL.*`. All doors share this table; only `api` reads
//! its last three columns.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::resource::l2_realiser::L2Realisation;

/// What every fallible public function of the control plane returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = ($code:literal, $http:literal, $neutron:literal, $cloudstack:literal),)*) => {
        /// A stable error code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code as clients see it, such as `SYS.1003`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code,)* }
            }

            /// The HTTP status for doors that map errors to one.
            #[must_use]
            pub const fn http_status(self) -> u16 {
                match self { $(Code::$name => $http,)* }
            }

            /// Neutron's error `type`; `{Resource}` stands for the resource's name.
            #[must_use]
            pub const fn neutron_type(self) -> &'static str {
                match self { $(Code::$name => $neutron,)* }
            }

            /// CloudStack's error number.
            #[must_use]
            pub const fn cloudstack_number(self) -> u16 {
                match self { $(Code::$name => $cloudstack,)* }
            }
        }
    };
}

codes! {
    /// A defect of netloom's own.
    Internal = ("SYS.1000", 500, "InternalServerError", 530),
    /// The work did not finish in its time.
    Timeout = ("SYS.1001", 504, "Timeout", 530),
    /// No such uuid, or not yours.
    NotFound = ("SYS.1003", 404, "{Resource}NotFound", 431),
    /// The resource's state or relations forbid the operation.
    OperationFailed = ("SYS.1006", 409, "Conflict", 431),
    /// A field fails its rule.
    InvalidArgument = ("SYS.1007", 400, "InvalidInput", 431),
    /// Somebody ended the waiting for it.
    Canceled = ("SYS.1017", 409, "Conflict", 431),
    /// Wrong name or password.
    AuthenticationFailed = ("ID.1000", 401, "Unauthorized", 401),
    /// The session is unknown or expired.
    InvalidSession = ("ID.1001", 401, "Unauthorized", 401),
    /// The account may not do that.
    AccessDenied = ("ID.1002", 403, "Forbidden", 531),
    /// A project is at its limit.
    QuotaExceeded = ("ID.1003", 409, "OverQuota", 532),
    /// No VNI can be given.
    VniExhausted = ("L2.1001", 409, "NoNetworkAvailable", 533),
    /// No free address in the L3, or the wanted one is taken.
    IpExhausted = ("L3.1000", 409, "IpAddressGenerationFailure", 533),
    /// A name that must be unique is taken.
    Duplicate = ("NL.1001", 409, "Conflict", 431),
    /// A resource with this uuid exists.
    UuidTaken = ("NL.1002", 409, "Conflict", 431),
    /// Other resources still need this one.
    InUse = ("NL.1003", 409, "{Resource}InUse", 431),
    /// No host fits.
    NoHost = ("NL.1004", 409, "Conflict", 533),
    /// A realiser has not brought an L2 network to where it is needed.
    NotRealised = ("NL.1008", 503, "ServiceUnavailable", 530),
    /// The store cannot be written or read.
    StoreUnavailable = ("NL.1005", 503, "ServiceUnavailable", 530),
    /// The host's enrolment token is unknown, used or expired.
    EnrolmentRefused = ("NL.1006", 403, "Forbidden", 432),
    /// More is asked for at once than the server takes on.
    Overloaded = ("NL.1007", 503, "ServiceUnavailable", 530),
}

/// An error with a stable code that tells the user what to do.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    /// The stable code.
    pub code: Code,
    /// What happened, to which resource, for the caller.
    pub message: String,
    /// The field that breaks a rule, in the API's spelling.
    pub field: Option<String>,
    /// What the caller can do about it.
    pub hint: Option<String>,
    /// What lies behind it; for the log, never for the caller.
    pub cause: Option<String>,
    /// What has to be realised out of process first: then the same call may be done.
    pub unrealised: Option<Box<[L2Realisation]>>,
}

impl Error {
    /// An error with a message for the caller.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            hint: None,
            cause: None,
            unrealised: None,
        }
    }

    /// A field breaks a rule. Both texts may repeat what the caller sent, so they are cut: errors
    /// are kept for a while and must stay small.
    pub fn field(name: &str, rule: impl fmt::Display) -> Self {
        let (name, rule) = (cut(name, NAME_MAX), cut(&rule.to_string(), RULE_MAX));
        let mut error = Self::new(Code::InvalidArgument, format!("field {name}: {rule}"));
        error.field = Some(name);
        error
    }

    /// No resource of this kind has this uuid.
    pub fn not_found(kind: &str, uuid: impl fmt::Display) -> Self {
        let hint = format!("list what exists with Query{kind}");
        Self::new(Code::NotFound, format!("no {kind} has the uuid {uuid}")).hint(hint)
    }

    /// Adds what the caller can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the field that is to blame.
    #[must_use]
    pub fn on_field(mut self, name: &str) -> Self {
        self.field = Some(name.to_owned());
        self
    }

    /// As ZStack tells an error: `description` says what kind it is, `details` what happened,
    /// `elaboration` what to do; `opaque` has the same for programs. The cause is not in it.
    #[must_use]
    pub fn describe(&self) -> Value {
        let mut opaque = Map::new();
        opaque.insert("rule".into(), self.message.clone().into());
        for (key, value) in [("field", &self.field), ("hint", &self.hint)] {
            if let Some(text) = value {
                opaque.insert(key.into(), text.clone().into());
            }
        }
        let mut body = json!({
            "code": self.code.as_str(),
            "description": format!("{:?}", self.code),
            "details": self.message,
            "opaque": opaque,
        });
        if let Some(hint) = &self.hint {
            body["elaboration"] = hint.clone().into();
        }
        body
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }
}

/// Longest name of a field in an error, in characters; ours are shorter.
const NAME_MAX: usize = 64;
/// Longest rule in an error, in characters: a uuid or three and the longest text field.
const RULE_MAX: usize = 512;

fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.message, self.code.as_str())?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, " (cause: {cause})"))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let codes: std::collections::BTreeSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(codes.len(), Code::ALL.len());
    }

    #[test]
    fn what_callers_send_is_not_repeated_at_length() {
        let megabyte = "\u{fc}".repeat(1 << 20);
        let error = Error::field(&megabyte, &megabyte);
        assert!(error.to_string().chars().count() < 700);
        assert_eq!(Error::field("name", "is required").message, "field name: is required");
    }
}
