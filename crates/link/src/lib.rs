//! The server's end of the agent stream.
