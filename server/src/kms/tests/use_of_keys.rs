//! Encrypt, decrypt, data keys: what opens, what does not, and what is told then.

use serde_json::{Value, json};

use super::{World, b64, text, unb64, user};

fn encrypted(world: &World, id: &str, context: &Value) -> Value {
    let fields = json!({"KeyId": id, "Plaintext": b64(b"secret"), "EncryptionContext": context});
    world.ok("Encrypt", fields)["CiphertextBlob"].clone()
}

#[test]
fn what_was_encrypted_is_decrypted() {
    let world = World::new();
    let id = world.key();
    let arn = format!("arn:aws:kms:eu-west-1:111111111111:key/{id}");
    let context = json!({"b": "2", "a": "1"});
    let blob = encrypted(&world, &id, &context);
    let material = world.describe(&id)["CurrentKeyMaterialId"].clone();
    let expected = json!({"KeyId": arn, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
                          "KeyMaterialId": material, "Plaintext": b64(b"secret")});
    let same = json!({"CiphertextBlob": blob, "EncryptionContext": {"a": "1", "b": "2"}});
    assert_eq!(world.ok("Decrypt", same.clone()), expected);
    world.ok("RotateKeyOnDemand", json!({"KeyId": id}));
    let mut named = same.clone();
    named["KeyId"] = id.as_str().into();
    assert_eq!(world.ok("Decrypt", named.clone()), expected);
    named["KeyId"] = world.key().into();
    assert_eq!(world.code("Decrypt", named), "IncorrectKeyException");
    world.ok("DisableKey", json!({"KeyId": id}));
    assert_eq!(world.code("Decrypt", same.clone()), "DisabledException");
    world.ok("EnableKey", json!({"KeyId": id}));
    assert_eq!(world.ok("Decrypt", same), expected);
}

#[test]
fn other_blobs_and_contexts_are_invalid_ciphertexts() {
    let world = World::new();
    let id = world.key();
    let context = json!({"a": "1"});
    let blob = unb64(&encrypted(&world, &id, &context));
    let code = |blob: &[u8], context: Value| {
        world.code("Decrypt", json!({"CiphertextBlob": b64(blob), "EncryptionContext": context}))
    };
    for other in [json!({}), json!({"a": "2"}), json!({"A": "1"}), json!({"a": "1", "b": "2"})] {
        assert_eq!(code(&blob, other), "InvalidCiphertextException");
    }
    for at in 0..blob.len() {
        let mut changed = blob.clone();
        changed[at] ^= 1;
        assert_eq!(code(&changed, context.clone()), "InvalidCiphertextException", "byte {at}");
    }
    for count in 1..blob.len() {
        assert_eq!(code(&blob[..count], context.clone()), "InvalidCiphertextException");
    }
    let longer = [blob.as_slice(), &[0]].concat();
    assert_eq!(code(&longer, context.clone()), "InvalidCiphertextException");
    let foreign = json!({"CiphertextBlob": b64(&blob), "EncryptionContext": context});
    let error = world.ask(&user(2, "root"), "Decrypt", &foreign).unwrap_err();
    assert_eq!((error.code, &*error.message), ("InvalidCiphertextException", ""));
}

#[test]
fn data_keys_open_again() {
    let world = World::new();
    let id = world.key();
    for (size, bytes) in [
        (json!({"KeySpec": "AES_256"}), 32),
        (json!({"KeySpec": "AES_128"}), 16),
        (json!({"NumberOfBytes": 1}), 1),
        (json!({"NumberOfBytes": 1_024}), 1_024),
    ] {
        let mut fields = size;
        fields["KeyId"] = id.as_str().into();
        fields["EncryptionContext"] = json!({"a": "1"});
        let made = world.ok("GenerateDataKey", fields.clone());
        assert_eq!(unb64(&made["Plaintext"]).len(), bytes);
        assert_eq!(made["KeyMaterialId"], world.describe(&id)["CurrentKeyMaterialId"]);
        let open = |made: &Value| {
            let blob = &made["CiphertextBlob"];
            world.ok("Decrypt", json!({"CiphertextBlob": blob, "EncryptionContext": {"a": "1"}}))
        };
        assert_eq!(open(&made)["Plaintext"], made["Plaintext"]);
        let hidden = world.ok("GenerateDataKeyWithoutPlaintext", fields);
        assert!(hidden.get("Plaintext").is_none());
        assert_eq!(unb64(&open(&hidden)["Plaintext"]).len(), bytes);
    }
    let random = |count: usize| {
        unb64(&world.ok("GenerateRandom", json!({"NumberOfBytes": count}))["Plaintext"])
    };
    assert_eq!(random(1_024).len(), 1_024);
    assert_ne!(random(32), random(32));
}

