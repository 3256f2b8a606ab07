//! Locking, publishing, and what killed writers leave.

use super::*;

fn header(plan: &str) -> Header {
    Header {
        plan: plan.into(),
        stages: Default::default(),
    }
}

#[test]
fn a_second_writer_and_another_job_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("out");
    let first = Output::new(&root)
        .lock("docs")
        .unwrap()
        .open(header("p"), false)
        .unwrap();
    let second = Output::new(&root).lock("docs").unwrap_err();
    assert!(
        matches!(&second, StoreError::Locked { holder, .. } if holder.starts_with("pid ")),
        "{second}"
    );
    drop(first);
    let other = Output::new(&root).lock("news").unwrap_err();
    assert!(
        other.to_string().contains("belongs to the job `docs`"),
        "{other}"
    );
}

#[test]
fn a_folder_of_other_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.tex"), "x").unwrap();
    let error = Output::new(folder.path()).lock("docs").unwrap_err();
    assert!(error.to_string().contains("did not write"), "{error}");
}

#[test]
fn nothing_is_published_until_publish_and_then_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("out");
    let building = open(&root, "p");
    fs::write(building.folder().join("x"), "1").unwrap();
    assert!(Output::new(&root).current().is_err());
    assert_eq!(building.publish().unwrap(), 1);
    let (number, path) = Output::new(&root).current().unwrap();
    assert_eq!(
        (number, fs::read_to_string(path.join("x")).unwrap().as_str()),
        (1, "1")
    );
    assert!(!path.join(JOURNAL).exists());
}

fn open(root: &Path, plan: &str) -> Building {
    let writer = Output::new(root).lock("docs").unwrap();
    writer.open(header(plan), false).unwrap()
}

/// A generation as far as `publish` is concerned: it has a manifest of the plan.
fn finish(root: &Path, plan: &str) -> Building {
    let building = open(root, plan);
    history::tests::write_manifest(&building.folder(), plan);
    building
}

#[test]
fn a_run_killed_between_number_and_current_is_published_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("out");
    finish(&root, "p").publish().unwrap();
    let killed = finish(&root, "q");
    rename(&killed.folder(), &killed.output.folder(2)).unwrap();
    drop(killed);
    assert_eq!(open(&root, "other").publish_finished().unwrap(), None);
    assert_eq!(open(&root, "q").publish_finished().unwrap(), Some(2));
    assert_eq!(Output::new(&root).current().unwrap().0, 2);
    assert!(!Output::new(&root).folder(2).join(JOURNAL).exists());
}

#[test]
fn every_writer_removes_the_journal_of_a_run_killed_behind_current() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("out");
    finish(&root, "p").publish().unwrap();
    let journal = Output::new(&root).folder(1).join(JOURNAL);
    fs::write(&journal, "").unwrap();
    drop(Output::new(&root).lock_existing().unwrap());
    assert!(!journal.exists());
    fs::write(&journal, "").unwrap();
    assert_eq!(open(&root, "p").publish_finished().unwrap(), None);
    assert!(!journal.exists());
}

#[test]
fn a_build_of_the_same_plan_does_not_undo_a_rollback() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("out");
    finish(&root, "p").publish().unwrap();
    finish(&root, "q").publish().unwrap();
    let writer = Output::new(&root).lock_existing().unwrap();
    assert_eq!(writer.roll_back(None).unwrap(), 1);
    drop(writer);
    let building = finish(&root, "q");
    assert_eq!(building.publish_finished().unwrap(), None);
    assert_eq!(Output::new(&root).current().unwrap().0, 1);
    assert_eq!(building.publish().unwrap(), 3);
}
