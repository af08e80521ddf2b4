//! emberd, the program.
fn main() {}
