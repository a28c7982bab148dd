//! The model by itself, without a kernel; the checker on histories that are right and wrong.

mod history;
mod model;
