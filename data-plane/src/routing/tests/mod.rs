//! Tests of decisions: what is never picked, what is always recorded, and what a replay gives.

mod filters;
pub(in crate::routing) mod fixture;
mod properties;
mod simulation;
mod strategies;
