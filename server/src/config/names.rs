//! Names that a setting allows.

/// `*`, or names with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    Any,
    Listed(Vec<String>),
}

impl Names {
    /// `None` where no name is given.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let names: Vec<String> =
            text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        match names.iter().any(|name| name == "*") {
            true => Some(Self::Any),
            false if names.is_empty() => None,
            false => Some(Self::Listed(names)),
        }
    }

    /// Host names and origins are the same in capitals.
    pub fn contain(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(names) => names.iter().any(|listed| listed.eq_ignore_ascii_case(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_or_all() {
        assert_eq!(Names::of(" , "), None);
        assert_eq!(Names::of("a,*"), Some(Names::Any));
        let listed = Names::of("a.example, B.example").unwrap();
        assert!(listed.contain("A.example") && listed.contain("b.example") && !listed.contain("c"));
        assert!(Names::Any.contain(""));
    }
}
