//! Which sources a PTX file was made from.

use crate::compile::FLAGS;
use crate::error::{Error, Result};
use crate::target::Target;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// SHA-256 in lower-case hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).as_slice())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hash of all that decides what the kernels compile to, the compiler aside: every `.rs` file of the folder
/// `kernels` (`kernels-gpu/src`) with its name, the compiler's flags and the targets. The place of the folder has no
/// part in it.
///
/// # Errors
/// [`Error::Io`] for what cannot be read.
pub fn source_hash(kernels: &Path) -> Result<String> {
    let mut files = Vec::new();
    collect(kernels, String::new(), &mut files)?;
    files.sort();
    let mut hash = Sha256::new();
    // Lengths keep neighbours apart.
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    for (name, path) in files {
        add(name.as_bytes());
        add(&std::fs::read(&path).map_err(Error::io(&path))?);
    }
    for flag in FLAGS {
        add(flag.as_bytes());
    }
    for target in Target::ALL {
        add(target.name().as_bytes());
        add(target.isa().as_bytes());
    }
    Ok(hex(hash.finalize().as_slice()))
}

/// Adds the `.rs` files below `folder`, under names that start with `prefix` and are the same on every system.
fn collect(folder: &Path, prefix: String, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            collect(&path, format!("{name}/"), files)?;
        } else if name.ends_with(".rs") {
            files.push((name, path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("evo-sdpa-source-{}-{name}", std::process::id()));
        for (file, text) in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn the_hash_depends_on_names_and_contents_and_not_on_the_place() {
        let files = [("lib.rs", "mod ptx;"), ("ptx/mod.rs", "")];
        let here = tree("here", &files);
        let there = tree("there/deeper", &files);
        let edited = tree("edited", &[("lib.rs", "mod ptx; "), ("ptx/mod.rs", "")]);
        let renamed = tree("renamed", &[("lib.rs", "mod ptx;"), ("ptx.rs", "")]);
        let backup = tree("backup", &[("lib.rs", "mod ptx;"), ("ptx/mod.rs", ""), ("lib.rs~", "old")]);
        let hash = source_hash(&here).unwrap();
        assert_eq!(hash.len(), 64);
        assert_eq!(source_hash(&there).unwrap(), hash);
        assert_eq!(source_hash(&backup).unwrap(), hash, "an editor's backup is no source");
        assert_ne!(source_hash(&edited).unwrap(), hash);
        assert_ne!(source_hash(&renamed).unwrap(), hash);
        for root in [here, there, edited, renamed, backup] {
            fs::remove_dir_all(root).unwrap();
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = source_hash(Path::new("/nowhere/kernels-gpu/src")).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/kernels-gpu/src: "), "{error}");
    }
}
