//! longwire.
