//! One declaration for each setting: from it come the field, its default, its parser and its documentation.
//!
//! `section!` takes a struct whose fields look like
//! `pub max_head_bytes: usize = SIZE(16 * KIB)` and makes the struct, its `Default`, its `Debug` (in which
//! secrets are hidden) and its [`Section`]: the table by which `raw` reads and `document` writes. A field's
//! doc comment is its text in `docs/config.md`. What must stay true: no setting is described anywhere else.

use super::kind::{Form, Kind};
use toml::Value;

/// One setting within its section `S`.
pub(super) struct Field<S: 'static> {
    /// The key, as in the file.
    pub(super) key: &'static str,
    /// What the setting means.
    pub(super) doc: &'static str,
    /// The kind of its values, in words.
    pub(super) kind: &'static str,
    /// How text becomes its TOML value.
    pub(super) form: Form,
    /// Puts a value in its place, or says what it must be.
    pub(super) set: fn(&mut S, &Value) -> Result<(), String>,
    /// The value that is in place; `None` if it is not set.
    pub(super) show: fn(&S) -> Option<Value>,
}

/// A struct that is one table of the configuration file.
pub(super) trait Section: Sized + 'static {
    /// What the section is about.
    const DOC: &'static str;

    /// Its settings, in the order of their declaration.
    fn fields() -> Vec<Field<Self>>;

    /// What holds where nothing is configured.
    fn defaults() -> Self;
}

/// Makes one field of a table; a function, so that the types of `kind` and closures are joined here.
pub(super) fn field<S, T>(
    key: &'static str,
    doc: &'static str,
    kind: Kind<T>,
    set: fn(&mut S, &Value) -> Result<(), String>,
    show: fn(&S) -> Option<Value>,
) -> Field<S> {
    Field { key, doc, kind: kind.name, form: kind.form, set, show }
}

/// The [`Section`] of a struct that is declared elsewhere.
macro_rules! fields {
    (
        $(#[doc = $section_doc:literal])+
        $name:ty {
            $( $(#[doc = $doc:literal])+ $field:ident = $kind:ident($default:expr), )+
        }
    ) => {
        impl $crate::config::section::Section for $name {
            const DOC: &'static str = concat!($($section_doc),+);

            fn fields() -> Vec<$crate::config::section::Field<$name>> {
                vec![$($crate::config::section::field(
                    stringify!($field),
                    concat!($($doc),+),
                    $crate::config::kind::$kind,
                    |section, value| {
                        section.$field = ($crate::config::kind::$kind.read)(value)?;
                        Ok(())
                    },
                    |section| ($crate::config::kind::$kind.show)(&section.$field),
                ),)+]
            }

            fn defaults() -> $name {
                Self { $($field: $default,)+ }
            }
        }
    };
}

/// A section's struct and everything that is derived from it.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])+
        pub struct $name:ident {
            $( $(#[doc = $doc:literal])+ pub $field:ident: $type:ty = $kind:ident($default:expr), )+
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, PartialEq)]
        pub struct $name { $( $(#[doc = $doc])+ pub $field: $type, )+ }

        $crate::config::section::fields! {
            $(#[doc = $section_doc])+
            $name { $( $(#[doc = $doc])+ $field = $kind($default), )+ }
        }

        impl Default for $name {
            fn default() -> $name {
                <$name as $crate::config::section::Section>::defaults()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                // Through the kind, which hides secrets: a configuration may end up in a log.
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($field), &($crate::config::kind::$kind.show)(&self.$field)))+
                    .finish()
            }
        }
    };
}

pub(super) use {fields, section};