#[test]
fn re_encryption_moves_to_another_key_and_context() {
    let world = World::new();
    let (from, to) = (world.key(), world.key());
    let blob = encrypted(&world, &from, &json!({"a": "1"}));
    let fields = json!({"CiphertextBlob": blob, "SourceEncryptionContext": {"a": "1"},
                        "DestinationKeyId": to, "DestinationEncryptionContext": {"b": "2"}});
    let moved = world.ok("ReEncrypt", fields.clone());
    let arn = |id: &str| format!("arn:aws:kms:eu-west-1:111111111111:key/{id}");
    assert_eq!((text(&moved["SourceKeyId"]), text(&moved["KeyId"])), (arn(&from), arn(&to)));
    for (name, id) in [("SourceKeyMaterialId", &from), ("DestinationKeyMaterialId", &to)] {
        assert_eq!(moved[name], world.describe(id)["CurrentKeyMaterialId"]);
    }
    let opened =
        json!({"CiphertextBlob": moved["CiphertextBlob"], "EncryptionContext": {"b": "2"}});
    assert_eq!(world.ok("Decrypt", opened)["Plaintext"], b64(b"secret"));
    let mut wrong = fields.clone();
    wrong["SourceKeyId"] = to.as_str().into();
    assert_eq!(world.code("ReEncrypt", wrong), "IncorrectKeyException");
    world.ok("DisableKey", json!({"KeyId": to}));
    assert_eq!(world.code("ReEncrypt", fields), "DisabledException");
}

#[test]
fn a_dry_run_says_what_would_have_been() {
    let world = World::new();
    let id = world.key();
    let blob = encrypted(&world, &id, &json!({}));
    let off = world.key();
    world.ok("DisableKey", json!({"KeyId": off}));
    for (operation, fields) in [
        ("Encrypt", json!({"KeyId": id, "Plaintext": "YQ=="})),
        ("Decrypt", json!({"CiphertextBlob": blob})),
        ("Decrypt", json!({"KeyId": id, "DryRunModifiers": ["IGNORE_CIPHERTEXT"]})),
        ("GenerateDataKey", json!({"KeyId": id, "KeySpec": "AES_256"})),
        ("GenerateDataKeyWithoutPlaintext", json!({"KeyId": id, "KeySpec": "AES_256"})),
        ("ReEncrypt", json!({"CiphertextBlob": blob, "DestinationKeyId": id})),
    ] {
        let mut dry = fields.clone();
        dry["DryRun"] = true.into();
        assert_eq!(world.code(operation, dry.clone()), "DryRunOperationException", "{operation}");
        if dry.get("KeyId").is_some() {
            dry["KeyId"] = off.as_str().into();
            assert_eq!(world.code(operation, dry), "DisabledException", "{operation}");
        }
    }
}

#[test]
fn the_last_use_is_known() {
    let world = World::new();
    let id = world.key();
    let usage = |world: &World| world.ok("GetKeyLastUsage", json!({"KeyId": id}));
    assert!(usage(&world).get("KeyLastUsage").is_none());
    world.clock.advance_ms(3_000);
    encrypted(&world, &id, &json!({}));
    let now = super::NOW_MS / 1_000;
    let expected = json!({"KeyId": id, "TrackingStartDate": now, "KeyCreationDate": now,
                          "KeyLastUsage": {"Operation": "Encrypt", "Timestamp": now + 3}});
    assert_eq!(usage(&world), expected);
}

/// One tenant's calls in progress do not take the threads of others.
#[test]
fn a_tenant_has_a_bounded_number_of_calls_in_progress() {
    let world = World::new();
    let tenant = user(1, "root").tenant;
    let turns: Vec<_> = (0..super::super::CALLS_PER_TENANT_MAX)
        .map(|_| {
            super::super::Turn::take((&world.api.calls, super::super::CALLS_PER_TENANT_MAX), tenant)
                .unwrap()
        })
        .collect();
    assert_eq!(world.code("ListKeys", json!({})), "ThrottlingException");
    world.ask(&user(2, "root"), "ListKeys", &json!({})).unwrap();
    drop(turns);
    world.ok("ListKeys", json!({}));
    assert!(world.api.calls.lock().unwrap().is_empty());
}

