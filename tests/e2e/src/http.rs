//! A plain HTTP/1.1 client over a socket: one connection a call, so that a cut answer is seen as cut.
//! Small on purpose: the tests speak to the wire, not to a library's idea of it.

use serde::Serialize;
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// Where to ask and as whom.
#[derive(Debug, Clone)]
pub struct Http {
    /// The platform's address.
    pub address: SocketAddr,
    /// Bearer token; none: anonymous.
    pub token: Option<String>,
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Body bytes.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `Null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body of a call that must have worked.
    #[track_caller]
    pub fn expect_ok(&self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            self.text()
        );
        self.json()
    }
}

impl Http {
    /// The same address as somebody else.
    pub fn with_token(&self, token: Option<&str>) -> Http {
        Http {
            address: self.address,
            token: token.map(str::to_owned),
        }
    }

    /// A read that must work.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        match self.send("GET", path, None, b"") {
            Ok(reply) => reply.expect_ok(),
            Err(error) => panic!("GET {path}: {error}"),
        }
    }

    /// A call with a JSON body and an idempotency key; an error means that the outcome is unknown.
    pub fn change(
        &self,
        method: &str,
        path: &str,
        key: &str,
        body: &impl Serialize,
    ) -> io::Result<Reply> {
        let body = serde_json::to_vec(body)?;
        self.send(method, path, Some(key), &body)
    }

    /// One call.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        key: Option<&str>,
        body: &[u8],
    ) -> io::Result<Reply> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER_WITHIN)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\nContent-Type: application/json\r\n",
            self.address,
            body.len()
        );
        if let Some(token) = &self.token {
            head.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        if let Some(key) = key {
            head.push_str(&format!("Idempotency-Key: {key}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse(&answer, method == "HEAD")
    }
}

fn cut(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("the answer was cut: {what}"),
    )
}

fn parse(answer: &[u8], head_only: bool) -> io::Result<Reply> {
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or_else(|| cut("no head"))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let mut lines = head.split("\r\n");
    let status: u16 = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| cut("no status"))?;
    let header = |wanted: &str| {
        head.split("\r\n").skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted)
                .then(|| value.trim().to_owned())
        })
    };
    let rest = &answer[end + 4..];
    let body = if head_only {
        Vec::new()
    } else if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        unchunk(rest)?
    } else if let Some(length) = header("content-length").and_then(|text| text.parse().ok()) {
        rest.get(..length)
            .ok_or_else(|| cut("body shorter than promised"))?
            .to_vec()
    } else {
        rest.to_vec()
    };
    Ok(Reply { status, body })
}

fn unchunk(mut rest: &[u8]) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .ok_or_else(|| cut("chunk"))?;
        let size = std::str::from_utf8(&rest[..line])
            .ok()
            .and_then(|text| {
                usize::from_str_radix(text.split(';').next().unwrap_or("").trim(), 16).ok()
            })
            .ok_or_else(|| cut("chunk size"))?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Ok(body);
        }
        body.extend_from_slice(rest.get(..size).ok_or_else(|| cut("chunk"))?);
        rest = rest.get(size + 2..).ok_or_else(|| cut("chunk end"))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_answer_is_an_error_and_never_half_a_body() {
        let whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(whole, false).unwrap().body, b"abcde");
        for length in 0..whole.len() - 4 {
            assert!(parse(&whole[..length], false).is_err(), "{length}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab", false).is_err());
    }
}
