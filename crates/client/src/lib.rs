//! REST client: log in, call a message, wait for its job.
