//! What goes on by itself: unlocks, the courier, and the flow of an enrolment, each from end to end.

mod courier;
mod enrolment;
mod locks;
mod notices;
mod rounds;
mod unlocks;
