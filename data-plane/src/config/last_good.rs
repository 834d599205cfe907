//! The newest applied resource set on disk, so that a node restarts without a control plane (I4).
//!
//! A file is a header and a body that is sealed as a whole, although credentials inside are sealed once more: a
//! copied disk tells nothing. Written to a temporary name, synced, renamed, directory synced; the previous file is
//! kept, so that a torn or damaged newest one costs one revision and not the start.
//!
//! ```text
//! "NEMOLG" | format u16 | revision u64 | set checksum 16 | body length u64 | CRC32C of all before and the body u32 | body
//! ```

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use nemo_proto::config::Push;
use nemo_snapshot::{Checksum, Delta, ResourceSet};
use nemo_types::{Keyring, Sealed};
use prost::Message as _;

const MAGIC: &[u8; 6] = b"NEMOLG";
const FORMAT: u16 = 1;
const HEADER: usize = 6 + 2 + 8 + 16 + 8;
const CONTEXT: &[u8] = b"nemo-last-good";
const CURRENT: &str = "last-good.bin";
const PREVIOUS: &str = "last-good.previous.bin";
/// Larger files are not ours.
const MAX_FILE: u64 = 4 << 30;

/// The two files in a node's data directory.
#[derive(Clone, Debug)]
pub struct LastGood {
    dir: PathBuf,
}

/// Why a file was passed over.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not a last-good file of a known format")]
    Format,
    #[error("damaged: the checksum does not match")]
    Damaged,
    #[error("{0}")]
    Seal(#[from] nemo_types::SealError),
}

impl LastGood {
    /// In `dir`, which is made when missing.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Replaces the newest file; what was newest becomes the previous one.
    ///
    /// # Errors
    /// When the disk refuses, or the body can't be sealed. The files before are intact then.
    pub fn save(&self, set: &ResourceSet, revision: u64, keyring: &Keyring) -> Result<(), Unusable> {
        let sealed = keyring.seal(CONTEXT, &encode(set, revision))?;
        let body = sealed.as_bytes();
        let mut header = Vec::with_capacity(HEADER + 4);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&FORMAT.to_be_bytes());
        header.extend_from_slice(&revision.to_be_bytes());
        header.extend_from_slice(&set.checksum().to_bytes());
        header.extend_from_slice(&(body.len() as u64).to_be_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header), body);
        header.extend_from_slice(&crc.to_be_bytes());

        let temporary = self.dir.join("last-good.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&header)?;
        file.write_all(body)?;
        file.sync_all()?;
        let current = self.dir.join(CURRENT);
        match fs::rename(&current, self.dir.join(PREVIOUS)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        fs::rename(&temporary, &current)?;
        File::open(&self.dir)?.sync_all()?;
        Ok(())
    }

    /// The newest file that can be used. Each unusable one is told to `on_unusable` with its path.
    pub fn load(
        &self,
        keyring: &Keyring,
        mut on_unusable: impl FnMut(&Path, Unusable),
    ) -> Option<(ResourceSet, u64)> {
        [CURRENT, PREVIOUS].into_iter().find_map(|name| {
            let path = self.dir.join(name);
            match read(&path, keyring) {
                Ok(found) => Some(found),
                Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => {
                    on_unusable(&path, error);
                    None
                }
            }
        })
    }
}

/// A [`Push`] with everything. The resources are encoded already, and in a message a resource is its length and that.
fn encode(set: &ResourceSet, revision: u64) -> Vec<u8> {
    /// `repeated Resource upserts = 4`.
    const UPSERTS: u32 = 4;
    let mut plain = Push { revision, ..Push::default() }.encode_to_vec();
    plain.reserve(set.all().map(|item| item.encoded().len() + 4).sum());
    for item in set.all() {
        prost::encoding::encode_key(UPSERTS, prost::encoding::WireType::LengthDelimited, &mut plain);
        prost::encoding::encode_varint(item.encoded().len() as u64, &mut plain);
        plain.extend_from_slice(item.encoded());
    }
    plain
}

