//! What is wrong with a file, shown at its place.
