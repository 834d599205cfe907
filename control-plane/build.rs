//! Makes cargo rebuild when a migration is added: `sqlx::migrate!` embeds the files of that folder.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
