//! Millpond: an edge data mesh in one program.

mod world;

fn main() {
    let _ = world::World::client;
    let _ = world::World::new;
}
