//! Errors as clients see them.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

/// Whose clients read an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `{"error": {"message", "type", "param", "code"}}`.
    OpenAi,
    /// `{"error", "error_type"}`.
    Tgi,
}

impl Family {
    /// Returns the family that a path belongs to.
    pub(crate) fn of_path(path: &str) -> Self {
        match path {
            "/" | "/generate" | "/generate_stream" | "/info" => Self::Tgi,
            _ => Self::OpenAi,
        }
    }
}

/// What kind of error it is. It decides the status and the words of both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The body is no JSON of this route.
    Malformed,
    /// A field's value cannot be used.
    Invalid,
    /// The key is missing or wrong.
    Unauthorized,
    /// No such route.
    NotFound,
    /// No such model.
    UnknownModel,
    /// The route has no such method.
    MethodNotAllowed,
    /// The body did not arrive in time.
    RequestTimeout,
    /// The body is too large.
    TooLarge,
    /// The body is not JSON by its header.
    UnsupportedMediaType,
    /// The queue is full.
    Overloaded,
    /// The model failed on this request.
    Generation,
    /// The server ends, or its model is gone.
    Unavailable,
    /// The request took longer than it may.
    Timeout,
    /// The client reads too slowly.
    SlowReader,
}

impl Kind {
    fn status(self, family: Family) -> StatusCode {
        match self {
            Self::Invalid if family == Family::Tgi => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Malformed | Self::Invalid => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotFound | Self::UnknownModel => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Generation if family == Family::Tgi => StatusCode::FAILED_DEPENDENCY,
            Self::Generation => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable | Self::SlowReader => StatusCode::SERVICE_UNAVAILABLE,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Returns OpenAI's `type` and `code`.
    fn openai(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::Malformed
            | Self::Invalid
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::RequestTimeout
            | Self::UnsupportedMediaType => ("invalid_request_error", None),
            Self::TooLarge => ("invalid_request_error", Some("request_too_large")),
            Self::Unauthorized => ("authentication_error", Some("invalid_api_key")),
            Self::UnknownModel => ("invalid_request_error", Some("model_not_found")),
            Self::Overloaded => ("rate_limit_error", Some("overloaded")),
            Self::Generation => ("server_error", Some("generation_error")),
            Self::Unavailable => ("server_error", Some("unavailable")),
            Self::Timeout => ("server_error", Some("timeout")),
            Self::SlowReader => ("server_error", Some("slow_reader")),
        }
    }

    /// Returns TGI's `error_type`.
    fn tgi(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::Overloaded => "overloaded",
            Self::Generation => "generation",
            Self::Unavailable => "unhealthy",
            Self::Timeout | Self::SlowReader => "incomplete_generation",
            _ => "validation",
        }
    }

    /// Returns the word for metrics and logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::UnknownModel => "unknown_model",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method",
            Self::RequestTimeout => "request_timeout",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "media_type",
            Self::Timeout => "timeout",
            Self::SlowReader => "slow_reader",
            kind => kind.tgi(),
        }
    }
}

/// An error to answer with.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) kind: Kind,
    pub(crate) message: String,
    /// The field that it is about.
    pub(crate) param: Option<String>,
}

impl ApiError {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), param: None }
    }

    /// A field's value cannot be used.
    pub(crate) fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(Kind::Invalid, message) }
    }

    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(Kind::Malformed, message)
    }

    /// Returns the JSON of a family. Streams send it as an event.
    pub(crate) fn json(&self, family: Family) -> Value {
        match family {
            Family::OpenAi => {
                let (kind, code) = self.kind.openai();
                let Self { message, param, .. } = self;
                json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
            }
            Family::Tgi => json!({"error": self.message, "error_type": self.kind.tgi()}),
        }
    }

    /// Returns the whole response.
    pub(crate) fn response(&self, family: Family) -> Response<Body> {
        let mut response = Response::new(Body::from(self.json(family).to_string()));
        *response.status_mut() = self.kind.status(family);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let close = HeaderValue::from_static("close");
        match self.kind {
            Kind::Overloaded | Kind::Unavailable => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Kind::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // What is left of the body is not read.
            Kind::TooLarge | Kind::RequestTimeout => {
                headers.insert(header::CONNECTION, close);
            }
            _ => {}
        }
        response
    }
}
