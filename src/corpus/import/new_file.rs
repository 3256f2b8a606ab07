//! A file that appears under its name only when it is whole.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// The file being written, beside where it will be; dropped before [`NewFile::publish`], it leaves nothing behind, and
/// a file that was there before stays.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    file: NamedTempFile,
}

impl NewFile {
    /// Refuses a name that is not a file's. A link stays one: what it leads to is replaced.
    pub fn create(path: &Path) -> io::Result<Self> {
        let path = match path.metadata() {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            Ok(found) if !found.is_file() => {
                return Err(io::Error::other("it is there, and is not a file"));
            }
            Ok(_) => path.canonicalize()?,
            Err(_) => path.to_owned(),
        };
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // The error of a file in a missing folder would name our temporary file.
        fs::metadata(folder)?;
        let file = tempfile::Builder::new()
            .prefix(".intendex-")
            .suffix(".tmp")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        Ok(Self { path, file })
    }

    /// To write with.
    pub fn handle(&self) -> io::Result<File> {
        self.file.reopen()
    }

    /// Gives the file its name.
    pub fn publish(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_was_there_stays_until_the_new_file_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.txt");
        let link = folder.path().join("link.txt");
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink("run.txt", &link).unwrap();
        let write = |path| {
            let file = NewFile::create(path).unwrap();
            file.handle().unwrap().write_all(b"new").unwrap();
            file
        };
        drop(write(&link));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        write(&link).publish().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(link.is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_folder_or_a_device_is_no_file_to_replace() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), Path::new("/dev/null")] {
            NewFile::create(path).unwrap_err();
        }
        assert!(!Path::new("/dev/null").is_file());
    }
}
