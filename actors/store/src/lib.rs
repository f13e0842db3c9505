//! actors/store
