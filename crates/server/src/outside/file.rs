//! A file that is only added to. It is opened anew for each piece, so that one that was rotated away is begun again.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Adds whole lines. When this returns, they are on disk.
///
/// # Errors
/// In words, with the file's name.
pub(super) async fn append(path: Option<&PathBuf>, lines: String) -> Result<(), String> {
    let Some(path) = path.cloned() else {
        return Ok(());
    };
    let shown = path.display().to_string();
    tokio::task::spawn_blocking(move || write(&path, lines.as_bytes()))
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
        .map_err(|error| format!("{shown} cannot be written: {error}"))
}

fn write(path: &Path, lines: &[u8]) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    let written = close_line(&mut file, end)
        .and_then(|()| file.write_all(lines))
        .and_then(|()| file.sync_data());
    if let Err(error) = written {
        // What is half there is taken back, as far as that goes; the next lines stand by themselves otherwise.
        let _ = file.set_len(end);
        return Err(error);
    }
    if is_new && let Some(folder) = path.parent() {
        // An empty path is the folder we are in.
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// A line that a crash cut off is ended, so that the next one stands by itself.
fn close_line(file: &mut File, end: u64) -> io::Result<()> {
    if end == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    match last {
        [b'\n'] => Ok(()),
        _ => file.write_all(b"\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn lines_are_added_after_whatever_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let text = || std::fs::read_to_string(&path).unwrap();
        append(Some(&path), "one\n".to_owned()).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        append(Some(&path), "two\nthree\n".to_owned())
            .await
            .unwrap();
        assert_eq!(text(), "one\ntwo\nthree\n");
        // A crash cut the last line off.
        std::fs::write(&path, "one\ntw").unwrap();
        append(Some(&path), "two\n".to_owned()).await.unwrap();
        assert_eq!(text(), "one\ntw\ntwo\n");
        // It was rotated away.
        std::fs::rename(&path, folder.path().join("lines.1")).unwrap();
        append(Some(&path), "three\n".to_owned()).await.unwrap();
        assert_eq!(text(), "three\n");
        let nowhere = folder.path().join("nowhere/lines");
        let error = append(Some(&nowhere), "one\n".to_owned())
            .await
            .unwrap_err();
        assert!(error.contains("nowhere/lines cannot be written"), "{error}");
    }
}
