//! Text, JSON and JUnit; renders only.
