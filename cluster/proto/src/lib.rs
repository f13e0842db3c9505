pub mod documents;
pub mod membership;
pub mod wire;

mod now;

pub use now::Now;
