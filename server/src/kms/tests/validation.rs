//! Every operation refuses what is missing, of another type or over a limit, and changes nothing.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::table::{self, Handler};
use super::{World, b64, user};

/// For each operation that the keys serve: fields that are each wrong alone. `KEY` stands for a
/// key's id, `ADA` for a user's ARN, `a*9` for nine letters and `B*9` for nine bytes. What begins
/// with `!` has a field of another type.
const WRONG: &[(&str, &[&str])] = &[
    ("CancelKeyDeletion", &["{}", r#"!{"KeyId": 1}"#, r#"{"KeyId": "a*2049"}"#]),
    (
        "CreateAlias",
        &[
            r#"{"TargetKeyId": "KEY"}"#,
            r#"{"AliasName": "alias/a"}"#,
            r#"{"AliasName": "a", "TargetKeyId": "KEY"}"#,
            r#"{"AliasName": "alias/", "TargetKeyId": "KEY"}"#,
            r#"{"AliasName": "alias/a b", "TargetKeyId": "KEY"}"#,
            r#"{"AliasName": "a*257", "TargetKeyId": "KEY"}"#,
        ],
    ),
    (
        "CreateGrant",
        &[
            r#"{"KeyId": "KEY", "Operations": ["Decrypt"]}"#,
            r#"{"KeyId": "KEY", "GranteePrincipal": "ADA"}"#,
            r#"{"KeyId": "KEY", "GranteePrincipal": "a b", "Operations": ["Decrypt"]}"#,
            r#"{"KeyId": "KEY", "GranteePrincipal": "ADA", "Operations": ["Fly"]}"#,
            r#"!{"KeyId": "KEY", "GranteePrincipal": "ADA", "Operations": ["Decrypt"], "Constraints": 1}"#,
            r#"!{"KeyId": "KEY", "GranteePrincipal": "ADA", "Operations": ["Decrypt"], "DryRun": "yes"}"#,
        ],
    ),
    (
        "CreateKey",
        &[
            r#"{"Description": "a*8193"}"#,
            r#"{"KeySpec": "AES"}"#,
            r#"{"KeyUsage": "SIGN_VERIFY"}"#,
            r#"{"Origin": "MOON"}"#,
            r#"{"KeySpec": "SYMMETRIC_DEFAULT", "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT"}"#,
            r#"{"Tags": [{"TagKey": "a"}]}"#,
            r#"{"Tags": [{"TagKey": "a*129", "TagValue": ""}]}"#,
            r#"{"Tags": [{"TagKey": "a", "TagValue": "a*257"}]}"#,
            r#"!{"MultiRegion": "yes"}"#,
            r#"{"Origin": "EXTERNAL_KEY_STORE"}"#,
            r#"{"CustomKeyStoreId": "s"}"#,
        ],
    ),
    (
        "Decrypt",
        &[
            "{}",
            r#"!{"CiphertextBlob": "%"}"#,
            r#"{"CiphertextBlob": "B*6145"}"#,
            r#"!{"CiphertextBlob": "B*9", "EncryptionContext": []}"#,
            r#"{"CiphertextBlob": "B*9", "DryRunModifiers": ["IGNORE_CIPHERTEXT"]}"#,
            r#"{"KeyId": "KEY", "DryRun": true, "DryRunModifiers": ["OTHER"]}"#,
            r#"{"DryRun": true, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]}"#,
        ],
    ),
    ("DeleteAlias", &["{}", r#"{"AliasName": "a"}"#, r#"!{"AliasName": 1}"#]),
    ("DeleteImportedKeyMaterial", &["{}", r#"{"KeyId": "KEY", "KeyMaterialId": "0"}"#]),
    (
        "DescribeKey",
        &[
            "{}",
            r#"{"KeyId": "KEY", "GrantTokens": [""]}"#,
            r#"!{"KeyId": "KEY", "GrantTokens": "a"}"#,
        ],
    ),
    ("DisableKey", &["{}", r#"!{"KeyId": ["KEY"]}"#]),
    ("DisableKeyRotation", &["{}", r#"!{"KeyId": {}}"#]),
    ("EnableKey", &["{}", r#"!{"KeyId": true}"#]),
    (
        "EnableKeyRotation",
        &[
            "{}",
            r#"{"KeyId": "KEY", "RotationPeriodInDays": 89}"#,
            r#"{"KeyId": "KEY", "RotationPeriodInDays": 2561}"#,
            r#"!{"KeyId": "KEY", "RotationPeriodInDays": "365"}"#,
        ],
    ),
    (
        "Encrypt",
        &[
            r#"{"KeyId": "KEY"}"#,
            r#"{"Plaintext": "YQ=="}"#,
            r#"{"KeyId": "KEY", "Plaintext": ""}"#,
            r#"{"KeyId": "KEY", "Plaintext": "B*4097"}"#,
            r#"!{"KeyId": "KEY", "Plaintext": "YQ==", "EncryptionContext": {"a": 1}}"#,
            r#"{"KeyId": "KEY", "Plaintext": "YQ==", "EncryptionContext": {"a": "a*8192"}}"#,
            r#"{"KeyId": "KEY", "Plaintext": "YQ==", "EncryptionAlgorithm": "ROT13"}"#,
            r#"!{"KeyId": "KEY", "Plaintext": "YQ==", "DryRun": 1}"#,
        ],
    ),
    (
        "GenerateDataKey",
        &[
            r#"{"KeyId": "KEY"}"#,
            r#"{"KeySpec": "AES_256"}"#,
            r#"{"KeyId": "KEY", "KeySpec": "AES_512"}"#,
            r#"{"KeyId": "KEY", "NumberOfBytes": 0}"#,
            r#"{"KeyId": "KEY", "NumberOfBytes": 1025}"#,
            r#"{"KeyId": "KEY", "NumberOfBytes": 1, "KeySpec": "AES_256"}"#,
        ],
    ),
    ("GenerateDataKeyWithoutPlaintext", &[r#"{"KeyId": "KEY"}"#, "{}"]),
    ("GenerateRandom", &["{}", r#"{"NumberOfBytes": 1025}"#, r#"!{"NumberOfBytes": 1.5}"#]),
    ("GetKeyLastUsage", &["{}", r#"{"KeyId": ""}"#]),
    ("GetKeyPolicy", &["{}", r#"{"KeyId": "KEY", "PolicyName": "a b"}"#]),
    ("GetKeyRotationStatus", &["{}", r#"{"KeyId": ""}"#]),
    (
        "GetParametersForImport",
        &[
            r#"{"KeyId": "KEY", "WrappingKeySpec": "RSA_2048"}"#,
            r#"{"KeyId": "KEY", "WrappingAlgorithm": "RSAES_OAEP_SHA_256"}"#,
            r#"{"KeyId": "KEY", "WrappingAlgorithm": "X", "WrappingKeySpec": "RSA_2048"}"#,
            r#"{"KeyId": "KEY", "WrappingAlgorithm": "RSAES_OAEP_SHA_256", "WrappingKeySpec": "RSA_1"}"#,
        ],
    ),
    (
        "ImportKeyMaterial",
        &[
            r#"{"KeyId": "KEY", "ImportToken": "YQ=="}"#,
            r#"{"KeyId": "KEY", "EncryptedKeyMaterial": "YQ=="}"#,
            r#"{"KeyId": "KEY", "ImportToken": "YQ==", "EncryptedKeyMaterial": "B*6145"}"#,
            r#"{"KeyId": "KEY", "ImportToken": "YQ==", "EncryptedKeyMaterial": "YQ=="}"#,
            r#"{"KeyId": "KEY", "ImportToken": "YQ==", "EncryptedKeyMaterial": "YQ==", "ValidTo": 1}"#,
            r#"{"KeyId": "KEY", "ImportToken": "YQ==", "EncryptedKeyMaterial": "YQ==", "ValidTo": 1800000000}"#,
            r#"{"KeyId": "KEY", "ImportToken": "YQ==", "EncryptedKeyMaterial": "YQ==", "ValidTo": 1700000009, "ExpirationModel": "KEY_MATERIAL_DOES_NOT_EXPIRE"}"#,
        ],
    ),
    ("ListAliases", &[r#"{"Limit": 0}"#, r#"{"Limit": 1001}"#, r#"{"KeyId": ""}"#]),
    ("ListGrants", &["{}", r#"{"KeyId": "KEY", "Limit": 0}"#]),
    ("ListKeyPolicies", &["{}", r#"{"KeyId": "KEY", "Limit": 0}"#]),
    ("ListKeyRotations", &["{}", r#"{"KeyId": "KEY", "IncludeKeyMaterial": "SOME"}"#]),
    (
        "ListKeys",
        &[
            r#"{"Limit": 0}"#,
            r#"!{"Limit": "1"}"#,
            r#"!{"Marker": 1}"#,
            r#"{"ResourceOwners": ["OTHERS"]}"#,
        ],
    ),
    ("ListResourceTags", &["{}", r#"{"KeyId": "KEY", "Limit": 0}"#]),
    ("ListRetirableGrants", &["{}", r#"{"RetiringPrincipal": "a b"}"#]),
    (
        "PutKeyPolicy",
        &[
            r#"{"KeyId": "KEY"}"#,
            r#"{"Policy": "{}"}"#,
            r#"{"KeyId": "KEY", "Policy": ""}"#,
            r#"!{"KeyId": "KEY", "Policy": {}}"#,
        ],
    ),
    ("ReEncrypt", &[r#"{"CiphertextBlob": "YQ=="}"#, r#"{"DestinationKeyId": "KEY"}"#]),
    ("RetireGrant", &["{}", r#"{"KeyId": "KEY"}"#, r#"{"GrantId": "a"}"#]),
    ("RevokeGrant", &[r#"{"KeyId": "KEY"}"#, r#"{"GrantId": "a"}"#]),
    ("RotateKeyOnDemand", &["{}", r#"!{"KeyId": 0}"#]),
    (
        "ScheduleKeyDeletion",
        &[
            "{}",
            r#"{"KeyId": "KEY", "PendingWindowInDays": 6}"#,
            r#"{"KeyId": "KEY", "PendingWindowInDays": 31}"#,
        ],
    ),
    (
        "TagResource",
        &[r#"{"KeyId": "KEY"}"#, r#"!{"KeyId": "KEY", "Tags": [1]}"#, r#"{"Tags": []}"#],
    ),
    ("UntagResource", &[r#"{"KeyId": "KEY"}"#, r#"{"KeyId": "KEY", "TagKeys": ["a*129"]}"#]),
    ("UpdateAlias", &[r#"{"AliasName": "alias/a"}"#, r#"{"TargetKeyId": "KEY"}"#]),
    (
        "UpdateKeyDescription",
        &[
            r#"{"KeyId": "KEY"}"#,
            r#"{"Description": "a"}"#,
            r#"{"KeyId": "KEY", "Description": "a*8193"}"#,
        ],
    ),
];

/// Puts what the words of [`WRONG`] stand for in their place.
fn filled(value: &Value, id: &str) -> Value {
    match value {
        Value::Array(values) => values.iter().map(|value| filled(value, id)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), filled(value, id))).collect()
        }
        Value::String(word) => match (word.as_str(), word.split_once('*')) {
            ("KEY", _) => id.into(),
            ("ADA", _) => "arn:aws:iam::111111111111:user/ada".into(),
            (_, Some(("a", count))) => "a".repeat(count.parse().unwrap()).into(),
            (_, Some(("B", count))) => b64(&vec![1; count.parse().unwrap()]).into(),
            _ => value.clone(),
        },
        Value::Bool(_) | Value::Null | Value::Number(_) => value.clone(),
    }
}

#[test]
fn wrong_values_are_validation_exceptions_and_wrong_types_serialization_exceptions() {
    let world = World::new();
    let (local, imported) =
        (world.key(), world.ok("CreateKey", json!({"Origin": "EXTERNAL"}))["KeyMetadata"].clone());
    let imported = super::text(&imported["KeyId"]);
    let before = world.describe(&local);
    for (operation, wrong) in WRONG {
        let id = if operation.contains("Import") { &imported } else { &local };
        for fields in *wrong {
            let (fields, expected) = match fields.strip_prefix('!') {
                Some(fields) => (fields, "SerializationException"),
                None => (*fields, "ValidationException"),
            };
            let fields = filled(&serde_json::from_str(fields).unwrap(), id);
            let code = world.code(operation, fields.clone());
            assert_eq!(code, expected, "{operation} {fields}");
        }
    }
    assert_eq!(world.describe(&local), before);
    assert_eq!(world.ok("ListKeys", json!({}))["Keys"].as_array().unwrap().len(), 3);
}

/// The table above has every operation that the keys serve.
#[test]
fn no_operation_goes_without_a_check() {
    let checked: BTreeSet<&str> = WRONG.iter().map(|(name, _)| *name).collect();
    for (target, operation) in table::all() {
        if target.starts_with("TrentService.") && matches!(operation.handler, Handler::Keys(_)) {
            assert!(checked.contains(operation.name), "{target}");
        }
    }
}

#[test]
fn what_is_not_there_says_so() {
    let world = World::new();
    let root = user(1, "root");
    let mut unsupported = 0;
    for (target, operation) in table::all() {
        if let Handler::Unsupported = operation.handler {
            let error = world.raw(&root, &target, b"{}").unwrap_err();
            assert_eq!(error.code, "UnsupportedOperationException", "{target}");
            assert!(error.message.contains(operation.name), "{target}");
            unsupported += 1;
        }
    }
    assert_eq!((unsupported, table::all().count()), (18, 56 + 9));
    for target in
        ["", "TrentService", "TrentService.", "TrentService.Fly", "KluisKms.Encrypt", "X.Y"]
    {
        let error = world.raw(&root, target, b"{}").unwrap_err();
        assert_eq!(error.code, "UnknownOperationException", "{target}");
    }
    let error = world.raw(&root, "TrentService.ListKeys", b"").unwrap_err();
    assert_eq!(error.code, "SerializationException");
}

#[test]
fn kinds_of_keys_that_there_are_not_are_unsupported() {
    let world = World::new();
    for fields in [
        json!({"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"}),
        json!({"CustomerMasterKeySpec": "HMAC_256"}),
        json!({"MultiRegion": true}),
        json!({"Origin": "AWS_CLOUDHSM"}),
    ] {
        assert_eq!(world.code("CreateKey", fields), "UnsupportedOperationException");
    }
    let id = world.key();
    let recipient = json!({"KeyId": id, "KeySpec": "AES_256", "Recipient": {}});
    assert_eq!(world.code("GenerateDataKey", recipient), "UnsupportedOperationException");
    let rsa =
        json!({"KeyId": id, "Plaintext": "YQ==", "EncryptionAlgorithm": "RSAES_OAEP_SHA_256"});
    assert_eq!(world.code("Encrypt", rsa), "InvalidKeyUsageException");
    let import = json!({"KeyId": id, "WrappingAlgorithm": "RSAES_OAEP_SHA_256",
                        "WrappingKeySpec": "RSA_2048"});
    assert_eq!(world.code("GetParametersForImport", import), "UnsupportedOperationException");
}
