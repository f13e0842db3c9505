//! Facts about one machine, and many of them on a pretend site.

mod converges;
mod facts;
mod site;
