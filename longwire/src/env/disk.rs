//! Files: the configuration that is read, the documents that are written, and what must outlive a crash.
//!
//! Whole texts are read and written on the system's disk by two functions. What must outlive a crash goes
//! through a [`Disk`], which says exactly what a disk promises: bytes are safe after
//! [`sync_data`](File::sync_data) of their file **and** [`sync_dir`](Disk::sync_dir) of the directory that
//! names it, and not before. Behind it is the system or, in the simulator, a disk that fails. Nothing here
//! retries, caches or decides. What must stay true: every error names its path and keeps its kind.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// A disk; copies are the same disk.
#[derive(Clone, Debug)]
pub struct Disk(Arc<dyn Files>);

impl Disk {
    /// The machine's disk.
    pub fn system() -> Disk {
        Disk(Arc::new(SystemFiles))
    }

    /// A disk that is something else.
    pub fn of(files: Arc<dyn Files>) -> Disk {
        Disk(files)
    }

    /// Opens a file that exists, to read and write.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        self.opened(path, false)
    }

    /// Opens a file to read and write, and creates it if there is none.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn open_or_create(&self, path: &Path) -> io::Result<File> {
        self.opened(path, true)
    }

    /// Opens a file, creates it if there is none, and locks it for as long as it stays open: whoever else tries
    /// meanwhile, in this process or another, is refused with [`WouldBlock`](io::ErrorKind::WouldBlock). A process
    /// that ends, in whatever way, gives it back.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn lock(&self, path: &Path) -> io::Result<File> {
        let file = self.open_or_create(path)?;
        file.bytes.try_lock().map_err(|error| with_path("lock", path, error))?;
        Ok(file)
    }

    fn opened(&self, path: &Path, create: bool) -> io::Result<File> {
        let bytes = self.0.open(path, create).map_err(|error| with_path("open", path, error))?;
        Ok(File { path: path.to_path_buf(), bytes })
    }

    /// Makes a directory and those above it, each safe on the disk before the one below it is made.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        match self.0.create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(parent) = path.parent() {
                    self.create_dir_all(parent)?;
                }
                self.0.create_dir(path)
            }
            // It may be there since a run that was killed before it could sync.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
        .map_err(|error| with_path("create", path, error))?;
        let parent = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Ok(()),
        };
        match self.sync_dir(parent) {
            // Who may not read the directory above did not make this one.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = self.0.list(path).map_err(|error| with_path("list", path, error))?;
        names.sort_unstable();
        Ok(names)
    }

    /// Gives a file another name in the same file system, in place of what has that name.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to).map_err(|error| with_path("rename", from, error))
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path).map_err(|error| with_path("remove", path, error))
    }

    /// How much room there is where a directory is; `None` where nobody knows.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn room(&self, path: &Path) -> io::Result<Option<Room>> {
        self.0.room(path).map_err(|error| with_path("measure", path, error))
    }

    /// Makes the names of a directory safe: what was created, renamed and removed in it.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path).map_err(|error| with_path("sync", path, error))
    }
}

/// How much room a disk has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes that this process may write.
    pub free: u64,
    /// Bytes that the disk has in all.
    pub total: u64,
}

/// An open file, whose errors name its path.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    bytes: Box<dyn FileBytes>,
}

impl File {
    /// The length in bytes.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    #[expect(clippy::len_without_is_empty, reason = "it asks the disk and can fail")]
    pub fn len(&self) -> io::Result<u64> {
        self.bytes.len().map_err(|error| with_path("measure", &self.path, error))
    }

