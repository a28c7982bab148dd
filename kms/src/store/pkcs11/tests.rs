//! What needs no token. The rest is in `kms/tests/stores`.

use super::*;
use crate::env::SeededRng;

#[test]
fn a_module_that_is_not_there_is_unavailable_and_not_a_start_up_failure() {
    let settings = Pkcs11Settings {
        module: Path::new("/nonexistent/module.so"),
        token: "kluis",
        pin_file: Path::new("/nonexistent/pin"),
        timeout: Duration::from_secs(1),
    };
    let store = Pkcs11Store::new(&settings, Arc::new(SeededRng::new(1)));
    for _ in 0..2 {
        assert_eq!(store.health().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    let secret = StoreSecret::generate(&SeededRng::new(2)).unwrap();
    let error = store.wrap("k", &EncryptionContext::new(), &secret).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn a_blob_of_another_form_never_reaches_the_token() {
    let settings = Pkcs11Settings {
        module: Path::new("/nonexistent/module.so"),
        token: "kluis",
        pin_file: Path::new("/nonexistent/pin"),
        timeout: Duration::from_secs(1),
    };
    let store = Pkcs11Store::new(&settings, Arc::new(SeededRng::new(1)));
    for bytes in [vec![2; 61], vec![1; 60], vec![1; 62], vec![1]] {
        let blob = StoreBlob::new(bytes).unwrap();
        let opened = store.unwrap("k", &EncryptionContext::new(), &blob);
        assert_eq!(opened.err().unwrap().kind(), ErrorKind::Corrupt);
    }
}
