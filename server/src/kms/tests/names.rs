//! Names of keys, and what is told of keys that are not the caller's.

use serde_json::json;

use super::{REGION, World, text, user};

#[test]
fn a_key_has_one_id_and_one_arn() {
    let world = World::new();
    let id = world.key();
    let arn = format!("arn:aws:kms:{REGION}:111111111111:key/{id}");
    assert_eq!(world.describe(&arn)["KeyId"], id);
    assert_eq!(world.describe(&id)["Arn"], arn);
    let parts: Vec<usize> = id.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12]);
}

/// The answer about a key of another tenant is that about a key that never was, but for the name
/// that the caller gave.
#[test]
fn what_is_not_the_callers_is_absent() {
    let world = World::new();
    let own = world.key();
    let other = user(2, "root");
    let foreign = world.ask(&other, "CreateKey", &json!({})).unwrap();
    let foreign = text(&foreign["KeyMetadata"]["KeyId"]);
    let absent = "00000000-0000-0000-0000-000000000000";
    let operations = [
        ("DescribeKey", json!({})),
        ("DisableKey", json!({})),
        ("EnableKey", json!({})),
        ("GetKeyPolicy", json!({})),
        ("ScheduleKeyDeletion", json!({})),
        ("CancelKeyDeletion", json!({})),
        ("ListGrants", json!({})),
        ("ListKeyRotations", json!({})),
        ("RotateKeyOnDemand", json!({})),
        ("TagResource", json!({"Tags": []})),
        ("Encrypt", json!({"Plaintext": "YQ=="})),
        ("GenerateDataKey", json!({"KeySpec": "AES_256"})),
    ];
    let told = |operation: &str, fields: &serde_json::Value, name: &str| {
        let mut fields = fields.clone();
        fields["KeyId"] = name.into();
        let error = world.ask(&user(1, "root"), operation, &fields).unwrap_err();
        (error.code, error.message.replace(&foreign, "ID").replace(absent, "ID"))
    };
    let arn =
        |region: &str, account: &str, id: &str| format!("arn:aws:kms:{region}:{account}:key/{id}");
    for (operation, fields) in &operations {
        let expected = told(operation, fields, absent);
        assert_eq!(expected.0, "NotFoundException", "{operation}");
        assert_eq!(told(operation, fields, &foreign), expected, "{operation}");
        for name in [
            arn(REGION, "111111111111", &foreign),
            arn(REGION, "222222222222", &foreign),
            arn(REGION, "222222222222", absent),
            arn(REGION, "222222222222", &own),
            arn("us-east-1", "111111111111", &own),
        ] {
            let message = format!("Key '{name}' does not exist");
            let message = message.replace(&foreign, "ID").replace(absent, "ID");
            assert_eq!(told(operation, fields, &name), ("NotFoundException", message));
        }
    }
    assert_eq!(world.describe(&own)["KeyState"], "Enabled");
}

#[test]
fn malformed_names_are_told_apart_from_absent_ones() {
    let world = World::new();
    let id = world.key();
    for (name, managing, using) in [
        ("x", "NotFoundException", "NotFoundException"),
        ("alias/none", "NotFoundException", "NotFoundException"),
        ("arn:aws:s3:::bucket", "InvalidArnException", "NotFoundException"),
        ("arn:aws:kms", "InvalidArnException", "NotFoundException"),
        (&*id.to_uppercase(), "NotFoundException", "NotFoundException"),
        (&*id.replace('-', ""), "NotFoundException", "NotFoundException"),
        ("", "ValidationException", "ValidationException"),
    ] {
        assert_eq!(world.code("DisableKey", json!({"KeyId": name})), managing, "{name}");
        let fields = json!({"KeyId": name, "KeySpec": "AES_256"});
        assert_eq!(world.code("GenerateDataKey", fields), using, "{name}");
    }
}
