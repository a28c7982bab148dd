//! Keys, aliases, tags, policies, grants and rotation, from their creation on.

use serde_json::{Value, json};

use super::{NOW_MS, World, text, user};

#[test]
fn metadata_is_complete() {
    let world = World::new();
    let made = world.ok(
        "CreateKey",
        json!({"Description": "ledgers", "Tags": [{"TagKey": "team", "TagValue": "x"}]}),
    );
    let made = &made["KeyMetadata"];
    let id = text(&made["KeyId"]);
    let material = text(&made["CurrentKeyMaterialId"]);
    assert!(material.len() == 64 && material.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let expected = json!({
        "AWSAccountId": "111111111111",
        "KeyId": id,
        "Arn": format!("arn:aws:kms:eu-west-1:111111111111:key/{id}"),
        "CreationDate": NOW_MS / 1_000,
        "Enabled": true,
        "Description": "ledgers",
        "KeyUsage": "ENCRYPT_DECRYPT",
        "KeyState": "Enabled",
        "KeyManager": "CUSTOMER",
        "CustomerMasterKeySpec": "SYMMETRIC_DEFAULT",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "EncryptionAlgorithms": ["SYMMETRIC_DEFAULT"],
        "MultiRegion": false,
        "Origin": "AWS_KMS",
        "CurrentKeyMaterialId": material,
    });
    assert_eq!(*made, expected);
    assert_eq!(world.describe(&id), expected);
    let tags = world.ok("ListResourceTags", json!({"KeyId": id}));
    assert_eq!(tags, json!({"Tags": [{"TagKey": "team", "TagValue": "x"}], "Truncated": false}));
    world.ok("UpdateKeyDescription", json!({"KeyId": id, "Description": ""}));
    assert_eq!(world.describe(&id)["Description"], "");
}

/// What each operation answers in each state. The order is that of the columns.
#[test]
fn the_state_table_is_that_of_aws() {
    const INVALID: &str = "KMSInvalidStateException";
    const DISABLED: &str = "DisabledException";
    let world = World::new();
    let enabled = world.key();
    let disabled = world.key();
    world.ok("DisableKey", json!({"KeyId": disabled}));
    let deleted = world.key();
    world.ok("ScheduleKeyDeletion", json!({"KeyId": deleted, "PendingWindowInDays": 7}));
    let keys = [&enabled, &disabled, &deleted];
    let table: [(&str, Value, [&str; 3]); 14] = [
        ("DescribeKey", json!({}), ["", "", ""]),
        ("Encrypt", json!({"Plaintext": "YQ=="}), ["", DISABLED, INVALID]),
        ("GenerateDataKey", json!({"KeySpec": "AES_256"}), ["", DISABLED, INVALID]),
        ("EnableKeyRotation", json!({}), ["", DISABLED, INVALID]),
        ("GetKeyRotationStatus", json!({}), ["", "", ""]),
        ("DisableKeyRotation", json!({}), ["", DISABLED, INVALID]),
        ("RotateKeyOnDemand", json!({}), ["", DISABLED, INVALID]),
        ("ListKeyRotations", json!({}), ["", "", ""]),
        ("TagResource", json!({"Tags": []}), ["", "", INVALID]),
        ("UntagResource", json!({"TagKeys": []}), ["", "", INVALID]),
        ("UpdateKeyDescription", json!({"Description": "d"}), ["", "", INVALID]),
        ("EnableKey", json!({}), ["", "-", INVALID]),
        ("DisableKey", json!({}), ["-", "", INVALID]),
        ("CancelKeyDeletion", json!({}), [INVALID, INVALID, "-"]),
    ];
    for (operation, fields, codes) in table {
        for (id, code) in keys.iter().zip(codes) {
            let mut fields = fields.clone();
            fields["KeyId"] = id.as_str().into();
            // Steps that would change the state of a key that others follow on.
            if code == "-" {
                continue;
            }
            if code.is_empty() {
                world.ok(operation, fields);
            } else {
                assert_eq!(world.code(operation, fields.clone()), code, "{operation} {fields}");
            }
        }
    }
    let again = json!({"KeyId": deleted, "PendingWindowInDays": 7});
    assert_eq!(world.code("ScheduleKeyDeletion", again), INVALID);
}

#[test]
fn a_deletion_waits_and_can_be_called_off() {
    let world = World::new();
    let id = world.key();
    let arn = format!("arn:aws:kms:eu-west-1:111111111111:key/{id}");
    let answer = world.ok("ScheduleKeyDeletion", json!({"KeyId": id}));
    let due = NOW_MS / 1_000 + 30 * 86_400;
    let expected = json!({"KeyId": arn, "DeletionDate": due, "KeyState": "PendingDeletion",
                          "PendingWindowInDays": 30});
    assert_eq!(answer, expected);
    let shown = world.describe(&id);
    assert_eq!((&shown["DeletionDate"], &shown["Enabled"]), (&json!(due), &json!(false)));
    assert_eq!(world.ok("CancelKeyDeletion", json!({"KeyId": id})), json!({"KeyId": arn}));
    let shown = world.describe(&id);
    assert_eq!(shown["KeyState"], "Disabled");
    assert!(shown.get("DeletionDate").is_none());
    world.ok("EnableKey", json!({"KeyId": id}));
    assert_eq!(world.describe(&id)["KeyState"], "Enabled");
}

#[test]
fn aliases_name_one_key_at_a_time() {
    let world = World::new();
    let (one, two) = (world.key(), world.key());
    let create = |name: &str, id: &str| json!({"AliasName": name, "TargetKeyId": id});
    world.ok("CreateAlias", create("alias/a", &one));
    assert_eq!(world.code("CreateAlias", create("alias/a", &two)), "AlreadyExistsException");
    for reserved in ["alias/aws/s3", "alias/aws/x", "alias/kluis/default"] {
        let code = world.code("CreateAlias", create(reserved, &one));
        assert_eq!(code, "InvalidAliasNameException", "{reserved}");
    }
    assert_eq!(world.describe("alias/a")["KeyId"], one);
    assert_eq!(world.describe("arn:aws:kms:eu-west-1:111111111111:alias/a")["KeyId"], one);
    world.clock.advance_ms(5_000);
    world.ok("UpdateAlias", create("alias/a", &two));
    assert_eq!(world.describe("alias/a")["KeyId"], two);
    let listed = world.ok("ListAliases", json!({"KeyId": two}));
    let expected = json!({"Truncated": false, "Aliases": [{
        "AliasName": "alias/a",
        "AliasArn": "arn:aws:kms:eu-west-1:111111111111:alias/a",
        "TargetKeyId": two,
        "CreationDate": NOW_MS / 1_000,
        "LastUpdatedDate": NOW_MS / 1_000 + 5,
    }]});
    assert_eq!(listed, expected);
    assert_eq!(world.code("DisableKey", json!({"KeyId": "alias/a"})), "NotFoundException");
    world.ok("DeleteAlias", json!({"AliasName": "alias/a"}));
    assert_eq!(world.code("DescribeKey", json!({"KeyId": "alias/a"})), "NotFoundException");
    for (operation, fields) in
        [("DeleteAlias", json!({"AliasName": "alias/a"})), ("UpdateAlias", create("alias/a", &one))]
    {
        assert_eq!(world.code(operation, fields), "NotFoundException");
    }
}

#[test]
fn the_default_key_has_names_of_its_own() {
    let world = World::new();
    let names = world.ok("ListAliases", json!({}));
    let names: Vec<_> = names["Aliases"].as_array().unwrap().iter().collect();
    let shown: Vec<_> = names.iter().map(|it| text(&it["AliasName"])).collect();
    assert_eq!(shown, ["alias/aws/s3", "alias/kluis/default"]);
    let default = world.describe("alias/kluis/default");
    assert_eq!(default["KeyId"], names[0]["TargetKeyId"]);
    assert_eq!(world.describe("alias/aws/s3"), default);
    let other = world.ask(&user(2, "root"), "DescribeKey", &json!({"KeyId": "alias/aws/s3"}));
    assert_ne!(other.unwrap()["KeyMetadata"]["KeyId"], default["KeyId"]);
}

#[test]
fn an_alias_of_another_tenant_is_another_alias() {
    let world = World::new();
    let id = world.key();
    let other = user(2, "root");
    let foreign = world.ask(&other, "CreateKey", &json!({})).unwrap();
    let foreign = text(&foreign["KeyMetadata"]["KeyId"]);
    world.ok("CreateAlias", json!({"AliasName": "alias/a", "TargetKeyId": id}));
    let stolen = json!({"AliasName": "alias/b", "TargetKeyId": foreign});
    assert_eq!(world.code("CreateAlias", stolen), "NotFoundException");
    let theirs = json!({"AliasName": "alias/a", "TargetKeyId": foreign});
    world.ask(&other, "CreateAlias", &theirs).unwrap();
    assert_eq!(world.describe("alias/a")["KeyId"], id);
}

#[test]
fn tags_are_bounded() {
    let world = World::new();
    let id = world.key();
    let tags = |from: usize, count: usize| -> Vec<Value> {
        let named = |it: usize| json!({"TagKey": format!("{it:03}"), "TagValue": ""});
        (from..from + count).map(named).collect()
    };
    world.ok("TagResource", json!({"KeyId": id, "Tags": tags(0, 50)}));
    world.ok("TagResource", json!({"KeyId": id, "Tags": tags(10, 5)}));
    let one_more = json!({"KeyId": id, "Tags": tags(50, 1)});
    assert_eq!(world.code("TagResource", one_more), "LimitExceededException");
    assert_eq!(world.code("CreateKey", json!({"Tags": tags(0, 51)})), "LimitExceededException");
    let twice = json!({"Tags": [tags(0, 1)[0], tags(0, 1)[0]]});
    assert_eq!(world.code("CreateKey", twice), "TagException");
    let reserved = json!({"KeyId": id, "Tags": [{"TagKey": "aws:x", "TagValue": ""}]});
    assert_eq!(world.code("TagResource", reserved), "TagException");
    let page = world.ok("ListResourceTags", json!({"KeyId": id, "Limit": 49}));
    assert_eq!(page["Truncated"], true);
    let rest = json!({"KeyId": id, "Marker": page["NextMarker"]});
    assert_eq!(world.ok("ListResourceTags", rest)["Tags"].as_array().unwrap().len(), 1);
    world.ok("UntagResource", json!({"KeyId": id, "TagKeys": ["000", "absent"]}));
    let left = world.ok("ListResourceTags", json!({"KeyId": id}));
    assert_eq!(left["Tags"].as_array().unwrap().len(), 49);
}

#[test]
fn rotations_are_listed() {
    let world = World::new();
    let id = world.key();
    let first = text(&world.describe(&id)["CurrentKeyMaterialId"]);
    assert_eq!(world.ok("ListKeyRotations", json!({"KeyId": id}))["Rotations"], json!([]));
    world.clock.advance_ms(1_000);
    assert_eq!(world.ok("RotateKeyOnDemand", json!({"KeyId": id})), json!({"KeyId": id}));
    let second = text(&world.describe(&id)["CurrentKeyMaterialId"]);
    assert_ne!(first, second);
    let rotated = json!({"KeyId": id, "KeyMaterialId": second, "KeyMaterialState": "CURRENT",
                         "RotationDate": NOW_MS / 1_000 + 1, "RotationType": "ON_DEMAND"});
    let only = world.ok("ListKeyRotations", json!({"KeyId": id}));
    assert_eq!(only, json!({"Rotations": [rotated], "Truncated": false}));
    let all = json!({"KeyId": id, "IncludeKeyMaterial": "ALL_KEY_MATERIAL"});
    let made = json!({"KeyId": id, "KeyMaterialId": first, "KeyMaterialState": "NON_CURRENT"});
    assert_eq!(world.ok("ListKeyRotations", all)["Rotations"], json!([made, rotated]));
}

#[test]
fn a_period_is_set_and_ended() {
    let world = World::new();
    let id = world.key();
    let status = |world: &World| world.ok("GetKeyRotationStatus", json!({"KeyId": id}));
    assert_eq!(status(&world), json!({"KeyId": id, "KeyRotationEnabled": false}));
    for (fields, days) in [
        (json!({"KeyId": id}), 365),
        (json!({"KeyId": id, "RotationPeriodInDays": 90}), 90),
        (json!({"KeyId": id, "RotationPeriodInDays": 2_560}), 2_560),
    ] {
        world.ok("EnableKeyRotation", fields);
        let expected = json!({"KeyId": id, "KeyRotationEnabled": true, "RotationPeriodInDays": days,
                              "NextRotationDate": NOW_MS / 1_000 + days * 86_400});
        assert_eq!(status(&world), expected);
    }
    world.ok("DisableKeyRotation", json!({"KeyId": id}));
    assert_eq!(status(&world), json!({"KeyId": id, "KeyRotationEnabled": false}));
}

#[test]
fn a_key_that_waits_for_material_is_not_used() {
    let world = World::new();
    let made = world.ok("CreateKey", json!({"Origin": "EXTERNAL"}));
    let (id, made) = (text(&made["KeyMetadata"]["KeyId"]), made["KeyMetadata"].clone());
    assert_eq!((&made["KeyState"], &made["Origin"]), (&json!("PendingImport"), &json!("EXTERNAL")));
    assert!(made.get("CurrentKeyMaterialId").is_none() && made.get("ExpirationModel").is_none());
    for (operation, fields) in [
        ("Encrypt", json!({"KeyId": id, "Plaintext": "YQ=="})),
        ("EnableKey", json!({"KeyId": id})),
        ("DisableKey", json!({"KeyId": id})),
        ("RotateKeyOnDemand", json!({"KeyId": id})),
    ] {
        assert_eq!(world.code(operation, fields), "KMSInvalidStateException", "{operation}");
    }
    let rotate = json!({"KeyId": id});
    assert_eq!(world.code("EnableKeyRotation", rotate), "UnsupportedOperationException");
}

#[test]
fn policies_decide_over_users() {
    let world = World::new();
    let id = world.key();
    let (root, ada) = (user(1, "root"), user(1, "ada"));
    let policy = world.ok("GetKeyPolicy", json!({"KeyId": id}));
    assert_eq!(policy["PolicyName"], "default");
    let arn = format!("arn:aws:kms:eu-west-1:111111111111:key/{id}");
    let own = json!({"Version": "2012-10-17", "Statement": [
        {"Sid": "root", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
         "Action": "kms:*", "Resource": "*"},
        {"Sid": "no", "Effect": "Deny", "Principal": {"AWS": "arn:aws:iam::111111111111:user/ada"},
         "Action": "kms:Encrypt", "Resource": "*"},
    ]});
    world.ok("PutKeyPolicy", json!({"KeyId": id, "Policy": own.to_string()}));
    let fields = json!({"KeyId": id, "Plaintext": "YQ=="});
    let error = world.ask(&ada, "Encrypt", &fields).unwrap_err();
    assert_eq!(error.code, "AccessDeniedException");
    let start = format!(
        "User: arn:aws:iam::111111111111:user/ada is not authorized to perform: kms:Encrypt on \
         resource: {arn}"
    );
    assert!(error.message.starts_with(&start), "{}", error.message);
    world.ask(&root, "Encrypt", &fields).unwrap();
    let listed = world.ok("ListKeyPolicies", json!({"KeyId": id}));
    assert_eq!(listed, json!({"PolicyNames": ["default"], "Truncated": false}));
    for (policy, code) in [
        ("{".to_owned(), "MalformedPolicyDocumentException"),
        ("a".repeat(32_769), "LimitExceededException"),
    ] {
        assert_eq!(world.code("PutKeyPolicy", json!({"KeyId": id, "Policy": policy})), code);
    }
    let other = json!({"KeyId": id, "PolicyName": "other"});
    assert_eq!(world.code("GetKeyPolicy", other), "NotFoundException");
}

#[test]
fn grants_come_and_go() {
    let world = World::new();
    let id = world.key();
    let ada = "arn:aws:iam::111111111111:user/ada";
    let fields = json!({"KeyId": id, "GranteePrincipal": ada, "Operations": ["Decrypt", "Encrypt"],
                        "RetiringPrincipal": ada, "Name": "n",
                        "Constraints": {"EncryptionContextSubset": {"a": "b"}}});
    let mut dry = fields.clone();
    dry["DryRun"] = true.into();
    assert_eq!(world.code("CreateGrant", dry), "DryRunOperationException");
    let grants = |world: &World| world.ok("ListGrants", json!({"KeyId": id}))["Grants"].clone();
    assert_eq!(grants(&world), json!([]));
    let made = world.ok("CreateGrant", fields);
    let arn = format!("arn:aws:kms:eu-west-1:111111111111:key/{id}");
    let expected = json!([{
        "KeyId": arn, "GrantId": made["GrantId"], "Name": "n", "CreationDate": NOW_MS / 1_000,
        "GranteePrincipal": ada, "RetiringPrincipal": ada,
        "IssuingAccount": "arn:aws:iam::111111111111:root", "Operations": ["Decrypt", "Encrypt"],
        "Constraints": {"EncryptionContextSubset": {"a": "b"}},
    }]);
    assert_eq!(grants(&world), expected);
    let retirable = world.ok("ListRetirableGrants", json!({"RetiringPrincipal": ada}));
    assert_eq!(retirable["Grants"], expected);
    let absent = json!({"KeyId": id, "GrantId": "0".repeat(64)});
    assert_eq!(world.code("RevokeGrant", absent), "NotFoundException");
    let malformed = json!({"KeyId": id, "GrantId": "x"});
    assert_eq!(world.code("RevokeGrant", malformed), "InvalidGrantIdException");
    let token = json!({"GrantToken": "x"});
    assert_eq!(world.code("RetireGrant", token), "InvalidGrantTokenException");
    let dry = json!({"GrantToken": made["GrantToken"], "DryRun": true});
    assert_eq!(world.code("RetireGrant", dry), "DryRunOperationException");
    let stranger =
        world.ask(&user(2, "root"), "RetireGrant", &json!({"GrantToken": made["GrantToken"]}));
    assert_eq!(stranger.unwrap_err().code, "InvalidGrantTokenException");
    assert_eq!(grants(&world), expected);
    world.ok("RetireGrant", json!({"GrantToken": made["GrantToken"]}));
    assert_eq!(grants(&world), json!([]));
}

#[test]
fn the_trail_is_the_tenants_own() {
    let world = World::new();
    let id = world.key();
    world.ok("DisableKey", json!({"KeyId": id}));
    let read = |tenant: u8, fields: Value| {
        let bytes = world.raw(
            &user(tenant, "root"),
            "KluisKms.ListAuditEvents",
            fields.to_string().as_bytes(),
        );
        serde_json::from_slice::<Value>(&bytes.unwrap()).unwrap()
    };
    let events = read(1, json!({}))["Events"].as_array().unwrap().clone();
    let of_key: Vec<_> = events.iter().filter(|it| it["KeyId"] == id.as_str()).collect();
    assert!(of_key.iter().any(|it| it["Operation"] == "tenant_key.disable"), "{events:?}");
    assert!(of_key.iter().all(|it| it["Principal"] == "arn:aws:iam::111111111111:root"));
    let page = read(1, json!({"Limit": 1}));
    assert_eq!(page["Next"], 1);
    assert_eq!(read(1, json!({"After": 1}))["Events"], json!(events[1..]));
    let others = read(2, json!({}))["Events"].as_array().unwrap().clone();
    assert!(others.iter().all(|it| it["KeyId"] != id.as_str()));
}

#[test]
fn who_has_no_right_learns_neither_state_nor_existence() {
    let world = World::new();
    let id = world.key();
    let bob = user(1, "bob");
    let ada = "arn:aws:iam::111111111111:user/ada";
    let code =
        |operation: &str, fields: Value| world.ask(&bob, operation, &fields).unwrap_err().code;
    world.ok("DisableKey", json!({"KeyId": id}));
    let fields = json!({"KeyId": id, "GranteePrincipal": ada, "Operations": ["Decrypt"]});
    let denied = "AccessDeniedException";
    assert_eq!(code("CreateGrant", fields.clone()), denied);
    assert_eq!(world.code("CreateGrant", fields.clone()), "DisabledException");
    let mut dry = fields;
    dry["DryRun"] = true.into();
    assert_eq!(world.code("CreateGrant", dry), "DisabledException");
    let absent = json!({"KeyId": id, "GrantId": "0".repeat(64)});
    assert_eq!(code("RetireGrant", absent.clone()), denied);
    assert_eq!(world.code("RetireGrant", absent), "NotFoundException");
    assert_eq!(code("DeleteAlias", json!({"AliasName": "alias/none"})), denied);
    let absent = json!({"AliasName": "alias/none"});
    assert_eq!(world.code("DeleteAlias", absent), "NotFoundException");
}
