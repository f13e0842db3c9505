//! Where the cloud keeps what is old: Parquet in an object store, committed by manifests.
