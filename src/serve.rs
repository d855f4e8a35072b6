//! The answering side of a probe: one line for each connection or datagram.
