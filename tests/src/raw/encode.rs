//! What a content is made of, as bytes. Nothing is checked but what the framing itself needs: a short string has at most
//! 255 bytes.

/// The properties of a message in the order of their flags, from bit 15 down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names of the specification
pub enum Property {
    ContentType,
    ContentEncoding,
    Headers,
    DeliveryMode,
    Priority,
    CorrelationId,
    ReplyTo,
    Expiration,
    MessageId,
    Timestamp,
    Type,
    UserId,
    AppId,
    ClusterId,
}

impl Property {
    /// Those that are short strings.
    pub const SHORT: [Self; 10] = [
        Self::ContentType,
        Self::ContentEncoding,
        Self::CorrelationId,
        Self::ReplyTo,
        Self::Expiration,
        Self::MessageId,
        Self::Type,
        Self::UserId,
        Self::AppId,
        Self::ClusterId,
    ];

    const COUNT: usize = Self::ClusterId as usize + 1;
}

/// A field's value: its type and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(Vec<u8>);

impl Value {
    /// Any type with any payload.
    pub fn new(kind: u8, payload: &[u8]) -> Self {
        Self([&[kind], payload].concat())
    }

    /// `S`.
    pub fn text(text: &[u8]) -> Self {
        Self::new(b'S', &long(text))
    }

    /// `F`, with these fields in this order; names may occur twice.
    pub fn table(fields: &[(&[u8], Self)]) -> Self {
        Self::new(b'F', &long(&self::fields(fields)))
    }

    /// `A`.
    pub fn array(values: &[Self]) -> Self {
        let values: Vec<u8> = values.iter().flat_map(|value| value.0.iter().copied()).collect();
        Self::new(b'A', &long(&values))
    }

    /// Void in so many arrays or, with a name, tables. Each array costs five bytes, each table six and its name.
    pub fn nested(depth: usize, name: Option<&[u8]>) -> Self {
        let (kind, name) = name.map_or((b'A', Vec::new()), |name| (b'F', short(name)));
        let level = 5 + name.len();
        let mut bytes = Vec::with_capacity(depth * level + 1);
        for outer in 0..depth {
            let inside = (depth - outer - 1) * level + name.len() + 1;
            bytes.push(kind);
            bytes.extend(size(inside));
            bytes.extend(&name);
        }
        bytes.push(b'V');
        Self(bytes)
    }

    /// As it is written.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The properties of a message: flags, and a list of those that the flags name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    values: [Option<Vec<u8>>; Property::COUNT],
    extra_flags: u16,
}

impl Properties {
    /// With a short string.
    #[must_use]
    pub fn with(self, property: Property, text: &[u8]) -> Self {
        self.with_bytes(property, short(text))
    }

    /// With these headers in this order; names may occur twice.
    #[must_use]
    pub fn with_headers(self, headers: &[(&[u8], Value)]) -> Self {
        self.with_bytes(Property::Headers, long(&fields(headers)))
    }

    /// With the bytes of a property as they are written, fitting or not.
    #[must_use]
    pub fn with_bytes(mut self, property: Property, bytes: Vec<u8>) -> Self {
        self.values[property as usize] = Some(bytes);
        self
    }

    /// With flags of which no property is.
    #[must_use]
    pub fn with_flags(self, extra_flags: u16) -> Self {
        Self { extra_flags, ..self }
    }

    /// As they are written.
    pub fn bytes(&self) -> Vec<u8> {
        let present = self.values.iter().enumerate().filter(|(_, value)| value.is_some());
        let flags = present.fold(self.extra_flags, |flags, (index, _)| flags | 1 << (15 - index));
        let mut bytes = flags.to_be_bytes().to_vec();
        self.values.iter().flatten().for_each(|value| bytes.extend(value));
        bytes
    }
}

/// One message as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The exchange; the default one routes by queue names.
    pub exchange: Vec<u8>,
    /// The routing key.
    pub routing_key: Vec<u8>,
    /// Class of the content header: 60.
    pub class: u16,
    /// Weight of the content header: 0.
    pub weight: u16,
    /// Flags and list, as [`Properties::bytes`] gives them.
    pub properties: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
}

impl Content {
    /// To a queue by its name.
    pub fn to(queue: &str, properties: &Properties, body: &[u8]) -> Self {
        Self {
            exchange: Vec::new(),
            routing_key: queue.as_bytes().to_vec(),
            class: 60,
            weight: 0,
            properties: properties.bytes(),
            body: body.to_vec(),
        }
    }

    /// The payload of the content header's frame.
    pub fn header(&self) -> Vec<u8> {
        let size = (self.body.len() as u64).to_be_bytes();
        [&self.class.to_be_bytes()[..], &self.weight.to_be_bytes(), &size, &self.properties].concat()
    }
}

/// A short string.
///
/// # Panics
/// When it is longer than 255 bytes.
pub fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("a short string has up to 255 bytes")], text].concat()
}

/// A long string, which is also a table or an array when it holds their fields.
pub fn long(text: &[u8]) -> Vec<u8> {
    [&size(text.len())[..], text].concat()
}

/// Fields of a table, without their size.
pub fn fields(fields: &[(&[u8], Value)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| [short(name), value.0.clone()].concat()).collect()
}

fn size(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("a part of a frame").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_flags_and_then_their_values_in_the_order_of_the_flags() {
        let properties = Properties::default()
            .with(Property::ClusterId, b"\xff")
            .with_bytes(Property::DeliveryMode, vec![2])
            .with(Property::ContentType, b"");
        assert_eq!(properties.bytes(), [0b1001_0000, 0b0000_0100, 0, 2, 1, 0xff]);
        assert_eq!(Properties::default().with_flags(3).bytes(), [0, 3]);
    }

    #[test]
    fn headers_have_sizes_in_bytes_and_keep_names_that_occur_twice() {
        let headers: [(&[u8], Value); 2] = [(b"a", Value::new(b't', &[7])), (b"a", Value::text(b"x"))];
        let expected = b"\x20\x00\0\0\0\x0c\x01at\x07\x01aS\0\0\0\x01x";
        assert_eq!(Properties::default().with_headers(&headers).bytes(), expected);
    }

    #[test]
    fn nested_values_are_those_that_were_nested_one_by_one() {
        let mut arrays = Value::new(b'V', b"");
        let mut tables = arrays.clone();
        for _ in 0..300 {
            arrays = Value::array(&[arrays]);
            tables = Value::table(&[(b"name", tables)]);
        }
        assert_eq!(Value::nested(300, None), arrays);
        assert_eq!(Value::nested(300, Some(b"name")), tables);
    }

    #[test]
    fn a_content_header_has_class_weight_and_the_size_of_the_body() {
        let content = Content::to("q", &Properties::default(), b"four");
        assert_eq!(content.header(), b"\0\x3c\0\0\0\0\0\0\0\0\0\x04\0\0");
    }
}
