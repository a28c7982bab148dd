//! GetObjectAttributes.
//!
//! Owns: which attributes were asked for, paging of parts. Writes its own document, because this is
//! the one place where S3 shows an ETag without quotes and s3s cannot.

use http::header::LAST_MODIFIED;
use http::{HeaderMap, StatusCode};
use kluis_storage::{ChecksumType, Conditions, GetRequest, ObjectInfo};
use s3s::S3Response;
use s3s::dto::{
    Checksum, GetObjectAttributesInput, GetObjectAttributesOutput, GetObjectAttributesParts,
    ObjectPart, StorageClass,
};
use s3s::xml::{SerResult, SerializeContent, Serializer};

use super::checksum::{self, Fields};
use super::door::Finish;
use super::error::{Answer, Subject, internal_error, invalid_argument, invalid_request};
use super::headers::page_size;
use super::uploads::part_marker;
use super::{Call, S3Api, check_version, customer, object_key, time};
use crate::plaintext::Plaintext;
use crate::policy;

const XMLNS: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// Answers GetObjectAttributes.
pub(super) async fn get_object_attributes(
    api: &S3Api,
    call: Call<GetObjectAttributesInput>,
) -> Answer<S3Response<GetObjectAttributesOutput>> {
    let input = &call.input;
    let right = api.on_bucket::<policy::GetObjectAttributes, _>(&call, &input.bucket).await?;
    check_version(input.version_id.as_deref())?;
    let customer = call.customer.own()?;
    let names: Vec<_> = input.object_attributes.iter().map(|it| it.as_str().to_owned()).collect();
    let asked = Asked::read(&names)?;
    let page = Page {
        limit: page_size("max-parts", input.max_parts)?,
        after: part_marker(input.part_number_marker)?,
    };
    let object_key = object_key(&input.key)?;
    let request = GetRequest {
        bucket: right.bucket(),
        object_key: &object_key,
        conditions: Conditions::default(),
        range: None,
        part_number: None,
        customer_key: customer::key_of(customer.as_ref()),
    };
    let (info, _) = api
        .engine
        .head(right.purpose(), request)
        .await
        .map_err(|cause| Subject::Object.failed(&cause))?;
    let document = document(asked, &page, &info).map_err(|_| internal_error())?;
    let mut headers = HeaderMap::new();
    if let Some(date) = time::http_date(info.modified_ms) {
        headers.insert(LAST_MODIFIED, date);
    }
    let mut response = S3Response::with_headers(GetObjectAttributesOutput::default(), headers);
    response.extensions.insert(Finish::document(StatusCode::OK, document));
    response.extensions.insert(Plaintext { tenant_key: info.tenant_key });
    Ok(response)
}

/// The attributes that a request names.
#[expect(clippy::struct_excessive_bools, reason = "each attribute is asked for or not")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    checksum: bool,
    etag: bool,
    object_parts: bool,
    object_size: bool,
    storage_class: bool,
}

impl Asked {
    /// Names may come one a header, or several with commas.
    fn read(values: &[String]) -> Answer<Self> {
        let mut asked = Self::default();
        let names = values.iter().flat_map(|value| value.split(',')).map(str::trim);
        for name in names.filter(|name| !name.is_empty()) {
            match name {
                "Checksum" => asked.checksum = true,
                "ETag" => asked.etag = true,
                "ObjectParts" => asked.object_parts = true,
                "ObjectSize" => asked.object_size = true,
                "StorageClass" => asked.storage_class = true,
                other => {
                    let message = "Invalid attribute name specified.";
                    let error = invalid_argument(message, "x-amz-object-attributes", other);
                    return Err(error.into());
                }
            }
        }
        if asked == Self::default() {
            let message = "The x-amz-object-attributes header specifying the attributes to be \
                retrieved is either missing or empty";
            return Err(invalid_request(message).into());
        }
        Ok(asked)
    }
}

/// A page of parts.
struct Page {
    limit: usize,
    after: u32,
}

fn document(asked: Asked, page: &Page, info: &ObjectInfo) -> Result<Vec<u8>, s3s::xml::SerError> {
    let mut bytes = Vec::with_capacity(512);
    let mut serializer = Serializer::new(&mut bytes);
    serializer.decl()?;
    let content = Document { asked, page, info };
    serializer.content_with_ns("GetObjectAttributesResponse", XMLNS, &content)?;
    Ok(bytes)
}

struct Document<'a> {
    asked: Asked,
    page: &'a Page,
    info: &'a ObjectInfo,
}

impl SerializeContent for Document<'_> {
    fn serialize_content<W: std::io::Write>(&self, to: &mut Serializer<W>) -> SerResult {
        if self.asked.etag {
            to.content("ETag", self.info.etag.as_str())?;
        }
        if let Some(checksum) = self.checksum() {
            to.content("Checksum", &checksum)?;
        }
        if let Some(parts) = self.parts() {
            to.content("ObjectParts", &parts)?;
        }
        if self.asked.storage_class {
            to.content("StorageClass", StorageClass::STANDARD)?;
        }
        if self.asked.object_size {
            to.content("ObjectSize", &self.info.size.to_string())?;
        }
        Ok(())
    }
}

impl Document<'_> {
    /// Without the `-N` of a composite one: the number of parts stands beside it.
    fn checksum(&self) -> Option<Checksum> {
        let fields = Fields::full(&self.info.checksums);
        if !self.asked.checksum || fields.is_empty() {
            return None;
        }
        let mut checksum = Checksum {
            checksum_type: Some(checksum::type_element(self.info.checksum_type)),
            ..Checksum::default()
        };
        checksum::fill!(checksum, fields);
        Some(checksum)
    }

    /// Parts of objects that were uploaded in parts. Each is listed where its checksum says
    /// something about the object's, which is composite then; else only their number (AWS).
    fn parts(&self) -> Option<GetObjectAttributesParts> {
        if !self.asked.object_parts || !self.info.multipart {
            return None;
        }
        let total = i32::try_from(self.info.parts.len()).ok();
        if self.info.checksum_type != ChecksumType::Composite {
            return Some(GetObjectAttributesParts {
                total_parts_count: total,
                ..GetObjectAttributesParts::default()
            });
        }
        let mut rest = self.info.parts.iter().filter(|part| part.number > self.page.after);
        let parts: Vec<_> = rest
            .by_ref()
            .take(self.page.limit)
            .map(|part| {
                let mut line = ObjectPart {
                    part_number: i32::try_from(part.number).ok(),
                    size: i64::try_from(part.size).ok(),
                    ..ObjectPart::default()
                };
                checksum::fill!(line, Fields::full(&part.checksums));
                line
            })
            .collect();
        Some(GetObjectAttributesParts {
            is_truncated: Some(rest.next().is_some()),
            max_parts: i32::try_from(self.page.limit).ok(),
            next_part_number_marker: parts.last().and_then(|part| part.part_number).or(Some(0)),
            part_number_marker: i32::try_from(self.page.after).ok(),
            parts: Some(parts),
            total_parts_count: total,
        })
    }
}

#[cfg(test)]
mod tests;
