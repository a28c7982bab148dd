//! The repository's folder: who may open it, how files come in and go.

use super::*;

fn volume(byte: u8) -> VolumeId {
    VolumeId::from_bytes([byte; 16])
}

#[track_caller]
fn check_refused(opened: Result<Repository>, kind: ErrorKind, words: &str) {
    let error = opened.err().unwrap();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn a_repository_is_of_one_volume_and_of_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("new");
    check_refused(Repository::open_to_read(&root), ErrorKind::Misuse, "it is none");
    let made = Repository::open_or_make(&root, volume(1)).unwrap();
    check_refused(Repository::open_or_make(&root, volume(1)), ErrorKind::Conflict, "at work");
    check_refused(Repository::open_to_read(&root), ErrorKind::Conflict, "at work");
    drop(made);
    let one = Repository::open_to_read(&root).unwrap();
    let two = Repository::open_to_read(&root).unwrap();
    check_refused(Repository::open_to_write(&root), ErrorKind::Conflict, "at work");
    drop((one, two));
    check_refused(Repository::open_or_make(&root, volume(2)), ErrorKind::Misuse, "of volume 0101");
}

#[test]
fn what_is_no_repository_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("letters"), "private").unwrap();
    let opened = Repository::open_or_make(folder.path(), volume(1));
    check_refused(opened, ErrorKind::Misuse, "letters");
    assert_eq!(files::names(folder.path()).unwrap(), ["letters"]);
    std::fs::remove_file(folder.path().join("letters")).unwrap();
    std::fs::create_dir(folder.path().join(FILE_SYSTEM_OWN)).unwrap();
    drop(Repository::open_or_make(folder.path(), volume(1)).unwrap());
    let mark = folder.path().join(MARK);
    let text = std::fs::read_to_string(&mark).unwrap();
    std::fs::write(&mark, text.replace("repository 1", "repository 2")).unwrap();
    let opened = Repository::open_to_read(folder.path());
    check_refused(opened, ErrorKind::Misuse, "later release");
    std::fs::write(&mark, "something").unwrap();
    check_refused(Repository::open_to_read(folder.path()), ErrorKind::Corrupt, MARK);
}

#[test]
fn files_are_named_by_their_bytes_and_swept_when_nobody_needs_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("r");
    let repository = Repository::open_or_make(&root, volume(1)).unwrap();
    let put = |bytes: &[u8]| {
        let mut writer = repository.writer().unwrap();
        writer.write(bytes).unwrap();
        writer.finish().unwrap()
    };
    // A run that was cut short leaves its file to the next one.
    repository.writer().unwrap().write(b"half").unwrap();
    let (one, bytes) = put(b"one");
    let (two, _) = put(b"two");
    assert_eq!(bytes, 3);
    assert_eq!(one.0.as_slice(), Sha256::digest(b"one").as_slice());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&repository.data_path(&one)), mode(&root)), (0o600, 0o700));
    // A damaged file is put right by the next that has its bytes.
    std::fs::write(repository.data_path(&one), "oxe").unwrap();
    put(b"one");
    assert_eq!(std::fs::read(repository.data_path(&one)).unwrap(), b"one");
    assert!(repository.holds(&one, 3) && !repository.holds(&one, 4));
    assert_eq!(repository.sweep(&BTreeSet::from([two])).unwrap(), (1, 3));
    assert!(!repository.holds(&one, 3) && repository.holds(&two, 3));
    assert_eq!(repository.manifest("../../etc/passwd").unwrap_err().kind(), ErrorKind::NotFound);
}
