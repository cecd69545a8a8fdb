//! What the owner of an instance gives it to read as it starts: user data and a key.

use base64::{Engine, engine::general_purpose::STANDARD};
use model::{
    Error, Id, Result,
    resource::{
        guest_data::{
            DeleteVmSshKey, DeleteVmUserdata, GetVmSshKey, GetVmUserdata, GuestData, SetVmSshKey,
            SetVmUserdata,
        },
        vm_instance::VmInstance,
    },
};
use serde_json::{Value, json};
use store::Read;
use uuid::Uuid;

use crate::{
    Look, Reply, Txn, invisible,
    operation::{Operation, job, look},
};

/// Most user data, in bytes: as much as OpenStack takes. EC2 takes a quarter of it, and ZStack names no
/// limit. It goes to the instance's host with every change of it.
const USER_DATA_MAX: usize = 65_536;

/// Longest key, in characters: it is a tag, too. One of RSA has 740 with 4,096 bits.
const KEY_MAX: usize = 2000;

/// What its messages do.
pub(crate) fn operations() -> Vec<Operation> {
    vec![
        job(set_user_data),
        look(user_data),
        job(delete_user_data),
        job(set_key),
        look(key),
        job(delete_key),
    ]
}

/// What an instance that is made is given by its tags.
pub(crate) fn of_tags(txn: &mut Txn<'_>, id: Id<VmInstance>) -> Result<()> {
    let once = |tags: Vec<&str>, what: &str| match tags[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.to_owned())),
        _ => {
            let error = Error::field("systemTags", format!("give the instance two {what}"));
            Err(error.hint("give one"))
        }
    };
    let user_data = once(txn.tags("userdata::"), "user data")?;
    let ssh_key = once(txn.tags("sshkey::"), "keys")?;
    user_data.iter().try_for_each(|text| check_user_data("systemTags", text))?;
    ssh_key.iter().try_for_each(|key| check_key("systemTags", key))?;
    change(txn, id, |data| (data.user_data, data.ssh_key) = (user_data, ssh_key)).map(drop)
}

fn set_user_data(txn: &mut Txn<'_>, message: SetVmUserdata) -> Result<Reply> {
    check_user_data("userdata", &message.userdata)?;
    change(txn, message.uuid, |data| data.user_data = Some(message.userdata))
}

/// Taking away what is not there succeeds.
fn delete_user_data(txn: &mut Txn<'_>, message: DeleteVmUserdata) -> Result<Reply> {
    change(txn, message.uuid, |data| data.user_data = None)
}

fn set_key(txn: &mut Txn<'_>, message: SetVmSshKey) -> Result<Reply> {
    check_key("SshKey", &message.ssh_key)?;
    give_key(txn, message.uuid, Some(message.ssh_key))
}

/// Taking away what is not there succeeds.
fn delete_key(txn: &mut Txn<'_>, message: DeleteVmSshKey) -> Result<Reply> {
    give_key(txn, message.uuid, None)
}

/// Gives an instance this key, or none.
pub(crate) fn give_key(
    txn: &mut Txn<'_>,
    id: Id<VmInstance>,
    ssh_key: Option<String>,
) -> Result<Reply> {
    change(txn, id, |data| data.ssh_key = ssh_key)
}

/// The key of an instance.
pub(crate) fn key_of(txn: &Txn<'_>, id: Id<VmInstance>) -> Option<String> {
    txn.find(data_id(id))?.ssh_key
}

/// There is a row while there is something in it.
fn change(
    txn: &mut Txn<'_>,
    id: Id<VmInstance>,
    with: impl FnOnce(&mut GuestData),
) -> Result<Reply> {
    txn.act_for(txn.get(id)?.uuid);
    let before = txn.find(data_id(id));
    let is_new = before.is_none();
    let mut data = before.unwrap_or_else(|| GuestData {
        uuid: data_id(id),
        vm_instance_uuid: id,
        user_data: None,
        ssh_key: None,
    });
    with(&mut data);
    match (data.user_data.is_some() || data.ssh_key.is_some(), is_new) {
        (true, true) => drop(txn.insert(data)?),
        (true, false) => txn.update(data)?,
        (false, true) => {}
        (false, false) => txn.delete(data.uuid)?,
    }
    Ok(Reply::shows(id))
}

