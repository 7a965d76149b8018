//! centrifuge.