    /// Reads into `bytes` and says how many came; fewer than asked for only at the end of the file.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.bytes.read_at(offset, bytes).map_err(|error| with_path("read", &self.path, error))
    }

    /// Writes all of `bytes`; upon an error any part of them may have been written.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.bytes.write_at(offset, bytes).map_err(|error| with_path("write", &self.path, error))
    }

    /// Cuts the file, or extends it by zeros.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.set_len(len).map_err(|error| with_path("resize", &self.path, error))
    }

    /// Makes bytes and length safe. After an error it is unknown which of the bytes since the last success
    /// are, and a later success does not say so either.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn sync_data(&self) -> io::Result<()> {
        self.bytes.sync_data().map_err(|error| with_path("sync", &self.path, error))
    }

    /// When the file was made, in nanoseconds since 1970, where the disk knows. No copy of a file has the time of the
    /// file it was copied from.
    ///
    /// # Errors
    /// The disk's, with the path in the text.
    pub fn born(&self) -> io::Result<Option<u64>> {
        self.bytes.born().map_err(|error| with_path("measure", &self.path, error))
    }

    /// Tells an open file that it was renamed, so that its errors name the path that it has.
    pub fn moved_to(&mut self, path: &Path) {
        self.path = path.to_path_buf();
    }
}

/// What a disk can do with names; who implements it leaves paths out of its errors, [`Disk`] puts them in.
pub trait Files: Debug + Send + Sync {
    /// Opens a file to read and write; if there is none, creates it or fails with `NotFound`.
    ///
    /// # Errors
    /// The disk's.
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn FileBytes>>;

    /// Makes one directory; one that exists is `AlreadyExists`, one without a parent `NotFound`.
    ///
    /// # Errors
    /// The disk's.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// The disk's.
    fn list(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Gives a file another name, in place of the file that has it.
    ///
    /// # Errors
    /// The disk's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The disk's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names of a directory safe.
    ///
    /// # Errors
    /// The disk's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// How much room there is; `None` where nobody knows.
    ///
    /// # Errors
    /// The disk's.
    fn room(&self, _: &Path) -> io::Result<Option<Room>> {
        Ok(None)
    }
}

/// What a disk can do with the bytes of an open file; the methods are those of [`File`].
#[expect(missing_docs, reason = "each method is described at the one of the same name of `File`")]
#[expect(clippy::missing_errors_doc, reason = "likewise")]
#[expect(clippy::len_without_is_empty, reason = "it asks the disk and can fail")]
pub trait FileBytes: Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn sync_data(&self) -> io::Result<()>;
    /// Locks the file until it is closed; `WouldBlock` if somebody else has.
    fn try_lock(&self) -> io::Result<()>;
    /// `None` where the disk does not know.
    fn born(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }
}

#[derive(Debug)]
struct SystemFiles;

impl Files for SystemFiles {
    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn FileBytes>> {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(create).truncate(false).open(path)?;
        Ok(Box::new(file))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::File::open(path)?.sync_all()
    }

    fn room(&self, path: &Path) -> io::Result<Option<Room>> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Some(Room { free: found.f_bavail * found.f_frsize, total: found.f_blocks * found.f_frsize }))
    }
}

impl FileBytes for std::fs::File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            match std::os::unix::fs::FileExt::read_at(self, &mut bytes[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        std::fs::File::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        std::fs::File::sync_data(self)
    }

    fn try_lock(&self) -> io::Result<()> {
        std::fs::File::try_lock(self).map_err(io::Error::from)
    }

    fn born(&self) -> io::Result<Option<u64>> {
        // Not every file system knows.
        let born = self.metadata()?.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        Ok(born.and_then(|since_1970| u64::try_from(since_1970.as_nanos()).ok()))
    }
}

/// A directory that is removed with all that is in it when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one where the system keeps what is not kept, for nobody else to read; its name begins with `name`.
    ///
    /// # Errors
    /// The operating system's, with the path in the text.
    pub fn new(name: &str) -> io::Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt;
        let mut number = std::process::id();
        loop {
            let path = std::env::temp_dir().join(format!("{name}-{number}"));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Scratch { path }),
                // A process that was killed left it, or somebody guessed the name: it is not touched.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number = number.wrapping_add(1),
                Err(error) => return Err(with_path("create", &path, error)),
            }
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to the system.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Reads a whole text file.
///
/// # Errors
/// The operating system's, with the path in the text.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path).map_err(|error| with_path("read", path, error))
}

/// Replaces a whole text file.
///
/// # Errors
/// The operating system's, with the path in the text.
pub fn write(path: &Path, contents: &str) -> io::Result<()> {
    std::fs::write(path, contents).map_err(|error| with_path("write", path, error))
}

fn with_path(verb: &str, path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {verb} \"{}\": {error}", path.display()))
}
