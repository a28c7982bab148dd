//! The document of a bucket's encryption: what it may say, and that it comes back.

use super::*;

fn parse(rules: &str) -> DeResult<Document> {
    let text = format!("<{ROOT} xmlns=\"{XMLNS}\">{rules}</{ROOT}>");
    let mut xml = Deserializer::new(text.as_bytes());
    let document = Document::deserialize(&mut xml)?;
    xml.expect_eof()?;
    Ok(document)
}

fn default(algorithm: &str, key: &str) -> String {
    let key = if key.is_empty() {
        String::new()
    } else {
        format!("<KMSMasterKeyID>{key}</KMSMasterKeyID>")
    };
    format!(
        "<ApplyServerSideEncryptionByDefault><SSEAlgorithm>{algorithm}</SSEAlgorithm>{key}\
         </ApplyServerSideEncryptionByDefault>"
    )
}

fn blocked(types: &[&str]) -> String {
    let types: Vec<_> =
        types.iter().map(|it| format!("<EncryptionType>{it}</EncryptionType>")).collect();
    let types = types.concat();
    format!("<BlockedEncryptionTypes>{types}</BlockedEncryptionTypes>")
}

#[test]
fn what_is_configured_comes_back() {
    let cases = [
        default("AES256", ""),
        format!("{}<BucketKeyEnabled>true</BucketKeyEnabled>", default("aws:kms", "")),
        format!("{}{}", default("aws:kms", "alias/mine"), blocked(&["NONE"])),
        blocked(&["NONE"]),
        format!("{}{}", default("AES256", ""), blocked(&["SSE-C"])),
    ];
    for rule in cases {
        let read = |text: &str| parse(text).unwrap().configuration().unwrap();
        let configured = read(&format!("<Rule>{rule}</Rule>"));
        let written = String::from_utf8(write(&configured).unwrap()).unwrap();
        let (_, rules) = written.split_once(&format!("xmlns=\"{XMLNS}\">")).unwrap();
        let again = read(rules.strip_suffix(&format!("</{ROOT}>")).unwrap());
        assert_eq!(again, configured, "{written}");
        assert_eq!(configured.customer_keys, rule.contains("NONE"), "{rule}");
    }
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let key = "k".repeat(KEY_NAME_BYTES_MAX + 1);
    for (rules, code) in [
        (String::new(), "MalformedXML"),
        ("<Rule></Rule>".to_owned(), "MalformedXML"),
        ("<Rule><BucketKeyEnabled>true</BucketKeyEnabled></Rule>".to_owned(), "MalformedXML"),
        (format!("<Rule>{0}</Rule><Rule>{0}</Rule>", default("AES256", "")), "MalformedXML"),
        (format!("<Rule>{}</Rule>", default("aes", "")), "MalformedXML"),
        (format!("<Rule>{}</Rule>", default("aws:kms:dsse", "")), "NotImplemented"),
        (format!("<Rule>{}</Rule>", default("AES256", "k")), "InvalidArgument"),
        (format!("<Rule>{}</Rule>", default("aws:kms", &key)), "InvalidRequest"),
        (format!("<Rule>{}</Rule>", blocked(&[])), "MalformedXML"),
        (format!("<Rule>{}</Rule>", blocked(&["NONE", "SSE-C"])), "MalformedXML"),
        (format!("<Rule>{}</Rule>", blocked(&["SSE-KMS"])), "MalformedXML"),
    ] {
        let failure = parse(&rules).unwrap().configuration().unwrap_err();
        assert_eq!(failure.api().code, code, "{rules}");
    }
    for rules in [
        "<Rule><Odd/></Rule>".to_owned(),
        "<Odd/>".to_owned(),
        format!("<Rule>{0}{0}</Rule>", default("AES256", "")),
        "<Rule><ApplyServerSideEncryptionByDefault/></Rule>".to_owned(),
        "<Rule><BucketKeyEnabled>maybe</BucketKeyEnabled></Rule>".to_owned(),
    ] {
        assert!(parse(&rules).is_err(), "{rules}");
    }
}
