//! A guest's console.
