//! Part of emberd.
