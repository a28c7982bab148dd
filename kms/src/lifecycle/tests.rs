//! The whole table of states and steps.

use super::*;

const STATES: [KeyState; 6] = [
    KeyState::Destroyed,
    KeyState::Disabled,
    KeyState::Enabled,
    KeyState::PendingDeletion,
    KeyState::PendingImport,
    KeyState::Unavailable,
];

const EVENTS: [KeyEvent; 9] = [
    KeyEvent::CancelDeletion,
    KeyEvent::Destroy,
    KeyEvent::Disable,
    KeyEvent::Enable,
    KeyEvent::ImportMaterial,
    KeyEvent::LoseMaterial,
    KeyEvent::LoseStore,
    KeyEvent::RegainStore,
    KeyEvent::ScheduleDeletion,
];

#[test]
fn the_table() {
    use KeyEvent as E;
    use KeyState as S;
    let allowed = [
        (S::Disabled, E::Disable, S::Disabled),
        (S::Disabled, E::Enable, S::Enabled),
        (S::Disabled, E::LoseMaterial, S::PendingImport),
        (S::Disabled, E::ScheduleDeletion, S::PendingDeletion),
        (S::Enabled, E::Disable, S::Disabled),
        (S::Enabled, E::Enable, S::Enabled),
        (S::Enabled, E::LoseMaterial, S::PendingImport),
        (S::Enabled, E::LoseStore, S::Unavailable),
        (S::Enabled, E::ScheduleDeletion, S::PendingDeletion),
        (S::PendingDeletion, E::CancelDeletion, S::Disabled),
        (S::PendingDeletion, E::Destroy, S::Destroyed),
        (S::PendingImport, E::ImportMaterial, S::Enabled),
        (S::PendingImport, E::ScheduleDeletion, S::PendingDeletion),
        (S::Unavailable, E::Disable, S::Disabled),
        (S::Unavailable, E::RegainStore, S::Enabled),
        (S::Unavailable, E::ScheduleDeletion, S::PendingDeletion),
    ];
    for state in STATES {
        for event in EVENTS {
            let want = allowed.iter().find(|step| (step.0, step.1) == (state, event));
            match (want, state.after(event)) {
                (Some((_, _, want)), Ok(got)) => assert_eq!(got, *want, "{state} {event:?}"),
                (None, Err(error)) => {
                    let is_destroyed = state == KeyState::Destroyed;
                    let kind =
                        if is_destroyed { ErrorKind::KeyDestroyed } else { ErrorKind::Conflict };
                    assert_eq!(error.kind(), kind, "{state} {event:?}");
                }
                (want, got) => panic!("{state} {event:?}: {got:?} instead of {want:?}"),
            }
        }
    }
}

#[test]
fn only_enabled_opens_the_gate() {
    for state in STATES {
        assert_eq!(state.gate().is_none(), state == KeyState::Enabled);
    }
}

#[test]
fn codes_read_back() {
    for state in STATES {
        assert_eq!(KeyState::from_code(state.code()), Some(state));
    }
    assert_eq!(KeyState::from_code(0), None);
    assert_eq!(KeyState::from_code(7), None);
}