fn read(path: &Path, keyring: &Keyring) -> Result<(ResourceSet, u64), Unusable> {
    let file = File::open(path)?;
    if file.metadata()?.len() > MAX_FILE {
        return Err(Unusable::Format);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes)?;
    decode(&bytes, keyring)
}

fn decode(bytes: &[u8], keyring: &Keyring) -> Result<(ResourceSet, u64), Unusable> {
    let (header, rest) = bytes.split_at_checked(HEADER).ok_or(Unusable::Format)?;
    let (crc, body) = rest.split_first_chunk::<4>().ok_or(Unusable::Format)?;
    if !header.starts_with(MAGIC) || header[6..8] != FORMAT.to_be_bytes() {
        return Err(Unusable::Format);
    }
    if crc32c::crc32c_append(crc32c::crc32c(header), body) != u32::from_be_bytes(*crc) {
        return Err(Unusable::Damaged);
    }
    let checksum = Checksum::from_bytes(&header[16..32]).ok_or(Unusable::Format)?;
    let plain = keyring.open(CONTEXT, &Sealed::from_bytes(body))?;
    let push = Push::decode(plain.as_slice()).map_err(|_| Unusable::Format)?;
    let mut delta = Delta::default();
    for resource in push.upserts {
        delta.upsert(resource).map_err(|_| Unusable::Format)?;
    }
    let mut set = ResourceSet::new();
    set.apply(&delta);
    if set.checksum() != checksum { Err(Unusable::Damaged) } else { Ok((set, push.revision)) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use nemo_proto::config::{Organization, Resource, resource};

    use super::*;

    fn keyring() -> Keyring {
        Keyring::parse(Keyring::generate_key().unwrap().expose()).unwrap()
    }

    fn set(name: &str) -> ResourceSet {
        let id = Bytes::copy_from_slice(nemo_types::OrgId::generate().as_bytes());
        let it = Organization { id, name: name.into(), disabled: false };
        let mut delta = Delta::default();
        delta.upsert(Resource { kind: Some(resource::Kind::Organization(it)) }).unwrap();
        let mut set = ResourceSet::new();
        set.apply(&delta);
        set
    }

    /// I4: what was applied is there after a restart.
    #[test]
    fn i4_the_newest_set_survives_a_restart() {
        let (dir, keyring) = (tempfile::tempdir().unwrap(), keyring());
        let last_good = LastGood::open(dir.path()).unwrap();
        assert!(last_good.load(&keyring, |_, _| {}).is_none());
        let (first, second) = (set("first"), set("second"));
        last_good.save(&first, 1, &keyring).unwrap();
        last_good.save(&second, 2, &keyring).unwrap();
        let (loaded, revision) = LastGood::open(dir.path()).unwrap().load(&keyring, |_, _| {}).unwrap();
        assert_eq!((loaded.checksum(), revision), (second.checksum(), 2));
    }

    #[test]
    fn a_damaged_newest_file_falls_back_to_the_previous_one() {
        let (dir, keyring) = (tempfile::tempdir().unwrap(), keyring());
        let last_good = LastGood::open(dir.path()).unwrap();
        last_good.save(&set("first"), 1, &keyring).unwrap();
        last_good.save(&set("second"), 2, &keyring).unwrap();
        let path = dir.path().join(CURRENT);
        let good = fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x40;
            fs::write(&path, &bytes).unwrap();
            let mut told = 0;
            let (_, revision) = last_good.load(&keyring, |_, _| told += 1).unwrap();
            assert_eq!((revision, told), (1, 1), "byte {at}");
        }
        fs::write(&path, &good[..good.len() / 2]).unwrap();
        assert_eq!(last_good.load(&keyring, |_, _| {}).unwrap().1, 1);
    }

    /// I10.
    #[test]
    fn i10_the_file_tells_nothing_without_the_key() {
        let (dir, keyring) = (tempfile::tempdir().unwrap(), keyring());
        let last_good = LastGood::open(dir.path()).unwrap();
        last_good.save(&set("canary-organization"), 1, &keyring).unwrap();
        let bytes = fs::read(dir.path().join(CURRENT)).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
        assert!(last_good.load(&self::keyring(), |_, _| {}).is_none());
    }
}
