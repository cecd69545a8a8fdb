//! Image: what an instance starts from. Nothing is fetched: to an instance that is a namespace it is a
//! name, for ZStack's clients, which ask for one; a machine starts from the file that its host has.

use derive::{Message, Resource};
use serde::{Deserialize, Serialize};

use super::{
    l3_network::L3Network,
    zone::{EnableEvent, EnableState, Zone},
};
use crate::{FieldDef, Id, Message, MessageDef, Plain, Update, shown::Derived, words};

words! {
    /// What an image is for.
    MediaType {
        /// The first disk of an instance.
        Root = "RootVolumeTemplate",
        /// A further disk.
        Data = "DataVolumeTemplate",
        /// A disc to install from.
        Iso = "ISO",
    }
}

words! {
    /// What an instance of an image runs.
    Platform {
        /// Linux.
        Linux = "Linux",
        /// Windows.
        Windows = "Windows",
        /// Something else.
        Other = "Other",
        /// ZStack's word for guests that know that they are.
        Paravirtualization = "Paravirtualization",
        /// Windows with drivers for virtio.
        WindowsVirtio = "WindowsVirtio",
    }
}

words! {
    /// A format that a machine can start from.
    RootFormat {
        /// A disk, byte by byte.
        Raw = "raw",
        /// A disk in QEMU's own format.
        Qcow2 = "qcow2",
        /// A directory with a kernel `vmlinuz` and its `initrd`.
        Kernel = "kernel",
    }
}

/// What an instance starts from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Resource)]
#[serde(rename_all = "camelCase")]
#[resource(path = "/images", derived, shareable, messages)]
pub struct Image {
    /// Its id.
    pub uuid: Id<Image>,
    /// A name.
    #[field(index)]
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Where it is. Nothing is fetched from there. `file:///debian.qcow2` is the file `debian.qcow2`
    /// in the directory `images` of each host's agent.
    pub url: String,
    /// What it is for.
    pub media_type: MediaType,
    /// What its guests run.
    pub platform: Platform,
    /// What its guests run, in words.
    pub guest_os_type: Option<String>,
    /// Its format.
    pub format: String,
    /// The processors that it is for.
    pub architecture: Option<String>,
    /// The platform's own.
    pub system: bool,
    /// Whether new instances may have it.
    pub state: EnableState,
}

impl Image {
    /// What a machine starts from: the way below its host's directory of images, and what that is.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn root(&self) -> Result<(String, RootFormat), String> {
        let path = self.url.strip_prefix("file:///").unwrap_or_default();
        let is_plain = |part: &str| !matches!(part, "" | "." | "..");
        if !path.split('/').all(is_plain) {
            return Err(format!("its url {} is not file:/// and the way to a file", self.url));
        }
        let format = RootFormat::ALL.iter().find(|format| format.as_str() == self.format);
        let format = format.ok_or_else(|| {
            let all: Vec<_> = RootFormat::ALL.iter().map(|format| format.as_str()).collect();
            format!("its format {} is none of {}", self.format, all.join(", "))
        })?;
        Ok((path.to_owned(), *format))
    }

    const MESSAGES: &'static [&'static MessageDef] = &[
        &AddImage::DEF,
        &UpdateImage::DEF,
        &DeleteImage::DEF,
        &ChangeImageState::DEF,
        &GetInterdependentL3NetworksImages::DEF,
    ];

    const DERIVED: &'static [Derived] = &[
        Derived {
            field: FieldDef::of::<String>("status", "Always `Ready`: nothing has to be fetched."),
            read: |_, _| Plain::word("Ready"),
            found_by: &[],
            only: &[],
        },
        Derived {
            field: FieldDef::of::<String>("type", "Always `zstack`."),
            read: |_, _| Plain::word("zstack"),
            found_by: &[],
            only: &[],
        },
        Derived::nothing("backupStorageRefs", "Always empty: nothing is stored."),
    ];
}

/// Makes an image known. Nothing is fetched.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(post = "/images", creates = "Image")]
pub struct AddImage {
    /// A name.
    pub name: String,
    /// Free text.
    #[field(max_len = 2048)]
    pub description: Option<String>,
    /// Where it is: for machines `file:///` and the way below the directory `images` of each host's
    /// agent.
    #[field(max_len = 1024)]
    pub url: String,
    /// What it is for; `RootVolumeTemplate` if absent.
    pub media_type: Option<MediaType>,
    /// What its guests run; `Linux` if absent.
    pub platform: Option<Platform>,
    /// What its guests run, in words.
    pub guest_os_type: Option<String>,
    /// Its format: machines can start from `qcow2`, `raw` and `kernel`.
    pub format: String,
    /// The processors that it is for.
    pub architecture: Option<String>,
    /// The platform's own.
    pub system: Option<bool>,
    /// Accepted and ignored: nothing is stored.
    pub backup_storage_uuids: Option<Vec<String>>,
    /// Accepted and ignored.
    #[serde(rename = "type")]
    pub image_type: Option<String>,
    /// Accepted and ignored.
    pub virtio: Option<bool>,
}

/// Renames an image.
#[derive(Debug, Deserialize, Message)]
#[message(put = "/images/{uuid}/actions", action = "updateImage")]
pub struct UpdateImage {
    /// The image.
    pub uuid: Id<Image>,
    /// A new name.
    pub name: Option<String>,
    /// A new text, or none.
    #[serde(default)]
    #[field(max_len = 2048)]
    pub description: Update<String>,
}

/// Forgets an image. Instances that have it stay as they are.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(delete = "/images/{uuid}")]
pub struct DeleteImage {
    /// The image.
    pub uuid: Id<Image>,
    /// Accepted and ignored: nothing is stored.
    pub backup_storage_uuids: Option<Vec<String>>,
}

/// Says whether new instances may have an image.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(put = "/images/{uuid}/actions", action = "changeImageState")]
pub struct ChangeImageState {
    /// The image.
    pub uuid: Id<Image>,
    /// What is to happen.
    pub state_event: EnableEvent,
}

/// The images that instances on these L3 networks can have, or the L3 networks for instances of this
/// image: 1,000 at most. Images are nowhere in particular, so each fits each.
#[derive(Debug, Deserialize, Message)]
#[serde(rename_all = "camelCase")]
#[message(get = "/images-l3networks/dependencies", answer = "now")]
pub struct GetInterdependentL3NetworksImages {
    /// Where.
    pub zone_uuid: Id<Zone>,
    /// The L3 networks.
    #[field(max_len = 16)]
    pub l3_network_uuids: Option<Vec<Id<L3Network>>>,
    /// The image.
    pub image_uuid: Option<Id<Image>>,
    /// Accepted and ignored: what is wrong is always told.
    pub raise_exception: Option<bool>,
}
