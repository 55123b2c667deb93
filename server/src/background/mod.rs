//! Work that nobody asks for: it goes on as long as the server runs.

mod compactor;

pub use compactor::Compactor;
