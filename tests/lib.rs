//! The node judged from outside. Tests in Rust live in `it/`, the suites that use other people's
//! clients in `clients/`, the independent decryptor in `decryptor/`.
//!
//! Owns: nothing. Knows nothing of: the node's code; these tests share none with it.
