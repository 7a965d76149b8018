//! The `longwire` command, in the making.

fn main() {}
