//! Handlers: one per message, over one transaction.
