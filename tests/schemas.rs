//! `schemas/` is generated; a change of a schema shows in the diff of a commit.

use std::{fs, path::Path};

use assert_cmd::Command;

#[test]
fn schemas_are_as_the_program_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    Command::cargo_bin("intendex")
        .unwrap()
        .args(["schema", "all", "--out"])
        .arg(folder.path())
        .assert()
        .success();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        names(folder.path()),
        names(&committed),
        "run `make schemas`"
    );
    for name in names(&committed) {
        let written = fs::read_to_string(folder.path().join(&name)).unwrap();
        let kept = fs::read_to_string(committed.join(&name)).unwrap();
        assert!(
            written == kept,
            "schemas/{} is out of date; run `make schemas`",
            name.display()
        );
    }
}
