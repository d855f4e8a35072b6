//! Guest images: the built-in one and imported ones.
