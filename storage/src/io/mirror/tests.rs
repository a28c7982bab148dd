//! Mirrors over simulated disks: members that fail, starts that are refused, rebuilds, and a model
//! that no acknowledged byte may leave.

mod model;
mod rig;
mod starts;
mod steps;
mod verdicts;
