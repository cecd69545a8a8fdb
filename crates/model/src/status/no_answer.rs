//! Why a host that was asked something has not answered.

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Its agent's stream is not open.
    NotConnected,
    /// Its agent is of this release, which cannot answer.
    TooOld(String),
    /// It, or the server, has too many questions already.
    Busy,
    /// It has not answered in time.
    Silent,
    /// Its stream has ended before it answered.
    Ended,
}

impl NoAnswer {
    /// What is wrong with the host, in words that follow its name, and what to do.
    #[must_use]
    pub fn words(&self) -> (String, &'static str) {
        match self {
            Self::NotConnected => (
                "is not connected, so it cannot be asked".to_owned(),
                "see that netloom agent runs there and reaches the server; traffic goes on without it",
            ),
            Self::TooOld(release) => (
                format!("has an agent of release {release}, which answers no questions"),
                "upgrade the agent there: a new binary and a restart",
            ),
            Self::Busy => (
                "has too many questions to answer already".to_owned(),
                "try again in a few seconds",
            ),
            Self::Silent => (
                "has not answered in time".to_owned(),
                "it may be overloaded: try again; if it stays silent, look at the log of its agent",
            ),
            Self::Ended => (
                "lost its connection before it answered".to_owned(),
                "try again once it is connected",
            ),
        }
    }
}
