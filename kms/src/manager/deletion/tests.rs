//! Random sequences of verbs against a table of their own.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::imports::ImportRequest;
use super::*;
use crate::error::ErrorKind as Kind;
use crate::fixtures::{purpose, ramp, timed_kms};
use crate::gate::{Access, KeyUse};
use crate::lifecycle::KeyState as State;
use crate::secret::{TenantKey, copy_of};
use crate::types::TenantId;

const ADA: TenantId = TenantId::from_bytes([0xad; 16]);

#[derive(Clone, Copy, Debug)]
enum Verb {
    Cancel,
    DeleteMaterial,
    Destroy,
    Disable,
    Enable,
    Import,
    Reopen,
    Rotate,
    Schedule,
    SetRotation,
}

/// AWS KMS's table of states for the verbs, written down again: the state after, or the refusal.
/// `imported` keys have one material, which is there or not.
fn table(state: State, verb: Verb, imported: bool, present: bool) -> Result<State, Kind> {
    use State as S;
    use Verb as V;
    if matches!(verb, V::Reopen) {
        return Ok(state);
    }
    if state == S::Destroyed {
        return match verb {
            V::Destroy => Ok(state),
            V::DeleteMaterial if !imported => Err(Kind::Unsupported),
            V::SetRotation if imported => Err(Kind::Unsupported),
            _ => Err(Kind::KeyDestroyed),
        };
    }
    match verb {
        V::Cancel if state == S::PendingDeletion && imported && !present => Ok(S::PendingImport),
        V::Cancel if state == S::PendingDeletion => Ok(S::Disabled),
        V::DeleteMaterial if !imported => Err(Kind::Unsupported),
        V::DeleteMaterial if state == S::PendingDeletion => Ok(state),
        V::DeleteMaterial => Ok(S::PendingImport),
        V::Destroy if state == S::PendingDeletion => Ok(S::Destroyed),
        V::Cancel | V::Destroy => Err(Kind::Conflict),
        V::Disable | V::Enable if matches!(state, S::PendingDeletion | S::PendingImport) => {
            Err(Kind::Conflict)
        }
        V::Disable => Ok(S::Disabled),
        V::Enable => Ok(S::Enabled),
        V::Import if state == S::PendingImport => Ok(S::Enabled),
        V::Import | V::Reopen => Ok(state),
        V::Schedule if state == S::PendingDeletion => Err(Kind::Conflict),
        V::Schedule => Ok(S::PendingDeletion),
        V::SetRotation if imported => Err(Kind::Unsupported),
        V::Rotate | V::SetRotation => match state {
            S::Enabled if imported => Err(Kind::Conflict),
            S::Enabled => Ok(state),
            S::Disabled => Err(Kind::KeyDisabled),
            _ => Err(Kind::KeyUnusable),
        },
    }
}

fn act(kms: &Kms, id: TenantKeyId, verb: Verb) -> Result<()> {
    let who = purpose(ADA);
    match verb {
        Verb::Cancel => kms.cancel_deletion(&who, id),
        Verb::DeleteMaterial => kms.delete_imported_material(&who, id, None),
        Verb::Destroy => {
            kms.begin_destruction(ADA, id)?;
            kms.erase_materials(ADA, id)?;
            kms.finish_destruction(ADA, id)
        }
        Verb::Disable => kms.disable(&who, id),
        Verb::Enable => kms.enable(&who, id),
        Verb::Import => {
            let entry = kms.entry(ADA, id)?;
            let material = TenantKey::fill_with(copy_of(&ramp(7)))?;
            let (_, opens) = kms.change(&entry, |record, writer| {
                kms.place_material(record, writer, &material, ImportRequest::default())
            })?;
            if opens { entry.gate.open() } else { Ok(()) }
        }
        Verb::Reopen => Ok(()),
        Verb::Rotate => kms.rotate(&who, id).map(drop),
        Verb::Schedule => kms.schedule_deletion(&who, id, 7).map(drop),
        Verb::SetRotation => kms.set_rotation(&who, id, Some(365)),
    }
}

fn verbs() -> impl Strategy<Value = Vec<Verb>> {
    let verb = prop::sample::select(vec![
        Verb::Cancel,
        Verb::DeleteMaterial,
        Verb::Destroy,
        Verb::Disable,
        Verb::Enable,
        Verb::Import,
        Verb::Reopen,
        Verb::Rotate,
        Verb::Schedule,
        Verb::SetRotation,
    ]);
    vec(verb, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn states_follow_the_table(verbs in verbs(), imported: bool) {
        let dir = tempfile::tempdir().unwrap();
        let (mut kms, store, env, clock) = timed_kms(dir.path(), 1);
        let origin = if imported { KeyOrigin::Imported } else { KeyOrigin::Local };
        let id = kms.create_key(&purpose(ADA), origin).unwrap().id;
        let mut state = if imported { State::PendingImport } else { State::Enabled };
        let mut present = !imported;
        for verb in verbs {
            // Imports are placed past their state check here; it has tests of its own.
            let is_refused_import = !imported || matches!(state, State::PendingDeletion | State::Destroyed);
            if matches!(verb, Verb::Import) && is_refused_import {
                continue;
            }
            if matches!(verb, Verb::Destroy) {
                clock.advance_ms(7 * DAY_MS);
            }
            if matches!(verb, Verb::Reopen) {
                drop(kms);
                kms = Kms::open(dir.path(), &store, env.clone()).unwrap();
            }
            let want = table(state, verb, imported, present);
            let got = act(&kms, id, verb).map_err(|error| error.kind());
            prop_assert_eq!(got, want.map(drop), "{:?} when {}", verb, state);
            if let Ok(next) = want {
                state = next;
                present = match verb {
                    Verb::Import => true,
                    Verb::DeleteMaterial => false,
                    _ => present,
                };
            }
            let info = kms.describe(ADA, id).unwrap();
            prop_assert_eq!(info.state, state);
            let used = kms.permit(&purpose(ADA), id, Access::direct(KeyUse::Write));
            let want = match state {
                State::Enabled => None,
                State::Disabled => Some(Kind::KeyDisabled),
                State::Destroyed => Some(Kind::KeyDestroyed),
                _ => Some(Kind::KeyUnusable),
            };
            prop_assert_eq!(used.err().map(|error| error.kind()), want);
        }
    }
}
