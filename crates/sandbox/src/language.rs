//! Languages of programs.

use std::fmt;

/// A language that the sandbox compiles or interprets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// C++11.
    Cpp,
    /// Go, as a file of tests.
    Go,
    /// Java, with the class `Main`.
    Java,
    /// JavaScript.
    JavaScript,
    /// Python 3.
    Python,
}

impl Language {
    /// All languages, by name.
    pub const ALL: [Self; 5] = [Self::Cpp, Self::Go, Self::Java, Self::JavaScript, Self::Python];

    /// Returns the name that task files use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpp => "cpp",
            Self::Go => "go",
            Self::Java => "java",
            Self::JavaScript => "javascript",
            Self::Python => "python",
        }
    }

    /// Returns the language of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.name() == name)
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