fn user_data(look: &Look<'_>, message: GetVmUserdata) -> Result<Value> {
    let data = shown(look, message.uuid)?;
    Ok(data.and_then(|it| it.user_data).map_or_else(|| json!({}), |it| json!({"userdata": it})))
}

fn key(look: &Look<'_>, message: GetVmSshKey) -> Result<Value> {
    let data = shown(look, message.uuid)?;
    Ok(data.and_then(|it| it.ssh_key).map_or_else(|| json!({}), |it| json!({"sshKey": it})))
}

fn shown(look: &Look<'_>, id: Id<VmInstance>) -> Result<Option<GuestData>> {
    let instance = look.get(id)?;
    let row = look.snapshot().get(model::Kind::GuestData, data_id(instance.uuid).uuid());
    Ok(row.as_deref().and_then(<GuestData as model::Resource>::of).cloned())
}

/// Once for each instance.
fn data_id(instance: Id<VmInstance>) -> Id<GuestData> {
    Id::new(Uuid::new_v5(&instance.uuid(), b"guest data"))
}

fn check_user_data(field: &str, text: &str) -> Result<()> {
    let Ok(data) = STANDARD.decode(text) else {
        let error = Error::field(field, "has user data that is no base64 (RFC 4648, 4)");
        return Err(error.hint("encode it, as with: base64 -w0 FILE"));
    };
    let hint = format!("1 to {USER_DATA_MAX} bytes before base64; #include can fetch more");
    match data.len() {
        0 => Err(Error::field(field, "has empty user data").hint(hint)),
        bytes if bytes > USER_DATA_MAX => {
            let rule = format!("has {bytes} bytes of user data, over {USER_DATA_MAX}");
            Err(Error::field(field, rule).hint(hint))
        }
        _ => Ok(()),
    }
}

/// Checks that this is a line of `authorized_keys` with one public key: its type, its bytes, and perhaps a
/// comment (sshd(8)).
pub(crate) fn check_key(field: &str, key: &str) -> Result<()> {
    let wrong = |rule: &str| {
        let error = Error::field(field, format!("has a key that {rule}"));
        Err(error.hint("give the one line of a file such as id_ed25519.pub"))
    };
    if key.chars().count() > KEY_MAX {
        return wrong(&format!("is over {KEY_MAX} characters long"));
    }
    if key.contains(['\n', '\r']) || invisible::first(key).is_some() {
        return wrong("is several lines, or has something in it that cannot be seen");
    }
    // Between such colons are the parts of a tag.
    if key.contains("::") {
        return wrong("has :: in it");
    }
    let mut parts = key.split(' ');
    let is_type = |word: &str| ["ssh-", "ecdsa-", "sk-"].iter().any(|it| word.starts_with(it));
    match (parts.next(), parts.next()) {
        (Some(word), Some(bytes))
            if is_type(word) && STANDARD.decode(bytes).is_ok_and(|it| !it.is_empty()) =>
        {
            Ok(())
        }
        _ => wrong("is no public key of OpenSSH"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_line_of_authorized_keys() {
        for fine in
            ["ssh-ed25519 AAAA", "ssh-rsa AAAAB3NzaC1yc2E= me@home", "ecdsa-sha2-nistp256 AAAA"]
        {
            check_key("SshKey", fine).unwrap();
        }
        let long = format!("ssh-rsa {}", "A".repeat(KEY_MAX));
        let odd = ["", "tea", "ssh-rsa", "ssh-rsa ä", "ssh-rsa ", "ssh-rsa AAAA a::b", &long];
        for odd in odd.into_iter().chain(["ssh-rsa AAAA\nssh-rsa AAAA", "-----BEGIN KEY-----"]) {
            check_key("SshKey", odd).unwrap_err();
        }
    }

    #[test]
    fn user_data_is_base64_of_some_bytes() {
        let of = |bytes: usize| check_user_data("userdata", &STANDARD.encode(vec![7; bytes]));
        of(1).unwrap();
        of(USER_DATA_MAX).unwrap();
        of(USER_DATA_MAX + 1).unwrap_err();
        of(0).unwrap_err();
        check_user_data("userdata", "#cloud-config").unwrap_err();
    }
}
