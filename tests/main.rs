//! The product from outside: the real program, real clients, real files, and the rules of the house.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests stand in the real world")]

mod clients;
mod cloud;
mod control;
mod crash;
mod demo;
mod disk_full;
mod house;
mod metrics;
mod recorded;
mod replay;
mod sim;
mod site;
mod sites;
mod support;
mod webhook;
