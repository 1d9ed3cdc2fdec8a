//! EDGE: what stands at a gallery's path, and whose it is. A file that is absent, one that
//! cannot be reached and one that is no gallery are different faults with different cures.

use super::files::copy_path;
use super::tables::Fault;
use rustix::io::Errno;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// `O_NONBLOCK`: a file that became a FIFO since [`look`] must not hold up the door.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// The regular file at this path.
pub(super) fn look(path: &Path) -> Result<Metadata, Fault> {
    match std::fs::metadata(path) {
        Ok(metadata) => match irregular(&metadata) {
            None => Ok(metadata),
            Some(kind) => Err(Fault::Foreign(format!("{kind}, not a gallery file"))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(dangling(path).map_or(Fault::Absent, Fault::Unreachable))
        }
        Err(error) => Err(Fault::Unreachable(reason(path, &error))),
    }
}

/// Opens the regular file at this path to read it.
pub(super) fn open_to_read(path: &Path) -> Result<File, Fault> {
    open(path, OpenOptions::new().read(true))
}

fn open(path: &Path, options: &mut OpenOptions) -> Result<File, Fault> {
    look(path)?;
    let failed = |error: io::Error| Fault::Unreachable(reason(path, &error));
    let file = options.custom_flags(NONBLOCK).open(path).map_err(failed)?;
    match irregular(&file.metadata().map_err(failed)?) {
        None => Ok(file),
        Some(kind) => Err(Fault::Foreign(format!("{kind}, not a gallery file"))),
    }
}

/// Why the file can be read but not written: the fault and the cure. `None` if it can be
/// written.
pub(super) fn read_only(path: &Path) -> Result<Option<String>, Fault> {
    look(path)?;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(NONBLOCK).open(path);
    let Err(error) = opened else { return Ok(None) };
    // Somebody who may not even read it needs another cure.
    open_to_read(path)?;
    let folder = folder_of(path);
    Ok(Some(match errno(&error) {
        Some(Errno::ROFS) => format!(
            "its file system is read-only; remount it: sudo mount -o remount,rw {}",
            mount_of(folder).display()
        ),
        Some(Errno::PERM) => {
            format!("it is immutable; sudo chattr -i {}", path.display())
        }
        _ => reason(path, &error),
    }))
}

/// What a path names that is no regular file.
fn irregular(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a folder")
    } else if kind.is_fifo() {
        Some("a FIFO")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        Some("a device")
    }
}

/// Says which link on the way to the path leads nowhere.
fn dangling(path: &Path) -> Option<String> {
    path.ancestors().filter(|part| !part.as_os_str().is_empty()).find_map(|part| {
        let target = std::fs::read_link(part).ok()?;
        std::fs::metadata(part).is_err().then(|| {
            format!(
                "{} is a link to {}, which is missing; mount what it names, or correct the link",
                part.display(),
                target.display()
            )
        })
    })
}

/// The fault and the cure of an error of the operating system.
fn reason(path: &Path, error: &io::Error) -> String {
    match errno(error) {
        Some(Errno::ACCESS | Errno::PERM) => permission(path),
        Some(Errno::LOOP) => "its links form a loop; correct the link".to_owned(),
        Some(Errno::NOTDIR) => "part of the path is a file, not a folder; correct it".to_owned(),
        Some(Errno::NAMETOOLONG) => "the path is too long; correct it".to_owned(),
        Some(
            Errno::IO
            | Errno::STALE
            | Errno::NOTCONN
            | Errno::NODEV
            | Errno::NXIO
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::TIMEDOUT,
        ) => format!(
            "{error}; its card, disk or network mount does not answer: check it and mount it again"
        ),
        _ => format!("{error}; check the path and its file system"),
    }
}

