//! Networks to the host's nftables table.
