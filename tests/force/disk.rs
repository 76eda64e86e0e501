//! A disk that is too small: an error that says so, and nothing lost once there is room.

use std::process::Command;

use crate::{
    attack::{Clock, Dice, EXPERIMENT, binary},
    skipped::skipped,
};

/// In a mount namespace of its own: the run on a disk of `$1` kB, then with room, then a check.
const SCRIPT: &str = r#"
mount -t tmpfs -o size=${1}k tmpfs "$2" || exit 77
cd "$2" && printf '%s' "$4" > all.yaml || exit 78
timeout -s KILL 90 "$3" run all.yaml; echo "first $?"
mount -o remount,size=512m "$2" || exit 81
timeout -s KILL 90 "$3" run all.yaml || exit 79
timeout -s KILL 90 "$3" cache verify || exit 80
"#;

#[test]
fn a_full_disk_is_told_and_healed_by_room() {
    let (mut dice, clock) = (Dice::new("disk"), Clock::start());
    let mut n_disks = 0;
    while n_disks == 0 || clock.goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let size = 24 + dice.below(900);
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", SCRIPT, "sh", &size.to_string()])
            .args([folder.path(), &binary()])
            .arg(EXPERIMENT)
            .env("TINYLM_OFFLINE", "1")
            .output();
        let Ok(output) = output else {
            skipped("there is no `unshare`");
            return;
        };
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let is_refused = output.status.code() == Some(1) && said.contains("unshare:");
        if is_refused || output.status.code() == Some(77) {
            skipped(&format!("no mounts here: {said}"));
            return;
        }
        if output.status.code() == Some(78) {
            continue;
        }
        assert!(
            output.status.success(),
            "{size} kB, {}: {said}",
            output.status
        );
        assert!(!said.contains("panicked"), "{size} kB: {said}");
        let told = ["first 0", "first 1", "first 2", "first 3"];
        assert!(
            told.iter().any(|told| said.contains(told)),
            "{size} kB: {said}"
        );
        n_disks += 1;
    }
    println!("disk: {n_disks} disks");
}