/// Who may read what is refused: the owner of the nearest thing on the path that can be
/// examined.
fn permission(path: &Path) -> String {
    let nearest = path.ancestors().find_map(|part| {
        let part = if part.as_os_str().is_empty() { Path::new(".") } else { part };
        std::fs::metadata(part).ok().map(|metadata| (part.to_owned(), metadata.uid()))
    });
    let me = rustix::process::geteuid().as_raw();
    match nearest {
        Some((part, owner)) if owner != me => {
            let user = user(owner);
            let how = match owner {
                0 => "sudo".to_owned(),
                _ => format!("sudo -u {user}"),
            };
            format!(
                "permission denied; {} belongs to {user}: run the command with {how}",
                part.display()
            )
        }
        Some((part, _)) => format!(
            "permission denied; check the rights of {}: chmod u+rwX {}",
            part.display(),
            part.display()
        ),
        None => "permission denied; run the command as the user to whom it belongs".to_owned(),
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

/// The folder of a file, `.` for a bare name.
pub(in crate::storage) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The mount point above a folder, as far as it can be examined.
fn mount_of(folder: &Path) -> PathBuf {
    let absolute = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let device = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.dev());
    let same = |part: &&Path| device(part) == device(&absolute);
    absolute.ancestors().take_while(same).last().unwrap_or(&absolute).to_owned()
}

/// Name of a user, or `#` and the number, which sudo accepts, too.
fn user(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |line: &str| -> Option<String> {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then(|| name.to_owned())
    };
    users.lines().find_map(of).unwrap_or_else(|| format!("'#{uid}'"))
}

/// Gives a new file of root to the owner of its folder, for whom it is made: the service
/// could not read it otherwise.
pub(in crate::storage) fn give_to_owner(file: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let around = std::fs::metadata(folder_of(file))?;
    match around.uid() {
        0 => Ok(()),
        _ => std::os::unix::fs::lchown(file, Some(around.uid()), Some(around.gid())),
    }
}

/// Whether two paths name the same file.
pub(super) fn same_file(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    matches!((place(one), place(other)), (Ok(one), Ok(other)) if one == other)
}

/// What others may do with the gallery that they should not: the thing, the fault and the
/// cure, one line each. Looks at the file, its copy and their folder.
pub fn remarks(path: &Path) -> Vec<String> {
    let mut remarks = Vec::new();
    let folder = folder_of(path);
    let me = rustix::process::geteuid();
    let Ok(around) = std::fs::metadata(folder) else { return remarks };
    // Root reads for the user whose folder it is.
    let wanted = if me.is_root() { around.uid() } else { me.as_raw() };
    for file in [path.to_owned(), copy_path(path)] {
        let Ok(metadata) = std::fs::metadata(&file) else { continue };
        let shown = file.display();
        if metadata.uid() != wanted {
            let (owner, wanted) = (user(metadata.uid()), user(wanted));
            remarks.push(format!(
                "{shown}: belongs to {owner}, not to {wanted}: {owner} decides who \
                 may come in; if it is yours: sudo chown {wanted} {shown}"
            ));
        }
        if metadata.mode() & 0o022 != 0 {
            let mode = metadata.mode() & 0o777;
            remarks.push(format!(
                "{shown}: other users may write it (mode {mode:04o}), and so let anybody in; \
                 chmod 600 {shown}"
            ));
        }
    }
    // In a folder like /tmp only owners replace files.
    let sticky = around.mode() & 0o1000 != 0;
    if around.mode() & 0o002 != 0 && !sticky {
        let shown = folder.display();
        remarks.push(format!(
            "{shown}: other users may replace the gallery in this folder; chmod o-w {shown}"
        ));
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use tempfile::TempDir;

    fn said(path: &Path) -> String {
        match look(path) {
            Ok(_) => "there".to_owned(),
            Err(Fault::Absent) => "absent".to_owned(),
            Err(Fault::Unreachable(reason)) => format!("unreachable: {reason}"),
            Err(Fault::Foreign(reason)) => format!("foreign: {reason}"),
            Err(_) => "another fault".to_owned(),
        }
    }

    #[test]
    fn absent_unreachable_and_foreign_are_told_apart() {
        let folder = TempDir::new().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("file"), "x").expect("written");
        symlink("loop", at("loop")).expect("a link");
        symlink("nowhere", at("dangling")).expect("a link");
        symlink("file", at("link")).expect("a link");
        std::fs::create_dir(at("folder")).expect("a folder");
        for (name, expected) in [
            ("file", "there"),
            ("link", "there"),
            ("typo", "absent"),
            ("no/such/folder", "absent"),
            ("loop", "unreachable: its links form a loop"),
            ("loop/x", "unreachable: its links form a loop"),
            ("dangling", "unreachable: "),
            ("dangling/x", "unreachable: "),
            ("file/x", "unreachable: part of the path is a file"),
            ("folder", "foreign: a folder"),
        ] {
            let got = said(&at(name));
            assert!(got.starts_with(expected), "{name}: {got}");
        }
        assert!(said(&at("dangling/x")).contains("nowhere"), "{}", said(&at("dangling/x")));
        assert!(said(Path::new("/dev/null")).starts_with("foreign: a device"));
        let long = at(&"x".repeat(300));
        assert!(said(&long).contains("too long"), "{}", said(&long));
    }

    #[test]
    fn a_file_that_others_may_write_is_remarked() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("g.redb");
        std::fs::write(&path, "x").expect("written");
        let with = |file: u32, around: u32| {
            let set = |path: &Path, mode: u32| {
                std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("rights");
            };
            set(&path, file);
            set(folder.path(), around);
            remarks(&path).join("; ")
        };
        assert_eq!(with(0o600, 0o700), "");
        assert_eq!(with(0o644, 0o755), "");
        for mode in [0o666, 0o620, 0o602] {
            assert!(with(mode, 0o700).contains("chmod 600"), "{mode:o}");
        }
        assert!(with(0o600, 0o777).contains("chmod o-w"));
        assert_eq!(with(0o600, 0o1777), "");
        assert!(remarks(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn users_are_named_or_numbered() {
        assert_eq!(user(0), "root");
        assert_eq!(user(3_999_999_999), "'#3999999999'");
    }
}
