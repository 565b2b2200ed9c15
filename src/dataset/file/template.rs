//! Templates of task files: Jinja, rendered by minijinja. An undefined name is an error, and time and output are bounded.

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Expression, UndefinedBehavior};

use super::functions;

/// Most instructions that one rendering may execute. A prompt of a few hundred options takes a few thousand.
const FUEL: u64 = 2_000_000;
/// Most bytes of one rendered text.
const MOST_BYTES: usize = 8 << 20;

/// Most bytes of a template from its first code on, and of an expression. Reading one takes stack for every operator.
const MOST_CODE: usize = 16 << 10;

/// The templates of a task file, by name.
#[derive(Debug)]
pub(crate) struct Templates(Environment<'static>);

impl Templates {
    /// Creates an empty set with the named functions.
    pub(crate) fn new() -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_syntax(plain_syntax());
        // A prompt is plain text, whatever the template's name ends in.
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_fuel(Some(FUEL));
        functions::add(&mut env);
        Self(env)
    }

    /// Adds a template. Returns the names that it uses and does not define.
    ///
    /// # Errors
    /// What is wrong with the template, with its line.
    pub(crate) fn add(&mut self, name: &str, source: String) -> Result<Vec<String>, String> {
        let code = ["{{", "{%"].into_iter().filter_map(|mark| source.find(mark)).min();
        code.map_or(Ok(()), |start| check_code(&source[start..]))?;
        self.0.add_template_owned(name.to_owned(), source).map_err(|error| message(&error))?;
        let template = self.0.get_template(name).map_err(|error| message(&error))?;
        let mut names: Vec<String> = template.undeclared_variables(false).into_iter().collect();
        names.retain(|name| !self.is_function(name));
        names.sort();
        Ok(names)
    }

    /// Whether a name is a function that every template has.
    pub(super) fn is_function(&self, name: &str) -> bool {
        self.0.globals().any(|(global, _)| global == name)
    }

    /// Renders a template.
    ///
    /// # Errors
    /// A name is undefined, a function refuses its arguments, or a bound is reached.
    pub(crate) fn render(&self, name: &str, context: &Value) -> Result<String, String> {
        let template = self.0.get_template(name).map_err(|error| message(&error))?;
        let mut text = Bounded(Vec::new());
        template.render_captured_to(context.clone(), &mut text).map_err(|error| message(&error))?;
        String::from_utf8(text.0).map_err(|error| error.to_string())
    }

    /// Compiles an expression over the columns of a row.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn expression<'a>(&'a self, source: &'a str) -> Result<Expression<'a, 'a>, String> {
        check_code(source)?;
        self.0.compile_expression(source).map_err(|error| message(&error))
    }
}

/// Refuses code that could exhaust the stack while it is read.
fn check_code(code: &str) -> Result<(), String> {
    if code.len() > MOST_CODE {
        return Err(format!("found {} bytes of code; expected at most {MOST_CODE}", code.len()));
    }
    Ok(())
}

/// Jinja's syntax, with every line end kept.
fn plain_syntax() -> SyntaxConfig {
    let built = SyntaxConfig::builder().keep_trailing_newline(true).build();
    built.expect("invariant: the default delimiters are valid")
}

/// A text that is refused beyond [`MOST_BYTES`].
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_BYTES {
            return Err(io::Error::other(format!("the text grows beyond {MOST_BYTES} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says what is wrong, without the engine's own words for files.
pub(super) fn message(error: &Error) -> String {
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "the template takes too long; expected one without endless loops".to_owned(),
        ErrorKind::WriteFailure => {
            let source = std::error::Error::source(error).map(ToString::to_string);
            source.unwrap_or_else(|| "the text cannot be written".to_owned())
        }
        kind => match error.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    };
    match error.line() {
        Some(line) if line > 1 => format!("{what} (line {line} of the template)"),
        _ => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::context;

    fn render(source: &str) -> Result<String, String> {
        let mut templates = Templates::new();
        templates.add("t", source.into())?;
        templates.render("t", &context! { a => "x", list => ["p", "q"] })
    }

    #[test]
    fn text_stays_as_it_is() {
        assert_eq!(render("{{ a }}<&>\n").unwrap(), "x<&>\n");
        assert_eq!(
            render("{% for o in list %}{{ letter(loop.index0) }}. {{ o }}\n{% endfor %}").unwrap(),
            "A. p\nB. q\n"
        );
    }

    #[test]
    fn an_undefined_name_is_an_error_and_is_listed() {
        let mut templates = Templates::new();
        assert_eq!(templates.add("t", "{{ a }}{{ b }}{{ letter(1) }}".into()).unwrap(), ["a", "b"]);
        assert!(render("{{ b }}").unwrap_err().contains("undefined"));
        assert!(render("{{ a").unwrap_err().contains("syntax error"));
    }

    #[test]
    fn code_that_would_exhaust_the_stack_is_refused() {
        let deep = "-".repeat(100_000);
        assert!(render(&format!("{{{{ {deep}1 }}}}")).unwrap_err().contains("bytes of code"));
        assert!(Templates::new().expression(&format!("{deep}1")).unwrap_err().contains("bytes of code"));
        assert_eq!(render(&format!("{}{{{{ a }}}}", "-".repeat(100_000))).unwrap().len(), 100_001);
    }

    #[test]
    fn time_and_output_are_bounded() {
        let loops = "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}";
        assert!(render(loops).unwrap_err().contains("takes too long"));
        let grows = format!("{{% for a in range(9000) %}}{}{{% endfor %}}", "0123456789".repeat(100));
        assert!(render(&grows).unwrap_err().contains("grows beyond"));
    }
}
