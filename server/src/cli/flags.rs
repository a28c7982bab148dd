//! The configuration fields as flags of `kluis serve`.
//!
//! Owns: how they are made from the one list of fields. Knows nothing of: any field.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::config::{FIELDS, Field, Kind, Texts};

/// The fields that have a flag.
fn flagged() -> impl Iterator<Item = &'static Field> {
    FIELDS.iter().filter(|field| field.kind != Kind::Tables)
}

/// Settings given as flags, by field name.
#[derive(Debug, Default)]
pub(super) struct ConfigFlags(pub(super) Texts);

impl Args for ConfigFlags {
    fn augment_args(command: Command) -> Command {
        flagged().fold(command, |command, field| {
            let lines = field.docs.iter().map(|line| line.trim());
            let help: Vec<_> = lines.map(str::to_owned).chain(field.bounds_text()).collect();
            let value_name = match field.kind {
                Kind::Boolean => "true|false",
                Kind::Integer => "NUMBER",
                Kind::Text if field.name.ends_with("_file") => "FILE",
                Kind::Text if field.name.ends_with("listen") => "ADDRESS",
                Kind::Text | Kind::Tables => "TEXT",
            };
            let arg = Arg::new(field.name)
                .long(field.flag_name())
                .value_name(value_name)
                .action(ArgAction::Set)
                .help(help.join(" "))
                .help_heading(field.section);
            command.arg(match field.kind {
                // `--flag` alone means true.
                Kind::Boolean => {
                    arg.num_args(0..=1).require_equals(true).default_missing_value("true")
                }
                Kind::Integer | Kind::Text | Kind::Tables => arg,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = flagged().filter_map(|field| {
            matches.get_one::<String>(field.name).map(|text| (field.name, text.clone()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
