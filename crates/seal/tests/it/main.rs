//! What the seal promises: sealed values open in their place alone, keys open for their recipients alone (R24, R25).

mod cells;
mod keys;
mod marks;
mod support;
