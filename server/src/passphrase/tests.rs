//! Sources, their order, and what is refused.

use std::os::unix::fs::PermissionsExt as _;

use kluis_kms::env::SeededRng;

use super::*;

fn write(path: &Path, text: &[u8], mode: u32) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn find_in(sources: &Sources<'_>) -> io::Result<Passphrase> {
    find(sources, &SeededRng::new(1))
}

#[test]
fn a_file_loses_its_line_end_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p");
    for (text, expected) in
        [(&b" two words \n"[..], &b" two words "[..]), (b"x\r\n", b"x"), (b"x\n\n", b"x\n")]
    {
        write(&path, text, 0o600);
        let found = find_in(&Sources { file: Some(&path), credentials: None, dev: None }).unwrap();
        assert_eq!(found.as_bytes(), expected);
        assert!(!found.is_dev);
    }
}

#[test]
fn open_empty_and_missing_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p");
    let sources = Sources { file: Some(&path), credentials: None, dev: None };
    assert_eq!(find_in(&sources).unwrap_err().kind(), io::ErrorKind::NotFound);
    for mode in [0o644, 0o640, 0o620, 0o601] {
        write(&path, b"secret", mode);
        let error = find_in(&sources).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{mode:o}: {error}");
    }
    write(&path, b"\n", 0o600);
    assert_eq!(find_in(&sources).unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_credential_is_found_before_the_development_passphrase() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join(CREDENTIAL), b"from systemd", 0o400);
    let sources =
        Sources { file: None, credentials: Some(folder.path()), dev: Some(folder.path()) };
    assert_eq!(find_in(&sources).unwrap().as_bytes(), b"from systemd");
}

#[test]
fn a_group_may_read_a_credential_and_nothing_beside_it() {
    let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (inside, beside) = (folder.path().join("p"), outside.path().join("p"));
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&beside, &link).unwrap();
    write(&inside, b"secret", 0o440);
    write(&beside, b"secret", 0o440);
    let find =
        |file| find_in(&Sources { file: Some(file), credentials: Some(folder.path()), dev: None });
    assert_eq!(find(&inside).unwrap().as_bytes(), b"secret");
    let beside_name = outside.path().file_name().unwrap();
    let around = folder.path().join("..").join(beside_name).join("p");
    for refused in [&beside, &link, &around] {
        assert_eq!(find(refused).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
    write(&inside, b"secret", 0o444);
    assert_eq!(find(&inside).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_development_passphrase_is_made_once_and_private() {
    let folder = tempfile::tempdir().unwrap();
    let sources = Sources { file: None, credentials: None, dev: Some(folder.path()) };
    let first = find_in(&sources).unwrap();
    assert!(first.is_dev);
    let mode = std::fs::metadata(dev_file(folder.path())).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(find_in(&sources).unwrap().as_bytes(), first.as_bytes());
    assert!(!format!("{first:?}").contains(std::str::from_utf8(first.as_bytes()).unwrap()));
}

#[test]
fn without_a_source_the_error_gives_advice() {
    let error = find_in(&Sources { file: None, credentials: None, dev: None }).unwrap_err();
    for word in ["--passphrase-file", "KLUIS_PASSPHRASE", "systemd", "--dev"] {
        assert!(error.to_string().contains(word), "{error}");
    }
}
