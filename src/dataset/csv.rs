//! A strict reader of RFC 4180: comma-separated fields, `"` quoting, records ended by LF or CRLF.
//!
//! Lenient readers turn an unclosed quote into one huge field, lose the rows behind it, and miscount lines under CRLF.
//! A benchmark must not lose a row, so this reader enforces the grammar and records the line on which each record
//! starts.

/// One record and the line (counted from 1) on which it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Line of the first character of the record, counted from 1.
    pub line: u64,
    /// The fields, unquoted.
    pub fields: Vec<String>,
}

/// Where and how the text breaks the grammar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CsvError {
    /// Line on which the broken record starts.
    pub line: u64,
    /// What was found and what was expected.
    pub message: String,
}

/// Splits `text` into records and skips blank lines. Reading ends at the first broken record, since record boundaries
/// after it are unknown. The error comes with the records before it.
pub(super) fn records(text: &str) -> (Vec<Record>, Option<CsvError>) {
    let mut scanner = Scanner { rest: text, line: 1 };
    let mut records = Vec::new();
    while !scanner.rest.is_empty() {
        if scanner.eat_line_end() {
            continue;
        }
        let line = scanner.line;
        match scanner.record() {
            Ok(fields) => records.push(Record { line, fields }),
            Err(message) => return (records, Some(CsvError { line, message })),
        }
    }
    (records, None)
}

struct Scanner<'a> {
    rest: &'a str,
    line: u64,
}

impl Scanner<'_> {
    fn record(&mut self) -> Result<Vec<String>, String> {
        let mut fields = Vec::new();
        loop {
            fields.push(if self.rest.starts_with('"') { self.quoted()? } else { self.plain() });
            if self.eat(",") {
                continue;
            }
            if self.rest.is_empty() || self.eat_line_end() {
                return Ok(fields);
            }
            // `plain` stops at a comma or a line end, so only a quoted field gets here.
            let found = self.rest.chars().next().unwrap_or_default();
            return Err(format!(
                "found {found:?} after the closing quote of field {} (line {}); expected a comma or the end of the line. A quote inside a quoted field is written twice",
                fields.len(),
                self.line
            ));
        }
    }

    /// Reads a field that does not start with a quote, up to the comma or line end. A quote inside such a field is an
    /// ordinary character, as in every reader of these files.
    fn plain(&mut self) -> String {
        let end = self.rest.find([',', '\n']).unwrap_or(self.rest.len());
        let (field, rest) = self.rest.split_at(end);
        // The carriage return is part of the line end, not of the field.
        let cut = if rest.starts_with('\n') && field.ends_with('\r') { end - 1 } else { end };
        self.take(cut)
    }

    fn quoted(&mut self) -> Result<String, String> {
        let opened = self.line;
        self.rest = &self.rest[1..];
        let mut field = String::new();
        loop {
            let Some(quote) = self.rest.find('"') else {
                return Err(format!(
                    "the quote opened on line {opened} is never closed; expected a closing quote"
                ));
            };
            field.push_str(&self.take(quote));
            self.rest = &self.rest[1..];
            if self.eat("\"") {
                field.push('"');
            } else {
                return Ok(field);
            }
        }
    }

    /// Takes `bytes` bytes and counts the lines in them.
    fn take(&mut self, bytes: usize) -> String {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.bytes().filter(|&b| b == b'\n').count() as u64;
        self.rest = rest;
        taken.to_owned()
    }

    fn eat(&mut self, token: &str) -> bool {
        self.rest.strip_prefix(token).map(|rest| self.rest = rest).is_some()
    }

    fn eat_line_end(&mut self) -> bool {
        let eaten = self.eat("\r\n") || self.eat("\n");
        self.line += u64::from(eaten);
        eaten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<Vec<String>> {
        let (records, error) = records(text);
        assert_eq!(error, None);
        records.into_iter().map(|r| r.fields).collect()
    }

    #[test]
    fn quotes_commas_and_newlines_inside_a_field_belong_to_it() {
        assert_eq!(fields("a,\"b,\"\"c\"\"\nd\",e\n"), [["a", "b,\"c\"\nd", "e"]]);
        assert_eq!(fields("a,b"), [["a", "b"]]);
        assert_eq!(fields(",\n"), [["", ""]]);
        assert_eq!(fields("\"\"\n"), [[""]]);
    }

    #[test]
    fn a_record_knows_the_line_it_starts_on_under_lf_and_crlf() {
        for newline in ["\n", "\r\n"] {
            let text = format!("h,i{newline}\"x{newline}y\",1{newline}{newline}z,2{newline}");
            let lines: Vec<u64> = records(&text).0.iter().map(|r| r.line).collect();
            assert_eq!(lines, [1, 2, 5]);
        }
    }

    #[test]
    fn a_carriage_return_alone_ends_nothing() {
        assert_eq!(fields("a\rb,c\r\nd,e"), [["a\rb", "c"], ["d", "e"]]);
    }

    #[test]
    fn an_unclosed_quote_is_an_error_at_its_record() {
        let (before, error) = records("a,b\nc,\"d\ne,f\n");
        assert_eq!(before.len(), 1);
        let error = error.unwrap();
        assert_eq!(error.line, 2);
        assert!(error.message.contains("never closed"), "{}", error.message);
    }

    #[test]
    fn text_after_a_closing_quote_is_an_error() {
        let error = records("a,b\n\"c\"d,e\n").1.unwrap();
        assert_eq!(error.line, 2);
        assert!(error.message.contains("found 'd' after the closing quote of field 1"), "{}", error.message);
    }

    proptest::proptest! {
        /// Reading returns the records that a correct writer wrote, unchanged.
        #[test]
        fn written_records_are_read_back(rows in proptest::collection::vec(
            proptest::collection::vec("[a\",\r\n 中]{0,6}", 2..4), 0..6)) {
            let mut writer = ::csv::WriterBuilder::new().flexible(true).quote_style(::csv::QuoteStyle::Always).from_writer(Vec::new());
            for row in &rows { writer.write_record(row).unwrap(); }
            let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
            proptest::prop_assert_eq!(fields(&text), rows);
        }

        /// No text makes the reader panic or loop.
        #[test]
        fn any_text_is_answered(text in "[a\",\r\n中]{0,40}") {
            let _ = records(&text);
        }
    }
}