#[test]
fn one_key_for_an_import_is_made_at_a_time_for_a_tenant() {
    let world = World::new();
    let made = world.ok("CreateKey", json!({"Origin": "EXTERNAL"}));
    let fields = json!({"KeyId": made["KeyMetadata"]["KeyId"], "WrappingKeySpec": "RSA_2048",
                        "WrappingAlgorithm": "RSAES_OAEP_SHA_256"});
    let turn = super::super::Turn::take((&world.api.imports, 1), user(1, "root").tenant);
    assert!(turn.is_some());
    assert_eq!(world.code("GetParametersForImport", fields.clone()), "ThrottlingException");
    drop(turn);
    world.ok("GetParametersForImport", fields);
}

/// Ada may use the key by one alias only.
fn only_by_alias(world: &World, id: &str, alias: &str) {
    let own = json!({"Statement": [
        {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111111111111:root"},
         "Action": "kms:*", "Resource": "*",
         "Condition": {"StringEquals": {"aws:PrincipalArn": "arn:aws:iam::111111111111:root"}}},
        {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111111111111:user/ada"},
         "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*"], "Resource": "*",
         "Condition": {"StringEquals": {"kms:RequestAlias": alias}}},
    ]});
    world.ok("PutKeyPolicy", json!({"KeyId": id, "Policy": own.to_string()}));
}

#[test]
fn the_alias_of_a_request_is_what_its_key_was_found_by() {
    let world = World::new();
    let id = world.key();
    let (app, odd) = ("alias/app", "alias/x:1:2:3:4:alias/app");
    for alias in [app, odd] {
        world.ok("CreateAlias", json!({"AliasName": alias, "TargetKeyId": id}));
    }
    only_by_alias(&world, &id, app);
    let ada = user(1, "ada");
    let arn = |name: &str| format!("arn:aws:kms:eu-west-1:111111111111:{name}");
    let encrypt = |key: &str| {
        let fields = json!({"KeyId": key, "Plaintext": "YQ=="});
        world.ask(&ada, "Encrypt", &fields).map(|answer| answer["CiphertextBlob"].clone())
    };
    let denied = "AccessDeniedException";
    let blob = encrypt(app).unwrap();
    encrypt(&arn(app)).unwrap();
    for name in [odd, &arn(odd), &id, &arn(&format!("key/{id}"))] {
        assert_eq!(encrypt(name).unwrap_err().code, denied, "{name}");
    }
    let re_encrypt = |from: &str, to: &str, more: Value| {
        let mut fields = json!({"CiphertextBlob": blob, "SourceKeyId": from,
                                "DestinationKeyId": to});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        world.ask(&ada, "ReEncrypt", &fields)
    };
    re_encrypt(app, app, json!({})).unwrap();
    // A field that the operation does not have says nothing.
    for (from, to) in [(app, id.as_str()), (&id, app), (&id, &id), (odd, app)] {
        let refused = re_encrypt(from, to, json!({"KeyId": app})).unwrap_err();
        assert_eq!(refused.code, denied, "{from} to {to}");
    }
    let decrypt = |fields: Value| world.ask(&ada, "Decrypt", &fields);
    decrypt(json!({"CiphertextBlob": blob, "KeyId": app})).unwrap();
    assert_eq!(decrypt(json!({"CiphertextBlob": blob})).unwrap_err().code, denied);
}

#[test]
fn what_was_re_encrypted_is_cut_with_the_key_it_came_from() {
    let world = World::new();
    let (from, to) = (world.key(), world.key());
    let blob = encrypted(&world, &from, &json!({}));
    let served = |operation: &str, fields: Value| {
        let request = super::super::KmsRequest {
            user: user(1, "root"),
            request_id: kluis_kms::RequestId::from("4442587FB7D0A2F9"),
            origin: crate::key_policy::Origin::default(),
            target: format!("TrentService.{operation}"),
            body: fields.to_string().into_bytes().into(),
        };
        let served = crate::auth::testing::wait(std::sync::Arc::clone(&world.api).serve(request));
        served.unwrap().plaintext.map(|plaintext| plaintext.tenant_key.to_string())
    };
    let id = |uuid: &str| Some(uuid.replace('-', ""));
    let fields = json!({"CiphertextBlob": blob, "DestinationKeyId": to});
    assert_eq!(served("ReEncrypt", fields), id(&from));
    assert_eq!(served("Decrypt", json!({"CiphertextBlob": blob})), id(&from));
    let spec = json!({"KeyId": to, "KeySpec": "AES_256"});
    assert_eq!(served("GenerateDataKey", spec.clone()), id(&to));
    assert_eq!(served("GenerateDataKeyWithoutPlaintext", spec), None);
}
