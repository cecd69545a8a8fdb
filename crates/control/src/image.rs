//! Images.

use model::{
    Error, Resource, Result,
    resource::{
        image::{
            AddImage, ChangeImageState, DeleteImage, GetInterdependentL3NetworksImages, Image,
            MediaType, Platform, UpdateImage,
        },
        zone::EnableState,
    },
    shown::LIST_MAX,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Look, Reply, Txn, nic_plug,
    operation::{Operation, job, look},
    sight,
};

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![job(add), job(update), job(delete), job(change_state), look(interdependent)]
}

pub(crate) fn add(txn: &mut Txn<'_>, message: AddImage) -> Result<Reply> {
    let image = Image {
        uuid: txn.new_id(),
        name: message.name,
        description: message.description,
        url: message.url,
        media_type: message.media_type.unwrap_or(MediaType::Root),
        platform: message.platform.unwrap_or(Platform::Linux),
        guest_os_type: message.guest_os_type,
        format: message.format,
        architecture: message.architecture,
        system: message.system.unwrap_or(false),
        state: EnableState::Enabled,
    };
    txn.insert(image).map(Reply::shows)
}

pub(crate) fn update(txn: &mut Txn<'_>, message: UpdateImage) -> Result<Reply> {
    let mut image = txn.get(message.uuid)?;
    image.name = message.name.unwrap_or(image.name);
    message.description.apply(&mut image.description);
    txn.update(image)?;
    Ok(Reply::shows(message.uuid))
}

pub(crate) fn delete(txn: &mut Txn<'_>, message: DeleteImage) -> Result<Reply> {
    txn.delete(message.uuid)?;
    Ok(Reply::nothing())
}

pub(crate) fn change_state(txn: &mut Txn<'_>, message: ChangeImageState) -> Result<Reply> {
    let mut image = txn.get(message.uuid)?;
    image.state = image.state.next(message.state_event);
    txn.update(image)?;
    Ok(Reply::shows(message.uuid))
}

fn interdependent(look: &Look<'_>, message: GetInterdependentL3NetworksImages) -> Result<Value> {
    match (message.image_uuid, message.l3_network_uuids) {
        (Some(_), None) => Ok(nic_plug::networks(look, message.zone_uuid, None, &[])),
        (None, Some(l3s)) => {
            for l3 in l3s {
                if look.get(l3)?.zone_uuid != message.zone_uuid {
                    let rule = format!("{l3} is not in zone {}", message.zone_uuid);
                    let hint = "name L3 networks of that zone";
                    return Err(Error::field("l3NetworkUuids", rule).hint(hint));
                }
            }
            Ok(images(look))
        }
        (Some(_), Some(_)) | (None, None) => {
            let error = Error::field("imageUuid", "or l3NetworkUuids is needed, not both");
            Err(error.hint("name an image to get L3 networks, or L3 networks to get images"))
        }
    }
}

/// The images that new instances of the caller can have: its own, and those shared with it.
fn images(look: &Look<'_>) -> Value {
    let snapshot = look.snapshot();
    let ids: Vec<Uuid> = match (look.caller().is_admin(), look.caller().account()) {
        (false, Some(account)) => sight::ids(snapshot, account, Image::KIND),
        _ => snapshot.ids(Image::KIND).take(LIST_MAX).collect(),
    };
    let ids = ids.into_iter().take(LIST_MAX);
    let rows = ids.filter_map(|id| look.visible(Image::KIND, id));
    let is_usable =
        |image: &Image| image.state == EnableState::Enabled && image.media_type == MediaType::Root;
    let usable = rows.filter(|row| Image::of(row).is_some_and(is_usable));
    json!({"inventories": usable.map(|row| look.show(&row)).collect::<Vec<_>>()})
}
