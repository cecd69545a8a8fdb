//! Accounts and passwords.

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use model::{
    Code, Error, Id, Kind, Record, Result, Timestamp,
    resource::account::{ADMIN, Account},
};
use sha2::{Digest, Sha512};
use store::{Read, Store};

/// What ZStack's clients send instead of the password: its SHA-512 in lower-case hex.
#[must_use]
pub fn client_digest(password: &str) -> String {
    Sha512::digest(password.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The form in which a password's client digest is kept: a salted Argon2id PHC string.
///
/// # Errors
/// [`Code::Internal`] if the system gives no randomness.
pub fn hash(digest: &str) -> Result<String> {
    let hashed = Argon2::default().hash_password(digest.as_bytes());
    hashed.map(|hash| hash.to_string()).map_err(|cause| {
        Error::new(Code::Internal, "the password could not be hashed").cause(cause)
    })
}

/// Makes the account `admin` if the store has none yet.
///
/// # Errors
/// The store's.
pub fn create_admin(store: &Store<Record>, password_hash: &str, now: Timestamp) -> Result<()> {
    let account = Account {
        uuid: Id::new(ADMIN),
        name: "admin".into(),
        account_type: "SystemAdmin".into(),
        password_hash: password_hash.to_owned(),
        create_date: now,
        last_op_date: now,
    };
    let insert = move |tx: &mut store::Tx<Record>| {
        if tx.get(Kind::Account, ADMIN).is_none() {
            tx.put(Record::Account(account.clone()));
        }
        Ok(())
    };
    store.transact(insert).map(|_| ())
}

/// The account with this name and password. Takes tens of milliseconds of CPU on purpose: call it
/// where blocking is allowed.
///
/// # Errors
/// [`Code::AuthenticationFailed`], the same for an unknown name and a wrong password.
pub fn authenticate(read: &impl Read<Record>, name: &str, digest: &str) -> Result<Account> {
    let account = read.list(Kind::Account).find_map(|record| match &*record {
        Record::Account(account) if account.name == name => Some(account.clone()),
        _ => None,
    });
    // An unknown name costs as much as a known one: timing must not tell them apart.
    let stored = account.as_ref().map_or(NOBODY, |account| &account.password_hash);
    let fits = PasswordHash::new(stored)
        .is_ok_and(|hash| Argon2::default().verify_password(digest.as_bytes(), &hash).is_ok());
    account.filter(|_| fits).ok_or_else(|| {
        Error::new(Code::AuthenticationFailed, "wrong account name or password").hint(
            "the first start writes admin's password to DIR/admin-password; \
             clients send its SHA-512 in hex",
        )
    })
}

/// The hash of a password that nobody knows.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5bm9ib2R5$\
                      QXJlIHlvdSBzdXJlIHRoYXQgaXQgaXMgbm9ib2R5PyE";
