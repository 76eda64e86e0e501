//! Whether a stage's roles are filled: by name, by number, and with the sort of artifact they take.

use super::{
    diagnostic::{Diagnostic, Diagnostics},
    tree::{Entry, Place},
};
use crate::{
    kind::Kind,
    role::{Role, Roles},
};

/// A stage of a unit, by position.
pub(crate) type StageId = (usize, usize);

/// One reference from a stage to another that fills a role.
pub(crate) struct Read {
    pub(crate) role: String,
    pub(crate) target: Option<StageId>,
    /// The kind of the stage it names, where that is known.
    pub(crate) kind: Option<Kind>,
    pub(crate) place: Place,
}

pub(crate) fn check_role(entry: &Entry, role: &Entry, kind: Option<Kind>, wrong: &mut Diagnostics) {
    let Some(kind) = kind else {
        return;
    };
    let Roles::Fixed(roles) = kind.roles else {
        return;
    };
    if roles.iter().any(|known| known.name == role.name) {
        return;
    }
    let diagnostic = Diagnostic::new(format!(
        "stage `{}`: a `{}` stage has no role `{}`",
        entry.name, kind.name, role.name
    ))
    .at(&role.place, "unknown");
    wrong.push(match roles {
        [] => diagnostic.help(format!("a `{}` stage reads nothing", kind.name)),
        _ => diagnostic.hint(&role.name, roles.iter().map(|role| role.name)),
    });
}

/// Required roles that nothing fills, single ones that several stages fill, and references to
/// stages that make something else than the role takes.
pub(crate) fn check_filled(entry: &Entry, roles: &[Role], reads: &[Read], wrong: &mut Diagnostics) {
    for role in roles {
        let filling: Vec<&Read> = reads.iter().filter(|read| read.role == role.name).collect();
        match filling.as_slice() {
            [] if role.required => wrong.push(
                Diagnostic::new(format!(
                    "nothing fills the role `{}` of stage `{}`",
                    role.name, entry.name
                ))
                .at(&entry.place, format!("reads no `{}`", role.name))
                .help(format!("`{}`: {}", role.name, role.about)),
            ),
            [_, second, ..] if !role.many => wrong.push(
                Diagnostic::new(format!(
                    "the role `{}` of stage `{}` takes one stage, not {}",
                    role.name,
                    entry.name,
                    filling.len()
                ))
                .at(&second.place, "one too many"),
            ),
            filling => {
                for read in filling {
                    check_content(entry, role, read, wrong);
                }
            }
        }
    }
}

fn check_content(entry: &Entry, role: &Role, read: &Read, wrong: &mut Diagnostics) {
    let Some(kind) = read.kind.filter(|kind| !kind.makes.fits(role.takes)) else {
        return;
    };
    let taken: Vec<String> = role.takes.iter().map(ToString::to_string).collect();
    let title = format!(
        "the role `{}` of stage `{}` takes {}",
        role.name,
        entry.name,
        taken.join(" or ")
    );
    let label = format!("`{}` makes {}", kind.name, kind.makes);
    wrong.push(
        Diagnostic::new(title)
            .at(&read.place, label)
            .help(format!("`{}`: {}", role.name, role.about)),
    );
}
